#include <gtest/gtest.h>

#include <cstdlib>

#include "base/files.h"
#include "kind/builtin.h"
#include "metier/test_paths.h"
#include "model/attributes.h"
#include "model/create.h"
#include "model/spark.h"
#include "resource/labels.h"
#include "resource/pod.h"

namespace metier {
namespace {

const std::filesystem::path kFolder = std::filesystem::path(METIER_SOURCE_DIR) / "src/kind";

Site site(bool embedded) {
  Site out;
  out.api_url = "http://127.0.0.1:8080";
  out.embedded = embedded;
  return out;
}

// As a client makes it: with the kind's own defaults.
Function spark_function(std::string_view spec, std::string_view kind = "spark") {
  auto parsed = Function::from_json(
      *parse_json(R"({"kind":")" + std::string(kind) +
                  R"(","metadata":{"name":"f","project":"p"},"spec":)" + std::string(spec) + "}"));
  EXPECT_TRUE(parsed) << parsed.error().text();
  if (!parsed) { return {}; }
  return *parsed;
}

Run run_of(std::string_view spec = "{}", std::string_view name = "f-train") {
  auto run = Run::from_json(*parse_json(
      R"({"metadata":{"name":")" + std::string(name) +
      R"(","uid":"0123456789abcdef0123456789abcdef","project":"p","iteration":0,"labels":{"owner":"me"}},"spec":)" +
      std::string(spec) + R"(,"status":{"state":"created"}})"));
  EXPECT_TRUE(run);
  return *run;
}

const Kind& kind(std::string_view name) {
  static const KindRegistry kKinds = builtin_kinds();
  return **kKinds.find(name);
}

Json lowered(const Function& function, const Run& run, bool embedded) {
  auto resources =
      kind(function.kind()).lower(Subject{.function = function, .run = &run}, site(embedded));
  EXPECT_TRUE(resources) << resources.error().text();
  if (!resources) { return nullptr; }
  JsonArray out;
  for (const Resource& resource : *resources) {
    EXPECT_TRUE(check_metadata(resource.metadata));
    out.push_back(to_json(resource));
  }
  return Json(out);
}

void expect_golden(const std::string& name, const Json& value) {
  const std::filesystem::path file = kFolder / (name + ".json");
  const std::string text = dump_json(value, JsonStyle::pretty) + "\n";
  if (std::getenv("METIER_UPDATE_GOLDEN") != nullptr) { ASSERT_TRUE(write_file(file, text, 0644)); }
  auto recorded = read_file(file);
  ASSERT_TRUE(recorded) << file;
  EXPECT_EQ(text, *recorded) << file;
}

constexpr std::string_view kInline =
    R"({"image":"spark","build":{"functionSourceCode":"ZGVmIHRyYWluKGNvbnRleHQpOiBwYXNzCg==","origin_filename":"train.py"},
    "default_handler":"train","driver_resources":{"requests":{"memory":"2g","cpu":"1"},"limits":{"cpu":"2"}},
    "executor_resources":{"requests":{"memory":"5g","cpu":"1"},"limits":{"cpu":"2"}},"replicas":2})";

TEST(Spark, LowersMLRunsApplication) {
  expect_golden("spark/golden/default", lowered(spark_function(kInline), run_of(), false));
}

TEST(Spark, AsksForLittleOnThisMachine) {
  const Json out = lowered(spark_function(kInline), run_of(), true);
  expect_golden("spark/golden/embedded", out);
  for (const char* role : {"driver", "executor"}) {
    const Json& body = out.at(0).at("spec").at(role);
    EXPECT_EQ(string_at(body, "coreRequest"), "250m");
    EXPECT_EQ(string_at(body, "memory"), "512m");
  }
}

TEST(Spark, LowersEveryAttribute) {
  Function f = spark_function(
      R"({"command":"/jobs/count.py","args":["a",3],"image":"spark","workdir":"/w","job_type":"Python",
      "spark_version":"4.3.0","hadoop_conf":{"fs.s3a.fast":true},"spark_conf":{"spark.sql.shuffle.partitions":4,
      "spark.eventLog.enabled":true},"deps":{"jars":["local:///a.jar"],"packages":["g:a:1"]},"service_account":"sa",
      "image_pull_secret":"reg","image_pull_policy":"Always","replicas":3,"driver_java_options":"-Dx=1",
      "executor_tolerations":[{"key":"k","operator":"Exists"}],"priority_class_name":"high","env":[{"name":"A","value":"1"}]})");
  ASSERT_TRUE(with_spark_requests(f, SparkRole::driver, "1g", "500m"));
  ASSERT_TRUE(with_spark_requests(f, SparkRole::executor, "3g", "2"));
  ASSERT_TRUE(with_spark_limits(f, SparkRole::executor, {.mem = {}, .cpu = "4", .gpus = 1}));
  ASSERT_TRUE(with_spark_cores(f, 2, nullptr));
  ASSERT_TRUE(with_dynamic_allocation(f, 1, 5, 2));
  ASSERT_TRUE(with_restart_policy(f, {.type = "OnFailure", .retries = 2}));
  ASSERT_TRUE(disable_monitoring(f));
  ASSERT_TRUE(with_spark_node_selection(f, SparkRole::driver,
                                        {.node_name = {},
                                         .node_selector = JsonObject{{"zone", "a"}},
                                         .affinity = {},
                                         .tolerations = {}}));
  ASSERT_TRUE(
      with_spark_host_path(f, SparkRole::executor, "/mnt", "/host", "", "host-path-volume"));
  Site where = site(false);
  where.valid_priority_classes = {"high"};
  where.node_selector = {{"arch", "amd64"}};
  const metier::Run run = run_of();
  ASSERT_TRUE(kind("spark").validate(Subject{.function = f, .run = &run}));
  auto resources = kind("spark").lower(Subject{.function = f, .run = &run}, where);
  ASSERT_TRUE(resources);
  ASSERT_EQ(resources->size(), 1U) << "a program of its own needs no script";
  expect_golden("spark/golden/full", to_json(resources->front()));
}

std::string refused(std::string_view spec, std::string_view name = "f-train") {
  const Function f = spark_function(spec);
  const metier::Run run = run_of("{}", name);
  auto checked = kind("spark").validate(Subject{.function = f, .run = &run});
  return checked ? "accepted" : checked.error().text() + "; " + checked.error().fix;
}

TEST(Spark, RefusesWhatCannotBeRight) {
  EXPECT_EQ(
      refused(R"({"command":"a.py","driver_resources":{"requests":{"memory":"1Gi"}}})"),
      "function.spec.driver_resources.requests.memory: '1Gi' is not in Spark's form of memory; "
      "Spark's own form of it is 1g");
  EXPECT_EQ(
      refused(R"({"command":"a.R","job_type":"R"})"),
      "function.spec.job_type: Spark programs in R are not run: SparkR is deprecated and not in "
      "the pyspark package; write it in Python, Java or Scala");
  EXPECT_EQ(
      refused(R"({"command":"a.jar","job_type":"Scala"})"),
      "function.spec.main_class: a Scala program needs its main class; set main_class to its full "
      "name, like org.example.Main");
  EXPECT_EQ(
      refused(
          R"({"command":"a.py","executor_resources":{"requests":{"cpu":"3"},"limits":{"cpu":"2"}}})"),
      "function.spec.executor_resources: executor requests 3 processors, more than its limit of 2; "
      "raise limits.cpu or lower requests.cpu");
  EXPECT_EQ(
      refused(R"({"command":"a.py"})", "a-name-that-is-longer-than-29-characters"),
      "metadata.name: the run's name 'a-name-that-is-longer-than-29-characters' has 40 characters, "
      "kind spark takes at most 29; give a shorter one: --name");
  EXPECT_TRUE(refused(R"({"command":"a.py"})", "3rd")
                  .starts_with("metadata.name: the run's name '3rd' must begin"));
  EXPECT_TRUE(
      refused(
          R"({"command":"a.py","dynamic_allocation":{"enabled":true,"minExecutors":3,"maxExecutors":2}})")
          .starts_with("function.spec.dynamic_allocation: at least 3 executors and at most 2"));
  EXPECT_TRUE(
      refused(R"({"command":"a.py","restart_policy":{"type":"Sometimes"}})")
          .starts_with("function.spec.restart_policy.type: 'Sometimes' is no restart policy"));
  EXPECT_TRUE(
      refused(R"({"command":"a.py","build":{"source":"git://h/r","load_source_on_run":true}})")
          .starts_with("function.spec.build.load_source_on_run: kind spark cannot load"));
  EXPECT_EQ(refused(R"({"command":"a.py"})"), "accepted");
}

ResourceStatus status_of(std::string_view kind, std::string_view name, std::string_view status,
                         Labels labels = {}) {
  return {.key = {.name_space = "p", .kind = std::string(kind), .name = std::string(name)},
          .uid = {},
          .labels = std::move(labels),
          .status = *parse_json(status),
          .removed = false,
          .revision = 1};
}

TEST(Spark, ObservesTheApplicationAndItsParts) {
  const Function f = spark_function(kInline);
  const metier::Run run = run_of();
  const auto state = [&](std::string_view application) {
    const std::vector all{
        status_of("SparkApplication", "f-train-1", application),
        status_of("Pod", "f-train-1-exec-2", R"({"phase":"Running"})",
                  {{"spark-role", "executor"}, {"spark-exec-id", "2"}}),
        status_of(
            "Pod", "f-train-1-driver",
            R"({"phase":"Failed","containerStatuses":[{"name":"d","state":{"terminated":{"exitCode":3,"reason":"Error"}}}]})",
            {{"spark-role", "driver"}}),
        status_of("Pod", "f-train-1-exec-1", R"({"phase":"Running"})",
                  {{"spark-role", "executor"}, {"spark-exec-id", "1"}})};
    return kind("spark").observe(Subject{.function = f, .run = &run}, all, Time{});
  };
  Observation seen =
      state(R"({"applicationState":{"state":"RUNNING"},"progress":{"tasks":{"done":1}}})");
  EXPECT_EQ(seen.state, RunState::running);
  ASSERT_EQ(seen.parts.size(), 3U);
  EXPECT_EQ(seen.parts[0].role, "driver");
  EXPECT_EQ(seen.parts[1].pod, "f-train-1-exec-1");
  EXPECT_EQ(seen.parts[2].index, 2);
  EXPECT_EQ(dump_json(seen.progress), R"({"tasks":{"done":1}})");
  EXPECT_EQ(state(R"({"applicationState":{"state":"COMPLETED"}})").state, RunState::completed);
  EXPECT_EQ(state(R"({"applicationState":{"state":""}})").state, RunState::pending);
  seen = state(R"({"applicationState":{"state":"FAILED"},"failedPart":"f-train-1-driver"})");
  EXPECT_EQ(seen.state, RunState::error);
  ASSERT_TRUE(seen.first_failure);
  EXPECT_EQ(seen.first_failure->exit_code, 3);
  EXPECT_EQ(seen.first_failure->part, "f-train-1-driver");
}

TEST(Spark, TheNewestDriverIsTheRuns) {
  const Function f = spark_function(kInline);
  const metier::Run run = run_of();
  const auto pod_of = [](std::string_view name, std::string_view phase, std::string_view role,
                         std::string_view attempt, std::string_view number) {
    return status_of("Pod", name, R"({"phase":")" + std::string(phase) + R"("})",
                     {{"spark-role", std::string(role)},
                      {"metier.dev/attempt", std::string(attempt)},
                      {"spark-exec-id", std::string(number)}});
  };
  const std::vector all{
      status_of("SparkApplication", "f", R"({"applicationState":{"state":"RUNNING"}})"),
      pod_of("f-driver", "Failed", "driver", "1", ""),
      pod_of("f-exec-1", "Failed", "executor", "1", "1"),
      pod_of("f-2-driver", "Running", "driver", "2", ""),
      pod_of("f-2-exec-1", "Running", "executor", "2", "1")};
  const Observation seen = kind("spark").observe(Subject{.function = f, .run = &run}, all, Time{});
  ASSERT_EQ(seen.parts.size(), 3U);
  EXPECT_EQ(seen.parts[0].pod, "f-driver");
  EXPECT_EQ(seen.parts[1].pod, "f-2-driver") << "the last driver is the one whose log is shown";
  EXPECT_EQ(seen.parts[1].index, 1);
  EXPECT_EQ(seen.parts[2].pod, "f-2-exec-1");
}

std::vector<Resource> warm(const Function& function, const Run& run) {
  auto out = kind("spark").lower(Subject{.function = function, .run = &run}, site(true));
  EXPECT_TRUE(out) << out.error().text();
  return out ? std::move(*out) : std::vector<Resource>{};
}

TEST(WarmSpark, IsOfAProjectAndOfWhatItsRunsHaveInCommon) {
  Function f = spark_function(kInline);
  f.spec()["warm"] = true;
  const metier::Run run = run_of();
  const auto first = warm(f, run);
  ASSERT_EQ(first.size(), 2U);
  EXPECT_EQ(first[0].kind, "SparkConnect");
  EXPECT_EQ(first[0].metadata.labels.at(std::string(kSharedLabel)), first[0].metadata.name);
  EXPECT_FALSE(first[0].metadata.labels.contains("mlrun/uid"));
  EXPECT_EQ(string_at(first[0].body, "spec.openedBy"), first[1].metadata.name);
  EXPECT_EQ(find_path(first[0].body, "spec.application.arguments"), nullptr);
  EXPECT_FALSE(dump_json(first[0].body).contains("MLRUN_EXEC_CONFIG"));
  EXPECT_EQ(first[1].kind, "Pod");
  EXPECT_EQ(first[1].metadata.annotations.at(std::string(kPreloadAnnotation)), "spark");
  ASSERT_TRUE(pod_from(first[1]));

  Function other = f;  // another handler and name, the same needs
  other.set_name("g");
  other.spec()["default_handler"] = "score";
  EXPECT_EQ(warm(other, run_of("{}", "g-score"))[0].metadata.name, first[0].metadata.name);
  other.spec()["spark_conf"] = JsonObject{{"spark.sql.shuffle.partitions", 4}};
  EXPECT_NE(warm(other, run)[0].metadata.name, first[0].metadata.name);
  other = f;
  other.spec()["executor_resources"] = JsonObject{{"requests", JsonObject{{"memory", "1g"}}}};
  EXPECT_NE(warm(other, run)[0].metadata.name, first[0].metadata.name);
  metier::Run elsewhere = run_of();
  elsewhere.set_project("q");
  other = f;
  other.set_project("q");
  EXPECT_NE(warm(other, elsewhere)[0].metadata.name, first[0].metadata.name)
      << "never shared between projects";
}

TEST(WarmSpark, RefusesWhatItCannotBe) {
  const metier::Run run = run_of();
  const auto refused = [&](std::string_view more) {
    Function f = spark_function(kInline);
    f.spec()["warm"] = true;
    const auto extra = *parse_json(more);
    for (const auto& member : extra.get_object()) { f.spec()[member.key()] = member.value(); }
    auto out = kind("spark").validate(Subject{.function = f, .run = &run});
    return out ? std::string() : out.error().text();
  };
  EXPECT_EQ(refused("{}"), "");
  EXPECT_EQ(refused(R"({"warm_idle_timeout":"90s"})"), "");
  EXPECT_TRUE(refused(R"({"warm_idle_timeout":"soon"})").contains("warm_idle_timeout"));
  EXPECT_TRUE(refused(R"({"warm_idle_timeout":0})").contains("longer than 0"));
  EXPECT_TRUE(refused(R"({"warm":"yes"})").contains("true or false"));
  EXPECT_TRUE(refused(R"({"dynamic_allocation":{"enabled":true}})").contains("a fixed size"));
  EXPECT_TRUE(refused(R"({"job_type":"Scala","main_class":"a.B","command":"a.jar"})")
                  .contains("has a driver of its own"));
  Function f = spark_function(kInline);
  f.spec()["warm"] = true;
  EXPECT_FALSE(kind("spark").lower(Subject{.function = f, .run = &run}, site(false)));
}

TEST(WarmSpark, TheServersFailureIsItsRuns) {
  Function f = spark_function(kInline);
  f.spec()["warm"] = true;
  const metier::Run run = run_of();
  const auto made = warm(f, run);
  const auto seen = [&](std::string_view state, std::string_view phase) {
    const std::vector all{
        status_of("SparkConnect", made[0].metadata.name,
                  std::string(
                      R"({"server":"w-server","reason":"EngineMissing","message":"m","state":")") +
                      std::string(state) + R"(","openedBy":")" + made[1].metadata.name + R"("})",
                  {{"metier.dev/shared", "w"}}),
        status_of("Pod", "w-server", R"({"phase":"Running"})", {{"metier.dev/shared", "w"}}),
        status_of("Pod", made[1].metadata.name, R"({"phase":")" + std::string(phase) + R"("})")};
    return kind("spark").observe(Subject{.function = f, .run = &run}, all, Time{});
  };
  auto now = seen("Running", "Running");
  EXPECT_EQ(now.state, RunState::running);
  ASSERT_EQ(now.parts.size(), 2U);
  EXPECT_EQ(now.parts[0].role, "main");
  EXPECT_EQ(now.parts[1].role, "server");
  now = seen("Failed", "Running");
  EXPECT_EQ(now.state, RunState::error);
  EXPECT_EQ(now.reason, "EngineMissing");
  EXPECT_EQ(seen("Closed", "Running").state, RunState::running) << "another one is on its way";
  EXPECT_EQ(seen("Failed", "Succeeded").state, RunState::completed);
}

TEST(WarmSpark, AFailureBeforeTheClientBeganIsOfTheRunsBefore) {
  Function f = spark_function(kInline);
  f.spec()["warm"] = true;
  const metier::Run run = run_of();
  const auto made = warm(f, run);
  const auto state_of = [&](std::string_view started, const std::string& opener) {
    const std::vector all{
        status_of("SparkConnect", made[0].metadata.name,
                  R"({"state":"Failed","reason":"ServerLost","failedAt":"2026-11-29T09:00:00Z",)"
                  R"("openedBy":")" +
                      opener + R"("})",
                  {{"metier.dev/shared", "w"}}),
        status_of("Pod", made[1].metadata.name,
                  R"({"phase":"Running","startTime":")" + std::string(started) + R"("})")};
    return kind("spark").observe(Subject{.function = f, .run = &run}, all, Time{}).state;
  };
  EXPECT_EQ(state_of("2026-11-29T08:59:59Z", "another"), RunState::error);
  EXPECT_EQ(state_of("2026-11-29T09:00:01Z", "another"), RunState::running);
  EXPECT_EQ(state_of("2026-11-29T09:00:01Z", made[1].metadata.name), RunState::error);
}

TEST(RemoteSpark, LowersToOnePod) {
  Function f = spark_function(kInline, "remote-spark");
  ASSERT_TRUE(with_spark_service(f, "sc://127.0.0.1:15002"));
  expect_golden("remote_spark/golden/default", lowered(f, run_of(), true));
}

TEST(RemoteSpark, RefusesLivy) {
  Function f = spark_function(kInline, "remote-spark");
  auto refused = with_spark_service(f, "http://livy:8998");
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().kind, ErrorKind::unsupported);
  EXPECT_TRUE(refused.error().message.starts_with("Livy is not supported"));
  ASSERT_TRUE(set_env(f, "METIER_SPARK_SERVICE", "livy://h"));
  const metier::Run run = run_of();
  EXPECT_FALSE(kind("remote-spark").validate(Subject{.function = f, .run = &run}));
}

TEST(RemoteSpark, NeedsACluster) {
  const metier::Run run = run_of();
  const auto checked = [&](const Function& f) {
    return kind("remote-spark").validate(Subject{.function = f, .run = &run});
  };
  Function f = spark_function(kInline, "remote-spark");
  const auto refused = checked(f);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().field, "function.spec.env");
  EXPECT_TRUE(refused.error().fix.contains("METIER_SPARK_SERVICE=sc://HOST:PORT"));
  Function by_secret = f;
  by_secret.spec()["env"] = *parse_json(
      R"([{"name":"METIER_SPARK_SERVICE","valueFrom":{"secretKeyRef":{"name":"s","key":"k"}}}])");
  EXPECT_TRUE(checked(by_secret)) << "its value is known in the pod only";
  ASSERT_TRUE(set_env(f, "SPARK_REMOTE", "sc://127.0.0.1:15002"));
  EXPECT_TRUE(checked(f));
}

TEST(Spark, RefusesProgramsInR) {
  const metier::Run run = run_of();
  Function f = spark_function(kInline);
  f.spec()["command"] = "count.R";
  const auto refused = kind("spark").validate(Subject{.function = f, .run = &run});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().field, "function.spec.command");
  EXPECT_TRUE(refused.error().message.contains("in R are not run"));
}

}  // namespace
}  // namespace metier
