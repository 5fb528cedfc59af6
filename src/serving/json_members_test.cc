#include "serving/json_members.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <string>

#include "base/json.h"
#include "base/json_ordered.h"
#include "serving/native_graph.h"

namespace metier::serving {
namespace {

using testing::HasSubstr;

// The object as its members say it: their texts read one by one.
std::optional<Json> by_members(std::string_view text) {
  const auto members = json_members(text);
  if (!members) { return std::nullopt; }
  JsonObject out;
  for (const JsonMember& member : *members) {
    auto value = parse_python_json(member.value);
    EXPECT_TRUE(value) << text << " has a member that is no JSON: " << member.value;
    out[member.key] = value.value_or(Json());
  }
  return out;
}

std::string rows(std::string_view end = "") {
  std::string out = R"({"x": {"y": 1, "t": "ä\n\u00e4"}, "data": [)";
  for (int i = 0; i < 40; ++i) {
    out += i > 0 ? ", [" : "[";
    for (int j = 0; j < 20; ++j) {
      out += j > 0 ? ", " : "";
      out += j % 5 == 4 ? "-" : "";
      out += std::to_string(j * 37 + i);
      if (j % 3 != 0) { out += "." + std::to_string(i * j + 7) + (j % 7 == 0 ? "0000" : ""); }
      if (j % 11 == 10) { out += "e-3"; }
    }
    out += "]";
  }
  return out + "]" + std::string(end) + "}";
}

TEST(JsonMembers, SayWhatAReaderOfValuesSays) {
  for (
      const std::string& text :
      {std::string("{}"), std::string(" { } \n"), std::string(R"({"a":1,"b":[],"c":{}})"),
       std::string(R"({"a": [true, false, null, "", "\"", [[]], {"b": {"c": 1}}], "é": -0.5e+7})"),
       rows(), rows(R"(, "x": 2, "":0)"),
       rows(
           R"(, "long": [1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29])"),
       rows(
           R"(, "spaced": [1,   2,3,)"
           "\n"
           R"( 4, 123456789012345678901234567890123456789012345678901234567890123456789, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14])")}) {
    const auto whole = parse_python_json(text);
    ASSERT_TRUE(whole) << text;
    EXPECT_EQ(by_members(text), *whole) << text;
  }
}

TEST(JsonMembers, LeaveWhatTheyDoNotKnow) {
  std::string deep = R"({"a": )", many = "{\"k\": 0";
  for (int i = 0; i < 61; ++i) { deep += "["; }
  for (int i = 0; i < 61; ++i) { deep += "]"; }
  for (int i = 0; i < 64; ++i) { many += ", \"k" + std::to_string(i) + "\": 0"; }
  for (const std::string& text :
       {std::string(""), std::string("[1]"), std::string("1"), std::string("{"),
        std::string(R"({"a")"), std::string(R"({"a":1} 2)"), std::string(R"({"a":1,})"),
        std::string(R"({a:1})"), std::string(R"({"a":NaN})"), std::string(R"({"a":"\ud800"})"),
        std::string(R"({"\u0061":1})"), std::string("{\"a\":\"\n\"}"),
        std::string("{\"a\":\"\xc3\"}"), std::string("{\"a\":\"\xed\xa0\x80\"}"), deep + "}",
        many + "}", std::string("{\"a\":1\0}", 8)}) {
    EXPECT_FALSE(json_members(text)) << text;
  }
}

// Every way to damage a few bytes of a text: what the members take, a reader of values takes, and sees the same.
TEST(JsonMembers, TakeNothingThatIsNoJson) {
  const std::string sound =
      rows(R"(, "s": "a long text without anything in it", "z": [1, 2, -3.5, 4e5, 0.25])");
  std::mt19937 random(7);
  constexpr std::string_view kBytes = "0123456789.-+eE, ,:[]{}\"\\\n\ttruefalsn\x01\xc3\xa4";
  int taken = 0;
  for (int round = 0; round < 8'000; ++round) {
    std::string text = sound;
    for (unsigned i = 0; i <= random() % 3; ++i) {
      const std::size_t at = random() % text.size();
      const char c = kBytes[random() % kBytes.size()];
      switch (random() % 3) {
        case 0: text[at] = c; break;
        case 1: text.insert(at, 1, c); break;
        default: text.erase(at, 1);
      }
    }
    const auto found = json_members(text);
    if (!found) { continue; }
    const auto whole = parse_python_json(text);
    ASSERT_TRUE(whole) << text;
    ASSERT_EQ(by_members(text), *whole) << text;
    ++taken;
  }
  EXPECT_GT(taken, 400);
}

std::unique_ptr<NativeGraph> made(std::string_view text) {
  auto graph = NativeGraph::make(parse_json(text)->get_object());
  EXPECT_TRUE(graph) << graph.error().text();
  return graph ? std::move(*graph) : nullptr;
}

TEST(JsonMembers, ALargeBodyPassesAsItCame) {
  const auto graph = made(
      R"x({"engine":"sync","steps":{"s":{"handler":"(event + 1)","input_path":"x.y","result_path":"z"}}})x");
  const std::string body =
      rows(R"(, "big": 123456789012345678901234567890, "exact": 1.10, "n": 1E5)");
  const std::string answer = graph->test({.body = body}).body;
  // members that no step touched are the bytes that came; the result is behind them
  EXPECT_EQ(answer, body.substr(0, body.size() - 1) + ", \"z\": 2}");
  // a result in the place of a member
  const auto over = made(
      R"x({"engine":"sync","steps":{"s":{"handler":"(event + 1)","input_path":"x.y","result_path":"x"}}})x");
  const auto value = parse_python_json(over->test({.body = body}).body);
  ASSERT_TRUE(value);
  EXPECT_EQ(value->at("x"), Json(2));
  EXPECT_EQ(value->at("data"), parse_python_json(body)->at("data"));
}

TEST(JsonMembers, StepsSeeTheSameOfASmallAndALargeBody) {
  const auto graph = made(R"x({"engine":"sync","steps":{
    "a":{"handler":"(event + 1)","input_path":"x.y","result_path":"z"},
    "b":{"handler":"(event['z'] + len(event['data']))","result_path":"x.sum","after":["a"]},
    "c":{"handler":"(event)","input_path":"x","after":["b"]}}})x");
  EXPECT_EQ(graph->test({.body = rows()}).body, R"({"y": 1, "t": "\u00e4\n\u00e4", "sum": 42})");
  EXPECT_EQ(graph->test({.body = R"({"x": {"y": 1}, "data": [0]})"}).body, R"({"y": 1, "sum": 3})");
  const auto missing = made(
      R"x({"engine":"sync","steps":{"a":{"handler":"([event])","input_path":"x.gone.far"}}})x");
  EXPECT_EQ(missing->test({.body = rows()}).body, "[null]");
  const auto into =
      made(R"x({"engine":"sync","steps":{"a":{"handler":"([event])","input_path":"x.y.far"}}})x");
  EXPECT_THAT(into->test({.body = rows()}).body,
              HasSubstr("TypeError: 'int' object is not subscriptable"));
}

TEST(JsonMembers, ALargeBodyThatIsNoJsonIsRefused) {
  const auto graph =
      made(R"x({"engine":"sync","steps":{"a":{"handler":"(event)","input_path":"x.y"}}})x");
  const auto answer = graph->test({.body = rows(",,"), .content_type = "application/json"});
  EXPECT_EQ(answer.status, 400);
  EXPECT_THAT(answer.body, HasSubstr("failed to json decode event, not JSON at byte"));
  // a key given twice has its last value, read by its text or as a value
  EXPECT_EQ(graph->test({.body = rows(R"(, "x": {"y": 5})")}).body, "5");
  EXPECT_EQ(graph->test({.body = R"({"x": 1, "x": {"y": 5}})"}).body, "5");
}

TEST(JsonMembers, BranchesOfALargeBodyDoNotSeeEachOther) {
  const auto graph = made(R"x({"steps":{
    "s":{"handler":"(event)","input_path":"x.y","result_path":"z"},
    "b":{"class_name":"storey.Extend","class_args":{"_fn":"({'b': event['z']})"},"after":["s"]},
    "c":{"handler":"(event + 1)","input_path":"z","result_path":"z","after":["s"]},
    "j":{"class_name":"mlrun.serving.Merge","after":["b","c"]},
    "out":{"handler":"([event[0]['b'], event[0]['z'], event[1]['z'], event[1].get('b')])","after":["j"],"responder":true}}})x");
  EXPECT_EQ(graph->test({.body = rows()}).body, "[1, 1, 2, null]");
}

}  // namespace
}  // namespace metier::serving
