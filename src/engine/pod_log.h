// The log of a container of a pod on this machine: its file, for what the cluster's contract does not tell.
#pragma once

#include <optional>
#include <string>

#include "cluster/cluster.h"

namespace metier {

// nullopt: the pod's folder is not on this machine. `container.attempt` 0 is the first start.
std::optional<std::string> log_file_of_pod(const Cluster& cluster, const ContainerRef& container);

}  // namespace metier
