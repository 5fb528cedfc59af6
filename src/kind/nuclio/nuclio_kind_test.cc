#include "kind/nuclio/nuclio_kind.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>

#include "base/files.h"
#include "kind/nuclio/compile.h"
#include "metier/test_paths.h"
#include "model/create.h"
#include "model/nuclio/function.h"

namespace metier {
namespace {

using testing::HasSubstr;

Site site() {
  Site out;
  out.name_space = "p";
  out.api_url = "http://127.0.0.1:8080";
  return out;
}

Function function_of(std::string_view text) {
  auto parsed = Function::from_json(*parse_json(text));
  EXPECT_TRUE(parsed) << parsed.error().text();
  return parsed ? *parsed : Function();
}

// METIER_UPDATE_GOLDEN=1 writes the file anew: read the difference before it is committed.
void expect_golden(const std::string& name, const Function& function) {
  const auto kind = make_nuclio_kind();
  auto resources = kind->lower(Subject{function, nullptr}, site());
  ASSERT_TRUE(resources) << resources.error().text();
  ASSERT_EQ(resources->size(), 1U);
  const auto file =
      std::filesystem::path(METIER_SOURCE_DIR) / "src/kind/nuclio/golden" / (name + ".json");
  const std::string text = dump_json(to_json(resources->front()), JsonStyle::pretty) + "\n";
  if (std::getenv("METIER_UPDATE_GOLDEN") != nullptr) { ASSERT_TRUE(write_file(file, text, 0644)); }
  auto recorded = read_file(file);
  ASSERT_TRUE(recorded) << file;
  EXPECT_EQ(text, *recorded) << file;
}

constexpr std::string_view kCode = "ZGVmIGhhbmRsZXIoY29udGV4dCwgZXZlbnQpOiByZXR1cm4gJ2hpJwo=";

TEST(NuclioKind, LowersTheDefaultFunction) {
  expect_golden(
      "default",
      function_of(
          R"({"kind":"remote","metadata":{"name":"f","project":"p"},"spec":{"min_replicas":1,"max_replicas":4,
      "function_handler":"main:handler","build":{"functionSourceCode":")" +
          std::string(kCode) + R"("}}})"));
}

TEST(NuclioKind, ASourceThatIsNotFetchedIsNamed) {
  for (const std::string& code :
       {std::string(), R"("functionSourceCode":")" + std::string(kCode) + R"(",)"}) {
    const Function f = function_of(
        R"({"kind":"remote","metadata":{"name":"f","project":"p"},"spec":{"function_handler":"main:handler",
      "build":{)" +
        code + R"("source":"git://github.com/org/repo#main"}}})");
    const auto verdict = make_nuclio_kind()->validate(Subject{f, nullptr});
    ASSERT_FALSE(verdict);
    EXPECT_THAT(verdict.error().text(),
                HasSubstr("spec.build.source: 'git://github.com/org/repo#main' is not fetched"));
  }
}

TEST(NuclioKind, LowersEverything) {
  Function f = function_of(
      R"({"kind":"remote","metadata":{"name":"my-f","project":"p","tag":"v2","labels":{"team":"a"},"annotations":{"x":"y"}},
    "spec":{"image":"python","description":"what it does","function_handler":"my-f-nuclio:go","nuclio_runtime":"python:3.11",
    "build":{"functionSourceCode":")" +
      std::string(kCode) +
      R"(","requirements":["numpy>=1"],"commands":["echo hi"],"base_image":"b"},
    "env":[{"name":"A","value":"1"},{"name":"T","valueFrom":{"secretKeyRef":{"name":"s","key":"k"}}}],
    "resources":{"requests":{"cpu":"100m","memory":"1Gi"},"limits":{"cpu":"2"}},
    "volumes":[{"name":"v","hostPath":{"path":"/mnt"}}],"volume_mounts":[{"name":"v","mountPath":"/data"}],
    "min_replicas":"2","max_replicas":5,"readiness_timeout":30,"service_account":"sa","security_context":{"runAsUser":1000},
    "priority_class_name":"high","service_type":"ClusterIP",
    "config":{"spec.triggers.http":{"kind":"http","maxWorkers":8,"annotations":{},"attributes":{"port":30080,"ingresses":{}}},
              "spec.triggers.q":{"kind":"kafka-cluster","numWorkers":2,"attributes":{"brokers":["b"],"topics":["t"],"consumerGroup":"g","worker_allocation_mode":"static"}},
              "spec.eventTimeout":"30s","metadata.labels.\\a.b\\":"c"},
    "base_spec":{"apiVersion":"nuclio.io/v1","kind":"Function","metadata":{"annotations":{"n":"m"}},
                 "spec":{"env":[{"name":"A","value":"0"},{"name":"OLD","value":"1"}],"sidecars":[],"volumes":null}}}})");
  expect_golden("full", f);
}

TEST(NuclioKind, AFileOfNuclioKeepsItsOwnDefaults) {
  Function f = function_of(
      R"({"kind":"remote","metadata":{"name":"f","project":"p"},"spec":{"service_type":"ClusterIP","build":{"functionSourceCode":")" +
      std::string(kCode) +
      R"("},"base_spec":{"spec":{"handler":"main:handler","runtime":"python","minReplicas":0,"maxReplicas":2}}}})");
  expect_golden("file", f);
}

TEST(NuclioKind, ReadsTheConfigurationInsideTheSource) {
  Function f = function_of(R"({"kind":"remote","metadata":{"name":"f","project":"p"},"spec":{
    "min_replicas":1,"max_replicas":4,"config":{"spec.triggers.web.numWorkers":3}}})");
  ensure_object(f.spec(), "build")["functionSourceCode"] = base64_encode(
      "# @nuclio.configure\n# function.yaml:\n#   metadata: {labels: {team: a}}\n#   spec:\n#     "
      "minReplicas: 0\n#     triggers: {web: {kind: http, numWorkers: 2, "
      "workerAvailabilityTimeoutMilliseconds: 5}}\n"
      "def handler(context, event): return 'hi'\n");
  const auto resources = make_nuclio_kind()->lower(Subject{f, nullptr}, site());
  ASSERT_TRUE(resources) << resources.error().text();
  const JsonObject& spec = resources->front().spec();
  EXPECT_EQ(int_in(spec, "minReplicas"), 0);
  EXPECT_EQ(int_in(spec, "maxReplicas"), 4);
  const JsonObject& web = *object_in(*object_in(spec, "triggers"), "web");
  EXPECT_EQ(int_in(web, "numWorkers"), 3);  // the request wins
  EXPECT_EQ(int_in(web, "workerAvailabilityTimeoutMilliseconds"), 5);
  EXPECT_FALSE(object_in(spec, "triggers")->contains("default-http"));
  EXPECT_EQ(resources->front().metadata.labels.at("team"), "a");
}

TEST(NuclioKind, RefusesWhatCannotBeDeployed) {
  const auto refusal = [](std::string_view spec) {
    const Function f =
        function_of(R"({"kind":"remote","metadata":{"name":"f","project":"p"},"spec":)" +
                    std::string(spec) + "}");
    const auto checked = make_nuclio_kind()->validate(Subject{f, nullptr});
    return checked ? std::string() : checked.error().field + ": " + checked.error().message;
  };
  const std::string code = R"("build":{"functionSourceCode":")" + std::string(kCode) + R"("})";
  EXPECT_EQ(refusal("{" + code + "}"), "");
  EXPECT_EQ(refusal(R"({"function_handler":"main:handle",)" + code + "}"),
            "");  // part of a name: the interpreter decides
  EXPECT_EQ(refusal(R"({"function_handler":"main:nothing",)" + code + "}"),
            "spec.handler: the code has no function 'nothing'");
  EXPECT_EQ(refusal(R"({"function_handler":"handler",)" + code + "}"),
            "spec.handler: 'handler' names no module");
  EXPECT_EQ(refusal("{}"), "spec.build.functionSourceCode: the function has no code");
  EXPECT_THAT(refusal(R"({"nuclio_runtime":"golang",)" + code + "}"), HasSubstr("written in Go"));
  EXPECT_THAT(
      refusal(
          R"({"config":{"spec.triggers.k":{"kind":"kafka-cluster","attributes":{"brokers":["b"],"topics":["t"],"consumerGroup":"g"}}},"min_replicas":0,"max_replicas":1,)" +
          code + "}"),
      HasSubstr("0 with a stream trigger"));
  EXPECT_THAT(refusal(R"({"volumes":[{"name":"v"}],)" + code + "}"),
              HasSubstr("volume 'v' has no mount"));
  EXPECT_THAT(refusal(R"({"config":{"eventTimeout":"1s"},)" + code + "}"),
              HasSubstr("no path of Nuclio's document"));
}

TEST(NuclioKind, ObservesTheStatusOfItsFunction) {
  const Function f =
      function_of(R"({"kind":"remote","metadata":{"name":"f","project":"p"},"spec":{}})");
  const auto seen = [&f](std::string_view status) {
    const std::vector<ResourceStatus> resources{
        {.key = {"p", "NuclioFunction", "p-f"}, .status = *parse_json(status)},
        {.key = {"p", "Pod", "nuclio-p-f-2-0"}}};
    return make_nuclio_kind()->observe(Subject{f, nullptr, 2}, resources, Time{});
  };
  EXPECT_EQ(seen(R"({"state":"ready","observedGeneration":1})").function_state, "deploying");
  Observation ready = seen(
      R"({"state":"ready","observedGeneration":2,"replicas":1,"ready":1,"internalInvocationUrls":["127.64.0.3:8080"]})");
  EXPECT_EQ(ready.state, RunState::running);
  EXPECT_EQ(string_at(ready.function_status, "address"), "127.64.0.3:8080");
  EXPECT_EQ(string_at(ready.function_status, "nuclio_name"), "p-f");
  ASSERT_EQ(ready.parts.size(), 1U);
  EXPECT_EQ(ready.parts[0].pod, "nuclio-p-f-2-0");
  EXPECT_EQ(seen(R"({"state":"error","message":"m","observedGeneration":2})").message, "m");
  EXPECT_EQ(seen(R"({"state":"scaledToZero","observedGeneration":2})").function_state,
            "scaledToZero");
  EXPECT_EQ(seen(R"({"state":"unhealthy","observedGeneration":2})").function_state, "unhealthy");
}

}  // namespace
}  // namespace metier
