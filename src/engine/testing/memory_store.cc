#include "engine/testing/memory_store.h"

#include <algorithm>

namespace metier {
namespace {

std::string join(const std::string& a, const std::string& b, const std::string& c = {}) {
  return c.empty() ? a + "/" + b : a + "/" + b + "/" + c;
}
std::string run_key(const std::string& project, const std::string& uid, std::int64_t iteration) {
  return join(project, uid, std::to_string(iteration));
}

}  // namespace

Result<std::optional<std::string>> MemoryRecords::project(const std::string& name) const {
  const auto have = project_bodies.find(name);
  return have == project_bodies.end() ? std::optional<std::string>{} : have->second;
}
Result<std::vector<std::pair<std::string, std::string>>> MemoryRecords::projects() const {
  return std::vector<std::pair<std::string, std::string>>(project_bodies.begin(),
                                                          project_bodies.end());
}
Result<void> MemoryRecords::put_project(const std::string& name, const std::string& body) {
  project_bodies[name] = body;
  return {};
}
Result<void> MemoryRecords::delete_project(const std::string& name) {
  project_bodies.erase(name);
  return {};
}
Result<bool> MemoryRecords::project_is_empty(const std::string&) const { return run_rows.empty(); }

Result<std::optional<FunctionRow>> MemoryRecords::function(const std::string& project,
                                                           const std::string& name,
                                                           const std::string& tag,
                                                           const std::string& hash) const {
  std::string uid = hash;
  if (uid.empty()) {
    const auto tagged = function_tags.find(join(project, name, tag.empty() ? "latest" : tag));
    if (tagged == function_tags.end()) { return std::optional<FunctionRow>{}; }
    uid = tagged->second;
  }
  const auto have = function_rows.find(join(project, name, uid));
  return have == function_rows.end() ? std::optional<FunctionRow>{} : have->second;
}
Result<std::vector<FunctionRow>> MemoryRecords::functions(const FunctionFilter&) const {
  std::vector<FunctionRow> out;
  for (const auto& [key, row] : function_rows) { out.push_back(row); }
  return out;
}
Result<void> MemoryRecords::put_function(const FunctionRow& row, const std::string& tag) {
  function_rows[join(row.project, row.name, row.uid)] = row;
  if (!tag.empty()) { function_tags[join(row.project, row.name, tag)] = row.uid; }
  return {};
}
Result<void> MemoryRecords::delete_function(const std::string& project, const std::string& name) {
  std::erase_if(function_rows, [&](const auto& entry) {
    return entry.second.project == project && entry.second.name == name;
  });
  return {};
}

Result<std::optional<RunRow>> MemoryRecords::run(const std::string& project, const std::string& uid,
                                                 std::int64_t iteration) const {
  const auto have = run_rows.find(run_key(project, uid, iteration));
  return have == run_rows.end() ? std::optional<RunRow>{} : have->second;
}
Result<std::vector<RunRow>> MemoryRecords::runs(const RunFilter& filter) const {
  std::vector<RunRow> out;
  for (const auto& [key, row] : run_rows) {
    if (filter.project && row.project != *filter.project) { continue; }
    if (!filter.states.empty() &&
        std::ranges::find(filter.states, row.state) == filter.states.end()) {
      continue;
    }
    if (filter.only_parents.value_or(false) && row.iteration != 0) { continue; }
    out.push_back(row);
  }
  return out;
}
Result<std::int64_t> MemoryRecords::count_runs(const RunFilter& filter) const {
  METIER_TRY(rows, runs(filter));
  return static_cast<std::int64_t>(rows.size());
}
Result<void> MemoryRecords::put_run(const RunRow& row) {
  run_rows[run_key(row.project, row.uid, row.iteration)] = row;
  return {};
}
Result<void> MemoryRecords::delete_run(const std::string& project, const std::string& uid) {
  std::erase_if(run_rows, [&](const auto& entry) {
    return entry.second.project == project && entry.second.uid == uid;
  });
  return {};
}
Result<std::vector<std::string>> MemoryRecords::uids_with_prefix(const std::string& project,
                                                                 const std::string& prefix) const {
  std::set<std::string> out;
  for (const auto& [key, row] : run_rows) {
    if (row.project == project && row.uid.starts_with(prefix)) { out.insert(row.uid); }
  }
  return std::vector<std::string>(out.begin(), out.end());
}

Result<std::vector<ArtifactRow>> MemoryRecords::artifacts(const ArtifactFilter&) const {
  std::vector<ArtifactRow> out;
  for (const auto& [key, row] : artifact_rows) { out.push_back(row); }
  return out;
}
Result<void> MemoryRecords::put_artifact(const ArtifactRow& row) {
  artifact_rows[join(row.project, row.key, row.tree + "/" + std::to_string(row.iteration))] = row;
  return {};
}
Result<void> MemoryRecords::tag_artifact(const ArtifactRow&, const std::string&) { return {}; }
Result<void> MemoryRecords::untag_artifact(const ArtifactRow&, const std::string&) { return {}; }
Result<void> MemoryRecords::delete_artifact(const ArtifactRow&) { return {}; }
Result<std::vector<std::string>> MemoryRecords::artifact_tags(const std::string&,
                                                              const std::string&) const {
  return std::vector<std::string>{};
}
Result<void> MemoryRecords::mark_best(const std::string&, const std::string&, const std::string&,
                                      std::int64_t) {
  return {};
}

Result<std::vector<std::string>> MemoryRecords::secret_keys(const std::string& project,
                                                            const std::string& secret) const {
  std::vector<std::string> out;
  if (const auto have = secrets.find(join(project, secret)); have != secrets.end()) {
    for (const auto& [key, value] : have->second) { out.push_back(key); }
  }
  return out;
}
Result<std::optional<std::string>> MemoryRecords::secret_value(const std::string& project,
                                                               const std::string& secret,
                                                               const std::string& key) const {
  const auto have = secrets.find(join(project, secret));
  if (have == secrets.end() || !have->second.contains(key)) { return std::optional<std::string>{}; }
  return have->second.at(key);
}
Result<void> MemoryRecords::put_secret(const std::string& project, const std::string& secret,
                                       const std::string& key, const std::string& value) {
  secrets[join(project, secret)][key] = value;
  return {};
}
Result<void> MemoryRecords::delete_secret(const std::string& project, const std::string& secret,
                                          const std::string& key) {
  if (key.empty()) {
    secrets.erase(join(project, secret));
  } else {
    secrets[join(project, secret)].erase(key);
  }
  return {};
}

Result<void> MemoryRecords::add_timeline(const TimelineRow& row) {
  timeline_rows.push_back(row);
  return {};
}
Result<std::vector<TimelineRow>> MemoryRecords::timeline(const std::string& project,
                                                         const std::string& uid) const {
  std::vector<TimelineRow> out;
  for (const TimelineRow& row : timeline_rows) {
    if (row.project == project && row.uid == uid) { out.push_back(row); }
  }
  return out;
}

Result<void> MemoryRecords::put_background_task(const std::string& name, const std::string& project,
                                                const std::string& body) {
  tasks[name] = {project, body};
  return {};
}
Result<std::optional<std::string>> MemoryRecords::background_task(const std::string& name) const {
  const auto have = tasks.find(name);
  return have == tasks.end() ? std::optional<std::string>{} : have->second.second;
}
Result<std::vector<std::string>> MemoryRecords::background_tasks(const std::string& project) const {
  std::vector<std::string> out;
  for (const auto& [name, task] : tasks) {
    if (task.first == project) { out.push_back(task.second); }
  }
  return out;
}

Result<std::optional<std::string>> MemoryRecords::setting(const std::string& scope,
                                                          const std::string& key) const {
  const auto have = setting_values.find(join(scope, key));
  return have == setting_values.end() ? std::optional<std::string>{} : have->second;
}
Result<std::vector<std::pair<std::string, std::string>>> MemoryRecords::settings(
    const std::string& scope) const {
  std::vector<std::pair<std::string, std::string>> out;
  for (const auto& [key, value] : setting_values) {
    if (key.starts_with(scope + "/")) { out.emplace_back(key.substr(scope.size() + 1), value); }
  }
  return out;
}

Result<void> MemoryRecords::put_setting(const std::string& scope, const std::string& key,
                                        const std::string& value, std::optional<Time>) {
  setting_values[join(scope, key)] = value;
  return {};
}
Result<void> MemoryRecords::delete_setting(const std::string& scope, const std::string& key) {
  setting_values.erase(join(scope, key));
  return {};
}
Result<std::uint64_t> MemoryRecords::put_object(Resource, std::uint64_t) { return 1ULL; }
Result<void> MemoryRecords::remove_object(const ResourceKey&) { return {}; }

Async<Result<void>> MemoryStore::write_any(std::function<Result<void>(Records&)> change) {
  ++writes;
  if (fail_writes > 0) {
    --fail_writes;
    co_return fail(ErrorKind::unavailable, "the store does not answer");
  }
  MemoryRecords before = records_;
  auto done = change(records_);
  if (!done) { records_ = std::move(before); }
  co_return done;
}

Async<Result<void>> MemoryStore::close() { co_return Result<void>{}; }

}  // namespace metier
