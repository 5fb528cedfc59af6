// JSON values as Python sees them: truth, equality, order, text.
#pragma once

#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"

namespace metier::serving {

// "int", "float", "str", "bool", "list", "dict", "NoneType".
std::string_view python_type(const Json& value);
// Python's bool(value).
bool is_true(const Json& value);
// Python's a == b: 1 == 1.0 == True.
bool equal(const Json& a, const Json& b);
// Python's order of numbers, texts and lists; nothing where Python raises TypeError.
std::optional<std::partial_ordering> ordered(const Json& a, const Json& b);
std::string repr(const Json& value);
std::string str(const Json& value);
// An int or a bool; nothing for whole numbers beyond 64 bits with sign.
std::optional<std::int64_t> whole(const Json& value);
// Any number.
std::optional<double> real(const Json& value);
// The key that json.dumps writes for a dict's key that is no text.
std::string json_key(const Json& key);
// Where each code point of UTF-8 text begins, and its end.
std::vector<std::size_t> code_points(std::string_view text);
// Without spaces at both ends (ASCII's), as int() and float() read.
std::string_view trimmed(std::string_view text);
std::optional<double> parsed_float(std::string_view text);

}  // namespace metier::serving
