// One connection of the server: reads requests, calls the handler, writes answers, until either side ends it.
// A template over the stream (plain or TLS); one loop thread, no locks.
#pragma once

#include <fmt/format.h>
#include <sys/socket.h>

#include <array>
#include <boost/asio/buffer.hpp>
#include <boost/asio/generic/stream_protocol.hpp>
#include <boost/intrusive/list.hpp>
#include <ctime>

#include "base/json.h"
#include "net/parser.h"

namespace metier::net {

using PlainSocket = asio::basic_stream_socket<asio::generic::stream_protocol, Executor>;
using SteadyTime = std::chrono::steady_clock::time_point;

using AutoUnlink =
    boost::intrusive::list_base_hook<boost::intrusive::link_mode<boost::intrusive::auto_unlink>>;

// What the server sees of a connection: its deadline, and a way to end what it waits for.
class ConnectionBase : public AutoUnlink {
 public:
  virtual ~ConnectionBase() = default;
  virtual Async<void> run() = 0;
  virtual void interrupt() = 0;  // the pending read or write ends with an error
  void expire() {
    expired = true;
    interrupt();
  }
  SteadyTime deadline = SteadyTime::max();
  bool expired = false;
};
using ConnectionList =
    boost::intrusive::list<ConnectionBase, boost::intrusive::constant_time_size<false>>;

// Shared by the server and its connections; the last of them ends it.
struct ServerCore {
  ServerCore(Executor loop, Handler what, Limits bounds, Logger logger)
      : executor(loop),
        handler(std::move(what)),
        limits(bounds),
        log(std::move(logger)),
        scope(loop) {}
  Executor executor;
  Handler handler;
  Limits limits;
  Logger log;
  Scope scope;
  ConnectionList idle;  // oldest first: the first to go when connections run out
  ConnectionList busy;
  std::size_t connections = 0;
  bool closing = false;
  std::string date;  // the header's value of this second
  std::time_t date_second = 0;

  const std::string& date_now();
};

std::string refusal_body(const Refusal& refusal);
// Status line and headers; framing headers are ours, whatever the handler set.
struct Framing {
  bool keep_alive = true;
  bool http_1_0 = false;
  bool chunked = false;
  bool no_body = false;  // 204, 304
  std::size_t content_length = 0;
};
void append_head(std::string& out, const Response& response, const Framing& framing,
                 const std::string& date);

template <class Stream>
class Connection final : public ConnectionBase {
 public:
  template <class... Args>
  Connection(std::shared_ptr<ServerCore> core, Peer peer, Args&&... args)
      : core_(std::move(core)),
        peer_(std::move(peer)),
        stream_(std::forward<Args>(args)...),
        parser_(core_->limits) {
    ++core_->connections;
    core_->busy.push_back(*this);
  }
  ~Connection() override { --core_->connections; }

  // Set by TLS: done before the first request, false ends the connection.
  std::function<Async<bool>(Connection&)> handshake;

  Stream& stream() { return stream_; }
  PlainSocket& socket() {
    if constexpr (std::is_same_v<Stream, PlainSocket>) {
      return stream_;
    } else {
      return stream_.next_layer();
    }
  }
  void interrupt() override {
    boost::system::error_code ec;
    socket().cancel(ec);
  }

  Async<void> run() override {
    deadline = now() + core_->limits.header_deadline;
    if (handshake) {
      const bool ready = co_await handshake(*this);
      if (!ready) { co_return; }
    }
    bool again = true;
    while (again) {
      parser_.begin();
      const auto parsed = co_await read_request();
      if (parsed == Parsed::need_more) { break; }  // closed, or idle too long
      if (parsed == Parsed::failed) {
        co_await refuse();
        break;
      }
      again = co_await answer();
    }
    close_gently();
  }

  // Writes all of them; false once the client has gone or does not read.
  Async<bool> write(std::array<std::string_view, 3> parts) {
    if constexpr (std::is_same_v<Stream, PlainSocket>) {
      if (!write_now(parts)) { co_return false; }
    }
    while (!parts[0].empty() || !parts[1].empty() || !parts[2].empty()) {
      deadline = now() + core_->limits.body_deadline;
      boost::system::error_code ec;
      const std::array<asio::const_buffer, 3> buffers{
          asio::buffer(parts[0]), asio::buffer(parts[1]), asio::buffer(parts[2])};
      const auto n =
          co_await stream_.async_write_some(buffers, asio::redirect_error(use_async, ec));
      if (ec || expired) { co_return false; }
      drop(parts, n);
    }
    deadline = SteadyTime::max();
    co_return true;
  }

 private:
  class ChunkWriter final : public BodyWriter {
   public:
    ChunkWriter(Connection& connection, bool chunked)
        : connection_(connection), chunked_(chunked) {}
    Async<bool> write(std::string bytes) override {
      if (bytes.empty() || gone_) { co_return !gone_; }
      const auto head = chunked_ ? fmt::format("{:x}\r\n", bytes.size()) : std::string();
      const bool written = co_await connection_.write({head, bytes, chunked_ ? "\r\n" : ""});
      gone_ = !written;
      co_return written;
    }
    bool gone() const { return gone_; }

   private:
    Connection& connection_;
    bool chunked_;
    bool gone_ = false;
  };

  class Whole final : public Duplex {
   public:
    explicit Whole(Connection& connection) : connection_(connection) {}
    Async<std::size_t> read(std::span<char> into) override {
      if (!connection_.pending_.empty()) {
        const auto n = std::min(into.size(), connection_.pending_.size());
        std::copy_n(connection_.pending_.data(), n, into.data());
        connection_.pending_.remove_prefix(n);
        co_return n;
      }
      boost::system::error_code ec;
      const auto n = co_await connection_.stream_.async_read_some(
          asio::buffer(into.data(), into.size()), asio::redirect_error(use_async, ec));
      co_return ec || connection_.expired ? 0 : n;
    }
    Async<bool> write(std::string_view bytes) override {
      const bool written = co_await connection_.write({bytes, {}, {}});
      co_return written;
    }
    void interrupt() override { connection_.interrupt(); }

   private:
    Connection& connection_;
  };

  static SteadyTime now() { return std::chrono::steady_clock::now(); }

  void move_to(ConnectionList& list) {
    AutoUnlink::unlink();
    list.push_back(*this);
  }

  static void drop(std::array<std::string_view, 3>& parts, std::size_t n) {
    for (auto& part : parts) {
      const auto step = std::min(n, part.size());
      part.remove_prefix(step);
      n -= step;
    }
  }

  // The usual case, without the loop: one system call. False when the peer has gone.
  bool write_now(std::array<std::string_view, 3>& parts) {
    std::array<iovec, 3> vectors{};
    std::size_t used = 0;
    for (const auto part : parts) {
      if (!part.empty()) { vectors[used++] = {const_cast<char*>(part.data()), part.size()}; }
    }
    if (used == 0) { return true; }
    msghdr message{};
    message.msg_iov = vectors.data();
    message.msg_iovlen = used;
    const auto n = ::sendmsg(socket().native_handle(), &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n < 0) { return errno == EAGAIN || errno == EINTR; }
    drop(parts, static_cast<std::size_t>(n));
    return true;
  }

  // need_more: the connection has ended before a whole request, nothing is to be answered.
  Async<Parsed> read_request() {
    bool begun = false;
    for (;;) {
      if (!pending_.empty()) {
        auto parsed = parser_.feed(pending_);
        if (parsed == Parsed::headers) {
          deadline = now() + core_->limits.body_deadline;
          if (parser_.expects_continue() && parser_.has_body() && pending_.empty()) {
            const bool written = co_await write({"HTTP/1.1 100 Continue\r\n\r\n", {}, {}});
            if (!written) { co_return Parsed::need_more; }
            deadline = now() + core_->limits.body_deadline;
          }
          parsed = parser_.feed(pending_);  // a request without a body ends here
        }
        if (parsed != Parsed::need_more) { co_return parsed; }
      }
      const bool waits = !parser_.begun();
      if (waits) {
        if (core_->closing) { co_return Parsed::need_more; }
        if (served_) { deadline = now() + core_->limits.idle_deadline; }
        move_to(core_->idle);
      } else if (!begun) {
        begun = true;
        if (!parser_.has_body()) { deadline = now() + core_->limits.header_deadline; }
      }
      boost::system::error_code ec;
      const auto n = co_await stream_.async_read_some(asio::buffer(buffer_),
                                                      asio::redirect_error(use_async, ec));
      if (waits) { move_to(core_->busy); }
      if (expired && !waits) {
        late_ = true;
        co_return Parsed::failed;
      }
      if (ec || expired || n == 0) { co_return Parsed::need_more; }
      if (waits && served_) { deadline = now() + core_->limits.header_deadline; }
      pending_ = {buffer_.data(), n};
    }
  }

  Async<void> refuse() {
    expired = false;
    const auto refusal =
        late_ ? Refusal{408, "the request did not arrive in time", "send it without pauses"}
              : parser_.refusal();
    auto response = json_response(refusal.status, refusal_body(refusal));
    if (refusal.status == 405) {
      response.headers.emplace_back("allow", "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
    }
    out_.clear();
    append_head(out_, response,
                Framing{.keep_alive = false, .content_length = response.body.size()},
                core_->date_now());
    const bool written = co_await write({out_, response.body, {}});
    if (!written) { co_return; }
    // The client may still be sending: closing at once would take the answer away from it.
    boost::system::error_code ec;
    socket().shutdown(asio::socket_base::shutdown_send, ec);
    deadline = now() + std::chrono::seconds(1);
    for (std::size_t drained = 0; !ec && !expired && drained < (1U << 20U);) {
      drained += co_await socket().async_read_some(asio::buffer(buffer_),
                                                   asio::redirect_error(use_async, ec));
    }
  }

  // True when the connection may carry another request.
  Async<bool> answer() {
    deadline = SteadyTime::max();
    served_ = true;
    auto request = std::move(parser_.request());
    const bool head_only = request.method == "HEAD";
    const bool http_1_0 = parser_.http_1_0();
    const bool keep = parser_.keep_alive();
    if (head_only) { request.method = "GET"; }
    request.peer = peer_;
    auto response = co_await call(std::move(request));
    if (response.take_over) {
      Whole whole(*this);
      std::string error;
      try {
        co_await response.take_over(whole);
      } catch (const std::exception& e) { error = e.what(); }
      if (!error.empty()) {
        core_->log.error("a taken connection threw", {{"error", Json(error)}});
      }
      co_return false;
    }
    const bool no_body = response.status == 204 || response.status == 304;
    Framing framing{
        .keep_alive = keep && !core_->closing, .http_1_0 = http_1_0, .no_body = no_body};
    if (response.stream && !no_body) {
      co_return co_await answer_stream(response, framing, head_only);
    }
    framing.content_length = response.body.size();
    out_.clear();
    append_head(out_, response, framing, core_->date_now());
    std::string_view body =
        head_only || no_body ? std::string_view() : std::string_view(response.body);
    const bool written = co_await write({out_, body, {}});
    co_return written&& framing.keep_alive;
  }

  Async<Response> call(Request request) {
    std::string error;
    const auto method = request.method;
    const auto path = request.path;
    if (path == "*") {
      Response options;
      options.status = 204;
      options.headers.emplace_back("allow", "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
      co_return options;
    }
    try {
      auto response = co_await core_->handler(std::move(request));
      co_return response;
    } catch (const std::exception& e) { error = e.what(); }
    core_->log.error("request handler threw",
                     {{"method", Json(method)}, {"path", Json(path)}, {"error", Json(error)}});
    co_return json_response(500, refusal_body({500, "internal error while answering this request",
                                               "report it with the server's log"}));
  }

  Async<bool> answer_stream(Response& response, Framing framing, bool head_only) {
    framing.chunked = !framing.http_1_0;
    framing.keep_alive = framing.keep_alive && framing.chunked;
    out_.clear();
    append_head(out_, response, framing, core_->date_now());
    const bool written = co_await write({out_, {}, {}});
    if (!written || head_only) { co_return written&& framing.keep_alive; }
    ChunkWriter writer(*this, framing.chunked);
    std::string error;
    try {
      co_await response.stream(writer);
    } catch (const std::exception& e) { error = e.what(); }
    if (!error.empty()) {
      core_->log.error("response stream threw", {{"error", Json(error)}});
      co_return false;  // without the last chunk: the client sees that it was cut
    }
    if (writer.gone()) { co_return false; }
    if (!framing.chunked) { co_return false; }
    const bool ended = co_await write({"0\r\n\r\n", {}, {}});
    co_return ended&& framing.keep_alive && !core_->closing;
  }

  void close_gently() {
    boost::system::error_code ec;
    socket().shutdown(asio::socket_base::shutdown_both, ec);
    socket().close(ec);
  }

  std::shared_ptr<ServerCore> core_;
  Peer peer_;
  Stream stream_;
  RequestParser parser_;
  std::array<char, 16384> buffer_;
  std::string_view pending_;  // bytes of buffer_ that are not parsed yet
  std::string out_;
  bool served_ = false;
  bool late_ = false;
};

}  // namespace metier::net
