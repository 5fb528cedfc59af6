#include "store/secret_box.h"

#include <openssl/evp.h>

#include <memory>

#include "base/files.h"

namespace metier {
namespace {

constexpr std::size_t kKey = 32;
constexpr std::size_t kNonce = 12;
constexpr std::size_t kTag = 16;
constexpr char kKeyId = 1;  // of the first key; rotation adds others

struct FreeContext {
  void operator()(EVP_CIPHER_CTX* context) const { EVP_CIPHER_CTX_free(context); }
};
using Context = std::unique_ptr<EVP_CIPHER_CTX, FreeContext>;

const unsigned char* bytes(std::string_view text) {
  return reinterpret_cast<const unsigned char*>(text.data());
}
unsigned char* bytes(std::string& text) { return reinterpret_cast<unsigned char*>(text.data()); }

}  // namespace

Result<SecretBox> SecretBox::open(const std::string& key_file, Random& random) {
  auto key = read_record(key_file);
  if (!key && key.error().kind == ErrorKind::not_found) {
    std::string fresh(kKey, '\0');
    random.fill(fresh.data(), fresh.size());
    METIER_CHECK(write_record(key_file, fresh));
    return SecretBox(std::move(fresh), random);
  }
  if (!key) { return fail(std::move(key.error())); }
  if (key->size() != kKey) {
    return fail(ErrorKind::invalid, key_file + ": not a key of 32 bytes");
  }
  return SecretBox(std::move(*key), random);
}

// key id (1) | nonce (12) | ciphertext | tag (16)
std::string SecretBox::seal(std::string_view plain, std::string_view place) const {
  std::string nonce(kNonce, '\0');
  random_->fill(nonce.data(), nonce.size());
  std::string cipher(plain.size(), '\0');
  std::string tag(kTag, '\0');
  const Context context(EVP_CIPHER_CTX_new());
  int size = 0;
  EVP_EncryptInit_ex(context.get(), EVP_aes_256_gcm(), nullptr, bytes(key_), bytes(nonce));
  EVP_EncryptUpdate(context.get(), nullptr, &size, bytes(place), static_cast<int>(place.size()));
  EVP_EncryptUpdate(context.get(), bytes(cipher), &size, bytes(plain),
                    static_cast<int>(plain.size()));
  EVP_EncryptFinal_ex(context.get(), bytes(cipher) + size, &size);
  EVP_CIPHER_CTX_ctrl(context.get(), EVP_CTRL_GCM_GET_TAG, kTag, tag.data());
  return std::string(1, kKeyId) + nonce + cipher + tag;
}

Result<std::string> SecretBox::open_sealed(std::string_view sealed, std::string_view place) const {
  if (sealed.size() < 1 + kNonce + kTag || sealed.front() != kKeyId) {
    return fail(ErrorKind::invalid, "a stored secret is damaged");
  }
  const auto nonce = sealed.substr(1, kNonce);
  const auto cipher = sealed.substr(1 + kNonce, sealed.size() - 1 - kNonce - kTag);
  std::string tag(sealed.substr(sealed.size() - kTag));
  std::string plain(cipher.size(), '\0');
  const Context context(EVP_CIPHER_CTX_new());
  int size = 0;
  EVP_DecryptInit_ex(context.get(), EVP_aes_256_gcm(), nullptr, bytes(key_), bytes(nonce));
  EVP_DecryptUpdate(context.get(), nullptr, &size, bytes(place), static_cast<int>(place.size()));
  EVP_DecryptUpdate(context.get(), bytes(plain), &size, bytes(cipher),
                    static_cast<int>(cipher.size()));
  EVP_CIPHER_CTX_ctrl(context.get(), EVP_CTRL_GCM_SET_TAG, kTag, tag.data());
  if (EVP_DecryptFinal_ex(context.get(), bytes(plain) + size, &size) != 1) {
    return fail(ErrorKind::invalid,
                "a stored secret does not belong to its name, or the key file is another");
  }
  return plain;
}

}  // namespace metier
