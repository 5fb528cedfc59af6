#include "main/held_sockets.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <fmt/format.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <charconv>
#include <filesystem>
#include <fstream>
#include <sstream>

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

}  // namespace metier
