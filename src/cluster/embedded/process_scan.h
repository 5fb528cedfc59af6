// Looks through /proc for what is left of a pod whose shim is gone, and for what a live pod uses.
#pragma once

#include <string>
#include <vector>

#include "cluster/cluster.h"

namespace metier {

struct KnownMain {
  int pid = 0;
  long long ticks = 0;  // field 22 of its stat: it is still the same process
};

// Living processes that carry METIER_POD_UID=<id>, that are one of `mains`, in their sessions, or below any of
// those. Only processes that this user may look at.
std::vector<int> pod_processes(const std::string& id, const std::vector<KnownMain>& mains);

// Processor time, memory and number of everything below `shim`.
Usage tree_usage(int shim);

}  // namespace metier
