// The objects of kind dask. DaskCluster (metier.dev/v1) is ours:
//
//   spec: {minimum: 2, maximum: 2,            workers; equal: a fixed number, else adaptive
//          address: "tcp://…:8786",           of the scheduler, as pods reach it
//          handler: true,                     a run's Pod is a member of the first gang
//          openedBy: "f-train-0123abcd",      who wants it; a new name opens a cluster that has closed
//          service: {type: "NodePort", nodePort: 30087},
//          scheduler: {template: {metadata: {labels}, spec}}, worker: {template: …}}
//   status: cluster/controllers/dask/dask_cluster.h
#pragma once

#include "kind/kind.h"
#include "model/problems.h"

namespace metier {

// What scheduler and workers ask for on this machine unless the user says otherwise ({} = nothing).
inline constexpr std::string_view kEmbeddedDaskCpu = "250m";
inline constexpr std::string_view kEmbeddedDaskMemory = "512Mi";

// Pods of a DaskCluster have these labels (dask-kubernetes' own names).
inline constexpr std::string_view kDaskClusterLabel = "dask.org/cluster-name";
inline constexpr std::string_view kDaskComponentLabel = "dask.org/component";

// replicas → both, else min_replicas and max_replicas (0 and 16).
struct DaskScale {
  std::int64_t minimum = 0;
  std::int64_t maximum = 16;
};
// Errors: invalid (replicas < 1, min > max).
Result<DaskScale> dask_scale(const Function& function);
inline constexpr std::string_view kDaskIdleTimeout = "60 minutes";  // MLRun's
// scheduler_timeout as Dask takes it; a number is seconds.
std::string dask_idle_timeout(const Function& function);
// False: a Dask inside the handler's own process, no cluster.
bool dask_is_remote(const Function& function);
// Names and types of the fields of this kind, as far as they can be told without a site.
void check_dask_fields(const JsonObject& spec, ProblemList& problems);
// Fields that have no effect at the site, a sentence each.
std::vector<std::string> ignored_dask_fields(const Function& function, const Site& site);
// Dask's own texts of a time: "60 minutes", "1h", "30s", "500 ms".
bool is_dask_time(std::string_view text);

// `mlrun-<function>-<10 hex>`: what the workers are made of decides the hex digits (image, environment, variables, volumes,
// resources, threads), so that a function that changes gets another cluster and a changed number of workers does not.
Result<Resource> dask_cluster(const Subject& subject, const Site& site);
// On this machine cluster and clients know each other by a certificate of the cluster's own: the Secret of this name
// (keys tls.crt, tls.key) as variables that Dask reads.
inline constexpr std::string_view kDaskIdentity = "-dask-identity";
void add_dask_identity(JsonArray& env, const std::string& cluster);
// The address of the scheduler as pods of the project reach it.
std::string dask_address(const Resource& cluster, const Site& site);

}  // namespace metier
