#include "cluster/embedded/loopback_network.h"

#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <cerrno>
#include <cstddef>
#include <cstring>

#include "base/digest.h"

namespace metier {
namespace {

constexpr unsigned kFirst = 64;
constexpr unsigned kNetworks = 128;

// An abstract socket's name is as unique as loopback addresses are: per network namespace. errno says why there is none.
Fd claim(unsigned number) {
  Fd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const auto name = fmt::format("metier/127.{}", number);
  std::memcpy(address.sun_path + 1, name.data(), name.size());
  const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name.size());
  if (::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), size) != 0) { return Fd(); }
  return socket;
}

}  // namespace

LoopbackNetwork::LoopbackNetwork(std::string_view seed) {
  const unsigned wanted = crc32c(seed) % kNetworks;
  number_ = kFirst + wanted;
  for (unsigned tried = 0; tried < kNetworks; ++tried) {
    const unsigned number = kFirst + (wanted + tried) % kNetworks;
    if (Fd held = claim(number)) {
      number_ = number;
      claim_ = std::move(held);
      return;
    }
    if (errno != EADDRINUSE) { return; }
  }
}

}  // namespace metier
