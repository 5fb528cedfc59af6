#include "net/listener.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/ports.h"

namespace metier::net {
namespace {

constexpr int kBacklog = 4096;

Result<sockaddr_un> unix_address(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) {
    return fail(invalid("",
                        fmt::format("socket path {} is longer than {} bytes", quote(path),
                                    sizeof address.sun_path - 1),
                        "use a shorter data folder (METIER_DATA)"));
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  return address;
}

// Leaves the path free, or says who is there.
Result<void> clear_stale_socket(const std::string& path, const sockaddr_un& address) {
  struct stat info{};
  if (::lstat(path.c_str(), &info) != 0) { return {}; }
  if (!S_ISSOCK(info.st_mode)) {
    return fail(Error{.kind = ErrorKind::conflict,
                      .message = path + " exists and is not a socket",
                      .fix = "move it away, or choose another path"});
  }
  const Fd probe(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (::connect(probe.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0 ||
      errno == EAGAIN) {
    ucred peer{};
    socklen_t size = sizeof peer;
    const bool known = ::getsockopt(probe.get(), SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0;
    return fail(Error{
        .kind = ErrorKind::conflict,
        .message = fmt::format("{} is in use by {}", path, process_text(known ? peer.pid : 0)),
        .fix = "stop that server, or use another data folder"});
  }
  if (errno != ECONNREFUSED) { return fail(errno_error(path, errno)); }
  if (::unlink(path.c_str()) != 0 && errno != ENOENT) { return fail(errno_error(path, errno)); }
  return {};
}

Result<Listening> listen_unix(const ListenOptions& options) {
  METIER_TRY(address, unix_address(options.unix_path));
  METIER_CHECK(clear_stale_socket(options.unix_path, address));
  Listening out;
  out.family = AF_UNIX;
  out.fd = Fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!out.fd) { return fail(errno_error("socket", errno)); }
  if (::bind(out.fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    auto error = errno_error(options.unix_path, errno);
    error.kind = errno == EADDRINUSE ? ErrorKind::conflict : ErrorKind::invalid;
    return fail(std::move(error));
  }
  out.unlink_path = options.unix_path;
  struct stat info{};
  // Nobody can connect before listen(), so the mode is right from the first connection on.
  if (::chmod(options.unix_path.c_str(), options.unix_mode) != 0 ||
      ::lstat(options.unix_path.c_str(), &info) != 0 || ::listen(out.fd.get(), kBacklog) != 0) {
    return fail(errno_error(options.unix_path, errno));
  }
  out.inode = info.st_ino;
  return out;
}

std::uint16_t port_of(const sockaddr_storage& address) {
  if (address.ss_family == AF_INET) {
    return ntohs(reinterpret_cast<const sockaddr_in&>(address).sin_port);
  }
  if (address.ss_family == AF_INET6) {
    return ntohs(reinterpret_cast<const sockaddr_in6&>(address).sin6_port);
  }
  return 0;
}

Result<Listening> listen_tcp(const ListenOptions& options) {
  addrinfo hints{};
  hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const auto port = std::to_string(options.port);
  const int code = ::getaddrinfo(options.host.empty() ? "127.0.0.1" : options.host.c_str(),
                                 port.c_str(), &hints, &found);
  if (code != 0) {
    return fail(invalid("", fmt::format("{} is no address to listen on: {}", quote(options.host),
                                        ::gai_strerror(code))));
  }
  const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> guard(found, &::freeaddrinfo);
  Listening out;
  out.family = found->ai_family;
  out.fd = Fd(::socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!out.fd) { return fail(errno_error("socket", errno)); }
  const int on = 1;
  ::setsockopt(out.fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (::bind(out.fd.get(), found->ai_addr, found->ai_addrlen) != 0 ||
      ::listen(out.fd.get(), kBacklog) != 0) {
    const int error = errno;
    if (error != EADDRINUSE) {
      return fail(invalid(
          "", fmt::format("cannot listen on {}:{}: {}", options.host, port, std::strerror(error))));
    }
    return fail(Error{
        .kind = ErrorKind::conflict,
        .message = fmt::format("port {} is in use by {}", port, any_port_holder(options.port)),
        .fix = "choose another port, or stop that process",
        .code = "PortTaken"});
  }
  sockaddr_storage bound{};
  socklen_t size = sizeof bound;
  ::getsockname(out.fd.get(), reinterpret_cast<sockaddr*>(&bound), &size);
  out.port = port_of(bound);
  return out;
}

Result<Listening> adopt(int fd) {
  Listening out;
  int listens = 0;
  socklen_t size = sizeof listens;
  if (::getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size) != 0 || listens == 0) {
    return fail(invalid("", fmt::format("descriptor {} is not a listening socket", fd)));
  }
  sockaddr_storage bound{};
  size = sizeof bound;
  if (::getsockname(fd, reinterpret_cast<sockaddr*>(&bound), &size) != 0) {
    return fail(errno_error("getsockname", errno));
  }
  out.fd = Fd(fd);
  ::fcntl(fd, F_SETFL, ::fcntl(fd, F_GETFL) | O_NONBLOCK);
  ::fcntl(fd, F_SETFD, FD_CLOEXEC);
  out.family = bound.ss_family;
  out.port = port_of(bound);
  return out;
}

}  // namespace

Result<Listening> open_listener(const ListenOptions& options) {
  if (options.inherited_fd >= 0) { return adopt(options.inherited_fd); }
  return options.unix_path.empty() ? listen_tcp(options) : listen_unix(options);
}

void remove_socket_file(const Listening& listening) {
  struct stat info{};
  if (listening.unlink_path.empty() || ::lstat(listening.unlink_path.c_str(), &info) != 0) {
    return;
  }
  if (info.st_ino == listening.inode) { ::unlink(listening.unlink_path.c_str()); }
}

}  // namespace metier::net
