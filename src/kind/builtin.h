// The kinds of this build.
#pragma once

#include "kind/kind.h"
#include "kind/nuclio/nuclio_kind.h"

namespace metier {

// handler local job dask mpijob spark remote-spark nuclio serving, in this order.
// `check`: what the processor of this build says of a function.
KindRegistry builtin_kinds(FunctionCheck check = {});

}  // namespace metier
