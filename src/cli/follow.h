// Following a run to its end: its log by long poll, Ctrl-C, and the record at the end.
#pragma once

#include "cli/verbs.h"

namespace metier::cli {

enum class Ending { ended, detached };
struct Followed {
  Ending ending = Ending::ended;
  JsonObject run;  // as it was last read
};

// Streams the log from `offset` to stdout (to stderr when stdout is one JSON document) until the run has ended and its log
// was read to the end. Ctrl-C once asks whether to abort (no terminal: a second one within 10 s detaches).
Result<Followed> follow_run(Command& command, const std::string& project, const std::string& uid,
                            std::uint64_t offset, bool log_to_stderr);
Result<JsonObject> read_run(Command& command, const std::string& project, const std::string& uid);
Result<void> abort_run(Command& command, const std::string& project, const std::string& uid);

// Counts SIGINT while it lives.
class InterruptCounter final {
 public:
  InterruptCounter();
  ~InterruptCounter();
  InterruptCounter(const InterruptCounter&) = delete;
  InterruptCounter& operator=(const InterruptCounter&) = delete;
  int count() const;

 private:
  struct Saved;
  std::unique_ptr<Saved> saved_;
};

}  // namespace metier::cli
