#include "base/log_times.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <bit>
#include <cerrno>
#include <cstring>

#include "base/files.h"

namespace metier {
namespace {

static_assert(std::endian::native == std::endian::little);
constexpr std::size_t kEntry = 16;
// The shim makes at most one entry a second in the long run: more than this is not its file.
constexpr std::size_t kMostBytes = 256U << 20U;

}  // namespace

std::string log_times_path(const std::string& log) { return log + "@times"; }

std::vector<LogMark> read_log_times(const std::string& log) {
  struct stat facts{};
  if (::stat(log.c_str(), &facts) != 0 || !S_ISREG(facts.st_mode) || facts.st_size == 0) {
    return {};
  }
  const LogMark last{
      .end = static_cast<std::uint64_t>(facts.st_size),
      .at = Time{Duration(facts.st_mtim.tv_sec * 1'000'000LL + facts.st_mtim.tv_nsec / 1000)}};
  std::vector<LogMark> out;
  const auto entries = read_file(log_times_path(log), kMostBytes);
  for (std::size_t at = 0; entries && at + kEntry <= entries->size(); at += kEntry) {
    LogMark mark;
    std::int64_t us = 0;
    std::memcpy(&mark.end, entries->data() + at, sizeof mark.end);
    std::memcpy(&us, entries->data() + at + sizeof mark.end, sizeof us);
    mark.at = Time{Duration(us)};
    // A log that its program made shorter begins again there.
    while (!out.empty() && out.back().end >= mark.end) { out.pop_back(); }
    if (!out.empty() && mark.at < out.back().at) { mark.at = out.back().at; }
    out.push_back(mark);
  }
  while (!out.empty() && out.back().end > last.end) { out.pop_back(); }
  if (out.empty() || out.back().end < last.end) {
    out.push_back(out.empty() || last.at > out.back().at
                      ? last
                      : LogMark{.end = last.end, .at = out.back().at});
  }
  return out;
}

Result<void> append_log_time(const std::string& log, LogMark mark) {
  const auto path = log_times_path(log);
  const Fd file(::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!file) { return fail(errno_error(path, errno)); }
  std::array<char, kEntry> entry{};
  const std::int64_t us = mark.at.time_since_epoch().count();
  std::memcpy(entry.data(), &mark.end, sizeof mark.end);
  std::memcpy(entry.data() + sizeof mark.end, &us, sizeof us);
  if (::write(file.get(), entry.data(), entry.size()) != static_cast<ssize_t>(entry.size())) {
    return fail(errno_error(path, errno));
  }
  return {};
}

void append_log_times(std::vector<LogMark>& all, const std::vector<LogMark>& more,
                      std::uint64_t begin) {
  for (const LogMark& mark : more) { all.push_back({.end = begin + mark.end, .at = mark.at}); }
}

std::uint64_t log_offset_at(const std::vector<LogMark>& marks, Time since) {
  std::uint64_t begin = 0;
  for (const LogMark& mark : marks) {
    if (mark.at >= since) { return begin; }
    begin = mark.end;
  }
  return begin;
}

}  // namespace metier
