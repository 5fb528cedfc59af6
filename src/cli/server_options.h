// What `metier server` was asked for; `main` turns it into a running server.
#pragma once

#include <functional>
#include <string>
#include <vector>

namespace metier::cli {

struct ServerOptions {
  std::string listen;                // "ADDR:PORT", empty = unix socket only
  std::string data;                  // data folder, always set
  std::string socket;                // path of the unix socket, always set
  std::string db = "sqlite";         // "sqlite" or "postgresql://…"
  std::string cluster = "embedded";  // "embedded" or "kubernetes"
  std::string kubeconfig;
  std::string tls_cert, tls_key;  // both or none
  std::string auth = "token";     // "token" or "none"
  bool insecure_no_auth = false;  // --auth none on another address than loopback
  std::vector<std::string> allowed_hosts;
  std::string python;           // interpreter of the default environment
  bool private_server = false;  // started by a command: ends 60 s after the last of its users
  int ready_fd = -1;            // METIER_READY_FD: "ready\n" is written there, then it is closed
};

// Runs until it is stopped; the exit code of the program.
using ServerMain = std::function<int(const ServerOptions&)>;

}  // namespace metier::cli
