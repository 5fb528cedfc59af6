// The life of runs: submit, follow, abort, retry, limits of time, leases, clean-up, recovery. One object per
// server, on the loop's thread. What it decides is in the store before it is acted on: a kill at any point loses
// nothing that was acknowledged.
//
//   submit ──▶ one transaction (function, run, plan, objects) ──▶ answer ──▶ cluster.apply
//   cluster.watch ──▶ Kind::observe ──▶ journal to its end ──▶ move_run (compare-and-set + timeline)
#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "base/log_times.h"
#include "engine/background.h"
#include "engine/deadlines.h"
#include "engine/events.h"
#include "engine/ground.h"
#include "engine/journal.h"
#include "engine/mask.h"
#include "engine/merge.h"
#include "engine/plan.h"
#include "engine/run_parts.h"
#include "engine/snapshot.h"
#include "engine/tokens.h"
#include "engine/transition.h"

namespace metier {

struct SubmitRequest {
  Json task;                 // run document
  Json function;             // null, or an override / a whole function
  std::string function_url;  // "project/name@hash"
  Json schedule;
  Caller caller;
  Json environment;  // of a host process: the caller's variables, {name: value}
  std::string working_dir;
  std::string context;  // folder of the function's file (x-metier-context), unix socket only
  std::string mpi_api;  // "v2beta1" renders MPIJobs for the newer operator; empty: v1
};

// What a submit would do: the cluster's verdict, the documents as they would be stored, the objects.
struct Trial {
  Admission admission;
  Json function;
  Json run;
  Json environment;  // {"python", "requirements", "commands"}
  std::vector<ResourceKey> objects;
};

struct LogSlice {
  std::string bytes;
  std::uint64_t size = 0;  // of the whole log now
  std::string state;       // of the run
};

// One whole log as the pieces that it is made of: files first, at most one pod at the end.
struct LogPiece {
  std::string file;  // or
  std::string pod;
  std::uint64_t size = 0;
  std::string container;
};

class Engine final {
 public:
  explicit Engine(Ground ground);
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  // Before the cluster opens: pods that it starts need their tokens.
  Async<Result<void>> open_tokens();
  // Reads the store, applies what the cluster may not have, begins to follow.
  Async<Result<void>> start();
  // Stops following. Pods live on.
  Async<void> stop();

  // The run as stored, {"data": …} is api/'s. Errors: everything that is wrong with a submit; api/ answers 400.
  Async<Result<Json>> submit(SubmitRequest request);
  // The objects a submit would make, with the hooks applied; nothing is stored. Also asks the cluster's admission.
  Result<std::vector<Resource>> render(SubmitRequest request);
  Async<Result<Trial>> admit(SubmitRequest request);

  // Begins an abort and gives its background task's name. Errors: not_found, conflict (ended), invalid (kind).
  Async<Result<std::string>> abort(std::string project, std::string uid, std::string text);
  // A lease of a run that a client holds; renewed by repeating.
  Async<Result<void>> renew_lease(std::string project, std::string uid);
  // Removes a run's resources and logs; refuses running and pending ones (invalid).
  Async<Result<void>> forget(std::string project, std::string uid);

  // Bytes of a run's log. `attempt` 0 = all attempts, one after the other. Waits (at most options.log_wait) for
  // bytes when there are none and the run (of one attempt: the attempt) has not ended. `part`: the log of that part of the newest attempt alone.
  Async<Result<LogSlice>> log(std::string project, std::string uid, std::uint64_t offset,
                              std::int64_t size, std::int64_t attempt, bool wait,
                              std::string part = {});
  // When the bytes of that log were written.
  Async<Result<std::vector<LogMark>>> log_times(std::string project, std::string uid,
                                                std::int64_t attempt, std::string part);
  // What parts_json gives of a run, live or as it ended; empty for a run of one pod.
  Result<JsonArray> parts(const std::string& project, const std::string& uid) const;
  Async<Result<std::uint64_t>> log_size(std::string project, std::string uid);
  Result<void> append_log(const std::string& project, const std::string& uid,
                          std::string_view bytes, bool append);

  // For whoever changes runs by other ways (clients' PATCH): wakes waiters, sends the event.
  void run_changed(const std::string& project, const std::string& uid, const std::string& name,
                   const std::string& state);
  // True when the engine decides the run's end (its processes are the cluster's): claims of clients do not count.
  bool holds(const std::string& project, const std::string& uid) const;

  Masker masker_of(const std::string& project, const std::string& uid) const;
  // The values of a project's secrets have changed.
  void secrets_changed(const std::string& project) { secret_values_.erase(project); }
  EventHub& events() { return events_; }
  BackgroundTasks& tasks() { return tasks_; }
  const RunTokens& tokens() const { return tokens_; }
  const Ground& ground() const { return ground_; }
  // A token of a run that has not ended.
  std::optional<TokenRun> check_token(std::string_view token) const;
  bool idle() const;  // nothing lives and nobody waits
  std::size_t live_runs() const { return live_.size(); }

  // What is known of a run that lives, for `why` and `describe`. Empty when it does not.
  std::vector<ResourceStatus> resources_of(const std::string& project,
                                           const std::string& uid) const;
  // The run whose pod this is, while it lives; null otherwise. Good until the next suspension.
  const Run* run_of_pod(std::string_view pod) const;
  Silence silence_of(const std::string& project, const std::string& uid) const;
  // Where each rank of a running run is, by its own account.
  Async<std::vector<std::pair<std::string, std::string>>> stacks(std::string project,
                                                                 std::string uid);
  // Everything that is due now; the loop calls it, tests after moving the clock.
  Async<void> run_due();

 private:
  friend class Deployments;  // what a deploy shares with a submit: site, environment, snapshots
  friend class
      DaskClusters;  // what a start shares with a submit: functions, environments, lowering
  struct Live;
  using LivePtr = std::shared_ptr<Live>;
  struct Prepared;

  // engine_submit.cc
  Result<Prepared> prepare(const SubmitRequest& request, const std::string& context);
  Result<Function> function_of(const SubmitRequest& request, const std::string& project,
                               std::vector<std::string>* warnings = nullptr) const;
  Result<std::vector<Resource>> lower(const Function& function, const Run& run, const Plan& plan,
                                      const std::string& mpi_api = {}) const;
  Result<Json> environment_of(const Function& function, const Run& run, const Caller& caller) const;
  Site site_of(const std::string& project) const;
  Site site_of(const Plan& plan) const;
  Result<void> mark(Resource& resource, const Function& function, const Plan& plan) const;
  // The object that runs of this function share, as a run lowers it.
  Result<Resource> lower_shared(const Function& function, const Plan& plan) const;
  Async<void> apply(LivePtr live, std::vector<Resource> resources);
  Async<void> hear_shared(LivePtr live);
  Async<void> stop_rest(Plan plan);
  // Of runs that ended before all of their parts did: how those ended comes into the record.
  void heard_of_rest(const ResourceStatus& status);
  void poke_rest(const LivePtr& live);
  void rest_again(const Plan& plan);
  Async<void> note_rest(LivePtr live);
  Async<Result<bool>> keep_rest(LivePtr live);
  // The shared service that it was to use is lost, and nothing of the user's has begun: it may be submitted anew.
  bool begins_anew(const Live& live, std::string_view reason) const;
  // Kills its pods, so that nothing begins any more; their end is observed as any.
  Async<void> stop_unbegun(LivePtr live);
  void add_shared(const Live& live, std::vector<Resource>& resources) const;
  Async<Result<Json>> repeated(std::string project, std::string uid);

  // engine_observe.cc
  LivePtr adopt(Plan plan, Function function, Run run);
  void heard(const ResourceStatus& status);
  void poke(const LivePtr& live);
  Async<void> work(LivePtr live);
  Async<bool> observe_once(LivePtr live);
  Async<Result<void>> drain_journal(LivePtr live);
  Async<Result<void>> finish(LivePtr live, Observation seen);
  Async<Result<Moved>> move(LivePtr live, StateChange change, std::function<void(Plan&)> edit,
                            std::vector<TimelineRow> rows);
  Async<Result<void>> edit_plan(LivePtr live, std::function<void(Plan&)> edit);
  JsonObject facts_of_pods(const Live& live) const;
  JsonArray parts_of(const Live& live) const;
  void set_thresholds(Live& live, const Observation& seen);

  // engine_life.cc
  Async<void> clock_loop();
  Async<void> abort_task(LivePtr live, std::string project, std::string uid, std::string task,
                         std::string text);
  Async<void> stop_for(LivePtr live, std::string reason, std::string text);
  Async<void> retry_now(LivePtr live);
  Async<void> lease_lost(std::string key);
  Async<void> clean(std::string key);
  Async<void> recover();
  void keep_ended_bounded();
  Async<void> forget_snapshots();

  // engine_parts.cc
  Async<void> sample_usage(LivePtr live);
  std::string part_logs(const std::string& project, const std::string& uid) const;
  void note_parts(Live& live, std::vector<Part> now);
  void read_held(Live& live) const;
  void keep_log_of_gone(const ContainerRef& part, const std::string& file) const;
  std::vector<Part> stored_parts(const std::string& project, const std::string& uid) const;
  Result<std::pair<ContainerRef, std::string>> part_of(const std::string& project,
                                                       const std::string& uid,
                                                       const std::string& name) const;
  Async<Result<void>> archive_log(const Plan& plan, std::int64_t attempt, const std::string& pod);
  Async<Result<void>> archive_parts(const Plan& plan);
  Async<Result<void>> archive(ContainerRef from, std::string target);

  // engine_logs.cc
  std::string log_file(const std::string& project, const std::string& uid,
                       std::int64_t attempt) const;
  std::string log_pod(const Plan& plan, std::int64_t attempt) const;
  struct LogParts {
    std::vector<LogPiece> pieces;
    std::string live_pod;  // where the log goes on
    std::string live_container;
    std::int64_t newest = 0;  // attempt
  };
  Async<Result<LogParts>> log_parts(const std::string& project, const std::string& uid,
                                    std::int64_t attempt, const std::string& part);
  std::string state_of(const std::string& project, const std::string& uid) const;

  Ground ground_;
  Scope scope_;
  EventHub events_;
  BackgroundTasks tasks_;
  RunTokens tokens_;
  std::shared_ptr<Snapshots> snapshots_;  // shared with copies that are on their way
  Deadlines deadlines_;
  Signal deadline_changed_;
  std::unique_ptr<JournalWatch> journals_;
  std::map<std::string, LivePtr, std::less<>> live_;  // by plan_key
  std::map<std::string, std::string, std::less<>>
      ended_;  // plan_key → pod of the log, of runs whose resources still exist
  std::map<std::string, LivePtr, std::less<>>
      resting_;  // by plan_key: runs that have ended, with parts that are on their way out
  std::map<std::string, std::size_t, std::less<>> waiting_;  // long polls
  std::shared_ptr<void> watch_;
  mutable std::map<std::string, std::vector<std::string>, std::less<>>
      secret_values_;  // by project, for masks
  bool stopping_ = false;
};

}  // namespace metier
