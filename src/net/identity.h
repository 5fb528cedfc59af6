// Certificates that nobody has to keep: the same secret and name give the same key and certificate (Ed25519, signed by
// itself), so whoever holds the secret can make it again.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"

namespace metier::net {

struct Identity {
  std::string certificate;  // PEM; also the only authority that it trusts
  std::string key;          // PEM, PKCS#8
};
// Valid from 2020 to 2049. Errors: internal, when OpenSSL has no Ed25519.
Result<Identity> derive_identity(std::string_view secret, std::string_view name);

}  // namespace metier::net
