// Kinds that can be created, described, stored, exported and imported, but not run by this build. Each says so in a
// sentence; lowering one is `unsupported` (exit 5).
#pragma once

#include <vector>

#include "kind/kind.h"

namespace metier {
// mpijob serving
std::vector<std::unique_ptr<Kind>> make_unavailable_kinds();
}  // namespace metier
