// Any bytes: bounded, no crash; what is accepted prints as JSON that reads back as the same value, compact and pretty;
// Python's form has no byte that is not ASCII.
#include "base/json.h"

#include <algorithm>

#include "fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  using namespace metier;
  const auto text = fuzz::text_of(data, size);
  const JsonLimits limits{.bytes = 8192, .depth = 40, .nodes = 2000};
  const auto value = parse_json(text, limits);
  if (!value) {
    fuzz::require_sentence(value.error());
    return 0;
  }
  const auto once = dump_json(*value);
  const auto again = parse_json(once);
  fuzz::require(again.has_value(), "what was printed does not read", once);
  fuzz::require(dump_json(*again) == once, "printing is not stable", once);
  const auto pretty = parse_json(dump_json(*value, JsonStyle::pretty));
  fuzz::require(pretty.has_value() && dump_json(*pretty) == once, "pretty differs", once);
  const auto python = dump_python_json(*value);
  fuzz::require(std::ranges::all_of(python, [](char c) { return c >= ' ' && c < 127; }),
                "Python's form is not ASCII", python);
  if (const auto* object = value->if_object()) {
    JsonObject copy = *object;
    for (const auto& [key, item] : *object) {
      if (const auto set = set_dotted(copy, key, item); !set) {
        fuzz::require_sentence(set.error());
      }
    }
    fuzz::require(parse_json(dump_json(Json(copy))).has_value(), "dotted paths break it", once);
  }
  return 0;
}
