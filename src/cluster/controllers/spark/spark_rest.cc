#include "cluster/controllers/spark/spark_rest.h"

#include <algorithm>

namespace metier {
namespace {

Async<Json> ask(net::Client& client, std::string url) {
  net::ClientRequest request;
  request.url = std::move(url);
  request.timeout = std::chrono::milliseconds(2'000);
  request.body_limit = 4U << 20U;
  auto answer = co_await client.send(std::move(request));
  if (!answer || answer->status != 200) { co_return Json(); }
  auto document = parse_json(answer->body);
  co_return document ? std::move(*document) : Json();
}

std::int64_t number(const Json& object, std::string_view key) {
  return object.is_object() ? int_in(object.get_object(), key).value_or(0) : 0;
}

const JsonArray& list(const Json& value) {
  static const JsonArray kNone;
  return value.is_array() ? value.get_array() : kNone;
}

JsonObject states(const Json& documents, std::string_view running, std::string_view done) {
  std::int64_t counts[3] = {};
  for (const Json& one : list(documents)) {
    const auto status = string_at(one, "status");
    if (status == running) { ++counts[0]; }
    if (status == done) { ++counts[1]; }
    if (status == "FAILED") { ++counts[2]; }
  }
  return {{"running", counts[0]}, {"done", counts[1]}, {"failed", counts[2]}};
}

}  // namespace

Json spark_progress(std::string_view app, const Json& jobs, const Json& stages,
                    const Json& executors) {
  JsonObject tasks{{"active", 0}, {"done", 0}, {"failed", 0}, {"total", 0}};
  std::int64_t counts[4] = {};
  for (const Json& stage : list(stages)) {
    if (string_at(stage, "status") == "SKIPPED") { continue; }
    counts[0] += number(stage, "numActiveTasks");
    counts[1] += number(stage, "numCompleteTasks");
    counts[2] += number(stage, "numFailedTasks");
    counts[3] += number(stage, "numTasks");
  }
  tasks = {{"active", counts[0]}, {"done", counts[1]}, {"failed", counts[2]}, {"total", counts[3]}};
  const auto alive = std::ranges::count_if(
      list(executors), [](const Json& one) { return string_at(one, "id") != "driver"; });
  return JsonObject{{"app", app},
                    {"jobs", states(jobs, "RUNNING", "SUCCEEDED")},
                    {"stages", states(stages, "ACTIVE", "COMPLETE")},
                    {"tasks", std::move(tasks)},
                    {"executors", alive}};
}

Async<Json> ask_spark_wishes(net::Client& client, std::string url) {
  co_return co_await ask(client, std::move(url));
}

Async<Result<Json>> ask_spark(net::Client& client, std::string base) {
  const Json applications = co_await ask(client, base + "/api/v1/applications");
  if (list(applications).empty()) { co_return Json(); }
  const std::string app(string_at(list(applications).front(), "id"));
  if (app.empty()) { co_return Json(); }
  const std::string at = base + "/api/v1/applications/" + app;
  const Json jobs = co_await ask(client, at + "/jobs");
  const Json stages = co_await ask(client, at + "/stages");
  const Json executors = co_await ask(client, at + "/executors");
  co_return spark_progress(app, jobs, stages, executors);
}

}  // namespace metier
