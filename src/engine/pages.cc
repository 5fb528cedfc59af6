#include "engine/pages.h"

#include <fmt/format.h>

#include <filesystem>

#include "base/files.h"
#include "engine/engine.h"
#include "engine/offload.h"
#include "engine/spark_history.h"
#include "resource/pod.h"

namespace metier {
namespace {

constexpr int kDaskPort = 8787;
constexpr int kSparkPort = 4040;
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

std::optional<Page> spark_page(const ResourceStatus& seen) {
  const auto role = seen.labels.find("spark-role");
  if (seen.key.kind != "Pod" || seen.removed || role == seen.labels.end() ||
      role->second != "driver") {
    return std::nullopt;
  }
  const PodStatus pod = pod_status_from_json(seen.status);
  if (pod.phase != PodPhase::running || pod.pod_ip.empty()) { return std::nullopt; }
  return Page{.name = "spark",
              .title = "Spark's page of " + seen.key.name,
              .origin = fmt::format("http://{}:{}", pod.pod_ip, kSparkPort),
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
