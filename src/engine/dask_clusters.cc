#include "engine/dask_clusters.h"

#include <algorithm>

#include "engine/engine_impl.h"
#include "engine/pods_of.h"
#include "model/names.h"

namespace metier {
namespace {

constexpr std::int64_t kStartSeconds = 600;
constexpr auto kLook = std::chrono::milliseconds(10);
constexpr auto kHold = std::chrono::seconds(4);  // of the answer to a start

}  // namespace

Result<DaskClusters::Wanted> DaskClusters::lower(const std::string& url, const Caller& caller,
                                                 const std::string& opener) const {
  SubmitRequest request;
  request.function_url = url.contains("://") ? url : "db://" + url;
  METIER_TRY(uri, parse_function_uri(request.function_url.substr(5), "default"));
  METIER_TRY(function, engine_.function_of(request, uri.project));
  if (function.kind() != "dask") {
    return fail(invalid("functionUrl",
                        "function " + quote(function.name()) + " is of kind " +
                            quote(function.kind()) + ", only kind dask has a cluster to start",
                        "run it, or make it of kind dask"));
  }
  if (function.project().empty()) { function.set_project(uri.project); }
  if (!uri.tag.empty() && uri.tag != "latest") { function.set_tag(uri.tag); }
  METIER_TRY(project_body, ground_.store.records().project(function.project()));
  SubmitDefaults defaults;
  if (project_body) {
    METIER_TRY(document, parse_json(*project_body));
    defaults.project = std::move(document);
  }
  defaults.default_image = "mlrun/mlrun";
  defaults.default_resources = ground_.options.default_resources;
  Function filled = function;
  fill_function(filled, defaults);
  METIER_TRY(kind, ground_.kinds.find("dask"));
  METIER_CHECK(kind->validate(Subject{filled, nullptr}));
  Plan plan;
  plan.project = function.project();
  METIER_TRY(environment, engine_.environment_of(filled, Run(), caller));
  plan.environment = std::move(environment);
  if (caller.over_unix_socket && caller.uid > 0 && caller.uid != ground_.options.server_uid) {
    plan.run_as = caller.uid;
  }
  METIER_TRY(cluster, engine_.lower_shared(filled, plan));
  Wanted out{.function = std::move(function), .cluster = std::move(cluster), .opener = opener};
  ensure_object(out.cluster.body, "spec")["openedBy"] = opener;
  return out;
}

Async<Result<Json>> DaskClusters::start(std::string url, Caller caller) {
  auto task = engine_.tasks().begin("", "runtimes.dask.cluster.start", kStartSeconds);
  auto wanted = lower(url, caller, "start-" + task.name.substr(0, 8));
  if (!wanted) { co_return fail(std::move(wanted.error())); }
  const std::string project = wanted->function.project();
  ensure_object(task.body.get_object(), "metadata")["project"] = project;
  auto admission = co_await ground_.cluster.admit(std::span(&wanted->cluster, 1));
  if (!admission) { co_return fail(std::move(admission.error()).in("admission")); }
  if (admission->verdict != Admission::Verdict::ok) {
    co_return fail(Error{.kind = ErrorKind::exhausted,
                         .message = admission->reason,
                         .fix = admission->fix,
                         .code = admission->code});
  }
  auto stored = co_await ground_.store.write(
      [&](Records& tx) { return BackgroundTasks::store(tx, task, project); });
  if (!stored) { co_return fail(std::move(stored.error())); }
  Json answer = task.body;
  const std::string name = task.name;
  if (!scope_.spawn("dask " + name, bring_up(std::move(task), std::move(*wanted)))) {
    co_return fail(ErrorKind::unavailable, "the server is stopping");
  }
  const auto until = ground_.clock.steady() + kHold;
  while (ground_.clock.steady() < until) {
    co_await sleep_for(ground_.loop, kLook);
    auto now = engine_.tasks().get(name);
    if (!now) { co_return fail(std::move(now.error())); }
    if (*now) { answer = std::move(**now); }
    if (string_at(answer, "status.state") != "running") { break; }
  }
  co_return answer;
}

Result<void> DaskClusters::begin() {
  METIER_TRY(watch,
             ground_.cluster.watch(Selector{.kind = "DaskCluster"},
                                   [this](const ResourceStatus& cluster) { heard(cluster); }));
  watch_ = std::move(watch);
  return {};
}

void DaskClusters::heard(const ResourceStatus& cluster) {
  const std::string state(string_at(cluster.status, "state"));
  if (!cluster.removed && state != "Closed" && state != "Failed") { return; }
  const auto function = cluster.labels.find("mlrun/function");
  const auto tag = cluster.labels.find("mlrun/tag");
  if (function == cluster.labels.end()) { return; }
  scope_.spawn(
      "forget " + cluster.key.name,
      forget_address(cluster.key.name_space, function->second,
                     tag == cluster.labels.end() ? "latest" : tag->second, cluster.key.name,
                     state == "Failed" && !cluster.removed ? "error" : "scaledToZero"));
}

Async<void> DaskClusters::forget_address(std::string project, std::string function, std::string tag,
                                         std::string cluster, std::string state) {
  auto done = co_await ground_.store.write([&](Records& tx) -> Result<void> {
    METIER_TRY(row, tx.function(project, function, tag, ""));
    if (!row) { return {}; }
    METIER_TRY(body, parse_json(row->body));
    JsonObject* status = body.is_object() ? object_in(body.get_object(), "status") : nullptr;
    if (status == nullptr || string_in(*status, "cluster_name") != cluster ||
        status->erase("scheduler_address") == 0) {
      return {};
    }
    (*status)["state"] = state;
    status->erase("dashboard");
    row->body = dump_json(body);
    return tx.put_function(*row, tag);
  });
  if (!done) {
    ground_.log.warn("address of a Dask cluster not forgotten",
                     {{"cluster", Json(cluster)}, {"error", Json(done.error().text())}});
  }
}

Async<void> DaskClusters::bring_up(BackgroundTasks::Begun task, Wanted wanted) {
  std::string error;
  const std::string project = wanted.function.project();
  const std::string before = co_await opener_of(wanted.cluster);
  auto applied = co_await ground_.cluster.apply({wanted.cluster});
  if (applied) {
    auto status = co_await until_ready(wanted, before);
    if (status) {
      auto kept = co_await keep_status(wanted.function, std::move(*status));
      if (!kept) { error = kept.error().text(); }
    } else {
      error = status.error().text();
    }
  } else {
    error = applied.error().text();
  }
  if (!error.empty()) {
    ground_.log.warn("dask cluster not started",
                     {{"cluster", Json(wanted.cluster.metadata.name)}, {"error", Json(error)}});
  }
  auto ended = co_await engine_.tasks().end(task.name, project, error);
  if (!ended) {
    ground_.log.warn("task not closed",
                     {{"task", Json(task.name)}, {"error", Json(ended.error().text())}});
  }
}

// Who opened the cluster that there is, "" when there is none.
Async<std::string> DaskClusters::opener_of(Resource cluster) {
  auto listed = co_await ground_.cluster.list({.name_space = cluster.metadata.name_space,
                                               .kind = "DaskCluster",
                                               .name = cluster.metadata.name});
  co_return listed && !listed->empty() ? std::string(string_at(listed->front().status, "openedBy"))
                                       : std::string();
}

// The function's status once the scheduler answers. `before`: who had opened the cluster when we asked for it; whoever opens it
// after us opens it for us too.
Async<Result<Json>> DaskClusters::until_ready(const Wanted& wanted, std::string before) {
  const Selector own{.name_space = wanted.cluster.metadata.name_space,
                     .kind = "DaskCluster",
                     .name = wanted.cluster.metadata.name};
  const auto deadline = ground_.clock.steady() + std::chrono::seconds(kStartSeconds - 10);
  std::string waits = "nothing was heard of it";
  while (ground_.clock.steady() < deadline) {
    auto listed = co_await ground_.cluster.list(own);
    for (const ResourceStatus& seen : listed ? *listed : std::vector<ResourceStatus>{}) {
      const auto opener = string_at(seen.status, "openedBy");
      if (opener != wanted.opener && (opener.empty() || opener == before)) { continue; }
      const auto state = string_at(seen.status, "state");
      const std::string message(string_at(seen.status, "message"));
      if (state == "Failed" || state == "Closed") {
        co_return fail(Error{.kind = ErrorKind::unavailable,
                             .message = message,
                             .code = std::string(string_at(seen.status, "reason"))});
      }
      if (!message.empty()) { waits = message; }
      if (state != "Running") { continue; }
      co_return Json(
          JsonObject{{"state", "ready"},
                     {"scheduler_address", string_at(seen.status, "comm")},
                     {"cluster_name", wanted.cluster.metadata.name},
                     {"node_ports",
                      JsonObject{}},  // ports of a Kubernetes node; MLRun's client reads the object
                     {"dashboard", string_at(seen.status, "dashboard")}});
    }
    co_await sleep_for(ground_.loop, kLook);
  }
  co_return fail(ErrorKind::timed_out, "the Dask cluster did not start: " + waits);
}

Async<Result<void>> DaskClusters::keep_status(const Function& function, Json status) {
  const std::string project = function.project();
  const std::string name = function.name();
  const std::string tag = function.tag().empty() ? "latest" : function.tag();
  co_return co_await ground_.store.write([&](Records& tx) -> Result<void> {
    METIER_TRY(row, tx.function(project, name, tag, ""));
    if (!row) { return fail(ErrorKind::not_found, "function " + quote(name) + " was deleted"); }
    METIER_TRY(body, parse_json(row->body));
    if (!body.is_object()) { return fail(ErrorKind::internal, "a stored function is no object"); }
    body.get_object()["status"] = status;
    row->body = dump_json(body);
    return tx.put_function(*row, tag);
  });
}

Async<Result<std::string>> DaskClusters::status(std::string project, std::string name,
                                                std::string tag) {
  Selector selector{.name_space = project, .kind = "Pod"};
  selector.labels = {{"mlrun/class", "dask"},
                     {"mlrun/function", name},
                     {"mlrun/tag", tag.empty() ? "latest" : tag},
                     {"dask.org/component", "scheduler"}};
  auto pods = co_await ground_.cluster.list(selector);
  if (!pods) { co_return fail(std::move(pods.error())); }
  std::string found;
  for (const ResourceStatus& pod : *pods) {
    std::string phase(string_at(pod.status, "phase"));
    std::ranges::transform(phase, phase.begin(), [](char c) {
      return static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    });
    if (found != "running") { found = phase; }
  }
  co_return found;
}

Async<Result<std::optional<std::pair<std::string, std::string>>>> DaskClusters::at(
    std::string address) {
  using Found = std::optional<std::pair<std::string, std::string>>;
  const std::size_t scheme = address.find("://");
  if (scheme != std::string::npos) { address.erase(0, scheme + 3); }
  address = address.substr(0, address.find(':'));
  auto listed = co_await ground_.cluster.list(Selector{.kind = "DaskCluster"});
  if (!listed) { co_return fail(std::move(listed.error())); }
  for (const ResourceStatus& seen : *listed) {
    if (!address.empty() && string_at(seen.status, "address") == address) {
      co_return Found(std::pair(seen.key.name_space, seen.key.name));
    }
  }
  co_return Found();
}

Async<void> DaskClusters::stop() {
  watch_.reset();
  auto closed = co_await scope_.close(std::chrono::seconds(1));
  if (!closed) { ground_.log.warn("starts of Dask clusters did not end in time"); }
}

}  // namespace metier
