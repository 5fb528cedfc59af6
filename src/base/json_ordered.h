// The text of Python's json.dumps(value): as dump_python_json, members in the order in which they are.
#pragma once

#include <string>

#include "base/json.h"

namespace metier {

std::string dump_python_ordered(const Json& value);

}  // namespace metier
