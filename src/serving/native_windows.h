// storey's AggregateByKey: aggregates over time by key, kept in memory.
#pragma once

#include "serving/native_steps.h"

namespace metier::serving {

Result<std::unique_ptr<NativeStep>> make_aggregate_step(const StepSite& site);

}  // namespace metier::serving
