// Limits of time, aborts, retries, leases, clean-up and recovery.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <set>

#include "base/failpoint.h"
#include "base/files.h"
#include "base/log_times.h"
#include "engine/engine_impl.h"
#include "engine/offload.h"
#include "engine/pods_of.h"

namespace metier {
namespace {

constexpr std::string_view kLease = "lease";
constexpr std::string_view kJournalScope = "journal";
constexpr auto kSnapshotsFirst = std::chrono::minutes(1);
constexpr auto kSnapshotsLook = std::chrono::hours(6);
constexpr auto kSnapshotsKept = std::chrono::hours(24);

Selector of_run(const Plan& plan) {
  Selector selector;
  selector.name_space = plan.project;
  selector.labels["mlrun/uid"] = plan.uid;
  return selector;
}

bool abortable_by_client(std::string_view kind) {
  return kind.empty() || kind == "handler" || kind == "local";
}

}  // namespace

// Code folders of runs and functions that are no more.
Async<void> Engine::forget_snapshots() {
  std::set<std::string> used;
  for (const auto& [key, live] : live_) { find_snapshots(live->plan.context, used); }
  for (const Resource& object : ground_.store.objects().list({})) {
    find_snapshots(dump_json(to_json(object)), used);
  }
  const auto gone =
      co_await offload(ground_.loop, [snapshots = snapshots_, used]() -> Result<std::size_t> {
        return snapshots->forget(used, kSnapshotsKept);
      });
  if (gone && *gone > 0) { ground_.log.info("old code folders removed", {{"count", Json(*gone)}}); }
}

Async<void> Engine::clock_loop() {
  auto look_at_snapshots = ground_.clock.steady() + kSnapshotsFirst;  // not while everything starts
  while (!stopping_) {
    if (ground_.clock.steady() >= look_at_snapshots) {
      look_at_snapshots = ground_.clock.steady() + kSnapshotsLook;
      scope_.spawn("old snapshots", forget_snapshots());
    }
    const std::uint64_t seen = deadline_changed_.generation();
    const auto next = deadlines_.next();
    const auto now = ground_.clock.steady();
    const auto wait = std::max<std::chrono::steady_clock::duration>(
        std::min(next.value_or(look_at_snapshots), look_at_snapshots) - now,
        std::chrono::steady_clock::duration::zero());
    co_await deadline_changed_.wait(seen, std::chrono::steady_clock::now() + wait);
    if (stopping_) { co_return; }
    // When this program was stopped itself, a client had no chance to renew: its lease begins again.
    const auto late = ground_.clock.steady() - (now + wait);
    if (late > std::chrono::seconds(2)) { deadlines_.shift(Due::lease, late); }
    co_await run_due();
  }
}

Async<void> Engine::run_due() {
  for (const Deadlines::Item& item : deadlines_.take(ground_.clock.steady())) {
    const auto found = live_.find(item.key);
    const LivePtr live = found == live_.end() ? nullptr : found->second;
    switch (item.what) {
      case Due::clean: scope_.spawn("clean " + item.key, clean(item.key)); break;
      case Due::lease: co_await lease_lost(item.key); break;
      case Due::retry:
        if (live) { co_await retry_now(live); }
        break;
      case Due::threshold:
        if (live) {
          co_await stop_for(live, "ThresholdExceeded",
                            "the run was longer than its threshold " + live->threshold +
                                " allows and was stopped");
        }
        break;
      case Due::grace:
        if (live) {
          Observation seen;
          seen.state = RunState::aborted;
          const Plan plan = live->plan;
          auto noted = co_await ground_.store.write([plan, now = ground_.clock.now()](Records& tx) {
            return note(tx, plan.project, plan.uid, plan.attempt, now, "event",
                        JsonObject{{"reason", "ProcessStuck"},
                                   {"message", "a process of the run did not end after SIGKILL"}});
          });
          auto ended = co_await finish(live, std::move(seen));
          if (!noted || !ended) {
            deadlines_.set(Due::grace, item.key, ground_.clock.steady() + std::chrono::seconds(5));
          }
        }
        break;
    }
  }
}

Async<Result<std::string>> Engine::abort(std::string project, std::string uid, std::string text) {
  auto run = read_run(ground_.store.records(), project, uid);
  if (!run) { co_return fail(std::move(run.error())); }
  if (!*run) {
    co_return fail(Error{.kind = ErrorKind::not_found,
                         .message = "no run " + quote(uid) + " in project " + quote(project),
                         .fix = "see: metier get runs -P " + project});
  }
  const RunState state = (*run)->state();
  if (is_terminal(state)) {
    co_return fail(Error{.kind = ErrorKind::conflict,
                         .message = "the run has ended (" + std::string(to_string(state)) +
                                    "), there is nothing to abort"});
  }
  const auto found = live_.find(plan_key(project, uid));
  const LivePtr live = found == live_.end() ? nullptr : found->second;
  if (live && !live->plan.abort_task.empty()) { co_return live->plan.abort_task; }
  if (!live && !abortable_by_client((*run)->label("kind"))) {
    co_return fail(invalid("kind",
                           "runs of kind " + quote((*run)->label("kind")) + " cannot be aborted",
                           "delete the run"));
  }
  if (live) {
    auto kind = ground_.kinds.find(live->plan.kind);
    if (kind && !(*kind)->traits().abortable) {
      co_return fail(invalid("kind", "runs of kind " + live->plan.kind + " cannot be aborted",
                             "delete the run"));
    }
  }
  if (text.empty()) { text = "aborted by the user"; }
  const BackgroundTasks::Begun task = tasks_.begin(project, "run.abort");
  StateChange change;
  change.to = RunState::aborting;
  change.reason = "AbortedByUser";
  change.text = text;
  change.attempt = live ? live->plan.attempt : 1;
  change.edit = [name = task.name](Run& document) { document.status()["abort_task_id"] = name; };
  const Time now = ground_.clock.now();
  const auto edit = [text, name = task.name](Plan& plan) {
    plan.stop_reason = "AbortedByUser";
    plan.stop_text = text;
    plan.abort_task = name;
  };
  auto moved = co_await ground_.store.write([&](Records& tx) -> Result<Moved> {
    METIER_TRY(out, move_run(tx, project, uid, change, now));
    if (!out.changed) { return out; }
    METIER_CHECK(BackgroundTasks::store(tx, task, project));
    METIER_TRY(plan, read_plan(tx, project, uid));
    if (plan) {
      edit(*plan);
      METIER_CHECK(write_plan(tx, *plan));
    }
    return out;
  });
  if (!moved) { co_return fail(std::move(moved.error())); }
  if (!moved->changed) {
    co_return fail(Error{
        .kind = ErrorKind::conflict,
        .message = "the run is " + std::string(to_string(moved->now)) + " and cannot be aborted"});
  }
  if (live) {
    edit(live->plan);
    live->state = RunState::aborting;
  }
  METIER_FAILPOINT("run/abort_committed");
  events_.publish({.type = "dev.metier.run.state",
                   .project = project,
                   .uid = uid,
                   .name = moved->name,
                   .state = "aborting",
                   .reason = "AbortedByUser",
                   .at = now});
  scope_.spawn("abort " + uid, abort_task(live, project, uid, task.name, text));
  co_return task.name;
}

Async<void> Engine::abort_task(LivePtr live, std::string project, std::string uid, std::string task,
                               std::string text) {
  if (!live) {
    StateChange change;
    change.to = RunState::aborted;
    change.reason = "AbortedByUser";
    change.text = text;
    auto moved = co_await ground_.store.write([&, now = ground_.clock.now()](Records& tx) {
      return move_run(tx, project, uid, change, now);
    });
    if (moved && moved->changed) { run_changed(project, uid, moved->name, "aborted"); }
    auto ended = co_await tasks_.end(task, project, moved ? "" : moved.error().text());
    if (!ended) { ground_.log.warn("abort task not closed", {{"run", Json(uid)}}); }
    co_return;
  }
  Observation none;
  none.state = RunState::aborted;
  const Selector selector = of_run(live->plan);
  StopOptions options;
  options.reason = live->plan.stop_reason;
  options.message = live->plan.stop_text;
  std::int64_t grace = 30;
  for (const ResourceKey& key : live->plan.objects) {
    if (auto object = ground_.store.objects().get(key)) {
      for_each_pod(*object, [&](PodPart& pod) {
        grace = int_in(pod.spec, "terminationGracePeriodSeconds").value_or(30);
      });
    }
  }
  auto stopped = co_await ground_.cluster.stop(selector, options);
  if (live->done) { co_return; }
  if (!stopped && stopped.error().kind != ErrorKind::not_found) {
    ground_.log.warn("stop did not go through",
                     {{"run", Json(live->key())}, {"error", Json(stopped.error().text())}});
  }
  bool lives = false;
  auto left = co_await ground_.cluster.list(selector);
  if (left) {
    for (const ResourceStatus& status : *left) {
      if (status.key.kind != "Pod" || !status.key.name.starts_with(live->plan.name())) { continue; }
      const auto phase = pod_phase_from(string_at(status.status, "phase"));
      lives = lives || !phase || !is_terminal(*phase);
    }
  }
  if (!lives && (left || live->state == RunState::pending_retry)) {
    if (live->resources.empty()) {
      auto ended = co_await finish(live, std::move(none));
      if (ended) { co_return; }
    } else {
      poke(live);
    }
  }
  if (live->done) { co_return; }
  deadlines_.set(
      Due::grace, live->key(),
      ground_.clock.steady() + std::chrono::seconds(grace) + std::chrono::milliseconds(1800));
  deadline_changed_.notify();
}

Async<void> Engine::stop_for(LivePtr live, std::string reason, std::string text) {
  if (live->done || !live->plan.stop_reason.empty()) { co_return; }
  StateChange change;
  change.to = RunState::aborting;
  change.reason = reason;
  change.text = text;
  change.attempt = live->plan.attempt;
  auto moved = co_await move(live, std::move(change),
                             [reason, text](Plan& plan) {
                               plan.stop_reason = reason;
                               plan.stop_text = text;
                             },
                             {});
  if (!moved) {
    deadlines_.set(Due::threshold, live->key(), ground_.clock.steady() + std::chrono::seconds(5));
    co_return;
  }
  scope_.spawn("stop " + live->key(),
               abort_task(live, live->plan.project, live->plan.uid, "", text));
}

// A run ends with its first failure: pods of it that still run (a handler whose cluster is gone) end too.
Async<void> Engine::stop_rest(Plan plan) {
  StopOptions options;
  options.reason = kRunEnded;
  options.message = "the run has ended";
  auto stopped = co_await ground_.cluster.stop(of_run(plan), options);
  if (!stopped && stopped.error().kind != ErrorKind::not_found) {
    ground_.log.warn("pods of an ended run not stopped",
                     {{"run", Json(plan.uid)}, {"error", Json(stopped.error().text())}});
  }
}

Async<void> Engine::stop_unbegun(LivePtr live) {
  const StopOptions options{.how = StopOptions::How::forced,
                            .grace = {},
                            .reason = live->reason,
                            .message = live->message};
  auto stopped = co_await ground_.cluster.stop(of_run(live->plan), options);
  if (stopped || stopped.error().kind == ErrorKind::not_found) { co_return; }
  ground_.log.warn("pods of a run without its service not stopped",
                   {{"run", Json(live->key())}, {"error", Json(stopped.error().text())}});
  co_await sleep_for(ground_.loop, std::chrono::seconds(1));
  live->unbegun_stop = false;
  poke(live);
}

// What a run shares is not in its transaction: a crash may have come before it was applied.
void Engine::add_shared(const Live& live, std::vector<Resource>& resources) const {
  if (live.plan.shared.empty()) { return; }
  auto lowered = lower(live.function, live.run, live.plan);
  if (!lowered) { return; }
  for (Resource& resource : *lowered) {
    if (is_shared(resource.metadata.labels)) {
      resources.insert(resources.begin(), std::move(resource));
    }
  }
}

Async<void> Engine::retry_now(LivePtr live) {
  if (live->done || live->state != RunState::pending_retry) { co_return; }
  Plan next = live->plan;
  next.attempt += 1;
  next.names.push_back(resource_name(live->run.name(), next.uid, 0, next.attempt));
  next.failure = nullptr;
  next.claimed.clear();
  next.objects.clear();
  auto resources = lower(live->function, live->run, next);
  if (!resources) {
    Observation seen;
    seen.state = RunState::error;
    seen.reason = "Internal";
    seen.message = resources.error().text();
    live->run.spec().erase("retry");
    auto ended = co_await finish(live, std::move(seen));
    if (!ended) {
      deadlines_.set(Due::retry, live->key(), ground_.clock.steady() + std::chrono::seconds(5));
    }
    co_return;
  }
  name_objects(next, *resources);
  StateChange change;
  change.to = RunState::pending;
  change.only_from = RunState::pending_retry;
  change.attempt = next.attempt;
  change.text = "Job is running in the background, pod: " + next.name();
  change.edit = [](Run& run) { run.status()["error"] = ""; };
  const Time now = ground_.clock.now();
  const bool in_one = ground_.cluster.name() == "embedded";
  auto moved = co_await ground_.store.write([&](Records& tx) -> Result<Moved> {
    METIER_TRY(out, move_run(tx, next.project, next.uid, change, now));
    if (!out.changed) { return out; }
    METIER_CHECK(note(tx, next.project, next.uid, next.attempt, now, "attempt",
                      JsonObject{{"pod", next.name()}}));
    METIER_CHECK(write_plan(tx, next));
    if (in_one) {
      for (const Resource& resource : *resources) {
        if (!is_shared(resource.metadata.labels)) { METIER_CHECK(tx.put_object(resource, 0)); }
      }
    }
    return out;
  });
  if (!moved) {
    deadlines_.set(Due::retry, live->key(), ground_.clock.steady() + std::chrono::seconds(5));
    co_return;
  }
  if (!moved->changed) { co_return; }
  METIER_FAILPOINT("run/retry_committed");
  live->plan = std::move(next);
  live->state = RunState::pending;
  live->resources.clear();
  live->had_resources = false;
  live->unbegun_stop = false;
  live->marks.clear();
  live->journal_offsets.clear();
  for (const auto& [pod, watch] : live->journal_watches) { journals_->forget(watch); }
  live->journal_watches.clear();
  live->threshold.clear();
  live->claimed_error.clear();
  live->log_pod = live->plan.name();
  run_changed(live->plan.project, live->plan.uid, live->run.name(), "pending");
  scope_.spawn("apply " + live->key(), apply(live, std::move(*resources)));
}

Async<Result<void>> Engine::renew_lease(std::string project, std::string uid) {
  const std::string key = plan_key(project, uid);
  if (!deadlines_.has(Due::lease, key)) {
    auto run = read_run(ground_.store.records(), project, uid);
    if (!run) { co_return fail(std::move(run.error())); }
    if (!*run) {
      co_return fail(ErrorKind::not_found,
                     "no run " + quote(uid) + " in project " + quote(project));
    }
    if (is_terminal((*run)->state())) {
      co_return fail(ErrorKind::conflict,
                     "the run has ended: " + std::string(to_string((*run)->state())));
    }
    if (holds(project, uid)) {
      co_return fail(ErrorKind::conflict, "the server runs this run itself: it needs no lease");
    }
    auto stored = co_await ground_.store.write(
        [key](Records& tx) { return tx.put_setting(std::string(kLease), key, "1", std::nullopt); });
    if (!stored) { co_return fail(std::move(stored.error())); }
  }
  deadlines_.set(Due::lease, key, ground_.clock.steady() + ground_.options.lease);
  deadline_changed_.notify();
  co_return Result<void>{};
}

Async<void> Engine::lease_lost(std::string key) {
  const std::size_t slash = key.find('/');
  const std::string project = key.substr(0, slash);
  const std::string uid = key.substr(slash + 1);
  StateChange change;
  change.to = RunState::error;
  change.reason = "ClientLost";
  change.text = "the client that ran it has not been heard of for " +
                human_duration(std::chrono::duration_cast<Duration>(ground_.options.lease));
  change.error = change.text;
  auto moved =
      co_await ground_.store.write([&, now = ground_.clock.now()](Records& tx) -> Result<Moved> {
        METIER_CHECK(tx.delete_setting(std::string(kLease), key));
        return move_run(tx, project, uid, change, now);
      });
  if (!moved) {
    deadlines_.set(Due::lease, key, ground_.clock.steady() + std::chrono::seconds(5));
    co_return;
  }
  if (moved->changed) { run_changed(project, uid, moved->name, "error"); }
}

void Engine::keep_ended_bounded() {
  if (ended_.size() <= ground_.options.ended_kept) { return; }
  // The one that would be cleaned first has ended first.
  if (const auto oldest = deadlines_.first(Due::clean)) {
    deadlines_.set(Due::clean, *oldest, ground_.clock.steady());
    deadline_changed_.notify();
  }
}

Async<void> Engine::clean(std::string key) {
  const auto known = ended_.find(key);
  if (known == ended_.end()) { co_return; }
  const std::string pod = known->second;
  ended_.erase(known);
  keep_ended_bounded();  // runs that ended together all found the same one to be the oldest
  const std::size_t slash = key.find('/');
  const std::string project = key.substr(0, slash);
  const std::string uid = key.substr(slash + 1);
  auto plan = read_plan(ground_.store.records(), project, uid);
  if (!plan || !*plan) { co_return; }
  METIER_FAILPOINT("run/S18_cleanup");
  const auto again = [&] {
    ended_[key] = pod;
    deadlines_.set(Due::clean, key, ground_.clock.steady() + std::chrono::seconds(60));
  };
  auto archived = co_await archive_log(**plan, (*plan)->attempt, pod);
  if (!archived) {
    ground_.log.warn("log not kept, its pod stays",
                     {{"run", Json(key)}, {"error", Json(archived.error().text())}});
    again();
    co_return;
  }
  auto parts = co_await archive_parts(**plan);
  if (!parts) {
    ground_.log.warn("logs of parts not kept",
                     {{"run", Json(key)}, {"error", Json(parts.error().text())}});
  }
  // Before they are removed: of pods that are gone a server that comes then knows nothing.
  if (const auto rest = resting_.find(key); rest != resting_.end()) {
    const LivePtr live = rest->second;
    for (auto& [name, status] : live->resources) { status.removed = true; }
    auto noted = co_await keep_rest(live);
    if (!noted) {
      again();
      co_return;
    }
    resting_.erase(key);
  }
  StopOptions options;
  options.how = StopOptions::How::forced;
  options.reason = kRunEnded;
  options.message = "the run has ended";
  auto removed = co_await ground_.cluster.remove(of_run(**plan), options);
  if (!removed && removed.error().kind != ErrorKind::not_found) {
    again();
    co_return;
  }
  METIER_FAILPOINT("run/cleanup_removed");
  const auto known_parts = stored_parts(project, uid);
  auto stored = co_await ground_.store.write([&](Records& tx) -> Result<void> {
    METIER_TRY(now, read_plan(tx, project, uid));
    if (!now) { return {}; }
    now->clean = true;
    std::vector<std::string> pods = now->names;
    for (const Part& part : known_parts) { pods.push_back(part.pod); }
    for (const std::string& name : pods) {
      METIER_CHECK(tx.delete_setting(std::string(kJournalScope), key + "/" + name));
    }
    if (!now->environment_secret.empty()) {
      METIER_CHECK(tx.delete_secret(project, now->environment_secret, ""));
    }
    for (const ResourceKey& object : now->objects) { METIER_CHECK(tx.remove_object(object)); }
    return write_plan(tx, *now);
  });
  if (!stored) { again(); }
}

Async<Result<void>> Engine::forget(std::string project, std::string uid) {
  const std::string key = plan_key(project, uid);
  if (live_.contains(key)) {
    co_return fail(Error{.kind = ErrorKind::invalid,
                         .message = "the run has not ended: it is " + state_of(project, uid),
                         .fix = "abort it first: metier abort " + uid});
  }
  auto plan = read_plan(ground_.store.records(), project, uid);
  if (!plan) { co_return fail(std::move(plan.error())); }
  ended_.erase(key);
  resting_.erase(key);
  deadlines_.clear_all(key);
  if (*plan) {
    StopOptions options;
    options.how = StopOptions::How::forced;
    auto removed = co_await ground_.cluster.remove(of_run(**plan), options);
    if (!removed && removed.error().kind != ErrorKind::not_found) {
      co_return fail(std::move(removed.error()));
    }
    const Plan known = **plan;
    auto stored = co_await ground_.store.write([known, key](Records& tx) -> Result<void> {
      METIER_CHECK(forget_plan(tx, known.project, known.uid));
      if (!known.environment_secret.empty()) {
        METIER_CHECK(tx.delete_secret(known.project, known.environment_secret, ""));
      }
      for (const std::string& name : known.names) {
        METIER_CHECK(tx.delete_setting(std::string(kJournalScope), key + "/" + name));
      }
      return {};
    });
    if (!stored) { co_return fail(std::move(stored.error())); }
    for (std::int64_t attempt = 1; attempt <= known.attempt; ++attempt) {
      ::unlink(log_file(project, uid, attempt).c_str());
      ::unlink(log_times_path(log_file(project, uid, attempt)).c_str());
    }
    std::error_code ignored;
    std::filesystem::remove_all(part_logs(project, uid), ignored);
  }
  ::unlink(log_file(project, uid, 1).c_str());
  ::unlink(log_times_path(log_file(project, uid, 1)).c_str());
  co_return Result<void>{};
}

Async<void> Engine::recover() {
  METIER_FAILPOINT("run/recover");
  const Records& records = ground_.store.records();
  RunFilter filter;
  filter.states = {"created", "pending", "running", "aborting", "pendingRetry", "unknown"};
  filter.only_parents = true;
  filter.sort = false;
  auto rows = records.runs(filter);
  std::vector<LivePtr> found;
  if (rows) {
    for (const RunRow& row : *rows) {
      auto plan = read_plan(records, row.project, row.uid);
      if (!plan) { continue; }
      if (!*plan) {
        auto lease = records.setting(std::string(kLease), plan_key(row.project, row.uid));
        if (lease && *lease) {
          deadlines_.set(Due::lease, plan_key(row.project, row.uid),
                         ground_.clock.steady() + ground_.options.lease);
        }
        continue;
      }
      auto body = parse_json(row.body);
      if (!body) { continue; }
      auto run = Run::from_json(std::move(*body));
      if (!run) { continue; }
      Function function;
      Json document = (*plan)->function;
      if (document.is_null()) {
        auto stored =
            records.function(row.project, (*plan)->function_name, "", (*plan)->function_hash);
        if (stored && *stored) {
          if (auto text = parse_json((*stored)->body)) { document = std::move(*text); }
        }
      }
      if (auto parsed = Function::from_json(std::move(document))) { function = std::move(*parsed); }
      const Time updated = row.updated;
      LivePtr live = adopt(std::move(**plan), std::move(function), std::move(*run));
      live->state = run_state_from(row.state).value_or(RunState::pending);
      live->committed = true;
      read_held(*live);
      if (auto timeline = records.timeline(row.project, row.uid)) {
        for (const TimelineRow& mark : *timeline) {
          if (mark.what == "state") { live->since = mark.at; }
          if (mark.what != "phase" || mark.attempt != live->plan.attempt) { continue; }
          if (auto detail = parse_json(mark.detail)) {
            live->marks.emplace(string_at(*detail, "name"));
          }
        }
      }
      found.push_back(live);
      if (live->state == RunState::pending_retry) {
        const auto delay = was_unbegun(live->run)
                               ? std::chrono::seconds(0)
                               : retry_of(live->run).delay_before(live->plan.attempt + 1);
        const auto gone =
            std::chrono::duration_cast<std::chrono::seconds>(ground_.clock.now() - updated);
        deadlines_.set(Due::retry, live->key(),
                       ground_.clock.steady() + std::clamp<std::chrono::seconds>(
                                                    delay - gone, std::chrono::seconds(0), delay));
      }
    }
  } else {
    ground_.log.error("runs not recovered", {{"error", Json(rows.error().text())}});
  }
  // Ended runs whose pods are still there: their time goes on.
  for (const Resource& object : ground_.store.objects().list(Selector{})) {
    const auto uid = object.metadata.labels.find("mlrun/uid");
    if (uid == object.metadata.labels.end() || object.kind != "Pod") { continue; }
    const std::string key = plan_key(object.metadata.name_space, uid->second);
    const auto phase = pod_phase_from(string_at(object.status, "phase"));
    const bool lives = phase && !is_terminal(*phase);
    if (live_.contains(key) || (ended_.contains(key) && !lives)) { continue; }
    auto plan = read_plan(records, object.metadata.name_space, uid->second);
    if (!plan || !*plan) { continue; }
    if (lives && !(*plan)->pods_stay) {  // it was to be stopped
      scope_.spawn("end " + key, stop_rest(**plan));
    }
    if (!resting_.contains(key)) { rest_again(**plan); }
    ended_[key] = (*plan)->name();
    const auto at = from_iso((*plan)->ended_at).value_or(ground_.clock.now());
    const auto gone = std::chrono::duration_cast<std::chrono::seconds>(ground_.clock.now() - at);
    deadlines_.set(Due::clean, key,
                   ground_.clock.steady() +
                       std::clamp<std::chrono::seconds>(ground_.options.resource_ttl - gone,
                                                        std::chrono::seconds(0),
                                                        ground_.options.resource_ttl));
  }
  auto watch =
      ground_.cluster.watch(Selector{}, [this](const ResourceStatus& status) { heard(status); });
  if (watch) { watch_ = std::move(*watch); }
  for (const auto& [key, live] : resting_) { poke_rest(live); }
  for (const LivePtr& live : found) {
    if (live->done || live->state == RunState::pending_retry) { continue; }
    std::vector<Resource> resources;
    bool complete = true;
    for (const ResourceKey& key : live->plan.objects) {
      if (auto object = ground_.store.objects().get(key)) {
        resources.push_back(std::move(*object));
      } else {
        complete = false;
      }
    }
    if (!complete && !live->had_resources) {
      if (ground_.cluster.name() != "embedded" && live->state != RunState::running) {
        if (auto lowered = lower(live->function, live->run, live->plan)) {
          resources = std::move(*lowered);
          complete = true;
        }
      }
      if (!complete) {
        Observation seen;
        seen.state = RunState::error;
        seen.reason = "NodeLost";
        seen.message = "the run's pod was gone when the server came back";
        auto ended = co_await finish(live, std::move(seen));
        if (!ended) { poke(live); }
        continue;
      }
    }
    if (live->state == RunState::aborting) {
      scope_.spawn("abort " + live->key(), abort_task(live, live->plan.project, live->plan.uid,
                                                      live->plan.abort_task, live->plan.stop_text));
    } else if (!resources.empty()) {
      add_shared(*live, resources);
      scope_.spawn("apply " + live->key(), apply(live, std::move(resources)));
    }
    poke(live);
  }
}

}  // namespace metier
