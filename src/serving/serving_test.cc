#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <map>
#include <set>

#include "serving/walk.h"

namespace metier::serving {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

JsonObject graph(std::string_view text) { return parse_json(text)->get_object(); }

Plan compiled(std::string_view text, const CompileOptions& options = {}) {
  Result<Plan> plan = compile_graph(graph(text), options);
  EXPECT_TRUE(plan) << (plan ? "" : plan.error().text());
  return plan ? *plan : Plan{};
}

std::string refused(std::string_view text, const CompileOptions& options = {}) {
  Result<Plan> plan = compile_graph(graph(text), options);
  return plan ? "it was taken" : plan.error().text();
}

// Events are numbers; steps add their index, and do what `says` tells.
class FakeHost final : public StepHost {
 public:
  explicit FakeHost(const Plan& plan) : plan_(plan) {}
  std::map<std::string, Verdict> says;
  std::vector<std::string> ran;
  std::vector<std::string> answers;
  std::vector<std::string> failed;
  std::set<std::string*> live;

  Token make(std::string text) {
    auto* event = new std::string(std::move(text));
    live.insert(event);
    return {event};
  }
  Verdict run(int step, Token token, int) override {
    const std::string& name = plan_.steps[static_cast<std::size_t>(step)].name;
    text(token) += "." + name;
    ran.push_back(name);
    const auto found = says.find(name);
    return found == says.end() ? Verdict::next : found->second;
  }
  void outlets(std::vector<int>& steps) override { steps = chosen; }
  void take(std::vector<Token>& tokens) override {
    for (int i = 0; i < 2; ++i) { tokens.push_back(make("made" + std::to_string(i))); }
  }
  Token branch(Token token) override { return make(text(token)); }
  void drop(Token token) override {
    live.erase(&text(token));
    delete &text(token);
  }
  void recover(int, Token token) override { text(token) += "!"; }
  void fail(int step, Token token) override {
    failed.push_back(plan_.steps[static_cast<std::size_t>(step)].name);
    drop(token);
  }
  void respond(Token token) override { answers.push_back(text(token)); }
  std::vector<int> chosen;

 private:
  static std::string& text(Token token) { return *static_cast<std::string*>(token.event); }
  const Plan& plan_;
};

constexpr std::string_view kDiamond =
    R"({"steps": {"a": {"handler": "f"}, "b": {"handler": "f", "after": ["a"]},
  "c": {"handler": "f", "after": ["a"]}, "d": {"handler": "f", "after": ["b", "c"], "responder": true}}})";

TEST(Compile, StepsStandInTopologicalOrderWithTheirLinks) {
  const Plan plan = compiled(kDiamond);
  std::vector<std::string> names;
  for (const PlanStep& step : plan.steps) { names.push_back(step.name); }
  EXPECT_THAT(names, ElementsAre("a", "b", "c", "d"));
  EXPECT_THAT(plan.steps[0].next, ElementsAre(1, 2));
  EXPECT_THAT(plan.steps[3].before, ElementsAre(1, 2));
  EXPECT_THAT(plan.starts, ElementsAre(0));
  EXPECT_TRUE(plan.waits);
  EXPECT_FALSE(plan.sync);
}

TEST(Compile, ALayeredGraphIsCheckedInLinearTime) {
  JsonObject steps;
  JsonArray before;
  for (int layer = 0; layer < 1000; ++layer) {
    JsonArray names;
    for (int i = 0; i < 3; ++i) {
      const std::string name = "l" + std::to_string(layer) + "n" + std::to_string(i);
      steps[name] = JsonObject{{"handler", "f"}, {"after", before}};
      names.emplace_back(name);
    }
    before = std::move(names);
  }
  EXPECT_TRUE(compile_graph(JsonObject{{"steps", std::move(steps)}}));
}

TEST(Compile, WhatIsWrongIsSaidByStep) {
  EXPECT_THAT(
      refused(
          R"({"steps": {"a": {"handler": "f", "after": ["b"]}, "b": {"handler": "f", "after": ["a"]}}})"),
      HasSubstr("loop detected"));
  EXPECT_THAT(refused(R"({"steps": {"a": {"handler": "f", "after": "a"}}})"), HasSubstr("a -> a"));
  EXPECT_THAT(
      refused(R"({"engine": "sync", "steps": {"a": {"handler": "f"}, "b": {"handler": "f"}}})"),
      HasSubstr("sync engine can only have one starting step"));
  EXPECT_THAT(refused(R"({"kind": "job"})"), HasSubstr("illegal root step 'job'"));
  EXPECT_THAT(refused(R"({"engine": "fast", "steps": {"a": {"handler": "f"}}})"),
              HasSubstr("'fast' is no engine"));
  EXPECT_THAT(refused(R"({"steps": {"a": 1}})"), HasSubstr("step 'a': it is not an object"));
  const auto cyclic =
      compile_graph(graph(R"({"allow_cyclic": true, "steps": {"a": {"handler": "f"}}})"));
  ASSERT_FALSE(cyclic);
  EXPECT_EQ(cyclic.error().code, "NeedsMlrun");
}

TEST(Compile, PartsOfAFunction) {
  constexpr std::string_view kTwo =
      R"({"steps": {"a": {"handler": "f"}, "q": {"kind": "queue", "after": ["a"], "path": "kafka://h/t"},
    "b": {"handler": "f", "function": "child", "after": ["q"], "responder": true}}})";
  const Plan root = compiled(kTwo, {.current_function = ""});
  EXPECT_FALSE(root.waits);
  EXPECT_THAT(root.steps[1].next, ElementsAre());  // the queue is the end here
  const Plan child = compiled(kTwo, {.current_function = "child"});
  EXPECT_EQ(child.steps[static_cast<std::size_t>(child.starts.at(0))].name, "b");
  EXPECT_EQ(queue_links(graph(kTwo))->at(0).second, "q");
  EXPECT_FALSE(queue_links(
      graph(R"({"steps": {"q": {"kind": "queue"}, "b": {"handler": "f", "after": ["q"]}}})")));
}

TEST(Compile, AQueueWithoutAPathIsAnEdgeInMemory) {
  constexpr std::string_view kThree =
      R"({"steps": {"a": {"handler": "f"}, "m": {"kind": "queue", "after": ["a"]},
    "b": {"handler": "f", "function": "near", "after": ["m"]},
    "c": {"handler": "f", "function": "near", "after": ["b"]},
    "q": {"kind": "queue", "after": ["c"], "path": "kafka://h/t"},
    "d": {"handler": "f", "function": "far", "after": ["q"], "on_error": "e"},
    "e": {"kind": "error_step", "handler": "f", "base_step": "d"}}})";
  const auto locals = [&](std::string_view function) {
    std::string out;
    for (const PlanStep& step :
         compiled(kThree, {.current_function = std::string(function)}).steps) {
      if (step.local && step.kind != StepKind::queue) { out += step.name; }
    }
    return out;
  };
  EXPECT_EQ(locals(""), "abce");
  EXPECT_EQ(locals("far"), "de");  // with what catches its failures
  EXPECT_EQ(locals("*"), "abcde");
}

TEST(Walk, BranchesRunInOrderAndEveryEventEnds) {
  const Plan plan = compiled(kDiamond);
  FakeHost host(plan);
  Walk(plan, host).start(host.make("e"));
  EXPECT_THAT(host.ran, ElementsAre("a", "b", "d", "c", "d"));
  EXPECT_THAT(host.answers, ElementsAre("e.a.b.d", "e.a.c.d"));
  EXPECT_TRUE(host.live.empty());
}

TEST(Walk, VerdictsDecideTheWay) {
  const Plan plan = compiled(kDiamond);
  {
    FakeHost host(plan);
    host.says = {{"b", Verdict::drop}, {"c", Verdict::many}};
    Walk(plan, host).start(host.make("e"));
    EXPECT_THAT(host.answers, ElementsAre("made0.d", "made1.d"));
    EXPECT_TRUE(host.live.empty());
  }
  {
    FakeHost host(plan);
    host.says = {{"a", Verdict::some}};
    host.chosen = {2};
    Walk(plan, host).start(host.make("e"));
    EXPECT_THAT(host.ran, ElementsAre("a", "c", "d"));
  }
  {
    FakeHost host(plan);
    host.says = {{"a", Verdict::ended}};
    Walk(plan, host).start(host.make("e"));
    EXPECT_THAT(host.answers, ElementsAre("e.a"));
    EXPECT_TRUE(host.live.empty());
  }
}

TEST(Walk, AParkedStepGoesOnWhereItWas) {
  const Plan plan = compiled(kDiamond);
  FakeHost host(plan);
  host.says = {{"b", Verdict::parked}};
  const Token token = host.make("e");
  Walk(plan, host).start(token);
  EXPECT_THAT(host.ran, ElementsAre("a", "b", "c", "d"));
  EXPECT_EQ(host.live.size(), 1U);
  Walk(plan, host).resume(plan.index_of("b"), token, Verdict::next);
  EXPECT_THAT(host.answers, ElementsAre("e.a.c.d", "e.a.b.d"));
  EXPECT_TRUE(host.live.empty());
}

TEST(Walk, ErrorsGoToTheStepsHandlerElseToTheGraphsElseToTheCaller) {
  constexpr std::string_view kHandled =
      R"({"on_error": "g", "steps": {"a": {"handler": "f", "on_error": "h"},
    "b": {"handler": "f", "after": ["a"], "responder": true}, "h": {"kind": "error_step", "handler": "f", "before": ["b"]},
    "g": {"kind": "error_step", "handler": "f"}}})";
  const Plan plan = compiled(kHandled);
  FakeHost host(plan);
  host.says = {{"a", Verdict::failed}};
  Walk(plan, host).start(host.make("e"));
  EXPECT_THAT(host.answers, ElementsAre("e.a!.h.b"));
  host.says = {{"b", Verdict::failed}};
  Walk(plan, host).start(host.make("e"));
  EXPECT_EQ(host.answers.back(), "e.a.b!.g");
  host.says = {{"b", Verdict::failed}, {"g", Verdict::failed}};
  Walk(plan, host).start(host.make("e"));
  EXPECT_THAT(host.failed, ElementsAre("g"));
  EXPECT_TRUE(host.live.empty());
}

}  // namespace
}  // namespace metier::serving
