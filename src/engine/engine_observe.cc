// Follows runs: what the cluster reports becomes states, what the journal says becomes records.
#include <algorithm>
#include <array>
#include <utility>

#include "base/failpoint.h"
#include "engine/engine_impl.h"

namespace metier {
namespace {

constexpr std::string_view kJournalScope = "journal";

std::string sentence_of_end(const Observation& seen) {
  if (!seen.message.empty()) { return seen.message; }
  if (!seen.first_failure) { return "the run failed"; }
  const Failure& failure = *seen.first_failure;
  if (!failure.message.empty()) { return failure.message; }
  if (failure.signal > 0) {
    return "the process was killed by signal " + std::to_string(failure.signal);
  }
  return "the process ended with exit code " + std::to_string(failure.exit_code);
}

std::string failure_sentence(const Json& failure) {
  const std::string type(string_at(failure, "type"));
  const std::string message(string_at(failure, "message"));
  const Json* rank = find_path(failure.get_object(), "rank");
  const std::string who =
      rank != nullptr && rank->is_int64() ? "rank " + std::to_string(rank->get_int64()) + ": " : "";
  if (type.empty()) { return who + message; }
  return who + (message.empty() ? type : type + ": " + message);
}

// What the pods of a run have to say, into its status: what could not be enforced, what it used.
void add_facts(Run& run, const JsonObject& facts) {
  for (const auto& [key, value] : facts) { run.status()[key] = value; }
}

// A secret that user code logs as a result or raises does not leave by the run's record.
void mask_records(const Masker& masker, std::vector<Json>& records) {
  if (masker.empty()) { return; }
  for (Json& record : records) {
    JsonObject* body = record.is_object() ? object_in(record.get_object(), "body") : nullptr;
    if (body == nullptr) { continue; }
    const std::string_view op = string_in(record.get_object(), "op");
    for (auto&& member : *body) {
      if (op == "failure" || (op == "patch_run" && member.key().starts_with("status."))) {
        masker.mask(member.value());
      }
    }
  }
}

}  // namespace

FailureText failure_text(const Observation& seen, const Json& journal_failure) {
  FailureText out{seen.reason, sentence_of_end(seen)};
  if (out.reason.empty() && seen.first_failure) { out.reason = seen.first_failure->code; }
  // A kill from outside explains more than the exception that may have been written before it.
  const bool killed = seen.first_failure && seen.first_failure->signal > 0;
  const bool plain = out.reason.empty() || out.reason == "Error" || out.reason == "HandlerError" ||
                     out.reason == "ExitCode" || out.reason == "RankFailed";
  // What a launcher says of itself is the cause of what its ranks ended by.
  const bool launcher =
      journal_failure.is_object() && string_at(journal_failure, "part") == "launcher";
  if (launcher || (journal_failure.is_object() && !killed && plain)) {
    out.reason = string_at(journal_failure, "code", "HandlerError");
    out.text = failure_sentence(journal_failure);
  }
  if (out.reason.empty() || out.reason == "Error") { out.reason = "HandlerError"; }
  // Nobody says that code of the user's raised: its program said no more than a number.
  if (!journal_failure.is_object() && out.reason == "HandlerError" && seen.first_failure &&
      seen.first_failure->exit_code != 0 && !killed) {
    out.reason = "ExitCode";
  }
  return out;
}

std::chrono::seconds RetryRule::delay_before(std::int64_t attempt) const {
  std::chrono::seconds out = delay;
  for (std::int64_t i = 2; i < attempt && out < std::chrono::hours(1); ++i) { out *= 2; }
  return std::min<std::chrono::seconds>(out, std::chrono::hours(1));
}

RetryRule retry_of(const Run& run) {
  RetryRule rule;
  const JsonObject* retry = object_in(run.spec(), "retry");
  if (retry == nullptr) { return rule; }
  rule.count = std::max<std::int64_t>(0, int_in(*retry, "count").value_or(0));
  if (const Json* delay = find_path(*retry, "backoff.base_delay")) {
    std::int64_t seconds = 0;
    if (delay->is_int64()) { seconds = delay->get_int64(); }
    if (delay->is_double()) { seconds = static_cast<std::int64_t>(delay->get_double()); }
    if (delay->is_string()) {
      if (const auto parsed = parse_duration(delay->get_string())) {
        seconds = std::chrono::duration_cast<std::chrono::seconds>(*parsed).count();
      }
    }
    rule.delay = std::chrono::seconds(std::max<std::int64_t>(30, seconds));
  }
  return rule;
}

bool was_unbegun(const Run& run) {
  const JsonArray* retries = array_in(run.status(), "retries");
  return retries != nullptr && !retries->empty() && retries->back().is_object() &&
         bool_in(retries->back().get_object(), "unbegun");
}

bool Engine::begins_anew(const Live& live, std::string_view reason) const {
  constexpr std::int64_t kMostAnew = 3;  // a service that cannot live takes no run with it for ever
  if (reason != "ServerLost" || !live.plan.stop_reason.empty() ||
      live.plan.attempt > retry_of(live.run).count + kMostAnew) {
    return false;
  }
  auto timeline = ground_.store.records().timeline(live.plan.project, live.plan.uid);
  if (!timeline) { return false; }
  return std::ranges::none_of(*timeline, [&](const TimelineRow& row) {
    if (row.what != "phase" || row.attempt != live.plan.attempt) { return false; }
    auto detail = parse_json(row.detail);
    if (!detail) { return false; }
    const std::string_view name = string_at(*detail, "name");
    return name == "import" || name == "user";
  });
}

bool is_interruption(std::string_view reason) {
  return reason == "HostRebooted" || reason == "ShimLost" || reason == "NodeLost";
}

JsonObject Engine::facts_of_pods(const Live& live) const {
  JsonArray conditions = live.plan.told;
  std::set<std::string> said;
  std::int64_t peak = 0;
  std::int64_t cpu = 0;
  for (const auto& [key, status] : live.resources) {
    if (key.kind != "Pod" || is_shared(status.labels)) { continue; }
    const PodStatus pod = pod_status_from_json(status.status);
    for (const Condition& condition : pod.conditions) {
      constexpr std::array kUsual{"PodScheduled", "Initialized", "ContainersReady", "Ready",
                                  "EnvironmentReady"};
      if (!condition.status || std::ranges::find(kUsual, condition.type) != kUsual.end() ||
          !said.insert(condition.type).second) {
        continue;
      }
      std::string message = condition.message;
      if (condition.type == "ProcessOOMKilled" && live.parts.size() > 1) {
        message += " (pod " + key.name + ")";
      }
      JsonObject told{{"type", condition.type}, {"message", message}};
      if (std::ranges::find(conditions, Json(told)) == conditions.end()) {
        conditions.push_back(std::move(told));
      }
    }
    for (const ContainerStatus& container : pod.containers) {
      peak = std::max(peak, container.peak_memory);
      cpu += container.cpu_us;
    }
  }
  JsonObject out;
  if (live.parts.size() > 1) { out["parts"] = parts_of(live); }
  if (!live.progress.is_null()) { out["progress"] = live.progress; }
  if (!conditions.empty()) { out["conditions"] = std::move(conditions); }
  if (peak > 0) {
    out["usage"] =
        JsonObject{{"peak_memory", peak}, {"cpu_seconds", static_cast<double>(cpu) / 1e6}};
  }
  return out;
}

Engine::LivePtr Engine::adopt(Plan plan, Function function, Run run) {
  auto live = std::make_shared<Live>();
  live->plan = std::move(plan);
  live->function = std::move(function);
  live->run = std::move(run);
  live->state = live->run.state();
  live->log_pod = live->plan.name();
  live_[live->key()] = live;
  return live;
}

void Engine::heard(const ResourceStatus& status) {
  heard_of_rest(status);
  const auto uid = status.labels.find("mlrun/uid");
  if (const auto shared = status.labels.find(std::string(kSharedLabel));
      shared != status.labels.end()) {
    for (const auto& [key, live] : live_) {
      if (live->done || live->plan.project != status.key.name_space ||
          std::ranges::find(live->plan.shared, shared->second) == live->plan.shared.end()) {
        continue;
      }
      if (status.removed) {
        live->resources.erase(status.key);
      } else {
        live->resources[status.key] = status;
      }
      poke(live);
    }
    return;
  }
  if (uid == status.labels.end()) { return; }
  const auto found = live_.find(plan_key(status.key.name_space, uid->second));
  if (found == live_.end() || found->second->done) { return; }
  const LivePtr live = found->second;
  if (!status.key.name.starts_with(live->plan.name())) { return; }  // of an earlier attempt
  const auto phase = pod_phase_from(string_at(status.status, "phase"));
  const bool ended = status.key.name == live->plan.name() && phase && is_terminal(*phase);
  if (status.removed && !ended) {
    live->resources.erase(status.key);
  } else {  // a pod that ended and was removed at once has said how it ended
    live->had_resources = true;
    live->resources[status.key] = status;
  }
  poke(live);
}

void Engine::poke(const LivePtr& live) {
  live->dirty = true;
  if (live->working || live->done || !live->committed || stopping_) { return; }
  live->working = true;
  if (!scope_.spawn("run " + live->key(), work(live))) { live->working = false; }
}

Async<void> Engine::work(LivePtr live) {
  while (live->dirty && !live->done && !stopping_) {
    live->dirty = false;
    const bool stored = co_await observe_once(live);
    if (!stored) {
      live->dirty = true;
      live->failures = std::min(live->failures + 1, 8);
      co_await sleep_for(ground_.loop, std::chrono::milliseconds(25) * (1 << live->failures));
    } else {
      live->failures = 0;
    }
  }
  live->working = false;
}

Async<bool> Engine::observe_once(LivePtr live) {
  if (live->state == RunState::pending_retry) { co_return true; }
  auto kind = ground_.kinds.find(live->plan.kind);
  if (!kind) { co_return true; }
  std::vector<ResourceStatus> statuses;
  std::size_t own = 0;
  std::vector<TimelineRow> rows;
  const Time now = ground_.clock.now();
  for (const auto& [key, status] : live->resources) {
    statuses.push_back(status);
    own += is_shared(status.labels) ? 0 : 1;
    if (key.kind != "Pod" || key.name != live->log_pod) { continue; }
    for (const Mark& mark : marks_of(pod_status_from_json(status.status))) {
      if (!live->marks.insert(mark.name).second) { continue; }
      rows.push_back(
          {.project = live->plan.project,
           .uid = live->plan.uid,
           .attempt = live->plan.attempt,
           .at = now,
           .what = "phase",
           .detail = dump_json(JsonObject{{"name", mark.name}, {"at", to_iso(mark.at)}})});
    }
  }
  // After a restart nothing has been heard of its pods yet: that says nothing about them.
  if (own == 0 && !live->had_resources) { co_return true; }
  Observation seen =
      (*kind)->observe(Subject{live->function, &live->run, live->plan.attempt}, statuses, now);
  if (own == 0 && live->had_resources) {
    seen.state = RunState::error;
    seen.reason = "NodeLost";
    seen.message = "the run's pod was removed from the cluster before it ended";
  }
  note_parts(*live, seen.parts);
  if (!seen.progress.is_null()) { live->progress = seen.progress; }
  live->reason = seen.reason;
  live->message = seen.message;
  for (const Part& part : seen.parts) {
    if (part.role == "main" || part.role == "launcher" || part.role == "driver") {
      live->log_pod = part.pod;
    }
  }
  if (seen.parts.size() > 1 && seen.state == RunState::running && !live->sampling) {
    live->sampling = scope_.spawn("usage of " + live->key(), sample_usage(live));
  }
  if (is_terminal(seen.state)) { METIER_FAILPOINT("run/S14_exit_seen"); }
  auto drained = co_await drain_journal(live);
  if (!drained) {
    ground_.log.warn("journal not applied",
                     {{"run", Json(live->key())}, {"error", Json(drained.error().text())}});
    co_return false;
  }
  METIER_FAILPOINT("run/S13_results");
  if (!rows.empty() && (is_terminal(seen.state) || seen.state == live->state)) {
    auto noted = co_await ground_.store.write([rows](Records& tx) -> Result<void> {
      for (const TimelineRow& row : rows) { METIER_CHECK(tx.add_timeline(row)); }
      return {};
    });
    if (!noted) {
      live->marks.clear();
      co_return false;
    }
    rows.clear();
  }
  if (is_terminal(seen.state)) {
    const bool lives = std::ranges::any_of(live->resources, [](const auto& entry) {
      const auto phase = pod_phase_from(string_at(entry.second.status, "phase"));
      return entry.first.kind == "Pod" && !is_shared(entry.second.labels) && phase &&
             !is_terminal(*phase);
    });
    if (lives && seen.state == RunState::error && begins_anew(*live, seen.reason)) {
      if (!std::exchange(live->unbegun_stop, true)) {
        scope_.spawn("stop " + live->key(), stop_unbegun(live));
      }
      co_return true;
    }
    auto finished = co_await finish(live, std::move(seen));
    co_return finished.has_value();
  }
  set_thresholds(*live, seen);
  if (seen.state == live->state || live->state == RunState::aborting) { co_return true; }
  StateChange change;
  change.to = seen.state;
  change.reason = seen.reason;
  change.text = seen.message;
  change.host = seen.host;
  change.attempt = live->plan.attempt;
  change.edit = [facts = facts_of_pods(*live)](Run& run) { add_facts(run, facts); };
  if (seen.state == RunState::running) {
    METIER_FAILPOINT("run/S11_running");
    if (change.text.empty()) {
      change.text = "Job is running in the background, pod: " + live->log_pod;
    }
  }
  auto moved = co_await move(live, std::move(change), {}, std::move(rows));
  if (!moved) { live->marks.clear(); }
  co_return moved.has_value();
}

Async<Result<void>> Engine::drain_journal(LivePtr live) {
  std::vector<std::string> pods;
  for (const auto& [key, status] : live->resources) {
    if (key.kind == "Pod" && !is_shared(status.labels)) { pods.push_back(key.name); }
  }
  const std::string project = live->plan.project;
  const std::string uid = live->plan.uid;
  const std::int64_t attempt = live->plan.attempt;
  for (const std::string& pod : pods) {
    const auto folder = ground_.cluster.work_folder(project, pod);
    if (!folder) { continue; }
    const auto& status = live->resources.find({project, "Pod", pod});
    const auto phase = status == live->resources.end()
                           ? std::nullopt
                           : pod_phase_from(string_at(status->second.status, "phase"));
    if (phase == PodPhase::running && !live->journal_watches.contains(pod)) {
      const std::weak_ptr<Live> weak = live;
      auto watch = journals_->add(*folder, [this, weak] {
        if (const LivePtr still = weak.lock()) { poke(still); }
      });
      if (watch) { live->journal_watches[pod] = *watch; }
    }
    if (!live->journal_offsets.contains(pod)) {
      auto known =
          ground_.store.records().setting(std::string(kJournalScope), live->key() + "/" + pod);
      if (!known) { co_return fail(std::move(known.error())); }
      live->journal_offsets[pod] = *known ? std::strtoull((*known)->c_str(), nullptr, 10) : 0;
    }
    for (bool more = true; more;) {
      auto batch = read_journal(*folder, live->journal_offsets[pod]);
      if (!batch) {
        // The pod made its journal unreadable: said once, the run goes on.
        if (live->marks.insert("journal-odd").second) {
          const std::string text = batch.error().text();
          auto noted = co_await ground_.store.write([=, now = ground_.clock.now()](Records& tx) {
            return note(tx, project, uid, attempt, now, "event",
                        JsonObject{{"reason", "JournalRefused"}, {"message", text}});
          });
          if (!noted) { co_return fail(std::move(noted.error())); }
        }
        break;
      }
      more = batch->more;
      mask_records(masker_of(project, uid), batch->records);
      if (batch->next == live->journal_offsets[pod]) { break; }
      const std::uint64_t next = batch->next;
      const std::string offset_key = live->key() + "/" + pod;
      auto applied = co_await ground_.store.write(
          [&, now = ground_.clock.now()](Records& tx) -> Result<JournalApplied> {
            METIER_TRY(done, apply_journal(tx, project, uid, attempt, batch->records, now));
            for (const std::string& odd : batch->odd) { done.odd.push_back(odd); }
            for (const std::string& odd : done.odd) {
              METIER_CHECK(note(tx, project, uid, attempt, now, "event",
                                JsonObject{{"reason", "FieldIgnored"}, {"message", odd}}));
            }
            METIER_CHECK(tx.put_setting(std::string(kJournalScope), offset_key,
                                        std::to_string(next), std::nullopt));
            if (!done.failure.is_null() || !done.claimed.empty()) {
              METIER_TRY(plan, read_plan(tx, project, uid));
              if (plan) {
                if (!done.failure.is_null()) { keep_cause(plan->failure, done.failure); }
                if (!done.claimed.empty()) { plan->claimed = done.claimed; }
                METIER_CHECK(write_plan(tx, *plan));
              }
            }
            return done;
          });
      if (!applied) { co_return fail(std::move(applied.error())); }
      METIER_FAILPOINT("run/journal_applied");
      live->journal_offsets[pod] = next;
      if (!applied->failure.is_null()) { keep_cause(live->plan.failure, applied->failure); }
      if (!applied->claimed.empty()) { live->plan.claimed = applied->claimed; }
      if (!applied->claimed_error.empty()) { live->claimed_error = applied->claimed_error; }
    }
  }
  co_return Result<void>{};
}

Async<Result<Moved>> Engine::move(LivePtr live, StateChange change, std::function<void(Plan&)> edit,
                                  std::vector<TimelineRow> rows) {
  const Time now = ground_.clock.now();
  const std::string project = live->plan.project;
  const std::string uid = live->plan.uid;
  auto moved = co_await ground_.store.write([&](Records& tx) -> Result<Moved> {
    for (const TimelineRow& row : rows) { METIER_CHECK(tx.add_timeline(row)); }
    METIER_TRY(out, move_run(tx, project, uid, change, now));
    if (edit) {
      METIER_TRY(plan, read_plan(tx, project, uid));
      if (plan) {
        edit(*plan);
        METIER_CHECK(write_plan(tx, *plan));
      }
    }
    return out;
  });
  if (!moved) { co_return fail(std::move(moved.error())); }
  if (edit) { edit(live->plan); }
  live->state = moved->now;
  if (moved->changed) {
    events_.publish({.type = "dev.metier.run.state",
                     .project = project,
                     .uid = uid,
                     .name = moved->name,
                     .state = std::string(to_string(moved->now)),
                     .reason = change.reason,
                     .at = now});
  }
  co_return moved;
}

Async<Result<void>> Engine::edit_plan(LivePtr live, std::function<void(Plan&)> edit) {
  const std::string project = live->plan.project;
  const std::string uid = live->plan.uid;
  auto stored = co_await ground_.store.write([&](Records& tx) -> Result<void> {
    METIER_TRY(plan, read_plan(tx, project, uid));
    if (!plan) { return {}; }
    edit(*plan);
    return write_plan(tx, *plan);
  });
  if (stored) { edit(live->plan); }
  co_return stored;
}

Async<Result<void>> Engine::finish(LivePtr live, Observation seen) {
  if (live->done) { co_return Result<void>{}; }
  const Time now = ground_.clock.now();
  const bool service_ends = seen.service_ends;
  const bool stay = seen.pods_stay && live->plan.stop_reason.empty();
  StateChange change;
  change.to = seen.state;
  change.reason = seen.reason;
  change.text = seen.message;
  change.host = seen.host;
  change.started = seen.started;
  change.finished = seen.finished;
  change.attempt = live->plan.attempt;
  if (seen.state == RunState::completed && live->plan.claimed == "error") {
    change.to = RunState::error;
    change.reason = "HandlerError";
    change.text = live->claimed_error.empty() ? "the run reported an error" : live->claimed_error;
    change.failure = live->plan.failure;
  } else if (seen.state == RunState::error) {
    const FailureText text = failure_text(seen, live->plan.failure);
    change.reason = text.reason;
    change.text = text.text;
    // Each rank may have told an error of its own: the cause is what came first.
    if (live->parts.size() > 1) { change.error = text.text; }
    change.failure = live->plan.failure;
    if (change.failure.is_null()) {
      JsonObject failure{{"code", text.reason}, {"message", text.text}};
      if (seen.first_failure) {
        failure["exit_code"] = seen.first_failure->exit_code;
        if (seen.first_failure->signal > 0) { failure["signal"] = seen.first_failure->signal; }
        if (!seen.first_failure->part.empty()) { failure["pod"] = seen.first_failure->part; }
        if (seen.first_failure->rank >= 0) { failure["rank"] = seen.first_failure->rank; }
      }
      change.failure = std::move(failure);
    }
  } else if (seen.state == RunState::completed) {
    change.reason.clear();
    change.edit = [](Run& run) { run.status()["error"] = ""; };
  }
  if (!live->plan.stop_reason.empty()) {
    change.to = RunState::aborted;
    change.reason = live->plan.stop_reason;
    change.text = live->plan.stop_text;
    const std::string error =
        live->plan.stop_reason == "AbortedByUser" ? std::string() : live->plan.stop_text;
    change.edit = [error](Run& run) {
      if (!error.empty()) { run.status()["error"] = error; }
    };
  }
  if (change.to == RunState::error) {
    const Masker masker = masker_of(live->plan.project, live->plan.uid);
    masker.mask(change.text);
    masker.mask(change.error);
    masker.mask(change.failure);
    const RetryRule rule = retry_of(live->run);
    const std::int64_t retries = live->plan.attempt - 1;
    const bool unbegun = begins_anew(*live, change.reason);
    const bool free = unbegun || (is_interruption(change.reason) && retries < rule.count + 10);
    if (unbegun || (rule.count > 0 && (retries < rule.count || free))) {
      const std::int64_t attempt = live->plan.attempt;
      const auto delay = unbegun ? std::chrono::seconds(0) : rule.delay_before(attempt + 1);
      change.to = RunState::pending_retry;
      JsonObject lost{{"attempt", attempt},
                      {"state", "error"},
                      {"reason", change.reason},
                      {"error", change.text},
                      {"end_time", to_iso(change.finished.value_or(now))}};
      if (unbegun) { lost["unbegun"] = true; }
      change.edit = [lost, free](Run& run) {
        ensure_array(run.status(), "retries").push_back(lost);
        if (!free) {
          run.status()["retry_count"] = int_in(run.status(), "retry_count").value_or(0) + 1;
        }
        run.status().erase("failure");
      };
      change.text = "attempt " + std::to_string(attempt) + " failed (" + change.text +
                    (unbegun ? ") before the user's code began; the next one starts now"
                             : "); the next one starts in " + human_duration(delay));
      change.failure = nullptr;
      auto moved = co_await move(live, std::move(change), {}, {});
      if (!moved) { co_return fail(std::move(moved.error())); }
      if (moved->now == RunState::pending_retry) {
        auto archived = co_await archive_log(live->plan, attempt, live->log_pod);
        if (!archived) {
          ground_.log.warn("log of an attempt not kept aside",
                           {{"run", Json(live->key())}, {"error", Json(archived.error().text())}});
        }
        deadlines_.clear_all(live->key());
        deadlines_.set(Due::retry, live->key(), ground_.clock.steady() + delay);
        deadline_changed_.notify();
        co_return Result<void>{};
      }
      change = StateChange{};  // the run had ended otherwise: only the plan is closed below
      change.to = moved->now;
    }
  }
  JsonObject facts = facts_of_pods(*live);
  if (facts.contains("parts") && !service_ends) {
    release_parts(facts["parts"].get_array(), live->resources, change.finished.value_or(now));
  }
  change.edit = [edit = std::move(change.edit), facts = std::move(facts)](Run& run) {
    add_facts(run, facts);
    if (edit) { edit(run); }
  };
  const std::string ended_at = to_iso(now);
  auto moved = co_await move(live, std::move(change),
                             [ended_at, stay](Plan& plan) {
                               plan.ended = true;
                               plan.pods_stay = stay;
                               plan.ended_at = ended_at;
                             },
                             {});
  if (!moved) { co_return fail(std::move(moved.error())); }
  METIER_FAILPOINT("run/S16_terminal");
  live->done = true;
  const std::string key = live->key();
  for (const auto& [pod, watch] : live->journal_watches) { journals_->forget(watch); }
  live->journal_watches.clear();
  METIER_FAILPOINT("run/S17_hooks");
  deadlines_.clear_all(key);
  deadlines_.set(Due::clean, key, ground_.clock.steady() + ground_.options.resource_ttl);
  deadline_changed_.notify();
  ended_[key] = live->log_pod;
  const std::string task = live->plan.abort_task;
  const std::string project = live->plan.project;
  live_.erase(key);
  events_.wake(key);
  const bool lives = std::ranges::any_of(live->resources, [](const auto& entry) {
    const auto phase = pod_phase_from(string_at(entry.second.status, "phase"));
    return entry.first.kind == "Pod" && !is_shared(entry.second.labels) && phase &&
           !is_terminal(*phase);
  });
  if (live->parts.size() > 1 && (lives || service_ends)) {
    resting_[key] = live;
    poke_rest(live);  // some may have ended while the run's end was written
  }
  if (lives && !stay && !stopping_) { scope_.spawn("end " + key, stop_rest(live->plan)); }
  keep_ended_bounded();
  if (!task.empty()) {
    auto closed = co_await tasks_.end(task, project, "");
    if (!closed) { co_return fail(std::move(closed.error())); }
  }
  co_return Result<void>{};
}

void Engine::set_thresholds(Live& live, const Observation& seen) {
  std::string name;
  if (seen.state == RunState::running) {
    name = "executing";
  } else {
    name = "pending_not_scheduled";
    for (const auto& [key, status] : live.resources) {
      if (key.kind != "Pod") { continue; }
      const PodStatus pod = pod_status_from_json(status.status);
      const bool scheduled = std::ranges::any_of(
          pod.conditions, [](const Condition& c) { return c.type == "PodScheduled" && c.status; });
      const bool pull = std::ranges::any_of(
          pod.containers, [](const ContainerStatus& c) { return c.reason == "ImagePullBackOff"; });
      if (scheduled) { name = pull ? "image_pull_backoff" : "pending_scheduled"; }
    }
  }
  if (name == live.threshold) { return; }
  live.threshold = name;
  static const std::map<std::string, std::string, std::less<>> kDefaults{
      {"pending_scheduled", "1h"},
      {"pending_not_scheduled", "-1"},
      {"image_pull_backoff", "1h"},
      {"executing", "24h"}};
  std::string text = kDefaults.at(name);
  if (const JsonObject* thresholds = object_in(live.run.spec(), "state_thresholds")) {
    if (const auto own = string_in(*thresholds, name); !own.empty()) { text = own; }
  }
  const auto length = text == "-1" ? std::nullopt : parse_duration(text);
  if (!length) {
    deadlines_.clear(Due::threshold, live.key());
    return;
  }
  const bool whole = name == "executing" || name == "pending_not_scheduled";
  const Time since = std::exchange(live.since, Time{});
  const auto gone =
      whole && since != Time{}
          ? std::max(Duration{}, std::chrono::duration_cast<Duration>(ground_.clock.now() - since))
          : Duration{};
  deadlines_.set(Due::threshold, live.key(),
                 ground_.clock.steady() + std::max(Duration{}, Duration(*length) - gone));
  deadline_changed_.notify();
}

}  // namespace metier
