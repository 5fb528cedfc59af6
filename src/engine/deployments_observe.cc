// Follows deployments: applies what was stored, and writes what the cluster reports into their status.
#include <algorithm>

#include "base/failpoint.h"
#include "engine/deployments_impl.h"
#include "engine/engine_impl.h"
#include "engine/pod_log.h"
#include "model/function.h"

namespace metier {
namespace {

JsonArray conditions_of(const DeploymentPlan& plan, const Observation& seen) {
  JsonArray out;
  if (plan.notes.is_array()) { out = plan.notes.get_array(); }
  for (const Condition& condition : seen.conditions) {
    out.push_back(JsonObject{{"type", condition.type},
                             {"status", condition.status},
                             {"reason", condition.reason},
                             {"message", condition.message}});
  }
  return out;
}

std::string state_from(const DeploymentPlan& plan, const Observation& seen) {
  if (!seen.function_state.empty()) { return seen.function_state; }
  switch (seen.state) {
    case RunState::running: return "ready";
    case RunState::completed:
    case RunState::error:
    case RunState::aborted: return plan.was_ready ? "unhealthy" : "error";
    default: return plan.was_ready ? "unhealthy" : "deploying";
  }
}

}  // namespace

Deployments::LivePtr Deployments::adopt(DeploymentPlan plan, Function function) {
  auto live = std::make_shared<Live>(ground_.loop);
  live->plan = std::move(plan);
  live->function = std::move(function);
  live->revision = ++revision_;
  live_[live->key()] = live;
  keys_[live->plan.project + "/" + deployment_label(live->plan.name, live->plan.tag)] = live->key();
  return live;
}

void Deployments::heard(const ResourceStatus& status) {
  if (const LivePtr live = sharer_of(status)) { return take(live, status); }
  const auto label = status.labels.find(kDeploymentLabel);
  if (label == status.labels.end()) { return; }
  const auto key = keys_.find(status.key.name_space + "/" + label->second);
  if (key != keys_.end()) { take(live_.at(key->second), status); }
}

// The deployment of the function that this is shared by, or null.
Deployments::LivePtr Deployments::sharer_of(const ResourceStatus& status) const {
  const auto name = status.labels.find(kSharedLabel);
  const auto function = status.labels.find("mlrun/function");
  const auto tag = status.labels.find("mlrun/tag");
  if (name == status.labels.end() || function == status.labels.end()) { return nullptr; }
  const auto live =
      live_.find(deployment_key(status.key.name_space, function->second,
                                tag == status.labels.end() ? std::string() : tag->second));
  const bool shares =
      live != live_.end() &&
      std::ranges::find(live->second->plan.shared, name->second) != live->second->plan.shared.end();
  return shares ? live->second : nullptr;
}

Async<void> Deployments::hear_shared(LivePtr live, std::uint64_t epoch) {
  const std::vector<std::string> names = live->plan.shared;
  for (const std::string& name : names) {
    const auto unread = [&] {
      for (const Resource& object : ground_.store.objects().list(
               {.name_space = live->plan.project, .name = name, .labels = {}})) {
        if (object.spec().contains("openedBy") &&
            string_at(object.status, "openedBy") != string_in(object.spec(), "openedBy")) {
          return true;
        }
      }
      return false;
    };
    while (live->epoch == epoch && !stopping_ && unread()) {
      co_await live->changed.wait(live->changed.generation(), std::chrono::steady_clock::now() +
                                                                  std::chrono::milliseconds(100));
    }
    auto listed = co_await ground_.cluster.list(
        {.name_space = live->plan.project, .labels = {{std::string(kSharedLabel), name}}});
    if (live->epoch != epoch || !listed) { co_return; }
    for (const ResourceStatus& status : *listed) {
      if (!status.removed) { live->resources.try_emplace(status.key, status); }
    }
  }
}

void Deployments::take(const LivePtr& live, const ResourceStatus& status) {
  auto& known = live->resources[status.key];
  if (status.removed) {
    // The end of an object that has been replaced meanwhile says nothing about its successor.
    if (known.uid.empty() || known.uid == status.uid) { live->resources.erase(status.key); }
  } else {
    known = status;
  }
  live->changed.notify();
  poke(live);
}

Async<Result<void>> Deployments::replace_pods(LivePtr live, std::vector<Resource>& resources) {
  for (const Resource& resource : resources) {
    if (resource.kind != "Pod") { continue; }
    const ResourceKey key = key_of(resource);
    const Selector one{.name_space = key.name_space, .kind = "Pod", .name = key.name};
    while (!stopping_) {
      const auto known = ground_.store.objects().get(key);
      const bool going = known && known->metadata.other.contains("deletionTimestamp");
      if (!known || (!going && same_content(*known, resource))) { break; }
      if (!going) {
        auto removed = co_await ground_.cluster.remove(one, {.reason = "Redeployed"});
        if (!removed) { co_return fail(std::move(removed.error())); }
      }
      const std::uint64_t seen = live->changed.generation();
      if (!ground_.store.objects().get(key)) { break; }
      co_await live->changed.wait(seen, std::chrono::steady_clock::now() + std::chrono::seconds(1));
    }
  }
  co_return Result<void>{};
}

Async<Result<void>> Deployments::remove_objects(std::vector<ResourceKey> keys) {
  for (const ResourceKey& key : keys) {
    auto removed = co_await ground_.cluster.remove(
        {.name_space = key.name_space, .kind = key.kind, .name = key.name},
        {.reason = "Redeployed"});
    if (!removed && removed.error().kind != ErrorKind::not_found) {
      co_return fail(std::move(removed.error()));
    }
  }
  co_return Result<void>{};
}

Async<void> Deployments::apply(LivePtr live, std::vector<Resource> resources,
                               std::vector<ResourceKey> old) {
  METIER_FAILPOINT("deploy/apply");
  const std::uint64_t epoch = live->epoch;
  const auto superseded = [&] { return live->epoch != epoch || stopping_; };
  auto pause = std::chrono::milliseconds(200);
  while (!superseded()) {
    auto applied = co_await replace_pods(live, resources);
    if (superseded()) { co_return; }
    if (applied) { applied = co_await ground_.cluster.apply(resources); }
    if (superseded()) { co_return; }
    if (applied) { applied = co_await remove_objects(old); }
    if (superseded()) { co_return; }
    if (applied) { break; }
    const ErrorKind kind = applied.error().kind;
    if (kind == ErrorKind::cancelled) { co_return; }
    if (kind != ErrorKind::unavailable && kind != ErrorKind::conflict &&
        kind != ErrorKind::timed_out) {
      const Masker masker = engine_.masker_of(live->plan.project, "");
      std::string text = applied.error().text();
      masker.mask(text);
      auto said = co_await set_status(
          live,
          JsonObject{{"state", "error"},
                     {"reason", applied.error().code.empty() ? "Internal" : applied.error().code},
                     {"message", text}},
          false);
      if (said) { co_return; }
    }
    ground_.log.warn("deploy did not go through, trying again",
                     {{"function", Json(live->key())}, {"error", Json(applied.error().text())}});
    co_await sleep_for(ground_.loop, pause);
    pause = std::min(pause * 2, std::chrono::milliseconds(5000));
  }
  if (superseded()) { co_return; }
  co_await hear_shared(live, epoch);
  if (superseded()) { co_return; }
  live->applying = false;
  poke(live);
}

void Deployments::poke(const LivePtr& live) {
  if (live->done || stopping_) { return; }
  live->dirty = true;
  if (live->working) { return; }
  live->working = true;
  if (!scope_.spawn("observe " + live->key(), work(live))) { live->working = false; }
}

Async<void> Deployments::work(LivePtr live) {
  while (live->dirty && !live->done && !stopping_) {
    live->dirty = false;
    if (live->applying || live->plan.removing) { break; }
    if (co_await observe_once(live)) {
      live->failures = 0;
      continue;
    }
    live->dirty = true;
    live->failures = std::min(live->failures + 1, 6);
    co_await sleep_for(ground_.loop, std::chrono::milliseconds(100U << live->failures));
  }
  live->working = false;
}

// The last line that the first pod printed: where a program says why it ends.
Async<std::string> Deployments::last_words(LivePtr live) {
  const DeploymentPlan plan = live->plan;
  auto size = co_await log(plan.project, plan.name, plan.tag, "", 0, 0, false);
  if (!size || size->size == 0) { co_return std::string(); }
  const std::uint64_t from = size->size - std::min<std::uint64_t>(size->size, 4096);
  auto end = co_await log(plan.project, plan.name, plan.tag, "", from, 4096, false);
  if (!end) { co_return std::string(); }
  std::string_view text = end->bytes;
  while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) { text.remove_suffix(1); }
  const std::size_t line = text.rfind('\n');
  co_return std::string(text.substr(line == std::string_view::npos ? 0 : line + 1).substr(0, 500));
}

Async<Json> Deployments::status_from(LivePtr live, const Observation& seen) {
  JsonObject status;
  status["state"] = state_from(live->plan, seen);
  if (!seen.reason.empty()) { status["reason"] = seen.reason; }
  if (!seen.message.empty()) { status["message"] = seen.message; }
  if (seen.first_failure && seen.message.empty()) {
    status["message"] = seen.first_failure->message;
  }
  const std::string state(string_in(status, "state"));
  if ((state == "error" || state == "unhealthy") && seen.reason == "ProcessorFailed") {
    if (const std::string words = co_await last_words(live); !words.empty()) {
      std::string message(string_in(status, "message"));
      message += (message.empty() ? "" : "; its last line: ") + words;
      status["message"] = std::move(message);
    }
  }
  JsonArray inside;
  for (const Endpoint& endpoint : seen.endpoints) {
    auto reached =
        co_await ground_.cluster.reach(live->plan.project, endpoint.service, endpoint.port);
    if (!reached) { continue; }
    inside.emplace_back(*reached + (endpoint.path == "/" ? std::string() : endpoint.path));
  }
  if (!inside.empty()) {
    status["address"] = inside.front();
    status["internal_invocation_urls"] = inside;
  }
  JsonArray conditions = conditions_of(live->plan, seen);
  if (!conditions.empty()) { status["conditions"] = std::move(conditions); }
  if (seen.function_status.is_object()) {
    for (const auto& [key, value] : seen.function_status.get_object()) { status[key] = value; }
  }
  Json out(std::move(status));
  engine_.masker_of(live->plan.project, "").mask(out);
  co_return out;
}

Async<bool> Deployments::observe_once(LivePtr live) {
  auto kind = ground_.kinds.find(live->plan.kind);
  if (!kind) { co_return true; }
  std::vector<ResourceStatus> statuses;
  const std::string generation = std::to_string(live->plan.generation);
  for (const auto& [key, status] : live->resources) {
    // What is left of an earlier generation says nothing about this one.
    const auto label = status.labels.find(kGenerationAnnotation);
    const auto shared = status.labels.find(kSharedLabel);
    if (shared != status.labels.end() &&
        std::ranges::find(live->plan.shared, shared->second) == live->plan.shared.end()) {
      continue;
    }
    if (label == status.labels.end() || label->second == generation) { statuses.push_back(status); }
  }
  const Observation seen = (*kind)->observe(Subject{live->function, nullptr, live->plan.generation},
                                            statuses, ground_.clock.now());
  live->parts = seen.parts;
  const std::uint64_t epoch = live->epoch;
  Json status = co_await status_from(live, seen);
  if (live->epoch != epoch || live->plan.removing) { co_return true; }
  const bool ready = string_at(status, "state") == "ready";
  if (status == live->plan.status && (!ready || live->plan.was_ready)) { co_return true; }
  auto stored = co_await set_status(live, std::move(status), ready);
  co_return stored.has_value();
}

Async<Result<void>> Deployments::set_status(LivePtr live, Json status, bool ready) {
  const std::uint64_t epoch = live->epoch;
  DeploymentPlan next = live->plan;
  const std::string before = next.state();
  next.status = std::move(status);
  next.was_ready = next.was_ready || ready;
  auto stored = co_await ground_.store.write(
      [&, key = live->key(), now = ground_.clock.now()](Records& tx) -> Result<bool> {
        METIER_TRY(known, read_deployment(tx, key));
        if (!known || known->removing || known->generation != next.generation) { return false; }
        METIER_CHECK(write_deployment(tx, next));
        METIER_TRY(row, tx.function(next.project, next.name, next.tag, ""));
        if (!row) { return true; }
        METIER_TRY(document, parse_json(row->body));
        if (!document.is_object()) { return true; }
        document.get_object()["status"] = next.status;
        row->body = dump_json(document);
        row->updated = now;
        METIER_CHECK(tx.put_function(*row, next.tag.empty() ? "latest" : next.tag));
        return true;
      });
  if (!stored) {
    ground_.log.warn("status of a function not stored",
                     {{"function", Json(live->key())}, {"error", Json(stored.error().text())}});
    co_return fail(std::move(stored.error()));
  }
  if (!*stored || live->epoch != epoch) { co_return Result<void>{}; }
  METIER_FAILPOINT("deploy/observed");
  live->plan = std::move(next);
  live->revision = ++revision_;
  live->changed.notify();
  if (live->plan.state() != before) {
    engine_.events().publish({.type = "dev.metier.function.state",
                              .project = live->plan.project,
                              .uid = live->plan.hash,
                              .name = live->plan.name,
                              .state = live->plan.state(),
                              .reason = std::string(string_at(live->plan.status, "reason")),
                              .at = ground_.clock.now()});
  }
  co_return Result<void>{};
}

DeploymentView Deployments::view_of(const Live& live) const {
  DeploymentView view{.project = live.plan.project,
                      .name = live.plan.name,
                      .tag = live.plan.tag,
                      .kind = live.plan.kind,
                      .state = live.plan.removing ? "deleting" : live.plan.state(),
                      .function = live.plan.function,
                      .status = live.plan.status,
                      .parts = live.parts,
                      .generation = live.plan.generation,
                      .revision = live.revision};
  return view;
}

std::optional<DeploymentView> Deployments::find(const std::string& project, const std::string& name,
                                                const std::string& tag) const {
  for (const auto& form : {normalize_name(name), name}) {
    const auto found = live_.find(deployment_key(project, form, tag));
    if (found != live_.end()) { return view_of(*found->second); }
  }
  return std::nullopt;
}

std::vector<DeploymentView> Deployments::list(const std::string& project) const {
  std::vector<DeploymentView> out;
  for (const auto& [key, live] : live_) {
    if (project.empty() || project == "*" || live->plan.project == project) {
      out.push_back(view_of(*live));
    }
  }
  return out;
}

std::optional<Json> Deployments::status_of(const std::string& project, const std::string& name,
                                           const std::string& tag) const {
  const auto view = find(project, name, tag);
  if (!view) { return std::nullopt; }
  return view->status;
}

std::vector<ResourceStatus> Deployments::resources_of(const std::string& project,
                                                      const std::string& name,
                                                      const std::string& tag) const {
  std::vector<ResourceStatus> out;
  const auto found = live_.find(deployment_key(project, normalize_name(name), tag));
  if (found == live_.end()) { return out; }
  for (const auto& [key, status] : found->second->resources) { out.push_back(status); }
  return out;
}

// The pod whose log is read. Errors: not_found. Without a key when the function has no pods.
Result<ResourceStatus> Deployments::log_pod(const std::string& project, const std::string& name,
                                            const std::string& tag, const std::string& pod) const {
  const auto view = find(project, name, tag);
  if (!view) {
    return fail(Error{
        .kind = ErrorKind::not_found,
        .message = "function " + quote(name) + " is not deployed in project " + quote(project),
        .fix = "see: metier get functions -P " + project});
  }
  const auto resources = resources_of(project, view->name, tag);
  // Unnamed: a pod of this generation before one that is only left of an earlier one.
  const std::string generation = std::to_string(view->generation);
  const auto is_pod = [&](const ResourceStatus& status) {
    return status.key.kind == "Pod" && (pod.empty() || status.key.name == pod);
  };
  auto found = std::ranges::find_if(resources, [&](const ResourceStatus& status) {
    const auto label = status.labels.find(kGenerationAnnotation);
    return is_pod(status) && label != status.labels.end() && label->second == generation;
  });
  if (found == resources.end() && pod.empty() && !view->parts.empty()) {  // of what it shares
    found = std::ranges::find_if(resources, [&](const ResourceStatus& status) {
      return is_pod(status) && status.key.name == view->parts.front().pod;
    });
  }
  if (found == resources.end()) { found = std::ranges::find_if(resources, is_pod); }
  if (found != resources.end()) { return *found; }
  if (pod.empty()) { return ResourceStatus{}; }  // at zero replicas nobody writes
  return fail(Error{.kind = ErrorKind::not_found,
                    .message = "function " + quote(name) + " has no pod " + quote(pod)});
}

// How often the pod's container was started: each start has a log of its own.
int Deployments::starts_of(const ResourceStatus& pod) {
  int last = 1;
  for (const ContainerStatus& container : pod_status_from_json(pod.status).containers) {
    if (!container.init) { last = std::max(last, container.restarts + 1); }
  }
  return last;
}

Async<Result<std::vector<LogMark>>> Deployments::log_times(std::string project, std::string name,
                                                           std::string tag, std::string pod) {
  const auto found = log_pod(project, name, tag, pod);
  if (!found) { co_return fail(found.error()); }
  std::vector<LogMark> out;
  if (found->key.name.empty()) { co_return out; }
  std::uint64_t begin = 0;
  for (int attempt = 1; attempt <= starts_of(*found); ++attempt) {
    const ContainerRef place{project, found->key.name, {}, attempt};
    auto chunk = co_await ground_.cluster.logs(place, 0, 0, std::chrono::milliseconds(0));
    const auto file = log_file_of_pod(ground_.cluster, place);
    if (!chunk || !file) { break; }
    append_log_times(out, read_log_times(*file), begin);
    begin += chunk->size;
  }
  co_return out;
}

Async<Result<LogSlice>> Deployments::log(std::string project, std::string name, std::string tag,
                                         std::string pod, std::uint64_t offset, std::int64_t size,
                                         bool wait) {
  const auto found = log_pod(project, name, tag, pod);
  if (!found) { co_return fail(found.error()); }
  const auto view = find(project, name, tag);
  LogSlice out{.bytes = {}, .size = 0, .state = view ? view->state : std::string()};
  if (found->key.name.empty()) { co_return out; }
  // The logs of all starts of the container, one after the other.
  const int last = starts_of(*found);
  ContainerRef place{.name_space = project, .pod = found->key.name, .container = {}, .attempt = 0};
  std::uint64_t begin = 0;  // of this start's log within all of them
  for (int attempt = 1; attempt <= last; ++attempt) {
    place.attempt = attempt;
    auto size_of = co_await ground_.cluster.logs(place, 0, 0, std::chrono::milliseconds(0));
    if (!size_of) {
      if (attempt > 1) { break; }  // the next start is not there yet
      co_return fail(std::move(size_of.error()));
    }
    out.size = begin + size_of->size;
    if (offset < out.size || attempt == last) { break; }
    begin = out.size;
  }
  const std::uint64_t from = offset - std::min(offset, begin);
  // A secret that begins before the offset must not show its end.
  const Masker masker = engine_.masker_of(project, "");
  const std::uint64_t before = std::min<std::uint64_t>(from, masker.longest());
  const auto limit =
      static_cast<std::size_t>(size < 0 ? 1 << 20 : std::min<std::int64_t>(size, 1 << 20));
  auto chunk = co_await ground_.cluster.logs(
      place, from, limit, wait ? ground_.options.log_wait : std::chrono::milliseconds(0));
  if (!chunk) { co_return fail(std::move(chunk.error())); }
  out.size = std::max(out.size, begin + chunk->size);
  if (chunk->bytes.empty()) { co_return out; }
  std::string text = std::move(chunk->bytes);
  if (before > 0) {
    auto head =
        co_await ground_.cluster.logs(place, from - before, before, std::chrono::milliseconds(0));
    if (!head) { co_return fail(std::move(head.error())); }
    text.insert(0, head->bytes);
  }
  const std::size_t hidden = chunk->ended ? 0 : masker.undecided(text);
  masker.mask(text);
  text.resize(text.size() - std::min<std::size_t>(hidden, text.size() - before));
  out.bytes = text.substr(before);
  co_return out;
}

Async<Result<DeploymentView>> Deployments::changed(std::string project, std::string name,
                                                   std::string tag, std::uint64_t revision,
                                                   std::chrono::milliseconds limit) {
  const std::string key = deployment_key(project, normalize_name(name), tag);
  const auto until = std::chrono::steady_clock::now() + limit;
  while (true) {
    const auto found = live_.find(key);
    if (found == live_.end()) {
      co_return fail(Error{
          .kind = ErrorKind::not_found,
          .message = "function " + quote(name) + " is not deployed in project " + quote(project),
          .fix = "see: metier get functions -P " + project});
    }
    const LivePtr live = found->second;
    if (live->revision > revision || stopping_ || std::chrono::steady_clock::now() >= until) {
      co_return view_of(*live);
    }
    const std::uint64_t seen = live->changed.generation();
    co_await live->changed.wait(seen, until);
  }
}

}  // namespace metier
