// metier-shim --folder FOLDER --spec FD [--ctl FD] [--adopt PID --hold FD]
// Exit codes, seen by who started it (the pod's own end is in its folder): 0 started (cold: the first process
// has left), 110 wrong arguments or spec, 111 another shim has this pod, 112 memory.
#include <fcntl.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "pod.h"
#include "record.h"

namespace {

using shim::equal;

struct Arguments {
  const char* folder = "";
  int spec = -1;
  int control = -1;
  int adopt = 0;
  int hold = -1;
};

[[noreturn]] void refuse(int control, int code, const char* what, int error) {
  shim::Text text;
  text.add("{\"v\":1,\"t\":\"refused\",\"what\":")
      .json(what)
      .add(",\"errno\":")
      .add(error)
      .add("}");
  if (control >= 0) { ::send(control, text.c_str(), text.size(), MSG_NOSIGNAL); }
  ::_exit(code);
}

bool read_arguments(int argc, char** argv, Arguments& out) {
  for (int i = 1; i + 1 < argc; i += 2) {
    const char* name = argv[i];
    const char* value = argv[i + 1];
    if (equal(name, "--folder")) {
      out.folder = value;
    } else if (equal(name, "--spec")) {
      out.spec = static_cast<int>(shim::number_of(value));
    } else if (equal(name, "--ctl")) {
      out.control = static_cast<int>(shim::number_of(value));
    } else if (equal(name, "--adopt")) {
      out.adopt = static_cast<int>(shim::number_of(value));
    } else if (equal(name, "--hold")) {
      out.hold = static_cast<int>(shim::number_of(value));
    } else {
      return false;
    }
  }
  return argc % 2 == 1 && out.folder[0] != '\0' && out.spec >= 0 &&
         (out.adopt == 0) == (out.hold < 0);
}

// Closes every descriptor that is not ours, whoever left it open.
void keep_only(const Arguments& arguments) {
  int kept[] = {arguments.spec, arguments.control, arguments.hold};
  unsigned from = 3;
  for (int round = 0; round < 4; ++round) {
    int next = -1;
    for (const int fd : kept) {
      if (fd >= static_cast<int>(from) && (next < 0 || fd < next)) { next = fd; }
    }
    if (next < 0) {
      ::syscall(SYS_close_range, from, ~0U, 0U);
      return;
    }
    if (next > static_cast<int>(from)) {
      ::syscall(SYS_close_range, from, static_cast<unsigned>(next) - 1, 0U);
    }
    ::fcntl(next, F_SETFD, FD_CLOEXEC);
    from = static_cast<unsigned>(next) + 1;
  }
}

int listen_here() {
  const int fd = ::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::snprintf(address.sun_path, sizeof address.sun_path, "ctl.sock");
  ::unlink("ctl.sock");
  const auto old = ::umask(0177);
  const bool bound = fd >= 0 &&
                     ::bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0 &&
                     ::listen(fd, 64) == 0;
  ::umask(old);
  return bound ? fd : -1;
}

}  // namespace

int main(int argc, char** argv) {
  Arguments arguments;
  if (!read_arguments(argc, argv, arguments)) {
    static const char usage[] =
        "metier-shim starts the processes of one pod and outlives the server; the server runs it.\n"
        "usage: metier-shim --folder FOLDER --spec FD [--ctl FD] [--adopt PID --hold FD]\n";
    [[maybe_unused]] const auto n = ::write(2, usage, sizeof usage - 1);
    return 110;
  }
  const int control = arguments.control;
  if (arguments.adopt == 0) {
    const int child = ::fork();
    if (child < 0) { refuse(control, 110, "fork", errno); }
    if (child > 0) { return 0; }  // nobody's child: the server need not be there when it ends
  }
  ::setsid();
  keep_only(arguments);
  ::prctl(PR_SET_NAME, "metier-shim", 0, 0, 0);
  constexpr int kIgnored[] = {SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGPIPE, SIGUSR1, SIGUSR2, SIGTSTP};
  for (const int signal : kIgnored) { ::signal(signal, SIG_IGN); }
  ::signal(SIGCHLD, SIG_DFL);
  sigset_t none;
  sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  ::umask(0077);
  if (::chdir(arguments.folder) != 0) { refuse(control, 110, "folder", errno); }
  const int null = ::open("/dev/null", O_RDWR);
  for (int fd = 0; fd < 3; ++fd) { ::dup2(null, fd); }
  if (null > 2) { ::close(null); }
  ::prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
  shim::failpoint("shim/started");

  const int lock = ::open("lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (lock < 0) { refuse(control, 110, "lock", errno); }
  if (::flock(lock, LOCK_EX | LOCK_NB) != 0) { refuse(control, 111, "lock", errno); }
  if (::access("exit", F_OK) == 0) { refuse(control, 111, "exit", EEXIST); }
  static shim::Spec spec;
  const char* why = "";
  if (!shim::read_spec(arguments.spec, spec, why)) { refuse(control, 110, why, EINVAL); }
  ::close(arguments.spec);
  const int listener = listen_here();
  if (listener < 0) { refuse(control, 110, "ctl.sock", errno); }
  shim::failpoint("shim/locked");

  static shim::Pod pod(spec);
  pod.live(listener, control, arguments.adopt, arguments.hold);
}
