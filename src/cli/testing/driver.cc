// The command line alone, for tests: against a scripted server, or against the small one below, which a command starts
// as its private server (it lists no runs and ends after a second).
#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/files.h"
#include "cli/cli.h"
#include "net/http.h"

namespace {

using namespace metier;

int serve(const cli::ServerOptions& options) {
  const Fd lock(::open((options.data + "/lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  if (::flock(lock.get(), LOCK_EX | LOCK_NB) != 0) { return 2; }
  asio::io_context loop(1);
  const auto server = net::make_server(
      loop.get_executor(),
      [](net::Request) -> Async<net::Response> {
        co_return net::json_response(200, R"({"runs":[]})");
      },
      net::Limits{}, Logger{});
  if (!server->listen({.name = "local", .unix_path = options.socket})) { return 2; }
  static_cast<void>(write_file(options.data + "/metier.db", ""));
  const Fd starts(
      ::open((options.data + "/starts").c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600));
  [[maybe_unused]] const auto n = ::write(starts.get(), "start\n", 6);
  if (options.ready_fd >= 0) {
    [[maybe_unused]] const auto m = ::write(options.ready_fd, "ready\n", 6);
    ::close(options.ready_fd);
  }
  asio::co_spawn(
      loop,
      [](Executor executor, net::Server& held) -> Async<void> {
        co_await sleep_for(executor, std::chrono::seconds(1));
        co_await held.close(std::chrono::milliseconds(100));
      }(loop.get_executor(), *server),
      [](std::exception_ptr) {});
  loop.run();
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  return metier::cli::cli_main(argc, argv,
                               metier::cli::Program{.server = &serve, .version = "0.0.0-test"});
}
