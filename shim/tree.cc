#include "tree.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>

#include "record.h"

namespace shim {
namespace {

struct Found {
  int pid;
  int parent;
  char state;
  char name[32];
  bool ours;
};

// Every process below this one.
void descendants(List<Found>& out) {
  out.clear();
  static List<Found> all;
  all.clear();
  DIR* proc = ::opendir("/proc");
  if (proc == nullptr) { return; }
  while (const dirent* entry = ::readdir(proc)) {
    const int pid = static_cast<int>(std::strtol(entry->d_name, nullptr, 10));
    if (pid <= 0) { continue; }
    Found found{};
    found.pid = pid;
    if (process_facts(pid, found.parent, found.state, found.name)) { all.push() = found; }
  }
  ::closedir(proc);
  const int self = ::getpid();
  for (bool more = true; more;) {
    more = false;
    for (auto& one : all) {
      if (one.ours) { continue; }
      bool ours = one.parent == self;
      for (const auto& other : all) {
        if (ours) { break; }
        ours = other.ours && other.pid == one.parent;
      }
      if (ours) {
        one.ours = true;
        more = true;
        out.push() = one;
      }
    }
  }
}

// Members of the cgroups: also processes that a debugger re-parented, or that another group member forked.
int strike_cgroups(const Spec& spec) {
  if (spec.cgroup_kill[0] != '\0') {
    const int fd = ::open(spec.cgroup_kill, O_WRONLY | O_CLOEXEC);
    if (fd >= 0) {
      const bool done = ::write(fd, "1", 1) == 1;
      ::close(fd);
      if (done) { return 0; }
    }
  }
  int struck = 0;
  if (spec.cgroups.size() == 0) { return 0; }
  std::FILE* file = std::fopen(spec.cgroups[0], "re");
  if (file == nullptr) { return 0; }
  char line[32];
  while (std::fgets(line, sizeof line, file) != nullptr) {
    const int pid = static_cast<int>(std::strtol(line, nullptr, 10));
    if (pid > 1 && pid != ::getpid() && ::kill(pid, SIGKILL) == 0) { ++struck; }
  }
  std::fclose(file);
  return struck;
}

// Whether a child is not a zombie. Without WEXITED zombies do not count, so that ECHILD means that nothing
// lives below us: whatever loses its parent becomes our child.
bool live_children() {
  siginfo_t info{};
  return ::waitid(P_ALL, 0, &info, WSTOPPED | WNOHANG | WNOWAIT) == 0 || errno != ECHILD;
}

}  // namespace

void strike_tree(const Spec& spec) {
  strike_cgroups(spec);
  List<Found> found;
  descendants(found);
  for (const auto& one : found) {
    if (one.state != 'Z') { ::kill(one.pid, SIGKILL); }
  }
}

int kill_tree(const Spec& spec, int keep, std::int64_t limit_ms, Text* names) {
  if (!live_children()) { return 0; }
  static List<Found> found;
  int named = 0;
  useconds_t pause = 500;
  const auto until = steady_ms() + limit_ms;
  for (bool first = true;; first = false) {
    descendants(found);
    int live = 0;
    for (const auto& one : found) {
      if (one.pid == keep) { continue; }
      if (one.state == 'Z' || one.state == 'X') {
        if (one.parent == ::getpid()) {
          siginfo_t info{};
          ::waitid(P_PID, static_cast<id_t>(one.pid), &info, WEXITED | WNOHANG);
        }
        continue;
      }
      ++live;
      if (first && names != nullptr && named < 16) {
        if (names->size() > 0) { names->add(", "); }
        names->add(one.name).add("(").add(one.pid).add(")");
        ++named;
      }
      ::kill(one.pid, SIGKILL);
    }
    const int struck = strike_cgroups(spec);
    if (live == 0 && struck == 0) { return 0; }
    if (steady_ms() > until) { return live; }
    ::usleep(pause);
    if (pause < 50'000) { pause *= 2; }
  }
}

}  // namespace shim
