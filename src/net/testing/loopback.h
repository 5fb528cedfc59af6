// For tests: a server on a loop thread of its own, and a raw client that sends exactly the bytes it is given.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <thread>

#include "base/files.h"
#include "net/client.h"
#include "net/http.h"

namespace metier::net::testing {

class Loopback final {
 public:
  explicit Loopback(Handler handler, Limits limits = {})
      : server_(make_server(loop_.get_executor(), std::move(handler), limits, Logger{})) {}
  ~Loopback() {
    if (thread_.joinable()) { stop(std::chrono::milliseconds(200)); }
  }
  Result<std::uint16_t> listen(ListenOptions options) { return server_->listen(options); }
  std::uint16_t start_tcp() {
    auto port = server_->listen(ListenOptions{.name = "tcp", .host = "127.0.0.1"});
    start();
    return port.value_or(0);
  }
  void start() {
    thread_ = std::thread([this] { loop_.run(); });
  }
  void stop(std::chrono::milliseconds grace) {
    asio::co_spawn(loop_, server_->close(grace), [](std::exception_ptr) {});
    thread_.join();
  }
  asio::io_context& loop() { return loop_; }
  Server& server() { return *server_; }

 private:
  asio::io_context loop_{1};
  std::unique_ptr<Server> server_;
  std::thread thread_;
};

class RawClient final {
 public:
  explicit RawClient(std::uint16_t port) : fd_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    connected_ =
        ::connect(fd_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
  }
  explicit RawClient(const std::string& path)
      : fd_(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, path.data(), path.size());
    connected_ =
        ::connect(fd_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
  }
  bool connected() const { return connected_; }
  void send(std::string_view bytes) {
    while (!bytes.empty()) {
      const auto n = ::send(fd_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (n <= 0) { return; }
      bytes.remove_prefix(static_cast<std::size_t>(n));
    }
  }
  void end_sending() { ::shutdown(fd_.get(), SHUT_WR); }
  void reset() {
    const linger hard{1, 0};
    ::setsockopt(fd_.get(), SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
    fd_.reset();
  }
  // Everything until the server closes (or 10 s of silence).
  std::string read_all() { return read_until({}); }
  // Until `text` was seen.
  std::string read_until(std::string_view text) {
    std::string out;
    std::array<char, 65536> buffer;
    for (;;) {
      if (!text.empty() && out.find(text) != std::string::npos) { return out; }
      pollfd entry{fd_.get(), POLLIN, 0};
      if (::poll(&entry, 1, 10'000) <= 0) { return out + "<silence>"; }
      const auto n = ::recv(fd_.get(), buffer.data(), buffer.size(), 0);
      if (n <= 0) { return out; }
      out.append(buffer.data(), static_cast<std::size_t>(n));
    }
  }
  int fd() const { return fd_.get(); }

 private:
  Fd fd_;
  bool connected_ = false;
};

}  // namespace metier::net::testing
