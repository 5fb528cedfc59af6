#include "net/identity.h"

#include <gtest/gtest.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

namespace metier::net {
namespace {

TEST(Identity, IsTheSameForTheSameSecretAndNameAndNoOther) {
  const auto one = derive_identity("secret", "p/c");
  ASSERT_TRUE(one);
  const auto again = derive_identity("secret", "p/c");
  EXPECT_EQ(one->certificate, again->certificate);
  EXPECT_EQ(one->key, again->key);
  EXPECT_NE(derive_identity("secret", "p/d")->key, one->key);
  EXPECT_NE(derive_identity("other", "p/c")->key, one->key);
}

TEST(Identity, SignsItself) {
  const auto identity = derive_identity("secret", std::string(80, 'x'));
  ASSERT_TRUE(identity);
  BIO* text =
      BIO_new_mem_buf(identity->certificate.data(), static_cast<int>(identity->certificate.size()));
  X509* certificate = PEM_read_bio_X509(text, nullptr, nullptr, nullptr);
  ASSERT_NE(certificate, nullptr);
  X509_STORE* store = X509_STORE_new();
  X509_STORE_add_cert(store, certificate);
  X509_STORE_CTX* context = X509_STORE_CTX_new();
  X509_STORE_CTX_init(context, store, certificate, nullptr);
  EXPECT_EQ(X509_verify_cert(context), 1)
      << X509_verify_cert_error_string(X509_STORE_CTX_get_error(context));
  X509_STORE_CTX_free(context);
  X509_STORE_free(store);
  X509_free(certificate);
  BIO_free(text);
}

}  // namespace
}  // namespace metier::net
