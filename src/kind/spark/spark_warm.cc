#include "kind/spark/spark_warm.h"

#include <algorithm>
#include <cctype>

#include "base/clock.h"
#include "base/digest.h"
#include "base/text.h"
#include "kind/lowering.h"
#include "kind/pod_observation.h"
#include "model/python_text.h"
#include "resource/labels.h"

namespace metier {
namespace {

constexpr std::int64_t kIdle = 600;  // seconds

std::optional<std::int64_t> idle_of(const Function& function) {
  const Json* given = function.spec().if_contains("warm_idle_timeout");
  if (given == nullptr || given->is_null()) { return kIdle; }
  if (given->is_int64()) {
    return given->get_int64() > 0 ? std::optional(given->get_int64()) : std::nullopt;
  }
  const auto parsed = parse_duration(python_text(*given));
  if (!parsed) { return std::nullopt; }
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(*parsed).count();
  return seconds > 0 ? std::optional<std::int64_t>(seconds) : std::nullopt;
}

std::string address_variable(const std::string& service) {
  std::string out = "$(METIER_";
  for (const char c : service) {
    out += c == '-' ? '_' : static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  }
  return out + "_ADDR)";
}

Resource connect_of(const Subject& subject, const Site& site, JsonObject application,
                    std::int64_t idle) {
  Resource out{.api_version = "metier.dev/v1", .kind = "SparkConnect"};
  out.metadata.name_space = project_of(subject, site);
  // What a run or its function alone has says nothing about the server.
  for (const auto* field : {"arguments", "mainApplicationFile", "restartPolicy", "type"}) {
    application.stable_erase(field);
  }
  for (const auto* role : {"driver", "executor"}) {
    if (JsonObject* body = object_in(application, role)) { body->stable_erase("labels"); }
  }
  if (JsonObject* deps = object_in(application, "deps")) {
    deps->stable_erase("pyFiles");  // each client's session has its own
    if (deps->empty()) { application.stable_erase("deps"); }
  }
  const std::string identity = out.metadata.name_space + "\n" + site.environment + "\n" +
                               std::to_string(idle) + "\n" + dump_json(Json(application));
  out.metadata.name = "warm-spark-" + sha256_hex(identity).substr(0, 10);
  out.metadata.labels = {{"mlrun/class", "spark"},
                         {"mlrun/project", out.metadata.name_space},
                         {std::string(kSharedLabel), out.metadata.name}};
  JsonObject spec{{"idle", idle}, {"token", out.metadata.name + std::string(kSparkToken)}};
  if (subject.run != nullptr) {
    spec["openedBy"] = resource_name(subject.run->name(), subject.run->uid(),
                                     subject.run->iteration(), subject.attempt);
  }
  spec["application"] = std::move(application);
  out.body["spec"] = std::move(spec);
  return out;
}

// The server's own failure is the run's: a client without its server has nothing to go on with. A client that came after the
// failure opens another server.
void of_server(const Subject& subject, const ResourceStatus& connect,
               std::span<const ResourceStatus> own, Observation& seen) {
  if (subject.run == nullptr || is_terminal(subject.run->state())) { return; }
  if (string_at(connect.status, "state") != "Failed" || seen.state == RunState::completed) {
    return;
  }
  const std::string mine = resource_name(subject.run->name(), subject.run->uid(),
                                         subject.run->iteration(), subject.attempt);
  const bool waits = (seen.state == RunState::pending || began_after_failure(own, connect)) &&
                     string_at(connect.status, "openedBy") != mine;
  if (waits) { return; }
  seen.state = RunState::error;
  seen.reason = string_at(connect.status, "reason");
  seen.message = string_at(connect.status, "message");
  seen.first_failure = Failure{.code = seen.reason,
                               .message = seen.message,
                               .part = std::string(string_at(connect.status, "failed")),
                               .exit_code = 0,
                               .signal = 0};
}

// The Python files that the function brings.
std::vector<std::string> modules_of(const Function& function) {
  std::vector<std::string> out;
  const JsonObject* deps = object_in(function.spec(), "deps");
  const JsonArray* files = deps == nullptr ? nullptr : array_in(*deps, "pyFiles");
  for (const Json& file : files == nullptr ? JsonArray{} : *files) {
    out.push_back(python_text(file));
  }
  return out;
}

// As a variable's value that holds no reference to another one.
std::string list_of(const std::vector<std::string>& names) {
  std::string out;
  for (const std::string& name : names) {
    if (!out.empty()) { out += ','; }
    for (const char c : name) { out += c == '$' ? "$$" : std::string(1, c); }
  }
  return out;
}

// A client sends them to its server.
void check_modules(const Function& function, ProblemList& problems) {
  for (const std::string& name : modules_of(function)) {
    if (name.contains("://") && !name.starts_with("file://") && !name.starts_with("local://")) {
      problems.add("function.spec.deps.pyFiles",
                   "a warm Spark takes files of this machine, " + quote(name) + " is elsewhere",
                   "name a path that exists here, or leave spec.warm out");
    }
  }
}

// Its server has one pod, of the driver's placement, and both roles' mounts.
void check_one_pod(const Function& function, ProblemList& problems) {
  for (const std::string field : {"node_selector", "affinity", "tolerations"}) {
    const Json* executor = function.spec().if_contains("executor_" + field);
    const Json* driver = function.spec().if_contains("driver_" + field);
    if (executor == nullptr || is_falsy(*executor)) { continue; }
    if (driver == nullptr || *driver != *executor) {
      problems.add("function.spec.executor_" + field,
                   "a warm Spark is one pod: its executors cannot have a place of their own",
                   "give driver_" + field + " the same value, or leave spec.warm out");
    }
  }
  const JsonArray* driver = array_in(function.spec(), "driver_volume_mounts");
  const JsonArray* executor = array_in(function.spec(), "executor_volume_mounts");
  for (const Json& mount : executor == nullptr ? JsonArray{} : *executor) {
    const auto path = string_at(mount, "mountPath");
    const bool other = driver != nullptr && std::ranges::any_of(*driver, [&](const Json& one) {
                         return string_at(one, "mountPath") == path && one != mount;
                       });
    if (other) {
      problems.add("function.spec.executor_volume_mounts",
                   "a warm Spark is one pod: " + quote(path) + " is another volume in the driver",
                   "mount it at another path, or leave spec.warm out");
    }
  }
}

void check_no_restart(const Function& function, ProblemList& problems) {
  const JsonObject* policy = object_in(function.spec(), "restart_policy");
  if (policy == nullptr) { return; }
  const auto type = string_in(*policy, "type", "OnFailure");
  if (type == "Always" || (type == "OnFailure" && int_in(*policy, "retries").value_or(0) > 0)) {
    problems.add("function.spec.restart_policy",
                 "a run in a warm Spark is not started again by a policy of Spark's",
                 "leave it out, or spec.warm");
  }
}

}  // namespace

bool is_warm(const Function& function) { return bool_in(function.spec(), "warm"); }

void check_warm(const Function& function, ProblemList& problems) {
  if (const Json* warm = function.spec().if_contains("warm");
      warm != nullptr && !warm->is_null() && !warm->is_bool()) {
    problems.add("function.spec.warm",
                 "expected true or false, got " + std::string(type_name(*warm)));
  }
  if (!is_warm(function)) { return; }
  if (const std::string type = function.text("job_type"); !type.empty() && type != "Python") {
    problems.add("function.spec.warm",
                 "a " + type + " program has a driver of its own: it cannot use a warm Spark",
                 "leave spec.warm out");
  }
  const JsonObject* dynamic = object_in(function.spec(), "dynamic_allocation");
  if (dynamic != nullptr && bool_in(*dynamic, "enabled")) {
    problems.add("function.spec.warm", "a warm Spark has a fixed size",
                 "give replicas instead of a minimum and a maximum");
  }
  check_modules(function, problems);
  check_one_pod(function, problems);
  check_no_restart(function, problems);
  if (!idle_of(function)) {
    problems.add("function.spec.warm_idle_timeout", "expected a time longer than 0",
                 "seconds, or a text like 10m");
  }
}

Result<std::vector<Resource>> warm_resources(const Subject& subject, const Site& site,
                                             JsonObject application) {
  if (!site.embedded) {
    return fail(
        Error{.kind = ErrorKind::unsupported,
              .message = "a warm Spark is of the embedded cluster only",
              .field = "function.spec.warm",
              .fix = "leave spec.warm out, or use kind remote-spark with a Connect server"});
  }
  Resource connect =
      connect_of(subject, site, std::move(application), idle_of(subject.function).value_or(kIdle));
  METIER_TRY(command, mlrun_command(subject));
  METIER_TRY(pod, pod_of_run(subject, site, command));
  pod.metadata.labels[std::string(kPodGroupLabel)] = connect.metadata.name;
  pod.metadata.annotations[std::string(kPreloadAnnotation)] = kSparkPreload;
  JsonObject& container = pod.body["spec"].get_object()["containers"].get_array()[0].get_object();
  // The user's program is in the client, as it is in a driver otherwise.
  const JsonArray* mounts = array_in(subject.function.spec(), "driver_volume_mounts");
  for (const Json& mount : mounts == nullptr ? JsonArray{} : *mounts) {
    ensure_array(container, "volumeMounts").push_back(mount);
  }
  JsonArray& env = container["env"].get_array();
  env.push_back(JsonObject{{"name", "METIER_SPARK_WARM"},
                           {"value", address_variable(connect.metadata.name)}});
  if (const auto modules = modules_of(subject.function); !modules.empty()) {
    env.push_back(JsonObject{{"name", "METIER_SPARK_PY_FILES"}, {"value", list_of(modules)}});
  }
  env.push_back(JsonObject{
      {"name", "SPARK_CONNECT_AUTHENTICATE_TOKEN"},
      {"valueFrom", JsonObject{{"secretKeyRef", JsonObject{{"name", connect.metadata.name +
                                                                        std::string(kSparkToken)},
                                                           {"key", "token"}}}}}});
  std::vector<Resource> out;
  out.push_back(std::move(connect));
  out.push_back(std::move(pod));
  return out;
}

Observation observe_warm(const Subject& subject, std::span<const ResourceStatus> resources,
                         Time now) {
  std::vector<ResourceStatus> own;
  std::vector<ResourceStatus> servers;
  const ResourceStatus* connect = nullptr;
  for (const ResourceStatus& resource : resources) {
    if (resource.key.kind == "SparkConnect") {
      if (!resource.removed) { connect = &resource; }
    } else if (resource.labels.contains(std::string(kSharedLabel))) {
      servers.push_back(resource);
    } else {
      own.push_back(resource);
    }
  }
  Observation seen = observe_single_pod(subject, own, now);
  const auto server =
      connect == nullptr ? std::string_view() : string_at(connect->status, "server");
  for (const ObservedPod& pod : pods_in(servers)) {
    if (pod.name == server) {
      seen.parts.push_back({.role = "server", .index = 0, .pod = pod.name});
    }
  }
  if (connect != nullptr) { of_server(subject, *connect, own, seen); }
  return seen;
}

}  // namespace metier
