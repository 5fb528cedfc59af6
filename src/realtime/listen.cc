#include "realtime/listen.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstring>
#include <thread>

#include "base/json.h"

namespace metier::realtime {
namespace {

constexpr auto kGateWithin = std::chrono::seconds(5);
constexpr auto kGateAgain = std::chrono::milliseconds(50);

Result<Fd> ask_gate(const ListenConfig& listen) {
  Fd gate(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (listen.gate.size() >= sizeof address.sun_path) {
    return fail(invalid("listen.gate", quote(listen.gate) + " is too long for a socket",
                        "at most 107 bytes"));
  }
  std::memcpy(address.sun_path, listen.gate.data(), listen.gate.size());
  if (!gate || ::connect(gate.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) {
    Error error = errno_error("the gate at " + listen.gate, errno);
    error.kind = ErrorKind::unavailable;
    return fail(std::move(error));
  }
  const timeval limit{10, 0};
  ::setsockopt(gate.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  const std::string request = dump_json(JsonObject{{"op", "take"}, {"name", listen.name}});
  if (::send(gate.get(), request.data(), request.size(), MSG_NOSIGNAL) < 0) {
    return fail(ErrorKind::unavailable,
                fmt::format("the gate does not listen: {}", std::strerror(errno)));
  }
  std::array<char, 4096> text{};
  iovec part{text.data(), text.size()};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> room{};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = room.data();
  message.msg_controllen = room.size();
  const ssize_t size = ::recvmsg(gate.get(), &message, MSG_CMSG_CLOEXEC);
  if (size <= 0) { return fail(ErrorKind::unavailable, "the gate does not answer"); }
  const cmsghdr* header = CMSG_FIRSTHDR(&message);
  if (header == nullptr || header->cmsg_type != SCM_RIGHTS) {
    return fail(ErrorKind::unavailable,
                fmt::format("the gate has no socket {}: {}", quote(listen.name),
                            std::string_view(text.data(), static_cast<std::size_t>(size))));
  }
  int fd = -1;
  std::memcpy(&fd, CMSG_DATA(header), sizeof fd);
  return Fd(fd);
}

// A gate that has just taken a dead one's place may not hold its sockets yet.
Result<Fd> from_gate(const ListenConfig& listen) {
  const auto end = std::chrono::steady_clock::now() + kGateWithin;
  while (true) {
    auto fd = ask_gate(listen);
    if (fd || fd.error().kind != ErrorKind::unavailable ||
        std::chrono::steady_clock::now() >= end) {
      return fd;
    }
    std::this_thread::sleep_for(kGateAgain);
  }
}

Result<Fd> own_unix(const std::string& path) {
  Fd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof address.sun_path) {
    return fail(
        invalid("listen.address", quote(path) + " is no path for a socket", "at most 107 bytes"));
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  struct stat status{};
  if (::lstat(path.c_str(), &status) == 0 && S_ISSOCK(status.st_mode)) { ::unlink(path.c_str()); }
  if (::bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0 ||
      ::listen(fd.get(), 4096) != 0) {
    return fail(errno_error(path, errno));
  }
  return fd;
}

Result<Fd> own(const std::string& given) {
  if (given.starts_with("unix:")) { return own_unix(given.substr(5)); }
  const auto bad = [&] {
    return fail(invalid("listen.address", quote(given) + " is no address",
                        "such as \"127.0.0.1:8080\", \":8080\", \"[::1]:80\""));
  };
  const std::size_t colon = given.rfind(':');
  if (colon == std::string::npos) { return bad(); }
  std::string host = given.substr(0, colon);
  std::uint16_t port = 0;
  const char* const end = given.data() + given.size();
  const auto [stop, error] = std::from_chars(given.data() + colon + 1, end, port);
  if (error != std::errc{} || stop != end) { return bad(); }
  const bool six = host.starts_with('[');
  if (six && host.ends_with(']')) { host = host.substr(1, host.size() - 2); }
  sockaddr_storage storage{};
  socklen_t size = 0;
  if (six) {
    auto* address = reinterpret_cast<sockaddr_in6*>(&storage);
    address->sin6_family = AF_INET6;
    address->sin6_port = htons(port);
    if (::inet_pton(AF_INET6, host.c_str(), &address->sin6_addr) != 1) { return bad(); }
    size = sizeof *address;
  } else {
    auto* address = reinterpret_cast<sockaddr_in*>(&storage);
    address->sin_family = AF_INET;
    address->sin_port = htons(port);
    if (host == "localhost") { host = "127.0.0.1"; }
    if (host.empty()) { host = "0.0.0.0"; }
    if (::inet_pton(AF_INET, host.c_str(), &address->sin_addr) != 1) { return bad(); }
    size = sizeof *address;
  }
  Fd fd(::socket(storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) { return fail(errno_error("socket", errno)); }
  const int on = 1;
  ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (::bind(fd.get(), reinterpret_cast<sockaddr*>(&storage), size) != 0 ||
      ::listen(fd.get(), 4096) != 0) {
    const int why = errno;
    Error failed = errno_error(given, why);
    if (why == EADDRINUSE) {
      failed.kind = ErrorKind::conflict;
      failed.code = "PortTaken";
      failed.fix = "another program listens there: give another port, or 0 to pick one";
    }
    return fail(std::move(failed));
  }
  return fd;
}

}  // namespace

Result<Fd> listening_socket(const ListenConfig& listen) {
  if (listen.fd >= 0) {
    int listening = 0;
    socklen_t size = sizeof listening;
    if (::getsockopt(listen.fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &size) != 0 ||
        listening == 0) {
      return fail(invalid("listen.fd", fmt::format("{} is no listening socket", listen.fd),
                          "pass one to the processor"));
    }
    Fd copy(::fcntl(listen.fd, F_DUPFD_CLOEXEC, 3));
    ::fcntl(copy.get(), F_SETFL, ::fcntl(copy.get(), F_GETFL) | O_NONBLOCK);
    return copy;
  }
  if (!listen.gate.empty()) {
    METIER_TRY(fd, from_gate(listen));
    ::fcntl(fd.get(), F_SETFL, ::fcntl(fd.get(), F_GETFL) | O_NONBLOCK);
    return std::move(fd);
  }
  return own(listen.address);
}

std::uint16_t port_of(int socket) {
  sockaddr_storage storage{};
  socklen_t size = sizeof storage;
  if (::getsockname(socket, reinterpret_cast<sockaddr*>(&storage), &size) != 0) { return 0; }
  if (storage.ss_family == AF_INET) {
    return ntohs(reinterpret_cast<sockaddr_in*>(&storage)->sin_port);
  }
  if (storage.ss_family == AF_INET6) {
    return ntohs(reinterpret_cast<sockaddr_in6*>(&storage)->sin6_port);
  }
  return 0;
}

}  // namespace metier::realtime
