// Reading a pod's journal (docs/formats/journal.md): bounded, no links, from a stored offset. Nothing in it is
// trusted: project, uid and the state after the end are the server's.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/async.h"
#include "store/store.h"

namespace metier {

struct JournalBatch {
  std::vector<Json> records;
  std::uint64_t next = 0;        // offset after the last whole line
  bool more = false;             // there are whole lines past `next`
  std::vector<std::string> odd;  // what was left out, for the timeline
};
constexpr std::size_t kJournalRecord = 1U << 20U;
constexpr std::uint64_t kJournalFile = 256ULL << 20U;

// At most ~1 MiB of whole lines from `offset`. An absent file is an empty batch; a link, a folder or a device is
// an error (invalid). An unfinished last line is left for later.
Result<JournalBatch> read_journal(const std::string& work_folder, std::uint64_t offset);

// What a batch comes to.
struct JournalApplied {
  std::string claimed;  // terminal state that the pod reported for itself
  std::string claimed_error;
  Json failure;  // null, or the `failure` record that is the cause
  std::vector<std::string> odd;
};
// Applies records inside a transaction, on the run (project, uid); the engine's own functions of records/ do it.
Result<JournalApplied> apply_journal(Records& tx, const std::string& project,
                                     const std::string& uid, std::int64_t attempt,
                                     const std::vector<Json>& records, Time now);

// Of two `failure` records (`held` may be null) the one that is told stays in `held`: what a launcher says of itself, which
// is the cause of what its ranks ended by; of ranks the first by their own time `at`; of a single process the latest.
void keep_cause(Json& held, const Json& more);

// `store_artifact`, by the rules of records/.
Result<void> store_artifact_record(Records& tx, const std::string& project, const std::string& uid,
                                   std::int64_t iteration, const JsonObject& record, Time now);

// Hears of writes to journals by inotify.
class JournalWatch {
 public:
  virtual ~JournalWatch() = default;
  // Calls `changed` (on the loop) when a file in the folder is written, until `forget`. Errors: unavailable when the
  // kernel has no more watches; the journal is then read when the pod's status changes and at its end.
  virtual Result<int> add(const std::string& folder, std::function<void()> changed) = 0;
  virtual void forget(int watch) = 0;
  virtual Async<void> run() = 0;
};
std::unique_ptr<JournalWatch> make_journal_watch(Executor loop);

}  // namespace metier
