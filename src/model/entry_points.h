// The functions of a Python file, found by reading its text: no interpreter is started and nothing is run.
#pragma once

#include <string_view>
#include <vector>

#include "base/json.h"

namespace metier {

// spec.entry_points as MLRun writes them: name → {name, doc, parameters [{name, type, doc, default}], outputs,
// lineno, has_varargs, has_kwargs}. Functions that begin with "_" are left out; where a line "# mlrun:handler"
// stands, only the marked ones count. What is no Python text gives fewer entries, never an error.
JsonObject find_entry_points(std::string_view code);

// Names that a handler could have: top-level functions and classes of the file, in order.
std::vector<std::string> top_level_names(std::string_view code);

}  // namespace metier
