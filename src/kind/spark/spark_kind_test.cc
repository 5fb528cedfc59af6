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

TEST(Spark, AnEventLogWithoutAFolderIsTheDriversToPlaceHere) {
  const Function f = spark_function(
      R"({"command":"/jobs/count.py","spark_conf":{"spark.eventLog.enabled":true}})");
  const auto conf_of = [&](bool embedded) {
    const Json made = lowered(f, run_of(), embedded);
    return dump_json(*find_path(made.as_array()[0], "spec.sparkConf"));
  };
  EXPECT_EQ(conf_of(true), R"({"spark.eventLog.enabled":"True"})");
  EXPECT_EQ(conf_of(false), R"({"spark.eventLog.enabled":"True","spark.eventLog.dir":"/tmp"})");
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
  EXPECT_EQ(refused(R"({"command":"a.py"})"), "accepted");
}

// Of the application that the function lowers to.
std::string application_text(std::string_view spec, std::string_view path, bool embedded = true) {
  const Json made = lowered(spark_function(spec), run_of(), embedded);
  const Json* found = find_path(made.as_array()[0], "spec." + std::string(path));
  return found == nullptr ? "absent" : dump_json(*found);
}

// Here its driver fetches it; executors of the operator's have what is in the image.
TEST(Spark, ASourceArchiveIsFetchedByTheDriverOfTheEmbeddedSite) {
  const Function function = spark_function(
      R"({"default_handler":"mod.train","workdir":"sub","build":{"source":"git://h/r","load_source_on_run":true}})");
  const auto run = run_of();
  const Subject subject{.function = function, .run = &run};
  ASSERT_TRUE(kind("spark").validate(subject));
  const auto made = kind("spark").lower(subject, site(true));
  ASSERT_TRUE(made) << made.error().text();
  std::string all;
  for (const Resource& resource : *made) { all += dump_json(Json(resource.body)); }
  EXPECT_TRUE(all.contains(R"("--source","git://h/r","--workdir","sub")")) << all;
  const auto refused = kind("spark").lower(subject, site(false));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().field, "function.spec.build.load_source_on_run");
}

TEST(Spark, SizesOfTheConfigurationAreItsFields) {
  constexpr std::string_view kSizes =
      R"({"command":"a.py","driver_resources":{"requests":{"memory":"2g","cpu":"1"},"limits":{"cpu":"2"}},
      "spark_conf":{"spark.executor.memory":"4g","spark.executor.cores":2,"spark.executor.instances":"5",
      "spark.driver.memory":1536,"spark.driver.cores":"2","spark.executor.memoryOverhead":"1g"}})";
  for (const bool embedded : {true, false}) {
    EXPECT_EQ(application_text(kSizes, "executor.memory", embedded), R"("4g")");
    EXPECT_EQ(application_text(kSizes, "executor.cores", embedded), "2");
    EXPECT_EQ(application_text(kSizes, "executor.instances", embedded), "5");
    EXPECT_EQ(application_text(kSizes, "driver.memory", embedded), R"("1536m")");
    EXPECT_EQ(application_text(kSizes, "driver.cores", embedded), "2");
    EXPECT_EQ(application_text(kSizes, "driver.coreRequest", embedded),
              embedded ? R"("250m")" : R"("1")")
        << "MLRun's own 1 cpu says nothing";
    EXPECT_EQ(application_text(kSizes, "dynamicAllocation", embedded), "absent");
  }
  EXPECT_EQ(application_text(R"({"command":"a.py","executor_resources":{"requests":{"cpu":"2"}},
      "spark_conf":{"spark.executor.memory":"1tb"}})",
                             "executor.memory"),
            R"("1024g")");
  constexpr std::string_view kDynamic =
      R"({"command":"a.py","dynamic_allocation":{"minExecutors":1},"spark_conf":{"spark.dynamicAllocation.enabled":true,
      "spark.dynamicAllocation.maxExecutors":"4","spark.dynamicAllocation.initialExecutors":2}})";
  EXPECT_EQ(application_text(kDynamic, "dynamicAllocation"),
            R"({"minExecutors":1,"enabled":true,"maxExecutors":4,"initialExecutors":2})");
  EXPECT_EQ(application_text(
                R"({"command":"a.py","spark_conf":{"spark.dynamicAllocation.maxExecutors":"4"}})",
                "dynamicAllocation"),
            "absent")
      << "a bound of what is off";
  EXPECT_EQ(
      application_text(R"({"command":"a.py","dynamic_allocation":{"enabled":true,"minExecutors":1},
      "spark_conf":{"spark.executor.instances":3}})",
                       "dynamicAllocation"),
      R"({"enabled":true,"minExecutors":1,"initialExecutors":3})");
}

TEST(Spark, BothRolesHaveTheCommonFieldsThatARoleCanHave) {
  constexpr std::string_view kCommon =
      R"({"command":"a.py","env_from":[{"configMapRef":{"name":"c"}}],"node_selector":{"zone":"a","arch":""},
      "executor_node_selector":{"zone":"b"}})";
  for (const std::string role : {"driver", "executor"}) {
    EXPECT_EQ(application_text(kCommon, role + ".envFrom"), R"([{"configMapRef":{"name":"c"}}])");
  }
  EXPECT_EQ(application_text(kCommon, "driver.nodeSelector"), R"({"zone":"a"})");
  EXPECT_EQ(application_text(kCommon, "executor.nodeSelector"), R"({"zone":"b"})");
  const Json of_run =
      lowered(spark_function(R"({"command":"a.py","driver_tolerations":[{"key":"own"}]})"),
              run_of(R"({"tolerations":[{"key":"k"}],"affinity":{}})"), true);
  const Json& spec = of_run.at(0).at("spec");
  EXPECT_EQ(dump_json(*find_path(spec, "driver.tolerations")), R"([{"key":"own"}])");
  EXPECT_EQ(dump_json(*find_path(spec, "executor.tolerations")), R"([{"key":"k"}])");
}

TEST(Spark, RefusesCommonFieldsThatNoRoleHasAndNamesTheRoles) {
  const auto said = [](std::string_view field) {
    return refused(R"({"command":"a.py",)" + std::string(field) + "}");
  };
  EXPECT_EQ(said(R"("tolerations":[{"key":"k","operator":"Exists"}])"),
            "function.spec.tolerations: kind 'spark' has two roles, each with its own tolerations; "
            "driver_tolerations and executor_tolerations: with_driver_node_selection, "
            "with_executor_node_selection");
  EXPECT_TRUE(said(R"("affinity":{"nodeAffinity":{"x":1}})").contains("executor_affinity"));
  EXPECT_TRUE(said(R"("resources":{"limits":{"cpu":1}})").contains("executor_resources"));
  EXPECT_TRUE(said(R"("node_name":"n")").contains("driver_node_selector"));
  EXPECT_TRUE(said(R"("security_context":{"runAsUser":7})").contains("takes no security context"));
  EXPECT_EQ(said(R"("tolerations":[],"affinity":null,"resources":{"requests":{},"limits":{}},
                 "node_name":"","security_context":{},"node_selector":{})"),
            "accepted")
      << "what MLRun's SDK writes";
}

TEST(Spark, RefusesWrongTypesOfItsFields) {
  const auto said = [](std::string_view field) {
    return refused(R"({"command":"a.py",)" + std::string(field) + "}");
  };
  for (const auto& [field, words] : std::vector<std::pair<std::string, std::string>>{
           {R"("deps":{"jars":"/a.jar"})",
            "deps.jars: expected a list, got a text; write [ ] around it"},
           {R"("deps":["/a.jar"])", "deps: expected an object, got a list; "},
           {R"("deps":{"files":[1]})", "deps.files[0]: expected text, got an integer; "},
           {R"("deps":{"py_files":["/a.py"]})",
            "deps.py_files: 'py_files' is unknown, did you mean 'pyFiles'?; one of jars, files, "
            "pyFiles, archives, packages, excludePackages, repositories"},
           {R"("deps":{"jar":["/a.jar"]})", "deps.jar: 'jar' is unknown, did you mean 'jars'?"},
           {R"("spark_conf":"x=y")",
            "spark_conf: expected an object, got a text; write each property as"},
           {R"("spark_conf":{"x":["y"]})",
            "spark_conf.x: expected text, a number or true or false"},
           {R"("hadoop_conf":["a"])", "hadoop_conf: expected an object, got a list"},
           {R"("dynamic_allocation":{"enabled":"true"})",
            "dynamic_allocation.enabled: expected true or false, got a text"},
           {R"("dynamic_allocation":{"enabled":true,"min_executors":2})",
            "dynamic_allocation.min_executors: 'min_executors' is unknown, did you mean "
            "'minExecutors'?"},
           {R"("restart_policy":{"retreis":3})",
            "restart_policy.retreis: 'retreis' is unknown, did you mean 'retries'?"},
           {R"("restart_policy":{"retries":-1})",
            "restart_policy.retries: -1 is not a number of retries; a whole number from 0 up"},
           {R"("restart_policy":{"retry_interval":"10s"})",
            "restart_policy.retry_interval: 10s is not a number of seconds; a whole number"},
           {R"("driver_java_options":5)", "driver_java_options: expected text, got an integer"},
           {R"("executor_java_options":["-Dx=1"])",
            "executor_java_options: expected text, got a list"},
           {R"("executor_tolerations":"k")", "executor_tolerations: expected a list, got a text"},
           {R"("driver_tolerations":[{"key":"k","toleration_seconds":3}])",
            "driver_tolerations[0].toleration_seconds: 'toleration_seconds' is not Kubernetes' "
            "form"},
           {R"("executor_affinity":{"node_affinity":{}})",
            "executor_affinity.node_affinity: 'node_affinity' is not Kubernetes' form"},
           {R"("python_version":3.11)",
            "python_version: expected text, got a number; write it in quotes: \"3.11\""},
           {R"("driver_resources":{"request":{"cpu":1}})",
            "driver_resources.request: 'request' is unknown, did you mean 'requests'?"},
           {R"("driver_resources":{"requests":{"mem":"1g"}})",
            "driver_resources.requests.mem: 'mem' is unknown"},
           {R"("use_default_image":"yes")",
            "use_default_image: expected true or false, got a text"},
           {R"("dynamic_allocation":{"enabled":true,"minExecutors":2,"initialExecutors":1})",
            "dynamic_allocation.initialExecutors: 1 executors at the start are fewer than "
            "minExecutors, 2; initialExecutors between"},
       }) {
    EXPECT_TRUE(said(field).starts_with("function.spec." + words)) << said(field);
  }
  EXPECT_EQ(
      said(
          R"("deps":{},"spark_conf":{},"hadoop_conf":null,"restart_policy":{},"monitoring":{"enabled":false},
                 "dynamic_allocation":{},"driver_java_options":null,"executor_tolerations":null,"driver_affinity":null,
                 "driver_volume_mounts":[],"use_default_image":false,"python_version":null,
                 "driver_resources":{"requests":{"cpu":"1","memory":"2g","nvidia.com/gpu":1},"limits":{"cpu":"2","amd.com/gpu":1}})"),
      "accepted");
}

TEST(Spark, RefusesSizesThatContradictEachOther) {
  EXPECT_EQ(
      refused(
          R"({"command":"a.py","executor_resources":{"requests":{"memory":"2g"}},"spark_conf":{"spark.executor.memory":"4g"}})"),
      "function.spec.spark_conf.spark.executor.memory: spark.executor.memory is 4g, but "
      "executor_resources.requests.memory is 2g; keep one of the two");
  EXPECT_EQ(
      refused(R"({"command":"a.py","replicas":2,"spark_conf":{"spark.executor.instances":5}})"),
      "function.spec.spark_conf.spark.executor.instances: spark.executor.instances is 5, but "
      "replicas "
      "is 2; keep one of the two");
  EXPECT_EQ(
      refused(
          R"({"command":"a.py","dynamic_allocation":{"enabled":true,"maxExecutors":3},"spark_conf":{"spark.dynamicAllocation.maxExecutors":5}})"),
      "function.spec.spark_conf.spark.dynamicAllocation.maxExecutors: "
      "spark.dynamicAllocation.maxExecutors is 5, but dynamic_allocation.maxExecutors is 3; keep "
      "one of "
      "the two");
  EXPECT_TRUE(
      refused(
          R"({"command":"a.py","dynamic_allocation":{"enabled":false},"spark_conf":{"spark.dynamicAllocation.enabled":"true"}})")
          .contains(
              "spark.dynamicAllocation.enabled is true, but dynamic_allocation.enabled is False"));
  EXPECT_TRUE(
      refused(R"({"command":"a.py","driver_cores":3,"spark_conf":{"spark.driver.cores":1}})")
          .contains("driver_cores is 3"));
  EXPECT_TRUE(
      refused(
          R"({"command":"a.py","spark_conf":{"spark.dynamicAllocation.enabled":true,"spark.dynamicAllocation.shuffleTracking.enabled":"False"}})")
          .contains("must track its shuffles"));
  EXPECT_TRUE(
      refused(
          R"({"command":"a.py","warm":true,"spark_conf":{"spark.dynamicAllocation.enabled":true}})")
          .contains("a fixed size"));
  EXPECT_EQ(
      refused(
          R"({"command":"a.py","replicas":5,"executor_cores":2,"executor_resources":{"requests":{"memory":"4g","cpu":"1"}},
          "spark_conf":{"spark.executor.memory":"4096m","spark.executor.instances":"5","spark.executor.cores":2}})"),
      "accepted")
      << "the same twice";
  for (const auto& [property, value] :
       {std::pair("spark.executor.memory", "4 GiB"), std::pair("spark.driver.memory", "0"),
        std::pair("spark.executor.cores", "two"), std::pair("spark.executor.instances", "0"),
        std::pair("spark.dynamicAllocation.enabled", "yes"),
        std::pair("spark.dynamicAllocation.minExecutors", "-1")}) {
    const std::string said = refused(R"({"command":"a.py","spark_conf":{")" +
                                     std::string(property) + R"(":")" + value + R"("}})");
    EXPECT_TRUE(
        said.starts_with("function.spec.spark_conf." + std::string(property) + ": '" + value))
        << said;
  }
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

TEST(WarmSpark, PythonFilesAreItsClientsOwn) {
  const metier::Run run = run_of();
  Function f = spark_function(kInline);
  f.spec()["warm"] = true;
  const auto bare = warm(f, run);
  f.spec()["deps"] = *parse_json(R"({"pyFiles":["local:///a.py","/price$.zip"]})");
  const auto made = warm(f, run);
  EXPECT_EQ(made[0].metadata.name, bare[0].metadata.name);
  EXPECT_FALSE(dump_json(bare[1].body).contains("METIER_SPARK_PY_FILES"));
  EXPECT_TRUE(
      dump_json(made[1].body)
          .contains(R"({"name":"METIER_SPARK_PY_FILES","value":"local:///a.py,/price$$.zip"})"));
  f.spec()["deps"] = *parse_json(R"({"pyFiles":["hdfs://h/a.py"]})");
  const auto refused = kind("spark").validate(Subject{.function = f, .run = &run});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().text(),
            "function.spec.deps.pyFiles: a warm Spark takes files of this machine, 'hdfs://h/a.py' "
            "is elsewhere");
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

TEST(WarmSpark, RefusesWhatOnlyItsExecutorsWouldHave) {
  const auto said = [](std::string_view field) {
    return refused(R"({"command":"a.py","warm":true,)" + std::string(field) + "}");
  };
  EXPECT_EQ(
      said(R"("executor_node_selector":{"zone":"a"})"),
      "function.spec.executor_node_selector: a warm Spark is one pod: its executors cannot have a "
      "place of their own; give driver_node_selector the same value, or leave spec.warm out");
  EXPECT_TRUE(said(R"("executor_tolerations":[{"key":"a"}],"driver_tolerations":[{"key":"b"}])")
                  .contains("driver_tolerations the same value"));
  EXPECT_EQ(said(R"("executor_node_selector":{"zone":"a"},"driver_node_selector":{"zone":"a"},
                 "driver_affinity":{"nodeAffinity":{"x":1}},"executor_affinity":{})"),
            "accepted");
  EXPECT_TRUE(said(R"("restart_policy":{"type":"OnFailure","retries":2})")
                  .starts_with("function.spec.restart_policy: a run in a warm Spark"));
  EXPECT_TRUE(said(R"("restart_policy":{"type":"Always"})").contains("a run in a warm Spark"));
  EXPECT_EQ(said(R"("restart_policy":{"type":"OnFailure","retries":0,"retry_interval":10})"),
            "accepted");
  EXPECT_TRUE(said(R"("executor_volume_mounts":[{"name":"a","mountPath":"/m"}],
                   "driver_volume_mounts":[{"name":"b","mountPath":"/m"}])")
                  .contains("'/m' is another volume in the driver"));
}

TEST(WarmSpark, ItsClientHasTheDriversMountsAndSources) {
  Function f = spark_function(
      R"({"command":"a.py","warm":true,"env_from":[{"secretRef":{"name":"s"}}],
      "volumes":[{"name":"d","hostPath":{"path":"/d"}},{"name":"c","hostPath":{"path":"/c"}}],
      "volume_mounts":[{"name":"c","mountPath":"/c"}],"driver_volume_mounts":[{"name":"d","mountPath":"/d"}]})");
  const metier::Run run = run_of();
  const auto made = warm(f, run);
  ASSERT_EQ(made.size(), 2U);
  const auto client = pod_from(made[1]);
  ASSERT_TRUE(client) << client.error().text();
  EXPECT_EQ(client->containers[0].mounts.size(), 2U);
  EXPECT_EQ(client->containers[0].env_from.size(), 1U);
  EXPECT_EQ(dump_json(*find_path(made[0].body, "spec.application.driver.envFrom")),
            R"([{"secretRef":{"name":"s"}}])");
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

TEST(Spark, ItsDriverRunsInTheWorkingDirectoryOfTheFunction) {
  Function f = spark_function(kInline);
  f.spec()["workdir"] = "/w";
  const auto arguments_of = [&](bool embedded) {
    const Json made = lowered(f, run_of(), embedded);
    for (const Json& one : made.as_array()) {
      if (const Json* words = find_path(one, "spec.arguments")) { return dump_json(*words); }
    }
    return std::string();
  };
  EXPECT_TRUE(arguments_of(true).contains(R"("--from-env","--workdir","/w","--handler")"))
      << arguments_of(true);
  EXPECT_FALSE(arguments_of(false).contains("--workdir")) << "as MLRun's server makes it";
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

// What mlrun 1.7.2 writes for with_spark_service("analytics") with V3IO_USERNAME=me, and a variable and a volume of the user's.
constexpr std::string_view kIguazio = R"({"command": "x.py", "provider": "iguazio", "env": [
  {"name": "MLRUN_SPARK_CLIENT_IGZ_SPARK", "value": "true"}, {"name": "V3IO_API", "value": "http://v3io-webapi:8081"},
  {"name": "V3IO_USERNAME", "value": "me"}, {"name": "V3IO_ACCESS_KEY"}, {"name": "V3IO_FRAMESD", "value": "http://framesd:8080"},
  {"name": "CURRENT_NODE_IP", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "status.hostIP"}}},
  {"name": "IGZ_DATA_CONFIG_FILE", "value": "/igz/java/conf/v3io.conf"}, {"name": "MINE", "value": "1"}],
  "volumes": [{"flexVolume": {"driver": "v3io/fuse", "options": {"accessKey": null,
    "dirsToCreate": "[{\"name\": \"users//me\", \"permissions\": 488}]"}}, "name": "v3io"},
    {"hostPath": {"path": "/dev/shm/", "type": ""}, "name": "shm"},
    {"hostPath": {"path": "/var/run/iguazio/dayman/", "type": ""}, "name": "v3iod-comm"},
    {"emptyDir": {}, "name": "daemon-health"},
    {"configMap": {"defaultMode": 420, "name": "analytics-submit"}, "name": "v3io-config"}, {"name":"mine","emptyDir":{}}],
  "volume_mounts": [{"mountPath": "/v3io", "name": "v3io", "subPath": ""}, {"mountPath": "/User", "name": "v3io", "subPath": "users/me"},
    {"mountPath": "/dev/shm", "name": "shm"}, {"mountPath": "/var/run/iguazio/dayman", "name": "v3iod-comm"},
    {"mountPath": "/var/run/iguazio/daemon_health", "name": "daemon-health"}, {"mountPath": "/etc/config/v3io", "name": "v3io-config"},
    {"mountPath":"/mine","name":"mine"}]})";

TEST(RemoteSpark, ReadsTheServiceThatTheSdksMethodNames) {
  Function f = spark_function(kIguazio, "remote-spark");
  const metier::Run run = run_of();
  const auto checked = kind("remote-spark").validate(Subject{.function = f, .run = &run});
  ASSERT_TRUE(checked) << checked.error().text();
  const auto pod_of = [&](bool embedded) { return lowered(f, run, embedded).as_array()[0]; };
  const Json here = pod_of(true);
  EXPECT_EQ(dump_json(*find_path(here, "spec.volumes")), R"([{"name":"mine","emptyDir":{}}])");
  const Json& container = find_path(here, "spec.containers")->as_array()[0];
  EXPECT_EQ(dump_json(*find_path(container, "volumeMounts")),
            R"([{"mountPath":"/mine","name":"mine"}])");
  const std::string env = dump_json(*find_path(container, "env"));
  EXPECT_TRUE(env.contains(R"({"name":"METIER_SPARK_SERVICE","value":"analytics"})")) << env;
  EXPECT_TRUE(env.contains("MINE")) << env;
  EXPECT_FALSE(env.contains("IGZ")) << env;
  EXPECT_FALSE(env.contains("CURRENT_NODE_IP")) << env;
  EXPECT_EQ(find_path(pod_of(false), "spec.volumes")->as_array().size(), 6U)
      << "on a cluster of Iguazio's they are needed";

  ASSERT_TRUE(set_env(f, "METIER_SPARK_SERVICE", "sc://127.0.0.1:15002"));
  const std::string named = dump_json(*find_path(pod_of(true), "spec.containers"));
  EXPECT_TRUE(named.contains("sc://127.0.0.1:15002")) << named;
  EXPECT_FALSE(named.contains("analytics")) << named;
}

TEST(RemoteSpark, RefusesLivyOfTheSdksMethod) {
  Function f = spark_function(
      R"({"volumes":[{"name":"v3io-config","configMap":{"name":"livy://h:8998-submit"}}]})",
      "remote-spark");
  const metier::Run run = run_of();
  const auto refused = kind("remote-spark").validate(Subject{.function = f, .run = &run});
  ASSERT_FALSE(refused);
  EXPECT_TRUE(refused.error().message.starts_with("Livy is not supported"));
}

// What mlrun 1.12.1 writes for with_igz_spark(), shortened.
TEST(Spark, RefusesIguaziosSparkByItsName) {
  constexpr std::string_view kDeps =
      R"("deps":{"jars":["local:///spark/v3io-libs/v3io-hcfs_2.12.jar"],"files":["local:///igz/java/libs/v3io-pyspark.zip"]})";
  for (const std::string_view mounts :
       {R"("volumes":[{"name":"v3io","flexVolume":{"driver":"v3io/fuse"}}])", R"("volumes":[])"}) {
    const Function f = spark_function(R"({"command":"a.py",)" + std::string(kDeps) + "," +
                                      std::string(mounts) + "}");
    const metier::Run run = run_of();
    const auto refused = kind("spark").validate(Subject{.function = f, .run = &run});
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().kind, ErrorKind::unsupported);
    EXPECT_TRUE(refused.error().message.starts_with("Iguazio's Spark runs on Iguazio's platform"));
    EXPECT_TRUE(refused.error().fix.contains("with_igz_spark"));
  }
}

TEST(Spark, TellsWhatHasNoEffectHere) {
  const Function f = spark_function(
      R"({"command":"a.py","spark_version":"3.2.3","python_version":"3.9","use_default_image":true})");
  const metier::Run run = run_of();
  const auto told = [&](const Function& function, bool embedded) {
    return kind("spark").ignored(Subject{.function = function, .run = &run}, site(embedded));
  };
  ASSERT_EQ(told(f, true).size(), 3U);
  EXPECT_EQ(told(f, true)[0],
            "spec.spark_version has no effect on the embedded cluster: Spark is that of the "
            "environment's pyspark (--requirements)");
  EXPECT_TRUE(told(f, false).empty());
  EXPECT_TRUE(told(spark_function(R"({"command":"a.py","spark_version":null,"python_version":"",
                                  "use_default_image":false})"),
                   true)
                  .empty())
      << "what MLRun's SDK writes";
  const auto more = told(
      spark_function(
          R"({"command":"a.py","driver_cores":2,"spark_conf":{"spark.driver.cores":2},"monitoring":{"enabled":true},
          "restart_policy":{"submission_retries":5,"submission_retry_interval":20},"preemption_mode":"prevent",
          "driver_preemption_mode":"allow","executor_preemption_mode":"constrain"})"),
      true);
  std::vector<std::string> fields;
  for (const std::string& line : more) {
    fields.push_back(line.substr(0, line.find(" has no effect")));
  }
  EXPECT_EQ(fields, (std::vector<std::string>{
                        "spec.driver_cores", "spec.spark_conf.spark.driver.cores",
                        "spec.monitoring", "spec.restart_policy.submission_retries",
                        "spec.driver_preemption_mode", "spec.executor_preemption_mode"}));
  EXPECT_TRUE(
      told(spark_function(R"({"command":"a.py","driver_cores":1,"monitoring":{"enabled":false},
                          "restart_policy":{"type":"OnFailure","retries":1,"retry_interval":10,
                          "submission_retries":3,"submission_retry_interval":20},"preemption_mode":"none",
                          "driver_preemption_mode":"prevent","executor_preemption_mode":""})"),
           true)
          .empty())
      << "what methods of the SDK write beside what they were called for";
}

TEST(Spark, ChecksModesOfPreemptionAsTheMethodDoes) {
  const metier::Run run = run_of();
  const Function f = spark_function(R"({"command":"a.py","driver_preemption_mode":"alow"})");
  const auto refused = kind("spark").validate(Subject{.function = f, .run = &run});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().text(), "function.spec.driver_preemption_mode: 'alow' is unknown");
  EXPECT_EQ(refused.error().fix, "one of allow, constrain, prevent, none");
}

TEST(Spark, RolesHaveTheirOwnPlaces) {
  constexpr std::string_view kPlaces =
      R"({"command":"a.py","driver_affinity":{"nodeAffinity":{"d":1}},"executor_affinity":{"nodeAffinity":{"e":1}},
      "driver_tolerations":[{"key":"d"}],"volumes":[{"name":"v","emptyDir":{}}],"volume_mounts":[{"name":"v","mountPath":"/v"}],
      "executor_volume_mounts":[{"name":"v","mountPath":"/e"}]})";
  EXPECT_EQ(application_text(kPlaces, "driver.affinity"), R"({"nodeAffinity":{"d":1}})");
  EXPECT_EQ(application_text(kPlaces, "executor.affinity"), R"({"nodeAffinity":{"e":1}})");
  EXPECT_EQ(application_text(kPlaces, "driver.tolerations"), R"([{"key":"d"}])");
  EXPECT_EQ(application_text(kPlaces, "executor.tolerations"), "absent");
  EXPECT_EQ(application_text(kPlaces, "executor.volumeMounts"),
            R"([{"name":"v","mountPath":"/v"},{"name":"v","mountPath":"/e"}])");
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
