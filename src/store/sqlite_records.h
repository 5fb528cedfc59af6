// Records over one SQLite connection: the writer's (inside a transaction) or the loop's (for reading).
#pragma once

#include <span>
#include <variant>
#include <vector>

#include "store/secret_box.h"
#include "store/sqlite.h"
#include "store/store.h"

namespace metier {

struct ObjectChange {
  ObjectEvent::Type type = ObjectEvent::Type::modified;
  Resource object;
};

class SqliteRecords final : public Records {
 public:
  SqliteRecords(Database& database, const SecretBox& box, const Clock& clock)
      : db_(&database), box_(&box), clock_(&clock) {}

  Result<std::optional<std::string>> project(const std::string& name) const override;
  Result<std::vector<std::pair<std::string, std::string>>> projects() const override;
  Result<void> put_project(const std::string& name, const std::string& body) override;
  Result<void> delete_project(const std::string& name) override;
  Result<bool> project_is_empty(const std::string& name) const override;

  Result<std::optional<FunctionRow>> function(const std::string& project, const std::string& name,
                                              const std::string& tag,
                                              const std::string& hash) const override;
  Result<std::vector<FunctionRow>> functions(const FunctionFilter& filter) const override;
  Result<void> put_function(const FunctionRow& row, const std::string& tag) override;
  Result<void> delete_function(const std::string& project, const std::string& name) override;

  Result<std::optional<RunRow>> run(const std::string& project, const std::string& uid,
                                    std::int64_t iteration) const override;
  Result<std::vector<RunRow>> runs(const RunFilter& filter) const override;
  Result<std::int64_t> count_runs(const RunFilter& filter) const override;
  Result<void> put_run(const RunRow& row) override;
  Result<void> delete_run(const std::string& project, const std::string& uid) override;
  Result<std::vector<std::string>> uids_with_prefix(const std::string& project,
                                                    const std::string& prefix) const override;

  Result<std::vector<ArtifactRow>> artifacts(const ArtifactFilter& filter) const override;
  Result<void> put_artifact(const ArtifactRow& row) override;
  Result<void> tag_artifact(const ArtifactRow& row, const std::string& tag) override;
  Result<void> untag_artifact(const ArtifactRow& row, const std::string& tag) override;
  Result<void> delete_artifact(const ArtifactRow& row) override;
  Result<std::vector<std::string>> artifact_tags(const std::string& project,
                                                 const std::string& category) const override;
  Result<void> mark_best(const std::string& project, const std::string& key,
                         const std::string& tree, std::int64_t iteration) override;

  Result<std::vector<std::string>> secret_keys(const std::string& project,
                                               const std::string& secret) const override;
  Result<std::optional<std::string>> secret_value(const std::string& project,
                                                  const std::string& secret,
                                                  const std::string& key) const override;
  Result<void> put_secret(const std::string& project, const std::string& secret,
                          const std::string& key, const std::string& value) override;
  Result<void> delete_secret(const std::string& project, const std::string& secret,
                             const std::string& key) override;

  Result<void> add_timeline(const TimelineRow& row) override;
  Result<std::vector<TimelineRow>> timeline(const std::string& project,
                                            const std::string& uid) const override;

  Result<void> put_background_task(const std::string& name, const std::string& project,
                                   const std::string& body) override;
  Result<std::optional<std::string>> background_task(const std::string& name) const override;
  Result<std::vector<std::string>> background_tasks(const std::string& project) const override;

  Result<std::optional<std::string>> setting(const std::string& scope,
                                             const std::string& key) const override;
  Result<std::vector<std::pair<std::string, std::string>>> settings(
      const std::string& scope) const override;
  Result<void> put_setting(const std::string& scope, const std::string& key,
                           const std::string& value, std::optional<Time> expires) override;
  Result<void> delete_setting(const std::string& scope, const std::string& key) override;

  Result<std::uint64_t> put_object(Resource object, std::uint64_t expected) override;
  Result<void> remove_object(const ResourceKey& key) override;

  // Every stored object, for the index at start.
  Result<std::vector<Resource>> all_objects() const;
  Result<std::uint64_t> stored_revision() const;
  // A write function begins: nothing of an earlier one, taken back or not, is remembered.
  void begin() {
    writing_ = true;
    changes_.clear();
    seen_.reset();
  }
  // What the write function has changed; the writer hands it over after the commit.
  std::vector<ObjectChange>& changes() { return changes_; }

 private:
  // The run that this write function looked at last.
  struct SeenRun {
    std::string project;
    std::string uid;
    std::int64_t iteration = 0;
    std::optional<std::int64_t> id;  // none: it is not stored
    Time start{};
    Labels labels;
  };
  Result<void> see_run(const RunRow& row);
  Result<Labels> labels_of_run(std::int64_t id) const;
  Result<std::int64_t> insert_run(const RunRow& row);
  Result<void> update_run(std::int64_t id, const RunRow& row);
  Result<void> put_labels(std::int64_t id, const RunRow& row);
  Result<void> put_head(const RunRow& row, std::int64_t id);
  Result<void> refresh_head(const std::string& project, const std::string& name);
  Result<std::optional<std::int64_t>> artifact_id(const ArtifactRow& row) const;
  Result<std::uint64_t> next_revision();
  Result<std::string> object_body(const Resource& object) const;
  Result<Resource> object_from(const std::string& body, const std::string& kind,
                               const std::string& place, std::uint64_t version) const;

  Database* db_;
  const SecretBox* box_;
  const Clock* clock_;
  std::vector<ObjectChange> changes_;
  bool writing_ = false;
  mutable std::optional<SeenRun> seen_;
};

// A row of `id, project, uid, iteration, name, state, kind, start, updated, ended, version, body`.
RunRow run_row_from(const Query& q);

inline std::int64_t micros(Time time) { return time.time_since_epoch().count(); }
inline Time from_micros(std::int64_t value) { return Time{Duration(value)}; }

// Collects conditions and their parameters, so that every value is bound and none concatenated.
class Where final {
 public:
  enum class Lookup { in, exists };
  void add(std::string condition) {
    text_ += (text_.empty() ? " WHERE " : " AND ") + std::move(condition);
  }
  void add(std::string condition, std::string value) {
    add(std::move(condition));
    values_.emplace_back(std::move(value));
  }
  void add(std::string condition, std::int64_t value) {
    add(std::move(condition));
    values_.emplace_back(value);
  }
  void also(std::string value) { values_.emplace_back(std::move(value)); }
  void also(std::int64_t value) { values_.emplace_back(value); }
  void also(const Where& other) {  // the values alone
    values_.insert(values_.end(), other.values_.begin(), other.values_.end());
  }
  void append(const Where& other);
  // column = value, or contains without case for "~value".
  void name(const std::string& column, const std::string& value);
  // A label condition ("a", "a=b", "~a=~b") over `table(owner_column, name, value)`, looked up in the table (in) or for
  // each row (exists).
  void label(const std::string& id, const std::string& table, const std::string& owner_column,
             const std::string& condition, Lookup lookup = Lookup::in);
  void any_of(const std::string& column, const std::vector<std::string>& values);
  const std::string& text() const { return text_; }
  void bind(Query& query) const;

 private:
  std::string text_;
  std::vector<std::variant<std::string, std::int64_t>> values_;
};

}  // namespace metier
