#include "log_times.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>

namespace shim {
namespace {

constexpr std::int64_t kFirstLook = 20;
constexpr std::int64_t kLongestPause = 2'000;
constexpr std::int64_t kEager =
    2'000;  // after the start, until the first byte: most logs begin then

}  // namespace

void LogTimes::begin(const char* log, std::int64_t now_ms) {
  *this = LogTimes{};
  if (std::snprintf(log_, sizeof log_, "%s", log) >= static_cast<int>(sizeof log_)) { return; }
  pause_ms_ = kFirstLook;
  began_ = now_ms;
  due_ = now_ms + pause_ms_;
}

void LogTimes::look(std::int64_t now_ms) {
  if (due_ == 0 || now_ms < due_) { return; }
  struct stat facts{};
  const bool there = ::stat(log_, &facts) == 0 && S_ISREG(facts.st_mode);
  if (!there || facts.st_size == size_) {
    if (size_ > 0 || now_ms - began_ > kEager) {
      pause_ms_ = pause_ms_ * 2 < kLongestPause ? pause_ms_ * 2 : kLongestPause;
    }
    due_ = now_ms + pause_ms_;
    return;
  }
  size_ = facts.st_size;
  const std::int64_t entry[2] = {
      size_, facts.st_mtim.tv_sec * 1'000'000LL + facts.st_mtim.tv_nsec / 1'000};
  char name[sizeof log_ + 8];
  std::snprintf(name, sizeof name, "%s@times", log_);
  const int file = ::open(name, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (file >= 0) {
    [[maybe_unused]] const auto n = ::write(file, entry, sizeof entry);
    ::close(file);
    ++entries_;
  }
  // At least 20 ms apart, and a second after some ten thousand of them.
  pause_ms_ = kFirstLook + entries_ / 10 < 1'000 ? kFirstLook + entries_ / 10 : 1'000;
  due_ = now_ms + pause_ms_;
}

}  // namespace shim
