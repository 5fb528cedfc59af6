// What this host has: processors, memory, devices. Behind an interface so that tests invent hosts.
#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "base/result.h"

namespace metier {

struct HostFacts {
  std::string name;            // of the node
  std::int64_t cpu_milli = 0;  // what this process may use: affinity, cgroup quota
  std::int64_t memory = 0;     // bytes: the least of the machine's and every cgroup's limit
  std::map<std::string, std::vector<int>, std::less<>> devices;  // "nvidia.com/gpu" → numbers
  std::vector<std::string> notes;  // where a number came from when it is not the machine's own
};

class HostInventory {
 public:
  virtual ~HostInventory() = default;
  virtual Result<HostFacts> read() = 0;
};

// Reads sched_getaffinity, cgroup v1 and v2 limits of this process, /proc/meminfo, /dev/nvidia<n> and
// /dev/dri (ROCm). Errors: unavailable when /proc cannot be read.
class LinuxInventory final : public HostInventory {
 public:
  // `root` stands for "/" and `affinity` for sched_getaffinity in tests.
  explicit LinuxInventory(std::filesystem::path root = "/", std::function<int()> affinity = {});
  Result<HostFacts> read() override;

 private:
  std::filesystem::path root_;
  std::function<int()> affinity_;
};

// What pods may have of a host: system memory is kept back (5 %, at least 128 MiB, at most 1 GiB).
struct SystemReserve {
  std::int64_t cpu_milli = 0;
  std::int64_t memory = -1;  // -1: the default above
};
std::int64_t reserved_memory(const HostFacts& facts, const SystemReserve& reserve);

}  // namespace metier
