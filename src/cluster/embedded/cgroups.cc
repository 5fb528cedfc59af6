#include "cluster/embedded/cgroups.h"

#include <sys/stat.h>
#include <unistd.h>
#include <cerrno>
#include <map>

#include <fmt/format.h>

#include "base/files.h"

namespace metier {
namespace fs = std::filesystem;
namespace {

constexpr std::int64_t kPeriodUs = 100'000;

std::string group_name(const std::string& id) { return "metier-pod-" + id; }

std::int64_t number_in(const fs::path& file, std::string_view key = {}) {
  const auto text = read_file(file);
  if (!text) { return 0; }
  auto at = key.empty() ? 0 : text->find(key);
  if (at == std::string::npos) { return 0; }
  return std::strtoll(text->c_str() + at + key.size(), nullptr, 10);
}

Result<void> set(const fs::path& file, const std::string& value) {
  auto written = write_file(file, value);
  if (!written) { return fail(ErrorKind::unavailable, std::move(written.error()).message); }
  return {};
}

std::vector<int> pids_in(const fs::path& file) {
  std::vector<int> out;
  const auto text = read_file(file);
  if (!text) { return out; }
  const char* at = text->c_str();
  while (*at != '\0') {
    char* end = nullptr;
    const long pid = std::strtol(at, &end, 10);
    if (end == at) { break; }
    out.push_back(static_cast<int>(pid));
    at = *end == '\n' ? end + 1 : end;
  }
  return out;
}

Result<void> remove_group(const fs::path& folder) {
  std::error_code ec;
  if (!fs::exists(folder, ec)) { return {}; }
  for (const auto& entry : fs::directory_iterator(folder, ec)) {  // groups that the pod made itself
    if (entry.is_directory(ec)) { METIER_CHECK(remove_group(entry.path())); }
  }
  if (::rmdir(folder.c_str()) != 0 && errno != ENOENT) {
    return fail(errno_error(folder.string(), errno));
  }
  return {};
}

// Controller → where this process's own group of it is.
struct Hierarchies {
  std::map<std::string, fs::path, std::less<>> v1;
  fs::path v2;  // empty: not mounted
};

Hierarchies read_hierarchies(const fs::path& root) {
  Hierarchies out;
  const auto text = read_file(root / "proc/self/cgroup");
  if (!text) { return out; }
  std::size_t at = 0;
  while (at < text->size()) {
    const auto end = std::min(text->find('\n', at), text->size());
    const std::string_view line(text->data() + at, end - at);
    at = end + 1;
    const auto first = line.find(':');
    const auto second = line.find(':', first + 1);
    if (second == std::string_view::npos) { continue; }
    auto controllers = line.substr(first + 1, second - first - 1);
    const auto path = line.substr(second + 1);
    const auto relative = fs::path(path).relative_path();
    std::error_code ec;
    const auto place = [&](const fs::path& mount) {
      // In a container the path may be the host's: then the mount itself is our group.
      return fs::exists(mount / relative, ec) ? mount / relative : mount;
    };
    if (controllers.empty()) {
      for (const char* mount : {"sys/fs/cgroup", "sys/fs/cgroup/unified"}) {
        if (fs::exists(root / mount / "cgroup.controllers", ec)) { out.v2 = place(root / mount); }
      }
      continue;
    }
    const auto whole = std::string(controllers);
    while (!controllers.empty()) {
      const auto comma = std::min(controllers.find(','), controllers.size());
      const std::string name(controllers.substr(0, comma));
      controllers.remove_prefix(std::min(comma + 1, controllers.size()));
      for (const auto& mount : {root / "sys/fs/cgroup" / name, root / "sys/fs/cgroup" / whole}) {
        if (fs::exists(mount / "cgroup.procs", ec)) {
          out.v1[name] = place(mount);
          break;
        }
      }
    }
  }
  return out;
}

class NoCgroups final : public Cgroups {
 public:
  explicit NoCgroups(std::string why) : why_(std::move(why)) {}
  std::string about() const override { return "none: " + why_; }
  bool limits_memory() const override { return false; }
  bool limits_cpu() const override { return false; }
  Result<PodGroup> create(const std::string&, const PodLimits& limits) override {
    PodGroup group;
    if (limits.memory) { group.unenforced.push_back("memory: " + why_); }
    if (limits.cpu_milli) { group.unenforced.push_back("cpu: " + why_); }
    return group;
  }
  PodGroup find(const std::string&) const override { return {}; }
  std::vector<int> members(const std::string&) const override { return {}; }
  std::optional<GroupUsage> usage(const std::string&) const override { return std::nullopt; }
  Result<void> remove(const std::string&) override { return {}; }

 private:
  std::string why_;
};

class CgroupsV1 final : public Cgroups {
 public:
  explicit CgroupsV1(std::map<std::string, fs::path, std::less<>> places)
      : places_(std::move(places)) {}
  std::string about() const override { return "cgroup v1"; }
  bool limits_memory() const override { return places_.contains("memory"); }
  bool limits_cpu() const override { return places_.contains("cpu"); }

  Result<PodGroup> create(const std::string& id, const PodLimits& limits) override {
    auto group = make(id, limits);
    if (!group) { static_cast<void>(remove(id).has_value()); }
    return group;
  }
  PodGroup find(const std::string& id) const override {
    PodGroup group;
    std::error_code ec;
    for (const auto& [controller, place] : places_) {
      const auto folder = place / group_name(id);
      if (!fs::exists(folder, ec)) { continue; }
      group.procs.push_back(folder / "cgroup.procs");
      if (controller == "memory") { group.oom = folder / "memory.oom_control"; }
    }
    return group;
  }
  std::vector<int> members(const std::string& id) const override {
    const auto group = find(id);
    return group.procs.empty() ? std::vector<int>{} : pids_in(group.procs.front());
  }
  std::optional<GroupUsage> usage(const std::string& id) const override {
    if (find(id).procs.empty()) { return std::nullopt; }
    GroupUsage out;
    if (const auto it = places_.find("memory"); it != places_.end()) {
      out.memory = number_in(it->second / group_name(id) / "memory.usage_in_bytes");
      out.peak_memory = number_in(it->second / group_name(id) / "memory.max_usage_in_bytes");
    }
    if (const auto it = places_.find("cpuacct"); it != places_.end()) {
      out.cpu_us = number_in(it->second / group_name(id) / "cpuacct.usage") / 1000;
    }
    return out;
  }
  Result<void> remove(const std::string& id) override {
    for (const auto& [controller, place] : places_) {
      METIER_CHECK(remove_group(place / group_name(id)));
    }
    return {};
  }

 private:
  Result<PodGroup> make(const std::string& id, const PodLimits& limits) {
    PodGroup group;
    const auto enter = [&](std::string_view controller) -> Result<fs::path> {
      const auto folder = places_.find(controller)->second / group_name(id);
      if (::mkdir(folder.c_str(), 0755) != 0 && errno != EEXIST) {
        return fail(errno_error(folder.string(), errno));
      }
      group.procs.push_back(folder / "cgroup.procs");
      return folder;
    };
    if (limits.memory) {
      if (limits_memory()) {
        METIER_TRY(folder, enter("memory"));
        METIER_CHECK(set(folder / "memory.limit_in_bytes", std::to_string(*limits.memory)));
        // Swap counts too where it is accounted; elsewhere the file is not there.
        static_cast<void>(
            set(folder / "memory.memsw.limit_in_bytes", std::to_string(*limits.memory))
                .has_value());
        group.oom = folder / "memory.oom_control";
      } else {
        group.unenforced.push_back("memory: the cgroup controller memory is not there");
      }
    }
    if (limits.cpu_milli) {
      if (limits_cpu()) {
        METIER_TRY(folder, enter("cpu"));
        METIER_CHECK(set(folder / "cpu.cfs_period_us", std::to_string(kPeriodUs)));
        METIER_CHECK(set(
            folder / "cpu.cfs_quota_us",
            std::to_string(std::max<std::int64_t>(1000, *limits.cpu_milli * kPeriodUs / 1000))));
      } else {
        group.unenforced.push_back("cpu: the cgroup controller cpu is not there");
      }
    }
    // Mounted together with cpu or alone; its numbers are for `usage`.
    if (places_.contains("cpuacct") && !group.procs.empty()) { METIER_CHECK(enter("cpuacct")); }
    return group;
  }
  std::map<std::string, fs::path, std::less<>> places_;
};

class CgroupsV2 final : public Cgroups {
 public:
  CgroupsV2(fs::path place, bool memory, bool cpu)
      : place_(std::move(place)), memory_(memory), cpu_(cpu) {}
  std::string about() const override { return "cgroup v2"; }
  bool limits_memory() const override { return memory_; }
  bool limits_cpu() const override { return cpu_; }

  Result<PodGroup> create(const std::string& id, const PodLimits& limits) override {
    auto group = make(id, limits);
    if (!group) { static_cast<void>(remove(id).has_value()); }
    return group;
  }
  PodGroup find(const std::string& id) const override {
    PodGroup group;
    const auto folder = place_ / group_name(id);
    std::error_code ec;
    if (!fs::exists(folder, ec)) { return group; }
    group.procs.push_back(folder / "cgroup.procs");
    group.kill = folder / "cgroup.kill";
    if (memory_) { group.oom = folder / "memory.events"; }
    return group;
  }
  std::vector<int> members(const std::string& id) const override {
    return pids_in(place_ / group_name(id) / "cgroup.procs");
  }
  std::optional<GroupUsage> usage(const std::string& id) const override {
    const auto folder = place_ / group_name(id);
    std::error_code ec;
    if (!fs::exists(folder, ec)) { return std::nullopt; }
    return GroupUsage{.cpu_us = number_in(folder / "cpu.stat", "usage_usec "),
                      .memory = number_in(folder / "memory.current"),
                      .peak_memory = number_in(folder / "memory.peak")};
  }
  Result<void> remove(const std::string& id) override {
    return remove_group(place_ / group_name(id));
  }

 private:
  Result<PodGroup> make(const std::string& id, const PodLimits& limits) {
    const auto folder = place_ / group_name(id);
    if (::mkdir(folder.c_str(), 0755) != 0 && errno != EEXIST) {
      return fail(errno_error(folder.string(), errno));
    }
    auto group = find(id);
    if (limits.memory && memory_) {
      METIER_CHECK(set(folder / "memory.max", std::to_string(*limits.memory)));
      static_cast<void>(set(folder / "memory.swap.max", "0").has_value());
      static_cast<void>(set(folder / "memory.oom.group", "0").has_value());
    } else if (limits.memory) {
      group.unenforced.push_back(
          "memory: the cgroup controller memory is not delegated to this group");
    }
    if (limits.cpu_milli && cpu_) {
      METIER_CHECK(set(
          folder / "cpu.max",
          fmt::format("{} {}", std::max<std::int64_t>(1000, *limits.cpu_milli * kPeriodUs / 1000),
                      kPeriodUs)));
    } else if (limits.cpu_milli) {
      group.unenforced.push_back("cpu: the cgroup controller cpu is not delegated to this group");
    }
    return group;
  }
  fs::path place_;
  bool memory_;
  bool cpu_;
};

bool has_word(std::string_view text, std::string_view word) {
  for (auto at = text.find(word); at != std::string_view::npos; at = text.find(word, at + 1)) {
    const bool starts = at == 0 || text[at - 1] == ' ';
    const auto after = at + word.size();
    if (starts && (after >= text.size() || text[after] == ' ' || text[after] == '\n')) {
      return true;
    }
  }
  return false;
}

// v2 gives limits to children only of a group without processes: this process moves to a leaf of its own first.
std::unique_ptr<Cgroups> open_v2(const fs::path& place) {
  const auto offered = read_file(place / "cgroup.controllers").value_or("");
  const bool memory = has_word(offered, "memory");
  const bool cpu = has_word(offered, "cpu");
  if (!memory && !cpu) { return nullptr; }
  const auto leaf = place / "metier-server";
  if (::mkdir(leaf.c_str(), 0755) != 0 && errno != EEXIST) { return nullptr; }
  for (const int pid : pids_in(place / "cgroup.procs")) {
    static_cast<void>(set(leaf / "cgroup.procs", std::to_string(pid)).has_value());
  }
  std::string wanted;
  if (memory) { wanted += "+memory "; }
  if (cpu) { wanted += "+cpu"; }
  if (!set(place / "cgroup.subtree_control", wanted)) { return nullptr; }
  return std::make_unique<CgroupsV2>(place, memory, cpu);
}

}  // namespace

std::unique_ptr<Cgroups> host_cgroups(const fs::path& root, std::string_view force) {
  if (force.find("no-cgroup") != std::string_view::npos) {
    return std::make_unique<NoCgroups>("METIER_FORCE says no-cgroup");
  }
  auto found = read_hierarchies(root);
  std::map<std::string, fs::path, std::less<>> usable;
  for (const char* name : {"memory", "cpu", "cpuacct", "pids"}) {
    const auto it = found.v1.find(name);
    if (it != found.v1.end() && ::access(it->second.c_str(), W_OK) == 0) { usable.insert(*it); }
  }
  if (usable.contains("memory") || usable.contains("cpu")) {
    return std::make_unique<CgroupsV1>(std::move(usable));
  }
  if (!found.v2.empty() && ::access(found.v2.c_str(), W_OK) == 0) {
    if (auto v2 = open_v2(found.v2)) { return v2; }
  }
  return std::make_unique<NoCgroups>(
      "no cgroup with the controllers memory or cpu can be written here");
}

}  // namespace metier
