#include "realtime/triggers/http/request.h"

#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <random>
#include <string>
#include <vector>

namespace metier::realtime {
namespace {

struct Got {
  std::vector<std::string> messages;  // method, path, query, headers, body
  int refused = 0;
};

std::string words_of(const HttpRequest& request) {
  std::string out = std::string(request.method()) + " " + std::string(request.path()) + "?" +
                    std::string(request.query());
  for (const HeaderView& header : request.headers()) {
    out += "|" + std::string(header.name) + "=" + std::string(header.value);
  }
  return out + "#" + std::string(request.body());
}

// Feeds `bytes` in pieces of the sizes that `next_size` gives.
Got feed(const HttpOptions& options, std::string_view bytes,
         const std::function<std::size_t()>& next_size) {
  Got got;
  HttpRequest request(options);
  while (!bytes.empty()) {
    const HttpRequest::Room room = request.room();
    const std::size_t size =
        std::min({room.size, bytes.size(), std::max<std::size_t>(1, next_size())});
    std::memcpy(room.at, bytes.data(), size);
    bytes.remove_prefix(size);
    Parsed parsed = request.took(size);
    while (parsed != Parsed::need_more) {
      if (parsed == Parsed::failed) {
        got.refused = request.status();
        return got;
      }
      if (parsed == Parsed::message) {
        got.messages.push_back(words_of(request));
        request.next();
        if (!request.has_more()) { break; }
      }
      parsed = request.go_on();
    }
  }
  return got;
}

const std::string kStream =
    "GET /a%20b?x=1&y HTTP/1.1\r\nHost: h\r\nX-One: 1\r\nEmpty:\r\n\r\n"
    "POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello"
    "POST /c HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: "
    "chunked\r\n\r\n3\r\nabc\r\n2;e\r\nde\r\n0\r\nT: x\r\n\r\n"
    "POST /e HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nok"
    "DELETE http://h/abs?q HTTP/1.1\r\nHost: h\r\n\r\n";
const std::vector<std::string> kMessages = {
    "GET /a b?x=1&y|Host=h|X-One=1|Empty=#", "POST /p?|Host=h|Content-Length=5#hello",
    "POST /c?|Host=h|Transfer-Encoding=chunked#abcde",
    "POST /e?|Host=h|Expect=100-continue|Content-Length=2#ok", "DELETE /abs?q|Host=h#"};

TEST(HttpRequest, ReadsTheSameHoweverTheBytesArrive) {
  const HttpOptions options;
  for (std::size_t piece = 1; piece <= kStream.size(); ++piece) {
    EXPECT_EQ(feed(options, kStream, [&] { return piece; }).messages, kMessages)
        << "in pieces of " << piece;
  }
}

TEST(HttpRequest, LargeBodiesKeepTheirBytes) {
  HttpOptions options;
  options.body_bytes = 3'000'000;
  std::string body(2'500'000, '\0');
  for (std::size_t i = 0; i < body.size(); ++i) { body[i] = static_cast<char>(i * 7); }
  const std::string head =
      "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n";
  const Got got = feed(options, head + body + kStream, [] { return std::size_t{70'000}; });
  ASSERT_EQ(got.messages.size(), 1 + kMessages.size());
  EXPECT_TRUE(got.messages[0].ends_with("#" + body));
}

TEST(HttpRequest, Limits) {
  HttpOptions options;
  options.body_bytes = 4;
  options.head_bytes = 200;
  const auto status = [&](const std::string& bytes) {
    return feed(options, bytes, [] { return std::size_t{4096}; }).refused;
  };
  EXPECT_EQ(status("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nabcd"), 0);
  EXPECT_EQ(status("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nabcde"), 413);
  EXPECT_EQ(
      status("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n"),
      413);
  EXPECT_EQ(status("GET / HTTP/1.1\r\nHost: h\r\nX: " + std::string(300, 'x') + "\r\n\r\n"), 431);
  EXPECT_EQ(status("GET / HTTP/1.1\r\nHost: h\r\nX: " + std::string(300, 'x')), 431);
  options.head_bytes = 16U << 10U;
  EXPECT_EQ(status("GET /" + std::string(9000, 'a')), 414);
}

// Bytes changed, cut, doubled and moved, in random pieces: it ends in messages or a refusal, and never in a message that two ways of cutting
// the same bytes read differently.
TEST(HttpRequest, MutatedStreamsAreReadOneWayOnly) {
  const auto seed = std::random_device{}();
  std::printf("seed %u\n", seed);
  std::mt19937 random(seed);
  const HttpOptions options;
  for (int round = 0; round < 20'000; ++round) {
    std::string bytes = kStream;
    for (unsigned i = random() % 4 + 1; i > 0; --i) {
      const std::size_t at = random() % bytes.size();
      switch (random() % 5) {
        case 0: bytes[at] = static_cast<char>(random()); break;
        case 1: bytes.erase(at, random() % 8 + 1); break;
        case 2: bytes.insert(at, bytes.substr(random() % bytes.size(), random() % 20)); break;
        case 3:
          bytes.insert(at, std::string_view("\r\n\0: ,;\t", 8).substr(random() % 8, 1));
          break;
        default: bytes.resize(at + 1); break;
      }
      if (bytes.empty()) { bytes = "G"; }
    }
    const Got whole = feed(options, bytes, [&] { return bytes.size(); });
    const Got pieces = feed(options, bytes, [&] { return std::size_t{random() % 40 + 1}; });
    ASSERT_EQ(whole.messages, pieces.messages) << "seed " << seed << ": " << bytes;
    ASSERT_EQ(whole.refused != 0, pieces.refused != 0) << "seed " << seed << ": " << bytes;
  }
}

}  // namespace
}  // namespace metier::realtime
