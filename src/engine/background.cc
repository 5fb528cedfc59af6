#include "engine/background.h"

#include <fmt/format.h>

namespace metier {

BackgroundTasks::Begun BackgroundTasks::begin(const std::string& project, std::string_view kind,
                                              std::int64_t timeout_s) const {
  Begun task;
  std::string hex = ground_.random.hex(16);
  for (const std::size_t at : {8U, 13U, 18U, 23U}) { hex.insert(at, "-"); }
  task.name = hex;
  const std::string now = to_iso(ground_.clock.now());
  task.body = JsonObject{
      {"kind", "BackgroundTask"},
      {"metadata", JsonObject{{"name", task.name},
                              {"kind", kind},
                              {"project", project.empty() ? Json(nullptr) : Json(project)},
                              {"created", now},
                              {"updated", now},
                              {"timeout", timeout_s}}},
      {"spec", JsonObject{}},
      {"status", JsonObject{{"state", "running"}, {"error", nullptr}}}};
  return task;
}

Result<void> BackgroundTasks::store(Records& tx, const Begun& task, const std::string& project) {
  return tx.put_background_task(task.name, project, dump_json(task.body));
}

Async<Result<void>> BackgroundTasks::end(std::string name, std::string project, std::string error) {
  const std::string now = to_iso(ground_.clock.now());
  co_return co_await ground_.store.write([name, project, error, now](Records& tx) -> Result<void> {
    METIER_TRY(text, tx.background_task(name));
    if (!text) { return {}; }
    METIER_TRY(body, parse_json(*text));
    if (!body.is_object()) { return {}; }
    auto& status = ensure_object(body.get_object(), "status");
    status["state"] = error.empty() ? "succeeded" : "failed";
    status["error"] = error.empty() ? Json(nullptr) : Json(error);
    ensure_object(body.get_object(), "metadata")["updated"] = now;
    return tx.put_background_task(name, project, dump_json(body));
  });
}

Json BackgroundTasks::shown(Json body) const {
  if (!body.is_object() || string_at(body, "status.state") != "running") { return body; }
  const auto created = from_iso(string_at(body, "metadata.created"));
  const Json* timeout = find_path(body, "metadata.timeout");
  if (created && timeout != nullptr && timeout->is_int64() &&
      ground_.clock.now() - *created > std::chrono::seconds(timeout->get_int64())) {
    auto& status = ensure_object(body.get_object(), "status");
    status["state"] = "failed";
    status["error"] = fmt::format("the task did not end within {} s", timeout->get_int64());
  }
  return body;
}

Result<std::optional<Json>> BackgroundTasks::get(const std::string& name) const {
  METIER_TRY(text, ground_.store.records().background_task(name));
  if (!text) { return std::optional<Json>{}; }
  METIER_TRY(body, parse_json(*text));
  return std::optional<Json>(shown(std::move(body)));
}

Result<std::vector<Json>> BackgroundTasks::list(const std::string& project) const {
  METIER_TRY(texts, ground_.store.records().background_tasks(project));
  std::vector<Json> out;
  for (const std::string& text : texts) {
    METIER_TRY(body, parse_json(text));
    out.push_back(shown(std::move(body)));
  }
  return out;
}

}  // namespace metier
