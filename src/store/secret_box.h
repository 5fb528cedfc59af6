// Encryption of secrets at rest: AES-256-GCM, a key file outside the database, the place of the secret as
// associated data, so that a row copied to another name does not decrypt.
#pragma once

#include <string>
#include <string_view>

#include "base/digest.h"
#include "base/result.h"

namespace metier {

class SecretBox final {
 public:
  // Reads the key file, makes it (0600, durable) when absent. Errors: invalid when it is damaged.
  static Result<SecretBox> open(const std::string& key_file, Random& random);
  std::string seal(std::string_view plain, std::string_view place) const;
  Result<std::string> open_sealed(std::string_view sealed, std::string_view place) const;

 private:
  SecretBox(std::string key, Random& random) : key_(std::move(key)), random_(&random) {}
  std::string key_;
  Random* random_;
};

}  // namespace metier
