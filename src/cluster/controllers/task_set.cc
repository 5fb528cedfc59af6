#include "cluster/controllers/task_set.h"

#include <fmt/format.h>

#include <set>

#include "cluster/controllers/pod_group.h"
#include "resource/pod.h"

namespace metier {
namespace {

constexpr std::int64_t kMostReplicas = 10'000;

std::string pod_name(const Resource& resource, std::int64_t index) {
  const auto suffix = fmt::format("-{}", index);
  return shorten_name(resource.metadata.name, 63 - suffix.size()) + suffix;
}

Resource pod_of(const Resource& resource, std::int64_t index, bool gang) {
  Resource out{
      .api_version = "v1",
      .kind = "Pod",
      .metadata = {.name = pod_name(resource, index), .name_space = resource.metadata.name_space}};
  out.metadata.labels = resource.metadata.labels;
  const auto* pod_template = object_in(resource.spec(), "template");
  if (pod_template != nullptr) {
    if (const auto* metadata = object_in(*pod_template, "metadata")) {
      for (const auto& [key, target] : {std::pair("labels", &out.metadata.labels),
                                        std::pair("annotations", &out.metadata.annotations)}) {
        const auto* values = metadata->if_contains(key);
        if (values == nullptr || values->is_null()) { continue; }
        if (auto labels = labels_from_json(*values, key)) {
          for (auto& [name, value] : *labels) { (*target)[name] = value; }
        }
      }
    }
    if (const auto* spec = object_in(*pod_template, "spec")) { out.body["spec"] = *spec; }
  }
  out.metadata.labels["metier.dev/task-set"] = shorten_name(resource.metadata.name, 63);
  out.metadata.labels["metier.dev/index"] = std::to_string(index);
  if (gang) {
    out.metadata.labels[std::string(kPodGroupLabel)] = shorten_name(resource.metadata.name, 63);
  }
  out.metadata.owner = owner_ref_to(resource);
  return out;
}

bool is_over(const Resource& resource) {
  const auto state = string_at(resource.status, "state");
  return state == "Succeeded" || state == "Failed";
}

}  // namespace

Async<Result<Facts>> TaskSetController::gather(const Resource& resource) { co_return Facts(); }

Async<Result<void>> TaskSetController::before_stop(const Resource& pod) {
  co_return Result<void>{};
}

Decision TaskSetController::reconcile(const Resource& resource, const Snapshot& snapshot,
                                      const Facts& facts, Time now) const {
  Decision out;
  if (is_over(resource)) { return out; }
  const auto replicas =
      std::clamp<std::int64_t>(int_in(resource.spec(), "replicas").value_or(1), 0, kMostReplicas);
  const bool gang = bool_in(resource.spec(), "gang");
  std::set<std::string> present;
  std::int64_t succeeded = 0;
  std::int64_t failed = 0;
  std::int64_t running = 0;
  std::string reason;
  std::string message;
  for (const auto& pod : snapshot.pods) {
    present.insert(pod.metadata.name);
    const auto status = pod_status_from_json(pod.status);
    succeeded += status.phase == PodPhase::succeeded ? 1 : 0;
    running += status.phase == PodPhase::running ? 1 : 0;
    if (status.phase != PodPhase::failed) { continue; }
    ++failed;
    if (!reason.empty()) { continue; }  // the first cause wins
    reason = status.reason.empty() ? "TaskFailed" : status.reason;
    message = fmt::format("{}: {}", pod.metadata.name, status.message);
  }
  std::string_view state = running > 0 ? "Running" : "Waiting";
  if (succeeded == replicas) { state = "Succeeded"; }
  if (failed > 0) { state = "Failed"; }
  JsonObject status{
      {"state", state}, {"succeeded", succeeded}, {"failed", failed}, {"running", running}};
  if (!reason.empty()) {
    status["reason"] = reason;
    status["message"] = message;
  }
  out.status = std::move(status);
  if (failed > 0) {  // the others are of no use any more
    for (const auto& pod : snapshot.pods) {
      if (!is_terminal(pod_status_from_json(pod.status).phase)) {
        out.remove.push_back(key_of(pod));
      }
    }
    return out;
  }
  if (gang && snapshot.groups.empty() && replicas > 0) {
    auto group = make_pod_group(shorten_name(resource.metadata.name, 63),
                                resource.metadata.name_space, static_cast<int>(replicas));
    group.metadata.owner = owner_ref_to(resource);
    out.create.push_back(std::move(group));
  }
  for (std::int64_t i = 0; i < replicas; ++i) {
    if (!present.contains(pod_name(resource, i))) {
      out.create.push_back(pod_of(resource, i, gang));
    }
  }
  return out;
}

}  // namespace metier
