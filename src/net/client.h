// HTTP client. The interface has no Asio in it but Async; rooms that only call others use this header.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>

#include "net/http.h"

namespace metier::net {

struct ClientRequest {
  std::string method = "GET";
  std::string url;  // http://, https://, or unix:///path/to.sock:/target
  Headers headers;
  std::string body;
  std::chrono::milliseconds timeout{45'000};
  std::size_t body_limit = 64U << 20U;
  std::string ca_file;  // for https, else the system's
  // Blocking client only: asked when a signal interrupts a wait; true ends the request (cancelled).
  std::function<bool()> interrupted = {};
};
struct ClientResponse {
  int status = 0;
  Headers headers;
  std::string body;
};

class Client {
 public:
  virtual ~Client() = default;
  // One request, keep-alive connections are reused. Errors: unavailable (nobody answers), timed_out, invalid.
  virtual Async<Result<ClientResponse>> send(ClientRequest request) = 0;
  // Sends the request on a connection of its own and leaves the answer to the caller. `timeout` is for the connecting.
  virtual Async<Result<std::unique_ptr<Duplex>>> open(ClientRequest request) = 0;
};
std::unique_ptr<Client> make_client(Executor executor);

// The same without a loop, for the command line: blocks the calling thread. One connection, kept alive.
class BlockingClient {
 public:
  virtual ~BlockingClient() = default;
  virtual Result<ClientResponse> send(const ClientRequest& request) = 0;
};
std::unique_ptr<BlockingClient> make_blocking_client();

}  // namespace metier::net
