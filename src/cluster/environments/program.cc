#include "cluster/environments/program.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <boost/asio/posix/stream_descriptor.hpp>

#include <algorithm>
#include <cstdlib>

#include "base/files.h"
#include "base/programs.h"

extern char** environ;

namespace metier {
namespace {

std::vector<std::string> environment_of(const Program& program) {
  std::vector<std::string> out;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string_view text(*entry);
    const auto name = text.substr(0, text.find('='));
    const bool replaced =
        std::ranges::any_of(program.env, [&](const auto& pair) { return pair.first == name; });
    if (!replaced && std::ranges::find(program.unset, name) == program.unset.end()) {
      out.emplace_back(text);
    }
  }
  for (const auto& [name, value] : program.env) { out.push_back(name + "=" + value); }
  return out;
}

std::vector<char*> pointers(std::vector<std::string>& texts) {
  std::vector<char*> out;
  for (auto& text : texts) { out.push_back(text.data()); }
  out.push_back(nullptr);
  return out;
}

Result<pid_t> spawn(Program& program) {
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_addopen(&actions, 1, program.log.c_str(), O_WRONLY | O_CREAT | O_APPEND,
                                   0600);
  posix_spawn_file_actions_adddup2(&actions, 1, 2);
  if (!program.folder.empty()) {
    posix_spawn_file_actions_addchdir_np(&actions, program.folder.c_str());
  }
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  sigset_t none;
  sigemptyset(&none);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK);
  auto environment = environment_of(program);
  auto env = pointers(environment);
  auto arguments = pointers(program.arguments);
  pid_t pid = 0;
  int error =
      ::posix_spawnp(&pid, arguments.front(), &actions, &attributes, arguments.data(), env.data());
  posix_spawn_file_actions_destroy(&actions);
  posix_spawnattr_destroy(&attributes);
  const char* path = std::getenv("PATH");
  if (error == EACCES && program.arguments.front().find('/') == std::string::npos &&
      find_program(path ? path : "", program.arguments.front()).empty()) {
    error =
        ENOENT;  // a folder of PATH is closed to this user; the program is in none of the others
  }
  if (error != 0) { return fail(errno_error(program.arguments.front(), error)); }
  return pid;
}

// Kills the session of a program that must not go on, and reaps it. Also when the coroutine is destroyed.
struct Guard {
  explicit Guard(pid_t process) : pid(process) {}
  Guard(const Guard&) = delete;
  ~Guard() { stop(); }
  int stop() {
    if (pid <= 0) { return -1; }
    ::kill(-pid, SIGKILL);
    int status = 0;
    ::waitpid(pid, &status, 0);
    pid = 0;
    return status;
  }
  pid_t pid;
};

}  // namespace

Async<Result<int>> run_program(Executor executor, Program program) {
  auto pid = spawn(program);
  if (!pid) { co_return fail(std::move(pid.error())); }
  Guard guard(*pid);
  const int pidfd = static_cast<int>(::syscall(SYS_pidfd_open, *pid, 0));
  if (pidfd < 0) { co_return fail(errno_error("pidfd_open", errno)); }
  asio::posix::basic_stream_descriptor<Executor> ended(executor, pidfd);
  Timer timer(executor, program.deadline);
  // A cancelled wait sees an error and touches nothing of this frame.
  timer.async_wait([&ended](const boost::system::error_code& ec) {
    if (!ec) {
      boost::system::error_code ignored;
      ended.cancel(ignored);
    }
  });
  boost::system::error_code ec;
  co_await ended.async_wait(asio::posix::descriptor_base::wait_read,
                            asio::redirect_error(use_async, ec));
  if (ec) {
    guard.stop();
    co_return fail(
        ErrorKind::timed_out,
        fmt::format("{}: stopped after {} s", program.arguments.front(), program.deadline.count()));
  }
  int status = 0;
  ::waitpid(guard.pid, &status, 0);
  guard.pid = 0;
  co_return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

}  // namespace metier
