#include "mpi/stacks.h"

#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <sstream>
#include <string>

namespace metier::mpi {
namespace {

constexpr int kAsk =
    34 + 11;  // SIGRTMIN + 11 of glibc: metier_runner.rank answers it with its stack

std::string text_of(const std::string& path, std::size_t from = 0) {
  std::string out;
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) { return out; }
  ::lseek(fd, static_cast<off_t>(from), SEEK_SET);
  char part[8192];
  for (ssize_t n = 0; out.size() < (1U << 20U) && (n = ::read(fd, part, sizeof part)) > 0;) {
    out.append(part, static_cast<std::size_t>(n));
  }
  ::close(fd);
  return out;
}

std::string variable(const std::string& environment, const std::string& name) {
  const auto key = name + "=";
  for (std::size_t at = 0; at < environment.size();) {
    const auto end = std::min(environment.find('\0', at), environment.size());
    if (environment.compare(at, key.size(), key) == 0) {
      return environment.substr(at + key.size(), end - at - key.size());
    }
    at = end + 1;
  }
  return {};
}

bool catches(const std::string& process, int signal) {
  const auto status = text_of(process + "/status");
  const auto at = status.find("SigCgt:");
  if (at == std::string::npos) { return false; }
  const auto mask = std::strtoull(status.c_str() + at + 7, nullptr, 16);
  return (mask >> static_cast<unsigned>(signal - 1) & 1U) != 0;
}

// "work.py:12 in train < mpi.py:3 in main": the innermost frames of the thread that matters, ours left out.
std::string frames_of(const std::string& dump) {
  std::string out;
  int kept = 0;
  const auto thread = dump.find("Current thread");
  std::istringstream lines(thread == std::string::npos ? dump : dump.substr(thread));
  for (std::string line; std::getline(lines, line) && kept < 4;) {
    const auto file = line.find("File \"");
    const auto name_end = line.find("\", line ");
    if (file == std::string::npos || name_end == std::string::npos) { continue; }
    auto path = line.substr(file + 6, name_end - file - 6);
    if (path.find("metier_runner") != std::string::npos || path.starts_with("<frozen")) {
      continue;
    }
    path = path.substr(path.rfind('/') + 1);
    const auto in = line.find(" in ", name_end);
    const auto number = line.substr(name_end + 8, in - name_end - 8);
    out += (out.empty() ? "" : " < ") + path + ":" + number +
           (in == std::string::npos ? "" : line.substr(in));
    ++kept;
  }
  return out;
}

std::string wait_of(const std::string& process) {
  const auto wait = text_of(process + "/wchan");
  return wait.empty() || wait == "0" ? "computing" : "waits in the kernel: " + wait;
}

std::string where(const std::string& process, int pid, int rank, const std::string& folder) {
  const auto file = folder + "/stack.rank-" + std::to_string(rank);
  if (catches(process, kAsk)) {
    const auto before = text_of(file).size();
    ::kill(pid, kAsk);
    std::string dump;
    for (int round = 0; round < 100 && dump.find("File \"") == std::string::npos; ++round) {
      ::usleep(5'000);
      dump = text_of(file, before);
    }
    if (auto frames = frames_of(dump); !frames.empty()) { return frames; }
    // Of Python there is only our own call into the user's library.
    if (dump.find("metier_runner/native.py") != std::string::npos) {
      return "in native code, whose stack cannot be read: " + wait_of(process);
    }
  }
  return wait_of(process) + " (no stack of this program can be read)";
}

// When a process began, in clock ticks since boot; empty when it is gone.
std::string begin_of(const std::string& process) {
  const auto text = text_of(process + "/stat");
  std::istringstream words(text.substr(std::min(text.rfind(')') + 1, text.size())));
  std::string word;
  for (int field = 3; field <= 22 && words >> word; ++field) {}
  return words ? word : std::string();
}

// Ranks by what they wrote of themselves: as an ordinary user each process has a user namespace of its own, and the
// environment of one is closed to the others.
void add_told(const std::string& folder, std::map<int, std::string>& ranks) {
  DIR* files = ::opendir(folder.c_str());
  while (const dirent* entry = files == nullptr ? nullptr : ::readdir(files)) {
    int rank = 0, end = 0;
    if (std::sscanf(entry->d_name, "rank-%d.pid%n", &rank, &end) != 1 || end == 0 ||
        entry->d_name[end] != '\0' || ranks.contains(rank)) {
      continue;
    }
    std::istringstream told(text_of(folder + "/" + entry->d_name));
    int pid = 0;
    std::string begin;
    if (!(told >> pid >> begin) || pid <= 1) { continue; }
    const auto process = "/proc/" + std::to_string(pid);
    if (begin_of(process) == begin) { ranks[rank] = where(process, pid, rank, folder); }
  }
  if (files != nullptr) { ::closedir(files); }
}

}  // namespace

int stacks_main() {
  const char* own = std::getenv("METIER_POD_UID");
  const char* journal = std::getenv("METIER_JOURNAL");
  if (own == nullptr || journal == nullptr) { return 2; }
  const std::string folder = std::string(journal).substr(0, std::string(journal).rfind('/'));
  std::map<int, std::string> ranks;
  DIR* proc = ::opendir("/proc");
  while (const dirent* entry = proc == nullptr ? nullptr : ::readdir(proc)) {
    const int pid = std::atoi(entry->d_name);
    if (pid <= 0 || ::getsid(pid) != pid) { continue; }  // a rank leads its session
    const auto process = std::string("/proc/") + entry->d_name;
    const auto environment = text_of(process + "/environ");
    const auto rank = variable(environment, "METIER_RANK");
    if (rank.empty() || variable(environment, "METIER_POD_UID") != own) { continue; }
    ranks[std::atoi(rank.c_str())] = where(process, pid, std::atoi(rank.c_str()), folder);
  }
  if (proc != nullptr) { ::closedir(proc); }
  add_told(folder, ranks);
  for (const auto& [rank, text] : ranks) { std::printf("rank %d: %s\n", rank, text.c_str()); }
  return 0;
}

}  // namespace metier::mpi
