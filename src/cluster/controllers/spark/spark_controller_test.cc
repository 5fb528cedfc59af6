#include "cluster/controllers/spark/spark_controller.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cluster/controllers/pod_group.h"
#include "cluster/controllers/spark/spark_pods.h"
#include "cluster/controllers/spark/spark_rest.h"
#include "resource/labels.h"
#include "resource/pod.h"

namespace metier {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::IsEmpty;
using testing::Not;

Resource application(std::string_view more = "", std::string_view status = "null") {
  Resource out{
      .api_version = "sparkoperator.k8s.io/v1beta2",
      .kind = "SparkApplication",
      .metadata = {.name = "app-1", .name_space = "p", .uid = "u", .labels = {{"mlrun/uid", "r"}}}};
  const std::string spec =
      R"j({"type":"Python","image":"spark","mainApplicationFile":"local:///etc/config/mlrun/spark-function-code.py",
        "arguments":["run","--name","n","--from-env","*"],"volumes":[{"name":"script","configMap":{"name":"s"}},{"name":"data","hostPath":{"path":"/mnt"}}],
        "sparkConf":{"spark.sql.shuffle.partitions":"4","x":"a$(B)"},"deps":{"jars":["local:///a.jar","/b.jar"]},
        "driver":{"cores":1,"coreRequest":"250m","coreLimit":"2","memory":"512m","env":[{"name":"A","value":"1"}],
                  "volumeMounts":[{"name":"script","mountPath":"/etc/config/mlrun"},{"name":"data","mountPath":"/data"}],
                  "annotations":{"metier.dev/context":"/c"},"securityContext":{"runAsUser":7}},
        "executor":{"instances":2,"cores":2,"coreRequest":"250m","memory":"2g"})j";
  out.body["spec"] = parse_json(spec + std::string(more) + "}").value();
  out.status = parse_json(status).value();
  return out;
}

Decision decide(const Resource& resource, std::vector<Resource> pods = {}, Time now = Time{},
                const Facts& facts = {}) {
  return SparkController().reconcile(
      resource, {.pods = std::move(pods), .services = {}, .groups = {}}, facts, now);
}

std::vector<std::string> names(const std::vector<Resource>& resources) {
  std::vector<std::string> out;
  for (const auto& one : resources) { out.push_back(one.kind + "/" + one.metadata.name); }
  return out;
}
std::vector<std::string> names(const std::vector<ResourceKey>& keys) {
  std::vector<std::string> out;
  for (const auto& key : keys) { out.push_back(key.name); }
  return out;
}
std::string state(const Decision& decision) {
  return decision.status ? std::string(string_at(*decision.status, "applicationState.state"))
                         : "same";
}

Resource pod(std::string name, PodPhase phase, int exit_code = 0, Time finished = Time{}) {
  const auto number = name.rfind('-');
  const bool driver = name.ends_with("driver");
  Resource out{.api_version = "v1", .kind = "Pod", .metadata = {.name = name, .name_space = "p"}};
  out.metadata.labels = {{"spark-role", driver ? "driver" : "executor"},
                         {"metier.dev/attempt", name.starts_with("app-1-2-") ? "2" : "1"}};
  if (!driver) { out.metadata.labels["spark-exec-id"] = name.substr(number + 1); }
  PodStatus status{.phase = phase, .pod_ip = "127.64.0.1", .finished = finished};
  if (is_terminal(phase)) {
    status.containers.push_back({.name = "c",
                                 .state = ContainerStatus::State::terminated,
                                 .exit_code = exit_code,
                                 .finished = finished});
  }
  out.status = to_json(status);
  return out;
}

const JsonObject& container(const Resource& pod) {
  return pod.spec().at("containers").at(0).get_object();
}
std::string env_of(const Resource& pod, std::string_view name) {
  for (const auto& one : container(pod).at("env").get_array()) {
    if (string_at(one, "name") == name) { return std::string(string_at(one, "value")); }
  }
  return "none";
}

constexpr std::string_view kRunning =
    R"({"applicationState":{"state":"RUNNING"},"executionAttempts":1})";

TEST(SparkController, MakesAServiceAGangAndItsPods) {
  const auto decision = decide(application());
  EXPECT_THAT(names(decision.create),
              ElementsAre("Service/app-1-driver-svc", "PodGroup/app-1", "Pod/app-1-driver",
                          "Pod/app-1-exec-1", "Pod/app-1-exec-2"));
  EXPECT_EQ(state(decision), "") << "a waiting application is not running";
  EXPECT_EQ(int_in(decision.create[1].spec(), "minMember"), 3);
  for (std::size_t i = 2; i < 5; ++i) {
    const auto& made = decision.create[i];
    auto parsed = pod_from(made);
    ASSERT_TRUE(parsed) << parsed.error().text();
    EXPECT_EQ(made.metadata.labels.at("mlrun/uid"), "r");
    EXPECT_EQ(made.metadata.labels.at(std::string(kPodGroupLabel)), "app-1");
    EXPECT_EQ(made.metadata.owner->uid, "u");
  }
}

TEST(SparkController, BothRolesHaveTheVariablesOfTheirSources) {
  auto resource = application();
  for (const auto* role : {"driver", "executor"}) {
    resource.body["spec"].at(role).get_object()["envFrom"] =
        *parse_json(R"([{"secretRef":{"name":"s"}}])");
  }
  const SparkNames names(resource, 1);
  for (const auto& pod : {spark_driver(resource, names), spark_executor(resource, names, 1)}) {
    EXPECT_EQ(pod_from(pod)->containers.at(0).env_from.at(0).secret, "s");
  }
}

TEST(SparkController, PodsHaveThePlacesOfTheirRoles) {
  auto resource = application();
  for (const std::string role : {"driver", "executor"}) {
    auto& body = resource.body["spec"].at(role).get_object();
    body["affinity"] = JsonObject{{"nodeAffinity", JsonObject{{role, 1}}}};
    body["tolerations"] = JsonArray{JsonObject{{"key", role}}};
    body["nodeSelector"] = JsonObject{{"role", role}};
  }
  const SparkNames names(resource, 1);
  for (const auto& [pod, role] : {std::pair(spark_driver(resource, names), "driver"),
                                  std::pair(spark_executor(resource, names, 1), "executor")}) {
    const std::string name = role;
    EXPECT_EQ(dump_json(pod.spec().at("affinity")), R"({"nodeAffinity":{")" + name + R"(":1}})");
    EXPECT_EQ(dump_json(pod.spec().at("tolerations")), R"([{"key":")" + name + R"("}])");
    EXPECT_EQ(dump_json(pod.spec().at("nodeSelector")), R"({"role":")" + name + R"("})");
  }
}

TEST(SparkController, TheDriverRunsTheFunctionAndKnowsTheProperties) {
  const auto driver = spark_driver(application(), SparkNames(application(), 1));
  EXPECT_EQ(dump_json(container(driver).at("command")), R"(["mlrun"])");
  EXPECT_EQ(dump_json(container(driver).at("args")), R"(["run","--name","n","--from-env","*"])");
  EXPECT_EQ(driver.spec().at("volumes").get_array().size(), 1U)
      << "the script's volume is not needed";
  EXPECT_EQ(driver.metadata.annotations.at("metier.dev/context"), "/c");
  EXPECT_EQ(pod_from(driver)->run_as_user, 7);
  EXPECT_EQ(env_of(driver, "METIER_SPARK_DRIVER_ADDR"), "$(METIER_APP_1_DRIVER_SVC_ADDR)");
  const auto start = parse_json(env_of(driver, "METIER_SPARK"));
  ASSERT_TRUE(start);
  const auto& conf = *object_in(start->get_object(), "conf");
  EXPECT_EQ(string_in(conf, "spark.jars"), "/a.jar,/b.jar");
  EXPECT_EQ(string_in(conf, "spark.executor.instances"), "2");
  EXPECT_EQ(string_in(conf, "x"), "a$$(B)") << "no reference to a variable";
  EXPECT_EQ(pod_requests(*pod_from(driver)).at("memory").bytes_text(), "896Mi");
}

TEST(SparkController, TheDriverNeedsItsPortsAndPagesHaveTheUsersOne) {
  const auto needed = [](const Resource& of) {
    return spark_driver(of, SparkNames(of, 1))
        .metadata.annotations.at(std::string(kPortsAnnotation));
  };
  auto resource = application();
  EXPECT_EQ(needed(resource), "7078,4040=spark.ui.port");
  resource.body["spec"].at("sparkConf").get_object()["spark.ui.port"] = "5050";
  EXPECT_EQ(needed(resource), "7078,5050=spark.ui.port");
  const auto driver = spark_driver(resource, SparkNames(resource, 1));
  const auto start = parse_json(env_of(driver, "METIER_SPARK"));
  EXPECT_EQ(string_in(*object_in(start->get_object(), "conf"), "spark.ui.port"), "5050");
  const auto decision = decide(resource, {pod("app-1-driver", PodPhase::running)});
  EXPECT_EQ(*find_path(*decision.status, "driverInfo.webUIPort"), 5050);
  for (const auto* nowhere : {"0", "x", "70000"}) {  // the server must know where the pages are
    resource.body["spec"].at("sparkConf").get_object()["spark.ui.port"] = nowhere;
    EXPECT_EQ(needed(resource), "7078,4040=spark.ui.port");
  }
  resource.body["spec"].at("sparkConf").get_object()["spark.ui.enabled"] = "false";
  EXPECT_EQ(needed(resource), "7078");
  EXPECT_EQ(needed(application(R"(,"dynamicAllocation":{"enabled":true})")),
            "7078,7080,4040=spark.ui.port");
}

TEST(SparkController, AnExecutorHasItsHeapAndItsOverhead) {
  const auto resource = application();
  const auto executor = spark_executor(resource, SparkNames(resource, 1), 7);
  EXPECT_EQ(executor.metadata.name, "app-1-exec-7");
  const auto parsed = pod_from(executor);
  ASSERT_TRUE(parsed);
  EXPECT_EQ(pod_requests(*parsed).at("memory").units(), (2048LL * 14 / 10 + 1) << 20);
  EXPECT_EQ(pod_limits(*parsed).at("memory"), pod_requests(*parsed).at("memory"));
  const auto start = parse_json(env_of(executor, "METIER_SPARK"));
  EXPECT_EQ(
      dump_json(*start),
      R"({"role":"executor","app":"app-1","id":"7","cores":2,"memory":"2g","java_options":"","class_path":""})");
}

TEST(SparkController, FollowsTheDriver) {
  const auto running = pod("app-1-driver", PodPhase::running);
  auto decision = decide(
      application("", R"({"applicationState":{"state":""}})"),
      {running, pod("app-1-exec-1", PodPhase::running), pod("app-1-exec-2", PodPhase::pending)});
  EXPECT_EQ(state(decision), "RUNNING");
  EXPECT_EQ(string_at(*decision.status, "executorState.app-1-exec-2"), "PENDING");
  EXPECT_EQ(string_at(*decision.status, "driverInfo.podAddress"), "127.64.0.1");
  EXPECT_THAT(decision.create, IsEmpty());
  decision = decide(application("", kRunning), {pod("app-1-driver", PodPhase::succeeded)});
  EXPECT_EQ(state(decision), "COMPLETED");
  EXPECT_THAT(decision.create, IsEmpty());
  decision = decide(application("", kRunning), {pod("app-1-driver", PodPhase::failed, 3)});
  EXPECT_EQ(state(decision), "FAILED");
  EXPECT_EQ(string_at(*decision.status, "failedPart"), "app-1-driver");
  decision = decide(application("", kRunning), {pod("app-1-exec-1", PodPhase::running)});
  EXPECT_EQ(state(decision), "FAILED") << "its driver vanished";
  EXPECT_EQ(string_at(*decision.status, "reason"), "NodeLost");
}

TEST(SparkController, ReplacesAnExecutorThatFailed) {
  const Time now = Time{} + std::chrono::hours(1);
  std::vector pods{pod("app-1-driver", PodPhase::running), pod("app-1-exec-1", PodPhase::running),
                   pod("app-1-exec-2", PodPhase::failed, 137, now)};
  EXPECT_THAT(names(decide(application("", kRunning), pods, now).create),
              ElementsAre("Pod/app-1-exec-3"))
      << "the first failure is replaced at once";
  pods.push_back(pod("app-1-exec-3", PodPhase::failed, 137, now));
  auto decision = decide(application("", kRunning), pods, now);
  EXPECT_THAT(decision.create, IsEmpty()) << "the second one waits";
  ASSERT_TRUE(decision.requeue);
  EXPECT_THAT(names(decide(application("", kRunning), pods, now + *decision.requeue).create),
              ElementsAre("Pod/app-1-exec-4"));
  pods.push_back(pod("app-1-exec-4", PodPhase::failed, 137, now));
  pods.push_back(pod("app-1-exec-5", PodPhase::failed, 137, now));
  decision = decide(application("", kRunning), pods, now + std::chrono::hours(1));
  EXPECT_EQ(state(decision), "FAILED") << "twice the executors";
  EXPECT_EQ(string_at(*decision.status, "reason"), "ExecutorsFailed");
  EXPECT_EQ(string_at(*decision.status, "failedPart"), "app-1-exec-2");
  EXPECT_EQ(string_at(*decision.status, "applicationState.errorMessage"),
            "4 executors failed, the first: exit code 137");
  EXPECT_THAT(names(decision.remove), ElementsAre("app-1-exec-1", "app-1-driver"));
}

TEST(SparkController, ExecutorsThatLeftWithTheirSessionAreReplacedForTheNextOneOnly) {
  const Time now = Time{} + std::chrono::hours(1);
  const std::vector pods{pod("app-1-driver", PodPhase::running),
                         pod("app-1-exec-1", PodPhase::succeeded, 0, now),
                         pod("app-1-exec-2", PodPhase::succeeded, 0, now)};
  const Time later = now + std::chrono::minutes(1);
  const Facts silent = JsonObject{};  // the driver was asked, no session answered
  auto decision = decide(application("", kRunning), pods, later, silent);
  EXPECT_THAT(decision.create, IsEmpty()) << "its program goes on without a session";
  EXPECT_TRUE(decision.requeue);
  const Facts session = JsonObject{{"progress", JsonObject{{"app", "a"}}}};
  decision = decide(application("", kRunning), pods, later, session);
  EXPECT_THAT(names(decision.create), ElementsAre("Pod/app-1-exec-3", "Pod/app-1-exec-4"));
  auto blind = application("", kRunning);
  ensure_object(ensure_object(blind.body, "spec"), "sparkConf")["spark.ui.enabled"] = "false";
  decision = decide(blind, pods, later, silent);
  EXPECT_EQ(decision.create.size(), 2U) << "nobody can tell whether there is a session";
}

TEST(SparkController, NamesThePartThatWasKilledOrLost) {
  const auto said = [](std::string_view role, std::string reason, std::string message) {
    std::vector pods{pod("app-1-driver", PodPhase::running),
                     pod("app-1-exec-1", PodPhase::running)};
    auto& lost = pods[role == "driver" ? 0 : 1];
    lost.status = to_json(PodStatus{
        .phase = PodPhase::failed, .reason = std::move(reason), .message = std::move(message)});
    auto resource = application("", kRunning);
    resource.body["spec"].get_object()["sparkConf"] =
        JsonObject{{"spark.executor.maxNumFailures", "1"}};
    auto decision = decide(resource, pods);
    return std::string(string_at(*decision.status, "applicationState.errorMessage"));
  };
  EXPECT_EQ(said("driver", "Killed(SIGKILL)", ""),
            "the driver pod app-1-driver was killed by SIGKILL");
  EXPECT_EQ(said("driver", "OOMKilled", "it used more memory than its limit"),
            "the driver pod app-1-driver was killed: it used more memory than its limit");
  EXPECT_EQ(said("driver", "ShimLost", "nobody knows"),
            "the driver pod app-1-driver was lost: nobody knows");
  EXPECT_EQ(said("driver", "PortTaken", "port 7078 is in use"), "port 7078 is in use");
  EXPECT_EQ(said("executor", "Killed(SIGSEGV)", "core dumped"),
            "1 executor failed: pod app-1-exec-1 was killed by SIGSEGV");
}

TEST(SparkController, GivesExecutorsTimeToLeaveThenRemovesThem) {
  const Time ended = Time{} + std::chrono::hours(1);
  const auto done =
      application("", R"({"applicationState":{"state":"COMPLETED"},"terminationTime":")" +
                          to_iso(ended) + "\"}");
  const std::vector pods{pod("app-1-driver", PodPhase::succeeded),
                         pod("app-1-exec-1", PodPhase::succeeded),
                         pod("app-1-exec-2", PodPhase::running)};
  auto decision = decide(done, pods, ended);
  EXPECT_THAT(decision.remove, IsEmpty());
  ASSERT_TRUE(decision.requeue);
  decision = decide(done, pods, ended + *decision.requeue);
  EXPECT_THAT(names(decision.remove), ElementsAre("app-1-exec-2"));
}

TEST(SparkController, RecordedClassesBecomeArchivesAfterTheEnd) {
  const Time end = *from_iso("2026-01-01T00:00:00+00:00");
  auto done = application(
      "", R"({"applicationState":{"state":"COMPLETED"},"terminationTime":")" + to_iso(end) + "\"}");
  JsonObject& spec = done.body["spec"].get_object();
  spec["volumes"] = parse_json(R"([{"name":"jars","hostPath":{"path":"/jars"}},
                                   {"name":"key","secret":{"secretName":"k"}}])")
                        .value();
  spec["executor"].get_object()["volumeMounts"] =
      parse_json(R"([{"name":"jars","mountPath":"/jars"},{"name":"key","mountPath":"/key"}])")
          .value();
  const Facts recorded = JsonObject{{"recorded", true}};
  const auto early = decide(done, {}, end, recorded);
  EXPECT_THAT(names(early.follow), IsEmpty());
  EXPECT_EQ(early.requeue, std::chrono::seconds(5)) << "its executors leave and record first";
  const Time later = end + std::chrono::seconds(6);
  const auto made = decide(done, {}, later, recorded);
  ASSERT_THAT(names(made.follow), ElementsAre("Pod/app-1-archiver"));
  const Resource& archiver = made.follow.front();
  EXPECT_FALSE(archiver.metadata.labels.contains("mlrun/uid")) << "it is no part of the run";
  EXPECT_EQ(env_of(archiver, "A"), "none");
  EXPECT_FALSE(container(archiver).contains("resources")) << "whoever asks for room goes before it";
  EXPECT_EQ(dump_json(container(archiver).at("volumeMounts")),
            R"([{"name":"jars","mountPath":"/jars"}])")
      << "the class path may be there, a secret is not";
  EXPECT_EQ(archiver.spec().at("volumes").get_array().size(), 1U);
  EXPECT_TRUE(archiver.metadata.owner) << "it goes with its application";
  EXPECT_THAT(names(decide(done, {archiver}, later, recorded).follow), IsEmpty());
  EXPECT_THAT(names(decide(done, {}, later).follow), IsEmpty()) << "no list";
  EXPECT_THAT(names(decide(done, {}, end + std::chrono::seconds(61), recorded).follow), IsEmpty())
      << "a server that comes back does not begin with old applications";
}

TEST(SparkController, RunsAgainByItsRestartPolicy) {
  const std::string_view kPolicy =
      R"(,"restartPolicy":{"type":"OnFailure","onFailureRetries":1,"onFailureRetryInterval":30})";
  const Time now = Time{} + std::chrono::hours(1);
  auto decision =
      decide(application(kPolicy, kRunning), {pod("app-1-driver", PodPhase::failed, 1)}, now);
  EXPECT_EQ(state(decision), "PENDING_RERUN");
  auto waiting = application(kPolicy);
  waiting.status = *decision.status;
  const std::vector old{pod("app-1-driver", PodPhase::failed, 1),
                        pod("app-1-exec-1", PodPhase::running)};
  decision = decide(waiting, old, now);
  EXPECT_FALSE(decision.status);
  EXPECT_THAT(names(decision.remove), ElementsAre("app-1-exec-1"));
  decision = decide(waiting, old, now + std::chrono::seconds(31));
  EXPECT_EQ(state(decision), "");
  auto second = application(kPolicy);
  second.status = *decision.status;
  decision = decide(second, old, now + std::chrono::seconds(31));
  EXPECT_THAT(names(decision.create), Contains("Pod/app-1-2-driver"));
  second.status = *decision.status;
  auto failed_again = second;
  failed_again.status.get_object()["applicationState"] = JsonObject{{"state", "RUNNING"}};
  decision = decide(failed_again, {pod("app-1-2-driver", PodPhase::failed, 1)}, now);
  EXPECT_EQ(state(decision), "FAILED") << "one retry only";
  auto stopped = application(kPolicy, kRunning);
  stopped.metadata.annotations[std::string(kStoppedAnnotation)] = "AbortedByUser";
  EXPECT_EQ(state(decide(stopped, {pod("app-1-driver", PodPhase::failed, 143)})), "FAILED");
}

TEST(SparkController, GivesSparkTheExecutorsThatItWants) {
  auto resource = application(
      R"(,"dynamicAllocation":{"enabled":true,"minExecutors":1,"maxExecutors":3})", kRunning);
  EXPECT_EQ(spark_size(resource).initial, 1);
  const std::vector pods{pod("app-1-driver", PodPhase::running),
                         pod("app-1-exec-1", PodPhase::running)};
  const auto wishes = [](std::string_view text) {
    return Facts(JsonObject{{"wishes", *parse_json(text)}});
  };
  EXPECT_THAT(decide(resource, pods).create, IsEmpty()) << "Spark has said nothing yet";
  auto decision = decide(resource, pods, Time{}, wishes(R"({"total":9,"dismissed":[]})"));
  EXPECT_THAT(names(decision.create), ElementsAre("Pod/app-1-exec-2", "Pod/app-1-exec-3"))
      << "never more than the most";
  EXPECT_EQ(find_path(*decision.status, "executorsWanted")->get_int64(), 3);
  resource.status = *decision.status;
  auto three = pods;
  three.push_back(pod("app-1-exec-2", PodPhase::running));
  three.push_back(pod("app-1-exec-3", PodPhase::running));
  decision = decide(resource, three, Time{}, wishes(R"({"total":1,"dismissed":["2","3","77"]})"));
  EXPECT_THAT(names(decision.remove), ElementsAre("app-1-exec-2", "app-1-exec-3"));
  resource.status = *decision.status;
  decision = decide(resource, pods, Time{}, wishes(R"({"total":2,"dismissed":["2","3"]})"));
  EXPECT_THAT(names(decision.create), ElementsAre("Pod/app-1-exec-4"))
      << "a number is never used twice";
}

TEST(SparkController, StartsAProgramOfItsOwn) {
  auto resource = application();
  auto& spec = resource.body["spec"].get_object();
  spec["type"] = "Scala";
  spec["mainClass"] = "org.example.Main";
  spec["mainApplicationFile"] = "local:///jars/main.jar";
  spec["arguments"] = JsonArray{"a$b"};
  const auto driver = spark_driver(resource, SparkNames(resource, 1));
  EXPECT_EQ(dump_json(container(driver).at("args")),
            R"(["-m","metier_runner.spark","driver","/jars/main.jar","a$$b"])");
  EXPECT_EQ(pod_requests(*pod_from(driver)).at("memory").bytes_text(), "896Mi");
  EXPECT_EQ(string_at(*parse_json(env_of(driver, "METIER_SPARK")), "main_class"),
            "org.example.Main");
}

TEST(SparkController, ReadsProgressFromSparksDocuments) {
  const auto progress = spark_progress(
      "app-7", *parse_json(R"([{"status":"SUCCEEDED"},{"status":"RUNNING"}])"),
      *parse_json(
          R"([{"status":"ACTIVE","numTasks":8,"numActiveTasks":2,"numCompleteTasks":3,"numFailedTasks":1},
             {"status":"COMPLETE","numTasks":4,"numCompleteTasks":4},{"status":"SKIPPED","numTasks":9}])"),
      *parse_json(R"([{"id":"driver"},{"id":"1"},{"id":"2"}])"));
  EXPECT_EQ(
      dump_json(progress),
      R"({"app":"app-7","jobs":{"running":1,"done":1,"failed":0},"stages":{"running":1,"done":1,"failed":0},)"
      R"("tasks":{"active":2,"done":7,"failed":1,"total":12},"executors":2})");
}

}  // namespace
}  // namespace metier
