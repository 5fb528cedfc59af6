// Where a processor finds its graph.
#pragma once

#include <string>
#include <vector>

#include "base/json.h"
#include "realtime/processor_config.h"

namespace metier::serving {

struct GraphSource {
  JsonObject graph;
  std::string current_function = "*";
  std::string default_content_type;
  std::vector<std::string> folders;  // of libraries
};

// The file graph.json of the code, else SERVING_SPEC_ENV, else what the library of the handler exports. Errors: invalid, with what is
// missing.
Result<GraphSource> graph_source(const realtime::ProcessorConfig& config);
// The value of a variable of the processor, or of those that it was told.
std::string variable(const realtime::ProcessorConfig& config, std::string_view name);

}  // namespace metier::serving
