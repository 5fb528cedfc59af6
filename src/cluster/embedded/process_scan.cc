#include "cluster/embedded/process_scan.h"

#include <unistd.h>
#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <set>

#include <fmt/format.h>

#include "base/files.h"

namespace metier {
namespace {

struct Process {
  int pid = 0;
  int parent = 0;
  int session = 0;
  char state = '?';
  long long ticks = 0;
  std::int64_t cpu_ticks = 0;
  std::int64_t rss_pages = 0;
};

// Empty when the process has gone, in the middle of the reading too (a stream's iterator would throw).
std::string slurp(const std::string& path) {
  auto text = read_file(path);
  return text ? std::move(*text) : std::string();
}

std::vector<Process> all_processes() {
  std::vector<Process> out;
  std::error_code ec;
  for (std::filesystem::directory_iterator at("/proc", ec), end; !ec && at != end;
       at.increment(ec)) {
    const auto name = at->path().filename().string();
    if (std::isdigit(static_cast<unsigned char>(name[0])) == 0) { continue; }
    const auto text = slurp("/proc/" + name + "/stat");
    const auto close = text.rfind(')');
    if (close == std::string::npos || close + 4 > text.size()) { continue; }
    Process process{.pid = std::atoi(name.c_str()), .state = text[close + 2]};
    const char* rest = text.c_str() + close + 3;
    char* after = nullptr;
    for (int field = 4; field <= 24; ++field) {
      const auto value = std::strtoll(rest, &after, 10);
      if (after == rest) { break; }
      rest = after;
      switch (field) {
        case 4: process.parent = static_cast<int>(value); break;
        case 6: process.session = static_cast<int>(value); break;
        case 14:
        case 15:
        case 16:
        case 17: process.cpu_ticks += value; break;
        case 22: process.ticks = value; break;
        case 24: process.rss_pages = value; break;
        default: break;
      }
    }
    out.push_back(process);
  }
  return out;
}

void add_descendants(const std::vector<Process>& all, std::set<int>& pids) {
  for (bool more = true; more;) {
    more = false;
    for (const auto& one : all) {
      if (pids.contains(one.parent) && pids.insert(one.pid).second) { more = true; }
    }
  }
}

bool has_marker(int pid, const std::string& marker) {
  const auto text = slurp(fmt::format("/proc/{}/environ", pid));
  const auto at = text.find(marker);
  return at != std::string::npos && (at == 0 || text[at - 1] == '\0') &&
         (at + marker.size() == text.size() || text[at + marker.size()] == '\0');
}

}  // namespace

std::vector<int> pod_processes(const std::string& id, const std::vector<KnownMain>& mains) {
  const auto all = all_processes();
  std::map<int, long long> ticks;
  for (const auto& one : all) { ticks[one.pid] = one.ticks; }
  std::set<int> pids;
  std::set<int> sessions;
  for (const auto& main : mains) {
    const auto it = ticks.find(main.pid);
    if (it != ticks.end() && it->second != main.ticks) {
      continue;
    }  // the number is somebody else's now
    sessions.insert(main.pid);
  }
  const auto marker = "METIER_POD_UID=" + id;
  for (const auto& one : all) {
    if (one.pid == ::getpid()) { continue; }
    if (sessions.contains(one.session) || sessions.contains(one.pid) ||
        has_marker(one.pid, marker)) {
      pids.insert(one.pid);
    }
  }
  add_descendants(all, pids);
  std::vector<int> out;
  for (const auto& one : all) {
    if (pids.contains(one.pid) && one.state != 'Z' && one.state != 'X') { out.push_back(one.pid); }
  }
  return out;
}

Usage tree_usage(int shim) {
  const auto all = all_processes();
  std::set<int> pids{shim};
  add_descendants(all, pids);
  Usage out;
  const auto hertz = ::sysconf(_SC_CLK_TCK);
  const auto page = ::sysconf(_SC_PAGESIZE);
  for (const auto& one : all) {
    if (one.pid == shim || !pids.contains(one.pid) || one.state == 'Z') { continue; }
    ++out.processes;
    out.cpu_us += one.cpu_ticks * 1'000'000 / hertz;
    out.memory += one.rss_pages * page;
  }
  return out;
}

}  // namespace metier
