#include "setup.h"

#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/openat2.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "targets.h"

namespace shim {
namespace {

int result_pipe = -1;

[[noreturn]] void fail(const char* step, const char* detail, int error) {
  Failure failure;
  failure.error = error;
  std::snprintf(failure.step, sizeof failure.step, "%s", step);
  std::snprintf(failure.detail, sizeof failure.detail, "%s", detail);
  [[maybe_unused]] const auto n = ::write(result_pipe, &failure, sizeof failure);
  ::_exit(127);
}

void write_text(const char* path, const char* text, const char* step) {
  const int fd = ::open(path, O_WRONLY | O_CLOEXEC);
  if (fd < 0 || ::write(fd, text, std::strlen(text)) < 0) { fail(step, path, errno); }
  ::close(fd);
}

void make_namespaces(const Spec& spec, const char* hostname) {
  const auto uid = ::geteuid();
  const auto gid = ::getegid();
  int flags = 0;
  if (spec.user_namespace) { flags |= CLONE_NEWUSER; }
  if (spec.mount_namespace) { flags |= CLONE_NEWNS; }
  if (spec.hostname[0] != '\0') { flags |= CLONE_NEWUTS; }
  if (flags == 0) { return; }
  if (::unshare(flags) != 0) { fail("namespace", "unshare", errno); }
  if (spec.user_namespace) {
    char map[64];
    write_text("/proc/self/setgroups", "deny", "namespace");
    std::snprintf(map, sizeof map, "%u %u 1", uid, uid);
    write_text("/proc/self/uid_map", map, "namespace");
    std::snprintf(map, sizeof map, "%u %u 1", gid, gid);
    write_text("/proc/self/gid_map", map, "namespace");
  }
  if (hostname[0] == '\0') { hostname = spec.hostname; }
  if (spec.hostname[0] != '\0' && ::sethostname(hostname, std::strlen(hostname)) != 0) {
    fail("hostname", hostname, errno);
  }
}

int open_beneath(int folder, const char* path) {
  open_how how{};
  how.flags = O_PATH | O_CLOEXEC;
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS;
  return static_cast<int>(::syscall(SYS_openat2, folder, path, &how, sizeof how));
}

// The sub path below `source`, made (as folders) where it is missing. No link leads out of the source.
int open_sub_path(int source, const char* sub_path) {
  int fd = open_beneath(source, sub_path);
  if (fd >= 0 || errno != ENOENT) { return fd; }
  char path[4096];
  if (std::snprintf(path, sizeof path, "%s", sub_path) >= static_cast<int>(sizeof path)) {
    errno = ENAMETOOLONG;
    return -1;
  }
  int parent = open_beneath(source, ".");
  for (char* part = std::strtok(path, "/"); part != nullptr && parent >= 0;
       part = std::strtok(nullptr, "/")) {
    if (::mkdirat(parent, part, 0777) != 0 && errno != EEXIST) { return -1; }
    ::close(parent);
    // From the source again, so that ".." and links stay judged against it.
    const auto done = static_cast<std::size_t>(part - path) + std::strlen(part);
    char so_far[4096];
    std::memcpy(so_far, sub_path, done);
    so_far[done] = '\0';
    parent = open_beneath(source, so_far);
  }
  return parent;
}

void make_read_only(const char* target) {
  struct {
    std::uint64_t set, clear, propagation, userns;
  } attributes{1 /* MOUNT_ATTR_RDONLY */, 0, 0, 0};
  constexpr long kMountSetattr = 442;
  if (::syscall(kMountSetattr, AT_FDCWD, target, 0x8000U /* AT_RECURSIVE */, &attributes,
                sizeof attributes) == 0) {
    return;
  }
  if (errno != ENOSYS) { fail("mount", target, errno); }
  if (::mount(nullptr, target, nullptr, MS_BIND | MS_REMOUNT | MS_RDONLY, nullptr) != 0) {
    fail("mount", target, errno);
  }
}

// The source of a mount, as a place (O_PATH).
int open_source(const Mount& mount) {
  int source = ::open(mount.source, O_PATH | O_CLOEXEC);
  if (source < 0) { fail("mount", mount.source, errno); }
  if (mount.sub_path[0] == '\0') { return source; }
  const int whole = source;
  source = open_sub_path(whole, mount.sub_path);
  if (source < 0) { fail("mount", mount.sub_path, errno); }
  ::close(whole);
  return source;
}

void make_mounts(const Spec& spec, const Container& container, const char* cwd) {
  if (!spec.mount_namespace) { return; }
  if (::mount(nullptr, "/", nullptr, MS_REC | MS_SLAVE, nullptr) != 0) {
    fail("mount", "/", errno);
  }
  Targets targets(spec, cwd);
  for (const auto& mount : spec.mounts) {
    if (mount.container[0] != '\0' && !equal(mount.container, container.name)) { continue; }
    int source = open_source(mount);
    struct stat info{};
    if (::fstat(source, &info) != 0) { fail("mount", mount.source, errno); }
    if (!targets.make(mount.target, S_ISDIR(info.st_mode))) {
      fail("mount", targets.where(), errno);
    }
    ::close(source);
    source = open_source(mount);  // again: the root may be another one now
    char path[40];
    std::snprintf(path, sizeof path, "/proc/self/fd/%d", source);
    if (::mount(path, mount.target, nullptr, MS_BIND | MS_REC, nullptr) != 0) {
      fail("mount", mount.target, errno);
    }
    ::close(source);
    if (mount.read_only) { make_read_only(mount.target); }
    targets.mounted(mount.target);
  }
  if (!targets.seal()) { fail("mount", targets.where(), errno); }
}

void take_identity(const Spec& spec) {
  // Until past the kernel's last one, or at once where it is not permitted.
  for (int capability = 0; capability < 64 && ::prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) == 0;
       ++capability) {}
  ::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
  if (spec.has_identity) {
    if (::setgroups(spec.groups.size(), spec.groups.begin()) != 0 && errno != EPERM) {
      fail("groups", "setgroups", errno);
    }
    if (::setresgid(spec.gid, spec.gid, spec.gid) != 0) { fail("identity", "setresgid", errno); }
    if (::setresuid(spec.uid, spec.uid, spec.uid) != 0) { fail("identity", "setresuid", errno); }
  }
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct none[2] = {};
  if (::syscall(SYS_capset, &header, none) != 0) { fail("capabilities", "capset", errno); }
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) {
    fail("capabilities", "no_new_privs", errno);
  }
  ::prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
}

void take_descriptors(const Launch& launch) {
  const int null = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
  if (null < 0 || ::dup2(null, 0) < 0 || ::dup2(launch.log, 1) < 0 || ::dup2(launch.log, 2) < 0) {
    fail("descriptors", "dup2", errno);
  }
  ::syscall(SYS_close_range, 3U, ~0U,
            4U /* CLOSE_RANGE_CLOEXEC */);  // ours are close-on-exec anyway
  if (launch.passed < 0) { return; }
  const int passed = ::fcntl(launch.passed, F_DUPFD_CLOEXEC, 64);
  result_pipe = ::fcntl(result_pipe, F_DUPFD_CLOEXEC, 64);  // it may be 3
  if (passed < 0 || result_pipe < 0 || ::dup2(passed, 3) < 0) {
    fail("descriptors", "dup2", errno);
  }
}

void default_signals() {
  for (int signal = 1; signal < 65; ++signal) { ::signal(signal, SIG_DFL); }
  sigset_t none;
  sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
}

[[noreturn]] void execute(const Launch& launch) {
  const char* program = launch.args[0];
  if (std::strchr(program, '/') != nullptr) {
    ::execve(program, launch.args, launch.env);
    const int error = errno;
    // A script whose first line names what is not there: the kernel says the same of both.
    const bool script = error == ENOENT && ::access(program, F_OK) == 0;
    fail(script ? "interpreter" : "exec", program, error);
  }
  const char* path = search_path(launch.env);
  int error = ENOENT;
  while (true) {
    const char* end = ::strchrnul(path, ':');
    char full[4096];
    const int size = end == path ? std::snprintf(full, sizeof full, "./%s", program)
                                 : std::snprintf(full, sizeof full, "%.*s/%s",
                                                 static_cast<int>(end - path), path, program);
    if (size < static_cast<int>(sizeof full)) {
      ::execve(full, launch.args, launch.env);
      if (errno != ENOENT && errno != ENOTDIR) { error = errno; }
      if (errno == ENOENT && ::access(full, F_OK) == 0) { fail("interpreter", full, ENOENT); }
    }
    if (*end == '\0') { fail("exec", program, error); }
    path = end + 1;
  }
}

}  // namespace

const char* search_path(char* const* env) {
  const char* path = "/usr/local/bin:/usr/bin:/bin";
  for (; *env != nullptr; ++env) {
    if (std::strncmp(*env, "PATH=", 5) == 0) { path = *env + 5; }
  }
  return path;
}

void become(const Launch& launch) {
  const Spec& spec = *launch.spec;
  result_pipe = launch.result;
  ::setsid();
  for (const char* file : spec.cgroups) { write_text(file, "0", "cgroup"); }
  if (spec.oom_score[0] != '\0') {
    const int fd = ::open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    if (fd >= 0) {
      [[maybe_unused]] const auto n = ::write(fd, spec.oom_score, std::strlen(spec.oom_score));
      ::close(fd);
    }
  }
  make_namespaces(spec, launch.hostname);
  make_mounts(spec, *launch.container, launch.cwd);
  for (const auto& limit : spec.rlimits) {
    const rlimit64 value{limit.soft, limit.hard};
    if (::prlimit64(0, static_cast<__rlimit_resource>(limit.resource), &value, nullptr) != 0) {
      fail("rlimit", "prlimit", errno);
    }
  }
  ::umask(spec.umask);
  take_identity(spec);
  if (::chdir(launch.cwd) != 0) { fail("working folder", launch.cwd, errno); }
  if (launch.go >= 0) {
    char byte = 0;
    if (::read(launch.go, &byte, 1) != 1) { ::_exit(126); }  // the shim is gone: nothing may run
  }
  take_descriptors(launch);
  default_signals();
  execute(launch);
}

}  // namespace shim
