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
