// Listening sockets, made with close-on-exec and without races on permissions.
#pragma once

#include <cstdint>
#include <string>

#include "base/files.h"
#include "net/http.h"

namespace metier::net {

struct Listening {
  Fd fd;
  int family = 0;
  std::uint16_t port = 0;
  std::string unlink_path;  // of a unix socket that we made
  std::uint64_t inode = 0;  // …to remove only our own
};

// Errors: conflict when somebody listens there (with the pid where the kernel tells), invalid for an address or
// path that cannot be used. A socket file that nobody listens on is replaced.
Result<Listening> open_listener(const ListenOptions& options);
// Removes the socket file when it is still the one we made.
void remove_socket_file(const Listening& listening);

}  // namespace metier::net
