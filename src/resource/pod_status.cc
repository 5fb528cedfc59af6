// PodStatus as Kubernetes' JSON and back.
#include <fmt/format.h>

#include "resource/pod.h"

namespace metier {
namespace {

constexpr std::pair<PodPhase, std::string_view> kPhases[] = {{PodPhase::pending, "Pending"},
                                                             {PodPhase::running, "Running"},
                                                             {PodPhase::succeeded, "Succeeded"},
                                                             {PodPhase::failed, "Failed"},
                                                             {PodPhase::unknown, "Unknown"}};

void put_text(JsonObject& out, std::string_view key, std::string_view text) {
  if (!text.empty()) { out[key] = text; }
}

void put_time(JsonObject& out, std::string_view key, Time time) {
  if (time != Time{}) { out[key] = to_iso(time); }
}

Time time_in(const JsonObject& object, std::string_view key) {
  const auto text = string_in(object, key);
  return text.empty() ? Time{} : from_iso(text).value_or(Time{});
}

Json condition_json(const Condition& condition) {
  JsonObject out;
  out["type"] = condition.type;
  out["status"] = condition.status ? "True" : "False";
  put_text(out, "reason", condition.reason);
  put_text(out, "message", condition.message);
  put_time(out, "lastTransitionTime", condition.since);
  return out;
}

Json container_json(const ContainerStatus& container) {
  JsonObject state;
  switch (container.state) {
    case ContainerStatus::State::waiting: {
      put_text(state, "reason", container.reason);
      put_text(state, "message", container.message);
      break;
    }
    case ContainerStatus::State::running: put_time(state, "startedAt", container.started); break;
    case ContainerStatus::State::terminated: {
      state["exitCode"] = container.exit_code;
      if (container.signal != 0) { state["signal"] = container.signal; }
      put_text(state, "reason", container.reason);
      put_text(state, "message", container.message);
      put_time(state, "startedAt", container.started);
      put_time(state, "finishedAt", container.finished);
      if (container.cpu_us != 0) { state["cpuMicroseconds"] = container.cpu_us; }
      if (container.peak_memory != 0) { state["peakMemoryBytes"] = container.peak_memory; }
      break;
    }
  }
  static constexpr std::string_view kStates[] = {"waiting", "running", "terminated"};
  JsonObject out;
  out["name"] = container.name;
  out["ready"] = container.ready;
  out["restartCount"] = container.restarts;
  out["state"] = JsonObject{{kStates[static_cast<std::size_t>(container.state)], std::move(state)}};
  return out;
}

ContainerStatus container_from(const JsonObject& object, bool init) {
  ContainerStatus out;
  out.name = string_in(object, "name");
  out.init = init;
  out.ready = bool_in(object, "ready");
  out.restarts = static_cast<int>(int_in(object, "restartCount").value_or(0));
  const auto* states = object_in(object, "state");
  if (states == nullptr) { return out; }
  const JsonObject* state = nullptr;
  if (const auto* terminated = object_in(*states, "terminated")) {
    out.state = ContainerStatus::State::terminated;
    state = terminated;
  } else if (const auto* running = object_in(*states, "running")) {
    out.state = ContainerStatus::State::running;
    state = running;
  } else if (const auto* waiting = object_in(*states, "waiting")) {
    state = waiting;
  }
  if (state == nullptr) { return out; }
  out.reason = string_in(*state, "reason");
  out.message = string_in(*state, "message");
  out.exit_code = static_cast<int>(int_in(*state, "exitCode").value_or(0));
  out.signal = static_cast<int>(int_in(*state, "signal").value_or(0));
  out.started = time_in(*state, "startedAt");
  out.finished = time_in(*state, "finishedAt");
  out.cpu_us = int_in(*state, "cpuMicroseconds").value_or(0);
  out.peak_memory = int_in(*state, "peakMemoryBytes").value_or(0);
  return out;
}

}  // namespace

std::string_view to_string(PodPhase phase) {
  for (const auto& [value, text] : kPhases) {
    if (value == phase) { return text; }
  }
  return "Unknown";
}

std::optional<PodPhase> pod_phase_from(std::string_view text) {
  for (const auto& [value, name] : kPhases) {
    if (name == text) { return value; }
  }
  return std::nullopt;
}

Json to_json(const PodStatus& status) {
  JsonObject out;
  out["phase"] = to_string(status.phase);
  put_text(out, "reason", status.reason);
  put_text(out, "message", status.message);
  put_text(out, "hostIP", status.host);
  put_text(out, "podIP", status.pod_ip);
  put_time(out, "startTime", status.started);
  put_time(out, "finishTime", status.finished);
  if (!status.conditions.empty()) {
    JsonArray conditions;
    for (const auto& condition : status.conditions) {
      conditions.push_back(condition_json(condition));
    }
    out["conditions"] = std::move(conditions);
  }
  JsonArray init;
  JsonArray containers;
  JsonArray ranks;
  for (const auto& container : status.containers) {
    (container.init   ? init
     : container.rank ? ranks
                      : containers)
        .push_back(container_json(container));
  }
  if (!init.empty()) { out["initContainerStatuses"] = std::move(init); }
  if (!containers.empty()) { out["containerStatuses"] = std::move(containers); }
  if (!ranks.empty()) { out["ephemeralContainerStatuses"] = std::move(ranks); }
  return out;
}

PodStatus pod_status_from_json(const Json& status) {
  PodStatus out;
  if (!status.is_object()) { return out; }
  const auto& object = status.get_object();
  out.phase = pod_phase_from(string_in(object, "phase", "Pending")).value_or(PodPhase::unknown);
  out.reason = string_in(object, "reason");
  out.message = string_in(object, "message");
  out.host = string_in(object, "hostIP");
  out.pod_ip = string_in(object, "podIP");
  out.started = time_in(object, "startTime");
  out.finished = time_in(object, "finishTime");
  if (const auto* conditions = array_in(object, "conditions")) {
    for (const auto& entry : *conditions) {
      if (!entry.is_object()) { continue; }
      const auto& condition = entry.get_object();
      out.conditions.push_back({.type = std::string(string_in(condition, "type")),
                                .status = string_in(condition, "status") == "True",
                                .reason = std::string(string_in(condition, "reason")),
                                .message = std::string(string_in(condition, "message")),
                                .since = time_in(condition, "lastTransitionTime")});
    }
  }
  for (const std::string_view list :
       {"initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses"}) {
    const auto* containers = array_in(object, list);
    if (containers == nullptr) { continue; }
    for (const auto& entry : *containers) {
      if (!entry.is_object()) { continue; }
      out.containers.push_back(container_from(entry.get_object(), list.starts_with("init")));
      out.containers.back().rank = list.starts_with("ephemeral");
    }
  }
  return out;
}

void set_condition(PodStatus& status, Condition condition) {
  for (auto& existing : status.conditions) {
    if (existing.type != condition.type) { continue; }
    // As in Kubernetes, the time is that of the last change of `status`, not of its words.
    if (existing.status == condition.status && existing.since != Time{}) {
      condition.since = existing.since;
    }
    existing = std::move(condition);
    return;
  }
  status.conditions.push_back(std::move(condition));
}

}  // namespace metier
