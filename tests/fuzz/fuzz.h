// What the targets share: the input as text, and an oracle that says what it saw before it stops the program.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>

#include "base/result.h"

namespace metier::fuzz {

inline std::string_view text_of(const unsigned char* data, std::size_t size) {
  return {reinterpret_cast<const char*>(data), size};
}

inline void require(bool holds, std::string_view what, std::string_view seen = {}) {
  if (holds) { return; }
  std::fprintf(stderr, "oracle: %.*s: %.*s\n", static_cast<int>(what.size()), what.data(),
               static_cast<int>(seen.size()), seen.data());
  std::abort();
}

// A refusal that a person can act on.
inline void require_sentence(const Error& error) {
  require(!error.message.empty(), "an error without a message");
  require(error.message.size() < 4096, "an error message as long as its input", error.message);
}

}  // namespace metier::fuzz
