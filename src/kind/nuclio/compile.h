// From MLRun's function document to Nuclio's: what MLRun's server does before it hands a function to Nuclio
// (function-kinds reference 2.8). Pure.
#pragma once

#include "kind/kind.h"
#include "model/nuclio/schema.h"

namespace metier::nuclio {

// "<project>-<name>" or "<project>-<name>-<tag>", at most 63 bytes.
std::string function_name(const Function& function, std::string_view project);

// The document NuclioFunction, complete: base_spec, then `config` keys, then the attributes that MLRun has of its own.
// Without status. Errors: invalid (a volume without mount or a mount without volume, a config key that is no path).
Result<Resource> compile(const Subject& subject, const Site& site);

// The module of "module:function" ("main" when it names none), with dots.
std::string module_of(std::string_view handler);
// The function of it ("handler" when it names none).
std::string entry_of(std::string_view handler);

}  // namespace metier::nuclio
