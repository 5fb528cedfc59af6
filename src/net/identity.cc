#include "net/identity.h"

#include <openssl/bio.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include <array>
#include <memory>

namespace metier::net {
namespace {

template <class T, auto Free>
struct Freed {
  void operator()(T* object) const { Free(object); }
};
using Key = std::unique_ptr<EVP_PKEY, Freed<EVP_PKEY, EVP_PKEY_free>>;
using Certificate = std::unique_ptr<X509, Freed<X509, X509_free>>;
using Bio = std::unique_ptr<BIO, Freed<BIO, BIO_free_all>>;
using Extension = std::unique_ptr<X509_EXTENSION, Freed<X509_EXTENSION, X509_EXTENSION_free>>;

std::string text_of(BIO* bio) {
  char* data = nullptr;
  const auto size = BIO_get_mem_data(bio, &data);
  return {data, static_cast<std::size_t>(size)};
}

bool add(X509* certificate, int id, const char* value) {
  X509V3_CTX context;
  X509V3_set_ctx_nodb(&context);
  X509V3_set_ctx(&context, certificate, certificate, nullptr, nullptr, 0);
  const Extension extension(X509V3_EXT_conf_nid(nullptr, &context, id, value));
  return extension && X509_add_ext(certificate, extension.get(), -1) == 1;
}

}  // namespace

Result<Identity> derive_identity(std::string_view secret, std::string_view name) {
  const auto broken = [] { return fail(ErrorKind::internal, "OpenSSL made no certificate"); };
  const std::string salted = "metier identity\n" + std::string(name);
  std::array<unsigned char, EVP_MAX_MD_SIZE> seed{};
  unsigned size = 0;
  if (HMAC(EVP_sha256(), secret.data(), static_cast<int>(secret.size()),
           reinterpret_cast<const unsigned char*>(salted.data()), salted.size(), seed.data(),
           &size) == nullptr ||
      size < 32) {
    return broken();
  }
  const Key key(EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, nullptr, seed.data(), 32));
  const Certificate certificate(X509_new());
  if (!key || !certificate) { return broken(); }
  X509* made = certificate.get();
  X509_NAME* subject = X509_get_subject_name(made);
  const std::string shown(name.substr(0, 64));
  const bool filled =
      X509_set_version(made, 2) == 1 && ASN1_INTEGER_set(X509_get_serialNumber(made), 1) == 1 &&
      ASN1_TIME_set_string(X509_getm_notBefore(made), "20200101000000Z") == 1 &&
      ASN1_TIME_set_string(X509_getm_notAfter(made), "20491231235959Z") == 1 &&
      X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_UTF8,
                                 reinterpret_cast<const unsigned char*>(shown.data()),
                                 static_cast<int>(shown.size()), -1, 0) == 1 &&
      X509_set_issuer_name(made, subject) == 1 && X509_set_pubkey(made, key.get()) == 1 &&
      add(made, NID_basic_constraints, "critical,CA:TRUE") &&
      add(made, NID_key_usage, "critical,digitalSignature,keyCertSign") &&
      X509_sign(made, key.get(), nullptr) > 0;
  const Bio certificate_text(BIO_new(BIO_s_mem()));
  const Bio key_text(BIO_new(BIO_s_mem()));
  if (!filled || !certificate_text || !key_text ||
      PEM_write_bio_X509(certificate_text.get(), made) != 1 ||
      PEM_write_bio_PKCS8PrivateKey(key_text.get(), key.get(), nullptr, nullptr, 0, nullptr,
                                    nullptr) != 1) {
    return broken();
  }
  return Identity{.certificate = text_of(certificate_text.get()), .key = text_of(key_text.get())};
}

}  // namespace metier::net
