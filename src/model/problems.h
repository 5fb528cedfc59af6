// Collects what is wrong with one document, in document order, so that a user hears of all of it at once.
#pragma once

#include <vector>

#include "base/json.h"
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

// "expected text, got an object": what a value should be, and the type that it has.
std::string expected(std::string_view what, const Json& got);
// "'jar' is unknown, did you mean 'jars'?"; `near` is what `nearest` found, or empty.
std::string unknown_name(std::string_view given, std::string_view near);

}  // namespace metier
