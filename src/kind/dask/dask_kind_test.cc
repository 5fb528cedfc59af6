#include "kind/dask/dask_kind.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "base/files.h"
#include "kind/dask/dask_lowering.h"
#include "metier/test_paths.h"
#include "model/attributes.h"
#include "model/create.h"
#include "resource/labels.h"
#include "resource/pod.h"

namespace metier {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

const std::filesystem::path kGolden =
    std::filesystem::path(METIER_SOURCE_DIR) / "src/kind/dask/golden";

void expect_golden(const std::string& name, const Json& value) {
  const std::filesystem::path file = kGolden / (name + ".json");
  const std::string text = dump_json(value, JsonStyle::pretty) + "\n";
  if (std::getenv("METIER_UPDATE_GOLDEN") != nullptr) { ASSERT_TRUE(write_file(file, text, 0644)); }
  auto recorded = read_file(file);
  ASSERT_TRUE(recorded) << file;
  EXPECT_EQ(text, *recorded) << file;
}

Function function_of(std::string_view spec) {
  auto parsed = Function::from_json(*parse_json(
      R"({"kind":"dask","metadata":{"name":"my_f","project":"p","labels":{"team":"a"}},"spec":)" +
      std::string(spec) + "}"));
  EXPECT_TRUE(parsed);
  return *parsed;
}

Run run_of(std::string_view name = "f-train") {
  auto run = Run::from_json(*parse_json(
      R"({"metadata":{"name":")" + std::string(name) +
      R"(","uid":"0123456789abcdef0123456789abcdef","project":"p","iteration":0,"labels":{"owner":"me","kind":"dask"}},)"
      R"("spec":{"handler":"train","parameters":{"lr":0.1}},"status":{"state":"created"}})"));
  return *run;
}

std::vector<Resource> lowered(const Function& function, const Run* run, const Site& site = {}) {
  auto resources = make_dask_kind()->lower(Subject{function, run}, site);
  EXPECT_TRUE(resources) << resources.error().text();
  return resources ? *resources : std::vector<Resource>{};
}

Json as_json(const std::vector<Resource>& resources) {
  JsonArray out;
  for (const Resource& resource : resources) { out.push_back(to_json(resource)); }
  return out;
}

std::string problem(std::string_view spec) {
  const Function function = function_of(spec);
  const metier::Run run = run_of();
  auto checked = make_dask_kind()->validate(Subject{function, &run});
  return checked ? std::string() : checked.error().text();
}

TEST(Dask, LowersARunToItsClusterAndThePodBesideIt) {
  const Function f = function_of(R"({"command":"train.py","image":"mlrun/ml-base","replicas":2})");
  const metier::Run run = run_of();
  expect_golden("run", as_json(lowered(f, &run)));
}

// What MLRun's server makes through dask-kubernetes, with every attribute.
TEST(Dask, LowersEveryAttributeForKubernetes) {
  Function f = function_of(
      R"({"image":"dask:1","min_replicas":1,"max_replicas":8,"nthreads":2,"scheduler_timeout":"90 minutes","node_port":30087,
      "args":["--death-timeout","60"],"pythonpath":"/lib","service_account":"sa","build":{"functionSourceCode":"eA=="}})");
  ASSERT_TRUE(set_env(f, "A", 1));
  ASSERT_TRUE(set_env(f, "MLRUN_NAMESPACE", "mine"));
  ensure_array(f.spec(), "env").push_back(JsonObject{{"name", "A"}, {"value", "2"}});
  ASSERT_TRUE(with_role_limits(f, "worker_resources", {.mem = "2Gi", .cpu = "1"}));
  ASSERT_TRUE(with_role_requests(f, "scheduler_resources", {.mem = "1Gi", .cpu = "500m"}));
  ASSERT_TRUE(mount_pvc(f, "claim", "data", "/data"));
  ASSERT_TRUE(with_node_selection(f, {.node_selector = JsonObject{{"zone", "b"}}}));
  Site site;
  site.embedded = false;
  site.api_url = "http://api:8080";
  site.project_secret_keys = {"KEY"};
  site.node_selector = {{"arch", "amd64"}};
  expect_golden("kubernetes", as_json(lowered(f, nullptr, site)));
}

TEST(Dask, RolesAskForALittleOnThisMachineUnlessTheUserSaysOtherwise) {
  const auto asks = [](std::string_view spec, const char* role) {
    const auto cluster = lowered(function_of(spec), nullptr).front();
    const JsonObject& container =
        cluster.spec().at(role).at("template").at("spec").at("containers").at(0).as_object();
    const Json* resources = container.if_contains("resources");
    return resources == nullptr ? std::string() : dump_json(*resources);
  };
  const std::string little = R"({"requests":{"cpu":"250m","memory":"512Mi"}})";
  EXPECT_EQ(asks(R"({"command":"a.py"})", "scheduler"), little);
  EXPECT_EQ(asks(R"({"command":"a.py","worker_resources":{"requests":{},"limits":{}}})", "worker"),
            little);
  EXPECT_EQ(asks(R"({"command":"a.py","worker_resources":{"requests":{"cpu":"2"}}})", "worker"),
            R"({"requests":{"cpu":"2","memory":"512Mi"}})");
  EXPECT_EQ(asks(R"({"command":"a.py","worker_resources":{"limits":{"memory":"1Gi"}}})", "worker"),
            R"({"limits":{"memory":"1Gi"},"requests":{"cpu":"250m"}})");
  EXPECT_EQ(asks(R"({"command":"a.py","worker_resources":{}})", "worker"), "");
}

// Our workers have no nanny: its variables are the pod's, and a value of the user's own wins.
TEST(Dask, WorkersHaveTheVariablesOfANanny) {
  const auto value = [](const Function& function, const char* role, std::string_view name) {
    const auto cluster = lowered(function, nullptr).front();
    const JsonObject& container =
        cluster.spec().at(role).at("template").at("spec").at("containers").at(0).as_object();
    std::string out;
    for (const Json& entry : *array_in(container, "env")) {
      if (string_at(entry, "name") == name) { out += string_at(entry, "value"); }
    }
    return out;
  };
  Function f = function_of(R"({"command":"a.py"})");
  EXPECT_EQ(value(f, "worker", "OMP_NUM_THREADS"), "1");
  EXPECT_EQ(value(f, "worker", "MALLOC_TRIM_THRESHOLD_"), "65536");
  EXPECT_EQ(value(f, "scheduler", "OMP_NUM_THREADS"), "");
  ASSERT_TRUE(set_env(f, "OMP_NUM_THREADS", 4));
  EXPECT_EQ(value(f, "worker", "OMP_NUM_THREADS"), "4");
}

TEST(Dask, TheClusterIsFoundAgainUntilWhatItsWorkersAreMadeOfChanges) {
  const metier::Run run = run_of();
  const metier::Run other = run_of("f-other");
  const auto name = [&](const Function& f, const metier::Run* r, const Site& site = {}) {
    return lowered(f, r, site).front().metadata.name;
  };
  Function f = function_of(R"({"command":"a.py","replicas":2})");
  const std::string first = name(f, &run);
  EXPECT_EQ(first.substr(0, 11), "mlrun-my-f-");
  EXPECT_EQ(name(f, &other), first);
  EXPECT_EQ(name(f, nullptr), first);
  f.spec()["replicas"] = 5;
  ensure_object(f.spec(), "build")["functionSourceCode"] = "eA==";
  EXPECT_EQ(name(f, &run), first);
  ASSERT_TRUE(set_env(f, "A", 1));
  EXPECT_NE(name(f, &run), first);
  Site site;
  site.environment = "python 3.12";
  EXPECT_NE(name(function_of(R"({"command":"a.py","replicas":2})"), &run, site), first);
}

TEST(Dask, NamesStayWithinWhatKubernetesTakes) {
  Function f = function_of("{}");
  f.set_name(std::string(63, 'x'));
  const auto cluster = lowered(f, nullptr).front();
  EXPECT_TRUE(is_dns_label(cluster.metadata.name + "-scheduler-99999"));
}

TEST(Dask, RefusesWhatCannotBeRight) {
  EXPECT_EQ(problem(R"({"command":"a.py","replicas":2})"), "");
  EXPECT_THAT(problem(R"({"command":"a.py","replicas":0})"), HasSubstr("spec.replicas"));
  EXPECT_THAT(problem(R"({"command":"a.py","min_replicas":5,"max_replicas":2})"),
              HasSubstr("5 is more than max_replicas 2"));
  EXPECT_THAT(problem(R"({"command":"a.py","nthreads":0})"), HasSubstr("spec.nthreads"));
  EXPECT_THAT(problem(R"({"command":"a.py","scheduler_timeout":"soon"})"),
              HasSubstr("'soon' is not a time"));
  EXPECT_THAT(problem(R"({"command":"a.py","service_type":"Public"})"),
              HasSubstr("spec.service_type"));
  EXPECT_THAT(problem(R"({"command":"a.py","node_port":99999})"), HasSubstr("spec.node_port"));
  EXPECT_THAT(problem(R"({"command":"a.py","worker_resources":{"limits":{"memory":"lots"}}})"),
              HasSubstr("lots"));
  for (const char* time : {"60 minutes", "1h", "30s", "2.5 hours", "90", "500 ms"}) {
    EXPECT_TRUE(is_dask_time(time)) << time;
  }
  for (const char* time : {"", "s", "1.2.3s", "5 parsecs", "-1s"}) {
    EXPECT_FALSE(is_dask_time(time)) << time;
  }
}

TEST(Dask, SchedulersLeaveAfterAnHourUnlessTheUserSaysOtherwise) {
  const auto idle = [](std::string_view spec) {
    const auto cluster = lowered(function_of(spec), nullptr).front();
    const Json& container =
        cluster.spec().at("scheduler").at("template").at("spec").at("containers").at(0);
    const JsonArray& args = container.at("args").get_array();
    for (std::size_t i = 0; i + 1 < args.size(); ++i) {
      if (std::string_view(args[i].get_string()) == "--idle-timeout") {
        return std::string(args[i + 1].get_string());
      }
    }
    return std::string("never");
  };
  EXPECT_EQ(idle(R"({})"), "60 minutes");
  EXPECT_EQ(idle(R"({"scheduler_timeout":null})"), "60 minutes");
  EXPECT_EQ(idle(R"({"scheduler_timeout":""})"), "60 minutes");
  EXPECT_EQ(idle(R"({"scheduler_timeout":90})"), "90");
  EXPECT_EQ(idle(R"({"scheduler_timeout":"2 hours"})"), "2 hours");
}

TEST(Dask, TheHandlerHasNoneOfTheWorkersOptions) {
  const metier::Run run = run_of();
  const auto words = [&](std::string_view spec) {
    const auto pod = lowered(function_of(spec), &run).back();
    return dump_json(pod.spec().at("containers").at(0).at("args"));
  };
  EXPECT_EQ(words(R"({"command":"a.py","args":["--death-timeout","60"]})"),
            R"(["run","--name","f-train","--from-env","--handler","train","a.py"])");
  EXPECT_EQ(words(R"({"build":{"functionSourceCode":"eA=="},"args":["--death-timeout","60"]})"),
            R"(["run","--name","f-train","--from-env","--handler","train"])");
}

TEST(Dask, WithoutRemoteTheHandlersPodIsAll) {
  const Function f = function_of(R"({"command":"a.py","remote":false,"replicas":2})");
  const metier::Run run = run_of();
  const auto resources = lowered(f, &run);
  ASSERT_EQ(resources.size(), 1U);
  EXPECT_EQ(resources[0].kind, "Pod");
  EXPECT_FALSE(resources[0].metadata.labels.contains(std::string(kPodGroupLabel)));
  const std::string env = dump_json(resources[0].spec().at("containers").at(0).at("env"));
  EXPECT_THAT(env, HasSubstr(R"({"name":"METIER_DASK_LOCAL","value":"true"})"));
  EXPECT_THAT(env, testing::Not(HasSubstr("DASK_SCHEDULER_ADDRESS")));
  EXPECT_TRUE(make_dask_kind()->validate(Subject{f, &run}));
  EXPECT_EQ(make_dask_kind()->validate(Subject{f, nullptr}).error().field, "spec.remote");
}

TEST(Dask, FieldsOfAnotherTypeAreRefusedByName) {
  const auto says = [](std::string_view field, std::string_view value) {
    const Function f =
        function_of(R"({")" + std::string(field) + R"(":)" + std::string(value) + "}");
    auto checked = make_dask_kind()->validate(Subject{f, nullptr});
    const std::string said = checked ? "" : checked.error().text() + "; " + checked.error().fix;
    EXPECT_THAT(said, HasSubstr("spec." + std::string(field)));
    return said;
  };
  EXPECT_THAT(says("nthreads", R"("two")"), HasSubstr("expected a whole number, got a text 'two'"));
  EXPECT_THAT(says("node_port", R"("30087")"), HasSubstr("write it without quotes"));
  EXPECT_THAT(says("replicas", "2.5"), HasSubstr("got a number"));
  EXPECT_THAT(says("min_replicas", "[1]"), HasSubstr("got a list"));
  EXPECT_THAT(says("max_replicas", R"("4")"), HasSubstr("got a text '4'"));
  EXPECT_THAT(says("scheduler_timeout", "true"), HasSubstr("expected a time, got a boolean"));
  EXPECT_THAT(says("scheduler_timeout", "-5"), HasSubstr("'-5' is not a time"));
  EXPECT_THAT(says("service_type", "1"), HasSubstr("expected text, got an integer"));
  EXPECT_THAT(says("remote", R"("no")"), HasSubstr("expected true or false, got a text 'no'"));
  EXPECT_THAT(says("worker_resources", R"("2Gi")"), HasSubstr("expected an object"));
  EXPECT_THAT(says("worker_resources", R"({"limit":{"cpu":1}})"), HasSubstr("'limits'"));
  EXPECT_THAT(says("worker_resources", R"({"requests":4})"),
              HasSubstr("spec.worker_resources.requests"));
  EXPECT_THAT(says("scheduler_resources", R"({"requests":{"memroy":"1Gi"}})"),
              HasSubstr("did you mean 'memory'?"));
  EXPECT_EQ(
      problem(R"({"command":"a.py","nthreads":2,"node_port":30087,"remote":true,"replicas":null,
      "scheduler_timeout":90,"worker_resources":{"requests":{},"limits":{"memory":"2Gi","nvidia.com/gpu":1}}})"),
      "");
}

TEST(Dask, TellsWhatHasNoEffect) {
  const auto told = [](std::string_view spec, bool embedded) {
    Site site;
    site.embedded = embedded;
    const Function f = function_of(spec);
    return make_dask_kind()->ignored(Subject{f, nullptr}, site);
  };
  constexpr std::string_view kAll =
      R"({"extra_pip":"pip install x","kfp_image":"i","service_type":"NodePort","node_port":30087})";
  EXPECT_THAT(
      told(kAll, true),
      ElementsAre(HasSubstr("spec.extra_pip has no effect: "), HasSubstr("spec.kfp_image has no"),
                  HasSubstr("spec.node_port has no effect on the embedded cluster: "),
                  HasSubstr("spec.service_type has no effect on the embedded cluster: ")));
  EXPECT_EQ(told(kAll, false).size(), 2U);
  EXPECT_THAT(told(R"({"service_type":"ClusterIP","extra_pip":null,"node_port":null})", true),
              testing::IsEmpty());
}

ResourceStatus status_of(std::string kind, std::string name, Json status, Labels labels = {}) {
  return {.key = {"p", std::move(kind), std::move(name)},
          .uid = {},
          .labels = std::move(labels),
          .status = std::move(status)};
}

TEST(Dask, ShowsHandlerSchedulerAndWorkers) {
  const Function f = function_of(R"({"command":"a.py","replicas":2})");
  const metier::Run run = run_of();
  const std::string pod = lowered(f, &run).back().metadata.name;
  const Json running = to_json(PodStatus{.phase = PodPhase::running});
  std::vector<ResourceStatus> seen{
      status_of("Pod", "c-worker-1", running, {{"dask.org/component", "worker"}}),
      status_of("Pod", "c-scheduler", running, {{"dask.org/component", "scheduler"}}),
      status_of("Pod", pod, running),
      status_of("DaskCluster", "c",
                *parse_json(R"({"state":"Running","workers":{"wanted":2,"ready":1}})"))};
  const auto observed = make_dask_kind()->observe(Subject{f, &run}, seen, {});
  EXPECT_EQ(observed.state, RunState::running);
  std::vector<std::string> parts;
  for (const Part& part : observed.parts) {
    parts.push_back(part.role + std::to_string(part.index) + " " + part.pod);
  }
  EXPECT_THAT(parts, ElementsAre("main0 " + pod, "scheduler0 c-scheduler", "worker1 c-worker-1"));
  EXPECT_EQ(dump_json(observed.progress),
            R"({"state":"Running","workers":{"wanted":2,"ready":1}})");

  seen.back().status = *parse_json(
      R"({"state":"Failed","reason":"SchedulerLost","message":"the scheduler is gone","failed":"c-scheduler"})");
  const auto lost = make_dask_kind()->observe(Subject{f, &run}, seen, {});
  EXPECT_EQ(lost.state, RunState::error);
  EXPECT_EQ(lost.reason, "SchedulerLost");
  EXPECT_EQ(lost.first_failure->part, "c-scheduler");
  EXPECT_TRUE(lost.service_ends);
  EXPECT_FALSE(observed.service_ends);
}

TEST(Dask, ADeployedFunctionHasTheStateOfItsCluster) {
  const Function f = function_of(R"({"replicas":2})");
  const auto observed = [&](std::string_view cluster) {
    const Json running = to_json(PodStatus{.phase = PodPhase::running});
    const PodStatus ended{.phase = PodPhase::failed};
    const std::vector<ResourceStatus> seen{
        status_of("Pod", "f-train-0123", running),  // a run's handler is no part of the function
        status_of("Pod", "c-scheduler", to_json(ended), {{"dask.org/component", "scheduler"}}),
        status_of("Pod", "c-scheduler-2", running, {{"dask.org/component", "scheduler"}}),
        status_of("Pod", "c-worker-1", running, {{"dask.org/component", "worker"}}),
        status_of("DaskCluster", "c", *parse_json(cluster))};
    return make_dask_kind()->observe(Subject{f, nullptr}, seen, {});
  };
  const auto ready = observed(
      R"({"state":"Running","whole":true,"comm":"tls://127.1.0.1:8786","dashboard":"http://127.1.0.1:8787",
          "workers":{"wanted":2,"ready":2}})");
  EXPECT_EQ(ready.state, RunState::running);
  EXPECT_EQ(ready.function_state, "");
  EXPECT_EQ(string_at(ready.function_status, "scheduler_address"), "tls://127.1.0.1:8786");
  EXPECT_EQ(string_at(ready.function_status, "cluster_name"), "c");
  std::vector<std::string> parts;
  for (const Part& part : ready.parts) { parts.push_back(part.pod); }
  EXPECT_THAT(parts, ElementsAre("c-scheduler-2", "c-worker-1"));

  EXPECT_EQ(observed(R"({"state":"Running"})").function_state, "deploying");  // its workers join
  const auto waits =
      observed(R"({"state":"Starting","reason":"InsufficientCpu","message":"no room"})");
  EXPECT_EQ(waits.function_state, "deploying");
  EXPECT_EQ(waits.reason + ": " + waits.message, "InsufficientCpu: no room");

  const auto failed = observed(
      R"({"state":"Failed","reason":"WorkerFailed","failed":"c-worker-1","message":"it ended; its log: metier logs RUN --part worker-1"})");
  EXPECT_EQ(failed.state, RunState::error);
  EXPECT_EQ(failed.reason, "WorkerFailed");
  EXPECT_EQ(failed.message, "it ended; its log: metier logs my_f");
  EXPECT_EQ(failed.parts.front().pod, "c-worker-1");

  const auto closed = observed(R"({"state":"Closed","reason":"GaveRoom","message":"it was idle"})");
  EXPECT_EQ(closed.function_state, "scaledToZero");
  EXPECT_EQ(closed.reason, "ScaledToZero");
  EXPECT_THAT(closed.message, HasSubstr("(it was idle)"));
  EXPECT_EQ(find_path(closed.function_status, "scheduler_address"), nullptr);
  const auto removed = make_dask_kind()->observe(Subject{f, nullptr}, {}, {});
  EXPECT_EQ(removed.function_state, "scaledToZero");
  EXPECT_THAT(removed.message, HasSubstr("it was removed"));
}

TEST(Dask, AHandlerThatFellWithItsSchedulerWaitsForTheClustersWord) {
  const Function f = function_of(R"({"command":"a.py","replicas":2})");
  const metier::Run run = run_of();
  const std::string pod = lowered(f, &run).back().metadata.name;
  const auto failed = [](int code) {
    PodStatus status{.phase = PodPhase::failed};
    status.containers.push_back(
        {.name = "base", .state = ContainerStatus::State::terminated, .exit_code = code});
    return to_json(status);
  };
  const auto observed = [&](std::string_view scheduler, Json scheduler_status, Json cluster) {
    const std::vector<ResourceStatus> seen{
        status_of("Pod", pod, failed(1)),
        status_of("Pod", std::string(scheduler), std::move(scheduler_status),
                  {{"dask.org/component", "scheduler"}}),
        status_of("DaskCluster", "c", std::move(cluster))};
    return make_dask_kind()->observe(Subject{f, &run}, seen, {});
  };
  const Json running = to_json(PodStatus{.phase = PodPhase::running});
  const Json knows_nothing = *parse_json(R"({"state":"Running","scheduler":"c-scheduler-2"})");
  const auto waits = observed("c-scheduler-2", failed(1), knows_nothing);
  EXPECT_EQ(waits.state, RunState::running);
  EXPECT_FALSE(waits.first_failure);
  // A scheduler that lives, and one of the cluster's life before: the handler failed by itself.
  EXPECT_EQ(observed("c-scheduler-2", running, knows_nothing).state, RunState::error);
  EXPECT_EQ(observed("c-scheduler", failed(1), knows_nothing).state, RunState::error);
  const auto told = observed(
      "c-scheduler-2", failed(1),
      *parse_json(R"({"state":"Failed","reason":"SchedulerLost","message":"it is gone"})"));
  EXPECT_EQ(told.state, RunState::error);
  EXPECT_EQ(told.reason, "SchedulerLost");
}

TEST(Dask, NamesAHandlerThatWasLost) {
  const Function f = function_of(R"({"command":"a.py","replicas":2})");
  const metier::Run run = run_of();
  const std::string pod = lowered(f, &run).back().metadata.name;
  const auto message = [&](PodStatus status) {
    const std::vector<ResourceStatus> seen{status_of("Pod", pod, to_json(status))};
    return make_dask_kind()->observe(Subject{f, &run}, seen, {}).message;
  };
  PodStatus killed{.phase = PodPhase::failed};
  killed.containers.push_back(
      {.name = "base", .state = ContainerStatus::State::terminated, .signal = 9});
  EXPECT_EQ(message(killed), "the handler's pod " + pod + " was killed by signal 9");
  EXPECT_EQ(message({.phase = PodPhase::failed, .reason = "ShimLost", .message = "nobody knows"}),
            "the handler's pod " + pod + " was lost: nobody knows");
}

TEST(Dask, AFailureBeforeTheHandlerBeganIsOfTheRunsBefore) {
  const Function f = function_of(R"({"command":"a.py","replicas":2})");
  const metier::Run run = run_of();
  const std::string pod = lowered(f, &run).back().metadata.name;
  const Time failed = *from_iso("2026-11-29T09:00:00.000000+00:00");
  const auto state_of = [&](Time began, const std::string& opened_by) {
    const std::vector<ResourceStatus> seen{
        status_of("Pod", pod, to_json(PodStatus{.phase = PodPhase::running, .started = began})),
        status_of("DaskCluster", "c",
                  JsonObject{{"state", "Failed"},
                             {"reason", "SchedulerLost"},
                             {"failedAt", to_iso(failed)},
                             {"openedBy", opened_by}})};
    return make_dask_kind()->observe(Subject{f, &run}, seen, {}).state;
  };
  EXPECT_EQ(state_of(failed - std::chrono::seconds(1), "f-other"), RunState::error);
  EXPECT_EQ(state_of(failed + std::chrono::seconds(1), "f-other"), RunState::running);
  EXPECT_EQ(state_of(failed + std::chrono::seconds(1), pod), RunState::error);
}

}  // namespace
}  // namespace metier
