#include <gtest/gtest.h>

#include <cmath>

#include "base/async.h"
#include "base/clock.h"
#include "base/digest.h"
#include "base/files.h"
#include "base/json.h"
#include "base/quantity.h"
#include "base/yaml.h"

namespace metier {
namespace {

TEST(Yaml, ATextWithoutEndIsRefused) {
  // yaml-cpp alone makes documents of it for ever (found by the fuzz target).
  const auto read = parse_yaml_all("---\n- v\naN6ID<<: {dC 1}\n---\n,- v\naN\n");
  ASSERT_FALSE(read);
  EXPECT_EQ(read.error().kind, ErrorKind::invalid);
  EXPECT_EQ(parse_yaml_all("---\na: 1\n---\nb: 2\n...\n---\n- 1\n")->size(), 3U);
}

TEST(Quantity, UnitsRoundUpBelowZeroToo) {
  EXPECT_EQ(Quantity::parse("-3")->units(), -3);
  EXPECT_EQ(Quantity::parse("-1500m")->units(), -1);
  EXPECT_EQ(Quantity::parse("1500m")->units(), 2);
  EXPECT_EQ(Quantity::from_milli(INT64_MAX).units(), INT64_MAX / 1000 + 1);
}

TEST(Json, AMemberIsAddedToATextWithoutParsing) {
  for (const auto* text :
       {R"({"a":{"status":{"x":1}},"status":{"s":"}\"{","n":[{"status":{}}]},"z":1})",
        R"({"status":{}})", R"({"metadata":{"status":"status"},"status":{"state":"a\\"}})"}) {
    std::string out = text;
    ASSERT_TRUE(add_member_text(out, "status", R"("artifacts":[1,{"a":2}])")) << text;
    auto wanted = parse_json(text)->as_object();
    wanted["status"].as_object()["artifacts"] = parse_json(R"([1,{"a":2}])").value();
    EXPECT_EQ(out, dump_object(wanted));
  }
  for (const auto* text : {R"({"status":[1]})", R"({"a":{"status":{}}})", "{}", "", "}"}) {
    std::string out = text;
    EXPECT_FALSE(add_member_text(out, "status", R"("a":1)"));
    EXPECT_EQ(out, text);
  }
}

TEST(Json, KeepsOrderAndUnknownFields) {
  const auto text = R"({"b":1,"a":{"z":null,"y":[1,2.5,"x"]}})";
  EXPECT_EQ(dump_json(*parse_json(text)), text);
}

TEST(Json, ReadsPythonsNanAndWritesNull) {
  const auto value = parse_json(R"({"a":NaN,"b":-Infinity})");
  ASSERT_TRUE(value) << value.error().text();
  EXPECT_TRUE(std::isnan(value->at("a").get_double()));
  EXPECT_EQ(dump_json(*value), R"({"a":null,"b":null})");
}

TEST(Json, RefusesDepthDuplicatesRubbish) {
  const std::string deep = std::string(200, '[') + std::string(200, ']');
  EXPECT_EQ(parse_json(deep).error().kind, ErrorKind::invalid);
  EXPECT_EQ(parse_json(R"({"kind":1,"kind":2})").error().message, "key 'kind' is given twice");
  EXPECT_FALSE(parse_json(""));
  EXPECT_FALSE(parse_json("{} x"));
  EXPECT_FALSE(parse_json("\xef\xbb\xbf{}"));
  EXPECT_FALSE(parse_json("\"\xff\""));
  EXPECT_EQ(parse_json("[1,2,3]", {.nodes = 2}).error().kind, ErrorKind::too_large);
}

TEST(Json, DumpsAsPythonDoes) {
  const auto value =
      parse_json(R"({"b":[1.0,1e-7,1e16,0.1],"a":"h\u00e9\ud83d\ude00\u007f","c":true})");
  EXPECT_EQ(dump_python_json(*value),
            R"({"a": "h\u00e9\ud83d\ude00\u007f", "b": [1.0, 1e-07, 1e+16, 0.1], "c": true})");
}

TEST(Json, SetsDottedPathsWithLiteralMode) {
  JsonObject root;
  ASSERT_TRUE(set_dotted(root, R"(status.results.\a.b\)", Json(1)));
  ASSERT_TRUE(set_dotted(root, "status.state", Json("running")));
  EXPECT_EQ(dump_json(Json(root)), R"({"status":{"results":{"a.b":1},"state":"running"}})");
}

TEST(Json, WhatADottedPathMakesCanBeReadAgain) {
  JsonObject root;
  std::string path = "a";
  for (int i = 0; i < 126; ++i) { path += ".b"; }
  ASSERT_TRUE(set_dotted(root, path, Json(1)));
  EXPECT_TRUE(parse_json(dump_json(Json(root))));
  ASSERT_TRUE(set_dotted(root, path, Json(JsonArray{1})));
  EXPECT_TRUE(parse_json(dump_json(Json(root))));
  EXPECT_FALSE(set_dotted(root, path, *parse_json("[[1]]")));
  const auto deep = set_dotted(root, path + ".c.d", Json(1));
  ASSERT_FALSE(deep);
  EXPECT_NE(deep.error().text().find("more than 128 levels"), std::string::npos);
  EXPECT_TRUE(parse_json(dump_json(Json(root))));
}

TEST(Yaml, ReadsScalarsAsPyYamlDoes) {
  const auto value = parse_yaml(
      "a: yes\nb: 1.10\nc: '1.10'\nd: 007\ne: 1e3\nf: ~\ng: 1_000\nh: 0x1f\ni: [x, {y: z}]\n");
  ASSERT_TRUE(value) << value.error().text();
  EXPECT_EQ(
      dump_json(*value),
      R"({"a":true,"b":1.1,"c":"1.10","d":7,"e":"1e3","f":null,"g":1000,"h":31,"i":["x",{"y":"z"}]})");
}

TEST(Yaml, RoundTrips) {
  const auto text =
      R"({"kind":"job","list":[],"map":{},"n":null,"items":[{"a":1,"b":["x","y"]},[1,2],"no","1.5","a: b","-x","line\nbreak","2024-01-01",""],"f":1e-07,"t":true})";
  const auto value = parse_json(text);
  const auto again = parse_yaml(dump_yaml(*value));
  ASSERT_TRUE(again) << again.error().text() << dump_yaml(*value);
  EXPECT_EQ(dump_json(*again), dump_json(*value));
}

TEST(Yaml, WhatIsNoUtf8IsRefusedWithItsPlace) {
  for (const std::string_view bad :
       {"a: \xff", "a: \xc0\xaf", "a: \xed\xa0\x80", "a: \xf4\x90\x80\x80", "a: \xe2\x82"}) {
    const auto read = parse_yaml(bad);
    ASSERT_FALSE(read) << bad;
    EXPECT_NE(read.error().message.find("byte 3"), std::string::npos) << read.error().message;
  }
  EXPECT_EQ(parse_yaml("a: \xe2\x82\xac \xf0\x9f\x98\x80")->at("a").as_string(),
            "\xe2\x82\xac \xf0\x9f\x98\x80");
}

TEST(Yaml, LongKeysRoundTrip) {
  const Json value = {
      {"a",
       {{std::string(3000, 'k'), {{"b", 1}}}, {"c", {{{std::string(2000, 'x') + ": ", "v"}}}}}}};
  EXPECT_EQ(parse_yaml(dump_yaml(value)).value(), value) << dump_yaml(value);
}

TEST(Yaml, RefusesBombsTagsAndDuplicates) {
  std::string bomb = "a: &a [x,x,x,x,x,x,x,x,x]\n";
  for (char c = 'b'; c <= 'i'; ++c) {
    bomb += fmt::format("{0}: &{0} [*{1},*{1},*{1},*{1},*{1},*{1},*{1},*{1},*{1}]\n", c,
                        static_cast<char>(c - 1));
  }
  EXPECT_FALSE(parse_yaml(bomb));
  EXPECT_FALSE(parse_yaml("a: &x [*x]\n"));
  EXPECT_FALSE(parse_yaml("a: !!python/object/apply:os.system [ls]\n"));
  EXPECT_FALSE(parse_yaml("a: 1\na: 2\n"));
  EXPECT_FALSE(parse_yaml("a: [1\n"));
  EXPECT_FALSE(parse_yaml("a: 1\n---\nb: 2\n"));
}

TEST(Quantity, ParsesAndRefuses) {
  EXPECT_EQ(Quantity::parse("500m")->milli(), 500);
  EXPECT_EQ(Quantity::parse("2Gi")->units(), 2147483648);
  EXPECT_EQ(Quantity::parse("12e6")->units(), 12000000);
  EXPECT_EQ(Quantity::parse("1.5")->milli(), 1500);
  EXPECT_EQ(Quantity::parse("128974848000m")->units(), 128974848);
  for (const auto* bad :
       {"", "2GB", "1g", "1GPU", "x", "1.2.3", "1e99", "NaN", "1,5", " 1", "2G i", "1Zi"}) {
    EXPECT_FALSE(Quantity::parse(bad)) << bad;
  }
  EXPECT_EQ(Quantity::parse("1536Mi")->bytes_text(), "1536Mi");
  EXPECT_EQ(Quantity::from_milli(1500).cpu_text(), "1500m");
}

TEST(Digest, MatchesKnownValues) {
  EXPECT_EQ(sha1_hex("abc"), "a9993e364706816aba3e25717850c26c9cd0d89d");
  EXPECT_EQ(crc32c("123456789"), 0xe3069283U);
  EXPECT_EQ(*base64_decode(base64_encode("any bytes\x01")), "any bytes\x01");
  EXPECT_FALSE(base64_decode("a"));
  EXPECT_EQ(new_uid(system_random()).size(), 32U);
}

TEST(Clock, TimesOutsideOfFourDigitYearsAreTheNearest) {
  EXPECT_EQ(to_iso(Time::min()), "0000-01-01T00:00:00.000000+00:00");
  EXPECT_EQ(to_iso(Time::max()), "9999-12-31T23:59:59.999999+00:00");
}

TEST(Clock, ReadsAndWritesIsoTimes) {
  const auto time = from_iso("2026-11-25T16:20:28.5+02:00");
  ASSERT_TRUE(time);
  EXPECT_EQ(to_iso(*time), "2026-11-25T14:20:28.500000+00:00");
  EXPECT_EQ(from_iso(to_iso(*time)), time);
  EXPECT_TRUE(from_iso("2026-11-25"));
  EXPECT_FALSE(from_iso("2024-13-45"));
  EXPECT_FALSE(from_iso("last"));
  EXPECT_EQ(parse_duration("1h30m"), std::chrono::minutes(90));
  EXPECT_FALSE(parse_duration("5 parsecs"));
  EXPECT_EQ(human_duration(std::chrono::milliseconds(210)), "0.21 s");
}

TEST(Files, RecordsNoticeDamage) {
  const auto path =
      std::filesystem::temp_directory_path() / fmt::format("metier-record-{}", ::getpid());
  ASSERT_TRUE(write_record(path, R"({"v":1})"));
  EXPECT_EQ(*read_record(path), R"({"v":1})");
  const auto whole = *read_file(path);
  for (std::size_t cut = 0; cut < whole.size(); ++cut) {
    EXPECT_FALSE(record_body(whole.substr(0, cut))) << cut;
  }
  for (std::size_t at = 0; at < whole.size(); ++at) {
    auto flipped = whole;
    flipped[at] ^= 1;
    EXPECT_FALSE(record_body(flipped)) << at;
  }
  std::filesystem::remove(path);
  EXPECT_EQ(read_record(path).error().kind, ErrorKind::not_found);
}

TEST(Scope, ClosesAHundredLongWaitsAtOnce) {
  asio::io_context io;
  Scope scope(io.get_executor());
  for (int i = 0; i < 100; ++i) {
    EXPECT_TRUE(scope.spawn("wait", [](Executor executor) -> Async<void> {
      co_await sleep_for(executor, std::chrono::hours(1));
    }(io.get_executor())));
  }
  bool closed = false;
  asio::co_spawn(
      io,
      [](Scope& s, bool& done) -> Async<void> {
        done = (co_await s.close(std::chrono::seconds(5))).has_value();
      }(scope, closed),
      [](std::exception_ptr) {});
  io.run();
  EXPECT_TRUE(closed);
}

TEST(Signal, WakesEveryWaiterAndHonoursDeadlines) {
  asio::io_context io;
  Signal signal(io.get_executor());
  int woken = 0;
  for (int i = 0; i < 3; ++i) {
    asio::co_spawn(
        io,
        [](Signal& s, int& n) -> Async<void> { n += co_await s.wait(s.generation()) ? 1 : 0; }(
                                  signal, woken),
        [](std::exception_ptr) {});
  }
  bool timed = true;
  asio::co_spawn(
      io,
      [](Signal& s, bool& result) -> Async<void> {
        result = co_await s.wait(s.generation() + 0, std::chrono::steady_clock::now());
      }(signal, timed),
      [&](std::exception_ptr) { signal.notify(); });
  io.run();
  EXPECT_EQ(woken, 3);
  EXPECT_FALSE(timed);
}

}  // namespace
}  // namespace metier
