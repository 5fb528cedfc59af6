#include "base/ports.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <filesystem>
#include <fstream>

#include "base/files.h"

namespace metier {
namespace {

namespace fs = std::filesystem;
constexpr unsigned kListening = 0x0A;

// Whether an address of /proc/net/tcp or tcp6 ("0100007F") is the wanted one or stands for all.
bool covers(std::string_view listed, std::string_view wanted) {
  return wanted.empty() || listed == wanted ||
         listed.find_first_not_of('0') == std::string_view::npos;
}

// The inode of a socket that listens on the port, 0 when not found. `wanted` is an address as /proc has it; empty: any.
std::uint64_t listening_inode(std::string_view wanted, std::uint16_t port) {
  const auto ending = fmt::format(":{:04X}", port);
  for (const char* table : {"/proc/net/tcp", "/proc/net/tcp6"}) {
    std::ifstream file(table);
    std::string line;
    std::getline(file, line);
    while (std::getline(file, line)) {
      std::array<char, 80> local{};
      unsigned state = 0;
      unsigned long inode = 0;
      if (std::sscanf(line.c_str(), " %*d: %79s %*s %x %*s %*s %*s %*s %*s %lu", local.data(),
                      &state, &inode) != 3) {
        continue;
      }
      std::string_view address(local.data());
      if (state != kListening || !address.ends_with(ending)) { continue; }
      address.remove_suffix(ending.size());
      if (covers(address, wanted)) { return inode; }
    }
  }
  return 0;
}

// The process that holds a socket by inode, 0 when /proc does not tell.
std::int64_t holder_of(std::uint64_t inode) {
  if (inode == 0) { return 0; }
  const auto wanted = fmt::format("socket:[{}]", inode);
  std::error_code ec;
  for (const auto& process : fs::directory_iterator("/proc", ec)) {
    const auto name = process.path().filename().string();
    std::int64_t pid = 0;
    if (std::from_chars(name.data(), name.data() + name.size(), pid).ptr !=
        name.data() + name.size()) {
      continue;
    }
    std::error_code denied;
    for (const auto& entry : fs::directory_iterator(process.path() / "fd", denied)) {
      std::error_code gone;
      if (fs::read_symlink(entry.path(), gone) == wanted) { return pid; }
    }
  }
  return 0;
}

}  // namespace

std::string process_text(std::int64_t pid) {
  if (pid <= 0) { return "another process"; }
  std::ifstream file("/proc/" + std::to_string(pid) + "/comm");
  std::string name;
  std::getline(file, name);
  return name.empty() ? fmt::format("process {}", pid) : fmt::format("process {} ({})", pid, name);
}

std::string any_port_holder(std::uint16_t port) {
  return process_text(holder_of(listening_inode({}, port)));
}

std::string port_holder(const std::string& address, std::uint16_t port) {
  sockaddr_in wanted{};
  wanted.sin_family = AF_INET;
  wanted.sin_port = htons(port);
  if (::inet_pton(AF_INET, address.c_str(), &wanted.sin_addr) != 1) { return {}; }
  const Fd probe(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const int on = 1;
  ::setsockopt(probe.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (::bind(probe.get(), reinterpret_cast<const sockaddr*>(&wanted), sizeof wanted) == 0 ||
      errno != EADDRINUSE) {
    return {};
  }
  return process_text(
      holder_of(listening_inode(fmt::format("{:08X}", wanted.sin_addr.s_addr), port)));
}

}  // namespace metier
