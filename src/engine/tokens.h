// Tokens of runs: what a pod shows at the run-token listener. A token names its run and is made from a random key
// that the store keeps, so that it holds after a restart and nothing is stored per run; it is good for its own
// project, and only while its run has not ended (who checks a token asks for the run's state).
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "base/digest.h"
#include "store/store.h"

namespace metier {

struct TokenRun {
  std::string project;
  std::string uid;
};

class RunTokens final {
 public:
  explicit RunTokens(std::string key = {}) : key_(std::move(key)) {}
  // Reads the key, makes it at the first start.
  static Async<Result<RunTokens>> open(Store& store, Random& random);

  std::string token(std::string_view project, std::string_view uid) const;
  // nullopt: not one of ours. Compares in constant time.
  std::optional<TokenRun> check(std::string_view token) const;

 private:
  std::string mac(std::string_view project, std::string_view uid) const;
  std::string key_;
};

}  // namespace metier
