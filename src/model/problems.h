// Collects what is wrong with one document, in document order, so that a user hears of all of it at once.
#pragma once

#include <vector>

#include "base/result.h"

namespace metier {

class ProblemList {
 public:
  static constexpr std::size_t kMost = 20;
  void add(Error error);
  void add(std::string_view field, std::string message, std::string fix = {}) {
    add(invalid(field, std::move(message), std::move(fix)));
  }
  bool empty() const { return errors_.empty(); }
  // Nothing when there are none; the error itself when there is one; else one error "N problems" with the first's
  // field and a line for each in `fix`.
  Result<void> result() &&;

 private:
  std::vector<Error> errors_;
  std::size_t more_ = 0;
};

}  // namespace metier
