// The routes over the engine: submit, abort, build, runtime resources (submit.cc), logs (logs.cc), and what MLRun's
// API has not (metier_v1.cc). `main` makes the parts and adds the routes; everything outlives the router.
#pragma once

#include <functional>

#include "api/router.h"
#include "engine/builds.h"
#include "engine/deployments.h"
#include "engine/describe.h"
#include "engine/engine.h"
#include "engine/objects.h"
#include "engine/runtime_resources.h"
#include "net/client.h"
#include "net/identity.h"

namespace metier {
class DaskClusters;
class Pages;
}  // namespace metier

namespace metier::api {

struct EngineApi {
  Engine& engine;
  Describe& describe;
  ProjectObjects& objects;
  RuntimeResources& resources;
  Builds& builds;
  Deployments& deployments;
  std::function<Json()> environments;  // list, may be empty
  std::function<void(const std::string& project, const std::string& name)>
      secrets_changed;             // pods that wait go on; may be empty
  const Router* router = nullptr;  // for /openapi.json
  Time started{};
  std::string runner;  // folder of the in-pod runner, for Python clients on this machine
  // The queue of the cluster: {"paused", "reason", "waiting"}, and its switch. Empty where the cluster has none of ours.
  std::function<Json()> queue;
  std::function<Result<void>(bool paused, const std::string& reason)> pause_queue;
  // The /metrics of the processor at a pod's address; may be empty.
  std::function<Async<Result<std::string>>(std::string address)> processor_metrics;
};

void add_submit_routes(Router& router, EngineApi& api);
void add_log_routes(Router& router, EngineApi& api);
void add_metier_routes(Router& router, EngineApi& api);
void add_deployment_routes(Router& router, EngineApi& api);
using IdentityOf =
    std::function<Result<net::Identity>(const std::string& project, const std::string& cluster)>;
void add_dask_routes(Router& router, DaskClusters& clusters, IdentityOf identity_of);
void add_page_routes(Router& router, Pages& pages, Describe& describe, net::Client& client,
                     Executor loop);

// {"offset", "times": [[end, time], …]} of a log: from ?offset on, and from where ?since begins.
Result<Json> log_times_body(const Call& call, const std::vector<LogMark>& marks);

// Everything that is wrong with a submit is 400: MLRun's client hides what other statuses say (reference 1.7).
net::Response submit_error(const Error& error);

}  // namespace metier::api
