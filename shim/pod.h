// The life of one pod. Decides what starts, what starts again and when the pod has ended; records each step
// before it is reported; serves control connections.
#pragma once

#include <sys/types.h>

#include "log_times.h"
#include "setup.h"
#include "spec.h"

namespace shim {

enum class Phase { waiting, running, terminated };

struct Run {  // one container
  Phase phase = Phase::waiting;
  int pid = 0;
  int starts = 0;
  long long ticks = 0;
  std::int64_t started_us = 0;
  std::int64_t finished_us = 0;
  std::int64_t started_ms = 0;  // steady
  std::int64_t restart_at = 0;  // steady ms; 0: not waiting for a restart
  std::int64_t backoff_ms = 0;
  int code = 0;
  int signal = 0;
  bool core = false;
  bool oom = false;
  bool oom_child = false;  // a process below it was killed so while it ran
  long long cpu_us = 0;
  long long max_rss_kib = 0;
  int log = -1;
  LogTimes times;   // of that log
  Failure failure;  // of the start, error != 0
};

struct Exec {  // a command that was sent later
  char id[40] = {};
  int pid = 0;
  int log = -1;
  std::int64_t started_us = 0;
};

struct Rank {  // a process that another pod of the gang asked for
  int number = 0;
  int connection = -1;  // of who asked; -1: gone
  bool asked = false;   // to end: once, since a handler of the user's may be at work
  char name[20] = {};
  Run run;
};

class Pod {
 public:
  explicit Pod(const Spec& spec) : spec_(spec) {}
  // Never returns: the program ends with the pod.
  [[noreturn]] void live(int listener, int control, int adopted, int hold);

 private:
  struct Ended {
    int pid;
    int code;
    int signal;
    bool core;
    long long cpu_us;
    long long max_rss_kib;
  };
  void start(std::size_t i);
  void adopt(int pid, int hold);
  void advance();  // starts what is to start now; ends the pod when nothing is left
  void children();
  bool take_end(Ended& end, pid_t pid);
  void container_ended(std::size_t i, const Ended& end);
  void exec_ended(std::size_t i, const Ended& end);
  bool restarts(const Run& run, bool init) const;
  void stop(std::int64_t grace_ms, const char* reason, const char* message);
  void request(int connection);
  void exec(char* text, char* end);
  void spawn(const Launch& launch, int& pid, int& go, int& result);
  // --- ranks (gang.cc)
  bool open_gang();
  void close_gang();
  void accept_asker();
  void hear_asker(int connection);
  void drop_asker(int connection);
  void start_rank(int connection, int number, std::size_t count, int payload, int passed);
  void rank_ended(Rank& rank, const Ended& end);
  void ask_ranks();
  bool ranks_run() const;
  void end_ranks();
  void render_run(Text& out, const char* name, bool init, const Run& run, const char* path);
  int open_log(const char* name);
  Failure result_of(int result);
  [[noreturn]] void finish(int held);
  void render(Text& out, const char* type);
  void record_state();
  void notify(const Text& text);
  void watch_logs();
  int timeout() const;
  void timers();

  const Spec& spec_;
  Run runs_[kMaxContainers];
  List<Exec> execs_;
  List<int> connections_;
  List<Rank> ranks_;
  List<int> askers_;
  int gang_ = -1;
  int listener_ = -1;
  std::int64_t started_us_ = 0;
  std::int64_t started_ms_ = 0;
  std::int64_t finished_us_ = 0;
  bool stopping_ = false;
  std::int64_t kill_at_ = 0;  // steady ms, 0: none
  Text reason_;               // why it was stopped
  Text message_;
  Text orphans_;
  int stuck_ = 0;
  long long oom_seen_ = 0;
};

}  // namespace shim
