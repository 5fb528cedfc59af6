#include "base/digest.h"

#include <openssl/evp.h>
#include <sys/random.h>

#include <array>
#include <cstdlib>

namespace metier {
namespace {

std::string to_hex(const unsigned char* bytes, std::size_t n) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string out;
  out.reserve(n * 2);
  for (std::size_t i = 0; i < n; ++i) {
    out += kDigits[bytes[i] >> 4U];
    out += kDigits[bytes[i] & 15U];
  }
  return out;
}

std::string digest_hex(const EVP_MD* kind, std::string_view data) {
  unsigned char out[EVP_MAX_MD_SIZE];
  unsigned int size = 0;
  EVP_Digest(data.data(), data.size(), out, &size, kind, nullptr);
  return to_hex(out, size);
}

constexpr std::array<std::uint32_t, 256> crc_table() {
  std::array<std::uint32_t, 256> table{};
  for (std::uint32_t i = 0; i < 256; ++i) {
    std::uint32_t c = i;
    for (int k = 0; k < 8; ++k) { c = (c & 1U) != 0 ? 0x82f63b78U ^ (c >> 1U) : c >> 1U; }
    table[i] = c;
  }
  return table;
}

class SystemRandom final : public Random {
 public:
  void fill(char* out, std::size_t n) override {
    while (n > 0) {
      const auto got = getrandom(out, n, 0);
      if (got <= 0) {
        std::abort();
      }  // the kernel cannot give random bytes: nothing safe is left to do
      out += got;
      n -= static_cast<std::size_t>(got);
    }
  }
};

}  // namespace

std::string sha1_hex(std::string_view data) { return digest_hex(EVP_sha1(), data); }
std::string sha256_hex(std::string_view data) { return digest_hex(EVP_sha256(), data); }

std::uint32_t crc32c(std::string_view data) {
  static constexpr auto kTable = crc_table();
  std::uint32_t crc = 0xffffffffU;
  for (const char c : data) {
    crc = kTable[(crc ^ static_cast<unsigned char>(c)) & 0xffU] ^ (crc >> 8U);
  }
  return crc ^ 0xffffffffU;
}

std::string base64_encode(std::string_view data) {
  std::string out((data.size() + 2) / 3 * 4 + 1, '\0');
  const int n = EVP_EncodeBlock(reinterpret_cast<unsigned char*>(out.data()),
                                reinterpret_cast<const unsigned char*>(data.data()),
                                static_cast<int>(data.size()));
  out.resize(static_cast<std::size_t>(n));
  return out;
}

Result<std::string> base64_decode(std::string_view text) {
  std::string clean;
  for (const char c : text) {
    if (c != '\n' && c != '\r' && c != ' ') { clean += c; }
  }
  if (clean.size() % 4 != 0) {
    return fail(ErrorKind::invalid, "not base64: its length is not a multiple of 4");
  }
  std::string out(clean.size() / 4 * 3, '\0');
  const int n = EVP_DecodeBlock(reinterpret_cast<unsigned char*>(out.data()),
                                reinterpret_cast<const unsigned char*>(clean.data()),
                                static_cast<int>(clean.size()));
  if (n < 0) { return fail(ErrorKind::invalid, "not base64"); }
  std::size_t size = static_cast<std::size_t>(n);
  if (clean.ends_with("==")) {
    size -= 2;
  } else if (clean.ends_with("=")) {
    size -= 1;
  }
  out.resize(size);
  return out;
}

std::string Random::hex(std::size_t bytes) {
  std::string raw(bytes, '\0');
  fill(raw.data(), bytes);
  return to_hex(reinterpret_cast<const unsigned char*>(raw.data()), bytes);
}

Random& system_random() {
  static SystemRandom random;
  return random;
}

std::string new_uid(Random& random) {
  std::string raw(16, '\0');
  random.fill(raw.data(), raw.size());
  raw[6] = static_cast<char>((raw[6] & 0x0f) | 0x40);
  raw[8] = static_cast<char>((raw[8] & 0x3f) | 0x80);
  return to_hex(reinterpret_cast<const unsigned char*>(raw.data()), raw.size());
}

}  // namespace metier
