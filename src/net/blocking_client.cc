// The command line's client: system calls and nothing else, so that a command starts in milliseconds.
#include <fmt/format.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>
#include <span>

#include "base/files.h"
#include "net/client.h"
#include "net/parser.h"
#include "net/url.h"

namespace metier::net {
namespace {

using SteadyTime = std::chrono::steady_clock::time_point;

Error no_answer(const Url& url, int error) {
  if (error == ECANCELED) { return Error{.kind = ErrorKind::cancelled, .message = "interrupted"}; }
  if (error == ETIMEDOUT) {
    return Error{.kind = ErrorKind::timed_out,
                 .message = fmt::format("{} did not answer in time", url.origin())};
  }
  std::string text = std::strerror(error);
  text[0] = static_cast<char>(std::tolower(text[0]));
  return Error{.kind = ErrorKind::unavailable,
               .message = fmt::format("no server at {} ({})", url.origin(), text)};
}

// 0, or errno (ETIMEDOUT at the deadline).
int wait_for(int fd, short events, SteadyTime deadline,
             const std::function<bool()>* interrupted = nullptr) {
  constexpr std::int64_t kSlice =
      200;  // ms: a signal that came just before the wait is seen after it
  const bool interruptible = interrupted != nullptr && *interrupted;
  for (;;) {
    if (interruptible && (*interrupted)()) { return ECANCELED; }
    const auto left =
        std::chrono::ceil<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now())
            .count();
    if (left <= 0) { return ETIMEDOUT; }
    pollfd entry{fd, events, 0};
    const int n =
        ::poll(&entry, 1,
               static_cast<int>(std::min<std::int64_t>(left, interruptible ? kSlice : 1'000'000)));
    if (n > 0) { return 0; }
    if (n < 0 && errno != EINTR) { return errno; }
  }
}

struct SslFree {
  void operator()(SSL* ssl) const { SSL_free(ssl); }
  void operator()(SSL_CTX* context) const { SSL_CTX_free(context); }
};

// One connection: a non-blocking socket with or without TLS.
class Link final {
 public:
  static Result<std::unique_ptr<Link>> open(const Url& url, const std::string& ca_file,
                                            SteadyTime deadline) {
    auto link = std::make_unique<Link>();
    if (url.scheme == Url::Scheme::unix_socket) {
      METIER_CHECK(link->open_unix(url));
    } else {
      METIER_CHECK(link->open_tcp(url, deadline));
    }
    if (url.scheme == Url::Scheme::https) { METIER_CHECK(link->secure(url, ca_file, deadline)); }
    return link;
  }

  const std::function<bool()>* interrupted = nullptr;  // of the request in progress

  bool fresh() const {
    char byte = 0;
    return ::recv(fd_.get(), &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0 && errno == EAGAIN;
  }

  // Both: bytes moved, 0 at the end of the stream, or -errno.
  ssize_t write(std::string_view bytes, SteadyTime deadline) {
    for (;;) {
      const auto n =
          ssl_ ? SSL_write(ssl_.get(), bytes.data(),
                           static_cast<int>(std::min<std::size_t>(bytes.size(), 1U << 20U)))
               : ::send(fd_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (n > 0) { return n; }
      if (const int error = again(n, POLLOUT, deadline); error != 0) { return -error; }
    }
  }
  ssize_t read(std::span<char> into, SteadyTime deadline) {
    for (;;) {
      const auto n = ssl_ ? SSL_read(ssl_.get(), into.data(), static_cast<int>(into.size()))
                          : ::recv(fd_.get(), into.data(), into.size(), 0);
      if (n > 0 || (n == 0 && !ssl_)) { return n; }
      if (ssl_ && SSL_get_error(ssl_.get(), static_cast<int>(n)) == SSL_ERROR_ZERO_RETURN) {
        return 0;
      }
      if (const int error = again(n, POLLIN, deadline); error != 0) { return -error; }
    }
  }

 private:
  // After a call that did not move bytes: 0 to try again, or errno.
  int again(ssize_t result, short events, SteadyTime deadline) {
    if (ssl_) {
      switch (SSL_get_error(ssl_.get(), static_cast<int>(result))) {
        case SSL_ERROR_WANT_READ: return wait_for(fd_.get(), POLLIN, deadline, interrupted);
        case SSL_ERROR_WANT_WRITE: return wait_for(fd_.get(), POLLOUT, deadline, interrupted);
        default: return errno != 0 ? errno : EPROTO;
      }
    }
    if (errno == EINTR) { return 0; }
    return errno == EAGAIN ? wait_for(fd_.get(), events, deadline, interrupted) : errno;
  }

  Result<void> open_unix(const Url& url) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (url.host.size() >= sizeof address.sun_path) {
      return fail(invalid("", "socket path " + quote(url.host) + " is too long"));
    }
    std::memcpy(address.sun_path, url.host.data(), url.host.size());
    fd_ = Fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (::connect(fd_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
      return fail(no_answer(url, errno));
    }
    ucred peer{};
    socklen_t size = sizeof peer;
    if (::getsockopt(fd_.get(), SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0) {
      return fail(no_answer(url, errno));
    }
    // Whoever listens learns what we send: only ourselves and root may.
    if (peer.uid != ::geteuid() && peer.uid != 0) {
      return fail(Error{.kind = ErrorKind::unavailable,
                        .message = fmt::format("the socket {} belongs to another user (uid {})",
                                               url.host, peer.uid),
                        .fix = "use your own server, or one that root started"});
    }
    return {};
  }

  Result<void> open_tcp(const Url& url, SteadyTime deadline) {
    addrinfo hints{};
    hints.ai_socktype = SOCK_STREAM;
    addrinfo* found = nullptr;
    const int code =
        ::getaddrinfo(url.host.c_str(), std::to_string(url.port).c_str(), &hints, &found);
    if (code != 0) {
      return fail(Error{
          .kind = ErrorKind::unavailable,
          .message = fmt::format("{} has no address ({})", quote(url.host), ::gai_strerror(code))});
    }
    const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> guard(found, &::freeaddrinfo);
    int error = EHOSTUNREACH;
    for (const auto* entry = found; entry != nullptr; entry = entry->ai_next) {
      fd_ = Fd(::socket(entry->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
      if (!fd_) { continue; }
      error = ::connect(fd_.get(), entry->ai_addr, entry->ai_addrlen) == 0 ? 0 : errno;
      if (error == EINPROGRESS) { error = finish_connect(deadline); }
      if (error == 0) { break; }
    }
    if (error != 0) { return fail(no_answer(url, error)); }
    const int on = 1;
    ::setsockopt(fd_.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    return {};
  }

  int finish_connect(SteadyTime deadline) {
    if (const int error = wait_for(fd_.get(), POLLOUT, deadline); error != 0) { return error; }
    int error = 0;
    socklen_t size = sizeof error;
    ::getsockopt(fd_.get(), SOL_SOCKET, SO_ERROR, &error, &size);
    return error;
  }

  Result<void> secure(const Url& url, const std::string& ca_file, SteadyTime deadline) {
    context_.reset(SSL_CTX_new(TLS_client_method()));
    SSL_CTX_set_min_proto_version(context_.get(), TLS1_2_VERSION);
    SSL_CTX_set_mode(context_.get(),
                     SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_verify(context_.get(), SSL_VERIFY_PEER, nullptr);
    const bool trusted = ca_file.empty() ? SSL_CTX_set_default_verify_paths(context_.get()) == 1
                                         : SSL_CTX_load_verify_locations(
                                               context_.get(), ca_file.c_str(), nullptr) == 1;
    if (!trusted) {
      return fail(invalid("", "certificates of " + quote(ca_file) + " cannot be read"));
    }
    ssl_.reset(SSL_new(context_.get()));
    SSL_set_fd(ssl_.get(), fd_.get());
    SSL_set_tlsext_host_name(ssl_.get(), url.host.c_str());
    auto* parameters = SSL_get0_param(ssl_.get());
    if (X509_VERIFY_PARAM_set1_ip_asc(parameters, url.host.c_str()) != 1) {
      SSL_set1_host(ssl_.get(), url.host.c_str());
    }
    for (;;) {
      ERR_clear_error();
      errno = 0;
      const int n = SSL_connect(ssl_.get());
      if (n == 1) { return {}; }
      const long verdict = SSL_get_verify_result(ssl_.get());
      if (verdict != X509_V_OK) {
        return fail(Error{.kind = ErrorKind::unavailable,
                          .message = fmt::format("{} cannot be trusted: {}", url.origin(),
                                                 X509_verify_cert_error_string(verdict)),
                          .fix = "give the file of its certificate authority (SSL_CERT_FILE)"});
      }
      const int code = SSL_get_error(ssl_.get(), n);
      if (code != SSL_ERROR_WANT_READ && code != SSL_ERROR_WANT_WRITE) {
        return fail(Error{.kind = ErrorKind::unavailable,
                          .message = fmt::format("{} does not speak TLS", url.origin()),
                          .fix = "try http://"});
      }
      if (const int error =
              wait_for(fd_.get(), code == SSL_ERROR_WANT_READ ? POLLIN : POLLOUT, deadline);
          error != 0) {
        return fail(no_answer(url, error));
      }
    }
  }

  Fd fd_;
  std::unique_ptr<SSL_CTX, SslFree> context_;
  std::unique_ptr<SSL, SslFree> ssl_;
};

class SystemClient final : public BlockingClient {
 public:
  Result<ClientResponse> send(const ClientRequest& request) override {
    METIER_TRY(url, parse_url(request.url));
    METIER_TRY(bytes, request_bytes(request, url.host_header(), url.target));
    const auto deadline = std::chrono::steady_clock::now() + request.timeout;
    const auto key = url.origin() + " " + request.ca_file;
    if (link_ && (key != key_ || !link_->fresh())) { link_.reset(); }
    if (!link_) {
      METIER_TRY(link, Link::open(url, request.ca_file, deadline));
      link_ = std::move(link);
      key_ = key;
    }
    link_->interrupted = &request.interrupted;
    auto answer = exchange(url, request, bytes, deadline);
    if (link_) { link_->interrupted = nullptr; }
    if (!answer) { link_.reset(); }
    return answer;
  }

 private:
  Result<ClientResponse> exchange(const Url& url, const ClientRequest& request,
                                  std::string_view bytes, SteadyTime deadline) {
    int write_error = 0;
    while (!bytes.empty() && write_error == 0) {
      const auto n = link_->write(bytes, deadline);
      if (n < 0) {
        write_error = static_cast<int>(-n);
      } else {
        bytes.remove_prefix(static_cast<std::size_t>(n));
      }
    }
    if (write_error == ETIMEDOUT) { return fail(no_answer(url, write_error)); }
    // A server that refuses early answers and closes: its answer is worth more than our write error.
    ResponseParser parser(request.body_limit, request.method == "HEAD");
    std::array<char, 16384> buffer;
    auto parsed = Parsed::need_more;
    std::string_view rest;
    while (parsed == Parsed::need_more) {
      const auto n = link_->read(buffer, deadline);
      if (n < 0) {
        return fail(no_answer(url, write_error != 0 ? write_error : static_cast<int>(-n)));
      }
      rest = {buffer.data(), static_cast<std::size_t>(n)};
      parsed = n == 0 ? parser.finish() : parser.feed(rest);
    }
    if (parsed != Parsed::message) { return fail(Error(parser.error()).in(url.origin())); }
    auto response = std::move(parser.response());
    if (!parser.keep_alive() || !rest.empty() || write_error != 0) { link_.reset(); }
    return response;
  }

  std::unique_ptr<Link> link_;
  std::string key_;
};

}  // namespace

std::unique_ptr<BlockingClient> make_blocking_client() { return std::make_unique<SystemClient>(); }

}  // namespace metier::net
