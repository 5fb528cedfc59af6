#include "net/tls.h"

#include <boost/asio/ssl.hpp>

namespace metier::net {

class TlsContext final {
 public:
  TlsContext() : context(asio::ssl::context::tls_server) {}
  mutable asio::ssl::context context;
};

namespace {

using TlsStream = asio::ssl::stream<PlainSocket>;
constexpr unsigned char kHandshakeRecord = 0x16;

int choose_http_1_1(SSL*, const unsigned char** out, unsigned char* out_size,
                    const unsigned char* in, unsigned in_size, void*) {
  static constexpr std::array<unsigned char, 9> kOurs{8, 'h', 't', 't', 'p', '/', '1', '.', '1'};
  unsigned char* chosen = nullptr;
  const int found =
      SSL_select_next_proto(&chosen, out_size, kOurs.data(), kOurs.size(), in, in_size);
  *out = chosen;
  return found == OPENSSL_NPN_NEGOTIATED ? SSL_TLSEXT_ERR_OK : SSL_TLSEXT_ERR_NOACK;
}

Async<bool> shake_hands(Connection<TlsStream>& connection) {
  boost::system::error_code ec;
  co_await connection.socket().async_wait(asio::socket_base::wait_read,
                                          asio::redirect_error(use_async, ec));
  unsigned char first = 0;
  if (ec || ::recv(connection.socket().native_handle(), &first, 1, MSG_PEEK | MSG_DONTWAIT) != 1) {
    co_return false;
  }
  if (first != kHandshakeRecord) {
    // No fall-back to plain: one sentence for who typed http:// by mistake.
    constexpr std::string_view kAnswer =
        "HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\nconnection: "
        "close\r\ncontent-length: 33\r\n\r\nthis port speaks https, not http\n";
    [[maybe_unused]] const auto n = ::send(connection.socket().native_handle(), kAnswer.data(),
                                           kAnswer.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    std::array<char, 4096> rest{};
    while (::recv(connection.socket().native_handle(), rest.data(), rest.size(), MSG_DONTWAIT) >
           0) {}
    connection.socket().shutdown(asio::socket_base::shutdown_send, ec);
    co_return false;
  }
  co_await connection.stream().async_handshake(asio::ssl::stream_base::server,
                                               asio::redirect_error(use_async, ec));
  co_return !ec && !connection.expired;
}

}  // namespace

Result<std::shared_ptr<TlsContext>> load_tls(const std::string& certificate,
                                             const std::string& key) {
  if (certificate.empty() || key.empty()) {
    return fail(invalid(certificate.empty() ? "--tls-cert" : "--tls-key", "is missing",
                        "TLS needs a certificate and its key"));
  }
  auto out = std::make_shared<TlsContext>();
  auto& context = out->context;
  boost::system::error_code ec;
  SSL_CTX_set_min_proto_version(context.native_handle(), TLS1_2_VERSION);
  SSL_CTX_set_options(context.native_handle(), SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION |
                                                   SSL_OP_CIPHER_SERVER_PREFERENCE);
  SSL_CTX_set_alpn_select_cb(context.native_handle(), &choose_http_1_1, nullptr);
  context.use_certificate_chain_file(certificate, ec);
  if (ec) {
    return fail(invalid("--tls-cert", quote(certificate) + ": " + ec.message(),
                        "a PEM file with the certificate and its chain"));
  }
  context.use_private_key_file(key, asio::ssl::context::pem, ec);
  if (ec) {
    return fail(invalid("--tls-key", quote(key) + ": " + ec.message(),
                        "the PEM file with the key of that certificate"));
  }
  if (SSL_CTX_check_private_key(context.native_handle()) != 1) {
    return fail(invalid("--tls-key", quote(key) + " does not belong to " + quote(certificate)));
  }
  return out;
}

std::unique_ptr<ConnectionBase> make_tls_connection(std::shared_ptr<ServerCore> core, Peer peer,
                                                    PlainSocket socket, const TlsContext& tls) {
  auto connection = std::make_unique<Connection<TlsStream>>(std::move(core), std::move(peer),
                                                            std::move(socket), tls.context);
  connection->handshake = &shake_hands;
  return connection;
}

}  // namespace metier::net
