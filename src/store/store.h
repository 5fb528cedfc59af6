// The store: every record of the server, in one SQLite file (PostgreSQL will join behind this interface).
// One writer thread owns the only writing connection and commits in groups (synchronous=FULL, WAL); reads
// run on the loop's thread over a connection of its own and see every commit that was acknowledged.
//
//   auto stored = co_await store.write([&](Records& tx) -> Result<std::string> { … });
//
// A write function runs on the writer thread, inside one transaction, once; an error that it returns rolls
// back its own changes only. What it captures must live until the await returns. After a failed fsync the
// store refuses everything (unavailable): it is never retried.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/async.h"
#include "base/clock.h"
#include "base/log.h"
#include "resource/object_store.h"
#include "resource/resource.h"

namespace metier {

struct FunctionRow {
  std::string project;
  std::string name;
  std::string uid;  // hash, or "unversioned-<tag>"
  std::string tag;  // the tag it was found by, or empty
  std::string kind;
  std::string body;  // JSON, tag cleared
  Time updated{};
};

struct RunRow {
  std::string project;
  std::string uid;
  std::int64_t iteration = 0;
  std::string name;
  std::string state;
  std::string kind;
  Time start{};
  Time updated{};
  std::optional<Time> end;
  Labels labels;
  std::string body;           // JSON without status.artifacts
  std::uint64_t version = 0;  // grows by every write
};

struct ArtifactRow {
  std::string project;
  std::string key;  // db_key
  std::string uid;
  std::string tree;  // producer id
  std::int64_t iteration = 0;
  std::string kind;
  std::string name;  // metadata.key
  bool best_iteration = false;
  std::string tag;  // the tag it was listed by, or empty
  Labels labels;
  std::string body;
  Time updated{};
};

struct TimelineRow {  // one thing that happened to a run, in order
  std::string project;
  std::string uid;
  std::int64_t attempt = 1;
  Time at{};
  std::string what;    // "accepted", "state", "phase", "event"
  std::string detail;  // JSON
};

struct RunFilter {
  std::optional<std::string> project;  // nullopt = all
  std::string name;                    // exact, or "~part"
  std::vector<std::string> uids;
  std::vector<std::string> states;
  std::vector<std::string> labels;   // "name", "name=value", "~name=~value"
  std::optional<bool> only_parents;  // iteration 0 only
  std::optional<Time> start_from, start_to, updated_from, updated_to, end_from, end_to;
  bool sort = true;            // start time descending
  std::string partition_sort;  // "created" or "updated": newest per (project, name)
  std::int64_t rows_per_partition = 1;
  bool partition = false;
  bool partition_ascending = false;
  std::int64_t max_partitions = 0;
  std::int64_t offset = 0;
  std::int64_t limit = -1;
};
struct FunctionFilter {
  std::optional<std::string> project;
  std::string name, tag, hash, kind;
  std::vector<std::string> labels, states;
  std::optional<Time> since, until;
  std::int64_t offset = 0, limit = -1;
};
struct ArtifactFilter {
  std::optional<std::string> project;
  std::string name, tag, kind, category, tree, producer_uri, parent, key;
  std::vector<std::string> labels;
  std::optional<std::int64_t> iteration;
  bool best_iteration = false;
  std::optional<Time> since, until;
  std::int64_t offset = 0, limit = -1;
};

// Typed access to the records, inside a write (all of it) or for reading (the const half).
class Records {
 public:
  virtual ~Records() = default;

  virtual Result<std::optional<std::string>> project(const std::string& name) const = 0;  // body
  virtual Result<std::vector<std::pair<std::string, std::string>>> projects()
      const = 0;  // name, body
  virtual Result<void> put_project(const std::string& name, const std::string& body) = 0;
  virtual Result<void> delete_project(const std::string& name) = 0;  // with everything in it
  virtual Result<bool> project_is_empty(const std::string& name) const = 0;

  // By tag when given, else by hash, else tag latest.
  virtual Result<std::optional<FunctionRow>> function(const std::string& project,
                                                      const std::string& name,
                                                      const std::string& tag,
                                                      const std::string& hash) const = 0;
  virtual Result<std::vector<FunctionRow>> functions(const FunctionFilter& filter) const = 0;
  virtual Result<void> put_function(const FunctionRow& row,
                                    const std::string& tag) = 0;  // and points the tag at it
  virtual Result<void> delete_function(const std::string& project, const std::string& name) = 0;

  virtual Result<std::optional<RunRow>> run(const std::string& project, const std::string& uid,
                                            std::int64_t iteration) const = 0;
  virtual Result<std::vector<RunRow>> runs(const RunFilter& filter) const = 0;
  virtual Result<std::int64_t> count_runs(const RunFilter& filter) const = 0;
  virtual Result<void> put_run(const RunRow& row) = 0;  // insert or replace; labels are indexed
  virtual Result<void> delete_run(const std::string& project,
                                  const std::string& uid) = 0;  // all iterations
  virtual Result<std::vector<std::string>> uids_with_prefix(const std::string& project,
                                                            const std::string& prefix) const = 0;

  virtual Result<std::vector<ArtifactRow>> artifacts(const ArtifactFilter& filter) const = 0;
  virtual Result<void> put_artifact(const ArtifactRow& row) = 0;
  virtual Result<void> tag_artifact(
      const ArtifactRow& row, const std::string& tag) = 0;  // removes the tag from other producers
  virtual Result<void> untag_artifact(const ArtifactRow& row, const std::string& tag) = 0;
  virtual Result<void> delete_artifact(const ArtifactRow& row) = 0;
  virtual Result<std::vector<std::string>> artifact_tags(const std::string& project,
                                                         const std::string& category) const = 0;
  virtual Result<void> mark_best(const std::string& project, const std::string& key,
                                 const std::string& tree, std::int64_t iteration) = 0;

  // Values are encrypted (AES-256-GCM, key file beside the database, project and name as associated data).
  virtual Result<std::vector<std::string>> secret_keys(const std::string& project,
                                                       const std::string& secret) const = 0;
  virtual Result<std::optional<std::string>> secret_value(const std::string& project,
                                                          const std::string& secret,
                                                          const std::string& key) const = 0;
  virtual Result<void> put_secret(const std::string& project, const std::string& secret,
                                  const std::string& key, const std::string& value) = 0;
  virtual Result<void> delete_secret(const std::string& project, const std::string& secret,
                                     const std::string& key) = 0;  // "" = all keys

  virtual Result<void> add_timeline(const TimelineRow& row) = 0;
  virtual Result<std::vector<TimelineRow>> timeline(const std::string& project,
                                                    const std::string& uid) const = 0;

  virtual Result<void> put_background_task(const std::string& name, const std::string& project,
                                           const std::string& body) = 0;
  virtual Result<std::optional<std::string>> background_task(const std::string& name) const = 0;
  virtual Result<std::vector<std::string>> background_tasks(const std::string& project) const = 0;

  // Small settings, page tokens, idempotency keys: (scope, key) → value, with an optional end.
  virtual Result<std::optional<std::string>> setting(const std::string& scope,
                                                     const std::string& key) const = 0;
  virtual Result<std::vector<std::pair<std::string, std::string>>> settings(
      const std::string& scope) const = 0;  // key, value; by key
  virtual Result<void> put_setting(const std::string& scope, const std::string& key,
                                   const std::string& value, std::optional<Time> expires) = 0;
  virtual Result<void> delete_setting(const std::string& scope, const std::string& key) = 0;

  // Desired objects of a run, written in the run's own transaction; ObjectStore shows them after the commit.
  virtual Result<std::uint64_t> put_object(Resource object, std::uint64_t expected) = 0;
  virtual Result<void> remove_object(const ResourceKey& key) = 0;
};

struct StoreOptions {
  std::string folder;  // the data folder: metier.db, secret.key, lock
  const Clock* clock = &system_clock();
  Logger log;
  // A larger file is not read whole at each start, but beside the work after a server that did not stop cleanly.
  std::int64_t check_at_start_bytes = 32LL << 20U;
  std::size_t group_limit = 512;  // write functions in one commit
  std::int64_t max_bytes =
      0;  // the file never grows past it (then NoSpace, as on a full disk); 0 = no limit
};

class Store {
 public:
  // Errors: conflict when another server holds the folder (names its pid), invalid for newer data or a damaged
  // file (names the file and the next step).
  static Result<std::unique_ptr<Store>> open(Executor loop, StoreOptions options);
  virtual ~Store() = default;

  virtual const Records& records() const = 0;
  virtual ObjectStore& objects() = 0;
  virtual Async<Result<void>> write_any(std::function<Result<void>(Records&)> change) = 0;
  virtual Async<Result<void>> close() = 0;
  // Nothing is going on: caches are given back.
  virtual void rest() {}

  // Runs `change` in a transaction and gives what it returned, after the commit is durable.
  template <class Change>
  auto write(Change change) -> Async<std::invoke_result_t<Change, Records&>> {
    using Out = std::invoke_result_t<Change, Records&>;
    std::optional<Out> out;
    auto done = co_await write_any([&](Records& tx) -> Result<void> {
      out.emplace(change(tx));
      if (!*out) { return fail(out->error()); }
      return {};
    });
    if (!done) { co_return Out(fail(std::move(done.error()))); }
    co_return std::move(*out);
  }
};

}  // namespace metier
