#include "cluster/embedded/net_probe_client.h"

#include <fmt/format.h>
#include <boost/asio/ip/tcp.hpp>

namespace metier {

Async<Result<int>> NetProbeClient::http_get(std::string url, std::chrono::milliseconds timeout) {
  net::ClientRequest request;
  request.url = std::move(url);
  request.timeout = timeout;
  request.body_limit = 64U << 10U;  // only the status matters
  auto response = co_await client_.send(std::move(request));
  if (!response) { co_return fail(std::move(response.error())); }
  co_return response->status;
}

Async<Result<void>> NetProbeClient::tcp_connect(std::string host, int port,
                                                std::chrono::milliseconds timeout) {
  using Tcp = asio::ip::tcp;
  boost::system::error_code ec;
  const auto address = asio::ip::make_address(host, ec);
  if (ec) { co_return fail(invalid("host", fmt::format("{} is not an address", quote(host)))); }
  auto socket = std::make_shared<asio::basic_stream_socket<Tcp, Executor>>(executor_);
  Timer limit(executor_, timeout);
  bool late = false;
  limit.async_wait([weak = std::weak_ptr(socket), &late](boost::system::error_code done) {
    const auto live = weak.lock();
    if (done || !live) { return; }
    late = true;
    boost::system::error_code ignored;
    (void)live->close(ignored);
  });
  co_await socket->async_connect({address, static_cast<unsigned short>(port)},
                                 asio::redirect_error(use_async, ec));
  limit.cancel();
  if (late) {
    co_return fail(ErrorKind::timed_out,
                   fmt::format("{}:{} did not accept within {} ms", host, port, timeout.count()));
  }
  if (ec) {
    co_return fail(ErrorKind::unavailable, fmt::format("{}:{}: {}", host, port, ec.message()));
  }
  co_return Result<void>{};
}

}  // namespace metier
