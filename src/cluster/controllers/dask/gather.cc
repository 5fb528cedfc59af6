// What the controller asks the scheduler, and the one thing that it tells it: whom to retire.
#include <fmt/format.h>

#include <algorithm>

#include "cluster/controllers/dask/dask_cluster.h"

namespace metier {
namespace {
constexpr auto kPatience = std::chrono::milliseconds(2500);
constexpr std::string_view kHttpPort = "8787";
constexpr int kOrphanLooks = 2;  // a worker's report may be older than what the scheduler knows

std::string text_of(const Json& value) {
  if (value.is_string()) { return std::string(value.get_string()); }
  return value.is_int64() ? std::to_string(value.get_int64()) : std::string();
}
}  // namespace

Async<Result<Json>> DaskClusterController::ask(std::string method, std::string url,
                                               std::string body) const {
  const std::string path = url.substr(std::min(url.size(), url.find('/', 8)));
  net::ClientRequest request;
  request.method = std::move(method);
  request.url = std::move(url);
  request.timeout = kPatience;
  request.body_limit = 8U << 20U;
  if (!body.empty()) {
    request.headers.emplace_back("Content-Type", "application/json");
    request.body = std::move(body);
  }
  auto answer = co_await client_->send(std::move(request));
  if (!answer) { co_return fail(std::move(answer.error())); }
  if (answer->status == 404) {
    co_return fail(ErrorKind::not_found, "the scheduler has no " + path);
  }
  if (answer->status != 200) {
    co_return fail(ErrorKind::unavailable,
                   fmt::format("the scheduler answered {}", answer->status));
  }
  co_return parse_json(answer->body);
}

// {workers: {name: {address, orphans, retiring}}, closable, desired, clients, served}, from our own page or from Dask's.
Async<Result<JsonObject>> DaskClusterController::look(std::string base) const {
  auto state = co_await ask("GET", base + "/metier/state.json", {});
  if (state && state->is_object()) { co_return std::move(state->get_object()); }
  if (!state && state.error().kind != ErrorKind::not_found) {
    co_return fail(std::move(state.error()));
  }
  auto counts = co_await ask("GET", base + "/json/counts.json", {});
  if (!counts) { co_return fail(std::move(counts.error())); }
  auto list = co_await ask("GET", base + "/api/v1/get_workers", {});
  if (!list) { co_return fail(std::move(list.error())); }
  JsonObject workers;
  if (const JsonArray* found =
          list->is_object() ? array_in(list->get_object(), "workers") : nullptr) {
    for (const Json& worker : *found) {
      const Json* name = worker.is_object() ? worker.get_object().if_contains("name") : nullptr;
      if (name != nullptr) {
        workers[text_of(*name)] =
            JsonObject{{"address", string_in(worker.get_object(), "address")}};
      }
    }
  }
  const JsonObject none;
  const JsonObject& numbers = counts->is_object() ? counts->get_object() : none;
  co_return JsonObject{
      {"workers", std::move(workers)},
      {"desired", int_in(numbers, "desired_workers").value_or(0)},
      // Dask counts itself as a client.
      {"clients", std::max<std::int64_t>(0, int_in(numbers, "clients").value_or(0) - 1)}};
}

Async<Result<Facts>> DaskClusterController::gather(const Resource& resource) {
  if (client_ == nullptr || !resource.status.is_object()) { co_return Facts(); }
  const std::string address(string_at(resource.status, "address"));
  const auto state = string_at(resource.status, "state");
  if (address.empty() || (state != "Starting" && state != "Running")) {
    memory_.erase(resource.metadata.uid);
    co_return Facts();
  }
  const std::string base = fmt::format("http://{}:{}", address, kHttpPort);
  JsonObject facts{{"ready", false}};
  auto seen = co_await look(base);
  if (!seen) { co_return Facts(std::move(facts)); }
  Memory& memory = memory_[resource.metadata.uid];
  const std::int64_t desired = int_in(*seen, "desired").value_or(0);
  facts["ready"] = true;
  facts["clients"] = int_in(*seen, "clients").value_or(0);
  facts["desired"] = desired;
  facts["served"] = int_in(*seen, "served").value_or(0);
  JsonObject names;
  std::map<std::string, int> orphaned;
  for (const auto& worker : ensure_object(*seen, "workers")) {
    if (!worker.value().is_object()) { continue; }
    const JsonObject& of = worker.value().get_object();
    const std::string name(worker.key());
    names[name] = string_in(of, "address");
    if (int_in(of, "orphans").value_or(0) > 0) { orphaned[name] = memory.orphaned[name] + 1; }
  }
  JsonArray orphans;
  for (const auto& [name, times] : orphaned) {
    if (times > kOrphanLooks) { orphans.emplace_back(name); }
  }
  if (!orphans.empty()) { facts["orphans"] = std::move(orphans); }
  const auto now = clock_.steady();
  if (memory.desired.empty() ||
      now - memory.desired.back().first >= std::chrono::milliseconds(800)) {
    memory.desired.emplace_back(now, desired);
    memory.orphaned = std::move(orphaned);
  } else {
    memory.desired.back().second = std::max(memory.desired.back().second, desired);
  }
  if (memory.desired.size() > 3) { memory.desired.erase(memory.desired.begin()); }
  if (memory.desired.size() == 3) {
    std::int64_t calm = 0;
    for (const auto& [at, wish] : memory.desired) { calm = std::max(calm, wish); }
    facts["calm"] = calm;
  }
  if (const JsonObject* retire = object_in(resource.status.get_object(), "retire")) {
    const JsonObject none;
    const JsonObject* chosen = object_in(*retire, "workers");
    if (auto answer = co_await retired(base, *seen, chosen == nullptr ? none : *chosen)) {
      facts["retired"] = std::move(*answer);
    }
  }
  if (const JsonArray* closable = array_in(*seen, "closable")) { facts["closable"] = *closable; }
  facts["names"] = std::move(names);
  co_return Facts(std::move(facts));
}

// What has become of `chosen` (name → address): nothing as long as the scheduler is moving what one of them holds. It may
// take longer than the request lasts, and is told again then: the same workers, not as many others.
Async<std::optional<JsonObject>> DaskClusterController::retired(std::string base, JsonObject seen,
                                                                JsonObject chosen) const {
  JsonArray gone;
  JsonArray kept;
  JsonObject asked;
  bool moving = false;
  const JsonObject& workers = ensure_object(seen, "workers");
  for (const auto& entry : chosen) {
    const JsonObject* worker = object_in(workers, entry.key());
    if (worker == nullptr || string_in(*worker, "address") != string_in(chosen, entry.key())) {
      gone.emplace_back(entry.key());
    } else if (bool_in(*worker, "retiring")) {
      moving = true;
    } else {
      asked[entry.key()] = entry.value();
    }
  }
  if (!asked.empty()) {
    JsonArray addresses;
    for (const auto& entry : asked) { addresses.push_back(entry.value()); }
    const auto answer = co_await ask("POST", base + "/api/v1/retire_workers",
                                     dump_json(JsonObject{{"workers", std::move(addresses)}}));
    if (!answer || !answer->is_object()) { co_return std::nullopt; }
    for (const auto& entry : asked) {
      const bool given = answer->get_object().contains(string_in(asked, entry.key()));
      (given ? gone : kept).emplace_back(entry.key());
    }
  }
  if (moving) { co_return std::nullopt; }
  co_return JsonObject{{"gone", std::move(gone)}, {"kept", std::move(kept)}};
}

// Whom the controller stops has been retired, or there is nobody left to take over.
Async<Result<void>> DaskClusterController::before_stop(const Resource&) {
  co_return Result<void>{};
}

}  // namespace metier
