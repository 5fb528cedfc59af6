// HTTP/1.1 server and client, TLS and unix sockets. Asio and the parser stay behind these headers.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/async.h"
#include "base/log.h"

namespace metier::net {

// Header names are matched without case; order is kept.
using Headers = std::vector<std::pair<std::string, std::string>>;
std::string_view header(const Headers& headers, std::string_view name);

struct Peer {
  bool unix_socket = false;
  std::int64_t uid = -1;  // SO_PEERCRED of a unix socket
  std::int64_t pid = -1;
  std::string address;   // of TCP
  std::string listener;  // the name given to the listener it came in by
};

struct Request {
  std::string method;
  std::string target;                                      // as sent
  std::string path;                                        // decoded once, no query
  std::vector<std::pair<std::string, std::string>> query;  // decoded, in order, repeats kept
  Headers headers;
  std::string body;
  Peer peer;
  std::string_view query_value(std::string_view name, std::string_view fallback = {}) const;
  std::vector<std::string> query_values(std::string_view name) const;
};

// Writes a body piece by piece (server-sent events, followed logs). False once the client has gone.
class BodyWriter {
 public:
  virtual ~BodyWriter() = default;
  virtual Async<bool> write(std::string bytes) = 0;
};

// A connection as bytes both ways. One read and one write may wait at the same time.
class Duplex {
 public:
  virtual ~Duplex() = default;
  virtual Async<std::size_t> read(std::span<char> into) = 0;  // 0: the end, or broken
  virtual Async<bool> write(std::string_view bytes) = 0;      // all of them; false: broken
  virtual void interrupt() = 0;                               // what waits ends
};

struct Response {
  int status = 200;
  Headers headers;
  std::string body;
  std::function<Async<void>(BodyWriter&)>
      stream;  // when set, `body` is ignored and the answer is chunked
  // When set, all else is ignored: the connection is its own from the status line on, and ends with it.
  std::function<Async<void>(Duplex&)> take_over;
};
Response json_response(int status, std::string body);

// Called once per request. HEAD arrives as GET (the server leaves the body out of the answer).
using Handler = std::function<Async<Response>(Request)>;

struct Limits {
  std::size_t body_bytes = 16U << 20U;
  std::size_t header_bytes = 32U << 10U;
  std::size_t headers = 100;
  std::size_t target_bytes = 8U << 10U;
  std::size_t connections = 10'000;
  std::chrono::milliseconds header_deadline{10'000};
  std::chrono::milliseconds body_deadline{60'000};
  std::chrono::milliseconds idle_deadline{300'000};
};

struct ListenOptions {
  std::string name;       // appears as Peer::listener
  std::string unix_path;  // either a unix socket…
  unsigned unix_mode = 0600;
  std::string host;             // …or TCP
  std::uint16_t port = 0;       // 0 = any; `port()` tells
  int inherited_fd = -1;        // …or a listening socket that another program held
  std::string tls_certificate;  // files; both or none
  std::string tls_key;
};

class Server {
 public:
  virtual ~Server() = default;
  // Errors: conflict when the address is in use (with the holder where /proc tells), invalid for a bad address.
  virtual Result<std::uint16_t> listen(const ListenOptions& options) = 0;
  virtual int listener_fd(std::string_view name) const = 0;
  // Stops accepting, lets requests in flight finish within `grace`, closes the rest. To be awaited before the server is
  // destroyed.
  virtual Async<void> close(std::chrono::milliseconds grace) = 0;
};
std::unique_ptr<Server> make_server(Executor executor, Handler handler, Limits limits, Logger log);

}  // namespace metier::net
