#include "engine/pod_log.h"

#include <filesystem>

namespace metier {

std::optional<std::string> log_file_of_pod(const Cluster& cluster, const ContainerRef& container) {
  const auto work = cluster.work_folder(container.name_space, container.pod);
  if (!work) { return std::nullopt; }
  std::string name = container.container.empty() ? "log" : "log." + container.container;
  if (container.attempt > 1) { name += "@" + std::to_string(container.attempt); }
  return (std::filesystem::path(*work).parent_path() / name).string();
}

}  // namespace metier
