// What every part of the engine stands on: the loop, the store, the cluster, the kinds, time and chance.
// Plain references; `Engine` owns the parts and outlives none of these. All on the loop's thread.
#pragma once

#include <chrono>
#include <functional>
#include <string>

#include "base/async.h"
#include "base/clock.h"
#include "base/digest.h"
#include "base/log.h"
#include "cluster/cluster.h"
#include "kind/kind.h"
#include "store/store.h"

namespace metier {

struct EngineOptions {
  std::string data;         // the data folder: snapshots/, logs/, projects/
  std::string pod_api_url;  // MLRUN_DBPATH of pods: the run-token listener
  // A run of several parts that prints nothing and uses no processor for so long is silent: `why` then asks its ranks where
  // they are, by this program (metier-mpi) run in their pods.
  std::chrono::seconds silence{30};
  std::string rank_tool;
  Json default_resources;                   // default_function_pod_resources, may be null
  std::string default_python;               // interpreter for runs submitted over TCP
  std::int64_t server_uid = -1;             // pods of other users of the socket run as these
  std::chrono::seconds resource_ttl{3600};  // ended resources stay that long (logs stay for ever)
  std::size_t ended_kept = 300;  // and at most so many of them (some 15 KiB of memory each)
  std::chrono::milliseconds lease{15'000};  // of runs that a client holds
  std::int64_t snapshot_limit = 50 << 20;
  std::chrono::milliseconds log_wait{20'000};  // longest long poll
};

struct Ground {
  Executor loop;
  Store& store;
  Cluster& cluster;
  const KindRegistry& kinds;
  const Clock& clock;
  Random& random;
  Logger log;
  EngineOptions options;
};

// Who asks. Filled by api/ from the connection; the engine only decides what depends on it.
struct Caller {
  std::string user;  // label `owner`, may be empty
  bool over_unix_socket = false;
  std::int64_t uid = -1;       // of a unix socket's peer
  std::string client_version;  // x-mlrun-client-version
  std::string python_version;
  std::string python;  // the caller's active interpreter (x-metier-python), unix socket only
  std::string idempotency_key;
  std::string run_project;  // set for a run token: its project and run
  std::string run_uid;
};

}  // namespace metier
