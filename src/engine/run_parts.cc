#include "engine/run_parts.h"

#include <algorithm>
#include <charconv>
#include <set>

#include "resource/labels.h"

namespace metier {
namespace {

std::string_view state_of(const ContainerStatus& container) {
  switch (container.state) {
    case ContainerStatus::State::waiting: return "pending";
    case ContainerStatus::State::running: return "running";
    case ContainerStatus::State::terminated: break;
  }
  return container.exit_code == 0 && container.signal == 0 ? "completed" : "error";
}

std::string_view state_of(PodPhase phase) {
  switch (phase) {
    case PodPhase::pending: return "pending";
    case PodPhase::running: return "running";
    case PodPhase::succeeded: return "completed";
    case PodPhase::failed: return "error";
    case PodPhase::unknown: break;
  }
  return "unknown";
}

void put(JsonObject& out, std::string_view key, std::string_view text) {
  if (!text.empty()) { out[key] = text; }
}
void put(JsonObject& out, std::string_view key, Time time) {
  if (time != Time{}) { out[key] = to_iso(time); }
}

void add_use(JsonObject& out, std::int64_t cpu_us, std::int64_t peak) {
  if (cpu_us > 0) { out["cpu_seconds"] = static_cast<double>(cpu_us) / 1e6; }
  if (peak > 0) { out["peak_memory"] = peak; }
}

JsonObject part_json(const Part& part, std::string_view state) {
  return {{"name", part_name(part)},
          {"role", part.role},
          {"index", part.index},
          {"pod", part.pod},
          {"state", state}};
}

void describe_rank(const ContainerStatus& rank, JsonObject& out) {
  out["state"] = state_of(rank);
  put(out, "reason", rank.reason);
  put(out, "message", rank.message);
  if (rank.state == ContainerStatus::State::terminated) {
    out["exit_code"] = rank.exit_code;
    if (rank.signal != 0) { out["signal"] = rank.signal; }
  }
  put(out, "start_time", rank.started);
  put(out, "end_time", rank.finished);
  add_use(out, rank.cpu_us, rank.peak_memory);
}

void describe_pod(const PodStatus& pod, bool shared, const std::vector<UsageSample>* samples,
                  JsonObject& out) {
  std::int64_t cpu = 0;
  std::int64_t peak = 0;
  const ContainerStatus* bad = nullptr;
  Time started = pod.started;
  for (const auto& container : pod.containers) {
    cpu += container.cpu_us;
    peak = std::max(peak, container.peak_memory);
    if (container.rank || container.init) { continue; }
    if (container.started != Time{}) { started = container.started; }
    if (container.state == ContainerStatus::State::terminated &&
        (bad == nullptr || container.exit_code != 0)) {
      bad = &container;
    }
  }
  // What was ended because its run or its job had ended has not failed, and it may have been about to leave by itself.
  const bool dismissed =
      pod.phase == PodPhase::failed && (pod.reason == kRunEnded || pod.reason == kJobEnded);
  const bool left = dismissed && bad != nullptr && bad->exit_code == 0;
  if (!left) {
    put(out, "reason", pod.reason);
    put(out, "message", pod.message);
  }
  out["state"] = !dismissed ? state_of(pod.phase) : left ? "completed" : "removed";
  if (bad != nullptr) {
    out["exit_code"] = bad->exit_code;
    if (bad->signal != 0) { out["signal"] = bad->signal; }
  }
  put(out, "start_time", started);
  put(out, "end_time", pod.finished);
  JsonArray list;
  for (std::size_t i = 0; samples != nullptr && i < samples->size(); ++i) {
    const auto& sample = (*samples)[i];
    cpu = std::max(cpu, sample.cpu_us);
    peak = std::max(peak, sample.memory);
    list.push_back(JsonArray{std::chrono::duration<double>(sample.at - started).count(),
                             static_cast<double>(sample.cpu_us) / 1e6, sample.memory});
  }
  if (shared) { cpu = list.empty() ? 0 : samples->back().cpu_us - samples->front().cpu_us; }
  add_use(out, cpu, peak);
  if (!list.empty()) { out["samples"] = std::move(list); }
}

}  // namespace

std::string part_name(const Part& part) {
  const bool numbered = part.role == "worker" || part.role == "rank" || part.role == "executor";
  return numbered || part.index > 0 ? part.role + "-" + std::to_string(part.index) : part.role;
}

Part part_of_name(std::string_view name) {
  Part out{.role = std::string(name), .index = 0, .pod = {}, .container = {}};
  const auto dash = name.rfind('-');
  if (dash == std::string_view::npos) { return out; }
  const char* const end = name.data() + name.size();
  const auto [stop, error] = std::from_chars(name.data() + dash + 1, end, out.index);
  if (error == std::errc{} && stop == end) { out.role = name.substr(0, dash); }
  return out;
}

void add_sample(std::vector<UsageSample>& samples, const UsageSample& sample) {
  if (samples.size() >= kMostSamples) {
    for (std::size_t i = 0; 2 * i < samples.size(); ++i) { samples[i] = samples[2 * i]; }
    samples.resize((samples.size() + 1) / 2);
  }
  samples.push_back(sample);
}

JsonArray parts_json(std::span<const Part> parts,
                     const std::map<ResourceKey, ResourceStatus>& resources,
                     const UsageByPod& usage) {
  std::map<std::string, PodStatus, std::less<>> pods;
  std::set<std::string, std::less<>> shared;
  for (const auto& [key, status] : resources) {
    if (key.kind != "Pod") { continue; }
    pods[key.name] = pod_status_from_json(status.status);
    if (status.labels.contains(std::string(kSharedLabel))) { shared.insert(key.name); }
  }
  JsonArray out;
  for (const Part& part : parts) {
    JsonObject one = part_json(part, "pending");
    put(one, "container", part.container);
    if (const auto pod = pods.find(part.pod); pod != pods.end()) {
      const auto& containers = pod->second.containers;
      const auto found = std::ranges::find_if(containers, [&](const ContainerStatus& container) {
        return container.rank && container.name == part.container;
      });
      if (!part.container.empty() && found != containers.end()) {
        describe_rank(*found, one);
      } else {
        const auto samples = usage.find(part.pod);
        describe_pod(pod->second, shared.contains(part.pod),
                     samples == usage.end() ? nullptr : &samples->second, one);
      }
    }
    out.push_back(std::move(one));
  }
  return out;
}

JsonObject removed_part_json(const Part& part, const UsageByPod& usage) {
  JsonObject out = part_json(part, "removed");
  const auto used = usage.find(part.pod);
  if (used == usage.end() || used->second.empty()) { return out; }
  add_use(out, used->second.back().cpu_us,
          std::ranges::max_element(used->second, {}, &UsageSample::memory)->memory);
  return out;
}

bool is_over(std::string_view part_state) {
  return part_state == "completed" || part_state == "error" || part_state == "removed" ||
         part_state == "released";
}

void release_parts(JsonArray& parts, const std::map<ResourceKey, ResourceStatus>& resources,
                   Time at) {
  for (Json& each : parts) {
    JsonObject& part = each.get_object();
    if (is_over(string_in(part, "state"))) { continue; }
    const auto pod = std::ranges::find_if(resources, [&](const auto& entry) {
      return entry.first.kind == "Pod" && entry.first.name == string_in(part, "pod");
    });
    if (pod == resources.end() || pod->second.removed) {
      part["state"] = "removed";
    } else if (pod->second.labels.contains(std::string(kSharedLabel))) {
      part["state"] = "released";
      put(part, "end_time", at);
    }
  }
}

const JsonObject* find_part(const JsonArray& parts, std::string_view name) {
  for (std::size_t i = 0; i < parts.size(); ++i) {
    const JsonObject* one = parts[i].if_object();
    if (one != nullptr && string_in(*one, "name") == name) { return one; }
  }
  return nullptr;
}

}  // namespace metier
