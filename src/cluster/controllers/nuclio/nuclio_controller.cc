#include "cluster/controllers/nuclio/nuclio_controller.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/interfaces.h"
#include "cluster/controllers/nuclio/processor_pod.h"
#include "resource/pod.h"

namespace metier {
namespace {

constexpr auto kSampleEvery = std::chrono::milliseconds(2000);
constexpr auto kLookEvery = std::chrono::milliseconds(5000);  // at problems that nobody tells
constexpr std::int64_t kAsked = 8;  // processors: a few of many say as much
constexpr auto kRetryAfter = std::chrono::seconds(10);
constexpr std::int64_t kReadinessTimeout = 120;

struct Seen {  // one processor Pod
  const Resource* resource = nullptr;
  PodStatus status;
  std::int64_t generation = 0;
  std::int64_t index = 0;
  bool going = false;  // being removed
  bool ready = false;
  bool over = false;
};

std::int64_t label_number(const Resource& pod, std::string_view key) {
  const auto found = pod.metadata.labels.find(key);
  return found == pod.metadata.labels.end() ? 0 : std::strtoll(found->second.c_str(), nullptr, 10);
}

bool has(const PodStatus& status, std::string_view type) {
  return std::ranges::any_of(status.conditions,
                             [&](const Condition& c) { return c.type == type && c.status; });
}

std::vector<Seen> pods_of(const Snapshot& snapshot) {
  std::vector<Seen> out;
  for (const Resource& pod : snapshot.pods) {
    Seen seen{.resource = &pod, .status = pod_status_from_json(pod.status)};
    seen.generation = label_number(pod, "metier.dev/generation");
    seen.index = label_number(pod, "metier.dev/index");
    seen.going = pod.metadata.other.contains("deletionTimestamp");
    seen.over = is_terminal(seen.status.phase);
    seen.ready = !seen.going && seen.status.phase == PodPhase::running && has(seen.status, "Ready");
    out.push_back(std::move(seen));
  }
  return out;
}

// Why a Pod that should be ready is not: nothing while it only starts.
struct Trouble {
  std::string reason;
  std::string message;
  bool fatal = false;  // waiting does not mend it
};
std::optional<Trouble> trouble_of(const Seen& pod) {
  if (pod.over) {
    return Trouble{pod.status.reason.empty() ? "ProcessorFailed" : pod.status.reason,
                   pod.status.message, true};
  }
  for (const ContainerStatus& container : pod.status.containers) {
    if (container.state == ContainerStatus::State::waiting &&
        container.reason == "CrashLoopBackOff") {
      return Trouble{"ProcessorFailed", container.message, true};
    }
    if (container.state == ContainerStatus::State::waiting && !container.reason.empty()) {
      return Trouble{container.reason, container.message, false};
    }
    if (container.restarts > 0 && !pod.ready) {
      return Trouble{"ProcessorFailed",
                     container.message.empty() ? "the processor ended and was started again"
                                               : container.message,
                     container.restarts > 1};
    }
  }
  for (const Condition& condition : pod.status.conditions) {
    if (condition.type == "PodScheduled" && !condition.status) {
      return Trouble{condition.reason, condition.message, false};
    }
  }
  if (!pod.status.reason.empty() && pod.status.phase == PodPhase::pending) {
    return Trouble{pod.status.reason, pod.status.message, false};
  }
  return std::nullopt;
}

bool unscheduled(const Seen& pod) {
  return std::ranges::any_of(pod.status.conditions, [](const Condition& c) {
    return c.type == "PodScheduled" && !c.status;
  });
}

// "0.0.0.0:30080", "[::]:30080"
bool on_all_interfaces(std::string_view address) {
  return is_all_interfaces(address.substr(0, std::min(address.rfind(':'), address.size())));
}

bool can_scale(const ScaleRange& range) { return !range.fixed(); }

Load load_from(const Facts& facts) {
  Load load;
  if (!facts.is_object()) { return load; }
  const JsonObject& from = facts.get_object();
  const auto number = [&from](std::string_view key) -> std::optional<double> {
    const Json* value = from.if_contains(key);
    return value != nullptr && value->is_number() ? std::optional(value->to_number<double>())
                                                  : std::nullopt;
  };
  load.busy = number("busy");
  load.busiest = number("busiest");
  load.idle = std::chrono::milliseconds(static_cast<std::int64_t>(number("idle_ms").value_or(0)));
  load.waiting = bool_in(from, "waiting");
  load.free_cpus = number("free_cpus").value_or(1e9);
  return load;
}

}  // namespace

Async<Result<void>> NuclioController::before_stop(const Resource&) { co_return Result<void>{}; }

Async<Result<Facts>> NuclioController::gather(const Resource& resource) {
  const ResourceKey key = key_of(resource);
  JsonObject facts;
  if (http_trigger(resource.spec()) != nullptr) {
    auto socket = site_.hold(resource, nuclio_service_name(resource), node_port(resource.spec()));
    if (socket) {
      facts["address"] = socket->address;
      if (!socket->external.empty()) { facts["external"] = socket->external; }
    } else if (socket.error().kind != ErrorKind::unavailable) {
      facts["error"] = socket.error().text();
      facts["code"] = socket.error().code.empty() ? std::string("PortTaken") : socket.error().code;
    }
  }
  std::map<std::string, JsonObject> crons;
  if (const JsonObject* triggers = object_in(resource.spec(), "triggers")) {
    for (const auto& member : *triggers) {
      if (!member.value().is_object()) { continue; }
      const JsonObject& trigger = member.value().get_object();
      if (string_in(trigger, "kind") == "cron" && !bool_in(trigger, "disabled")) {
        crons.emplace(member.key(), trigger);
      }
    }
  }
  if (bool_in(resource.spec(), "disable")) { crons.clear(); }
  site_.crons(key, std::move(crons));
  facts["waiting"] = site_.waiting(key);
  if (auto used = site_.substitute(std::string(string_in(resource.spec(), "runtime")))) {
    facts["substitute"] = *used;
  }
  const ScaleRange range = scale_range(resource.spec());
  const auto replicas = resource.status.is_object()
                            ? int_in(resource.status.get_object(), "replicas").value_or(0)
                            : 0;
  site_.tell_when_waiting(key, replicas == 0 && range.most > 0);
  const auto generation = function_generation(resource);
  JsonArray problems;
  for (std::int64_t i = 0; i < std::min(replicas, kAsked); ++i) {
    const std::string pod = processor_pod_name(resource, generation, i);
    auto said = co_await site_.problems(resource.metadata.name_space, pod);
    if (!said) { continue; }
    for (const ProcessorProblem& problem : *said) {
      problems.push_back(JsonObject{{"code", problem.code}, {"message", problem.message}});
    }
  }
  if (!problems.empty()) { facts["problems"] = std::move(problems); }
  if (!can_scale(range) || replicas == 0) {
    loads_.erase(key);
    co_return Facts(std::move(facts));
  }
  std::map<std::string, ProcessorSample> samples;
  for (std::int64_t i = 0; i < replicas; ++i) {
    const std::string pod = processor_pod_name(resource, generation, i);
    if (auto sample = co_await site_.sample(resource.metadata.name_space, pod)) {
      samples[pod] = *sample;
    }
  }
  LoadWindow& load = loads_[key];
  const auto now = site_.now();
  load.add(now, samples);
  if (const auto busy = load.busy(now)) { facts["busy"] = *busy; }
  if (const auto busiest = load.busiest(now)) { facts["busiest"] = *busiest; }
  facts["idle_ms"] = load.idle(now).count();
  facts["free_cpus"] = site_.free_cpus();
  co_return Facts(std::move(facts));
}

Decision NuclioController::reconcile(const Resource& resource, const Snapshot& snapshot,
                                     const Facts& facts, Time now) const {
  Decision out;
  const JsonObject none;
  const JsonObject& spec = resource.spec();
  const JsonObject& before = resource.status.is_object() ? resource.status.get_object() : none;
  const std::int64_t generation = function_generation(resource);
  const bool anew = int_in(before, "observedGeneration").value_or(0) != generation;
  const ScaleRange range = scale_range(spec);
  const bool http = http_trigger(spec) != nullptr;
  const bool asked_only = !facts.is_object();  // admission: what would it make?
  const JsonObject& known = asked_only ? none : facts.get_object();
  const bool can_listen = !http || asked_only || !string_in(known, "address").empty();
  const std::vector<Seen> pods = pods_of(snapshot);

  std::vector<const Seen*> current;
  std::vector<const Seen*> old;
  for (const Seen& pod : pods) { (pod.generation == generation ? current : old).push_back(&pod); }

  // How many.
  std::int64_t replicas = int_in(before, "replicas").value_or(0);
  if (anew) {
    // A redeploy keeps what there was, and a function is started once whatever its least number.
    replicas = range.most == 0
                   ? 0
                   : std::clamp(replicas, std::max<std::int64_t>(1, range.least), range.most);
  } else if (can_scale(range)) {
    const auto ready_now =
        std::ranges::count_if(current, [](const Seen* pod) { return pod->ready; });
    const bool first_ones = std::ranges::all_of(
        current, [&](const Seen* pod) { return !pod->ready || pod->index < ready_now; });
    // At zero a waiting connection decides. While replicas start, fewer may do: there may be no room for the last ones, and
    // they keep others from theirs.
    if (replicas == 0 || ready_now >= replicas) {
      replicas = wanted_replicas(range, replicas, load_from(facts));
    } else if (ready_now > 0 && first_ones) {
      replicas = std::min(replicas, wanted_replicas(range, replicas, load_from(facts)));
    }
  } else {
    replicas = range.least;
  }

  JsonObject status = before;
  status["observedGeneration"] = generation;
  status["replicas"] = replicas;
  if (anew || !before.contains("since")) {
    status["since"] = to_iso(now);
    status.erase("reason");
    status.erase("message");
  }
  if (const auto image = string_in(spec, "image"); !image.empty()) {
    status["containerImage"] = image;
  }

  std::int64_t ready = 0;
  std::int64_t retry_in = 0;
  std::optional<Trouble> trouble;
  bool blocked = false;  // no room for the new generation beside the old one
  for (const Seen* pod : current) {
    if (pod->index >= replicas) {
      if (!pod->going) { out.remove.push_back(key_of(*pod->resource)); }
      continue;
    }
    ready += pod->ready ? 1 : 0;
    if (pod->going || pod->ready) { continue; }
    const auto found = trouble_of(*pod);
    if (found && (!trouble || (found->fatal && !trouble->fatal))) { trouble = found; }
    blocked = blocked || unscheduled(*pod);
    if (!pod->over) { continue; }
    // A Pod that has ended for good is made anew, later when it failed by itself.
    const auto age = std::chrono::duration_cast<std::chrono::milliseconds>(
        now - (pod->status.finished == Time{} ? now : pod->status.finished));
    const bool interrupted = pod->status.reason == "HostRebooted" ||
                             pod->status.reason == "ShimLost" || pod->status.reason == "NodeLost";
    if (interrupted || age >= kRetryAfter) {
      out.remove.push_back(key_of(*pod->resource));
    } else {
      retry_in = std::max<std::int64_t>(
          retry_in, std::chrono::duration_cast<std::chrono::milliseconds>(kRetryAfter).count() -
                        age.count() + 1);
    }
  }

  const JsonArray* problems = array_in(known, "problems");
  if (problems != nullptr && !(trouble && trouble->fatal)) {
    const JsonObject& first = problems->front().as_object();
    trouble = Trouble{std::string(string_in(first, "code")),
                      std::string(string_in(first, "message")), false};
  }

  // What there must be.
  if (http && snapshot.services.empty()) {
    Resource service = nuclio_service(resource);
    service.metadata.owner = owner_ref_to(resource);
    out.create.push_back(std::move(service));
  }
  if (can_listen) {
    for (std::int64_t i = 0; i < replicas; ++i) {
      const bool there =
          std::ranges::any_of(current, [i](const Seen* pod) { return pod->index == i; });
      if (!there) { out.create.push_back(processor_pod(resource, generation, i)); }
    }
  }
  // The old generation goes when the new one can do its work; one at a time when there is no room for both.
  const bool recreate = string_in(object_in(spec, "deploymentStrategy") == nullptr
                                      ? none
                                      : *object_in(spec, "deploymentStrategy"),
                                  "type") == "Recreate";
  const bool replaced = ready >= replicas;
  // Room is being made, or has been, until its pods are gone.
  bool made_room = blocked && std::ranges::any_of(old, [](const Seen* pod) { return pod->going; });
  for (const Seen* pod : old) {
    if (pod->going) { continue; }
    if (replaced || recreate || pod->over || (blocked && !made_room)) {
      made_room = made_room || !(replaced || recreate || pod->over);
      out.remove.push_back(key_of(*pod->resource));
    }
  }

  // What to say.
  const bool was_ready = int_in(before, "readyGeneration").value_or(0) == generation;
  const std::int64_t timeout = int_in(spec, "readinessTimeoutSeconds").value_or(kReadinessTimeout);
  const Time since = from_iso(string_in(status, "since")).value_or(now);
  const auto waited = std::chrono::duration_cast<std::chrono::seconds>(now - since).count();
  std::string state;
  status.erase("reason");
  status.erase("message");
  if (const auto error = string_in(known, "error"); !error.empty()) {
    state = was_ready ? "unhealthy" : "error";
    status["reason"] = std::string(string_in(known, "code"));
    status["message"] = std::string(error);
  } else if (replicas == 0) {
    state = range.most == 0 ? "ready" : "scaledToZero";
    if (range.most == 0) {
      status["message"] = "the function is disabled: no replica runs";
    } else {
      status["reason"] = "ScaledToZero";
      status["message"] =
          "nobody called it for a while, so no replica runs; the next call starts one";
    }
  } else if (ready >= replicas || (was_ready && ready > 0)) {
    state = "ready";
    status["readyGeneration"] = generation;
    if (trouble && ready < replicas) {  // a further one waits: for room, for its environment
      status["reason"] = trouble->reason;
      status["message"] = trouble->message;
    }
  } else if (!anew && string_in(before, "state") == "scaledToZero") {
    state = "waitingForScaleResourceFromZero";
  } else if (string_in(before, "state") == "waitingForScaleResourceFromZero" && !trouble) {
    state = "waitingForScaleResourceFromZero";
  } else {
    const bool patient = bool_in(spec, "waitReadinessTimeoutBeforeFailure");
    const bool late = waited >= timeout;
    const bool failed = (trouble && trouble->fatal && !patient) || late;
    state = was_ready ? "unhealthy" : failed ? "error" : "waitingForResourceConfiguration";
    if (trouble) {
      status["reason"] = trouble->reason;
      status["message"] = trouble->message;
    }
    if (late && !was_ready && !(trouble && trouble->fatal)) {
      status["reason"] = "ReadinessTimeout";
      status["message"] = fmt::format(
          "not ready within {} s{}", timeout,
          trouble && !trouble->message.empty() ? ": " + trouble->message : std::string());
    }
    const bool old_answers = std::ranges::any_of(old, [](const Seen* pod) { return pod->ready; });
    if (state == "error" && old_answers) {
      status["message"] =
          std::string(string_in(status, "message")) + "; the generation before still answers";
    }
  }
  status["state"] = state;
  status["ready"] = ready;
  if (const auto address = string_in(known, "address"); !address.empty()) {
    status["internalInvocationUrls"] = JsonArray{Json(address)};
    const auto external = string_in(known, "external");
    status["externalInvocationUrls"] = external.empty() ? JsonArray{} : JsonArray{Json(external)};
    const std::string_view shown = external.empty() ? address : external;
    status["httpPort"] =
        std::strtoll(std::string(shown.substr(shown.rfind(':') + 1)).c_str(), nullptr, 10);
  }
  JsonArray conditions;
  if (const auto used = string_in(known, "substitute"); !used.empty()) {
    conditions.push_back(JsonObject{
        {"type", "RuntimeSubstituted"},
        {"reason", "RuntimeSubstituted"},
        {"message", fmt::format("there is no interpreter for {} on this machine, {} is used",
                                string_in(spec, "runtime"), used)}});
  }
  if (const auto external = string_in(known, "external"); on_all_interfaces(external)) {
    conditions.push_back(JsonObject{
        {"type", "ListensOnAllInterfaces"},
        {"reason", "ListensOnAllInterfaces"},
        {"message", fmt::format("{} takes calls on every network of this machine, and asks nobody "
                                "for a token",
                                external)}});
  }
  for (const Json& problem : replicas == 0 || problems == nullptr ? JsonArray{} : *problems) {
    JsonObject condition{{"type", problem.at("code")},
                         {"reason", problem.at("code")},
                         {"message", problem.at("message")}};
    if (std::ranges::find(conditions, Json(condition)) == conditions.end()) {
      conditions.push_back(std::move(condition));
    }
  }
  if (conditions.empty()) {
    status.erase("conditions");
  } else {
    status["conditions"] = std::move(conditions);
  }
  Json next(std::move(status));
  if (next != resource.status) { out.status = std::move(next); }

  // When to look again without being told.
  if (retry_in > 0) { out.requeue = std::chrono::milliseconds(retry_in); }
  if (can_scale(range) && replicas > 0) {
    out.requeue = std::min(out.requeue.value_or(kSampleEvery), kSampleEvery);
  }
  if (replicas > 0 && !asked_only) {
    out.requeue = std::min(out.requeue.value_or(kLookEvery), kLookEvery);
  }
  if (replicas > 0 && ready < replicas && !was_ready && waited < timeout) {
    const auto left = std::chrono::milliseconds((timeout - waited) * 1000 + 50);
    out.requeue = std::min(out.requeue.value_or(left), left);
  }
  if (http && !can_listen && string_in(known, "error").empty()) {
    // The Service gets its address when the cluster has seen it.
    out.requeue = std::chrono::milliseconds(5);
  } else if (!string_in(known, "error").empty()) {
    out.requeue = std::chrono::milliseconds(2000);
  }
  return out;
}

}  // namespace metier
