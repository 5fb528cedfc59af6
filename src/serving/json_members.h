// The members of a JSON object as texts, found in one pass that builds no values: for bodies of which steps see little.
#pragma once

#include <cstddef>
#include <optional>
#include <string_view>
#include <vector>

namespace metier::serving {

struct JsonMember {
  std::string_view key;    // what is between the quotes; it has no escapes
  std::string_view value;  // its text, without spaces around it
};

// Smaller bodies are read whole as quickly; larger ones may hold more than a reader of values takes.
constexpr std::size_t kMembersFrom = 1024, kMembersTo = 1U << 20U;

// The text is checked to its end. Nothing where it is no JSON object, and where readers differ or have more to say: NaN, halves of
// surrogates, escapes in the object's own keys, nesting beyond 60, more than 64 members. A key given twice has the place of the first
// and the value of the last, as in Python; nobody looks for that inside values.
std::optional<std::vector<JsonMember>> json_members(std::string_view text);

}  // namespace metier::serving
