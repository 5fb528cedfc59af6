#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>

#include "net/testing/loopback.h"

namespace metier::net {
namespace {

using testing::Loopback;
using testing::RawClient;

Async<Response> echo(Request request) {
  Response response;
  response.headers.emplace_back("x-path", request.path);
  response.body = request.method + " " + request.path + " " + request.body;
  co_return response;
}

std::string temporary_folder() {
  std::string path = std::filesystem::temp_directory_path() / "metier-net-XXXXXX";
  return ::mkdtemp(path.data()) != nullptr ? path : std::string();
}

int count(std::string_view text, std::string_view what) {
  int n = 0;
  for (auto at = text.find(what); at != std::string_view::npos;
       at = text.find(what, at + what.size())) {
    ++n;
  }
  return n;
}

TEST(Server, AnswersPipelinedRequestsInOrderOnOneConnection) {
  Loopback server(&echo);
  RawClient client(server.start_tcp());
  client.send(
      "GET /a HTTP/1.1\r\nHost: h\r\n\r\nPOST /b HTTP/1.1\r\nHost: h\r\nContent-Length: "
      "2\r\n\r\nhiGET /c HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
  const auto text = client.read_all();
  EXPECT_EQ(count(text, "HTTP/1.1 200 OK\r\n"), 3);
  EXPECT_LT(text.find("GET /a "), text.find("POST /b hi"));
  EXPECT_LT(text.find("POST /b hi"), text.find("GET /c "));
  EXPECT_EQ(count(text, "connection: close"), 1);
}

TEST(Server, AnswersHeadWithoutBody) {
  Loopback server(&echo);
  RawClient client(server.start_tcp());
  client.send("HEAD /abc HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
  const auto text = client.read_all();
  EXPECT_NE(text.find("content-length: 9\r\n"), std::string::npos) << text;
  EXPECT_TRUE(text.ends_with("\r\n\r\n"));
}

TEST(Server, SpeaksHttp10) {
  Loopback server(&echo);
  RawClient client(server.start_tcp());
  client.send("GET / HTTP/1.0\r\n\r\n");
  const auto text = client.read_all();
  EXPECT_TRUE(text.starts_with("HTTP/1.0 200 OK")) << text;
  EXPECT_NE(text.find("connection: close"), std::string::npos);
}

TEST(Server, InvitesTheBodyOnExpectContinue) {
  Loopback server(&echo);
  RawClient client(server.start_tcp());
  client.send(
      "POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 4\r\nConnection: "
      "close\r\n\r\n");
  EXPECT_EQ(client.read_until("\r\n\r\n"), "HTTP/1.1 100 Continue\r\n\r\n");
  client.send("body");
  EXPECT_NE(client.read_all().find("POST / body"), std::string::npos);
}

TEST(Server, ClosesAfterABadRequestAndIgnoresWhatFollows) {
  Loopback server(&echo);
  RawClient client(server.start_tcp());
  client.send("GET / HTTP/1.1\r\nHost : h\r\n\r\nGET /second HTTP/1.1\r\nHost: h\r\n\r\n");
  const auto text = client.read_all();
  EXPECT_TRUE(text.starts_with("HTTP/1.1 400 ")) << text;
  EXPECT_NE(text.find(R"({"detail":{"reason":)"), std::string::npos) << text;
  EXPECT_EQ(text.find("/second"), std::string::npos);
}

TEST(Server, AnswersAnOversizedBodyBeforeItIsSent) {
  Loopback server(&echo, Limits{.body_bytes = 10});
  RawClient client(server.start_tcp());
  client.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\n" +
              std::string(200'000, 'x'));
  EXPECT_TRUE(client.read_all().starts_with("HTTP/1.1 413 "));
}

TEST(Server, TimesOutSlowHeadsAndBodiesWith408) {
  Loopback server(&echo, Limits{.header_deadline = std::chrono::milliseconds(500),
                                .body_deadline = std::chrono::milliseconds(500)});
  const auto port = server.start_tcp();
  RawClient head(port);
  head.send("GET / HTT");  // at once: its time runs
  RawClient body(port);
  body.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nabc");
  RawClient silent(port);
  EXPECT_TRUE(head.read_all().starts_with("HTTP/1.1 408 "));
  EXPECT_TRUE(body.read_all().starts_with("HTTP/1.1 408 "));
  EXPECT_EQ(silent.read_all(), "");
}

TEST(Server, ClosesIdleConnections) {
  Loopback server(&echo, Limits{.idle_deadline = std::chrono::milliseconds(40)});
  RawClient client(server.start_tcp());
  client.send("GET /x HTTP/1.1\r\nHost: h\r\n\r\n");
  const auto text = client.read_all();  // ends when the server closes
  EXPECT_EQ(count(text, "200 OK"), 1) << text;
}

TEST(Server, DropsTheOldestIdleConnectionWhenFull) {
  Loopback server(&echo, Limits{.connections = 2});
  const auto port = server.start_tcp();
  RawClient first(port);
  first.send("GET /1 HTTP/1.1\r\nHost: h\r\n\r\n");
  first.read_until("GET /1 ");
  RawClient second(port);
  second.send("GET /2 HTTP/1.1\r\nHost: h\r\n\r\n");
  second.read_until("GET /2 ");
  RawClient third(port);
  third.send("GET /3 HTTP/1.1\r\nHost: h\r\n\r\n");
  EXPECT_NE(third.read_until("GET /3 ").find("200 OK"), std::string::npos);
  EXPECT_EQ(first.read_all(), "");
  second.send("GET /4 HTTP/1.1\r\nHost: h\r\n\r\n");
  EXPECT_NE(second.read_until("GET /4 ").find("200 OK"), std::string::npos);
}

Async<void> count_up(BodyWriter& writer) {
  for (int i = 0; i < 3; ++i) {
    const bool there = co_await writer.write("line " + std::to_string(i) + "\n");
    if (!there) { co_return; }
  }
}

TEST(Server, StreamsInChunksAndKeepsTheConnection) {
  Loopback server([](Request) -> Async<Response> {
    Response response;
    response.stream = [](BodyWriter& writer) { return count_up(writer); };
    co_return response;
  });
  RawClient client(server.start_tcp());
  client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
  const auto text = client.read_until("\r\n0\r\n\r\n");
  EXPECT_NE(text.find("transfer-encoding: chunked"), std::string::npos);
  EXPECT_NE(text.find("7\r\nline 0\n\r\n7\r\nline 1\n\r\n"), std::string::npos) << text;
  client.send("HEAD / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
  EXPECT_TRUE(client.read_all().ends_with("\r\n\r\n"));
}

TEST(Server, StopsAStreamWhoseClientDoesNotRead) {
  std::atomic<std::int64_t> written = 0;
  std::atomic<bool> gone = false;
  Loopback server(
      [&](Request) -> Async<Response> {
        Response response;
        response.stream = [&](BodyWriter& writer) -> Async<void> {
          const std::string piece(65536, 'x');
          for (;;) {
            const bool there = co_await writer.write(piece);
            if (!there) { break; }
            written += 65536;
          }
          gone = true;
        };
        co_return response;
      },
      Limits{.body_deadline = std::chrono::milliseconds(80)});
  RawClient client(server.start_tcp());
  client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
  while (!gone) { std::this_thread::yield(); }
  EXPECT_LT(written, 64 << 20) << "only what kernel buffers take";
}

TEST(Server, SurvivesResetsAndHalfClosedClients) {
  Loopback server(&echo);
  const auto port = server.start_tcp();
  RawClient half(port);
  half.send("GET /half HTTP/1.1\r\nHost: h\r\n\r\n");
  half.end_sending();
  EXPECT_NE(half.read_all().find("GET /half "), std::string::npos);
  for (int i = 0; i < 20; ++i) {
    RawClient client(port);
    client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    client.reset();
  }
  RawClient after(port);
  after.send("GET /after HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
  EXPECT_NE(after.read_all().find("GET /after "), std::string::npos);
}

TEST(Server, AnswersAThrowingHandlerWith500) {
  Loopback server([](Request) -> Async<Response> {
    throw std::runtime_error("secret detail");
    co_return Response{};
  });
  RawClient client(server.start_tcp());
  client.send("GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
  const auto text = client.read_all();
  EXPECT_TRUE(text.starts_with("HTTP/1.1 500 ")) << text;
  EXPECT_EQ(text.find("secret detail"), std::string::npos);
}

TEST(Server, NeverLetsAHeaderValueEndTheHead) {
  Loopback server([](Request) -> Async<Response> {
    Response response;
    response.headers.emplace_back("x-a", "b\r\nx-evil: 1");
    co_return response;
  });
  RawClient client(server.start_tcp());
  client.send("GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
  EXPECT_EQ(client.read_all().find("\r\nx-evil"), std::string::npos);
}

TEST(Server, KnowsThePeerOfAUnixSocketAndReplacesAStaleFile) {
  const auto folder = temporary_folder();
  const auto path = folder + "/m.sock";
  {  // a socket file that nobody listens on any more
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, path.data(), path.size());
    const Fd stale(::socket(AF_UNIX, SOCK_STREAM, 0));
    ASSERT_EQ(::bind(stale.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  }
  Loopback server([](Request request) -> Async<Response> {
    co_return json_response(200, std::to_string(request.peer.uid) + " " +
                                     std::to_string(request.peer.pid) + " " +
                                     request.peer.listener);
  });
  ASSERT_TRUE(server.listen({.name = "local", .unix_path = path, .unix_mode = 0600}));
  server.start();
  EXPECT_EQ(std::filesystem::status(path).permissions(),
            std::filesystem::perms::owner_read | std::filesystem::perms::owner_write);
  RawClient client(path);
  client.send("GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
  const auto text = client.read_all();
  EXPECT_NE(text.find(std::to_string(::getuid()) + " " + std::to_string(::getpid()) + " local"),
            std::string::npos)
      << text;

  Loopback second(&echo);
  const auto refused = second.listen({.name = "local", .unix_path = path});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().kind, ErrorKind::conflict);
  EXPECT_NE(refused.error().message.find(std::to_string(::getpid())), std::string::npos)
      << refused.error().message;
  second.start();
  server.stop(std::chrono::milliseconds(100));
  EXPECT_FALSE(std::filesystem::exists(path));
  std::filesystem::remove_all(folder);
}

TEST(Server, NamesWhoHoldsAPort) {
  Loopback server(&echo);
  const auto port = server.start_tcp();
  Loopback second(&echo);
  const auto refused = second.listen({.name = "b", .host = "127.0.0.1", .port = port});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().kind, ErrorKind::conflict);
  EXPECT_NE(refused.error().message.find("process " + std::to_string(::getpid())),
            std::string::npos)
      << refused.error().message;
  EXPECT_FALSE(second.listen({.name = "c", .host = "not an address"}));
  EXPECT_FALSE(second.listen({.name = "d", .unix_path = "/tmp/" + std::string(200, 'x')}));
  second.start();
}

TEST(Server, TakesOverAListeningSocket) {
  Loopback server(&echo);
  const auto port = server.listen({.name = "tcp", .host = "127.0.0.1"}).value();
  const int fd = ::dup(server.server().listener_fd("tcp"));
  server.start();
  server.stop(std::chrono::milliseconds(100));
  RawClient waiting(port);  // nobody accepts: the connection waits in the backlog
  ASSERT_TRUE(waiting.connected());
  waiting.send("GET /kept HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
  Loopback heir(&echo);
  EXPECT_EQ(heir.listen({.name = "tcp", .inherited_fd = fd}).value(), port);
  heir.start();
  EXPECT_NE(waiting.read_all().find("GET /kept "), std::string::npos);
}

TEST(Server, LetsRequestsInFlightFinishOnClose) {
  asio::io_context* loop = nullptr;
  std::atomic<bool> inside = false;
  Loopback server([&](Request) -> Async<Response> {
    inside = true;
    co_await sleep_for(loop->get_executor(), std::chrono::milliseconds(50));
    co_return json_response(200, "done");
  });
  loop = &server.loop();
  const auto port = server.start_tcp();
  RawClient client(port);
  client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
  while (!inside) { std::this_thread::yield(); }
  server.stop(std::chrono::seconds(5));
  const auto text = client.read_all();
  EXPECT_NE(text.find("done"), std::string::npos);
  EXPECT_NE(text.find("connection: close"), std::string::npos);
}

}  // namespace
}  // namespace metier::net
