#include <gtest/gtest.h>

#include <cstdlib>
#include <random>

#include "base/digest.h"
#include "base/files.h"
#include "kind/builtin.h"
#include "kind/pod_observation.h"
#include "kind/testing/deployment_kind.h"
#include "metier/test_paths.h"
#include "model/attributes.h"
#include "model/create.h"
#include "resource/pod.h"

namespace metier {
namespace {

const std::filesystem::path kFolder = std::filesystem::path(METIER_SOURCE_DIR) / "src/kind";

Site site() {
  Site out;
  out.api_url = "http://127.0.0.1:8080";
  return out;
}

Function function_of(std::string_view text) {
  auto parsed = Function::from_json(*parse_json(text));
  EXPECT_TRUE(parsed) << parsed.error().text();
  return parsed ? *parsed : Function();
}

Run run_of(std::string_view spec = "{}") {
  auto run = Run::from_json(*parse_json(
      R"({"metadata":{"name":"f-train","uid":"0123456789abcdef0123456789abcdef","project":"p","iteration":0,
    "labels":{"owner":"me@example.org","kind":"job"}},"spec":)" +
      std::string(spec) + R"(,"status":{"state":"created"}})"));
  return *run;
}

const Kind& kind(std::string_view name) {
  static const KindRegistry kKinds = builtin_kinds();
  return **kKinds.find(name);
}

Json lowered(const Function& function, const Run& run, const Site& where = site(),
             std::int64_t attempt = 1) {
  auto resources = kind(function.kind()).lower(Subject{function, &run, attempt}, where);
  EXPECT_TRUE(resources) << resources.error().text();
  if (!resources) { return nullptr; }
  JsonArray out;
  for (const Resource& resource : *resources) {
    auto pod = pod_from(resource);
    EXPECT_TRUE(pod) << pod.error().text() << " " << pod.error().fix;
    out.push_back(to_json(resource));
  }
  return out.size() == 1 ? out[0] : Json(out);
}

Json container_of(const Json& pod) { return pod.at("spec").at("containers").at(0); }

std::string words(const Json& container) {
  std::string out;
  for (const std::string_view part : {"command", "args"}) {
    const JsonArray* list = array_in(container.get_object(), part);
    for (const Json& word : list == nullptr ? JsonArray{} : *list) {
      out += (out.empty() ? "" : "|") + std::string(word.get_string());
    }
  }
  return out;
}

// METIER_UPDATE_GOLDEN=1 writes the file anew: read the difference before it is committed.
void expect_golden(const std::string& name, const Json& value) {
  const std::filesystem::path file = kFolder / (name + ".json");
  const std::string text = dump_json(value, JsonStyle::pretty) + "\n";
  if (std::getenv("METIER_UPDATE_GOLDEN") != nullptr) { ASSERT_TRUE(write_file(file, text, 0644)); }
  auto recorded = read_file(file);
  ASSERT_TRUE(recorded) << file;
  EXPECT_EQ(text, *recorded) << file;
}

TEST(Job, LowersTheDefaultFunction) {
  expect_golden(
      "job/golden/default",
      lowered(
          function_of(
              R"({"kind":"job","metadata":{"name":"f","project":"p"},"spec":{"command":"train.py","image":"mlrun/mlrun"}})"),
          run_of(
              R"({"handler":"train","parameters":{"lr":0.1},"notifications":[{"kind":"slack","params":{"webhook":"secret"}}]})")));
}

TEST(Job, LowersEveryCommonAttribute) {
  Function f = function_of(
      R"({"kind":"job","metadata":{"name":"my-f","project":"p","tag":"v1","labels":{"team":"a"},"annotations":{"x":"y"}},
    "spec":{"image":"python","build":{"functionSourceCode":"ZGVmIHRyYWluKGNvbnRleHQpOiBwYXNzCg==","origin_filename":"train.py"},"args":["--fast",3],
    "default_handler":"train","workdir":"/w","pythonpath":"/lib","service_account":"sa","node_name":"n1","priority_class_name":"high",
    "affinity":{"nodeAffinity":{}},"tolerations":[{"key":"a","operator":"Exists"}],"security_context":{"runAsUser":1000}}})");
  ASSERT_TRUE(set_env(f, "A", 1));
  ASSERT_TRUE(set_env_from_secret(f, "TOKEN", "s", "t"));
  ASSERT_TRUE(set_env(f, "MLRUN_K8S_SECRET__KEY", "mine"));
  ASSERT_TRUE(with_requests(f, {.mem = "1G", .cpu = "500m"}));
  ASSERT_TRUE(with_limits(f, {.mem = "2Gi", .cpu = "2", .gpus = 1}));
  ASSERT_TRUE(mount_pvc(f, "claim", "data", "/data"));
  ASSERT_TRUE(mount_hostpath(f, "/mnt", "/host"));
  ASSERT_TRUE(set_image_pull_configuration(f, "Always", "regcred"));
  ASSERT_TRUE(with_node_selection(f, {.node_selector = JsonObject{{"zone", "b"}, {"disk", ""}}}));
  Site where = site();
  where.project_secret_keys = {"KEY", "OTHER", "mlrun.internal"};
  where.node_selector = {{"zone", "a"}, {"disk", "ssd"}, {"arch", "amd64"}};
  expect_golden("job/golden/full",
                lowered(f, run_of(R"({"verbose":true,"scrape_metrics":false})"), where, 2));
}

TEST(Job, LowersItsCommandLines) {
  const auto line = [](std::string_view spec, std::string_view run = "{}") {
    return words(container_of(
        lowered(function_of(R"({"kind":"job","metadata":{"name":"f","project":"p"},"spec":)" +
                            std::string(spec) + "}"),
                run_of(run))));
  };
  EXPECT_EQ(line(R"({"command":"a.py"})"), "mlrun|run|--name|f-train|--from-env|a.py");
  EXPECT_EQ(line(R"({"command":"a.py","args":["x","{y}"]})", R"({"handler":"h"})"),
            "mlrun|run|--name|f-train|--from-env|--handler|h|a.py|x|{y}");
  EXPECT_EQ(line(R"({"args":["x"],"build":{"functionSourceCode":"eA=="}})"),
            "mlrun|run|--name|f-train|--from-env|*|x");
  EXPECT_EQ(line(R"({"default_handler":"m.go"})"),
            "mlrun|run|--name|f-train|--from-env|--handler|m.go");
  EXPECT_EQ(line(R"({"mode":"pass","command":"prog {a}","args":["{b}","{{c}}"]})",
                 R"({"parameters":{"a":"x y","b":2.5}})"),
            "prog x y|2.5|{c}");
  EXPECT_EQ(
      line(
          R"({"mode":"pass","command":"{codefile}","build":{"functionSourceCode":"eA==","origin_filename":"s.sh"}})"),
      "mlrun|run|--name|f-train|--from-env|--mode|pass|--origin-file|s.sh|{codefile}");
  EXPECT_EQ(
      line(
          R"({"command":"a.py","workdir":"sub","build":{"source":"git://h/r#main","load_source_on_run":true}})"),
      "mlrun|run|--name|f-train|--from-env|--source|git://h/r#main|--workdir|sub|a.py");
}

TEST(Job, ChoosesTheWorkingDirectory) {
  const auto dir = [](std::string_view spec) {
    const Json pod = lowered(
        function_of(R"({"kind":"job","metadata":{"name":"f"},"spec":)" + std::string(spec) + "}"),
        run_of());
    return std::string(string_in(container_of(pod).get_object(), "workingDir", "none"));
  };
  EXPECT_EQ(dir(R"({"command":"a.py"})"), "none");
  EXPECT_EQ(dir(R"({"command":"a.py","workdir":"/abs","build":{"source_code_target_dir":"/t"}})"),
            "/abs");
  EXPECT_EQ(dir(R"({"command":"a.py","workdir":"./sub","build":{"source_code_target_dir":"/t"}})"),
            "/t/sub");
  EXPECT_EQ(dir(R"({"command":"a.py","build":{"source_code_target_dir":"/t"}})"), "/t");
  EXPECT_EQ(
      dir(R"({"command":"a.py","workdir":"sub","build":{"source":"x.zip","load_source_on_run":true,"source_code_target_dir":"/t"}})"),
      "none");
}

TEST(Job, RefusesWhatCannotBeRight) {
  const auto error = [](std::string_view spec, std::string_view run = "{}") {
    const Function f =
        function_of(R"({"kind":"job","metadata":{"name":"f"},"spec":)" + std::string(spec) + "}");
    const metier::Run r = run_of(run);
    auto checked = kind("job").validate(Subject{f, &r});
    return checked ? std::string("accepted") : checked.error().text();
  };
  EXPECT_EQ(error("{}"),
            "spec: the function has nothing to run: no code, no command, no source, no handler");
  EXPECT_EQ(error(R"({"command":"x","mode":"pass"})", R"({"handler":"h"})"),
            "spec.mode: mode pass runs a program and takes no handler, got 'h'");
  EXPECT_EQ(error(R"({"command":"x {n}","mode":"pass"})"),
            "spec.command: 'x {n}' asks for parameter 'n', which the run has not");
  EXPECT_EQ(
      error(
          R"({"build":{"functionSourceCode":"eA==","source":"a.zip","load_source_on_run":true}})"),
      "spec.build.source: the function has both its own code and a source that is loaded at run");
  EXPECT_EQ(
      error(
          R"({"build":{"functionSourceCode":"ZGVmIHRyYWluKCk6IHBhc3MK","origin_filename":"train.py"}})",
          R"({"handler":"trian"})"),
      "spec.handler: train.py has no function 'trian', did you mean 'train'?");
  EXPECT_EQ(error(R"({"build":{"functionSourceCode":"!!!"},"default_handler":"x"})").substr(0, 30),
            "spec.build.functionSourceCode:");
  EXPECT_NE(error(R"({"command":"a.py","volume_mounts":[{"name":"v","mountPath":"/x"}]})"),
            "accepted");
  EXPECT_NE(error(R"({"command":"a.py","resources":{"limits":{"memory":"1Gib"}}})"), "accepted");
  EXPECT_EQ(error(R"({"command":"a.py"})"), "accepted");
}

TEST(Local, LowersToAProcessOfTheHost) {
  const auto pod = [](std::string_view spec, std::string_view run = "{}") {
    return lowered(function_of(R"({"kind":"local","metadata":{"name":"f","project":"p"},"spec":)" +
                               std::string(spec) + "}"),
                   run_of(run));
  };
  expect_golden("local/golden/python", pod(R"({"command":"train.py"})", R"({"handler":"train"})"));
  EXPECT_EQ(words(container_of(pod(R"({"command":"train.py","args":["a"]})"))),
            "mlrun|run|--name|f-train|--from-env|train.py|a");
  EXPECT_EQ(words(container_of(pod(R"({"default_handler":"m.go"})"))),
            "mlrun|run|--name|f-train|--from-env|--handler|m.go");
  EXPECT_EQ(words(container_of(pod(R"({"command":"grep -c {w}","args":["f.txt"]})",
                                   R"({"parameters":{"w":"x"}})"))),
            "grep|-c|x|f.txt");
  EXPECT_EQ(words(container_of(pod(R"({"command":"./s.sh"})"))), "bash|./s.sh");
  EXPECT_EQ(words(container_of(pod(R"({"command":"train.py","mode":"pass"})"))),
            "python3|-u|train.py");
  EXPECT_EQ(words(container_of(pod(R"({"command":"lib.so","default_handler":"train"})"))),
            "mlrun|run|--name|f-train|--from-env|--handler|train|lib.so");
}

TEST(Handler, IsNothingToRender) {
  const Function f = function_of(R"({"kind":"handler","metadata":{"name":"f"}})");
  const metier::Run r = run_of();
  auto resources = kind("handler").lower(Subject{f, &r}, site());
  ASSERT_FALSE(resources);
  EXPECT_EQ(exit_code_of(resources.error().kind), 2);
  EXPECT_FALSE(kind("handler").traits().stores_function);
}

TEST(Registry, FindsKindsAndAliases) {
  const KindRegistry kinds = builtin_kinds();
  EXPECT_EQ(kinds.all().size(), 9U);
  EXPECT_EQ((*kinds.find("remote"))->traits().name, "nuclio");
  EXPECT_EQ((*kinds.find("nuclio:mlrun"))->traits().name, "nuclio");
  EXPECT_EQ((*kinds.find(""))->traits().name, "local");
  auto unknown = kinds.find("jbo");
  ASSERT_FALSE(unknown);
  EXPECT_EQ(unknown.error().text(), "kind: 'jbo' is unknown, did you mean 'job'?");
}

TEST(Registry, EveryKindCanBeMadeAndTheMissingOnesSaySo) {
  for (const Kind* each : builtin_kinds().all()) {
    const std::string name(each->traits().name);
    EXPECT_FALSE(each->traits().summary.empty());
    auto made = new_function({.name = "f", .kind = name, .command = name == "local" ? "a.py" : ""},
                             system_random());
    ASSERT_TRUE(made) << name << made.error().text();
    if (each->traits().available) { continue; }
    const metier::Run run = run_of();
    auto resources = each->lower(Subject{*made, &run}, site());
    ASSERT_FALSE(resources);
    EXPECT_EQ(exit_code_of(resources.error().kind), 5);
    EXPECT_TRUE(each->validate(Subject{*made, &run})) << name;
    EXPECT_TRUE(export_text(*made)) << name;
  }
}

ResourceStatus pod_status(std::string_view status, std::uint64_t revision = 1,
                          std::string name = {}) {
  if (name.empty()) { name = resource_name("f-train", "0123456789abcdef0123456789abcdef", 0, 1); }
  return {.key = {"p", "Pod", name},
          .uid = "u",
          .labels = {},
          .status = *parse_json(status),
          .removed = false,
          .revision = revision};
}

Observation seen(std::vector<ResourceStatus> statuses, std::string_view state = "created") {
  static const Function kFunction =
      function_of(R"({"kind":"job","metadata":{"name":"f"},"spec":{"command":"a.py"}})");
  Run run = run_of();
  run.status()["state"] = state;
  return kind("job").observe(Subject{kFunction, &run}, statuses, Time{});
}

TEST(Observe, FollowsThePod) {
  EXPECT_EQ(seen({}).state, RunState::pending);
  const Observation pending = seen({pod_status(
      R"({"phase":"Pending","conditions":[{"type":"PodScheduled","status":"False","reason":"InsufficientMemory","message":"asks for 2"}]})")});
  EXPECT_EQ(pending.state, RunState::pending);
  EXPECT_EQ(pending.reason, "InsufficientMemory");
  EXPECT_EQ(pending.message, "asks for 2");
  EXPECT_EQ(
      seen(
          {pod_status(
              R"({"phase":"Pending","containerStatuses":[{"name":"base","state":{"waiting":{"reason":"EnvironmentBuilding"}}}]})")})
          .reason,
      "EnvironmentBuilding");
  const Observation running = seen({pod_status(
      R"({"phase":"Running","hostIP":"1","containerStatuses":[{"name":"base","state":{"running":{"startedAt":"2026-01-02T03:04:05+00:00"}}}]})")});
  EXPECT_EQ(running.state, RunState::running);
  EXPECT_EQ(to_iso(*running.started).substr(0, 19), "2026-01-02T03:04:05");
  EXPECT_EQ(running.parts.size(), 1U);
  EXPECT_EQ(seen({pod_status(R"({"phase":"Succeeded"})")}).state, RunState::completed);
}

TEST(Observe, NamesTheFirstFailure) {
  const auto failure = [](std::string_view status) {
    return *seen({pod_status(status)}).first_failure;
  };
  const Failure code = failure(
      R"({"phase":"Failed","containerStatuses":[{"name":"base","state":{"terminated":{"exitCode":3,"reason":"Error"}}}]})");
  EXPECT_EQ(code.code, "HandlerError");
  EXPECT_EQ(code.exit_code, 3);
  EXPECT_EQ(code.message, "exit code 3");
  EXPECT_EQ(
      failure(
          R"({"phase":"Failed","containerStatuses":[{"name":"base","state":{"terminated":{"exitCode":137,"signal":9,"reason":"OOMKilled"}}}]})")
          .code,
      "OOMKilled");
  EXPECT_EQ(
      failure(
          R"({"phase":"Failed","reason":"DeadlineExceeded","message":"over 5 s","containerStatuses":[{"name":"base","state":{"terminated":{"exitCode":143,"signal":15,"reason":"Error"}}}]})")
          .code,
      "DeadlineExceeded");
  EXPECT_EQ(failure(R"({"phase":"Failed","reason":"ShimLost"})").code, "ShimLost");
  EXPECT_EQ(
      failure(
          R"({"phase":"Failed","containerStatuses":[{"name":"a","state":{"terminated":{"exitCode":1,"reason":"Error","finishedAt":"2026-01-02T03:04:06+00:00"}}},
    {"name":"b","state":{"terminated":{"exitCode":2,"reason":"Error","finishedAt":"2026-01-02T03:04:05+00:00"}}}]})")
          .exit_code,
      2);
  EXPECT_EQ(failure(R"({"phase":"Failed"})").code, "Internal");
}

TEST(Observe, IgnoresOlderRevisionsAndOtherAttempts) {
  EXPECT_EQ(
      seen({pod_status(R"({"phase":"Failed"})", 5), pod_status(R"({"phase":"Running"})", 4)}).state,
      RunState::error);
  EXPECT_EQ(seen({pod_status(R"({"phase":"Failed"})", 5, "another-pod"),
                  pod_status(R"({"phase":"Running"})", 4)})
                .state,
            RunState::running);
  ResourceStatus removed = pod_status(R"({"phase":"Running"})");
  removed.removed = true;
  EXPECT_EQ(seen({removed}).state, RunState::error);
  EXPECT_EQ(seen({removed}).reason, "NodeLost");
}

TEST(Observe, NeverChangesATerminalRun) {
  for (const std::string state : {"completed", "error", "aborted", "skipped"}) {
    for (const std::string_view phase : {R"({"phase":"Pending"})", R"({"phase":"Running"})",
                                         R"({"phase":"Failed"})", R"({"phase":"Succeeded"})"}) {
      EXPECT_EQ(to_string(seen({pod_status(phase)}, state).state), state);
    }
    EXPECT_EQ(to_string(seen({}, state).state), state);
  }
}

TEST(Deployment, LowersAndIsObservedWithoutARun) {
  const auto deployment = make_deployment_kind();
  const Function f = function_of(
      R"({"kind":"test-deployment","metadata":{"name":"echo","project":"p"},"spec":{"command":"serve","image":"i"}})");
  auto resources = deployment->lower(Subject{f, nullptr}, site());
  ASSERT_TRUE(resources);
  ASSERT_EQ(resources->size(), 2U);
  EXPECT_TRUE(pod_from(resources->front()));
  EXPECT_EQ((*resources)[1].metadata.name, "echo");
  EXPECT_EQ(resources->front().metadata.labels.count("mlrun/uid"), 0U);
  const std::vector<ResourceStatus> running = {pod_status(R"({"phase":"Running"})", 1, "echo")};
  const Observation seen = deployment->observe(Subject{f, nullptr}, running, Time{});
  EXPECT_EQ(seen.state, RunState::running);
  EXPECT_EQ(seen.endpoints.at(0).service, "echo");
  const metier::Run run = run_of();
  EXPECT_FALSE(deployment->lower(Subject{f, &run}, site()));
  EXPECT_FALSE(kind("job").lower(Subject{f, nullptr}, site()));
}

// Functions and runs out of a seed: whatever validate accepts lowers, twice the same, to a pod that Kubernetes takes.
TEST(Property, WhatIsAcceptedLowersTheSameTwice) {
  std::mt19937 random(7);
  const auto pick = [&](std::vector<std::string> choices) {
    return choices[random() % choices.size()];
  };
  int accepted = 0;
  for (int i = 0; i < 2000; ++i) {
    Function f = function_of(R"({"kind":"job","metadata":{},"spec":{}})");
    f.document()["kind"] = pick({"job", "local"});
    f.metadata()["name"] = pick({"f", "My_F", "a.b-c", std::string(63, 'x'), "-", "ü"});
    f.metadata()["project"] = pick({"p", "default", "", "P"});
    f.metadata()["labels"] = JsonObject{{pick({"a", "team"}), pick({"x", "y.z"})}};
    f.spec()["command"] = pick({"a.py", "", "prog {x}", "run.sh", "b c"});
    f.spec()["mode"] = pick({"", "", "pass", "fast"});
    f.spec()["default_handler"] = pick({"", "h", "m.h", "C::m"});
    f.spec()["args"] = JsonArray{pick({"1", "{x}", "{nope}"})};
    if (f.kind() == "job") {
      static_cast<void>(with_limits(
          f, {.mem = Json(pick({"1G", "2Gi", "", "5nn"})), .cpu = Json(pick({"1", "500m", ""}))}));
      static_cast<void>(mount_hostpath(f, "/a", pick({"/x", "/y/z"})));
    }
    static_cast<void>(set_env(f, pick({"A", "B_1"}), Json(pick({"", "v", "$(A)"}))));
    metier::Run r = run_of(R"({"parameters":{"x":1}})");
    r.set_name(pick({"n", "A b", "x.y_z", std::string(63, 'n'), ""}));
    r.set_uid(pick({"u1", "0123"}));
    const Kind& of = kind(f.kind());
    if (!of.validate(Subject{f, &r})) { continue; }
    ++accepted;
    auto first = of.lower(Subject{f, &r}, site());
    auto second = of.lower(Subject{f, &r}, site());
    ASSERT_TRUE(first) << first.error().text();
    ASSERT_TRUE(second);
    EXPECT_EQ(dump_json(to_json(first->front())), dump_json(to_json(second->front())));
    EXPECT_TRUE(is_dns_label(first->front().metadata.name)) << first->front().metadata.name;
    EXPECT_TRUE(pod_from(first->front()));
    for (const auto& [key, value] : first->front().metadata.labels) {
      EXPECT_TRUE(is_label_key(key) && is_label_value(value)) << key << "=" << value;
    }
  }
  EXPECT_GT(accepted, 50);
}

}  // namespace
}  // namespace metier
