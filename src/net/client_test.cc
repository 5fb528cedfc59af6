#include "net/client.h"

#include <gtest/gtest.h>

#include "net/testing/loopback.h"

namespace metier::net {
namespace {

using testing::Loopback;

Async<Response> answer(Request request) {
  Response response;
  response.status = request.path == "/missing" ? 404 : 200;
  response.headers.emplace_back("x-method", request.method);
  response.body = request.body + "|" + std::string(header(request.headers, "x-in")) + "|" +
                  std::to_string(request.peer.pid);
  co_return response;
}

// Runs one coroutine on a loop of its own.
template <class T>
T run(asio::io_context& loop, Async<T> task) {
  std::optional<T> out;
  asio::co_spawn(loop, std::move(task),
                 [&](std::exception_ptr, T value) { out.emplace(std::move(value)); });
  loop.restart();
  while (!out && loop.run_one() > 0) {}
  return std::move(*out);
}

TEST(Client, SendsAndReusesItsConnection) {
  Loopback server(&answer);
  const auto url = "http://localhost:" + std::to_string(server.start_tcp());
  asio::io_context loop;
  const auto client = make_client(loop.get_executor());
  for (int i = 0; i < 3; ++i) {
    auto response =
        run(loop,
            client->send(
                {.method = "POST", .url = url + "/x", .headers = {{"x-in", "h"}}, .body = "body"}));
    ASSERT_TRUE(response) << response.error().message;
    EXPECT_EQ(response->status, 200);
    EXPECT_TRUE(response->body.starts_with("body|h|"));
  }
  EXPECT_EQ(run(loop, client->send({.url = url + "/missing"}))->status, 404);
}

TEST(Client, RepeatsOnlyWhatMayBeRepeatedAfterTheServerClosed) {
  auto server =
      std::make_unique<Loopback>(&answer, Limits{.idle_deadline = std::chrono::milliseconds(20)});
  const auto url = "http://127.0.0.1:" + std::to_string(server->start_tcp());
  asio::io_context loop;
  const auto client = make_client(loop.get_executor());
  ASSERT_TRUE(run(loop, client->send({.url = url})));
  server->stop(std::chrono::milliseconds(100));
  const auto response = run(loop, client->send({.url = url}));
  ASSERT_FALSE(response);
  EXPECT_EQ(response.error().kind, ErrorKind::unavailable);
  EXPECT_NE(response.error().message.find("connection refused"), std::string::npos)
      << response.error().message;
}

TEST(Client, GivesUpAtTheDeadline) {
  asio::io_context* serving = nullptr;
  Loopback server([&](Request) -> Async<Response> {
    co_await sleep_for(serving->get_executor(), std::chrono::milliseconds(300));
    co_return Response{};
  });
  serving = &server.loop();
  const auto url = "http://127.0.0.1:" + std::to_string(server.start_tcp());
  asio::io_context loop;
  const auto client = make_client(loop.get_executor());
  const auto response =
      run(loop, client->send({.url = url, .timeout = std::chrono::milliseconds(20)}));
  ASSERT_FALSE(response);
  EXPECT_EQ(response.error().kind, ErrorKind::timed_out);
  const auto blocking =
      make_blocking_client()->send({.url = url, .timeout = std::chrono::milliseconds(20)});
  ASSERT_FALSE(blocking);
  EXPECT_EQ(blocking.error().kind, ErrorKind::timed_out);
}

TEST(BlockingClient, SpeaksOverTcpAndUnixSockets) {
  const std::string path = "/tmp/metier-net-client-" + std::to_string(::getpid()) + ".sock";
  Loopback server(&answer);
  ASSERT_TRUE(server.listen({.name = "u", .unix_path = path}));
  const auto port = server.start_tcp();
  const auto client = make_blocking_client();
  for (const auto& url :
       {"unix://" + path + ":/x", "http://127.0.0.1:" + std::to_string(port) + "/x"}) {
    for (int i = 0; i < 2; ++i) {
      const auto response =
          client->send({.method = "PUT", .url = url, .body = std::string(100'000, 'b')});
      ASSERT_TRUE(response) << response.error().message;
      EXPECT_EQ(header(response->headers, "x-method"), "PUT");
      EXPECT_EQ(response->body.substr(0, 100'000), std::string(100'000, 'b'));
    }
  }
}

TEST(BlockingClient, ReadsBothSidesOfAnEarlyRefusal) {
  Loopback server(&answer, Limits{.body_bytes = 1000});
  const auto url = "http://127.0.0.1:" + std::to_string(server.start_tcp());
  const auto response = make_blocking_client()->send(
      {.method = "POST", .url = url, .body = std::string(300'000, 'x')});
  ASSERT_TRUE(response) << response.error().message;
  EXPECT_EQ(response->status, 413);
}

TEST(BlockingClient, SaysWhoDoesNotAnswer) {
  const auto client = make_blocking_client();
  auto response = client->send({.url = "unix:///tmp/metier-no-such.sock"});
  ASSERT_FALSE(response);
  EXPECT_EQ(response.error().kind, ErrorKind::unavailable);
  response = client->send({.url = "http://127.0.0.1:1/"});
  ASSERT_FALSE(response);
  EXPECT_EQ(response.error().message, "no server at http://127.0.0.1:1 (connection refused)");
  EXPECT_EQ(client->send({.url = "ftp://x"}).error().kind, ErrorKind::invalid);
}

}  // namespace
}  // namespace metier::net
