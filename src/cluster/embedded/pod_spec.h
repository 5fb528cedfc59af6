// From a resolved pod to the two texts that start it: the shim's spec and the zygote's launch document
// (docs/formats/pod-folder.md).
#pragma once

#include <map>
#include <string>
#include <vector>

#include "base/json.h"
#include "cluster/embedded/cgroups.h"
#include "cluster/embedded/pod_driver.h"

namespace metier {

// What this host lets the driver do.
struct HostAbility {
  bool root = false;
  bool mount_namespace = false;
  bool user_namespace = false;  // needed for the former where not root
  bool uts_namespace = false;
  unsigned uid = 0;
  unsigned gid = 0;
  std::string home;  // of the server's user; empty: not known
};
// Tries the namespaces once in a child process; `force` may contain no-userns and no-mount.
HostAbility probe_host(std::string_view force);

struct PodPaths {
  std::string folder;  // <data>/pods/<id>
  std::string memory;  // memory-backed volumes: /dev/shm/metier-<id>
  std::string shim;
  std::string runner;       // folder or zip on PYTHONPATH, empty: none
  std::string gang;         // <data>/gangs/<share group>, empty: none
  std::string gang_memory;  // its /dev/shm
};

struct PlannedMount {
  std::string source;
  std::string sub_path;
  std::string target;
  std::string container;
  bool read_only = false;
};
struct PlannedContainer {
  std::string name;
  bool init = false;
  std::vector<std::string> args;
  std::vector<std::pair<std::string, std::string>> env;
  std::string cwd;
  std::string log;
};

// Everything decided, nothing made yet.
struct PodPlan {
  std::string id;
  RestartPolicy restart = RestartPolicy::never;
  std::int64_t grace_ms = 30'000;
  std::int64_t deadline_ms = 0;
  bool mount_namespace = false;
  bool user_namespace = false;
  std::string hostname;
  std::string gang;    // folder of its gang, when it takes ranks or starts them
  std::string member;  // its name there
  bool has_identity = false;
  unsigned uid = 0;
  unsigned gid = 0;
  std::vector<unsigned> groups;
  std::vector<PlannedMount> mounts;
  std::vector<PlannedContainer> containers;  // init containers first
  PodLimits limits;
  std::vector<std::pair<int, std::uint64_t>> rlimits;
  std::vector<Condition> conditions;  // what this host cannot enforce for this pod
  bool forkable = false;              // `mlrun …` alone in its pod, as the server's own user
};

// Errors: invalid (no command), unsupported (a volume at a foreign path without a mount namespace).
Result<PodPlan> plan_pod(const LaunchSpec& spec, const PodPaths& paths, const HostAbility& host,
                         const Cgroups& cgroups);

std::string shim_spec(const PodPlan& plan, const PodGroup& group, bool with_values);
std::string launch_document(const PodPlan& plan, const PodPaths& paths);

// The file of a container's n-th start; 0 or 1: the first.
std::string log_name(const std::string& container, bool first, int attempt);

}  // namespace metier
