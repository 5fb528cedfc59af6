#include "kind/serving/serving_kind.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>

#include "base/digest.h"
#include "base/files.h"
#include "metier/test_paths.h"

namespace metier {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

Site site() {
  Site out;
  out.name_space = "p";
  out.api_url = "http://127.0.0.1:8080";
  return out;
}

Function function_of(std::string_view spec) {
  const std::string text = R"({"kind":"serving","metadata":{"name":"g","project":"p"},"spec":)" +
                           std::string(spec) + "}";
  auto parsed = Function::from_json(*parse_json(text));
  EXPECT_TRUE(parsed) << parsed.error().text();
  return parsed ? *parsed : Function();
}

constexpr std::string_view kFlow =
    R"("graph":{"engine":"sync","steps":{"a":{"kind":"task","class_name":"A"}}})";

std::string refusal(std::string_view spec) {
  const auto kind = make_serving_kind();
  const Function function = function_of(spec);
  const auto result = kind->validate(Subject{function, nullptr});
  return result ? "taken" : result.error().text();
}

// METIER_UPDATE_GOLDEN=1 writes the file anew: read the difference before it is committed.
TEST(ServingKind, LowersToANuclioFunction) {
  const std::string code = base64_encode("class A:\n    def do(self, x):\n        return x\n");
  const Function function = function_of(
      R"({"build":{"functionSourceCode":")" + code +
      R"(","origin_filename":"graph.py"},"parameters":{"k":1},"min_replicas":1,"max_replicas":4,)" +
      std::string(kFlow) + "}");
  const auto kind = make_serving_kind();
  auto resources = kind->lower(Subject{function, nullptr}, site());
  ASSERT_TRUE(resources) << resources.error().text();
  ASSERT_EQ(resources->size(), 1U);
  const std::string text = dump_json(to_json(resources->front()), JsonStyle::pretty) + "\n";
  const auto file = std::filesystem::path(METIER_SOURCE_DIR) / "src/kind/serving/golden/flow.json";
  if (std::getenv("METIER_UPDATE_GOLDEN") != nullptr) { ASSERT_TRUE(write_file(file, text, 0644)); }
  auto recorded = read_file(file);
  ASSERT_TRUE(recorded) << file;
  EXPECT_EQ(text, *recorded) << file;
}

TEST(ServingKind, TakesMlrunsFooterAway) {
  const std::string made = serving_code(
      "class A: pass\n\nfrom mlrun.runtimes import nuclio_init_hook\n\ndef init_context(context):\n"
      "    nuclio_init_hook(context, globals(), 'serving_v2')\n\ndef handler(context, event):\n    "
      "return context.mlrun_handler(context, event)\n");
  EXPECT_THAT(made, HasSubstr("class A: pass\n\n# The graph"));
  EXPECT_THAT(made, Not(HasSubstr("nuclio_init_hook")));
  EXPECT_THAT(serving_code("from mlrun.runtimes import nuclio_init_hook\nmine = 1\n"),
              HasSubstr("mine = 1"));
}

TEST(ServingKind, LongSpecsTravelInTheCode) {
  const Function function = function_of(R"({"parameters":{"k":")" + std::string(200'000, 'x') +
                                        R"("},)" + std::string(kFlow) + "}");
  const auto kind = make_serving_kind();
  auto resources = kind->lower(Subject{function, nullptr}, site());
  ASSERT_TRUE(resources) << resources.error().text();
  EXPECT_THAT(dump_json(to_json(resources->front())), Not(HasSubstr("SERVING_SPEC_ENV")));
}

std::string lowered(std::string_view spec) {
  const auto kind = make_serving_kind();
  const Function function = function_of(spec);
  auto resources = kind->lower(Subject{function, nullptr}, site());
  return resources ? dump_json(to_json(resources->front())) : resources.error().text();
}

TEST(ServingKind, GraphsThatNeedNoInterpreterRunInTheProcessor) {
  constexpr std::string_view kNative = R"x("graph":{"steps":{"a":{"handler":"(event['x'])"}}})x";
  EXPECT_THAT(
      lowered("{" + std::string(kNative) + "}"),
      AllOf(HasSubstr(R"("runtime":"graph")"), HasSubstr(R"("handler":"graph.json:graph")")));
  // code may do anything when it is loaded
  EXPECT_THAT(lowered(R"({"build":{"functionSourceCode":")" + base64_encode("print(1)\n") +
                      R"("},)" + std::string(kNative) + "}"),
              HasSubstr(R"("runtime":"python")"));
  EXPECT_THAT(lowered(R"x({"graph":{"steps":{"a":{"handler":"(event.upper())"}}}})x"),
              HasSubstr(R"("runtime":"python")"));
  // a library brings its graph
  EXPECT_THAT(lowered(R"({"build":{"origin_filename":"steps.so","functionSourceCode":")" +
                      base64_encode("\x7f"
                                    "ELF...") +
                      R"("}})"),
              AllOf(HasSubstr(R"("runtime":"graph")"), HasSubstr(R"("handler":"steps.so:graph")")));
}

TEST(ServingKind, WhatOnlyMlrunsEngineHasGoesToWorkers) {
  constexpr std::string_view kNative = R"x("graph":{"steps":{"a":{"handler":"(event['x'])"}}})x";
  const auto runtime = [&](std::string_view more) {
    return lowered("{" + std::string(more) + "," + std::string(kNative) + "}");
  };
  for (const char* none : {R"("streaming":false)", R"("streaming":null,"api_handler_config":{})"}) {
    EXPECT_THAT(runtime(none), HasSubstr(R"("runtime":"graph")"));
  }
  for (const char* field :
       {R"("streaming":true)", R"("api_handler_config":{"endpoints":{"x":1}})"}) {
    EXPECT_THAT(runtime(field), HasSubstr(R"("runtime":"python")"));
  }
  EXPECT_THAT(
      refusal(R"({"streaming":true,"build":{"origin_filename":"steps.so","functionSourceCode":")" +
              base64_encode("\x7f"
                            "ELF...") +
              R"("}})"),
      HasSubstr("spec.streaming: only MLRun's own engine has it"));
}

TEST(ServingKind, AWorkerAcknowledgesItsStreamsUnlessTheUserSaysOtherwise) {
  const auto with = [](std::string_view trigger, std::string_view code = "class A: pass\n") {
    return lowered(R"({"config":{"spec.triggers.k":{"kind":"kafka",)" + std::string(trigger) +
                   R"(}},"build":{"functionSourceCode":")" + base64_encode(code) + R"("},)" +
                   std::string(kFlow) + "}");
  };
  constexpr std::string_view kPlaces = R"("brokers":["b:9092"],"topics":["t"],"consumerGroup":"g")";
  const std::string plain = R"("attributes":{)" + std::string(kPlaces) + "}";
  EXPECT_THAT(with(plain), AllOf(HasSubstr(R"("explicitAckMode":"explicitOnly")"),
                                 HasSubstr(R"("workerAllocationMode":"static")")));
  EXPECT_THAT(with(R"("explicitAckMode":"disable",)" + plain), Not(HasSubstr("explicitOnly")));
  EXPECT_THAT(with(R"("attributes":{"onFailure":"retry",)" + std::string(kPlaces) + "}"),
              Not(HasSubstr("explicitOnly")));
  // Nobody would acknowledge there.
  EXPECT_THAT(with(plain, "def init_context(c): pass\nasync def handler(c, e): pass\n"),
              Not(HasSubstr("explicitOnly")));
  EXPECT_THAT(with(plain, "def handler(event): return event\n"), HasSubstr("explicitOnly"));
}

TEST(ServingKind, RefusesWhatCannotBeServed) {
  EXPECT_THAT(refusal("{}"), HasSubstr("spec.graph: the function has no graph"));
  EXPECT_THAT(
      refusal(
          R"({"graph":{"steps":{"a":{"handler":"f","after":["b"]},"b":{"handler":"f","after":["a"]}}}})"),
      HasSubstr("loop detected"));
  EXPECT_THAT(refusal(R"({"graph":{"kind":"router"}})"), HasSubstr("the router has no routes"));
  constexpr std::string_view kSpread =
      R"("graph":{"steps":{"q":{"kind":"queue","path":"kafka://h:9092/t"},"b":{"handler":"f","after":["q"],"function":"child"}}}})";
  const auto spread = [&](std::string_view more) {
    return refusal("{" + std::string(more) + std::string(kSpread));
  };
  EXPECT_THAT(spread(""), HasSubstr("function 'child' is used in steps and is not defined"));
  EXPECT_THAT(spread(R"("function_refs":[{"name":"other"}],)"), HasSubstr("is not defined"));
  EXPECT_EQ(spread(R"("function_refs":{"child":{}},)"), "taken");
  EXPECT_EQ(spread(R"("function_refs":[{"name":"child","kind":"serving"}],)"), "taken");  // MLRun's
  EXPECT_THAT(refusal(std::string(R"({"load_mode":"later",)") + std::string(kFlow) + "}"),
              HasSubstr("'later' is unknown"));
  EXPECT_EQ(refusal(std::string("{") + std::string(kFlow) + "}"), "taken");
  // what only MLRun's engine has is decided by the worker's environment
  EXPECT_EQ(refusal(R"({"graph":{"steps":{"a":{"kind":"model_runner"}}}})"), "taken");
}

}  // namespace
}  // namespace metier
