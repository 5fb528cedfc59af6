#include "cluster/embedded/process_driver.h"

#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <filesystem>

#include <fmt/format.h>

#include "base/failpoint.h"
#include "base/ports.h"
#include "cluster/controllers/pod_group.h"
#include "cluster/embedded/process_entry.h"
#include "resource/labels.h"

namespace metier {
namespace fs = std::filesystem;
namespace {

constexpr std::size_t kExecOutput = 1U << 20U;

bool good_id(const std::string& id) {
  return !id.empty() && id.size() <= 128 && id[0] != '.' &&
         std::all_of(id.begin(), id.end(), [](char c) {
           return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '-' || c == '_' ||
                  c == '.';
         });
}

std::string read_boot_id() {
  auto text = read_file("/proc/sys/kernel/random/boot_id").value_or("");
  while (!text.empty() && text.back() == '\n') { text.pop_back(); }
  return text;
}

bool older_than_boot(const std::string& file) {
  struct stat info{};
  const auto text = read_file("/proc/stat").value_or("");
  const auto at = text.find("\nbtime ");
  return at != std::string::npos && ::stat(file.c_str(), &info) == 0 &&
         info.st_mtim.tv_sec + 1 < std::strtoll(text.c_str() + at + 7, nullptr, 10);
}

// Errors: unavailable (PortTaken) that names who has one of the ports (kPortsAnnotation) on the pod's address.
Result<void> ports_free(const std::string& address, std::string_view ports) {
  while (!ports.empty()) {
    const auto end = std::min(ports.find(','), ports.size());
    const std::string one(ports.substr(0, end));
    const auto port = static_cast<std::uint16_t>(std::atoi(one.c_str()));
    if (const auto holder = port_holder(address, port); !holder.empty()) {
      const auto setting = one.find('=');
      return fail(
          Error{.kind = ErrorKind::unavailable,
                .message =
                    fmt::format("port {} of its address {} is in use by {}", port, address, holder),
                .field = {},
                .fix = "stop that process, or let it listen on one address only" +
                       (setting == std::string::npos ? "" : ", or set " + one.substr(setting + 1)),
                .code = "PortTaken"});
    }
    ports.remove_prefix(std::min(end + 1, ports.size()));
  }
  return {};
}

std::unexpected<Error> unknown(const std::string& id) {
  return fail(ErrorKind::not_found, fmt::format("there is no pod {} here", quote(id)));
}

}  // namespace

ProcessDriver::ProcessDriver(Executor executor, const Clock& clock, Random& random,
                             std::unique_ptr<Cgroups> cgroups, Options options)
    : executor_(executor),
      clock_(clock),
      random_(random),
      cgroups_(std::move(cgroups)),
      options_(std::move(options)),
      host_(probe_host(options_.force)),
      boot_(read_boot_id()),
      zygotes_(executor, {.runner = options_.runner,
                          .preload = options_.preload,
                          .folder = options_.data + "/zygotes",
                          .log = options_.log,
                          .idle = options_.zygote_idle}),
      scope_(executor) {}

ProcessDriver::~ProcessDriver() = default;

Async<void> ProcessDriver::close() {
  auto closed = co_await scope_.close(std::chrono::seconds(5));
  if (!closed) { options_.log.error(closed.error().message); }
  co_await zygotes_.close();
}

Result<ProcessDriver::EntryPtr> ProcessDriver::entry(const std::string& id) const {
  const auto it = entries_.find(id);
  if (it == entries_.end()) { return unknown(id); }
  return it->second;
}

Async<Result<PodHandle>> ProcessDriver::start(LaunchSpec spec) {
  if (!good_id(spec.id)) {
    co_return fail(
        invalid("metadata.uid", fmt::format("{} is not an id of a pod", quote(spec.id))));
  }
  if (entries_.contains(spec.id)) {
    co_return fail(ErrorKind::conflict, fmt::format("pod {} was started before", quote(spec.id)));
  }
  auto at = paths(spec.id);
  const auto& annotations = spec.pod.metadata.annotations;
  if (const auto ports = annotations.find(std::string(kPortsAnnotation));
      ports != annotations.end()) {
    if (auto free = ports_free(spec.pod_ip, ports->second); !free) {
      co_return fail(std::move(free.error()));
    }
  }
  if (const auto ranks = annotations.find(std::string(kRanksAnnotation));
      ranks != annotations.end() && ranks->second == "true" && !spec.share_group.empty()) {
    at.gang = options_.data + "/gangs/" + spec.share_group;
    at.gang_memory = gang_memory(at.gang);
  }
  auto plan = plan_pod(spec, at, host_, *cgroups_);
  if (!plan) { co_return fail(std::move(plan.error())); }
  const auto id = spec.id;
  auto entry = std::make_shared<Entry>(executor_, id);
  entry->python = spec.python;
  entries_[id] = entry;
  METIER_FAILPOINT("driver/intent");
  auto made = make_folder(spec, *plan, *entry);
  const bool others = !made && made.error().kind == ErrorKind::conflict;
  if (made) {
    METIER_FAILPOINT("driver/folder");
    made = co_await launched(spec, *plan, entry);
  }
  if (!made) {
    entries_.erase(id);
    if (!others) {
      bool held = false;
      const auto lock = take_lock(id, held);  // so that a late shim finds it taken
      remove_traces(id);
    }
    co_return fail(std::move(made.error()));
  }
  co_return PodHandle{.driver = "process",
                      .version = 1,
                      .payload = dump_json(JsonObject{{"folder", paths(id).folder}})};
}

void ProcessDriver::hear(const EntryPtr& entry, std::string_view text) {
  auto document = parse_json(text);
  if (!document || !document->is_object()) {
    options_.log.error("damaged notice", {{"pod", Json(entry->id)}});
    return;
  }
  const auto& object = document->as_object();
  const auto type = string_in(object, "t");
  if (type == "exec") {
    entry->ran[std::string(string_in(object, "id"))] = {
        static_cast<int>(int_in(object, "code").value_or(0)),
        static_cast<int>(int_in(object, "signal").value_or(0))};
    entry->changed.notify();
    return;
  }
  if (type == "refused") {
    entry->refused = fmt::format("{} (errno {})", string_in(object, "what"),
                                 int_in(object, "errno").value_or(0));
    entry->changed.notify();
    return;
  }
  auto record = read_pod_record(text);
  if (!record) {
    options_.log.error("damaged notice",
                       {{"pod", Json(entry->id)}, {"why", Json(record.error().message)}});
    return;
  }
  if (entry->ended) { return; }  // terminal states never change
  entry->last_state = text;
  entry->status = std::move(record->status);
  entry->mains = std::move(record->mains);
  entry->shim = record->shim;
  entry->ended = record->ended;
  entry->heard = true;
  if (entry->ended) { leave_gang(entry->id); }
  publish(entry);
}

void ProcessDriver::publish(const EntryPtr& entry) {
  entry->status.pod_ip = entry->pod_ip;
  for (const auto& condition : entry->conditions) { set_condition(entry->status, condition); }
  entry->changed.notify();
  for (const auto& listener : listeners_) { listener(entry->id, entry->status); }
}

// An ended pod's record; false when there is none that can be read.
bool ProcessDriver::load_exit(const EntryPtr& entry) {
  const auto body = read_record(paths(entry->id).folder + "/exit");
  if (!body) { return false; }
  hear(entry, *body);
  return entry->ended;
}

Async<void> ProcessDriver::follow(EntryPtr entry) {
  while (!entry->ended) {
    boost::system::error_code ec;
    co_await entry->control.async_wait(asio::posix::descriptor_base::wait_read,
                                       asio::redirect_error(use_async, ec));
    if (ec) { co_return; }  // closing: the pod lives on
    // One for all pods: it is done with before the next await.
    static thread_local std::string message(192U << 10U, '\0');
    const auto n =
        ::recv(entry->control.native_handle(), message.data(), message.size(), MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) { continue; }
    if (n <= 0) { break; }
    hear(entry, std::string_view(message.data(), static_cast<std::size_t>(n)));
    if (!entry->refused.empty()) { co_return; }
  }
  boost::system::error_code ignored;
  entry->control.close(ignored);
  if (entry->ended) { co_return; }
  std::error_code missing;
  if (!entry->heard && !fs::exists(paths(entry->id).folder + "/lock", missing)) {
    entry->gone = true;
    entry->changed.notify();
    co_return;
  }
  co_await resume(entry);
}

// The connection is gone, or there never was one: the pod has ended, its shim lives, or it is lost.
Async<void> ProcessDriver::resume(EntryPtr entry) {
  auto pause = std::chrono::milliseconds(1);
  while (!entry->ended) {
    if (load_exit(entry)) { co_return; }
    auto connection = connect(entry->id);
    if (connection) {
      entry->control.assign(connection->release());
      co_await follow(entry);
      co_return;
    }
    bool held = false;
    auto lock = take_lock(entry->id, held);
    if (!held) {
      if (load_exit(entry)) { co_return; }  // it ended between the two looks
      co_await lost(entry, std::move(lock));
      co_return;
    }
    // A shim that has the lock and does not listen yet, or no longer: it is starting or writing `exit`.
    co_await sleep_for(executor_, pause);
    if (pause < std::chrono::milliseconds(500)) { pause *= 2; }
    if ((co_await asio::this_coro::cancellation_state).cancelled() !=
        asio::cancellation_type::none) {
      co_return;
    }
  }
}

// No shim and no `exit`: ends what is left of the pod, then says so durably. The lock keeps a late shim away.
Async<void> ProcessDriver::lost(EntryPtr entry, Fd lock) {
  const auto folder = paths(entry->id).folder;
  std::error_code ec;
  const bool folder_lost = !fs::exists(folder, ec);
  auto state = read_record(folder + "/state").value_or(entry->last_state);
  const auto record = read_pod_record(state);
  // A state that did not survive the power loss: then the lock's own age tells.
  const bool rebooted = record ? record->boot != boot_ : older_than_boot(folder + "/lock");
  const int struck =
      rebooted ? 0 : co_await strike(entry->id, record ? record->mains : entry->mains);
  if ((co_await asio::this_coro::cancellation_state).cancelled() != asio::cancellation_type::none) {
    co_return;
  }
  const auto reason = rebooted ? "HostRebooted" : folder_lost ? "FolderLost" : "ShimLost";
  const auto message =
      rebooted      ? std::string("the machine was restarted while the pod ran")
      : folder_lost ? std::string("the pod's folder was removed while it ran")
                    : fmt::format("the pod's supervisor was killed; its exit status is not known{}",
                                  struck > 0 ? ", what was left of it was ended" : "");
  const auto text = lost_record(state, entry->id, reason, message, clock_.now());
  if (!folder_lost) {
    auto written = write_record(folder + "/exit", text);
    if (!written) {
      options_.log.error("exit is not recorded",
                         {{"pod", Json(entry->id)}, {"why", Json(written.error().message)}});
    }
  }
  hear(entry, text);
}

// Ends every process of a pod that has no shim; how many were struck.
Async<int> ProcessDriver::strike(std::string id, std::vector<KnownMain> mains) {
  int struck = 0;
  auto pause = std::chrono::milliseconds(1);
  const auto until = clock_.steady() + std::chrono::seconds(10);
  while (clock_.steady() < until) {
    auto left = pod_processes(id, mains);
    for (const int pid : cgroups_->members(id)) { left.push_back(pid); }
    if (left.empty()) { break; }
    for (const int pid : left) { struck += ::kill(pid, SIGKILL) == 0 ? 1 : 0; }
    co_await sleep_for(executor_, pause);
    if ((co_await asio::this_coro::cancellation_state).cancelled() !=
        asio::cancellation_type::none) {
      break;
    }
    pause = std::min(pause * 2, std::chrono::milliseconds(100));
  }
  co_return struck;
}

// A server that died between asking for a pod and the shim's first step. The shim writes `state` before it
// releases the pod, so without one no user code has run; holding the lock until the folder is gone keeps a shim
// that is still on its way from starting it. After a restart of the machine nothing of this can be known.
Async<bool> ProcessDriver::never_began(std::string id) {
  bool held = false;
  const auto lock = take_lock(id, held);
  const auto folder = paths(id).folder;
  std::error_code ec;
  if (held || !lock || fs::exists(folder + "/state", ec) || older_than_boot(folder + "/spec")) {
    co_return false;
  }
  (void)co_await strike(id, {});
  remove_traces(id);
  co_return true;
}

Async<Result<void>> ProcessDriver::recover(std::string id, PodHandle handle) {
  if (!good_id(id)) { co_return unknown(id); }
  if (entries_.contains(id)) { co_return Result<void>{}; }
  if (!handle.driver.empty() && (handle.driver != "process" || handle.version > 1)) {
    co_return fail(
        ErrorKind::unsupported,
        fmt::format(
            "the handle of pod {} is of {} version {}, this program knows process version 1", id,
            handle.driver, handle.version));
  }
  const auto folder = paths(id).folder;
  std::error_code ec;
  if (!fs::exists(folder, ec)) { co_return unknown(id); }
  auto entry = std::make_shared<Entry>(executor_, id);
  if (auto stored = read_record(folder + "/handle")) {
    if (auto outer = parse_json(*stored); outer && outer->is_object()) {
      if (auto inner = parse_json(string_in(outer->as_object(), "payload"));
          inner && inner->is_object()) {
        const auto& payload = inner->as_object();
        entry->pod_ip = string_in(payload, "pod_ip");
        if (const auto grace = int_in(payload, "grace_ms")) {
          entry->grace = std::chrono::milliseconds(*grace);
        }
        entry->first_names = {std::string(string_in(payload, "first"))};
        if (const auto* conditions = array_in(payload, "conditions")) {
          for (const auto& one : *conditions) {
            if (!one.is_object()) { continue; }
            const auto& object = one.as_object();
            entry->conditions.push_back({.type = std::string(string_in(object, "type")),
                                         .reason = std::string(string_in(object, "reason")),
                                         .message = std::string(string_in(object, "message")),
                                         .since = clock_.now()});
          }
        }
      }
    }
  }
  entries_[id] = entry;
  if (load_exit(entry)) { co_return Result<void>{}; }
  const bool empty = co_await never_began(id);
  if (empty) {
    entries_.erase(id);
    co_return unknown(id);
  }
  if (!scope_.spawn("pod " + id, resume(entry))) {
    entries_.erase(id);
    co_return fail(ErrorKind::unavailable, "the server is stopping");
  }
  while (!entry->heard) { co_await entry->changed.wait(entry->changed.generation()); }
  co_return Result<void>{};
}

Async<Result<std::vector<std::string>>> ProcessDriver::found() {
  std::vector<std::string> out;
  std::error_code ec;
  for (const auto& one : fs::directory_iterator(options_.data + "/pods", ec)) {
    const auto name = one.path().filename().string();
    if (name.starts_with(".gone-")) {
      fs::remove_all(one.path(), ec);
    } else if (one.is_directory(ec) && good_id(name)) {
      out.push_back(name);
    }
  }
  std::sort(out.begin(), out.end());
  co_return out;
}

Async<Result<PodStatus>> ProcessDriver::status(std::string id) {
  auto known = entry(id);
  if (!known) { co_return fail(std::move(known.error())); }
  co_return (*known)->status;
}

Async<Result<PodStatus>> ProcessDriver::wait(std::string id) {
  auto known = entry(id);
  if (!known) { co_return fail(std::move(known.error())); }
  const auto entry = *known;
  while (!entry->ended) {
    co_await entry->changed.wait(entry->changed.generation());
    if (!entry->ended && !entries_.contains(id)) { co_return unknown(id); }  // its start failed
  }
  co_return entry->status;
}

void ProcessDriver::on_change(
    std::function<void(const std::string& id, const PodStatus&)> listener) {
  listeners_.push_back(std::move(listener));
}

Result<void> ProcessDriver::send(const Entry& entry, const std::string& message) const {
  if (!entry.control.is_open()) {
    return fail(ErrorKind::unavailable,
                fmt::format("the shim of pod {} is not connected", entry.id));
  }
  // `native_handle` is not const in Asio.
  auto& control = const_cast<Entry&>(entry).control;
  if (::send(control.native_handle(), message.data(), message.size(), MSG_NOSIGNAL | MSG_DONTWAIT) <
      0) {
    return fail(
        errno == EMSGSIZE ? ErrorKind::too_large : ErrorKind::unavailable,
        fmt::format("the shim of pod {}: {}", entry.id, errno_error("send", errno).message));
  }
  return {};
}

Async<Result<ExecResult>> ProcessDriver::exec(std::string id, std::string container,
                                              ExecSpec spec) {
  auto known = entry(id);
  if (!known) { co_return fail(std::move(known.error())); }
  const auto entry = *known;
  if (entry->ended) {
    co_return fail(ErrorKind::conflict, fmt::format("pod {} has ended", quote(id)));
  }
  if (spec.command.empty()) { co_return fail(invalid("command", "no command is given")); }
  const auto& containers = entry->status.containers;
  if (!container.empty() &&
      std::none_of(containers.begin(), containers.end(),
                   [&](const auto& one) { return !one.init && one.name == container; })) {
    co_return fail(ErrorKind::not_found,
                   fmt::format("pod {} has no container {}", quote(id), quote(container)));
  }
  const auto exec_id = random_.hex(8);
  std::string message = "exec";
  const auto add = [&message](std::string_view text) {
    message += '\0';
    message += text;
  };
  add(exec_id);
  add(container);
  add(spec.working_dir);
  add(std::to_string(spec.command.size()));
  for (const auto& word : spec.command) { add(word); }
  for (const auto& [name, value] : spec.env) { add(name + "=" + value); }
  if (message.size() > (128U << 10U)) {
    co_return fail(
        ErrorKind::too_large,
        fmt::format("the command is {} bytes, at most 128 KiB are passed", message.size()));
  }
  auto sent = send(*entry, message);
  if (!sent) { co_return fail(std::move(sent.error())); }
  while (!entry->ended && !entry->ran.contains(exec_id)) {
    co_await entry->changed.wait(entry->changed.generation());
  }
  ExecResult result{.id = exec_id};
  const auto it = entry->ran.find(exec_id);
  if (it == entry->ran.end()) {
    co_return fail(ErrorKind::cancelled, fmt::format("pod {} ended before the command", quote(id)));
  }
  result.signal = it->second.signal;
  result.exit_code = it->second.signal != 0 ? 128 + it->second.signal : it->second.code;
  entry->ran.erase(it);
  const auto log = paths(id).folder + "/exec." + exec_id + ".log";
  std::error_code ec;
  if (fs::file_size(log, ec) > kExecOutput) { fs::resize_file(log, kExecOutput, ec); }
  result.output = read_file(log).value_or("");
  co_return result;
}

Async<Result<void>> ProcessDriver::stop(std::string id, StopOptions options) {
  auto known = entry(id);
  if (!known) { co_return fail(std::move(known.error())); }
  const auto entry = *known;
  if (entry->ended || options.how == StopOptions::How::detach) { co_return Result<void>{}; }
  std::string message = options.how == StopOptions::How::forced ? "kill" : "stop";
  const auto grace = options.grace.value_or(entry->grace);
  for (const auto& word : {std::to_string(grace.count()), options.reason, options.message}) {
    message += '\0';
    message += word.substr(0, 4096);
  }
  message += '\0';
  auto sent = send(*entry, message);
  // No shim to ask: it is ending, or `lost` ends what is left.
  if (!sent && sent.error().kind == ErrorKind::unavailable) { co_return Result<void>{}; }
  co_return sent;
}

Async<Result<void>> ProcessDriver::signal(std::string id, int number) {
  auto known = entry(id);
  if (!known) { co_return fail(std::move(known.error())); }
  std::string message = "signal";
  message += '\0';
  message += std::to_string(number);
  message += '\0';
  co_return send(**known, message);
}

Async<Result<void>> ProcessDriver::destroy(std::string id) {
  auto known = entry(id);
  if (!known) { co_return fail(std::move(known.error())); }
  if (!(*known)->ended) {
    co_return fail(Error{.kind = ErrorKind::conflict,
                         .message = fmt::format("pod {} is live", quote(id)),
                         .fix = "stop it first"});
  }
  entries_.erase(id);
  remove_traces(id);
  co_return Result<void>{};
}

Async<Result<Usage>> ProcessDriver::usage(std::string id) {
  auto known = entry(id);
  if (!known) { co_return fail(std::move(known.error())); }
  const auto entry = *known;
  Usage out;
  if (!entry->ended && entry->shim > 0) { out = tree_usage(entry->shim); }
  if (const auto group = cgroups_->usage(id)) {
    if (group->cpu_us > 0) { out.cpu_us = group->cpu_us; }
    out.memory = group->memory;
    out.peak_memory = group->peak_memory;
  }
  if (entry->ended) {
    for (const auto& container : entry->status.containers) {
      out.cpu_us = std::max(out.cpu_us, container.cpu_us);
      out.peak_memory = std::max(out.peak_memory, container.peak_memory);
    }
  }
  co_return out;
}

Result<std::string> ProcessDriver::log_path(const std::string& id, const std::string& container,
                                            int attempt) const {
  METIER_TRY(known, entry(id));
  const auto& first = known->first_names.empty() ? std::string() : known->first_names.front();
  const auto& containers = known->status.containers;
  const auto wanted = container.empty() ? first : container;
  const auto it = std::find_if(containers.begin(), containers.end(),
                               [&](const auto& one) { return one.name == wanted; });
  // A shim that was lost at once has reported no container.
  if (it == containers.end() && !(containers.empty() && wanted == first)) {
    return fail(ErrorKind::not_found,
                fmt::format("pod {} has no container {}", quote(id), quote(wanted)));
  }
  const int latest = it == containers.end() ? 1 : it->restarts + 1;
  if (attempt < 0 || attempt > latest) {
    return fail(ErrorKind::not_found,
                fmt::format("container {} was started {} times, there is no attempt {}",
                            quote(wanted), latest, attempt));
  }
  return paths(id).folder + "/" +
         log_name(wanted, wanted == first, attempt == 0 ? latest : attempt);
}

Result<std::string> ProcessDriver::work_folder(const std::string& id) const {
  METIER_CHECK(entry(id));
  return paths(id).folder + "/work";
}

std::vector<Condition> ProcessDriver::limits_of_host() const {
  std::vector<Condition> out;
  if (!cgroups_->limits_memory()) {
    out.push_back({.type = "LimitNotEnforced",
                   .reason = "Memory",
                   .message = "memory limits hold per process only: " + cgroups_->about()});
  }
  if (!cgroups_->limits_cpu()) {
    out.push_back({.type = "LimitNotEnforced",
                   .reason = "Cpu",
                   .message = "cpu limits are not enforced: " + cgroups_->about()});
  }
  if (!host_.mount_namespace) {
    out.push_back({.type = "NoMountNamespace",
                   .reason = "NoMountNamespace",
                   .message = "volumes cannot be at other paths and names do not resolve in pods"});
  }
  if (host_.root) {
    out.push_back(
        {.type = "RunsAsRoot",
         .reason = "RunsAsRoot",
         .message = "pods without a user of their own run as root, without capabilities"});
  }
  return out;
}

}  // namespace metier
