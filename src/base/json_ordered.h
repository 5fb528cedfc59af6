// JSON as Python's json module reads and writes it.
#pragma once

#include <string>
#include <string_view>

#include "base/json.h"

namespace metier {

// As parse_json; a key given twice has its last value, as json.loads reads it.
Result<Json> parse_python_json(std::string_view text);
// The text of json.dumps(value): as dump_python_json, members in the order in which they are.
std::string dump_python_ordered(const Json& value);

}  // namespace metier
