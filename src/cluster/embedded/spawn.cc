#include "cluster/embedded/spawn.h"

#include <fcntl.h>
#include <spawn.h>
#include <cerrno>
#include <csignal>
#include <cstring>

#include <fmt/format.h>

#include "base/files.h"

namespace metier {

Result<pid_t> spawn_program(const Spawn& spawn) {
  std::vector<char*> arguments;
  for (const auto& one : spawn.arguments) { arguments.push_back(const_cast<char*>(one.c_str())); }
  arguments.push_back(nullptr);
  std::vector<char*> env;
  for (const auto& one : spawn.env) { env.push_back(const_cast<char*>(one.c_str())); }
  env.push_back(nullptr);

  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  const char* output = spawn.output.empty() ? "/dev/null" : spawn.output.c_str();
  ::posix_spawn_file_actions_addopen(&actions, 1, output, O_WRONLY | O_CREAT | O_APPEND, 0600);
  ::posix_spawn_file_actions_adddup2(&actions, 1, 2);
  // First out of the way, so that no target overwrites a source.
  std::vector<Fd> moved;
  int target = 3;
  for (const int fd : spawn.descriptors) {
    moved.emplace_back(::fcntl(fd, F_DUPFD_CLOEXEC, 64));
    ::posix_spawn_file_actions_adddup2(&actions, moved.back().get(), target++);
  }
  ::posix_spawn_file_actions_addclosefrom_np(&actions, target);

  posix_spawnattr_t attributes;
  ::posix_spawnattr_init(&attributes);
  sigset_t all;
  sigset_t none;
  sigfillset(&all);
  sigemptyset(&none);
  ::posix_spawnattr_setsigdefault(&attributes, &all);
  ::posix_spawnattr_setsigmask(&attributes, &none);
  ::posix_spawnattr_setflags(&attributes,
                             POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSID);
  pid_t pid = -1;
  const int error =
      ::posix_spawnp(&pid, arguments[0], &actions, &attributes, arguments.data(), env.data());
  ::posix_spawnattr_destroy(&attributes);
  ::posix_spawn_file_actions_destroy(&actions);
  if (error != 0) {
    return fail(error == ENOENT ? ErrorKind::not_found : ErrorKind::unavailable,
                fmt::format("{}: {}", spawn.arguments[0], std::strerror(error)));
  }
  return pid;
}

}  // namespace metier
