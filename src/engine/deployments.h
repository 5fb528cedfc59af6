// The life of deployments: functions whose kind has pods without a run (nuclio, serving, dask). One object
// per server, beside the Engine, on the loop's thread.
//
//   deploy ──▶ one transaction (function, plan, objects) ──▶ answer ──▶ cluster.apply
//   cluster.watch ──▶ Kind::observe ──▶ status of the function and of the plan, written together
//
// States (MLRun's and Nuclio's words): "deploying" → "ready" | "error"; a function that has been ready and is
// not any more is "unhealthy"; a kind may say its own ("building", "scaledToZero"). A redeploy of what is the
// same and ready does nothing; every other one is a new generation, which the kind sees as Subject::attempt.
// Everything that belongs to a deployment, pods included, has the label metier.dev/deployment. What it shares with runs
// (a Dask cluster, label metier.dev/shared) is made as theirs, opened by "deploy-<generation>", followed by its name and removed
// with the function.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "engine/deployment_plan.h"
#include "engine/engine.h"

namespace metier {

struct DeployRequest {
  Json function;  // the whole function document
  Caller caller;
  std::string context;  // folder of the function's file, unix socket only
};

struct DeploymentView {
  std::string project, name, tag, kind, state;
  Json function;  // as deployed
  Json status;    // the function's status
  std::vector<Part> parts;
  std::int64_t generation = 0;
  std::uint64_t revision = 0;  // grows by every change of the status
};

class Deployments final {
 public:
  Deployments(const Ground& ground, Engine& engine);
  ~Deployments();
  Deployments(const Deployments&) = delete;
  Deployments& operator=(const Deployments&) = delete;

  // Brings back what is stored: applies what the cluster may not have, goes on with removals, follows.
  Async<Result<void>> start();
  // Stops following. Pods live on.
  Async<void> stop();

  // The function as stored, with its status. Errors: everything that is wrong with the function (invalid),
  // exhausted (never fits), unsupported (kind not built, not deployed), conflict (being removed).
  Async<Result<Json>> deploy(DeployRequest request);
  // The objects a deploy would make, with the engine's own marks; nothing is stored.
  Result<std::vector<Resource>> render(DeployRequest request);
  // Removes the function's record and every tag's deployment; returns when the removal is stored and on its
  // way. A function that was never deployed only loses its record.
  Async<Result<void>> remove(std::string project, std::string name);

  std::optional<DeploymentView> find(const std::string& project, const std::string& name,
                                     const std::string& tag) const;
  std::vector<DeploymentView> list(const std::string& project) const;  // "" or "*" = all projects
  // Waits until the status has changed since `revision`, or for `limit`. Gives the view then.
  // Errors: not_found when there is no such deployment (any more).
  Async<Result<DeploymentView>> changed(std::string project, std::string name, std::string tag,
                                        std::uint64_t revision, std::chrono::milliseconds limit);
  // The status to be stored with a function that a client writes while it is deployed.
  std::optional<Json> status_of(const std::string& project, const std::string& name,
                                const std::string& tag) const;
  std::vector<ResourceStatus> resources_of(const std::string& project, const std::string& name,
                                           const std::string& tag) const;
  // Bytes of one Pod's log from `offset`; `pod` empty: of the first part. With `wait` it answers when there are bytes,
  // the log has ended, or log_wait has passed. `state` is the function's. Errors: not_found.
  Async<Result<LogSlice>> log(std::string project, std::string name, std::string tag,
                              std::string pod, std::uint64_t offset, std::int64_t size, bool wait);
  // When the bytes of that log were written.
  Async<Result<std::vector<LogMark>>> log_times(std::string project, std::string name,
                                                std::string tag, std::string pod);
  // By the value of label metier.dev/deployment.
  bool lives(const std::string& project, const std::string& label) const {
    return keys_.contains(project + "/" + label);
  }
  bool idle() const { return live_.empty(); }
  std::size_t size() const { return live_.size(); }

 private:
  struct Live;
  using LivePtr = std::shared_ptr<Live>;
  struct Prepared {
    Function function;
    DeploymentPlan plan;
    const Kind* kind = nullptr;
    std::vector<Resource> resources;
  };

  Result<Prepared> prepare(const DeployRequest& request, const std::string& context,
                           const DeploymentPlan* before);
  Result<std::vector<Resource>> lower(const Function& function, const DeploymentPlan& plan) const;
  // `before`: the generation that it follows, 0 for a new one. Errors: conflict when another came first.
  Async<Result<void>> store(const Prepared& prepared, std::int64_t before);
  bool same_as_stored(const std::vector<Resource>& resources, const DeploymentPlan& before) const;

  LivePtr adopt(DeploymentPlan plan, Function function);
  void drop(const LivePtr& live);
  Async<void> apply(LivePtr live, std::vector<Resource> resources, std::vector<ResourceKey> old);
  Async<Result<void>> replace_pods(LivePtr live, std::vector<Resource>& resources);
  Async<Result<void>> remove_objects(std::vector<ResourceKey> keys);
  void heard(const ResourceStatus& status);
  LivePtr sharer_of(const ResourceStatus& status) const;
  void take(const LivePtr& live, const ResourceStatus& status);
  // What is shared as it is now, once its controller has read who opened it: before, its status is of the life before.
  Async<void> hear_shared(LivePtr live, std::uint64_t epoch);
  Async<std::vector<Selector>> shared_by(const DeploymentPlan& plan) const;
  void poke(const LivePtr& live);
  Async<void> work(LivePtr live);
  Async<bool> observe_once(LivePtr live);
  Async<std::string> last_words(LivePtr live);
  Async<Json> status_from(LivePtr live, const Observation& seen);
  Async<Result<void>> set_status(LivePtr live, Json status, bool ready);
  Async<void> tear_down(LivePtr live);
  Result<ResourceStatus> log_pod(const std::string& project, const std::string& name,
                                 const std::string& tag, const std::string& pod) const;
  static int starts_of(const ResourceStatus& pod);
  DeploymentView view_of(const Live& live) const;

  Ground ground_;
  Engine& engine_;
  Scope scope_;
  std::map<std::string, LivePtr, std::less<>> live_;      // by deployment_key
  std::map<std::string, std::string, std::less<>> keys_;  // "project/label" → key
  std::shared_ptr<void> watch_;
  std::uint64_t revision_ = 1;
  bool stopping_ = false;
};

}  // namespace metier
