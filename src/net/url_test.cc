#include "net/url.h"

#include <gtest/gtest.h>

namespace metier::net {
namespace {

TEST(Target, DecodesOnceAndKeepsQueryOrder) {
  const auto target = parse_target("/a%20b/%252e%252e?x=1&y=a+b%2B&x=2&flag");
  ASSERT_TRUE(target) << target.error().message;
  EXPECT_EQ(target->path, "/a b/%2e%2e");
  ASSERT_EQ(target->query.size(), 4U);
  EXPECT_EQ(target->query[1].second, "a b+");
  EXPECT_EQ(target->query[2].second, "2");
  EXPECT_EQ(target->query[3].first, "flag");
}

TEST(Target, RefusesWhatCouldMeanTwoThings) {
  for (const char* bad : {"/a/../b", "/..", "/a/%2e%2e/b", "/a%00b", "/%zz", "/%2", "/a?x=%00",
                          "http://x/", "*", "", "a", "/./a", "/a%0ab"}) {
    EXPECT_FALSE(parse_target(bad)) << bad;
  }
  EXPECT_TRUE(parse_target("/a..b/...")) << "dots inside a name are fine";
  EXPECT_TRUE(parse_target("//a/"));
}

TEST(Url, ReadsTheThreeSchemes) {
  auto url = parse_url("http://localhost:8080/a?b=1#c");
  ASSERT_TRUE(url);
  EXPECT_EQ(url->target, "/a?b=1");
  EXPECT_EQ(url->host_header(), "localhost:8080");
  url = parse_url("https://[::1]");
  ASSERT_TRUE(url);
  EXPECT_EQ(url->host, "::1");
  EXPECT_EQ(url->port, 443);
  EXPECT_EQ(url->host_header(), "[::1]");
  url = parse_url("unix:///run/m.sock:/healthz");
  ASSERT_TRUE(url);
  EXPECT_EQ(url->host, "/run/m.sock");
  EXPECT_EQ(url->target, "/healthz");
}

TEST(Url, NamesTheRuleItBreaks) {
  for (const char* bad : {"ftp://x", "http://x:99999", "http://x:0", "http://x:", "http://",
                          "http://u:p@x", "unix://rel", "http://a b", "x"}) {
    const auto url = parse_url(bad);
    ASSERT_FALSE(url) << bad;
    EXPECT_EQ(url.error().kind, ErrorKind::invalid) << bad;
  }
}

TEST(PercentEncode, RoundTrips) {
  const std::string text = "a b/ü?&=%+";
  EXPECT_EQ(percent_decode(percent_encode(text), false).value(), text);
  EXPECT_EQ(percent_encode("a/b", "/"), "a/b");
}

}  // namespace
}  // namespace metier::net
