#include "serving/host/step_metrics.h"

#include <fmt/format.h>

namespace metier::serving {

void write_step_metrics(std::span<const StepCost> costs, realtime::MetricsWriter& out) {
  for (const StepCost& cost : costs) {
    const std::uint64_t count = cost.count();
    if (count == 0) { continue; }
    std::uint64_t so_far = 0;
    for (std::size_t i = 0; i + 1 < StepCost::kBuckets && so_far < count; ++i) {
      so_far += cost.buckets[i];
      if (so_far == 0) { continue; }
      out.counter("metier_graph_step_seconds_bucket", "time in a step of the graph",
                  {{"step", cost.name}, {"le", fmt::format("{:g}", StepCost::bound(i))}}, so_far);
    }
    out.counter("metier_graph_step_seconds_bucket", "time in a step of the graph",
                {{"step", cost.name}, {"le", "+Inf"}}, count);
  }
  for (const StepCost& cost : costs) {
    if (cost.count() > 0) {
      out.gauge("metier_graph_step_seconds_sum", "time in a step of the graph",
                {{"step", cost.name}}, static_cast<double>(cost.sum_ns) * 1e-9);
    }
  }
  for (const StepCost& cost : costs) {
    if (cost.count() > 0) {
      out.counter("metier_graph_step_events_total", "events that came to a step",
                  {{"step", cost.name}}, cost.count());
    }
  }
  for (const StepCost& cost : costs) {
    if (cost.count() > 0) {
      out.counter("metier_graph_step_failures_total", "events on which a step failed",
                  {{"step", cost.name}}, cost.failures);
    }
  }
}

}  // namespace metier::serving
