// How the process driver makes a pod's folder and gets its shim going.
#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cerrno>
#include <cstring>
#include <filesystem>

#include <fmt/format.h>

#include "base/digest.h"
#include "base/failpoint.h"
#include "cluster/embedded/process_entry.h"
#include "cluster/embedded/spawn.h"
#include "resource/labels.h"

namespace metier {
namespace fs = std::filesystem;
namespace {

Result<Fd> memory_file(const char* name, std::string_view text) {
  Fd fd(::memfd_create(name, MFD_CLOEXEC));
  if (!fd) { return fail(errno_error("memfd", errno)); }
  while (!text.empty()) {
    const auto n = ::write(fd.get(), text.data(), text.size());
    if (n < 0) { return fail(errno_error("memfd", errno)); }
    text.remove_prefix(static_cast<std::size_t>(n));
  }
  ::lseek(fd.get(), 0, SEEK_SET);
  return fd;
}

Result<void> make_owned(const std::string& path, unsigned mode, const PodPlan& plan) {
  METIER_CHECK(make_folders(path, mode));
  if (plan.has_identity && plan.uid != 0 && ::chown(path.c_str(), plan.uid, plan.gid) != 0) {
    return fail(errno_error(path, errno));
  }
  return {};
}

}  // namespace

PodPaths ProcessDriver::paths(const std::string& id) const {
  return {.folder = options_.data + "/pods/" + id,
          .memory = options_.memory_folder + "/metier-" + id,
          .shim = options_.shim,
          .runner = options_.runner};
}

Result<void> ProcessDriver::make_folder(const LaunchSpec& spec, const PodPlan& plan, Entry& entry) {
  const auto at = paths(spec.id);
  METIER_CHECK(make_folders(options_.data + "/pods", 0711));
  // Exclusive: whoever makes the folder starts the pod.
  if (::mkdir(at.folder.c_str(), 0711) != 0) {
    if (errno == EEXIST) {
      return fail(ErrorKind::conflict, fmt::format("pod {} was started before", quote(spec.id)));
    }
    return fail(errno_error(at.folder, errno));
  }
  ::chmod(at.folder.c_str(), 0711);
  METIER_CHECK(make_owned(at.folder + "/work", 0700, plan));
  METIER_CHECK(make_owned(at.folder + "/work/tmp", 0700, plan));
  for (const auto& volume : spec.volumes) {
    if (!volume.path.empty()) { continue; }
    if (!volume.memory && volume.files.empty()) {
      METIER_CHECK(make_folders(at.folder + "/volumes", 0711));
      METIER_CHECK(make_owned(at.folder + "/volumes/" + volume.name, 0700, plan));
      continue;
    }
    METIER_CHECK(make_folders(at.memory, 0711));
    const auto folder = at.memory + "/" + volume.name;
    METIER_CHECK(make_owned(folder, 0700, plan));
    for (const auto& [name, content] : volume.files) {
      const auto file = fs::path(folder) / name;
      if (file.lexically_relative(folder).native().starts_with("..")) {
        return fail(invalid("spec.volumes", fmt::format("path {} leaves its volume", quote(name))));
      }
      if (file.parent_path() != folder) {
        METIER_CHECK(make_owned(file.parent_path(), 0700, plan));
      }
      METIER_CHECK(write_file(file, content, 0600));
      if (plan.has_identity && plan.uid != 0 && ::chown(file.c_str(), plan.uid, plan.gid) != 0) {
        return fail(errno_error(file.string(), errno));
      }
    }
  }
  if (!plan.gang.empty()) {
    // One folder per gang; `members` says who still needs it, `tmp` is the pods' own.
    METIER_CHECK(make_folders(options_.data + "/gangs", 0711));
    ::chmod((options_.data + "/gangs").c_str(), 0711);
    METIER_CHECK(make_folders(plan.gang + "/members", 0700));
    ::chmod(plan.gang.c_str(), 0755);
    METIER_CHECK(make_owned(plan.gang + "/tmp", 0700, plan));
    // Segments that the ranks share: an MPI whose launcher is killed leaves them behind.
    METIER_CHECK(make_owned(gang_memory(plan.gang), 0700, plan));
    std::error_code present;
    fs::create_directory_symlink(gang_memory(plan.gang), plan.gang + "/shm", present);
    METIER_CHECK(write_file(plan.gang + "/members/" + spec.id, "", 0600));
    METIER_CHECK(write_file(at.folder + "/gang", plan.gang, 0600));
  }
  if (!spec.hosts.empty()) {
    METIER_CHECK(write_file(at.folder + "/hosts", spec.hosts, 0644));
    ::chmod((at.folder + "/hosts").c_str(), 0644);
  }
  JsonArray conditions;
  for (const auto& one : plan.conditions) {
    conditions.push_back(
        JsonObject{{"type", one.type}, {"reason", one.reason}, {"message", one.message}});
  }
  const auto payload = dump_json(JsonObject{{"conditions", std::move(conditions)},
                                            {"pod_ip", spec.pod_ip},
                                            {"grace_ms", plan.grace_ms},
                                            {"first", spec.pod.containers.front().name}});
  // Not synced: everything in it can be found again from the folder's name.
  METIER_CHECK(write_file(at.folder + "/handle",
                          record_bytes(dump_json(JsonObject{
                              {"driver", "process"}, {"version", 1}, {"payload", payload}}))));
  entry.conditions = plan.conditions;
  for (auto& one : entry.conditions) { one.since = clock_.now(); }
  entry.pod_ip = spec.pod_ip;
  entry.grace = std::chrono::milliseconds(plan.grace_ms);
  entry.first_names = {spec.pod.containers.front().name};
  return {};
}

Result<void> ProcessDriver::spawn_shim(const PodPaths& at, int spec, int control) {
  Spawn spawn;
  spawn.arguments = {options_.shim, "--folder", at.folder, "--spec", "3", "--ctl", "4"};
  spawn.env = options_.shim_env;
  spawn.descriptors = {spec, control};
  METIER_TRY(pid, spawn_program(spawn));
  // The first process forks the shim and leaves: a fraction of a millisecond.
  int status = 0;
  while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) {}
  return {};
}

Result<void> ProcessDriver::launch(const LaunchSpec& spec, const PodPlan& plan,
                                   const EntryPtr& entry, bool zygote) {
  const auto at = paths(spec.id);
  PodGroup group;
  if (plan.limits.any()) {
    METIER_TRY(made, cgroups_->create(spec.id, plan.limits));
    group = std::move(made);
  }
  METIER_CHECK(write_file(at.folder + "/spec", shim_spec(plan, group, false)));
  METIER_TRY(spec_file, memory_file("metier-spec", shim_spec(plan, group, true)));
  std::array<int, 2> ends{};
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends.data()) != 0) {
    return fail(errno_error("socketpair", errno));
  }
  Fd ours(ends[0]);
  const Fd theirs(ends[1]);
  METIER_FAILPOINT_RETURN("driver/launch");
  if (zygote) {
    METIER_TRY(document, memory_file("metier-launch", launch_document(plan, at)));
    const auto& annotations = spec.pod.metadata.annotations;
    const auto preload = annotations.find(std::string(kPreloadAnnotation));
    METIER_CHECK(zygotes_.launch(spec.environment.empty() ? "default" : spec.environment,
                                 spec.python, preload == annotations.end() ? "" : preload->second,
                                 spec.id, document.get(), theirs.get(), spec_file.get()));
  } else {
    METIER_CHECK(spawn_shim(at, spec_file.get(), theirs.get()));
  }
  boost::system::error_code ignored;
  entry->control.close(ignored);
  entry->control.assign(ours.release());
  entry->gone = false;
  if (!scope_.spawn("pod " + spec.id, follow(entry))) {
    return fail(ErrorKind::unavailable, "the server is stopping");
  }
  return {};
}

Async<Result<void>> ProcessDriver::launched(const LaunchSpec& spec, const PodPlan& plan,
                                            const EntryPtr& entry) {
  bool zygote = plan.forkable && options_.use_zygotes;
  while (true) {
    auto started = launch(spec, plan, entry, zygote);
    if (started) {
      while (!entry->heard && !entry->gone && entry->refused.empty()) {
        co_await entry->changed.wait(entry->changed.generation());
      }
      if (entry->heard) { co_return Result<void>{}; }
      if (!entry->refused.empty()) {
        co_return fail(ErrorKind::internal,
                       fmt::format("pod {}: the shim refused: {}", spec.id, entry->refused));
      }
      started = fail(ErrorKind::unavailable,
                     fmt::format("pod {}: its shim ended before it began", spec.id));
    }
    if (!zygote) { co_return started; }
    zygote = false;  // no shim has had the lock, so nothing of the pod ran: start it cold
    options_.log.warn("pod starts cold",
                      {{"pod", Json(spec.id)}, {"why", Json(started.error().message)}});
  }
}

Result<Fd> ProcessDriver::connect(const std::string& id) const {
  const Fd folder(::open(paths(id).folder.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!folder) { return fail(errno_error(paths(id).folder, errno)); }
  Fd fd(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) { return fail(errno_error("socket", errno)); }
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  // Through /proc, so that a long data folder does not matter (108 bytes).
  const auto end = fmt::format_to_n(address.sun_path, sizeof address.sun_path - 1,
                                    "/proc/self/fd/{}/ctl.sock", folder.get());
  *end.out = '\0';
  if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    return fail(errno_error("ctl.sock", errno));
  }
  return fd;
}

// The lock, when no shim has it.
Fd ProcessDriver::take_lock(const std::string& id, bool& held) const {
  Fd fd(::open((paths(id).folder + "/lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  held = fd && ::flock(fd.get(), LOCK_EX | LOCK_NB) != 0;
  if (held) { fd.reset(); }
  return fd;
}

std::string ProcessDriver::gang_memory(const std::string& gang) const {
  return options_.memory_folder + "/metier-gang-" + sha256_hex(gang).substr(0, 16);
}

// The last member's end is the end of what the gang shares.
void ProcessDriver::leave_gang(const std::string& id) const {
  std::error_code ec;
  const auto gang = read_file(paths(id).folder + "/gang");
  if (!gang || gang->empty()) { return; }
  fs::remove(*gang + "/members/" + id, ec);
  if (fs::is_empty(*gang + "/members", ec)) {
    fs::remove_all(gang_memory(*gang), ec);
    fs::remove_all(*gang, ec);
  }
}

void ProcessDriver::remove_traces(const std::string& id) const {
  auto removed = cgroups_->remove(id);
  if (!removed) {
    options_.log.warn("cgroup stays", {{"pod", Json(id)}, {"why", Json(removed.error().message)}});
  }
  const auto at = paths(id);
  std::error_code ec;
  fs::remove_all(at.memory, ec);
  leave_gang(id);
  // Renamed first: a half removed folder must never look like a lost pod.
  const auto gone = options_.data + "/pods/.gone-" + id;
  fs::rename(at.folder, gone, ec);
  fs::remove_all(gone, ec);
}

}  // namespace metier
