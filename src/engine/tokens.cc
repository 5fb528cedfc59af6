#include "engine/tokens.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include <array>

namespace metier {
namespace {
constexpr std::string_view kScope = "server";
constexpr std::string_view kName = "run_token_key";
constexpr std::string_view kPrefix = "mrt_";
}  // namespace

Async<Result<RunTokens>> RunTokens::open(Store& store, Random& random) {
  auto known = store.records().setting(std::string(kScope), std::string(kName));
  if (!known) { co_return fail(std::move(known.error())); }
  if (*known) { co_return RunTokens(**known); }
  const std::string key = random.hex(32);
  auto stored = co_await store.write([key](Records& tx) {
    return tx.put_setting(std::string(kScope), std::string(kName), key, std::nullopt);
  });
  if (!stored) { co_return fail(std::move(stored.error())); }
  co_return RunTokens(key);
}

std::string RunTokens::mac(std::string_view project, std::string_view uid) const {
  std::string text(project);
  text += '\n';
  text += uid;
  std::array<unsigned char, EVP_MAX_MD_SIZE> out{};
  unsigned size = 0;
  HMAC(EVP_sha256(), key_.data(), static_cast<int>(key_.size()),
       reinterpret_cast<const unsigned char*>(text.data()), text.size(), out.data(), &size);
  std::string hex;
  constexpr std::string_view kDigits = "0123456789abcdef";
  for (unsigned i = 0; i < size; ++i) {
    hex += kDigits[out[i] >> 4U];
    hex += kDigits[out[i] & 15U];
  }
  return hex;
}

std::string RunTokens::token(std::string_view project, std::string_view uid) const {
  std::string out(kPrefix);
  out += project;
  out += '.';
  out += uid;
  out += '.';
  out += mac(project, uid);
  return out;
}

std::optional<TokenRun> RunTokens::check(std::string_view token) const {
  if (key_.empty() || !token.starts_with(kPrefix) || token.size() > 400) { return std::nullopt; }
  token.remove_prefix(kPrefix.size());
  const std::size_t first = token.find('.');
  const std::size_t last = token.rfind('.');
  if (first == std::string_view::npos || last == first) { return std::nullopt; }
  TokenRun run{std::string(token.substr(0, first)),
               std::string(token.substr(first + 1, last - first - 1))};
  const std::string expected = mac(run.project, run.uid);
  const std::string_view given = token.substr(last + 1);
  if (given.size() != expected.size() ||
      CRYPTO_memcmp(given.data(), expected.data(), expected.size()) != 0) {
    return std::nullopt;
  }
  return run;
}

}  // namespace metier
