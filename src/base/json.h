// JSON documents. The document type is Boost.JSON's value: insertion order is kept, unknown fields stay.
// Reading is bounded and accepts what Python's json.dumps writes (NaN, Infinity); writing never emits
// invalid JSON.
#pragma once

#include <boost/json/value.hpp>

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"

namespace metier {

using Json = boost::json::value;
using JsonObject = boost::json::object;
using JsonArray = boost::json::array;

struct JsonLimits {
  std::size_t bytes = 16U << 20U;
  std::size_t depth = 128;
  std::size_t nodes = 1'000'000;
};

// Errors: invalid with the byte offset; too_large past `bytes`. Duplicate keys are refused (`kind` given
// twice must not mean two things to two readers). Integers beyond 64 bits (below -2^63, above 2^64 - 1)
// become the nearest double, as in JavaScript; readers that need an exact integer refuse doubles. Bare NaN, Infinity and -Infinity are read as such doubles.
Result<Json> parse_json(std::string_view text, const JsonLimits& limits = {});

enum class JsonStyle { compact, pretty };
// NaN and infinities are written as null (as MLRun's server answers them).
std::string dump_json(const Json& value, JsonStyle style = JsonStyle::compact);
std::string dump_object(const JsonObject& object);  // compact, without a copy into a value
void dump_json_to(std::string& out, const Json& value);
// The text of an object, as dump_json writes it compactly, with `member` (`"key":value`) added at the end of the object
// under its key `parent`; nothing is parsed. False, and nothing is changed, when there is no object under that key.
bool add_member_text(std::string& object, std::string_view parent, std::string_view member);
// The text of Python's json.dumps(value, sort_keys=True): ", " and ": ", \uXXXX escapes, floats by repr,
// NaN as NaN. It is what MLRun hashes.
std::string dump_python_json(const Json& value);
// The shortest text that reads back as the same double, as Python's repr prints it ("1e-07", "0.1", "1.0").
std::string python_float(double value);

// Reading without exceptions. The pointer is null when the value is absent or of another type.
const JsonObject* object_in(const JsonObject& object, std::string_view key);
JsonObject* object_in(JsonObject& object, std::string_view key);
const JsonArray* array_in(const JsonObject& object, std::string_view key);
std::string_view string_in(const JsonObject& object, std::string_view key,
                           std::string_view fallback = {});
std::optional<std::int64_t> int_in(const JsonObject& object, std::string_view key);
bool bool_in(const JsonObject& object, std::string_view key, bool fallback = false);
// The object at `key`, made when absent (or when it is null or of another type).
JsonObject& ensure_object(JsonObject& object, std::string_view key);
JsonArray& ensure_array(JsonObject& object, std::string_view key);
// The value at a dotted path ("status.state"), or null. No escapes.
const Json* find_path(const Json& root, std::string_view dotted);
const Json* find_path(const JsonObject& root, std::string_view dotted);
std::string_view string_at(const Json& root, std::string_view dotted,
                           std::string_view fallback = {});
// MLRun's PATCH paths: dots split; a backslash toggles literal mode and is dropped
// ("status.results.\a.b\" is the key "a.b"). Missing parents are made.
// Errors: invalid when the document would be nested deeper than JsonLimits lets it be read again.
Result<void> set_dotted(JsonObject& root, std::string_view path, Json value);
// "object", "list", "text", "integer", "number", "boolean", "null": for error messages.
std::string_view type_name(const Json& value);
// None, {} and [] as MLRun drops them.
bool is_empty_value(const Json& value);

}  // namespace metier
