// The smallest server: what one keep-alive request costs. `net_bench_server [PORT]`, then wrk; the numbers are in
// docs/decisions/http-server.md.
#include <fmt/format.h>
#include <sys/resource.h>

#include <cstdio>
#include <cstdlib>

#include "net/http.h"

int main(int argc, char** argv) {
  using namespace metier;
  asio::io_context loop(1);
  std::int64_t requests = 0;
  const std::string body(1024, 'x');
  const auto server = net::make_server(
      loop.get_executor(),
      [&](net::Request request) -> Async<net::Response> {
        if (request.path == "/cpu") {
          rusage usage{};
          getrusage(RUSAGE_SELF, &usage);
          const double cpu =
              static_cast<double>(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1e6 +
              static_cast<double>(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
          co_return net::json_response(200,
                                       fmt::format("{} requests, {:.0f} us CPU\n", requests, cpu));
        }
        ++requests;
        co_return net::json_response(200, body);
      },
      net::Limits{}, Logger{});
  const auto port =
      server->listen({.name = "tcp",
                      .host = "127.0.0.1",
                      .port = static_cast<std::uint16_t>(argc > 1 ? std::atoi(argv[1]) : 0)});
  if (!port) { return 1; }
  std::printf("%d\n", *port);
  std::fflush(stdout);
  loop.run();
}
