// DaskCluster (metier.dev/v1; its spec is written by kind/dask): a scheduler, its Service and between `minimum` and
// `maximum` workers, as MLRun's server makes them through dask-kubernetes.
//
//   status: {state: "Starting" | "Running" | "Closed" | "Failed", reason, message, failed: "pod", failedAt: "…",
//            incarnation: 1, openedBy: "…", openedAt: "…", used: true,
//            scheduler: "pod", address: "127.x.y.z", comm: "tls://127.x.y.z:8786", dashboard: "http://127.x.y.z:8787",
//            ready: true                the scheduler has answered
//            whole: true                and `minimum` workers were there; stays, whoever leaves later
//            next: 4                    number of the next worker
//            workers: {wanted, ready}, leaving: {"pod": "since"},
//            retire: {workers: {"3": "tls://…"}, stuck}   whom the scheduler is asked to give up
//            kept: {"pod": {at, takers}}   whom it did not give up, and how many could have taken what they hold
//            broken: 0, brokenAt: "…"   workers that ended one after the other before they had joined
//
//  - Scheduler, max(1, minimum) workers and, with `handler`, one Pod of a run are one gang.
//  - Adaptive: every second the number of workers that the scheduler asks for, within the bounds: more at once, fewer when
//    three answers in a row said so. Fewer means: the scheduler says whom it costs least to lose, retires them (it moves what
//    they hold) and they leave by themselves; who still is there after the grace is stopped. A worker that the scheduler
//    will not give up stays.
//  - A worker that ends otherwise is replaced, and one that executes what nobody wants any more (the handler was aborted in the
//    middle of a call) is retired and replaced; where nobody can take what it holds, its successor comes first. A scheduler that ends by itself (idle timeout, Client.shutdown) closes the
//    cluster; one that dies fails it. A new `openedBy` opens it again, as a new incarnation. So does the present one while its Pod
//    goes on and has had no client here, and whenever it came after the scheduler's end.
//  - A cluster without clients, tasks and data closes at once when others wait for the room that it holds, unless who opened
//    it is still to connect.
#pragma once

#include <map>
#include <memory>
#include <optional>

#include "cluster/controllers/controller.h"
#include "net/client.h"

namespace metier {

class DaskClusterController final : public Controller {
 public:
  // `client` may be null (pure tests): then nothing is asked and nothing retired.
  DaskClusterController(net::Client* client, const Clock& clock) : client_(client), clock_(clock) {}
  std::string_view api_version() const override { return "metier.dev/v1"; }
  std::string_view kind() const override { return "DaskCluster"; }
  // Facts: {ready, names: {"0": "tcp://…"}, desired, calm, clients, served, orphans: [], closable: [], retired: {gone: [],
  // kept: []}}.
  Async<Result<Facts>> gather(const Resource& resource) override;
  Decision reconcile(const Resource& resource, const Snapshot& snapshot, const Facts& facts,
                     Time now) const override;
  Async<Result<void>> before_stop(const Resource& pod) override;
  bool gives_room() const override { return true; }

 private:
  struct Memory {  // of one cluster, lost with the process without harm
    std::vector<std::pair<std::chrono::steady_clock::time_point, std::int64_t>> desired;
    std::map<std::string, int> orphaned;  // worker → looks in a row
  };
  Async<Result<JsonObject>> look(std::string base) const;
  Async<std::optional<JsonObject>> retired(std::string base, JsonObject seen,
                                           JsonObject chosen) const;
  Async<Result<Json>> ask(std::string method, std::string url, std::string body) const;

  net::Client* client_;
  const Clock& clock_;
  std::map<std::string, Memory> memory_;  // by uid
};

}  // namespace metier
