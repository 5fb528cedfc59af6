// Reading a log by its bytes: where to begin (--since, --tail), and its text with a time or a name in front of each line.
#pragma once

#include <optional>
#include <vector>

#include "base/clock.h"
#include "cli/verbs.h"

namespace metier::cli {

// Requests without an offset: of the log's bytes, and of when they were written.
struct LogPlace {
  std::string bytes;
  std::string times;
};
// `attempt` 0: of all attempts, one after the other.
LogPlace log_of_run(const Command& command, std::string_view uid, std::string_view part = {},
                    std::int64_t attempt = 0);
LogPlace log_of_function(const Command& command, std::string_view name, std::string_view pod = {});

struct LogView {
  std::int64_t tail = -1;  // lines; -1: all
  std::optional<Time> since;
  bool timestamps = false;
};
// From --tail, --since and --timestamps.
Result<LogView> log_view(const Arguments& arguments);

// The offset of the first byte to show. Errors: what the server says.
Result<std::uint64_t> log_begin(Command& command, const LogPlace& place, const LogView& view);

class LogText final {
 public:
  LogText(Command& command, LogPlace place, bool timestamps, std::string name = {})
      : command_(command),
        place_(std::move(place)),
        timestamps_(timestamps),
        name_(std::move(name)) {}
  // Bytes of the log from `offset` on, in order: with the time that each line began.
  Result<std::string> of(std::string_view bytes, std::uint64_t offset);
  void end_line();  // another log follows

 private:
  struct Mark {
    std::uint64_t end = 0;
    std::string at;
  };
  Result<void> know(std::uint64_t begin, std::uint64_t end);

  Command& command_;
  LogPlace place_;
  bool timestamps_;
  std::string name_;
  std::vector<Mark> marks_;
  bool line_start_ = true;
};

// Prints what is there from `offset` on, and gives where it ends.
Result<std::uint64_t> print_log(Command& command, const LogPlace& place, LogText& text,
                                std::uint64_t offset);

}  // namespace metier::cli
