#include "net/forward.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "net/testing/loopback.h"

namespace metier::net {
namespace {

using ::testing::HasSubstr;
using testing::Loopback;
using ::testing::Not;
using testing::RawClient;

// Pages as a pod serves them: what it was asked, a redirect, a WebSocket that echoes.
Async<Response> pages(Request request) {
  Response out;
  if (request.path == "/away") {
    out.status = 302;
    out.headers.emplace_back("location", "http://127.9.9.9:1/jobs/?a=1");
    co_return out;
  }
  if (request.path == "/ws") {
    out.take_over = [](Duplex& peer) -> Async<void> {
      co_await peer.write("HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\n\r\n");
      std::array<char, 64> bytes{};
      for (;;) {
        const auto n = co_await peer.read(bytes);
        if (n == 0) { break; }
        const bool written = co_await peer.write("<" + std::string(bytes.data(), n) + ">");
        if (!written) { break; }
      }
    };
    co_return out;
  }
  for (const char* name : {"host", "authorization", "cookie", "x-forwarded-context"}) {
    out.body += std::string(name) + "=" + std::string(header(request.headers, name)) + ";";
  }
  out.body += request.method + " " + request.target + " " + request.body;
  out.headers.emplace_back("x-page", "yes");
  co_return out;
}

class ForwardTest : public ::testing::Test {
 protected:
  ForwardTest() {
    origin_ = "http://127.0.0.1:" + std::to_string(pages_.start_tcp());
    client_ = make_client(front_.loop().get_executor());
    port_ = front_.start_tcp();
  }
  std::string ask(const std::string& bytes) {
    RawClient client(port_);
    client.send(bytes);
    return client.read_all();
  }
  Loopback pages_{&pages};
  std::unique_ptr<Client> client_;
  std::string origin_;
  Loopback front_{[this](Request request) -> Async<Response> {
    const auto target = request.target;
    co_return forward(*client_, front_.loop().get_executor(), std::move(request),
                      {.origin = origin_,
                       .target = target,
                       .headers = {{"authorization", ""}, {"x-forwarded-context", "/ui"}},
                       .prefix = "/ui",
                       .answer = {{"x-ours", "1"}}});
  }};
  std::uint16_t port_ = 0;
};

TEST_F(ForwardTest, PassesRequestAndAnswerOn) {
  const auto said =
      ask("POST /a%20b?x=1 HTTP/1.1\r\nHost: front\r\nAuthorization: Bearer t\r\nCookie: c=1\r\n"
          "Content-Length: 4\r\n\r\nbody");
  EXPECT_THAT(said, HasSubstr("HTTP/1.1 200 OK"));
  EXPECT_THAT(said, HasSubstr("x-page: yes"));
  EXPECT_THAT(said, HasSubstr("x-ours: 1"));
  EXPECT_THAT(said, HasSubstr("host=" + origin_.substr(7) +
                              ";authorization=;cookie=c=1;x-forwarded-context=/ui;"
                              "POST /a%20b?x=1 body"));
}

TEST_F(ForwardTest, KeepsRedirectsBelowThePrefix) {
  const auto said = ask("GET /away HTTP/1.1\r\nHost: front\r\n\r\n");
  EXPECT_THAT(said, HasSubstr("location: /ui/jobs/?a=1\r\n"));
  EXPECT_THAT(said, Not(HasSubstr("127.9.9.9")));
  const Forward to{.prefix = "/ui"};
  EXPECT_THAT(forwarded_head("HTTP/1.1 302 Found\r\nLocation: /ui/x\r\n\r\n", to),
              HasSubstr("location: /ui/x\r\n"));
  EXPECT_THAT(forwarded_head("HTTP/1.1 302 Found\r\nLocation: next\r\n\r\n", to),
              HasSubstr("location: next\r\n"));
}

TEST_F(ForwardTest, CarriesAWebSocketBothWays) {
  RawClient client(port_);
  client.send(
      "GET /ws HTTP/1.1\r\nHost: front\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
  EXPECT_THAT(client.read_until("\r\n\r\n"), HasSubstr("101 Switching"));
  client.send("one");
  EXPECT_EQ(client.read_until(">"), "<one>");
  client.send("two");
  EXPECT_EQ(client.read_until(">"), "<two>");
}

TEST_F(ForwardTest, AServerThatIsGoneIsABadGateway) {
  pages_.stop(std::chrono::milliseconds(100));
  EXPECT_THAT(ask("GET / HTTP/1.1\r\nHost: front\r\n\r\n"), HasSubstr("HTTP/1.1 502"));
}

}  // namespace
}  // namespace metier::net
