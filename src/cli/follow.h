// Following a run to its end: its log by long poll, Ctrl-C, and the record at the end.
#pragma once

#include "cli/log_output.h"
#include "cli/log_reader.h"
#include "cli/verbs.h"

namespace metier::cli {

enum class Ending { ended, detached };
struct Followed {
  Ending ending = Ending::ended;
  JsonObject run;  // as it was last read
};

struct FollowOptions {
  std::uint64_t offset = 0;
  LogOutput::To to = LogOutput::To::out;  // err: stdout is one JSON document
  // The traceback at the end is left out: the caller shows its short form, and where the whole one is.
  LogOutput::Holds holds = LogOutput::Holds::no;
  std::string part;         // the log of that pod or rank alone
  LogText* text = nullptr;  // how its bytes are shown; as they are
  // Each attempt's end and the next one's start are told on stderr; from the first byte and of the whole run only.
  bool attempts = false;
};
// Streams the log until the run has ended and its log was read to the end; a live line on a terminal while it is silent.
// Ctrl-C once asks whether to abort (no terminal: a second one within 10 s detaches).
Result<Followed> follow_run(Command& command, const std::string& project, const std::string& uid,
                            const FollowOptions& options);
Result<JsonObject> read_run(Command& command, const std::string& project, const std::string& uid);
// How often a run may be tried again: spec.retry.count.
std::int64_t retries_of(const JsonObject& run);
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

// Ends the session's requests as cancelled once Ctrl-C was seen, for as long as it lives.
class Interruptible final {
 public:
  Interruptible(Session& session, const InterruptCounter& counter) : session_(session) {
    session_.interrupted = [&counter] { return counter.count() > 0; };
  }
  ~Interruptible() { session_.interrupted = nullptr; }
  Interruptible(const Interruptible&) = delete;
  Interruptible& operator=(const Interruptible&) = delete;

 private:
  Session& session_;
};

}  // namespace metier::cli
