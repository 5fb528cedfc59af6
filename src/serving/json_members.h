// The members of a JSON object as texts, found in one pass that builds no values: for bodies of which steps see little.
#pragma once

#include <algorithm>
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

// Down from a member's text through large objects by the names of a path (`name_of(i)` of `count`), from the `at`-th on; `at` is then
// the first name that is left to follow in the value. Nothing where an object has no such member.
template <class NameOf>
std::optional<std::string_view> descend(std::string_view text, std::size_t& at, std::size_t count,
                                        NameOf name_of) {
  for (; at < count && text.size() >= kMembersFrom; ++at) {
    const auto members = json_members(text);
    if (!members) { break; }
    const auto found = std::ranges::find(*members, name_of(at), &JsonMember::key);
    if (found == members->end()) { return std::nullopt; }
    text = found->value;
  }
  return text;
}

}  // namespace metier::serving
