#include "engine/pages.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "base/files.h"
#include "engine/engine.h"
#include "engine/offload.h"
#include "engine/spark_history.h"
#include "resource/pod.h"

namespace metier {
namespace {

constexpr int kDaskPort = 8787;
constexpr std::size_t kMostEvents = 256U << 20U;

std::optional<Page> dask_page(const ResourceStatus& seen) {
  const auto address = string_at(seen.status, "address");
  if (seen.key.kind != "DaskCluster" || seen.removed || address.empty() ||
      string_at(seen.status, "state") != "Running") {
    return std::nullopt;
  }
  return Page{.name = "dask",
              .title = "Dask dashboard of " + seen.key.name,
              .origin = fmt::format("http://{}:{}", address, kDaskPort),
              .events = {}};
}

// Of a driver that runs, or of a project's warm Spark.
std::optional<Page> spark_page(const ResourceStatus& seen) {
  const bool warm = seen.key.kind == "SparkConnect";
  if (seen.removed || (!warm && seen.key.kind != "SparkApplication")) { return std::nullopt; }
  const auto state = string_at(seen.status, warm ? "state" : "applicationState.state");
  const auto address = string_at(seen.status, warm ? "address" : "driverInfo.podAddress");
  const Json* port = find_path(seen.status, warm ? "webUIPort" : "driverInfo.webUIPort");
  const bool runs = state == (warm ? "Running" : "RUNNING");
  if (!runs || address.empty() || port == nullptr || !port->is_int64()) { return std::nullopt; }
  return Page{.name = "spark",
              .title = (warm ? "Page of the warm Spark " : "Spark's page of ") + seen.key.name,
              .origin = fmt::format("http://{}:{}", address, port->get_int64()),
              .events = {}};
}

}  // namespace

Json to_json(const Page& page, const std::string& path) {
  return JsonObject{{"name", page.name},
                    {"title", page.title},
                    {"live", !page.origin.empty()},
                    {"path", path + page.name + "/"}};
}

Async<Result<std::vector<Page>>> Pages::of_run(std::string project, std::string uid) const {
  std::vector<ResourceStatus> seen = engine_.resources_of(project, uid);
  if (seen.empty()) {
    Selector selector;
    selector.name_space = project;
    selector.labels["mlrun/uid"] = uid;
    auto listed = co_await ground_.cluster.list(selector);
    if (!listed) { co_return fail(std::move(listed.error())); }
    seen = std::move(*listed);
  }
  std::vector<Page> out;
  for (const ResourceStatus& one : seen) {
    if (auto page = dask_page(one)) { out.push_back(std::move(*page)); }
    if (auto page = spark_page(one)) { out.push_back(std::move(*page)); }
  }
  if (!out.empty()) { co_return out; }
  auto warm = co_await warm_of(project, uid);
  if (!warm || !warm->empty()) { co_return warm; }
  auto events = event_log_of(project, uid);
  if (!events) { co_return fail(std::move(events.error())); }
  if (!events->empty()) {
    out.push_back({.name = "spark",
                   .title = "Spark's event log, as it was kept",
                   .origin = {},
                   .events = std::move(*events)});
  }
  co_return out;
}

// Of the warm Spark that an ended run was a client of, while it lives.
Async<Result<std::vector<Page>>> Pages::warm_of(const std::string& project,
                                                const std::string& uid) const {
  std::vector<Page> out;
  const auto parts = engine_.parts(project, uid);
  if (!parts || parts->empty()) { co_return out; }
  auto listed = co_await ground_.cluster.list({.name_space = project, .kind = "SparkConnect"});
  if (!listed) { co_return fail(std::move(listed.error())); }
  for (const ResourceStatus& one : *listed) {
    const auto server = string_at(one.status, "server");
    const bool used = std::ranges::any_of(
        *parts, [&](const Json& part) { return string_at(part, "pod") == server; });
    if (!used) { continue; }
    if (auto page = spark_page(one)) { out.push_back(std::move(*page)); }
  }
  co_return out;
}

Async<Result<std::vector<Page>>> Pages::of_function(std::string project, std::string name,
                                                    std::string tag) const {
  Selector selector{.name_space = project, .kind = "DaskCluster"};
  selector.labels = {{"mlrun/function", name}, {"mlrun/tag", tag.empty() ? "latest" : tag}};
  auto listed = co_await ground_.cluster.list(selector);
  if (!listed) { co_return fail(std::move(listed.error())); }
  std::vector<Page> out;
  for (const ResourceStatus& one : *listed) {
    if (auto page = dask_page(one)) { out.push_back(std::move(*page)); }
  }
  co_return out;
}

// The artifact that the driver's runner logs at its end; "" when there is none.
Result<std::string> Pages::event_log_of(const std::string& project, const std::string& uid) const {
  ArtifactFilter filter;
  filter.project = project;
  filter.tree = uid;
  filter.name = "spark-events";
  METIER_TRY(rows, ground_.store.records().artifacts(filter));
  for (const ArtifactRow& row : rows) {
    if (row.name != "spark-events") { continue; }
    METIER_TRY(body, parse_json(row.body));
    std::string path(string_at(body, "spec.target_path"));
    if (path.starts_with("file://")) { path.erase(0, 7); }
    if (path.starts_with('/')) { return path; }
  }
  return std::string();
}

Async<Result<std::string>> Pages::kept(Page page) const {
  co_return co_await offload(ground_.loop, [page = std::move(page)]() -> Result<std::string> {
    auto events = read_file(page.events, kMostEvents);
    if (!events) { return fail(std::move(events.error()).in("event log")); }
    return spark_history_page(*events, page.title);
  });
}

}  // namespace metier
