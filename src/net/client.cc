#include "net/client.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl.hpp>
#include <boost/asio/write.hpp>
#include <map>

#include "net/connection.h"
#include "net/parser.h"
#include "net/url.h"

namespace metier::net {
namespace {

using Endpoint = asio::generic::stream_protocol::endpoint;
using TlsStream = asio::ssl::stream<PlainSocket&>;
constexpr std::size_t kMostIdlePerOrigin = 32;

// A connection to a server; the deadline's timer shares it.
struct Link {
  explicit Link(Executor executor) : socket(executor) {}
  PlainSocket socket;
  std::unique_ptr<TlsStream> tls;
  bool timed_out = false;

  void give_up() {
    timed_out = true;
    boost::system::error_code ec;
    socket.close(ec);
  }
  // A kept connection that has bytes or an end to read is of no use any more.
  bool fresh() {
    char byte = 0;
    return ::recv(socket.native_handle(), &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0 &&
           (errno == EAGAIN || errno == EWOULDBLOCK);
  }
};
using LinkPtr = std::shared_ptr<Link>;

Error no_answer(const Url& url, const Link& link, const boost::system::error_code& ec) {
  if (link.timed_out) {
    return Error{.kind = ErrorKind::timed_out,
                 .message = fmt::format("{} did not answer in time", url.origin())};
  }
  auto text = ec.message();
  if (!text.empty()) { text[0] = static_cast<char>(std::tolower(text[0])); }
  return Error{.kind = ErrorKind::unavailable,
               .message = fmt::format("no server at {} ({})", url.origin(), text)};
}

bool may_repeat(std::string_view method) {
  return method == "GET" || method == "HEAD" || method == "PUT" || method == "DELETE" ||
         method == "OPTIONS";
}

class OpenLink final : public Duplex {
 public:
  explicit OpenLink(LinkPtr link) : link_(std::move(link)) {}
  ~OpenLink() override { link_->give_up(); }
  Async<std::size_t> read(std::span<char> into) override {
    boost::system::error_code ec;
    const auto buffer = asio::buffer(into.data(), into.size());
    const auto n =
        link_->tls
            ? co_await link_->tls->async_read_some(buffer, asio::redirect_error(use_async, ec))
            : co_await link_->socket.async_read_some(buffer, asio::redirect_error(use_async, ec));
    co_return ec ? 0 : n;
  }
  Async<bool> write(std::string_view bytes) override {
    boost::system::error_code ec;
    if (link_->tls) {
      co_await asio::async_write(*link_->tls, asio::buffer(bytes),
                                 asio::redirect_error(use_async, ec));
    } else {
      co_await asio::async_write(link_->socket, asio::buffer(bytes),
                                 asio::redirect_error(use_async, ec));
    }
    co_return !ec;
  }
  void interrupt() override {
    boost::system::error_code ec;
    link_->socket.cancel(ec);
    link_->socket.shutdown(asio::socket_base::shutdown_both, ec);
  }

 private:
  LinkPtr link_;
};

class AsioClient final : public Client {
 public:
  explicit AsioClient(Executor executor) : executor_(executor) {}

  Async<Result<ClientResponse>> send(ClientRequest request) override {
    auto url = parse_url(request.url);
    if (!url) { co_return fail(std::move(url).error()); }
    auto bytes = request_bytes(request, url->host_header(), url->target);
    if (!bytes) { co_return fail(std::move(bytes).error()); }
    const auto deadline = std::chrono::steady_clock::now() + request.timeout;
    const auto key = url->origin() + " " + request.ca_file;
    if (auto kept = take(key)) {
      bool untouched = false;
      auto answer = co_await exchange(kept, *url, request, *bytes, key, deadline, &untouched);
      if (answer || !untouched || kept->timed_out || !may_repeat(request.method)) {
        co_return answer;
      }
    }
    auto link = std::make_shared<Link>(executor_);
    auto connected = co_await connect(link, *url, request.ca_file, deadline);
    if (!connected) { co_return fail(std::move(connected).error()); }
    bool untouched = false;
    auto answer = co_await exchange(link, *url, request, *bytes, key, deadline, &untouched);
    co_return answer;
  }

  Async<Result<std::unique_ptr<Duplex>>> open(ClientRequest request) override {
    auto url = parse_url(request.url);
    if (!url) { co_return fail(std::move(url).error()); }
    auto bytes = request_bytes(request, url->host_header(), url->target);
    if (!bytes) { co_return fail(std::move(bytes).error()); }
    auto link = std::make_shared<Link>(executor_);
    auto connected = co_await connect(link, *url, request.ca_file,
                                      std::chrono::steady_clock::now() + request.timeout);
    if (!connected) { co_return fail(std::move(connected).error()); }
    auto out = std::make_unique<OpenLink>(link);
    const bool sent = co_await out->write(*bytes);
    if (!sent) { co_return fail(no_answer(*url, *link, asio::error::connection_reset)); }
    co_return std::unique_ptr<Duplex>(std::move(out));
  }

 private:
  LinkPtr take(const std::string& key) {
    auto& links = pool_[key];
    while (!links.empty()) {
      auto link = std::move(links.back());
      links.pop_back();
      if (link->fresh()) { return link; }
    }
    return nullptr;
  }

  void keep(const std::string& key, LinkPtr link) {
    auto& links = pool_[key];
    if (links.size() < kMostIdlePerOrigin) { links.push_back(std::move(link)); }
  }

  std::unique_ptr<Timer> arm(const LinkPtr& link, SteadyTime deadline) {
    auto timer = std::make_unique<Timer>(executor_, deadline);
    timer->async_wait([link](boost::system::error_code ec) {
      if (!ec) { link->give_up(); }
    });
    return timer;
  }

  Async<Result<void>> connect(LinkPtr link, Url url, std::string ca_file, SteadyTime deadline) {
    const auto timer = arm(link, deadline);
    auto endpoints = co_await resolve(url);
    if (!endpoints) { co_return fail(std::move(endpoints).error()); }
    boost::system::error_code ec = asio::error::host_not_found;
    for (const auto& endpoint : *endpoints) {
      if (link->timed_out) { break; }
      link->socket.close(ec);
      link->socket.open(endpoint.protocol(), ec);
      if (ec) { continue; }
      ::fcntl(link->socket.native_handle(), F_SETFD, FD_CLOEXEC);
      co_await link->socket.async_connect(endpoint, asio::redirect_error(use_async, ec));
      if (!ec) { break; }
    }
    if (ec || link->timed_out) { co_return fail(no_answer(url, *link, ec)); }
    if (url.scheme != Url::Scheme::unix_socket) {
      const int on = 1;
      ::setsockopt(link->socket.native_handle(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    }
    if (url.scheme != Url::Scheme::https) { co_return Result<void>{}; }
    auto secured = co_await secure(link, url, ca_file);
    co_return secured;
  }

  Async<Result<void>> secure(LinkPtr link, Url url, std::string ca_file) {
    auto context = tls_context(ca_file);
    if (!context) { co_return fail(std::move(context).error()); }
    link->tls = std::make_unique<TlsStream>(link->socket, **context);
    SSL_set_tlsext_host_name(link->tls->native_handle(), url.host.c_str());
    link->tls->set_verify_mode(asio::ssl::verify_peer);
    link->tls->set_verify_callback(asio::ssl::host_name_verification(url.host));
    boost::system::error_code ec;
    co_await link->tls->async_handshake(asio::ssl::stream_base::client,
                                        asio::redirect_error(use_async, ec));
    if (!ec) { co_return Result<void>{}; }
    if (link->timed_out) { co_return fail(no_answer(url, *link, ec)); }
    const long verdict = SSL_get_verify_result(link->tls->native_handle());
    const std::string why =
        verdict == X509_V_OK ? ec.message() : X509_verify_cert_error_string(verdict);
    co_return fail(Error{.kind = ErrorKind::unavailable,
                         .message = fmt::format("{} cannot be trusted: {}", url.origin(), why),
                         .fix = "give the file of its certificate authority (SSL_CERT_FILE)"});
  }

  Async<Result<std::vector<Endpoint>>> resolve(Url url) {
    std::vector<Endpoint> out;
    if (url.scheme == Url::Scheme::unix_socket) {
      sockaddr_un address{};
      address.sun_family = AF_UNIX;
      if (url.host.size() >= sizeof address.sun_path) {
        co_return fail(invalid("", "socket path " + quote(url.host) + " is too long"));
      }
      std::memcpy(address.sun_path, url.host.data(), url.host.size());
      out.emplace_back(&address, sizeof address);
      co_return out;
    }
    boost::system::error_code ec;
    const auto literal =
        asio::ip::make_address(url.host == "localhost" ? "127.0.0.1" : url.host, ec);
    if (!ec) {
      out.emplace_back(asio::ip::tcp::endpoint(literal, url.port));
      if (url.host == "localhost") {
        out.emplace_back(asio::ip::tcp::endpoint(asio::ip::address_v6::loopback(), url.port));
      }
      co_return out;
    }
    asio::ip::basic_resolver<asio::ip::tcp, Executor> resolver(executor_);
    const auto found = co_await resolver.async_resolve(url.host, std::to_string(url.port),
                                                       asio::redirect_error(use_async, ec));
    if (ec) {
      co_return fail(
          Error{.kind = ErrorKind::unavailable,
                .message = fmt::format("{} has no address ({})", quote(url.host), ec.message())});
    }
    for (const auto& entry : found) { out.emplace_back(entry.endpoint()); }
    co_return out;
  }

  Result<std::shared_ptr<asio::ssl::context>> tls_context(const std::string& ca_file) {
    auto& context = contexts_[ca_file];
    if (context) { return context; }
    auto made = std::make_shared<asio::ssl::context>(asio::ssl::context::tls_client);
    SSL_CTX_set_min_proto_version(made->native_handle(), TLS1_2_VERSION);
    boost::system::error_code ec;
    if (ca_file.empty()) {
      made->set_default_verify_paths(ec);
    } else {
      made->load_verify_file(ca_file, ec);
    }
    if (ec) {
      return fail(
          invalid("", "certificates of " + quote(ca_file) + " cannot be read: " + ec.message()));
    }
    context = std::move(made);
    return context;
  }

  // `untouched` when not one byte of an answer came: a kept connection had been closed meanwhile.
  Async<Result<ClientResponse>> exchange(LinkPtr link, const Url& url, const ClientRequest& request,
                                         const std::string& bytes, const std::string& key,
                                         SteadyTime deadline, bool* untouched) {
    const auto timer = arm(link, deadline);
    ResponseParser parser(request.body_limit, request.method == "HEAD");
    boost::system::error_code ec;
    if (link->tls) {
      co_await asio::async_write(*link->tls, asio::buffer(bytes),
                                 asio::redirect_error(use_async, ec));
    } else {
      co_await asio::async_write(link->socket, asio::buffer(bytes),
                                 asio::redirect_error(use_async, ec));
    }
    // A server that refuses early answers and closes: its answer is worth more than our write error.
    std::array<char, 16384> buffer;
    auto parsed = Parsed::need_more;
    std::string_view rest;
    while (parsed == Parsed::need_more) {
      std::size_t n = 0;
      boost::system::error_code read_error;
      if (link->tls) {
        n = co_await link->tls->async_read_some(asio::buffer(buffer),
                                                asio::redirect_error(use_async, read_error));
      } else {
        n = co_await link->socket.async_read_some(asio::buffer(buffer),
                                                  asio::redirect_error(use_async, read_error));
      }
      if (link->timed_out) { co_return fail(no_answer(url, *link, read_error)); }
      if (read_error) {
        *untouched = !parser.started();
        if (*untouched && read_error != asio::error::eof) {
          co_return fail(no_answer(url, *link, ec ? ec : read_error));
        }
        parsed = parser.finish();
        break;
      }
      rest = {buffer.data(), n};
      parsed = parser.feed(rest);
    }
    if (parsed != Parsed::message) { co_return fail(Error(parser.error()).in(url.origin())); }
    if (parser.keep_alive() && rest.empty() && !ec) {
      timer->cancel();
      keep(key, link);
    }
    co_return std::move(parser.response());
  }

  Executor executor_;
  std::map<std::string, std::vector<LinkPtr>> pool_;
  std::map<std::string, std::shared_ptr<asio::ssl::context>> contexts_;
};

}  // namespace

std::unique_ptr<Client> make_client(Executor executor) {
  return std::make_unique<AsioClient>(executor);
}

}  // namespace metier::net
