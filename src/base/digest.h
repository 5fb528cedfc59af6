// Digests and random identifiers.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"

namespace metier {

std::string sha1_hex(std::string_view data);
std::string sha256_hex(std::string_view data);
std::uint32_t crc32c(std::string_view data);
std::string base64_encode(std::string_view data);
Result<std::string> base64_decode(std::string_view text);

// Random bytes come through this interface so that tests are repeatable. Thread-safe.
class Random {
 public:
  virtual ~Random() = default;
  virtual void fill(char* out, std::size_t n) = 0;
  std::string hex(std::size_t bytes);
};
// getrandom(2).
Random& system_random();
// A uid as Python's uuid4().hex: 32 hex digits.
std::string new_uid(Random& random);

}  // namespace metier
