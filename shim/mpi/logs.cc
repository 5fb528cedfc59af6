#include "mpi/logs.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/inotify.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

namespace metier::mpi {
namespace {

constexpr std::size_t kLongestLine = 1U << 16U;

void write_all(const std::string& text) {
  for (std::size_t done = 0; done < text.size();) {
    const auto n = ::write(1, text.data() + done, text.size() - done);
    if (n < 0 && errno == EINTR) { continue; }
    if (n <= 0) { return; }
    done += static_cast<std::size_t>(n);
  }
}

}  // namespace

RankLogs::RankLogs(std::string gang, bool prefix) : gang_(std::move(gang)), prefix_(prefix) {
  watch_ = ::inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
  ::inotify_add_watch(watch_, gang_.c_str(), IN_CREATE | IN_MOVED_TO | IN_ONLYDIR);
  find();
}

RankLogs::~RankLogs() {
  for (auto& [rank, log] : logs_) { ::close(log.fd); }
  if (watch_ >= 0) { ::close(watch_); }
}

void RankLogs::find() {
  DIR* folder = ::opendir(gang_.c_str());
  if (folder == nullptr) { return; }
  constexpr std::string_view kName = "log.rank-";
  while (const dirent* entry = ::readdir(folder)) {
    if (std::strncmp(entry->d_name, kName.data(), kName.size()) != 0) { continue; }
    const int rank = std::atoi(entry->d_name + kName.size());
    if (logs_.contains(rank)) { continue; }
    const auto path = gang_ + "/" + entry->d_name;
    // Watched first: what is written between the two is then read at once or heard of.
    ::inotify_add_watch(watch_, path.c_str(), IN_MODIFY);
    const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd >= 0) { logs_[rank].fd = fd; }
  }
  ::closedir(folder);
}

void RankLogs::take(int rank, Log& log, bool last) {
  char part[65'536];
  while (true) {
    const auto n = ::read(log.fd, part, sizeof part);
    if (n < 0 && errno == EINTR) { continue; }
    if (n > 0) { log.rest.append(part, static_cast<std::size_t>(n)); }
    std::size_t from = 0;
    while (from < log.rest.size()) {
      auto end = log.rest.find('\n', from);
      const bool whole = end != std::string::npos;
      if (!whole) {
        if (!(last && n <= 0) && log.rest.size() - from < kLongestLine) { break; }
        end = log.rest.size() - 1;
      }
      if (prefix_) { out_ += "[rank " + std::to_string(rank) + "] "; }
      out_.append(log.rest, from, end - from + 1);
      if (!whole) { out_ += '\n'; }
      from = end + 1;
    }
    log.rest.erase(0, from);
    if (n <= 0) { break; }
  }
}

void RankLogs::pump(bool last) {
  alignas(inotify_event) char events[8192];
  while (::read(watch_, events, sizeof events) > 0) {}
  find();
  for (auto& [rank, log] : logs_) { take(rank, log, last); }
  write_all(out_);
  out_.clear();
}

}  // namespace metier::mpi
