// When the bytes of a log were written: `<log>@times` beside it, 16 bytes an entry (the end of what was there, the time in
// microseconds since 1970, both little endian). A log without entries, or what is past the last of them, was written at
// the file's own time of change.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/result.h"

namespace metier {

// Bytes before `end`, and not before the mark in front of it, were written at `at` or a little earlier.
struct LogMark {
  std::uint64_t end = 0;
  Time at{};
  bool operator==(const LogMark&) const = default;
};

std::string log_times_path(const std::string& log);
// Empty when the log is not there or has no bytes. Ends and times never go back.
std::vector<LogMark> read_log_times(const std::string& log);
// One more entry, for logs whose writer is this program.
Result<void> append_log_time(const std::string& log, LogMark mark);
// Adds the marks of a log that comes `begin` bytes after the first one's beginning.
void append_log_times(std::vector<LogMark>& all, const std::vector<LogMark>& more,
                      std::uint64_t begin);
// The first byte that was written at `since` or later; the end of the log when none was.
std::uint64_t log_offset_at(const std::vector<LogMark>& marks, Time since);

}  // namespace metier
