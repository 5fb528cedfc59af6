// The typed view of a Pod (core/v1) and of its status.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/quantity.h"
#include "resource/resource.h"

namespace metier {

struct KeyRef {  // secretKeyRef, configMapKeyRef
  std::string name;
  std::string key;
  bool optional = false;
};

struct EnvVar {
  std::string name;
  std::string value;  // when no source is set
  std::optional<KeyRef> secret;
  std::optional<KeyRef> config_map;
  std::string field_path;  // "metadata.name", "status.podIP"
};

struct EnvFrom {
  std::string prefix;
  std::string secret;      // name, or empty
  std::string config_map;  // name, or empty
  bool optional = false;
};

struct VolumeMount {
  std::string name;
  std::string mount_path;
  std::string sub_path;
  bool read_only = false;
};

struct Volume {
  enum class Kind { host_path, empty_dir, secret, config_map, claim, other };
  std::string name;
  Kind kind = Kind::other;
  std::string source;      // path, secret, config map or claim name; for `other` the key as written
  bool memory = false;     // emptyDir.medium: Memory
  bool read_only = false;  // claim
  bool optional = false;
  std::vector<std::pair<std::string, std::string>> items;  // key → path, empty = all
  std::string host_path_type;  // "", DirectoryOrCreate, Directory, File, …
};

struct Resources {
  std::map<std::string, Quantity, std::less<>> requests;  // "cpu", "memory", "nvidia.com/gpu"
  std::map<std::string, Quantity, std::less<>> limits;
};

struct Probe {
  std::vector<std::string> exec;
  std::string http_path;
  int port = 0;
  std::string scheme = "HTTP";
  bool tcp = false;
  int initial_delay_s = 0;
  int period_s = 10;
  int timeout_s = 1;
  int success_threshold = 1;
  int failure_threshold = 3;
};

struct ContainerPort {
  std::string name;
  int port = 0;
  std::string protocol = "TCP";
};

struct Container {
  std::string name;
  std::string image;
  std::vector<std::string> command;
  std::vector<std::string> args;
  std::string working_dir;
  std::vector<EnvVar> env;
  std::vector<EnvFrom> env_from;
  std::vector<ContainerPort> ports;
  std::vector<VolumeMount> mounts;
  Resources resources;
  std::optional<Probe> readiness;
  std::optional<Probe> liveness;
  std::optional<Probe> startup;
  std::string image_pull_policy;
};

enum class RestartPolicy { never, on_failure, always };

struct Pod {
  ObjectMeta metadata;
  std::vector<Container> init_containers;
  std::vector<Container> containers;
  std::vector<Volume> volumes;
  RestartPolicy restart = RestartPolicy::always;
  int grace_s = 30;
  std::optional<std::int64_t> deadline_s;  // activeDeadlineSeconds
  std::optional<std::int64_t> run_as_user;
  std::optional<std::int64_t> run_as_group;
  std::vector<std::int64_t> groups;
  std::string hostname;
  std::string subdomain;
  std::string node_name;
  std::string service_account;
  std::string priority_class;
  std::int64_t priority = 0;
};

// What a server may allow by named options; refused otherwise (denied).
struct PodRules {
  bool allow_privileged = false;  // privileged, added capabilities
  bool allow_host_namespaces = false;
  bool allow_root_user = false;  // runAsUser: 0
  bool allow_host_root = false;  // hostPath: /
};

// Errors: invalid, naming the field (spec.containers[0].env[2].name), the value, the rule. What Kubernetes
// refuses is refused: mount without volume, two mounts on one path, subPath that leaves the volume,
// limits below requests, two sources of one variable, privileged, host namespaces.
Result<Pod> pod_from(const Resource& resource, const PodRules& rules = {});
// All problems in document order, at most 20; empty = pod_from would succeed.
std::vector<Error> pod_problems(const Resource& resource, const PodRules& rules = {});

// Sum over containers (init containers: the largest), as the scheduler counts; limits where requests are absent.
std::map<std::string, Quantity, std::less<>> pod_requests(const Pod& pod);
std::map<std::string, Quantity, std::less<>> pod_limits(const Pod& pod);

enum class PodPhase { pending, running, succeeded, failed, unknown };
std::string_view to_string(PodPhase phase);  // "Pending"…
std::optional<PodPhase> pod_phase_from(std::string_view text);
inline bool is_terminal(PodPhase phase) {
  return phase == PodPhase::succeeded || phase == PodPhase::failed;
}

struct Condition {
  std::string type;  // "PodScheduled", "Ready", "NoMountNamespace"
  bool status = true;
  std::string reason;
  std::string message;
  Time since{};
  bool operator==(const Condition&) const = default;
};

struct ContainerStatus {
  enum class State { waiting, running, terminated };
  std::string name;
  bool init = false;
  bool rank = false;  // not of the spec: started later by another pod of its gang ("rank-3")
  State state = State::waiting;
  std::string
      reason;  // "ContainerCreating", "Completed", "Error", "OOMKilled", "Killed(SIGSEGV)", "ShimLost"
  std::string message;
  int exit_code = 0;
  int signal = 0;
  int restarts = 0;
  bool ready = false;
  Time started{};
  Time finished{};
  std::int64_t cpu_us = 0;       // user + system of the whole tree, when it ended
  std::int64_t peak_memory = 0;  // bytes
};

// The reason of pods that are stopped because the job that they are of has ended.
inline constexpr std::string_view kJobEnded = "JobEnded";

struct PodStatus {
  PodPhase phase = PodPhase::pending;
  std::string
      reason;  // of the pod as a whole: "InsufficientMemory" while pending, "OOMKilled" when failed
  std::string message;
  std::string pod_ip;
  std::string host;
  Time started{};
  Time finished{};
  std::vector<Condition> conditions;
  std::vector<ContainerStatus> containers;
};
// Kubernetes' own JSON (phase, conditions, containerStatuses, initContainerStatuses; ranks are
// ephemeralContainerStatuses) with our extra fields.
Json to_json(const PodStatus& status);
PodStatus pod_status_from_json(const Json& status);
void set_condition(PodStatus& status, Condition condition);

}  // namespace metier
