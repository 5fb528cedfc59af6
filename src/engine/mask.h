// Masks secret values: as many '*' as the value has bytes, so that offsets stay true. Also over pieces of a log
// that are read one by one: a value that lies across two reads is masked in both.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"

namespace metier {

class Masker final {
 public:
  // Values shorter than 4 bytes are left out: masking "1" would destroy every text. Of a value with several
  // lines each line of 4 bytes or more is masked too.
  explicit Masker(std::vector<std::string> values = {});

  bool empty() const { return values_.empty(); }
  std::size_t longest() const { return longest_; }

  // Masks every whole value in `text`, in place.
  void mask(std::string& text) const;
  // Every text inside a document (keys stay).
  void mask(Json& value) const;
  // How many bytes at the end of `text` may be the beginning of a value: not to be shown yet.
  std::size_t undecided(std::string_view text) const;

 private:
  std::vector<std::string> values_;  // longest first
  std::size_t longest_ = 0;
};

}  // namespace metier
