// A Store in memory, for tests of the engine: transactions roll back as a whole, a write can be made to fail.
#pragma once

#include <map>
#include <set>

#include "resource/testing/memory_object_store.h"
#include "store/store.h"

namespace metier {

class MemoryRecords final : public Records {
 public:
  std::map<std::string, std::string> project_bodies;
  std::map<std::string, FunctionRow> function_rows;  // project/name/hash
  std::map<std::string, std::string> function_tags;  // project/name/tag → hash
  std::map<std::string, RunRow> run_rows;            // project/uid/iteration
  std::map<std::string, ArtifactRow> artifact_rows;
  std::map<std::string, std::map<std::string, std::string>> secrets;  // project/secret
  std::vector<TimelineRow> timeline_rows;
  std::map<std::string, std::pair<std::string, std::string>> tasks;  // name → project, body
  std::map<std::string, std::string> setting_values;                 // scope/key

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
};

class MemoryStore final : public Store {
 public:
  explicit MemoryStore(ObjectStore& objects) : objects_(objects) {}
  const Records& records() const override { return records_; }
  ObjectStore& objects() override { return objects_; }
  Async<Result<void>> write_any(std::function<Result<void>(Records&)> change) override;
  Async<Result<void>> close() override;

  MemoryRecords records_;
  int fail_writes = 0;  // the next n writes answer `unavailable` and change nothing
  int writes = 0;

 private:
  ObjectStore& objects_;
};

}  // namespace metier
