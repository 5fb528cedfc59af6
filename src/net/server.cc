#include <arpa/inet.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <boost/asio/posix/basic_stream_descriptor.hpp>

#include "base/json.h"
#include "net/connection.h"
#include "net/listener.h"
#include "net/tls.h"
#include "net/url.h"

namespace metier::net {

const std::string& ServerCore::date_now() {
  const auto second = std::time(nullptr);
  if (second != date_second) {
    date_second = second;
    std::tm parts{};
    ::gmtime_r(&second, &parts);
    std::array<char, 40> text{};
    date.assign(text.data(),
                std::strftime(text.data(), text.size(), "%a, %d %b %Y %H:%M:%S GMT", &parts));
  }
  return date;
}

std::string refusal_body(const Refusal& refusal) {
  JsonObject detail{{"reason", refusal.reason}};
  if (!refusal.fix.empty()) { detail["fix"] = refusal.fix; }
  return dump_json(JsonObject{{"detail", std::move(detail)}});
}

void append_head(std::string& out, const Response& response, const Framing& framing,
                 const std::string& date) {
  const auto number = std::to_string(response.status);
  out.append(framing.http_1_0 ? "HTTP/1.0 " : "HTTP/1.1 ")
      .append(number)
      .append(" ")
      .append(reason_phrase(response.status))
      .append("\r\n");
  for (const auto& [name, value] : response.headers) {
    if (same_name(name, "content-length") || same_name(name, "transfer-encoding") ||
        same_name(name, "connection")) {
      continue;
    }
    if (!is_token(name)) { continue; }
    out.append(name).append(": ");
    const auto at = out.size();
    out.append(value);
    for (auto i = at; i < out.size(); ++i) {  // a value can never end the header
      if (out[i] == '\r' || out[i] == '\n' || out[i] == '\0') { out[i] = ' '; }
    }
    out.append("\r\n");
  }
  out.append("date: ").append(date).append("\r\n");
  if (framing.chunked) {
    out.append("transfer-encoding: chunked\r\n");
  } else if (!framing.no_body && !response.stream) {
    out.append("content-length: ").append(std::to_string(framing.content_length)).append("\r\n");
  }
  if (!framing.keep_alive) {
    out.append("connection: close\r\n");
  } else if (framing.http_1_0) {
    out.append("connection: keep-alive\r\n");
  }
  out.append("\r\n");
}

namespace {

using Descriptor = asio::posix::basic_stream_descriptor<Executor>;

struct Listener {
  explicit Listener(Executor executor) : descriptor(executor) {}
  ListenOptions options;
  Listening listening;
  Descriptor descriptor;
  std::shared_ptr<TlsContext> tls;
};

Peer peer_of(int fd, int family, const std::string& listener, const sockaddr_storage& address) {
  Peer peer;
  peer.listener = listener;
  if (family == AF_UNIX) {
    ucred credentials{};
    socklen_t size = sizeof credentials;
    peer.unix_socket = true;
    if (::getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &size) == 0) {
      peer.uid = credentials.uid;
      peer.pid = credentials.pid;
    }
    return peer;
  }
  std::array<char, INET6_ADDRSTRLEN> text{};
  const void* raw =
      address.ss_family == AF_INET6
          ? static_cast<const void*>(&reinterpret_cast<const sockaddr_in6&>(address).sin6_addr)
          : static_cast<const void*>(&reinterpret_cast<const sockaddr_in&>(address).sin_addr);
  if (::inet_ntop(address.ss_family, raw, text.data(), text.size()) != nullptr) {
    peer.address = text.data();
  }
  return peer;
}

Async<void> own(std::unique_ptr<ConnectionBase> connection) { co_await connection->run(); }

class HttpServer final : public Server {
 public:
  HttpServer(Executor executor, Handler handler, Limits limits, Logger log)
      : core_(std::make_shared<ServerCore>(executor, std::move(handler), limits, std::move(log))) {
    core_->scope.spawn("deadlines", sweep(core_));
  }
  ~HttpServer() override {
    for (const auto& listener : listeners_) { remove_socket_file(listener->listening); }
  }

  Result<std::uint16_t> listen(const ListenOptions& options) override {
    auto listener = std::make_shared<Listener>(core_->executor);
    listener->options = options;
    if (!options.tls_certificate.empty() || !options.tls_key.empty()) {
      METIER_TRY(tls, load_tls(options.tls_certificate, options.tls_key));
      listener->tls = std::move(tls);
    }
    METIER_TRY(listening, open_listener(options));
    listener->listening = std::move(listening);
    listener->descriptor.assign(listener->listening.fd.release());
    listeners_.push_back(listener);
    core_->scope.spawn("accept " + options.name, accept_loop(core_, listener));
    return listener->listening.port;
  }

  int listener_fd(std::string_view name) const override {
    for (const auto& listener : listeners_) {
      if (listener->options.name == name && listener->descriptor.is_open()) {
        return const_cast<Descriptor&>(listener->descriptor).native_handle();
      }
    }
    return -1;
  }

  Async<void> close(std::chrono::milliseconds grace) override {
    core_->closing = true;
    for (const auto& listener : listeners_) {
      remove_socket_file(listener->listening);
      boost::system::error_code ec;
      listener->descriptor.close(ec);
    }
    for (auto& connection : core_->idle) { connection.expire(); }
    const auto deadline = std::chrono::steady_clock::now() + grace;
    while (core_->connections > 0 && std::chrono::steady_clock::now() < deadline) {
      co_await sleep_for(core_->executor, std::chrono::milliseconds(5));
    }
    for (auto& connection : core_->busy) { connection.expire(); }
    auto closed = co_await core_->scope.close(std::chrono::seconds(2));
    if (!closed) {
      core_->log.warn("server closed with work in flight",
                      {{"what", Json(closed.error().message)}});
    }
  }

 private:
  // Ends what waits past its deadline. One timer for all connections: a request costs no timer of its own.
  static Async<void> sweep(std::shared_ptr<ServerCore> core) {
    const auto& limits = core->limits;
    const auto shortest =
        std::min({limits.header_deadline, limits.body_deadline, limits.idle_deadline});
    const auto interval = std::clamp<std::chrono::milliseconds>(
        shortest / 4, std::chrono::milliseconds(5), std::chrono::milliseconds(1000));
    while (!core->closing) {
      co_await sleep_for(core->executor, interval);
      const auto now = std::chrono::steady_clock::now();
      for (auto* list : {&core->idle, &core->busy}) {
        for (auto& connection : *list) {
          if (connection.deadline <= now && !connection.expired) { connection.expire(); }
        }
      }
    }
  }

  static Async<void> accept_loop(std::shared_ptr<ServerCore> core,
                                 std::shared_ptr<Listener> listener) {
    while (!core->closing) {
      boost::system::error_code ec;
      co_await listener->descriptor.async_wait(Descriptor::wait_read,
                                               asio::redirect_error(use_async, ec));
      if (ec || core->closing) { co_return; }
      const bool exhausted = !accept_all(core, *listener);
      if (exhausted) { co_await sleep_for(core->executor, std::chrono::milliseconds(100)); }
    }
  }

  static void drop_oldest_idle(ServerCore& core) {
    if (core.idle.empty()) { return; }
    auto& oldest = core.idle.front();
    core.idle.pop_front();
    core.busy.push_back(oldest);
    oldest.expire();
  }

  // False when descriptors ran out: accepting goes on after a pause.
  static bool accept_all(const std::shared_ptr<ServerCore>& core, Listener& listener) {
    for (int i = 0; i < 64; ++i) {
      sockaddr_storage address{};
      socklen_t size = sizeof address;
      const int fd =
          ::accept4(listener.descriptor.native_handle(), reinterpret_cast<sockaddr*>(&address),
                    &size, SOCK_NONBLOCK | SOCK_CLOEXEC);
      if (fd < 0) {
        if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
          core->log.error("no descriptor left for a connection",
                          {{"listener", Json(listener.options.name)}});
          drop_oldest_idle(*core);
          return false;
        }
        return true;
      }
      start(core, listener, Fd(fd), address);
    }
    return true;
  }

  static void start(const std::shared_ptr<ServerCore>& core, Listener& listener, Fd fd,
                    const sockaddr_storage& address) {
    const int family = listener.listening.family;
    if (core->connections >= core->limits.connections) {
      if (core->idle.empty()) {
        constexpr std::string_view kFull =
            "HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\ncontent-length: "
            "0\r\nconnection: close\r\n\r\n";
        [[maybe_unused]] const auto n =
            ::send(fd.get(), kFull.data(), kFull.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
        return;
      }
      drop_oldest_idle(*core);
    }
    if (family != AF_UNIX) {
      const int on = 1;
      ::setsockopt(fd.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    }
    auto peer = peer_of(fd.get(), family, listener.options.name, address);
    PlainSocket socket(core->executor, asio::generic::stream_protocol(family, 0), fd.release());
    std::unique_ptr<ConnectionBase> connection;
    if (listener.tls) {
      connection = make_tls_connection(core, std::move(peer), std::move(socket), *listener.tls);
    } else {
      connection =
          std::make_unique<Connection<PlainSocket>>(core, std::move(peer), std::move(socket));
    }
    core->scope.spawn("connection", own(std::move(connection)));
  }

  std::shared_ptr<ServerCore> core_;
  std::vector<std::shared_ptr<Listener>> listeners_;
};

}  // namespace

std::unique_ptr<Server> make_server(Executor executor, Handler handler, Limits limits, Logger log) {
  return std::make_unique<HttpServer>(executor, std::move(handler), limits, std::move(log));
}

}  // namespace metier::net
