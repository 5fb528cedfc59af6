#include "cluster/controllers/spark/spark_controller.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>

#include "cluster/controllers/pod_group.h"
#include "cluster/controllers/spark/spark_pods.h"
#include "cluster/controllers/spark/spark_rest.h"
#include "resource/pod.h"

namespace metier {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr auto kExecutorsLeave = seconds(5);  // after the driver's end they go by themselves
constexpr auto kRecorded = seconds(60);  // later than that, another application's archiver does it
constexpr std::uintmax_t kArchiveRoom = 2ULL << 30U;  // bytes free on the disk
constexpr auto kLongestPause = seconds(30);

struct SparkPod {
  const Resource* object = nullptr;
  PodStatus status;
  std::int64_t id = 0;  // of an executor
  bool over() const { return is_terminal(status.phase); }
};

struct Seen {  // one attempt's pods
  std::optional<SparkPod> driver;
  std::vector<SparkPod> executors;
  std::int64_t last_id = 0;
};

std::string label_of(const Resource& pod, std::string_view key) {
  const auto found = pod.metadata.labels.find(key);
  return found == pod.metadata.labels.end() ? std::string() : found->second;
}

Seen pods_of(const Snapshot& snapshot, std::int64_t attempt) {
  Seen out;
  for (const auto& pod : snapshot.pods) {
    if (label_of(pod, kSparkAttemptLabel) != std::to_string(attempt)) { continue; }
    SparkPod one{.object = &pod,
                 .status = pod_status_from_json(pod.status),
                 .id = std::atoll(label_of(pod, kSparkExecutorLabel).c_str())};
    if (label_of(pod, kSparkRoleLabel) == "driver") {
      out.driver = std::move(one);
    } else {
      out.last_id = std::max(out.last_id, one.id);
      out.executors.push_back(std::move(one));
    }
  }
  return out;
}

std::string_view executor_state(const PodStatus& status) {
  switch (status.phase) {
    case PodPhase::pending: return "PENDING";
    case PodPhase::running: return "RUNNING";
    case PodPhase::succeeded: return "COMPLETED";
    case PodPhase::failed: return "FAILED";
    case PodPhase::unknown: break;
  }
  return "UNKNOWN";
}

Time end_of(const PodStatus& status) {
  Time out = status.finished;
  for (const auto& container : status.containers) { out = std::max(out, container.finished); }
  return out;
}

struct Restart {
  std::string type = "Never";
  std::int64_t retries = 0;
  seconds interval{10};
};

Restart restart_of(const Resource& application) {
  Restart out;
  const auto* policy = object_in(application.spec(), "restartPolicy");
  if (policy == nullptr) { return out; }
  out.type = string_in(*policy, "type", "Never");
  out.retries = int_in(*policy, "onFailureRetries").value_or(0);
  out.interval = seconds(
      std::clamp<std::int64_t>(int_in(*policy, "onFailureRetryInterval").value_or(10), 0, 3600));
  return out;
}

// Spark's own rule on a cluster: twice the executors, at least 3.
std::int64_t most_failures(const Resource& application) {
  const auto* conf = object_in(application.spec(), "sparkConf");
  if (conf != nullptr) {
    const std::string given(string_in(*conf, "spark.executor.maxNumFailures"));
    if (!given.empty()) { return std::max<std::int64_t>(1, std::atoll(given.c_str())); }
  }
  return std::max<std::int64_t>(3, 2 * spark_size(application).most);
}

void set_state(JsonObject& status, std::string_view state, std::string_view message = {}) {
  JsonObject application{{"state", state}};
  if (!message.empty()) { application["errorMessage"] = message; }
  status["applicationState"] = std::move(application);
}

std::string end_text(std::string_view what, const SparkPod& pod) {
  return part_end_text(fmt::format("{} {}", what, pod.object->metadata.name), pod.status);
}

void remove_live(const Seen& seen, bool driver_too, Decision& out) {
  for (const auto& executor : seen.executors) {
    if (!executor.over()) { out.remove.push_back(key_of(*executor.object)); }
  }
  if (driver_too && seen.driver && !seen.driver->over()) {
    out.remove.push_back(key_of(*seen.driver->object));
  }
}

// After the end: executors leave when the driver tells them; what is still there after a while is removed. Then the
// classes that its JVMs have recorded become archives, where nobody does that yet.
Decision after_end(const Resource& application, const SparkNames& names, const Seen& seen,
                   const Snapshot& snapshot, const Facts& facts, Time now) {
  Decision out;
  const auto ended = from_iso(string_at(application.status, "terminationTime"));
  if (ended && now < *ended + kExecutorsLeave) {
    out.requeue = std::chrono::duration_cast<milliseconds>(*ended + kExecutorsLeave - now);
    return out;
  }
  remove_live(seen, true, out);
  const auto* recorded = find_path(facts, "recorded");
  const bool known = std::ranges::any_of(
      snapshot.pods, [&](const Resource& pod) { return pod.metadata.name == names.archiver; });
  if (recorded != nullptr && !known && ended && now < *ended + kRecorded) {
    out.follow.push_back(spark_archiver(application, names));
  }
  return out;
}

// Whether JVMs of the application's user have recorded classes of which no archive is made yet, and there is room for
// one (python/runner, spark_archive.py).
bool has_recorded(const Resource& application, const std::string& archives) {
  const auto* user = find_path(application.spec(), "executor.securityContext.runAsUser");
  const auto uid = user != nullptr && user->is_int64() ? user->get_int64()
                                                       : static_cast<std::int64_t>(::geteuid());
  const std::filesystem::path own = std::filesystem::path(archives) / std::to_string(uid);
  std::error_code none;
  const auto room = std::filesystem::space(own, none);
  if (none || room.available < kArchiveRoom) { return false; }
  for (const auto& file : std::filesystem::directory_iterator(own, none)) {
    if (file.path().native().ends_with(".jsa.lst")) { return true; }
  }
  return false;
}

// New executors in the place of those that ended. Failures in a row wait longer each time.
void keep_executors(const Resource& application, const SparkNames& names, const Seen& seen,
                    std::int64_t wanted, bool session_ended, JsonObject& status, Time now,
                    Decision& out) {
  const auto live =
      std::ranges::count_if(seen.executors, [](const SparkPod& one) { return !one.over(); });
  if (live >= wanted) { return; }
  Time last{};
  std::int64_t failed = 0;
  for (const auto& executor : seen.executors) {
    if (!executor.over()) { continue; }
    last = std::max(last, end_of(executor.status));
    failed += executor.status.phase == PodPhase::failed ? 1 : 0;
  }
  if (failed == 0 && last != Time{} && session_ended) {
    // They left on the driver's order. Its next session may want others; the rest of its program does not.
    out.requeue = milliseconds(1000);
    return;
  }
  const auto pause =
      failed == 0 ? seconds(1)
      : failed == 1
          ? seconds(0)
          : std::min<seconds>(kLongestPause, seconds(1LL << std::min<std::int64_t>(failed - 2, 5)));
  if (last != Time{} && now < last + pause) {
    out.requeue = std::chrono::duration_cast<milliseconds>(last + pause - now) + milliseconds(10);
    return;
  }
  // A number is never used twice, also when its pod is gone.
  auto id = std::max(seen.last_id, int_in(status, "lastExecutorId").value_or(0));
  for (std::int64_t i = live; i < wanted; ++i) {
    out.create.push_back(spark_executor(application, names, ++id));
  }
  status["lastExecutorId"] = id;
}

// What Spark's own allocation asks for, within the bounds; what it asked for before while it says nothing.
std::int64_t wanted_executors(const JsonObject& status, const SparkSize& size, const Facts& facts) {
  const auto* total = find_path(facts, "wishes.total");
  const auto asked = total != nullptr && total->is_int64()
                         ? total->get_int64()
                         : int_in(status, "executorsWanted").value_or(size.initial);
  return std::clamp(asked, size.least, size.most);
}

bool is_dismissed(const SparkPod& executor, const Facts& facts) {
  const auto* ids = find_path(facts, "wishes.dismissed");
  return ids != nullptr && ids->is_array() &&
         std::ranges::any_of(ids->get_array(), [&](const Json& id) {
           return id.is_string() && id.get_string() == std::to_string(executor.id);
         });
}

void dismiss(const Seen& seen, const Facts& facts, Decision& out) {
  for (const auto& executor : seen.executors) {
    if (!executor.over() && is_dismissed(executor, facts)) {
      out.remove.push_back(key_of(*executor.object));
    }
  }
}

}  // namespace

Async<Result<Facts>> SparkController::gather(const Resource& resource) {
  if (!archives_.empty() && string_at(resource.status, "applicationState.state") == "COMPLETED" &&
      has_recorded(resource, archives_)) {
    co_return Facts(JsonObject{{"recorded", true}});
  }
  if (client_ == nullptr || string_at(resource.status, "applicationState.state") != "RUNNING") {
    co_return Facts();
  }
  const std::string address(string_at(resource.status, "driverInfo.podAddress"));
  if (address.empty()) { co_return Facts(); }
  JsonObject facts;
  auto progress =
      co_await ask_spark(*client_, fmt::format("http://{}:{}", address, spark_ui_port(resource)));
  if (progress && progress->is_object()) { facts["progress"] = std::move(*progress); }
  if (spark_size(resource).dynamic) {
    auto wishes = co_await ask_spark_wishes(
        *client_, fmt::format("http://{}:{}/", address, kSparkWishesPort));
    if (wishes.is_object()) { facts["wishes"] = std::move(wishes); }
  }
  co_return Facts(std::move(facts));
}

Async<Result<void>> SparkController::before_stop(const Resource& pod) { co_return Result<void>{}; }

Decision SparkController::reconcile(const Resource& resource, const Snapshot& snapshot,
                                    const Facts& facts, Time now) const {
  const std::string state(string_at(resource.status, "applicationState.state"));
  const auto* attempts = find_path(resource.status, "executionAttempts");
  const std::int64_t attempt =
      attempts != nullptr && attempts->is_int64() ? attempts->get_int64() : 1;
  const bool stopped = resource.metadata.annotations.contains(std::string(kStoppedAnnotation));
  SparkNames names(resource, attempt);
  names.archives = archives_;
  const Seen seen = pods_of(snapshot, attempt);
  if (state == "COMPLETED" || state == "FAILED") {
    return after_end(resource, names, seen, snapshot, facts, now);
  }

  Decision out;
  JsonObject status = resource.status.is_object() ? resource.status.get_object() : JsonObject{};
  status["executionAttempts"] = attempt;
  const auto restart = restart_of(resource);
  if (state == "PENDING_RERUN") {
    const auto ended = from_iso(string_in(status, "terminationTime"));
    const auto due = ended ? *ended + restart.interval : now;
    if (now < due) {
      remove_live(seen, true, out);
      out.requeue = std::chrono::duration_cast<milliseconds>(due - now) + milliseconds(10);
      return out;
    }
    status["executionAttempts"] = attempt + 1;
    status.stable_erase("terminationTime");
    status.stable_erase("driverInfo");
    status.stable_erase("progress");
    status.stable_erase("executorsWanted");
    status.stable_erase("lastExecutorId");
    set_state(status, "");
    out.status = std::move(status);
    return out;  // its own change brings the next round
  }

  JsonObject executors;
  std::int64_t failures = 0;
  const SparkPod* first_failed = nullptr;
  for (const auto& executor : seen.executors) {
    executors[executor.object->metadata.name] = executor_state(executor.status);
    if (executor.status.phase != PodPhase::failed || is_dismissed(executor, facts)) { continue; }
    ++failures;
    if (first_failed == nullptr || executor.id < first_failed->id) { first_failed = &executor; }
  }
  status["executorState"] = std::move(executors);

  const auto end = [&](std::string_view final_state, std::string_view message) {
    set_state(status, final_state, message);
    status["terminationTime"] = to_iso(now);
    out.requeue = std::chrono::duration_cast<milliseconds>(kExecutorsLeave);
    out.status = std::move(status);
  };
  if (seen.driver) {
    const auto& driver = *seen.driver;
    JsonObject info{{"podName", driver.object->metadata.name},
                    {"webUIServiceName", names.service},
                    {"webUIPort", spark_ui_port(resource)}};
    if (!driver.status.pod_ip.empty()) { info["podAddress"] = driver.status.pod_ip; }
    status["driverInfo"] = std::move(info);
    if (driver.over()) {
      const bool good = driver.status.phase == PodPhase::succeeded;
      const bool again =
          !stopped && (restart.type == "Always" ||
                       (restart.type == "OnFailure" && !good && attempt <= restart.retries));
      if (again) {
        end("PENDING_RERUN", good ? "" : end_text("the driver pod", driver));
      } else if (good) {
        end("COMPLETED", {});
      } else {
        status["failedPart"] = driver.object->metadata.name;
        end("FAILED", end_text("the driver pod", driver));
      }
      return out;
    }
    if (driver.status.phase == PodPhase::running && state.empty()) {
      set_state(status, "RUNNING");
      status["lastSubmissionAttemptTime"] = to_iso(now);
    }
  } else if (!state.empty()) {
    status["reason"] = "NodeLost";
    end("FAILED", "the driver's pod was removed before it ended");
    return out;
  }
  if (failures >= most_failures(resource) && first_failed != nullptr) {
    status["reason"] = "ExecutorsFailed";
    status["failedPart"] = first_failed->object->metadata.name;
    remove_live(seen, true, out);
    end("FAILED",
        fmt::format("{}: {}",
                    failures == 1 ? "1 executor failed"
                                  : fmt::format("{} executors failed, the first", failures),
                    end_text("pod", *first_failed)));
    return out;
  }
  if (!status.contains("applicationState")) { set_state(status, ""); }
  if (const auto* progress = find_path(facts, "progress")) { status["progress"] = *progress; }
  const auto size = spark_size(resource);
  std::int64_t wanted = size.initial;
  if (size.dynamic) {
    wanted = wanted_executors(status, size, facts);
    status["executorsWanted"] = wanted;
    dismiss(seen, facts, out);
  }
  if (!seen.driver) {
    out.create.push_back(spark_service(resource, names));
    out.create.push_back(spark_group(resource, names));
    out.create.push_back(spark_driver(resource, names));
  }
  const auto* conf = object_in(resource.spec(), "sparkConf");
  const bool tells = conf == nullptr || string_in(*conf, "spark.ui.enabled") != "false";
  const bool session_ended = tells && facts.is_object() && find_path(facts, "progress") == nullptr;
  keep_executors(resource, names, seen, wanted, session_ended, status, now, out);
  if (client_ != nullptr && string_at(resource.status, "applicationState.state") == "RUNNING" &&
      !out.requeue) {
    out.requeue = milliseconds(1000);
  }
  out.status = std::move(status);
  return out;
}

}  // namespace metier
