#include "metier/test_paths.h"
#include "serving/native_graph.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/files.h"
#include "base/json_ordered.h"

namespace metier::serving {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::unique_ptr<NativeGraph> made(std::string_view text, GraphOptions options = {}) {
  auto document = parse_json(text);
  EXPECT_TRUE(document) << text;
  auto graph = NativeGraph::make(document->get_object(), std::move(options));
  EXPECT_TRUE(graph) << graph.error().text();
  return graph ? std::move(*graph) : nullptr;
}

// tests/graphs/cases.json: one suite for this engine, the mock server (python/serving/tests/test_conformance.py) and deployed functions
// (tests/e2e/test_graph_conformance.py).
TEST(NativeGraph, AnswersTheConformanceSuite) {
  auto text = read_file(std::string(METIER_SOURCE_DIR) + "/tests/graphs/cases.json");
  ASSERT_TRUE(text);
  auto cases = parse_json(*text);
  ASSERT_TRUE(cases) << cases.error().text();
  for (const Json& row : cases->get_array()) {
    const JsonObject& item = row.get_object();
    const std::string name(string_in(item, "name"));
    auto graph = NativeGraph::make(*object_in(item, "graph"));
    ASSERT_TRUE(graph) << name << ": " << graph.error().text();
    for (const Json& call : item.at("calls").get_array()) {
      const JsonObject& given = call.get_object();
      const Json* body = given.if_contains("body");
      const std::string sent = body == nullptr     ? ""
                               : body->is_string() ? std::string(body->get_string())
                                                   : dump_json(*body);
      const GraphAnswer answer = (*graph)->test({.body = sent,
                                                 .content_type = string_in(given, "content_type"),
                                                 .method = body == nullptr ? "GET" : "POST",
                                                 .path = string_in(given, "path", "/"),
                                                 .id = string_in(given, "id"),
                                                 .timestamp_us = 1'700'000'000'000'000});
      EXPECT_EQ(answer.status, int_in(given, "status").value_or(200))
          << name << dump_json(call) << answer.body;
      if (const Json* says = given.if_contains("says")) {
        EXPECT_THAT(answer.body, HasSubstr(std::string(says->get_string()))) << name;
        continue;
      }
      const Json* value = given.if_contains("value");
      const std::string expected = value == nullptr     ? ""
                                   : value->is_string() ? std::string(value->get_string())
                                                        : dump_python_ordered(*value);
      EXPECT_EQ(answer.body, expected) << name << dump_json(call);
    }
  }
}

TEST(NativeGraph, SaysWhichStepIsPythons) {
  auto document = parse_json(
      R"x({"steps":{"a":{"handler":"(event)"},"b":{"class_name":"Mine","after":["a"]}}})x");
  const auto graph = NativeGraph::make(document->get_object());
  ASSERT_FALSE(graph);
  EXPECT_EQ(graph.error().code, "NeedsPython");
  EXPECT_THAT(graph.error().message, HasSubstr("step 'b' runs in Python"));
}

TEST(NativeGraph, BranchesShareTheBodyUntilOneWrites) {
  const auto graph = made(R"x({"steps":{
    "a":{"handler":"(event)"},
    "b":{"class_name":"storey.Extend","class_args":{"_fn":"({'b': 1})"},"after":["a"]},
    "c":{"class_name":"storey.Extend","class_args":{"_fn":"({'c': 2})"},"after":["a"]},
    "j":{"class_name":"mlrun.serving.Merge","after":["b","c"],"responder":true}}})x");
  const auto answer = graph->test({.body = R"x({"x":1})x"});
  EXPECT_EQ(answer.body, R"x([{"x": 1, "b": 1}, {"x": 1, "c": 2}])x");
}

TEST(NativeGraph, BatchesFlushByTimeAndAtTheEnd) {
  SteadyTime now{};
  const auto graph = made(R"x({"steps":{
    "b":{"class_name":"storey.Batch","class_args":{"max_events":3,"flush_after_seconds":1}},
    "m":{"handler":"(len(event))","after":["b"]}}})x",
                          {.now = [&] { return now; }});
  std::vector<std::pair<int, bool>> ran;
  graph->observe([&](int step, std::int64_t, bool failed) { ran.emplace_back(step, failed); });
  graph->test({.body = "1"});
  EXPECT_EQ(graph->due(), now + std::chrono::seconds(1));
  graph->tick();
  EXPECT_EQ(ran.size(), 1U);
  now += std::chrono::seconds(1);
  graph->tick();
  EXPECT_THAT(ran, ElementsAre(std::pair(0, false), std::pair(1, false)));
  EXPECT_FALSE(graph->due());
  graph->test({.body = "2"});
  graph->flush();
  EXPECT_EQ(ran.size(), 4U);
}

// A stream's event is acknowledged when the batch that took it has ended, not before.
TEST(NativeGraph, HeldRequestsEndWithTheirBatch) {
  const auto graph = made(R"x({"steps":{
    "b":{"class_name":"storey.Batch","class_args":{"max_events":3}},
    "m":{"handler":"(event[0] + 1)","after":["b"]}}})x");
  std::vector<std::string> ended;
  const auto send = [&](std::string_view body) {
    graph->start({.body = body}, true,
                 [&ended, name = std::string(body)](GraphAnswer&&) { ended.push_back(name); });
  };
  send("1");
  send("2");
  EXPECT_TRUE(ended.empty());
  send("3");
  EXPECT_THAT(ended, testing::UnorderedElementsAre("1", "2", "3"));
  send("4");
  graph->flush();
  EXPECT_EQ(ended.back(), "4");
}

TEST(NativeGraph, APrefixEndsBeforeTheFirstStepOfPython) {
  auto document = parse_json(R"x({"steps":{
    "a":{"class_name":"storey.Filter","class_args":{"_fn":"(event['x'] > 0)"}},
    "b":{"handler":"({**event, 'y': 1})","after":["a"]},
    "p":{"handler":"mine","after":["b"]},
    "z":{"handler":"(event)","after":["p"],"responder":true}}})x");
  std::string entry;
  auto graph = NativeGraph::make_prefix(document->get_object(), entry);
  ASSERT_TRUE(graph) << graph.error().text();
  ASSERT_TRUE(*graph);
  EXPECT_EQ(entry, "p");
  std::vector<std::string> left;
  (*graph)->on_exit([&](const NativeEvent& event, bool first) {
    EXPECT_TRUE(first);
    left.push_back(dump_json(event.body.get()));
  });
  int told = 0;
  (*graph)->start({.body = R"x({"x":1})x"}, false, [&](GraphAnswer&&) { ++told; });
  EXPECT_THAT(left, ElementsAre(R"x({"x":1,"y":1})x"));
  EXPECT_EQ(told, 0);  // whoever runs the rest answers
  EXPECT_EQ((*graph)->test({.body = R"x({"x":0})x"}).body,
            "");  // filtered: an empty answer at once
  EXPECT_EQ(left.size(), 1U);
  EXPECT_THAT((*graph)->test({.body = "{}"}).body, HasSubstr("KeyError: 'x'"));
}

TEST(NativeGraph, AMillionEventsThroughBatchMergeAndWindowKeepNothing) {
  const auto graph = made(R"x({"steps":{
    "w":{"class_name":"storey.AggregateByKey","class_args":{"aggregates":[{"name":"n","column":"x","operations":["sum"],"windows":["10s"]}],"key_field":"k","max_keys":100}},
    "l":{"class_name":"storey.Rename","class_args":{"mapping":{"x":"y"}},"after":["w"]},
    "r":{"class_name":"storey.DropColumns","class_args":{"columns":"x"},"after":["w"]},
    "j":{"class_name":"mlrun.serving.Merge","after":["l","r"]},
    "b":{"class_name":"storey.Batch","class_args":{"max_events":100},"after":["j"]},
    "c":{"handler":"(len(event))","after":["b"]}}})x");
  const auto resident = [] {
    auto text = read_file("/proc/self/statm");
    return std::stoll(text->substr(text->find(' ')));
  };
  std::int64_t sent = 0, ended = 0;
  std::vector<std::int64_t> ran(graph->plan().steps.size());
  graph->observe([&](int step, std::int64_t, bool failed) {
    ++ran[static_cast<std::size_t>(step)];
    EXPECT_FALSE(failed);
  });
  // Held: an event has ended when its batch has.
  const auto send = [&](int count) {
    for (int i = 0; i < count; ++i, ++sent) {
      const std::string body = R"x({"x":1,"k":)x" + std::to_string(sent % 1000) + "}";
      graph->start({.body = body, .timestamp_us = sent * 1000}, true,
                   [&ended](GraphAnswer&& answer) { ended += answer.failed ? 0 : 1; });
    }
  };
  send(20'000);
  [[maybe_unused]] const auto before = resident();
  send(std::getenv("METIER_TEST_ALL") == nullptr ? 100'000 : 1'000'000);
#if !__has_feature(address_sanitizer)  // it keeps what was freed, and looks for leaks by itself
  EXPECT_LT(resident() - before, 1024) << "pages";  // 4 MiB
#endif
  EXPECT_EQ(ended, sent);
  const auto runs = [&](std::string_view name) {
    return ran[static_cast<std::size_t>(graph->plan().index_of(name))];
  };
  EXPECT_EQ(runs("w"), sent);
  EXPECT_EQ(runs("j"), 2 * sent);
  EXPECT_EQ(runs("b"), sent);
  EXPECT_EQ(runs("c"), sent / 100);
}

}  // namespace
}  // namespace metier::serving
