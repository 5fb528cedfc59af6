#include "main/held_sockets.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <charconv>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "base/json.h"

namespace metier {
namespace fs = std::filesystem;
namespace {

// The inode of the socket that listens on an IPv4 address and port, by the kernel's own table.
std::string inode_of_listener(const std::string& host, const std::string& port) {
  in_addr address{};
  if (::inet_pton(AF_INET, host.c_str(), &address) != 1) { return {}; }
  const std::string wanted =
      fmt::format("{:08X}:{:04X}", address.s_addr, std::strtol(port.c_str(), nullptr, 10));
  std::ifstream table("/proc/net/tcp");
  std::string line;
  std::getline(table, line);
  while (std::getline(table, line)) {
    std::istringstream words(line);
    std::string number, local, remote, state, queues, timer, retries, uid, timeout, inode;
    words >> number >> local >> remote >> state >> queues >> timer >> retries >> uid >> timeout >>
        inode;
    if (local == wanted && state == "0A") { return inode; }
  }
  return {};
}

}  // namespace

std::optional<Fd> rescue_socket(const std::string& host, const std::string& port,
                                const std::string& program) {
  const std::string inode = inode_of_listener(host, port);
  if (inode.empty()) { return std::nullopt; }
  const std::string target = "socket:[" + inode + "]";
  std::error_code error;
  const fs::path own = fs::canonical(program, error);
  for (const auto& process : fs::directory_iterator("/proc", error)) {
    const std::string name = process.path().filename().string();
    pid_t pid = 0;
    const auto [end, bad] = std::from_chars(name.data(), name.data() + name.size(), pid);
    if (bad != std::errc{} || end != name.data() + name.size() || pid == ::getpid()) { continue; }
    if (fs::read_symlink(process.path() / "exe", error) != own || error) { continue; }
    for (const auto& open : fs::directory_iterator(process.path() / "fd", error)) {
      if (fs::read_symlink(open.path(), error) != target || error) { continue; }
      const Fd handle(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
      if (!handle) { break; }
      const int number = static_cast<int>(std::strtol(open.path().filename().c_str(), nullptr, 10));
      Fd copy(static_cast<int>(::syscall(SYS_pidfd_getfd, handle.get(), number, 0)));
      if (copy) { return copy; }
      break;
    }
  }
  return std::nullopt;
}

std::optional<Fd> rescue_from_control(const std::string& control, const std::string& trigger) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (control.size() >= sizeof address.sun_path) { return std::nullopt; }
  std::memcpy(address.sun_path, control.data(), control.size());
  const Fd socket(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  const timeval limit{1, 0};
  ::setsockopt(socket.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  if (!socket ||
      ::connect(socket.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) {
    return std::nullopt;
  }
  const std::string ask = dump_json(JsonObject{{"op", "socket"}, {"name", trigger}});
  if (::send(socket.get(), ask.data(), ask.size(), MSG_NOSIGNAL) < 0) { return std::nullopt; }
  // It may tell its state first.
  for (int i = 0; i < 8; ++i) {
    std::array<char, 4096> text{};
    iovec part{text.data(), text.size()};
    alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> room{};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = room.data();
    message.msg_controllen = room.size();
    const ssize_t size = ::recvmsg(socket.get(), &message, MSG_CMSG_CLOEXEC);
    if (size <= 0) { return std::nullopt; }
    const cmsghdr* header = CMSG_FIRSTHDR(&message);
    if (header != nullptr && header->cmsg_type == SCM_RIGHTS) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(header), sizeof fd);
      return Fd(fd);
    }
    const auto said = parse_json({text.data(), static_cast<std::size_t>(size)});
    if (said && string_at(*said, "op") == "none") { return std::nullopt; }
  }
  return std::nullopt;
}

}  // namespace metier
