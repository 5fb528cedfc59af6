#include "cluster/embedded/host_inventory.h"

#include <fmt/format.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <optional>
#include <sstream>

#include "base/files.h"
#include "base/quantity.h"

namespace metier {
namespace {

int cpus_of_this_process() {
  // A fixed set is too small on hosts with more than 1,024 processors.
  for (std::size_t count = 1024; count <= 65536; count *= 4) {
    cpu_set_t* set = CPU_ALLOC(count);
    const auto size = CPU_ALLOC_SIZE(count);
    const int rc = sched_getaffinity(0, size, set);
    const int cpus = rc == 0 ? CPU_COUNT_S(size, set) : 0;
    CPU_FREE(set);
    if (rc == 0) { return cpus; }
  }
  return static_cast<int>(sysconf(_SC_NPROCESSORS_ONLN));
}

std::optional<std::int64_t> number(std::string_view text) {
  while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) { text.remove_suffix(1); }
  std::int64_t out = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  if (error != std::errc() || end != text.data() + text.size()) { return std::nullopt; }
  return out;
}

std::optional<std::int64_t> number_in(const std::filesystem::path& file) {
  auto text = read_file(file, 4096);
  return text ? number(*text) : std::nullopt;
}

struct Groups {
  std::string v2;                         // path of the unified hierarchy, or empty
  std::map<std::string, std::string> v1;  // controller → path
};

Groups groups_of_this_process(const std::filesystem::path& root) {
  Groups out;
  const auto text = read_file(root / "proc/self/cgroup", 65536);
  if (!text) { return out; }
  std::istringstream lines(*text);
  for (std::string line; std::getline(lines, line);) {
    const auto first = line.find(':');
    const auto second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) { continue; }
    const auto controllers = line.substr(first + 1, second - first - 1);
    const auto path = line.substr(second + 1);
    if (controllers.empty()) { out.v2 = path; }
    std::istringstream names(controllers);
    for (std::string name; std::getline(names, name, ',');) { out.v1[name] = path; }
  }
  return out;
}

// Every folder from the group up to the root of its hierarchy: a parent's limit holds for its children. In a
// container the path may be the host's; then only the mount's own root can be read.
template <class Visit>
void each_level(const std::filesystem::path& mount, const std::string& group, Visit visit) {
  auto folder = (mount / std::filesystem::path(group).relative_path()).lexically_normal();
  const auto top = mount.lexically_normal().string().size();
  while (folder.string().size() > top) {
    visit(folder);
    folder = folder.parent_path();
  }
  visit(mount);
}

void apply_limits(const std::filesystem::path& root, HostFacts& facts) {
  const auto groups = groups_of_this_process(root);
  const auto cgroup = root / "sys/fs/cgroup";
  const auto memory = [&](std::optional<std::int64_t> limit, const std::filesystem::path& file) {
    if (!limit || *limit <= 0 || *limit >= facts.memory) { return; }
    facts.memory = *limit;
    facts.notes.push_back(fmt::format("memory {} by {}", human_bytes(*limit), file.string()));
  };
  const auto cpu = [&](std::int64_t quota, std::int64_t period, const std::filesystem::path& file) {
    if (quota <= 0 || period <= 0 || quota * 1000 / period >= facts.cpu_milli) { return; }
    facts.cpu_milli = std::max<std::int64_t>(quota * 1000 / period, 1);
    facts.notes.push_back(fmt::format(
        "cpu {} by {}", Quantity::from_milli(facts.cpu_milli).cpu_text(), file.string()));
  };
  std::error_code ignored;
  if (std::filesystem::exists(cgroup / "cgroup.controllers", ignored)) {
    each_level(cgroup, groups.v2, [&](const std::filesystem::path& folder) {
      memory(number_in(folder / "memory.max"), folder / "memory.max");
      if (auto text = read_file(folder / "cpu.max", 4096)) {
        std::istringstream fields(*text);
        std::string quota;
        std::string period;
        fields >> quota >> period;
        cpu(number(quota).value_or(0), number(period).value_or(0), folder / "cpu.max");
      }
    });
    return;
  }
  if (const auto path = groups.v1.find("memory"); path != groups.v1.end()) {
    each_level(cgroup / "memory", path->second, [&](const std::filesystem::path& folder) {
      memory(number_in(folder / "memory.limit_in_bytes"), folder / "memory.limit_in_bytes");
    });
  }
  if (const auto path = groups.v1.find("cpu"); path != groups.v1.end()) {
    for (const auto* name : {"cpu", "cpu,cpuacct"}) {
      if (!std::filesystem::exists(cgroup / name, ignored)) { continue; }
      each_level(cgroup / name, path->second, [&](const std::filesystem::path& folder) {
        cpu(number_in(folder / "cpu.cfs_quota_us").value_or(0),
            number_in(folder / "cpu.cfs_period_us").value_or(0), folder / "cpu.cfs_quota_us");
      });
      break;
    }
  }
}

// Numbers of the files PREFIX<n> in a folder.
std::vector<int> numbered(const std::filesystem::path& folder, std::string_view prefix) {
  std::vector<int> out;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(folder, error)) {
    const auto name = entry.path().filename().string();
    if (!name.starts_with(prefix)) { continue; }
    if (const auto found = number(std::string_view(name).substr(prefix.size()))) {
      out.push_back(static_cast<int>(*found));
    }
  }
  std::ranges::sort(out);
  return out;
}

}  // namespace

LinuxInventory::LinuxInventory(std::filesystem::path root, std::function<int()> affinity)
    : root_(std::move(root)), affinity_(affinity ? std::move(affinity) : cpus_of_this_process) {}

Result<HostFacts> LinuxInventory::read() {
  HostFacts out;
  std::array<char, 256> name{};
  if (gethostname(name.data(), name.size() - 1) == 0) { out.name = name.data(); }
  if (out.name.empty()) { out.name = "localhost"; }
  out.cpu_milli = std::int64_t{std::max(affinity_(), 1)} * 1000;
  METIER_TRY(meminfo, read_file(root_ / "proc/meminfo", 65536));
  std::istringstream lines(meminfo);
  for (std::string line; std::getline(lines, line);) {
    if (!line.starts_with("MemTotal:")) { continue; }
    std::istringstream fields(line.substr(9));
    std::int64_t kib = 0;
    fields >> kib;
    out.memory = kib * 1024;
  }
  if (out.memory <= 0) {
    return fail(Error{.kind = ErrorKind::unavailable,
                      .message = "/proc/meminfo has no MemTotal",
                      .field = {},
                      .fix = "mount /proc",
                      .code = {}});
  }
  apply_limits(root_, out);
  if (auto gpus = numbered(root_ / "dev", "nvidia"); !gpus.empty()) {
    out.devices["nvidia.com/gpu"] = std::move(gpus);
  }
  std::error_code ignored;
  if (std::filesystem::exists(root_ / "dev/kfd", ignored)) {
    auto cards = numbered(root_ / "dev/dri", "renderD");
    for (auto& card : cards) { card -= 128; }  // render nodes are numbered from 128
    if (!cards.empty()) { out.devices["amd.com/gpu"] = std::move(cards); }
  }
  return out;
}

std::int64_t reserved_memory(const HostFacts& facts, const SystemReserve& reserve) {
  if (reserve.memory >= 0) { return reserve.memory; }
  const auto share = std::clamp(facts.memory / 20, std::int64_t{128} << 20, std::int64_t{1} << 30);
  return std::min(share, facts.memory / 2);
}

}  // namespace metier
