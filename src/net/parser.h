// One HTTP/1.1 message at a time out of a stream of bytes (llhttp, strict: no lenient flag is set).
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "net/client.h"
#include "net/http.h"

namespace metier::net {

enum class Parsed { need_more, headers, message, failed };

// What a refused message is answered with.
struct Refusal {
  int status = 400;
  std::string reason;
  std::string fix;
};

// Requests. `feed` consumes from the front of `bytes` and stops at the end of the head (`headers`) and of the
// message (`message`); `begin` starts the next one. After `failed` the connection cannot be used again.
class RequestParser final {
 public:
  explicit RequestParser(const Limits& limits);
  ~RequestParser();
  RequestParser(const RequestParser&) = delete;
  RequestParser& operator=(const RequestParser&) = delete;

  void begin();
  Parsed feed(std::string_view& bytes);
  Request& request();
  const Refusal& refusal() const;
  bool keep_alive() const;  // valid after `message`
  bool http_1_0() const;
  bool expects_continue() const;  // valid after `headers`
  bool has_body() const;          // the head announced one
  bool begun() const;             // a byte of this request was seen

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// Responses, for the clients. `headers` is never returned; interim (1xx) answers are skipped.
class ResponseParser final {
 public:
  ResponseParser(std::size_t body_limit, bool head_only);
  ~ResponseParser();
  ResponseParser(const ResponseParser&) = delete;
  ResponseParser& operator=(const ResponseParser&) = delete;

  Parsed feed(std::string_view& bytes);
  Parsed finish();  // the peer closed: ends a body without a length
  ClientResponse& response();
  const Error& error() const;
  bool keep_alive() const;
  bool started() const;  // a byte of the answer was seen

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// Head and body of a request. Errors: invalid for a method or header that would break the message.
Result<std::string> request_bytes(const ClientRequest& request, std::string_view host,
                                  std::string_view target);
// "Not Found"
std::string_view reason_phrase(int status);
bool is_token(std::string_view text);

}  // namespace metier::net
