// Probes over the network: HTTP through net's client, TCP by a connection that is closed at once.
#pragma once

#include "cluster/embedded/probes.h"
#include "net/client.h"

namespace metier {

class NetProbeClient final : public ProbeClient {
 public:
  NetProbeClient(Executor executor, net::Client& client) : executor_(executor), client_(client) {}
  Async<Result<int>> http_get(std::string url, std::chrono::milliseconds timeout) override;
  Async<Result<void>> tcp_connect(std::string host, int port,
                                  std::chrono::milliseconds timeout) override;

 private:
  Executor executor_;
  net::Client& client_;
};

}  // namespace metier
