#include "kind/spark/spark_kind.h"

#include <algorithm>

#include "kind/lowering.h"
#include "kind/pod_observation.h"
#include "kind/spark/spark_fields.h"
#include "kind/spark/spark_resource.h"
#include "kind/spark/spark_warm.h"

namespace metier {
namespace {

const ResourceStatus* application_in(std::span<const ResourceStatus> resources) {
  const ResourceStatus* found = nullptr;
  for (const ResourceStatus& resource : resources) {
    if (resource.key.kind == "SparkApplication" &&
        (found == nullptr || resource.revision >= found->revision)) {
      found = &resource;
    }
  }
  return found;
}

// The operator's states (function-kinds reference 2.5). Nothing for one that says nothing about the run.
std::optional<RunState> run_state_of(std::string_view state) {
  if (state == "COMPLETED") { return RunState::completed; }
  if (state == "FAILED") { return RunState::error; }
  if (state == "UNKNOWN") { return RunState::unknown; }
  for (const std::string_view running :
       {"SUBMITTED", "RUNNING", "SUBMISSION_FAILED", "PENDING_RERUN", "PENDING_SUBMISSION",
        "INVALIDATING", "SUCCEEDING", "FAILING"}) {
    if (state == running) { return RunState::running; }
  }
  return std::nullopt;
}

// Every attempt's driver in their order, then the executors of the newest attempt by number.
std::vector<ObservedPod> parts_of(std::span<const ResourceStatus> resources) {
  std::map<std::string, const ResourceStatus*> newest;
  for (const ResourceStatus& resource : resources) {
    if (resource.key.kind != "Pod") { continue; }
    const ResourceStatus*& held = newest[resource.key.name];
    if (held == nullptr || resource.revision >= held->revision) { held = &resource; }
  }
  const auto label = [](const ResourceStatus& resource, std::string_view key) {
    const auto found = resource.labels.find(std::string(key));
    return found == resource.labels.end() ? std::string() : found->second;
  };
  const auto attempt_of = [&](const ResourceStatus& resource) {
    return std::max(1, std::atoi(label(resource, "metier.dev/attempt").c_str()));
  };
  int last = 1;
  for (const auto& [name, resource] : newest) { last = std::max(last, attempt_of(*resource)); }
  std::vector<ObservedPod> out;
  for (const auto& [name, resource] : newest) {
    const std::string role = label(*resource, "spark-role");
    const bool driver = role.empty() || role == "driver";
    const int attempt = attempt_of(*resource);
    if (!driver && attempt != last) { continue; }
    out.push_back(
        {.name = name,
         .role = driver ? "driver" : role,
         .index = driver ? attempt - 1 : std::atoi(label(*resource, "spark-exec-id").c_str()),
         .removed = resource->removed,
         .status = pod_status_from_json(resource->status)});
  }
  std::ranges::sort(out, [](const ObservedPod& a, const ObservedPod& b) {
    return std::pair(a.role != "driver", a.index) < std::pair(b.role != "driver", b.index);
  });
  return out;
}

class SparkKind final : public Kind {
 public:
  const KindTraits& traits() const override { return traits_; }

  Result<void> validate(const Subject& subject) const override {
    METIER_CHECK(validate_subject(subject));
    METIER_CHECK(validate_spark(subject));
    if (subject.run == nullptr) { return {}; }
    METIER_CHECK(lower(subject, Site{}));
    return {};
  }

  std::vector<std::string> ignored(const Subject& subject, const Site& site) const override {
    return site.embedded ? ignored_fields(subject.function) : std::vector<std::string>{};
  }

  Result<std::vector<Resource>> lower(const Subject& subject, const Site& site) const override {
    return spark_resources(subject, site);
  }

  Observation observe(const Subject& subject, std::span<const ResourceStatus> resources,
                      Time now) const override {
    if (is_warm(subject.function)) { return observe_warm(subject, resources, now); }
    Observation seen;
    const std::vector<ObservedPod> pods = parts_of(resources);
    const ObservedPod* driver = nullptr;
    for (const ObservedPod& pod : pods) {
      seen.parts.push_back({.role = pod.role, .index = pod.index, .pod = pod.name});
      if (pod.role == "driver") { driver = &pod; }
    }
    if (driver != nullptr) {
      seen.host = driver->status.host;
      for (const ContainerStatus& container : driver->status.containers) {
        if (container.started != Time{}) { seen.started = container.started; }
        if (container.finished != Time{}) { seen.finished = container.finished; }
      }
    }
    const RunState known = subject.run == nullptr ? RunState::created : subject.run->state();
    const ResourceStatus* application = application_in(resources);
    if (application != nullptr) {
      const Json* progress = find_path(application->status, "progress");
      if (progress != nullptr) { seen.progress = *progress; }
    }
    if (is_terminal(known)) {
      seen.state = known;
      return seen;
    }
    if (application == nullptr) { return seen; }
    const auto state = run_state_of(string_at(application->status, "applicationState.state"));
    if (state) { seen.state = *state; }
    if (application->removed && !is_terminal(seen.state)) {
      seen.state = RunState::error;
      seen.first_failure = Failure{.code = "NodeLost",
                                   .message = "the Spark application was removed before it ended",
                                   .part = {}};
    } else if (seen.state == RunState::error) {
      explain_failure(*application, pods, seen);
    } else if (seen.state == RunState::pending || driver == nullptr ||
               driver->status.phase == PodPhase::pending) {
      explain_pending(pods, seen);
    }
    if (seen.first_failure) {
      seen.reason = seen.first_failure->code;
      seen.message = seen.first_failure->message;
    }
    return seen;
  }

 private:
  // The application's own words name the part; the part knows how its process ended.
  static void explain_failure(const ResourceStatus& application,
                              const std::vector<ObservedPod>& pods, Observation& seen) {
    const std::string part(string_at(application.status, "failedPart"));
    Failure failure{
        .code = std::string(string_at(application.status, "reason")),
        .message = std::string(string_at(application.status, "applicationState.errorMessage")),
        .part = part};
    for (const ObservedPod& pod : pods) {
      if (pod.name != part && (!part.empty() || pod.role != "driver")) { continue; }
      if (const auto own = failure_of(pod)) {
        failure.exit_code = own->exit_code;
        failure.signal = own->signal;
        if (failure.code.empty()) { failure.code = own->code; }
        if (failure.message.empty()) { failure.message = own->message; }
        failure.part = pod.name;
        break;
      }
    }
    if (failure.code.empty()) { failure.code = "HandlerError"; }
    seen.first_failure = std::move(failure);
  }

  static void explain_pending(const std::vector<ObservedPod>& pods, Observation& seen) {
    for (const ObservedPod& pod : pods) {
      if (pod.status.phase != PodPhase::pending) { continue; }
      seen.reason = pod.status.reason;
      seen.message = pod.status.message;
      for (const Condition& condition : pod.status.conditions) {
        if (seen.reason.empty() && condition.type == "PodScheduled" && !condition.status) {
          seen.reason = condition.reason;
          seen.message = condition.message;
        }
      }
      if (!seen.reason.empty()) { return; }
    }
  }

  KindTraits traits_{.name = "spark",
                     .summary = "a Spark application: driver and executors",
                     .executes = Executes::in_pods};
};

}  // namespace

std::unique_ptr<Kind> make_spark_kind() { return std::make_unique<SparkKind>(); }

}  // namespace metier
