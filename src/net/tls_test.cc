#include <gtest/gtest.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include <filesystem>

#include "net/testing/loopback.h"

namespace metier::net {
namespace {

using testing::Loopback;
using testing::RawClient;

// A self-signed certificate for localhost and 127.0.0.1, valid `days` from now.
void write_certificate(const std::string& folder, const char* names, long days) {
  EVP_PKEY* key = EVP_EC_gen("P-256");
  X509* certificate = X509_new();
  X509_set_version(certificate, 2);
  ASN1_INTEGER_set(X509_get_serialNumber(certificate), 1);
  X509_gmtime_adj(X509_getm_notBefore(certificate), -86400 * 400);
  X509_gmtime_adj(X509_getm_notAfter(certificate), 86400 * days);
  X509_set_pubkey(certificate, key);
  auto* name = X509_get_subject_name(certificate);
  X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC,
                             reinterpret_cast<const unsigned char*>("test"), -1, -1, 0);
  X509_set_issuer_name(certificate, name);
  X509_EXTENSION* extension = X509V3_EXT_conf_nid(nullptr, nullptr, NID_subject_alt_name, names);
  X509_add_ext(certificate, extension, -1);
  X509_EXTENSION_free(extension);
  X509_sign(certificate, key, EVP_sha256());
  FILE* file = std::fopen((folder + "/cert.pem").c_str(), "w");
  PEM_write_X509(file, certificate);
  std::fclose(file);
  file = std::fopen((folder + "/key.pem").c_str(), "w");
  PEM_write_PrivateKey(file, key, nullptr, nullptr, 0, nullptr, nullptr);
  std::fclose(file);
  X509_free(certificate);
  EVP_PKEY_free(key);
}

class Tls : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string path = std::filesystem::temp_directory_path() / "metier-tls-XXXXXX";
    ASSERT_NE(::mkdtemp(path.data()), nullptr);
    folder_ = path;
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  ListenOptions options() const {
    return {.name = "tls",
            .host = "127.0.0.1",
            .tls_certificate = folder_ + "/cert.pem",
            .tls_key = folder_ + "/key.pem"};
  }
  static Async<Response> hello(Request) { co_return json_response(200, "hello"); }
  std::string folder_;
};

TEST_F(Tls, BothClientsVerifyTheServer) {
  write_certificate(folder_, "DNS:localhost,IP:127.0.0.1", 10);
  Loopback server(&hello);
  const auto port = server.listen(options());
  ASSERT_TRUE(port) << port.error().message;
  server.start();
  const auto url = "https://127.0.0.1:" + std::to_string(*port) + "/";
  const auto client = make_blocking_client();
  for (int i = 0; i < 2; ++i) {
    const auto response = client->send({.url = url, .ca_file = folder_ + "/cert.pem"});
    ASSERT_TRUE(response) << response.error().message;
    EXPECT_EQ(response->body, "hello");
  }
  const auto untrusted = make_blocking_client()->send({.url = url});
  ASSERT_FALSE(untrusted);
  EXPECT_NE(untrusted.error().message.find("cannot be trusted"), std::string::npos)
      << untrusted.error().message;

  asio::io_context loop;
  const auto async_client = make_client(loop.get_executor());
  int good = 0;
  for (const std::string& ca : {folder_ + "/cert.pem", std::string()}) {
    asio::co_spawn(loop, async_client->send({.url = url, .ca_file = ca}),
                   [&, ca](std::exception_ptr, Result<ClientResponse> response) {
                     if (response && response->body == "hello" && !ca.empty()) { ++good; }
                     if (!response && ca.empty()) { ++good; }
                   });
  }
  loop.run();
  EXPECT_EQ(good, 2);
}

TEST_F(Tls, RefusesAnotherNameAndAnExpiredCertificate) {
  write_certificate(folder_, "DNS:elsewhere.example", 10);
  Loopback server(&hello);
  const auto port = server.listen(options()).value();
  server.start();
  auto response = make_blocking_client()->send(
      {.url = "https://127.0.0.1:" + std::to_string(port), .ca_file = folder_ + "/cert.pem"});
  ASSERT_FALSE(response);
  EXPECT_NE(response.error().message.find("mismatch"), std::string::npos)
      << response.error().message;
  write_certificate(folder_, "IP:127.0.0.1", -5);
  Loopback old(&hello);
  const auto old_port = old.listen(options()).value();
  old.start();
  response = make_blocking_client()->send(
      {.url = "https://127.0.0.1:" + std::to_string(old_port), .ca_file = folder_ + "/cert.pem"});
  ASSERT_FALSE(response);
  EXPECT_NE(response.error().message.find("expired"), std::string::npos)
      << response.error().message;
}

TEST_F(Tls, TellsPlainHttpWhatThisPortIs) {
  write_certificate(folder_, "IP:127.0.0.1", 10);
  Loopback server(&hello);
  const auto port = server.listen(options()).value();
  server.start();
  RawClient client(port);
  client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
  EXPECT_NE(client.read_all().find("this port speaks https, not http"), std::string::npos);
}

TEST_F(Tls, NamesTheFileThatCannotBeUsed) {
  write_certificate(folder_, "IP:127.0.0.1", 10);
  Loopback server(&hello);
  auto bad = options();
  bad.tls_key = folder_ + "/absent.pem";
  auto refused = server.listen(bad);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().field, "--tls-key");
  bad.tls_key.clear();
  EXPECT_EQ(server.listen(bad).error().field, "--tls-key");
  server.start();
}

}  // namespace
}  // namespace metier::net
