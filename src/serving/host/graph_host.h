// Graphs in the processor. Knows: serving, realtime.
#pragma once

#include "realtime/processor.h"

namespace metier::serving {

// Runtime "graph": every step runs here, no interpreter. The graph is the spec in SERVING_SPEC_ENV, the file "graph.json" of the code, or
// what the code's library exports (METIER_GRAPH).
Result<std::unique_ptr<realtime::Host>> make_graph_host(const realtime::HostSite& site);
// Runtime "python": a serving function's workers with the native steps at the start of its graph before them; any other function's
// workers as they are.
Result<std::unique_ptr<realtime::Host>> make_segment_host(const realtime::HostSite& site);

}  // namespace metier::serving
