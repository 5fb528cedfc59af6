// What the steps of a serving graph have cost, read from its processors' /metrics.
#pragma once

#include <span>
#include <string>

#include "base/json.h"

namespace metier::api {

// [{"name", "events", "failures", "seconds"}], summed over the processors, in the order in which the first one names them.
JsonArray graph_steps(std::span<const std::string> metrics);

}  // namespace metier::api
