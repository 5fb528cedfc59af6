#include "mpi/launch.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <sstream>

#include "mpi/flavor.h"
#include "mpi/libraries.h"
#include "mpi/logs.h"
#include "mpi/rank.h"

extern char** environ;

namespace metier::mpi {
namespace {

using std::chrono::steady_clock;

struct Job {
  std::vector<std::string> hosts;
  int slots = 1;
  bool stay = false;
  std::string implementation;  // that the job asks for; empty: any
  bool goes_on = false;        // the user lets the other ranks work when one has failed
  std::string gang;
  std::string self;  // this program
  std::string launcher;
  Arguments arguments;
  Engine engine;
};

std::string variable(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? std::string() : std::string(value);
}

void say(const std::string& text) {
  const auto line = "metier: " + text + "\n";
  [[maybe_unused]] const auto n = ::write(2, line.data(), line.size());
}

std::string json_text(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') { out += '\\'; }
    out += static_cast<unsigned char>(c) < 0x20 ? ' ' : c;
  }
  return out + "\"";
}

// A failure that is not a rank's, into the run's record.
int refuse(int code, const std::string& reason, const std::string& text) {
  say(text);
  if (const auto journal = variable("METIER_JOURNAL"); !journal.empty()) {
    const auto line =
        "{\"v\":1,\"op\":\"failure\",\"body\":{\"type\":\"\",\"message\":" + json_text(text) +
        ",\"part\":\"launcher\",\"code\":" + json_text(reason) +
        ",\"exit_code\":" + std::to_string(code) + "}}\n";
    const int fd = ::open(journal.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    [[maybe_unused]] const auto n = ::write(fd, line.data(), line.size());
    ::close(fd);
  }
  return code;
}

std::string read_words(const std::vector<std::string>& words, Job& job) {
  std::size_t at = 0;
  for (; at < words.size() && words[at] != "--"; ++at) {
    if (words[at] == "--stay") {
      job.stay = true;
    } else if (at + 1 < words.size() && words[at] == "--hosts") {
      std::istringstream list(words[++at]);
      for (std::string host; std::getline(list, host, ',');) { job.hosts.push_back(host); }
    } else if (at + 1 < words.size() && words[at] == "--slots") {
      job.slots = std::atoi(words[++at].c_str());
    } else if (at + 1 < words.size() && words[at] == "--implementation") {
      job.implementation = words[++at];
    } else {
      return "launch does not know " + words[at];
    }
  }
  if (job.hosts.empty() || job.slots < 1 || at + 1 >= words.size()) {
    return "usage: metier-mpi launch --hosts POD,POD --slots N -- mpirun OPTIONS PROGRAM";
  }
  job.launcher = words[at + 1];
  const std::vector<std::string> rest(words.begin() + static_cast<std::ptrdiff_t>(at) + 2,
                                      words.end());
  if (auto wrong = split(rest, job.arguments); !wrong.empty()) { return "spec.mpi_args: " + wrong; }
  const auto goes_on = [](std::string_view word) {
    return word.ends_with("enable-recovery") ||
           word.find("abort_on_non_zero_status") != std::string_view::npos;
  };
  job.goes_on = std::ranges::any_of(rest, goes_on);
  for (char** one = environ; *one != nullptr; ++one) {
    job.goes_on =
        job.goes_on || goes_on(std::string_view(*one).substr(0, std::string_view(*one).find('=')));
  }
  if (job.arguments.program.empty()) { return "mpirun has no program to run"; }
  const int most = job.slots * static_cast<int>(job.hosts.size());
  if (job.arguments.ranks > most) {
    return "spec.mpi_args: -n asks for " + std::to_string(job.arguments.ranks) +
           " ranks, and the job has " + std::to_string(most) +
           " slots: raise replicas or slots_per_worker";
  }
  if (job.arguments.ranks == 0) { job.arguments.ranks = most; }
  return {};
}

// What the ranks would load of another MPI than mpirun's: then each would take itself for the only one.
std::string other_mpi(const Job& job) {
  if (const auto own = variable("MPI4PY_LIBMPI"); !own.empty()) {
    if (auto wrong = wrong_library(own, job.engine.flavor, job.engine.launcher); !wrong.empty()) {
      return wrong;
    }
    const auto prefix = job.engine.prefix + "/";
    if (!own.starts_with(prefix) && !real(own).starts_with(prefix)) {
      return "MPI4PY_LIBMPI is " + own + ", and mpirun is of " + job.engine.prefix +
             ": take launcher and library from one place";
    }
  }
  // The program, or the native handler that mlrun loads.
  const auto& program = job.arguments.program;
  const auto handler = std::ranges::find_if(
      program, [](const auto& word) { return std::string_view(word).ends_with(".so"); });
  const auto& file = handler == program.end() ? program[0] : *handler;
  if (handler == program.end() && file.find('/') == std::string::npos) { return {}; }
  return wrong_linked(file, job.engine.flavor, job.engine.launcher, variable("LD_LIBRARY_PATH"));
}

// The workers start together with the launcher: their sockets come within milliseconds.
std::string await_pods(const Job& job) {
  const auto until = steady_clock::now() + std::chrono::seconds(120);
  useconds_t pause = 500;
  const auto used = (job.arguments.ranks + job.slots - 1) / job.slots;
  for (int i = 0; i < used; ++i) {
    const auto& host = job.hosts[static_cast<std::size_t>(i)];
    while (::access((job.gang + "/" + host + ".sock").c_str(), F_OK) != 0) {
      if (steady_clock::now() > until) { return host; }
      ::usleep(pause);
      pause = std::min<useconds_t>(pause * 2, 20'000);
    }
  }
  return {};
}

int free_port() {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  int port = 0;
  if (::bind(fd, reinterpret_cast<const sockaddr*>(&address), size) == 0 &&
      ::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) == 0) {
    port = ntohs(address.sin_port);
  }
  ::close(fd);
  return port;
}

// Pods with user namespaces of their own cannot read each other's memory: Open MPI 4 waits for ever when it tries, MPICH
// aborts.
bool in_user_namespace() {
  std::FILE* file = std::fopen("/proc/self/uid_map", "re");
  unsigned long inside = 0;
  unsigned long outside = 0;
  unsigned long count = 0;
  const bool read =
      file != nullptr && std::fscanf(file, "%lu %lu %lu", &inside, &outside, &count) == 3;
  if (file != nullptr) { std::fclose(file); }
  return !read || count < 0xFFFF'FFFFUL;
}

// What our way of starting ranks needs, and what makes it fast; a value of the user's own wins.
void set_defaults(const Job& job) {
  const auto set = [](const char* name, const char* value) { ::setenv(name, value, 0); };
  std::string hosts;
  for (const auto& host : job.hosts) { hosts += (hosts.empty() ? "" : ",") + host; }
  ::setenv("METIER_MPI_HOSTS", hosts.c_str(), 1);
  ::setenv("METIER_MPI_SLOTS", std::to_string(job.slots).c_str(), 1);
  ::setenv("METIER_MASTER_PORT", std::to_string(free_port()).c_str(), 0);
  ::setenv("TMPDIR", (job.gang + "/tmp").c_str(), 1);  // mpirun's session folder
  if (!job.engine.library.empty()) { set("MPI4PY_LIBMPI", job.engine.library.c_str()); }
  // The gang's memory is /dev/shm in its pods, where they have mounts of their own.
  const auto shared = job.gang + "/shm";
  const auto memory = ::access(shared.c_str(), W_OK) == 0 ? shared : std::string();
  switch (job.engine.flavor) {
    case Flavor::openmpi4:
      set("OMPI_ALLOW_RUN_AS_ROOT", "1");
      set("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
      set("OMPI_MCA_plm", "isolated");  // every rank is started by this mpirun
      set("OMPI_MCA_ess_base_forward_signals", "none");
      set("OMPI_MCA_odls_base_sigkill_timeout", "0");
      set("OMPI_MCA_rmaps_base_oversubscribe", "1");
      set("OMPI_MCA_hwloc_base_binding_policy", "none");
      set("OMPI_MCA_if_base_do_not_resolve", "1");
      set("OMPI_MCA_oob_tcp_if_include", "lo");
      set("OMPI_MCA_pml", "ob1");
      set("OMPI_MCA_btl", "self,vader");
      if (!memory.empty()) { set("OMPI_MCA_btl_vader_backing_directory", memory.c_str()); }
      if (in_user_namespace()) { set("OMPI_MCA_btl_vader_single_copy_mechanism", "none"); }
      set("OMPI_MCA_mpi_yield_when_idle", "1");
      break;
    case Flavor::openmpi5:
      set("OMPI_ALLOW_RUN_AS_ROOT", "1");
      set("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
      set("PRTE_ALLOW_RUN_AS_ROOT", "1");
      set("PRTE_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
      set("PRTE_MCA_rmaps_default_mapping_policy", ":oversubscribe");
      set("PRTE_MCA_hwloc_default_binding_policy", "none");
      set("PMIX_MCA_ptl_tcp_if_include", "lo");
      set("OMPI_MCA_pml", "ob1");
      set("OMPI_MCA_btl", "self,sm");
      if (!memory.empty()) { set("OMPI_MCA_btl_sm_backing_directory", memory.c_str()); }
      if (in_user_namespace()) { set("OMPI_MCA_smsc", "^cma,knem,xpmem"); }
      set("OMPI_MCA_mpi_yield_when_idle", "1");
      break;
    case Flavor::mpich:
      if (in_user_namespace()) {
        set("MPIR_CVAR_CH4_CMA_ENABLE", "0");
        set("UCX_TLS", "^cma");
      }
      break;
  }
}

std::string command_of(const Job& job, std::vector<std::string>& out) {
  out = {job.engine.launcher};
  if (job.engine.flavor == Flavor::mpich) {
    out.insert(out.end(), {"-launcher", "fork", "-hosts", "localhost"});
  }
  std::vector<std::string> options;
  if (auto wrong = translate(job.arguments, job.engine.flavor, options); !wrong.empty()) {
    return "spec.mpi_args: " + wrong;
  }
  out.insert(out.end(), options.begin(), options.end());
  out.insert(out.end(),
             {"-n", std::to_string(job.arguments.ranks), job.self, "rank", "--spread", "--"});
  out.insert(out.end(), job.arguments.program.begin(), job.arguments.program.end());
  return {};
}

bool keep_environment(const Job& job) {
  std::string text;
  for (char** one = environ; *one != nullptr; ++one) {
    text += *one;
    text += '\0';
  }
  const int fd = ::open((job.gang + kBaseEnvironment).c_str(),
                        O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
  const bool done =
      fd >= 0 && ::write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size());
  if (fd >= 0) { ::close(fd); }
  return done;
}

// Horovod opens its logs and makes no folder for them; all pods of the job see the same folders.
void make_log_folders() {
  for (const char* name : {"HOROVOD_TIMELINE", "HOROVOD_AUTOTUNE_LOG"}) {
    const auto path = variable(name);
    const auto last = path.rfind('/');
    if (last == std::string::npos) { continue; }
    const auto folder = path.substr(0, last);
    for (auto at = path.find('/', 1); at != std::string::npos; at = path.find('/', at + 1)) {
      ::mkdir(path.substr(0, at).c_str(), 0777);
    }
    if (last > 0 && ::access(folder.c_str(), W_OK) != 0) {
      say(folder + ", the folder of " + name + ", cannot be written: " + std::strerror(errno));
    }
  }
}

void tell_pods(const Job& job, const char* word) {
  for (const auto& host : job.hosts) {
    const int fd = connect_pod(job.gang, host);
    if (fd < 0) { continue; }
    ::send(fd, word, std::strlen(word) + 1, MSG_NOSIGNAL);
    ::close(fd);
  }
}

constexpr int kLeavingPause = 100;  // ms
constexpr int kLookPause = 500;     // ms
// From a rank's bad end to that of mpirun: MPICH's kills the others at once, Open MPI's gives them a second to end themselves.
constexpr auto kCleanUp = std::chrono::seconds(1);
constexpr auto kLongCleanUp = std::chrono::seconds(5);
constexpr int kTerminated = 128 + SIGTERM;
constexpr int kKilled = 128 + SIGKILL;

struct RankEnd {
  int rank = 0;
  std::string pod;
  int code = 0;  // as a shell gives it
  int signal = 0;
};

std::vector<RankEnd> ends_of(const Job& job) {
  std::vector<RankEnd> out;
  std::FILE* file = std::fopen((job.gang + kEnds).c_str(), "re");
  if (file == nullptr) { return out; }
  RankEnd one;
  char pod[128];
  while (std::fscanf(file, "%d %127s %d %d", &one.rank, pod, &one.code, &one.signal) == 4) {
    one.pod = pod;
    if (one.signal != 0) { one.code = 128 + one.signal; }
    out.push_back(one);
  }
  std::fclose(file);
  return out;
}

// The first rank that ended badly. mpirun ends the others by SIGTERM, and some of them end before the one that failed: such
// an end counts when there is no other.
const RankEnd* first_failure(const std::vector<RankEnd>& ends) {
  const RankEnd* out = nullptr;
  for (const auto& one : ends) {
    if (one.code == 0) { continue; }
    if (out == nullptr) {
      out = &one;
    } else if (out->code == kTerminated && one.code != kTerminated && one.code != kKilled) {
      return &one;
    }
  }
  return out;
}

// After MPI_Abort(code) mpirun ends every rank and itself with that code. MPICH ends with 9 whenever a rank was killed.
bool ended_by_mpirun(const std::vector<RankEnd>& ends, int code, Flavor flavor) {
  if (code == 0 || code > 127 || (flavor == Flavor::mpich && code == SIGKILL)) { return false; }
  return std::ranges::all_of(
      ends, [](const auto& one) { return one.code == kTerminated || one.code == kKilled; });
}

// Launchers end the other ranks when one ends inside of MPI. Before MPI_Init MPICH's does not, and Open MPI 5's not always: the others
// would wait there for ever.
class Straggling {
 public:
  explicit Straggling(const Job& job) : job_(job) {}
  // Whether a rank has ended badly a while ago.
  bool seen() {
    if (job_.goes_on || first_failure(ends_of(job_)) == nullptr) { return false; }
    const auto now = std::chrono::steady_clock::now();
    if (!since_) { since_ = now; }
    return now - *since_ >= (job_.engine.flavor == Flavor::mpich ? kCleanUp : kLongCleanUp);
  }

 private:
  const Job& job_;
  std::optional<std::chrono::steady_clock::time_point> since_;
};

// Open MPI 5 may crash over a rank that fails while others are still in MPI_Init: then that rank is the cause. Of one that was killed
// it is not: its ranks may end by any code when they notice.
bool crashed_over_a_rank(int status, const RankEnd* failed) {
  if (!WIFSIGNALED(status) || failed == nullptr) { return false; }
  const int signal = WTERMSIG(status);
  return (signal == SIGSEGV || signal == SIGABRT || signal == SIGBUS) && failed->code != kKilled &&
         failed->code != kTerminated;
}

int supervise(const Job& job, pid_t child, int signals) {
  RankLogs logs(job.gang, job.arguments.ranks > 1);
  int status = 0;
  bool leaving = false;
  bool asked = false;
  bool cut = false;
  Straggling straggling(job);
  while (true) {
    logs.pump(false);
    const pid_t ended = ::waitpid(child, &status, WNOHANG);
    if (ended == child) { break; }
    // The ranks get the whole grace time, and mpirun ends when they have: asked to when none of them runs.
    if (leaving && !asked && ends_of(job).size() >= logs.count()) {
      asked = ::kill(child, SIGTERM) == 0;
    }
    if (!leaving && !cut && straggling.seen()) { cut = ::kill(child, SIGKILL) == 0; }
    pollfd polled[2] = {{signals, POLLIN, 0}, {logs.descriptor(), POLLIN, 0}};
    ::poll(polled, 2, leaving ? kLeavingPause : kLookPause);
    signalfd_siginfo info{};
    while (::read(signals, &info, sizeof info) > 0) {
      if (info.ssi_signo == SIGTERM || info.ssi_signo == SIGINT) {
        tell_pods(job, "term");
        leaving = true;
      }
    }
  }
  ::kill(-child, SIGKILL);  // what it left
  logs.pump(true);
  const int code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  if (leaving) { return code; }  // told to end: whoever told it knows why
  const auto ends = ends_of(job);
  const auto* failed = first_failure(ends);
  if (WIFSIGNALED(status) && !cut &&
      !crashed_over_a_rank(status, failed)) {  // what its ranks ended by then is its consequence
    const int signal = WTERMSIG(status);
    return refuse(
        code, "Killed",
        "mpirun was killed by signal " + std::to_string(signal) + " (" + ::strsignal(signal) + ")");
  }
  if (logs.count() > 0 && ended_by_mpirun(ends, code, job.engine.flavor)) {
    const auto number = std::to_string(code);
    return refuse(code, "RankFailed",
                  "mpirun ended every rank with code " + number + ": a rank called MPI_Abort(" +
                      number + "), or mpirun was told to end");
  }
  if (failed == nullptr) {
    if (code != 0) {
      say("mpirun ended with exit code " + std::to_string(code) + ", its words are above");
    }
    return code;
  }
  say("rank " + std::to_string(failed->rank) + " in pod " + failed->pod +
      (failed->signal != 0 ? " was killed by signal " + std::to_string(failed->signal) + " (" +
                                 ::strsignal(failed->signal) + ")"
                           : " ended with exit code " + std::to_string(failed->code)));
  return failed->code;
}

}  // namespace

int launch_main(const std::vector<std::string>& words) {
  Job job;
  job.gang = variable("METIER_GANG");
  char self[4096] = {};
  if (::readlink("/proc/self/exe", self, sizeof self - 1) > 0) { job.self = self; }
  if (auto wrong = read_words(words, job); !wrong.empty()) {
    return refuse(2, "InvalidParameter", wrong);
  }
  if (job.gang.empty()) { return refuse(5, "Internal", "launch: METIER_GANG is not set"); }
  if (auto wrong = find_engine(job.launcher, variable("PATH"), job.engine); !wrong.empty()) {
    return refuse(5, "EngineMissing", wrong);
  }
  const std::string is = job.engine.flavor == Flavor::mpich ? "MPICH" : "OpenMPI";
  if (!job.implementation.empty() && job.implementation != is) {
    return refuse(5, "EngineMissing",
                  "spec.mpi_implementation: '" + job.implementation +
                      "' is asked for, and the MPI here is " +
                      std::string(to_string(job.engine.flavor)) + " (" + job.engine.launcher +
                      "): leave it out, or let the function's environment bring the other");
  }
  if (auto wrong = other_mpi(job); !wrong.empty()) { return refuse(5, "EngineMissing", wrong); }
  if (const auto late = await_pods(job); !late.empty()) {
    return refuse(5, "GangIncomplete", "worker pod " + late + " did not come up within 120 s");
  }
  if (!keep_environment(job)) {
    return refuse(5, "Internal",
                  "the gang's folder " + job.gang + " cannot be written: " + std::strerror(errno));
  }
  ::unlink((job.gang + kEnds).c_str());
  set_defaults(job);
  make_log_folders();
  std::vector<std::string> command;
  if (auto wrong = command_of(job, command); !wrong.empty()) {
    return refuse(2, "InvalidParameter", wrong);
  }
  sigset_t handled;
  sigemptyset(&handled);
  for (const int signal : {SIGCHLD, SIGTERM, SIGINT}) { sigaddset(&handled, signal); }
  ::sigprocmask(SIG_BLOCK, &handled, nullptr);
  const int signals = ::signalfd(-1, &handled, SFD_CLOEXEC | SFD_NONBLOCK);
  const pid_t child = ::fork();
  if (child == 0) {
    ::setpgid(0, 0);
    ::sigprocmask(SIG_UNBLOCK, &handled, nullptr);
    std::vector<char*> argv;
    for (auto& word : command) { argv.push_back(word.data()); }
    argv.push_back(nullptr);
    ::execv(argv[0], argv.data());
    say(std::string(argv[0]) + " cannot be started: " + std::strerror(errno));
    ::_exit(127);
  }
  const int code = supervise(job, child, signals);
  if (!job.stay) { tell_pods(job, "leave"); }
  return code;
}

}  // namespace metier::mpi
