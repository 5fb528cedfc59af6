// The kinds of this build.
#pragma once

#include "kind/kind.h"

namespace metier {

// handler local job dask mpijob spark remote-spark nuclio serving, in this order.
KindRegistry builtin_kinds();

}  // namespace metier
