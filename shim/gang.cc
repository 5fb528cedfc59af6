// Ranks: processes that a program in another pod of the gang asks for (docs/formats/pod-folder.md, "Ranks").
// Each lives as long as the connection that asked for it, in this pod's cgroups, namespaces and identity.
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "pod.h"
#include "record.h"

namespace shim {
namespace {

constexpr std::size_t kMostRanks = 256;
constexpr std::size_t kMostWaiting = 1024;
constexpr long long kMostPayload = 4LL << 20U;

void answer(int connection, const char* word, long long first, long long second, const char* text) {
  Text out;
  out.add(word).add("\0", 1).add(first).add("\0", 1).add(second).add("\0", 1).add(text);
  ::send(connection, out.c_str(), out.size() + 1, MSG_NOSIGNAL | MSG_DONTWAIT);
}

const char* value_in(const List<const char*>& env, const char* name) {
  const auto size = std::strlen(name);
  for (const char* one : env) {
    if (one != nullptr && std::strncmp(one, name, size) == 0 && one[size] == '=') {
      return one + size + 1;
    }
  }
  return "";
}

bool same_name(const char* a, const char* b) {
  const char* end = std::strchr(a, '=');
  const auto size = end == nullptr ? std::strlen(a) : static_cast<std::size_t>(end - a) + 1;
  return std::strncmp(a, b, size) == 0;
}

// Who judges by the last number of the host name takes number 0 for the one that reports: rank 0, and nobody else.
void rank_host(const char* pod, int rank, char (&out)[65]) {
  const char* dash = std::strrchr(pod, '-');
  const char* last = dash == nullptr ? "" : dash + 1;
  bool number = *last != '\0';
  for (const char* at = last; *at != '\0'; ++at) { number = number && *at >= '0' && *at <= '9'; }
  const bool zero = number && number_of(last) == 0;
  if (number && zero == (rank == 0)) {
    std::snprintf(out, sizeof out, "%.64s", pod);
  } else {
    std::snprintf(out, sizeof out, "%.55s-%d", pod, rank);
  }
}

}  // namespace

bool Pod::open_gang() {
  if (spec_.gang[0] == '\0') { return true; }
  const int folder = ::open(spec_.gang, O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (folder < 0) { return false; }
  gang_ = ::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  // Through /proc, so that a long data folder does not matter (108 bytes). Renamed into place when it listens.
  std::snprintf(address.sun_path, sizeof address.sun_path, "/proc/self/fd/%d/.%s", folder,
                spec_.member);
  char hidden[80];
  char name[80];
  std::snprintf(hidden, sizeof hidden, ".%s", spec_.member);
  std::snprintf(name, sizeof name, "%s.sock", spec_.member);
  ::unlinkat(folder, hidden, 0);
  const auto old = ::umask(0177);
  bool done = gang_ >= 0 &&
              ::bind(gang_, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0 &&
              ::listen(gang_, 1024) == 0;
  ::umask(old);
  if (done && spec_.has_identity) {
    done = ::fchownat(folder, hidden, spec_.uid, spec_.gid, AT_SYMLINK_NOFOLLOW) == 0;
  }
  done = done && ::renameat(folder, hidden, folder, name) == 0;
  ::close(folder);
  return done;
}

void Pod::close_gang() {
  if (gang_ < 0) { return; }
  ::close(gang_);
  gang_ = -1;
  const int folder = ::open(spec_.gang, O_PATH | O_DIRECTORY | O_CLOEXEC);
  char name[80];
  std::snprintf(name, sizeof name, "%s.sock", spec_.member);
  if (folder >= 0) { ::unlinkat(folder, name, 0); }
  ::close(folder);
}

void Pod::accept_asker() {
  const int connection = ::accept4(gang_, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
  if (connection < 0) { return; }
  ucred peer{};
  socklen_t size = sizeof peer;
  const auto uid = spec_.has_identity ? spec_.uid : ::geteuid();
  const bool known = ::getsockopt(connection, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 &&
                     (peer.uid == uid || peer.uid == 0);
  if (known && askers_.size() < kMostWaiting) {
    askers_.push() = connection;
  } else {
    ::close(connection);
  }
}

// A connection that asked for a rank has a signal for it or is gone; any other asks now.
void Pod::hear_asker(int connection) {
  static char message[512];
  alignas(cmsghdr) char control[CMSG_SPACE(2 * sizeof(int))];
  iovec part{message, sizeof message - 1};
  msghdr header{};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  header.msg_control = control;
  header.msg_controllen = sizeof control;
  const auto n = ::recvmsg(connection, &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) { return; }
  int payload = -1;
  int passed = -1;  // a descriptor for the rank, its number 3
  for (cmsghdr* one = CMSG_FIRSTHDR(&header); n > 0 && one != nullptr;
       one = CMSG_NXTHDR(&header, one)) {
    if (one->cmsg_level == SOL_SOCKET && one->cmsg_type == SCM_RIGHTS) {
      std::memcpy(&payload, CMSG_DATA(one), sizeof payload);
      if (one->cmsg_len >= CMSG_LEN(2 * sizeof(int))) {
        std::memcpy(&passed, CMSG_DATA(one) + sizeof(int), sizeof passed);
      }
    }
  }
  Rank* mine = nullptr;
  for (auto& rank : ranks_) {
    if (rank.connection == connection) { mine = &rank; }
  }
  if (n <= 0) {
    if (mine != nullptr) {
      mine->connection = -1;
      // Whoever asked for it is gone. While the pod is being stopped its grace time decides.
      if (mine->run.phase == Phase::running && !stopping_) { ::kill(-mine->run.pid, SIGKILL); }
    }
    drop_asker(connection);
    return;
  }
  message[n] = '\0';
  const char* first = message + std::strlen(message) + 1;
  const char* second = first + std::strlen(first) + 1;
  const char* end = message + n;
  if (first >= end) { first = second = ""; }
  if (second >= end) { second = ""; }
  if (equal(message, "signal") && mine != nullptr) {
    const int number = static_cast<int>(number_of(first));
    // When one of those that were asked to end has ended, mpirun ends the others.
    if (mine->run.phase == Phase::running && !(mine->asked && number == SIGTERM)) {
      ::kill(-mine->run.pid, number);
    }
  } else if (equal(message, "term")) {
    ask_ranks();
  } else if (equal(message, "leave")) {
    for (std::size_t i = 0; i < spec_.containers.size(); ++i) {
      if (runs_[i].phase == Phase::running) { ::kill(runs_[i].pid, SIGTERM); }
    }
  } else if (equal(message, "rank") && mine == nullptr && payload >= 0) {
    start_rank(connection, static_cast<int>(number_of(first)),
               static_cast<std::size_t>(number_of(second)), payload, passed);
  }
  if (payload >= 0) { ::close(payload); }
  if (passed >= 0) { ::close(passed); }
}

void Pod::drop_asker(int connection) {
  for (std::size_t i = 0; i < askers_.size(); ++i) {
    if (askers_[i] == connection) {
      askers_.drop(i);
      break;
    }
  }
  ::close(connection);
}

// `payload`: `count` arguments, then variables, each ended by NUL. The variables replace the pod's.
void Pod::start_rank(int connection, int number, std::size_t count, int payload, int passed) {
  for (const auto& rank : ranks_) {
    if (rank.number == number && rank.run.phase == Phase::running) {
      answer(connection, "refused", EEXIST, 0, "this rank runs already");
      return;
    }
  }
  struct stat info{};
  const bool sound = ::fstat(payload, &info) == 0 && info.st_size > 0 &&
                     info.st_size <= kMostPayload && ranks_.size() < kMostRanks && number >= 0 &&
                     !stopping_;
  char* text =
      sound ? static_cast<char*>(grown(nullptr, static_cast<std::size_t>(info.st_size))) : nullptr;
  if (!sound || ::pread(payload, text, static_cast<std::size_t>(info.st_size), 0) != info.st_size ||
      text[info.st_size - 1] != '\0') {
    answer(connection, "refused", EINVAL, 0,
           stopping_                     ? "the pod is being stopped"
           : ranks_.size() >= kMostRanks ? "a pod takes at most 256 ranks"
                                         : "damaged request");
    std::free(text);
    return;
  }
  const Container* container = &spec_.containers[0];
  for (const auto& one : spec_.containers) {
    if (!one.init) {
      container = &one;
      break;
    }
  }
  List<const char*> args;
  List<const char*> env;
  for (const char* one : *container->env) {
    if (one != nullptr) { env.push() = one; }
  }
  for (char* at = text; at < text + info.st_size; at += std::strlen(at) + 1) {
    if (args.size() < count) {
      args.push() = at;
      continue;
    }
    bool replaced = false;
    for (auto& one : env) {
      if (same_name(at, one)) {
        one = at;
        replaced = true;
      }
    }
    if (!replaced) { env.push() = at; }
  }
  if (args.size() != count || count == 0) {
    answer(connection, "refused", EINVAL, 0, "damaged request");
    std::free(text);
    return;
  }
  args.push() = nullptr;
  env.push() = nullptr;

  // A rank that runs a second time takes the first one's place, its log goes on.
  Rank* rank = nullptr;
  for (auto& one : ranks_) {
    if (one.number == number) { rank = &one; }
  }
  if (rank == nullptr) { rank = &ranks_.push(); }
  rank->number = number;
  rank->connection = connection;
  rank->asked = false;
  std::snprintf(rank->name, sizeof rank->name, "rank-%d", number);
  Run& run = rank->run;
  const int starts = run.starts + 1;
  run = Run{};
  run.starts = starts;
  run.phase = Phase::running;
  run.started_us = wall_us();
  run.started_ms = steady_ms();
  char log[40];
  std::snprintf(log, sizeof log, "log.%s", rank->name);
  const int file = open_log(log);
  run.times.begin(log, run.started_ms);
  const int folder = ::open(spec_.gang, O_PATH | O_DIRECTORY | O_CLOEXEC);
  // Whoever joins the ranks' logs finds it there.
  if (folder >= 0) {
    [[maybe_unused]] const int linked = ::linkat(AT_FDCWD, log, folder, log, 0);
    ::close(folder);
  }

  char host[65] = "";
  if (spec_.hostname[0] != '\0') {
    rank_host(spec_.hostname, number, host);
    if (!equal(host, spec_.hostname)) {
      const int hosts = ::open("hosts", O_WRONLY | O_APPEND | O_CLOEXEC | O_NOFOLLOW);
      Text line;
      const char* ip = value_in(*container->env, "METIER_POD_IP");
      line.add(*ip == '\0' ? "127.0.0.1" : ip).add("\t").add(host).add("\n");
      if (hosts >= 0) {
        [[maybe_unused]] const auto n = ::write(hosts, line.c_str(), line.size());
        ::close(hosts);
      }
    }
  }
  Launch launch;
  launch.spec = &spec_;
  launch.container = container;
  launch.args = const_cast<char* const*>(args.begin());
  launch.env = const_cast<char* const*>(env.begin());
  launch.cwd = container->cwd;
  launch.log = file;
  launch.passed = passed;
  launch.hostname = host;
  int go = -1;
  int result = -1;
  spawn(launch, run.pid, go, result);
  if (run.pid > 0) {
    run.ticks = start_ticks(run.pid);
    record_state();
    [[maybe_unused]] const auto n = ::write(go, "g", 1);
    ::close(go);
    run.failure = result_of(result);
  } else {
    run.failure.error = errno;
    std::snprintf(run.failure.step, sizeof run.failure.step, "fork");
    run.pid = 0;
  }
  ::close(file);
  std::free(text);
  if (run.failure.error != 0) {
    Text why;
    why.add(run.failure.step).add(" ").add(run.failure.detail).add(": ");
    why.add(std::strerror(run.failure.error));
    answer(connection, "refused", run.failure.error, 0, why.c_str());
    Ended end{run.pid, 127, 0, false, 0, 0};
    if (run.pid > 0) {
      siginfo_t ended{};
      ::waitid(P_PID, static_cast<id_t>(run.pid), &ended, WEXITED);
    }
    rank_ended(*rank, end);
    return;
  }
  answer(connection, "started", run.pid, 0, "");
  Text state;
  render(state, "state");
  notify(state);
}

void Pod::rank_ended(Rank& rank, const Ended& end) {
  Run& run = rank.run;
  run.phase = Phase::terminated;
  run.finished_us = wall_us();
  run.code = end.code;
  run.signal = end.signal;
  run.core = end.core;
  run.cpu_us = end.cpu_us;
  run.max_rss_kib = end.max_rss_kib;
  run.pid = 0;
  const auto kills = oom_kills(spec_.oom_file);
  run.oom = kills > oom_seen_ && end.signal == SIGKILL;
  if (run.oom) { oom_seen_ = kills; }
  ::kill(-end.pid, SIGKILL);  // what it left in its group
  record_state();
  if (rank.connection >= 0) { answer(rank.connection, "ended", run.code, run.signal, ""); }
  Text text;
  render(text, "state");
  notify(text);
}

// The launcher's pod and each rank's own are stopped at the same time, and both pass it on.
void Pod::ask_ranks() {
  for (auto& rank : ranks_) {
    if (rank.run.phase != Phase::running || rank.asked) { continue; }
    rank.asked = true;
    ::kill(-rank.run.pid, SIGTERM);
  }
}

bool Pod::ranks_run() const {
  for (const auto& rank : ranks_) {
    if (rank.run.phase == Phase::running) { return true; }
  }
  return false;
}

// The pod ends: what still runs is killed, and how each ended is kept.
void Pod::end_ranks() {
  for (int round = 0; round < 250 && ranks_run(); ++round) {
    for (auto& rank : ranks_) {
      Ended end{};
      if (rank.run.phase != Phase::running) { continue; }
      if (take_end(end, rank.run.pid)) {
        rank_ended(rank, end);
        siginfo_t info{};
        ::waitid(P_PID, static_cast<id_t>(end.pid), &info, WEXITED | WNOHANG);
      } else {
        ::kill(-rank.run.pid, SIGKILL);
      }
    }
    if (ranks_run()) { ::usleep(2'000); }
  }
}

}  // namespace shim
