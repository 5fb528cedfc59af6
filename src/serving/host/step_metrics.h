// What a graph's steps cost, for Prometheus.
#pragma once

#include <span>

#include "realtime/metrics.h"
#include "serving/step_stats.h"

namespace metier::serving {

// Buckets past the last that has anything are left out. Steps that saw no event too.
void write_step_metrics(std::span<const StepCost> costs, realtime::MetricsWriter& out);

}  // namespace metier::serving
