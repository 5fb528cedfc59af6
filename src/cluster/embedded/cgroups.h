// Limits by control groups, v1 and v2 behind one interface. Groups nest below the group that this process runs
// in, so that outer limits go on to hold, and are named after the pod.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"

namespace metier {

struct PodLimits {
  std::optional<std::int64_t> memory;     // bytes
  std::optional<std::int64_t> cpu_milli;  // thousandths of one processor
  bool any() const { return memory || cpu_milli; }
};

// One pod's groups.
struct PodGroup {
  std::vector<std::string> procs;       // files that take a pid
  std::string kill;                     // v2: file cgroup.kill
  std::string oom;                      // file with the counter oom_kill
  std::vector<std::string> unenforced;  // "memory: cgroup controller memory is not there"
};

struct GroupUsage {
  std::int64_t cpu_us = 0;
  std::int64_t memory = 0;
  std::int64_t peak_memory = 0;
};

class Cgroups {
 public:
  virtual ~Cgroups() = default;
  // "cgroup v1", "cgroup v2", "none: /sys/fs/cgroup/memory is read-only".
  virtual std::string about() const = 0;
  virtual bool limits_memory() const = 0;
  virtual bool limits_cpu() const = 0;
  // Errors: unavailable. A failed call leaves no group behind.
  virtual Result<PodGroup> create(const std::string& id, const PodLimits& limits) = 0;
  // The group as `create` made it, for a pod of an earlier server; empty when there is none.
  virtual PodGroup find(const std::string& id) const = 0;
  virtual std::vector<int> members(const std::string& id) const = 0;
  virtual std::optional<GroupUsage> usage(const std::string& id) const = 0;
  // Removes the pod's groups; they must be empty. Repeats harmlessly.
  virtual Result<void> remove(const std::string& id) = 0;
};

// What this host has. `root` stands for "/" in tests; `force` may contain "no-cgroup".
std::unique_ptr<Cgroups> host_cgroups(const std::filesystem::path& root = "/",
                                      std::string_view force = {});

}  // namespace metier
