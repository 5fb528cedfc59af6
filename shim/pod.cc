#include "pod.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>

#include "record.h"
#include "tree.h"

namespace shim {
namespace {

constexpr std::size_t kMaxMessage = 160U << 10U;
constexpr std::size_t kMaxExecs = 256;
constexpr std::int64_t kLongestBackoff = 300'000;
constexpr std::int64_t kHealthy =
    600'000;  // a container that ran so long starts with the first back-off again
constexpr int kKeptLogs = 3;

const char* phase_name(Phase phase) {
  return phase == Phase::waiting ? "waiting" : phase == Phase::running ? "running" : "terminated";
}

bool good_id(const char* id) {
  const auto size = std::strlen(id);
  if (size == 0 || size > 32) { return false; }
  for (; *id != '\0'; ++id) {
    if (!((*id >= 'a' && *id <= 'z') || (*id >= '0' && *id <= '9'))) { return false; }
  }
  return true;
}

}  // namespace

int Pod::open_log(const char* name) {
  const int fd = ::open(name, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
  // The pod's user owns it, so that /dev/stdout can be opened there.
  if (fd >= 0 && spec_.has_identity && ::fchown(fd, spec_.uid, spec_.gid) != 0) { return fd; }
  return fd;
}

void Pod::spawn(const Launch& launch, int& pid, int& go, int& result) {
  int result_pipe[2] = {-1, -1};
  int go_pipe[2] = {-1, -1};
  if (::pipe2(result_pipe, O_CLOEXEC) != 0 || ::pipe2(go_pipe, O_CLOEXEC) != 0) {
    pid = -1;
    return;
  }
  pid = ::fork();
  if (pid == 0) {
    ::close(go_pipe[1]);  // else the child would hold its own release open
    Launch mine = launch;
    mine.result = result_pipe[1];
    mine.go = go_pipe[0];
    become(mine);
  }
  ::close(result_pipe[1]);
  ::close(go_pipe[0]);
  go = go_pipe[1];
  result = result_pipe[0];
}

Failure Pod::result_of(int result) {
  Failure failure;
  ssize_t n = 0;
  do { n = ::read(result, &failure, sizeof failure); } while (n < 0 && errno == EINTR);
  ::close(result);
  if (n != static_cast<ssize_t>(sizeof failure)) { failure.error = 0; }
  return failure;
}

void Pod::start(std::size_t i) {
  const Container& container = spec_.containers[i];
  Run& run = runs_[i];
  ++run.starts;
  char log[300];
  if (run.starts == 1) {
    std::snprintf(log, sizeof log, "%s", container.log);
  } else {
    std::snprintf(log, sizeof log, "%s@%d", container.log, run.starts - kKeptLogs);
    if (run.starts - kKeptLogs > 1) {
      ::unlink(log);
      char times[sizeof log + 8];
      std::snprintf(times, sizeof times, "%s@times", log);
      ::unlink(times);
    }
    std::snprintf(log, sizeof log, "%s@%d", container.log, run.starts);
  }
  if (run.log >= 0) { ::close(run.log); }
  run.log = open_log(log);
  run.times.begin(log, steady_ms());
  run.phase = Phase::running;
  run.restart_at = 0;
  run.code = run.signal = 0;
  run.core = run.oom = run.oom_child = false;
  run.failure = Failure{};
  run.finished_us = 0;
  run.started_us = wall_us();
  run.started_ms = steady_ms();

  Launch launch;
  launch.spec = &spec_;
  launch.container = &container;
  launch.args = const_cast<char* const*>(container.args->begin());
  launch.env = const_cast<char* const*>(container.env->begin());
  launch.cwd = container.cwd;
  launch.log = run.log;
  int go = -1;
  int result = -1;
  spawn(launch, run.pid, go, result);
  failpoint("shim/forked");
  if (run.pid > 0) {
    run.ticks = start_ticks(run.pid);
    record_state();
    failpoint("shim/state_written");
    [[maybe_unused]] const auto n = ::write(go, "g", 1);
    ::close(go);
    run.failure = result_of(result);
    failpoint("shim/released");
  } else {
    run.failure.error = errno;
    std::snprintf(run.failure.step, sizeof run.failure.step, "fork");
    run.pid = 0;
  }
  if (run.failure.error != 0) {
    Ended end{run.pid, 128, 0, false, 0, 0};
    if (run.pid > 0) {
      siginfo_t info{};
      ::waitid(P_PID, static_cast<id_t>(run.pid), &info, WEXITED);
      end.pid = 0;
    }
    container_ended(i, end);
    return;
  }
  Text text;
  render(text, "state");
  notify(text);
}

// The zygote's child B waits on `hold`. It is put into the cgroups, recorded, then released; it makes its own
// namespaces and answers "ok" or "error <step> <errno> <text>".
void Pod::adopt(int pid, int hold) {
  Run& run = runs_[0];
  run.starts = 1;
  run.pid = pid;
  run.phase = Phase::running;
  run.started_us = wall_us();
  run.started_ms = steady_ms();
  run.ticks = start_ticks(pid);
  run.log = open_log(spec_.containers[0].log);
  run.times.begin(spec_.containers[0].log, steady_ms());
  char digits[16];
  std::snprintf(digits, sizeof digits, "%d", pid);
  for (const char* file : spec_.cgroups) {
    const int fd = ::open(file, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || ::write(fd, digits, std::strlen(digits)) < 0) {
      run.failure.error = errno;
      std::snprintf(run.failure.step, sizeof run.failure.step, "cgroup");
      std::snprintf(run.failure.detail, sizeof run.failure.detail, "%s", file);
    }
    if (fd >= 0) { ::close(fd); }
  }
  failpoint("shim/forked");
  record_state();
  failpoint("shim/state_written");
  if (run.failure.error == 0) {
    ::send(hold, "go", 2, MSG_NOSIGNAL);
    char answer[256];
    const auto n = ::recv(hold, answer, sizeof answer - 1, 0);
    answer[n > 0 ? n : 0] = '\0';
    if (std::strncmp(answer, "error ", 6) == 0) {
      run.failure.error = EIO;
      if (std::sscanf(answer, "error %19s %d %107[^\n]", run.failure.step, &run.failure.error,
                      run.failure.detail) < 2) {
        std::snprintf(run.failure.step, sizeof run.failure.step, "zygote");
      }
    }
  } else {
    ::kill(pid, SIGKILL);
  }
  ::close(hold);
  failpoint("shim/released");
  Text text;
  render(text, "state");
  notify(text);
}

bool Pod::restarts(const Run& run, bool init) const {
  if (stopping_) { return false; }
  const bool failed = run.code != 0 || run.signal != 0;
  if (init) { return failed && spec_.restart != Restart::never; }
  return spec_.restart == Restart::always || (spec_.restart == Restart::on_failure && failed);
}

void Pod::container_ended(std::size_t i, const Ended& end) {
  Run& run = runs_[i];
  run.phase = Phase::terminated;
  run.finished_us = wall_us();
  run.code = run.failure.error != 0 ? 128 : end.code;
  run.signal = run.failure.error != 0 ? 0 : end.signal;
  run.core = end.core;
  run.cpu_us = end.cpu_us;
  run.max_rss_kib = end.max_rss_kib;
  run.pid = 0;
  const auto kills = oom_kills(spec_.oom_file);
  run.oom = kills > oom_seen_ && end.signal == SIGKILL;
  run.oom_child = kills > oom_seen_ && !run.oom;
  oom_seen_ = kills;
  failpoint("shim/exit_seen");

  const bool init = spec_.containers[i].init;
  if (restarts(run, init)) {
    if (steady_ms() - run.started_ms > kHealthy) { run.backoff_ms = 0; }
    run.restart_at = steady_ms() + run.backoff_ms;
    run.backoff_ms = run.backoff_ms == 0 ? spec_.backoff_ms : run.backoff_ms * 2;
    if (run.backoff_ms > kLongestBackoff) { run.backoff_ms = kLongestBackoff; }
  } else {
    bool live = false;  // is anything else running, or yet to run?
    const bool broken = stopping_ || (init && (run.code != 0 || run.signal != 0));
    for (std::size_t k = 0; k < spec_.containers.size(); ++k) {
      if (runs_[k].phase == Phase::running || (stopping_ && ranks_run()) ||
          (!broken && (runs_[k].restart_at != 0 || runs_[k].starts == 0))) {
        live = true;
      }
    }
    if (!live) { finish(end.pid); }
  }
  record_state();
  Text text;
  render(text, "state");
  notify(text);
  if (end.pid > 0) {
    siginfo_t info{};
    ::waitid(P_PID, static_cast<id_t>(end.pid), &info, WEXITED | WNOHANG);
  }
}

void Pod::exec_ended(std::size_t i, const Ended& end) {
  const Exec exec = execs_[i];
  execs_.drop(i);
  ::fdatasync(exec.log);
  ::close(exec.log);
  Text text;
  text.add("{\"v\":1,\"t\":\"exec\",\"id\":")
      .json(exec.id)
      .add(",\"code\":")
      .add(end.code)
      .add(",\"signal\":")
      .add(end.signal);
  text.add(",\"started_us\":")
      .add(exec.started_us)
      .add(",\"finished_us\":")
      .add(wall_us())
      .add("}");
  char name[64];
  std::snprintf(name, sizeof name, "exec.%s.exit", exec.id);
  write_record(name, text, Durable::yes);
  notify(text);
  if (end.pid > 0) {
    siginfo_t info{};
    ::waitid(P_PID, static_cast<id_t>(end.pid), &info, WEXITED | WNOHANG);
  }
}

// Looks at an ended child without reaping it (pid 0: any).
bool Pod::take_end(Ended& end, pid_t pid) {
  siginfo_t info{};
  rusage usage{};
  const long error = ::syscall(SYS_waitid, pid == 0 ? P_ALL : P_PID, pid, &info,
                               WEXITED | WNOWAIT | WNOHANG, &usage);
  if (error != 0 || info.si_pid == 0) { return false; }
  end = Ended{};
  end.pid = info.si_pid;
  if (info.si_code == CLD_EXITED) {
    end.code = info.si_status;
  } else {
    end.signal = info.si_status;
    end.core = info.si_code == CLD_DUMPED;
  }
  end.cpu_us = (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1'000'000LL +
               usage.ru_utime.tv_usec + usage.ru_stime.tv_usec;
  end.max_rss_kib = usage.ru_maxrss;
  return true;
}

void Pod::children() {
  Ended end{};
  while (take_end(end, 0)) {
    bool known = false;
    for (std::size_t i = 0; i < spec_.containers.size() && !known; ++i) {
      if (runs_[i].phase == Phase::running && runs_[i].pid == end.pid) {
        known = true;
        container_ended(i, end);
      }
    }
    for (std::size_t i = 0; i < execs_.size() && !known; ++i) {
      if (execs_[i].pid == end.pid) {
        known = true;
        exec_ended(i, end);
      }
    }
    for (std::size_t i = 0; i < ranks_.size() && !known; ++i) {
      if (ranks_[i].run.phase == Phase::running && ranks_[i].run.pid == end.pid) {
        known = true;
        rank_ended(ranks_[i], end);
        siginfo_t info{};
        ::waitid(P_PID, static_cast<id_t>(end.pid), &info, WEXITED | WNOHANG);
      }
    }
    if (!known) {
      siginfo_t info{};
      ::waitid(P_PID, static_cast<id_t>(end.pid), &info, WEXITED | WNOHANG);
    }
  }
}

void Pod::advance() {
  if (stopping_) {
    for (std::size_t i = 0; i < spec_.containers.size(); ++i) {
      if (runs_[i].phase == Phase::running) { return; }
    }
    if (ranks_run()) { return; }
    finish(0);
  }
  const auto now = steady_ms();
  for (std::size_t i = 0; i < spec_.containers.size(); ++i) {
    Run& run = runs_[i];
    const bool init = spec_.containers[i].init;
    const bool due = run.starts == 0 || (run.restart_at != 0 && run.restart_at <= now);
    if (run.phase != Phase::running && due) {
      start(i);
      if (stopping_) { return; }
    }
    // An init container must have ended well before the next one starts.
    if (init && !(run.phase == Phase::terminated && run.code == 0 && run.signal == 0 &&
                  run.restart_at == 0)) {
      return;
    }
  }
}

void Pod::stop(std::int64_t grace_ms, const char* reason, const char* message) {
  if (reason_.size() == 0) {
    reason_.add(reason);
    message_.add(message);
  }
  const auto at = steady_ms() + (grace_ms > 0 ? grace_ms : 0);
  if (!stopping_ || at < kill_at_) { kill_at_ = at; }
  const bool first = !stopping_;
  stopping_ = true;
  if (grace_ms > 0 && first) {
    for (std::size_t i = 0; i < spec_.containers.size(); ++i) {
      if (runs_[i].phase == Phase::running) { ::kill(runs_[i].pid, SIGTERM); }
    }
    ask_ranks();
  }
  if (first) { record_state(); }
}

void Pod::exec(char* text, char* end) {
  List<const char*> words;
  for (char* at = text; at < end; at += std::strlen(at) + 1) { words.push() = at; }
  // id, container, working folder, number of arguments, arguments, variables
  if (words.size() < 5 || !good_id(words[0]) || execs_.size() >= kMaxExecs) { return; }
  const auto count = static_cast<std::size_t>(number_of(words[3]));
  if (count == 0 || count + 4 > words.size()) { return; }
  const Container* container = nullptr;
  for (const auto& one : spec_.containers) {
    if (!one.init &&
        (container == nullptr ? words[1][0] == '\0' || equal(words[1], one.name) : false)) {
      container = &one;
    }
  }
  Ended failed{0, 128, 0, false, 0, 0};
  auto& exec = execs_.push();
  std::snprintf(exec.id, sizeof exec.id, "%s", words[0]);
  exec.started_us = wall_us();
  char name[64];
  std::snprintf(name, sizeof name, "exec.%s.log", exec.id);
  exec.log = open_log(name);
  if (container == nullptr || stopping_) {
    exec_ended(execs_.size() - 1, failed);
    return;
  }
  List<const char*> args;
  List<const char*> env;
  for (std::size_t i = 0; i < count; ++i) { args.push() = words[4 + i]; }
  args.push() = nullptr;
  for (std::size_t i = 0; i + 1 < container->env->size(); ++i) {
    env.push() = (*container->env)[i];
  }
  for (std::size_t i = 4 + count; i < words.size(); ++i) { env.push() = words[i]; }
  env.push() = nullptr;
  Launch launch;
  launch.spec = &spec_;
  launch.container = container;
  launch.args = const_cast<char* const*>(args.begin());
  launch.env = const_cast<char* const*>(env.begin());
  launch.cwd = words[2][0] == '\0' ? container->cwd : words[2];
  launch.log = exec.log;
  int go = -1;
  int result = -1;
  int pid = 0;
  spawn(launch, pid, go, result);
  if (pid > 0) {
    execs_[execs_.size() - 1].pid = pid;
    [[maybe_unused]] const auto n = ::write(go, "g", 1);
    ::close(go);
    const auto failure = result_of(result);
    if (failure.error != 0) {
      char line[256];
      const int size = std::snprintf(line, sizeof line, "metier: %s %s: %s\n", failure.step,
                                     failure.detail, std::strerror(failure.error));
      [[maybe_unused]] const auto written =
          ::write(execs_[execs_.size() - 1].log, line, static_cast<std::size_t>(size));
      // Its end (127) comes by SIGCHLD as any other's.
    }
  } else {
    exec_ended(execs_.size() - 1, failed);
  }
}

void Pod::request(int connection) {
  static char message[kMaxMessage];
  const auto n = ::recv(connection, message, sizeof message - 1, MSG_DONTWAIT);
  if (n <= 0) {
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) { return; }
    for (std::size_t i = 0; i < connections_.size(); ++i) {
      if (connections_[i] == connection) {
        connections_.drop(i);
        break;
      }
    }
    ::close(connection);
    return;
  }
  message[n] = '\0';
  char* end = message + n;
  const auto next = [end](char* at) {
    return at + std::strlen(at) + 1 < end ? at + std::strlen(at) + 1 : end;
  };
  char* first = next(message);
  char* second = next(first);
  char* third = next(second);
  if (equal(message, "stop")) {
    stop(number_of(first), second, third);
  } else if (equal(message, "kill")) {
    stop(0, second, third);
  } else if (equal(message, "signal")) {
    for (std::size_t i = 0; i < spec_.containers.size(); ++i) {
      if (runs_[i].phase == Phase::running) {
        ::kill(runs_[i].pid, static_cast<int>(number_of(first)));
      }
    }
  } else if (equal(message, "exec")) {
    exec(first, end);
  } else if (equal(message, "state")) {
    Text text;
    render(text, "state");
    ::send(connection, text.c_str(), text.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
  }
}

// `path`: where its program was looked for; null when that is not known.
void Pod::render_run(Text& out, const char* name, bool init, const Run& run, const char* path) {
  out.add("{\"name\":").json(name);
  out.add(",\"init\":").add(init ? "true" : "false");
  out.add(",\"state\":").json(phase_name(run.phase)).add(",\"starts\":").add(run.starts);
  out.add(",\"waiting\":").add(run.restart_at != 0 ? "true" : "false");
  out.add(",\"pid\":").add(run.pid).add(",\"ticks\":").add(run.ticks);
  out.add(",\"started_us\":").add(run.started_us).add(",\"finished_us\":").add(run.finished_us);
  out.add(",\"code\":").add(run.code).add(",\"signal\":").add(run.signal);
  out.add(",\"core\":").add(run.core ? "true" : "false");
  out.add(",\"oom\":").add(run.oom ? "true" : "false");
  if (run.oom_child) { out.add(",\"oom_child\":true"); }
  out.add(",\"cpu_us\":").add(run.cpu_us).add(",\"max_rss_kib\":").add(run.max_rss_kib);
  if (run.failure.error != 0) {
    out.add(",\"step\":").json(run.failure.step).add(",\"detail\":").json(run.failure.detail);
    out.add(",\"errno\":").add(run.failure.error);
    out.add(",\"error\":").json(std::strerror(run.failure.error));
    if (path != nullptr && equal(run.failure.step, "exec") &&
        std::strchr(run.failure.detail, '/') == nullptr) {
      out.add(",\"path\":").json(path);
    }
  }
  out.add("}");
}

void Pod::render(Text& out, const char* type) {
  out.add("{\"v\":1,\"t\":").json(type).add(",\"id\":").json(spec_.id);
  out.add(",\"shim\":").add(::getpid()).add(",\"boot\":").json(boot_id());
  out.add(",\"started_us\":").add(started_us_).add(",\"finished_us\":").add(finished_us_);
  out.add(",\"stopping\":").add(stopping_ ? "true" : "false");
  out.add(",\"reason\":").json(reason_.c_str()).add(",\"message\":").json(message_.c_str());
  out.add(",\"orphans\":").json(orphans_.c_str()).add(",\"stuck\":").add(stuck_);
  out.add(",\"containers\":[");
  for (std::size_t i = 0; i < spec_.containers.size(); ++i) {
    if (i > 0) { out.add(","); }
    const Container& container = spec_.containers[i];
    char* const* env = const_cast<char* const*>(container.env->begin());
    render_run(out, container.name, container.init, runs_[i], search_path(env));
  }
  out.add("]");
  if (ranks_.size() > 0) { out.add(",\"ranks\":["); }
  for (std::size_t i = 0; i < ranks_.size(); ++i) {
    if (i > 0) { out.add(","); }
    render_run(out, ranks_[i].name, false, ranks_[i].run, nullptr);
  }
  if (ranks_.size() > 0) { out.add("]"); }
  out.add("}");
}

// Not synced: whoever reads it after a power loss learns from the boot time that the pod ended then.
void Pod::record_state() {
  Text text;
  render(text, "state");
  write_record("state", text, Durable::no);
}

void Pod::notify(const Text& text) {
  for (std::size_t i = 0; i < connections_.size();) {
    if (::send(connections_[i], text.c_str(), text.size(), MSG_NOSIGNAL | MSG_DONTWAIT) < 0) {
      // A server that does not read is let go: it connects again and gets the whole state.
      ::close(connections_[i]);
      connections_.drop(i);
    } else {
      ++i;
    }
  }
}

void Pod::finish(int held) {
  for (std::size_t i = 0; i < spec_.containers.size(); ++i) {
    if (runs_[i].log >= 0) { ::fdatasync(runs_[i].log); }
  }
  end_ranks();
  close_gang();
  stuck_ = kill_tree(spec_, held, 10'000, &orphans_);
  finished_us_ = wall_us();
  Text text;
  render(text, "exit");
  int error = write_record("exit", text, Durable::yes);
  for (int tries = 0; tries < 60 && (error == ENOSPC || error == EDQUOT || error == EIO); ++tries) {
    ::sleep(1);
    error = write_record("exit", text, Durable::yes);
  }
  failpoint("shim/exit_written");
  if (error != 0) {
    if (reason_.size() == 0) { reason_.add(error == ENOENT ? "FolderLost" : "NotRecorded"); }
    text.clear();
    render(text, "exit");
  }
  notify(text);
  ::unlink("ctl.sock");
  ::_exit(0);
}

// Notes when the logs have grown.
void Pod::watch_logs() {
  const auto now = steady_ms();
  for (std::size_t i = 0; i < spec_.containers.size(); ++i) {
    if (runs_[i].phase == Phase::running) { runs_[i].times.look(now); }
  }
  for (auto& rank : ranks_) {
    if (rank.run.phase == Phase::running) { rank.run.times.look(now); }
  }
}

int Pod::timeout() const {
  std::int64_t at = 0;
  const auto earlier = [&at](std::int64_t other) {
    if (other != 0 && (at == 0 || other < at)) { at = other; }
  };
  if (stopping_) {
    earlier(kill_at_);
  } else {
    if (spec_.deadline_ms > 0) { earlier(started_ms_ + spec_.deadline_ms); }
    for (std::size_t i = 0; i < spec_.containers.size(); ++i) { earlier(runs_[i].restart_at); }
  }
  for (std::size_t i = 0; i < spec_.containers.size(); ++i) {
    if (runs_[i].phase == Phase::running) { earlier(runs_[i].times.due()); }
  }
  for (const auto& rank : ranks_) {
    if (rank.run.phase == Phase::running) { earlier(rank.run.times.due()); }
  }
  if (at == 0) { return -1; }
  const auto rest = at - steady_ms();
  return rest <= 0 ? 0 : rest > 3'600'000 ? 3'600'000 : static_cast<int>(rest) + 1;
}

void Pod::timers() {
  const auto now = steady_ms();
  if (!stopping_ && spec_.deadline_ms > 0 && now >= started_ms_ + spec_.deadline_ms) {
    stop(spec_.grace_ms, "DeadlineExceeded", "the pod ran longer than activeDeadlineSeconds");
  }
  if (stopping_ && kill_at_ != 0 && now >= kill_at_) {
    strike_tree(spec_);
    kill_at_ = now + 200;  // again, for what was forked meanwhile
  }
}

void Pod::live(int listener, int control, int adopted, int hold) {
  listener_ = listener;
  if (control >= 0) { connections_.push() = control; }
  started_us_ = wall_us();
  started_ms_ = steady_ms();
  oom_seen_ = oom_kills(spec_.oom_file);
  sigset_t chld;
  sigemptyset(&chld);
  sigaddset(&chld, SIGCHLD);
  ::sigprocmask(SIG_BLOCK, &chld, nullptr);
  const int signals = ::signalfd(-1, &chld, SFD_CLOEXEC | SFD_NONBLOCK);
  if (!open_gang()) {
    Text text;
    text.add("{\"v\":1,\"t\":\"refused\",\"what\":\"gang\",\"errno\":").add(errno).add("}");
    notify(text);
    if (adopted > 0) { ::kill(adopted, SIGKILL); }
    ::_exit(110);
  }
  if (adopted > 0) { adopt(adopted, hold); }
  while (true) {
    children();
    timers();
    watch_logs();
    advance();
    List<pollfd> polled;
    polled.push() = pollfd{signals, POLLIN, 0};
    polled.push() = pollfd{listener_, POLLIN, 0};
    for (const int connection : connections_) { polled.push() = pollfd{connection, POLLIN, 0}; }
    const std::size_t gang = polled.size();
    if (gang_ >= 0) { polled.push() = pollfd{gang_, POLLIN, 0}; }
    for (const int asker : askers_) { polled.push() = pollfd{asker, POLLIN, 0}; }
    ::poll(polled.begin(), polled.size(), timeout());
    signalfd_siginfo info;
    while (::read(signals, &info, sizeof info) > 0) {}
    for (std::size_t i = 2; i < gang; ++i) {
      if (polled[i].revents != 0) { request(polled[i].fd); }
    }
    for (std::size_t i = gang + 1; i < polled.size(); ++i) {
      if (polled[i].revents != 0) { hear_asker(polled[i].fd); }
    }
    if (gang < polled.size() && polled[gang].revents != 0) { accept_asker(); }
    if (polled[1].revents != 0) {
      const int connection = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
      ucred peer{};
      socklen_t size = sizeof peer;
      const bool known =
          connection >= 0 && ::getsockopt(connection, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0;
      if (known && (peer.uid == ::geteuid() || peer.uid == 0) && connections_.size() < 32) {
        connections_.push() = connection;
        Text text;
        render(text, "state");
        ::send(connection, text.c_str(), text.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
      } else if (connection >= 0) {
        ::close(connection);
      }
    }
  }
}

}  // namespace shim
