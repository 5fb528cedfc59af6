// The functions that read the durable queues of a serving graph: MLRun's child functions.
#pragma once

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "model/function.h"

namespace metier {

// `spec.function_refs` by name: an object of references, or MLRun's list of references with a name. They live as long as the document.
std::vector<std::pair<std::string, const JsonObject*>> function_references(const Function& parent);

// Readers before those that write to them: the parent's code and graph, unless `function_refs` says otherwise, with a trigger on the queue. Named
// "<parent>-<name>", consumer group "<parent>-<name>-consumer-group" unless the queue's option `group` says another. They are deployed
// before the parent, so that what it writes has a reader. Empty for other kinds, routers, children themselves and graphs without such
// queues; code files are read relative to `folder`.
// Errors: invalid (a function that function_refs does not name, a queue that cannot trigger, two queues of one function), not_found (code).
Result<std::vector<Function>> child_functions(const Function& parent,
                                              const std::filesystem::path& folder);

}  // namespace metier
