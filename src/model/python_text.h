// str(value) as Python gives it for what JSON can hold: "True", "2.5", "None"; lists and objects by json.dumps.
#pragma once

#include <string>

#include "base/json.h"

namespace metier {

inline std::string python_text(const Json& value) {
  if (value.is_string()) { return std::string(value.get_string()); }
  if (value.is_bool()) { return value.get_bool() ? "True" : "False"; }
  if (value.is_null()) { return "None"; }
  return value.is_double() ? python_float(value.get_double()) : dump_python_json(value);
}

// What Python calls false: None, False, 0, "", [], {}.
inline bool is_falsy(const Json& value) {
  return is_empty_value(value) || (value.is_bool() && !value.get_bool()) ||
         (value.is_string() && value.get_string().empty()) ||
         (value.is_int64() && value.get_int64() == 0) ||
         (value.is_double() && value.get_double() == 0);
}

}  // namespace metier
