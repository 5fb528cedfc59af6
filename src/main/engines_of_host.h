// Which engines this machine has for the kinds that need one.
#pragma once

#include <string>
#include <vector>

#include "cluster/cluster.h"

namespace metier {

// Looks at files only. `python`: the default environment's interpreter, whose programs are found first.
std::vector<KindHealth> engines_of_host(const std::string& python);

}  // namespace metier
