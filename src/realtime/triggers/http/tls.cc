#include "realtime/triggers/http/tls.h"

#include <openssl/err.h>
#include <openssl/ssl.h>

#include <algorithm>
#include <cerrno>
#include <climits>

namespace metier::realtime {
namespace {

std::string reason() {
  char text[256] = "no reason given";
  if (const unsigned long code = ERR_get_error(); code != 0) {
    ERR_error_string_n(code, text, sizeof text);
  }
  ERR_clear_error();
  return text;
}

}  // namespace

Result<std::unique_ptr<TlsContext>> TlsContext::load(const std::string& certificate,
                                                     const std::string& key) {
  SSL_CTX* context = SSL_CTX_new(TLS_server_method());
  if (context == nullptr) { return fail(ErrorKind::internal, "TLS: " + reason()); }
  std::unique_ptr<TlsContext> made(new TlsContext(context));
  SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
  SSL_CTX_set_options(
      context, SSL_OP_NO_RENEGOTIATION | SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_NO_COMPRESSION);
  SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                                SSL_MODE_RELEASE_BUFFERS);
  SSL_CTX_set_session_id_context(context, reinterpret_cast<const unsigned char*>("metier"), 6);
  if (SSL_CTX_use_certificate_chain_file(context, certificate.c_str()) != 1) {
    return fail(invalid("attributes.tls.certificate",
                        quote(certificate) + " cannot be read: " + reason(), "give a PEM file"));
  }
  if (SSL_CTX_use_PrivateKey_file(context, key.c_str(), SSL_FILETYPE_PEM) != 1) {
    return fail(invalid("attributes.tls.key", quote(key) + " cannot be used: " + reason(),
                        "give the certificate's key, a PEM file"));
  }
  return made;
}

TlsContext::~TlsContext() { SSL_CTX_free(context_); }

TlsSession::TlsSession(ssl_ctx_st* context, int socket) : session_(SSL_new(context)) {
  SSL_set_fd(session_, socket);
  SSL_set_accept_state(session_);
}

TlsSession::~TlsSession() { SSL_free(session_); }

ssize_t TlsSession::failed(int result) {
  switch (SSL_get_error(session_, result)) {
    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_WRITE: errno = EAGAIN; return -1;
    case SSL_ERROR_ZERO_RETURN: return 0;
    default: errno = ECONNRESET; return -1;
  }
}

ssize_t TlsSession::receive(char* at, std::size_t size) {
  ERR_clear_error();
  const int n = SSL_read(session_, at, static_cast<int>(std::min<std::size_t>(size, INT_MAX)));
  return n > 0 ? n : failed(n);
}

ssize_t TlsSession::send(std::string_view bytes) {
  ERR_clear_error();
  const int n = SSL_write(session_, bytes.data(),
                          static_cast<int>(std::min<std::size_t>(bytes.size(), INT_MAX)));
  if (n > 0) { return n; }
  const ssize_t result = failed(n);
  if (result == 0) { errno = ECONNRESET; }
  return -1;
}

void TlsSession::say_goodbye() {
  ERR_clear_error();
  if (SSL_is_init_finished(session_) != 0) { SSL_shutdown(session_); }
  ERR_clear_error();
}

bool TlsSession::shaken() const { return SSL_is_init_finished(session_) != 0; }

}  // namespace metier::realtime
