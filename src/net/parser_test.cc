#include "net/parser.h"

#include <gtest/gtest.h>

namespace metier::net {
namespace {

// Feeds `bytes` in pieces of `step`; the verdict on the first request.
struct Verdict {
  Parsed parsed = Parsed::need_more;
  Refusal refusal;
  Request request;
  bool keep_alive = false;
};
Verdict parse(std::string_view bytes, std::size_t step = 1U << 20U, Limits limits = {}) {
  RequestParser parser(limits);
  Verdict out;
  while (out.parsed != Parsed::message && out.parsed != Parsed::failed) {
    const bool at_head = out.parsed == Parsed::headers;
    if (bytes.empty() && !at_head) { break; }
    auto piece = bytes.substr(0, step);
    const auto before = piece.size();
    out.parsed = parser.feed(piece);
    bytes.remove_prefix(before - piece.size());
  }
  out.refusal = parser.refusal();
  out.request = parser.request();
  out.keep_alive = parser.keep_alive();
  return out;
}

TEST(RequestParser, ReadsHeadAndBodyInAnyPieces) {
  constexpr std::string_view kText =
      "POST /a%20b?x=1 HTTP/1.1\r\nHost: h\r\nX-Long: "
      "abcdefghijklmnopqrstuvwxyz\r\nContent-Length: 5\r\n\r\nhello";
  for (const std::size_t step : {1U, 2U, 3U, 7U, 1000U}) {
    const auto out = parse(kText, step);
    ASSERT_EQ(out.parsed, Parsed::message) << step << " " << out.refusal.reason;
    EXPECT_EQ(out.request.method, "POST");
    EXPECT_EQ(out.request.path, "/a b");
    EXPECT_EQ(out.request.body, "hello");
    EXPECT_EQ(header(out.request.headers, "x-long"), "abcdefghijklmnopqrstuvwxyz");
    EXPECT_TRUE(out.keep_alive);
  }
}

TEST(RequestParser, ReadsChunkedBodiesAndDropsTrailers) {
  constexpr std::string_view kText =
      "PUT / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: "
      "chunked\r\n\r\n3;ext=1\r\nabc\r\n2\r\nde\r\n0\r\nX-Trailer: t\r\n\r\n";
  for (const std::size_t step : {1U, 5U, 1000U}) {
    const auto out = parse(kText, step);
    ASSERT_EQ(out.parsed, Parsed::message) << out.refusal.reason;
    EXPECT_EQ(out.request.body, "abcde");
    EXPECT_EQ(out.request.headers.size(), 2U);
  }
}

TEST(RequestParser, RefusesWhatSmugglesRequests) {
  const std::string head = "POST / HTTP/1.1\r\nHost: h\r\n";
  for (const std::string_view tail : {
           "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
           "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
           "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
           "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
           "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
           "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
           "Content-Length : 5\r\n\r\nhello",
           "X: a\r\n folded\r\n\r\n",
           "X: a\nContent-Length: 5\r\n\r\nhello",
           "X: a\rb\r\n\r\n",
           "X: a\x01"
           "b\r\n\r\n",
           "Content-Length: +5\r\n\r\nhello",
           "Content-Length: -5\r\n\r\nhello",
           "Content-Length: 0x5\r\n\r\nhello",
           "Content-Length: 99999999999999999999\r\n\r\n",
           "Transfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n",
           "Transfer-Encoding: chunked\r\n\r\n-1\r\n\r\n",
           "Transfer-Encoding: chunked\r\n\r\n3\r\nabcdef\r\n0\r\n\r\n",
       }) {
    const auto out = parse(head + std::string(tail));
    EXPECT_EQ(out.parsed, Parsed::failed) << tail;
    EXPECT_TRUE(out.refusal.status == 400 || out.refusal.status == 413)
        << tail << out.refusal.status;
  }
  EXPECT_EQ(parse(head + std::string("X: a\0b\r\n\r\n", 10)).parsed, Parsed::failed);
}

TEST(RequestParser, RefusesBadHeadsWithTheirStatus) {
  struct Case {
    std::string_view text;
    int status;
  };
  for (const auto& [text, status] : {
           Case{"GET / HTTP/1.1\r\n\r\n", 400},
           Case{"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400},
           Case{"GET / HTTP/1.1\r\nHost: a\r\nAuthorization: x\r\nAuthorization: y\r\n\r\n", 400},
           Case{"GET /../x HTTP/1.1\r\nHost: a\r\n\r\n", 400},
           Case{"GET /%00 HTTP/1.1\r\nHost: a\r\n\r\n", 400},
           Case{"GET http://other/ HTTP/1.1\r\nHost: a\r\n\r\n", 400},
           Case{"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", 405},
           Case{"TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", 405},
           Case{"get / HTTP/1.1\r\nHost: a\r\n\r\n", 405},
           Case{"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505},
           Case{"GET / HTTP/1.1\r\nHost: a\r\nExpect: x\r\n\r\n", 417},
           Case{
               "POST / HTTP/1.1\r\nHost: a\r\nContent-Encoding: gzip\r\nContent-Length: 1\r\n\r\nx",
               415},
       }) {
    const auto out = parse(text);
    EXPECT_EQ(out.parsed, Parsed::failed) << text;
    EXPECT_EQ(out.refusal.status, status) << text << out.refusal.reason;
  }
}

TEST(RequestParser, HoldsItsLimitsExactly) {
  const Limits limits{.body_bytes = 8, .header_bytes = 40, .headers = 3, .target_bytes = 10};
  EXPECT_EQ(parse("GET /123456789 HTTP/1.1\r\nHost: a\r\n\r\n", 1000, limits).parsed,
            Parsed::message);
  EXPECT_EQ(parse("GET /1234567890 HTTP/1.1\r\nHost: a\r\n\r\n", 1000, limits).refusal.status, 414);
  EXPECT_EQ(parse("GET / HTTP/1.1\r\nHost: a\r\nB: b\r\nC: c\r\n\r\n", 1000, limits).parsed,
            Parsed::message);
  EXPECT_EQ(parse("GET / HTTP/1.1\r\nHost: a\r\nB: b\r\nC: c\r\nD: d\r\n\r\n", 1000, limits)
                .refusal.status,
            431);
  EXPECT_EQ(parse("GET / HTTP/1.1\r\nHost: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n\r\n",
                  1000, limits)
                .refusal.status,
            431);
  EXPECT_EQ(
      parse("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\n12345678", 1000, limits).parsed,
      Parsed::message);
  EXPECT_EQ(
      parse("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n", 1000, limits).refusal.status,
      413);
  EXPECT_EQ(parse("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: "
                  "chunked\r\n\r\n8\r\n12345678\r\n1\r\n9\r\n0\r\n\r\n",
                  1000, limits)
                .refusal.status,
            413);
}

TEST(RequestParser, IgnoresUpgradesToUnknownProtocols) {
  const auto out = parse(
      "POST / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: h9\r\nContent-Length: "
      "2\r\n\r\nok");
  ASSERT_EQ(out.parsed, Parsed::message);
  EXPECT_EQ(out.request.body, "ok");
  EXPECT_EQ(parse("GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: h9\r\n\r\n").parsed,
            Parsed::message);
}

TEST(ResponseParser, SkipsInterimAnswersAndEndsBodiesAtTheClose) {
  ResponseParser parser(100, false);
  std::string_view bytes = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nX: y\r\n\r\nabc";
  EXPECT_EQ(parser.feed(bytes), Parsed::need_more);
  EXPECT_EQ(parser.finish(), Parsed::message);
  EXPECT_EQ(parser.response().body, "abc");
  EXPECT_EQ(header(parser.response().headers, "x"), "y");
  EXPECT_FALSE(parser.keep_alive());
}

TEST(ResponseParser, TellsACutAnswerFromAWholeOne) {
  ResponseParser parser(100, false);
  std::string_view bytes = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc";
  EXPECT_EQ(parser.feed(bytes), Parsed::need_more);
  EXPECT_EQ(parser.finish(), Parsed::failed);
  ResponseParser bounded(2, false);
  bytes = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabcde";
  EXPECT_EQ(bounded.feed(bytes), Parsed::failed);
  EXPECT_EQ(bounded.error().kind, ErrorKind::too_large);
}

TEST(RequestBytes, CannotBeBrokenByHeaders) {
  EXPECT_FALSE(request_bytes({.method = "GET /x", .url = ""}, "h", "/"));
  EXPECT_FALSE(request_bytes({.method = "GET", .headers = {{"a", "b\r\nc: d"}}}, "h", "/"));
  EXPECT_FALSE(request_bytes({.method = "GET", .headers = {{"a b", "c"}}}, "h", "/"));
}

}  // namespace
}  // namespace metier::net
