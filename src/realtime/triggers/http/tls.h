// TLS of the HTTP trigger: OpenSSL over the connection's own non-blocking descriptor. TLS 1.2 and 1.3.
#pragma once

#include <sys/types.h>

#include <memory>
#include <string>
#include <string_view>

#include "base/result.h"

struct ssl_ctx_st;
struct ssl_st;

namespace metier::realtime {

class TlsSession final {
 public:
  TlsSession(ssl_ctx_st* context, int socket);
  ~TlsSession();
  TlsSession(const TlsSession&) = delete;
  TlsSession& operator=(const TlsSession&) = delete;

  // As recv and send: -1 with errno EAGAIN when the socket has to become ready first.
  ssize_t receive(char* at, std::size_t size);
  ssize_t send(std::string_view bytes);
  void say_goodbye();   // close_notify
  bool shaken() const;  // the handshake is over

 private:
  ssize_t failed(int result);
  ssl_st* session_;
};

class TlsContext final {
 public:
  // PEM files. Errors: invalid with what OpenSSL says.
  static Result<std::unique_ptr<TlsContext>> load(const std::string& certificate,
                                                  const std::string& key);
  ~TlsContext();
  TlsContext(const TlsContext&) = delete;
  TlsContext& operator=(const TlsContext&) = delete;
  std::unique_ptr<TlsSession> accept(int socket) const {
    return std::make_unique<TlsSession>(context_, socket);
  }

 private:
  explicit TlsContext(ssl_ctx_st* context) : context_(context) {}
  ssl_ctx_st* context_;
};

}  // namespace metier::realtime
