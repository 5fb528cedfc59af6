#include "cluster/controllers/spark/connect_controller.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cluster/controllers/pod_group.h"
#include "cluster/controllers/spark/spark_pods.h"
#include "resource/pod.h"

namespace metier {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

Resource connect(std::string_view opener = "run-1", const Json& status = nullptr) {
  Resource out{.api_version = "metier.dev/v1",
               .kind = "SparkConnect",
               .metadata = {.name = "warm-spark-1",
                            .name_space = "p",
                            .uid = "u",
                            .labels = {{"metier.dev/shared", "warm-spark-1"}}}};
  out.body["spec"] = *parse_json(
      R"({"idle":90,"token":"warm-spark-1-spark-token","openedBy":")" + std::string(opener) +
      R"(","application":{"image":"i","sparkConf":{"spark.x":"y"},"deps":{"jars":["/a.jar"]},
      "driver":{"coreRequest":"250m","memory":"512m"},"executor":{"instances":2,"cores":2,"coreRequest":"250m","memory":"1g"}}})");
  out.status = status;
  return out;
}

Resource server(PodPhase phase, int exit_code = 0, std::int64_t incarnation = 1) {
  Resource out{.api_version = "v1",
               .kind = "Pod",
               .metadata = {.name = spark_connect_name(connect(), incarnation), .name_space = "p"}};
  out.metadata.labels = {{"metier.dev/attempt", std::to_string(incarnation)}};
  PodStatus status{.phase = phase, .pod_ip = "127.64.0.9"};
  if (is_terminal(phase)) {
    status.containers.push_back(
        {.name = "c", .state = ContainerStatus::State::terminated, .exit_code = exit_code});
  }
  out.status = to_json(status);
  return out;
}

Decision decide(const Resource& resource, std::vector<Resource> pods = {}, Time now = Time{},
                const Facts& facts = {}, std::vector<Resource> clients = {}) {
  return SparkConnectController(nullptr, "/data/spark")
      .reconcile(
          resource,
          {.pods = std::move(pods), .services = {}, .groups = {}, .clients = std::move(clients)},
          facts, now);
}

Resource client(PodPhase phase, Time started = {}) {
  Resource out{
      .api_version = "v1", .kind = "Pod", .metadata = {.name = "run-2", .name_space = "p"}};
  out.status = to_json(PodStatus{.phase = phase, .started = started});
  return out;
}

std::vector<std::string> kinds(const Decision& decision) {
  std::vector<std::string> out;
  for (const auto& one : decision.create) { out.push_back(one.kind + "/" + one.metadata.name); }
  return out;
}

std::string text(const Decision& decision, std::string_view field) {
  return decision.status ? std::string(string_at(*decision.status, field)) : "same";
}

TEST(SparkConnect, StartsOneServerOfTheWholeSize) {
  const auto decision = decide(connect());
  EXPECT_THAT(kinds(decision), ElementsAre("Service/warm-spark-1", "PodGroup/warm-spark-1",
                                           "Pod/warm-spark-1-server"));
  EXPECT_EQ(text(decision, "state"), "Starting");
  const Resource& made = decision.create[2];
  auto pod = pod_from(made);
  ASSERT_TRUE(pod) << pod.error().text();
  EXPECT_EQ(made.metadata.labels.at("metier.dev/shared"), "warm-spark-1");
  EXPECT_EQ(made.metadata.labels.at(std::string(kPodGroupLabel)), "warm-spark-1");
  EXPECT_EQ(made.metadata.labels.at("spark-role"), "connect");
  // The driver's heap and both executors', and 40 % beside it; their processors together.
  EXPECT_EQ(pod_requests(*pod).at("memory").bytes_text(), "3584Mi");
  EXPECT_EQ(pod_requests(*pod).at("cpu").cpu_text(), "750m");
  const std::string all = dump_json(made.body);
  EXPECT_TRUE(all.contains(R"(\"cores\":4)")) << all;
  EXPECT_TRUE(all.contains(R"(\"idle\":90)"));
  EXPECT_TRUE(all.contains(R"(\"spark.jars\":\"/a.jar\")"));
  EXPECT_TRUE(all.contains(R"("name":"METIER_SPARK_ARCHIVES","value":"/data/spark")"));
  EXPECT_TRUE(all.contains(R"("name":"warm-spark-1-spark-token")"));
  EXPECT_EQ(made.metadata.annotations.at(std::string(kPortsAnnotation)),
            "15002,4040=spark.ui.port");
}

TEST(SparkConnect, TheServerHasWhatTheExecutorsAloneHave) {
  auto resource = connect();
  auto& spec = resource.body["spec"].at("application").get_object();
  spec["volumes"] = *parse_json(
      R"([{"name":"both","hostPath":{"path":"/b"}},{"name":"one","hostPath":{"path":"/o"}},{"name":"none","emptyDir":{}}])");
  auto& driver = spec["driver"].get_object();
  driver["volumeMounts"] = *parse_json(R"([{"name":"both","mountPath":"/b"}])");
  driver["javaOptions"] = "-Dd=1";
  driver["gpu"] = JsonObject{{"name", "nvidia.com/gpu"}, {"quantity", 1}};
  driver["envFrom"] = *parse_json(R"([{"secretRef":{"name":"s"}}])");
  auto& executor = spec["executor"].get_object();
  executor["volumeMounts"] =
      *parse_json(R"([{"name":"both","mountPath":"/b"},{"name":"one","mountPath":"/o"}])");
  executor["javaOptions"] = "-De=1";
  executor["gpu"] = JsonObject{{"name", "nvidia.com/gpu"}, {"quantity", 1}};
  spec["sparkConf"] = JsonObject{{"spark.executor.extraClassPath", "/e.jar"},
                                 {"spark.driver.extraClassPath", "/d.jar"}};
  const Resource made = spark_connect_pod(resource, 1, "");
  const auto pod = pod_from(made);
  ASSERT_TRUE(pod) << pod.error().text();
  EXPECT_EQ(pod->volumes.size(), 2U);
  EXPECT_EQ(pod->containers[0].mounts.size(), 2U);
  EXPECT_EQ(pod->containers[0].env_from.size(), 1U);
  const std::string all = dump_json(made.body);
  EXPECT_TRUE(all.contains(R"(\"java_options\":\"-Dd=1 -De=1\")")) << all;
  EXPECT_TRUE(all.contains(R"(\"spark.driver.extraClassPath\":\"/d.jar:/e.jar\")")) << all;
  EXPECT_TRUE(all.contains(R"("nvidia.com/gpu":3)")) << "the driver's and two executors': " << all;
}

TEST(SparkConnect, RunsUntilItIsIdleAndIsOpenedAgainByTheNextRun) {
  auto resource = connect();
  auto decision = decide(resource);
  resource.status = *decision.status;
  decision = decide(resource, {server(PodPhase::running)});
  EXPECT_THAT(kinds(decision), IsEmpty());
  EXPECT_EQ(text(decision, "state"), "Starting");
  EXPECT_EQ(text(decision, "address"), "127.64.0.9");
  decision = decide(resource, {server(PodPhase::running)}, Time{},
                    *parse_json(R"({"progress":{"tasks":{"done":1}}})"));
  EXPECT_EQ(text(decision, "state"), "Running");
  EXPECT_EQ(int_in(decision.status->get_object(), "webUIPort"), 4040);
  resource.status = *decision.status;
  decision = decide(resource, {server(PodPhase::succeeded)}, Time{} + std::chrono::minutes(9));
  EXPECT_EQ(text(decision, "state"), "Closed");
  resource.status = *decision.status;
  EXPECT_THAT(kinds(decide(resource, {server(PodPhase::succeeded)})), IsEmpty());

  auto again = connect("run-2", resource.status);
  decision = decide(again, {server(PodPhase::succeeded)});
  EXPECT_EQ(decision.create.back().metadata.name, "warm-spark-1-server-2");
  EXPECT_EQ(int_in(decision.status->get_object(), "incarnation"), 2);
}

TEST(SparkConnect, AClientThatComesAsItEndsGetsAnother) {
  auto resource = connect();
  resource.status = *decide(resource, {server(PodPhase::running)}).status;
  const Time late = Time{} + std::chrono::minutes(9);
  auto joined = connect("run-2", resource.status);
  joined.status = *decide(joined, {server(PodPhase::running)}, late).status;
  EXPECT_EQ(string_at(joined.status, "openedBy"), "run-2");
  const auto decision =
      decide(joined, {server(PodPhase::succeeded)}, late + std::chrono::seconds(2));
  EXPECT_EQ(text(decision, "state"), "Starting");
  EXPECT_EQ(int_in(decision.status->get_object(), "incarnation"), 2);
  EXPECT_EQ(
      text(decide(joined, {server(PodPhase::succeeded)}, late + std::chrono::minutes(2)), "state"),
      "Closed")
      << "that one has gone";
}

TEST(SparkConnect, AClientThatIsStillInTheQueueGetsAnother) {
  const Time asked = Time{} + std::chrono::minutes(9);
  auto joined = connect("run-2");
  joined.status = *decide(connect(), {server(PodPhase::running)}).status;
  joined.status = *decide(joined, {server(PodPhase::running)}, asked).status;
  const auto after = [&](Resource one, std::chrono::minutes later) {
    return decide(joined, {server(PodPhase::succeeded)}, asked + later, {}, {std::move(one)});
  };
  const auto decision = after(client(PodPhase::pending), std::chrono::minutes(40));
  EXPECT_EQ(text(decision, "state"), "Starting");
  EXPECT_EQ(int_in(decision.status->get_object(), "incarnation"), 2);
  EXPECT_EQ(string_at(*decision.status, "openedBy"), "run-2");
  const Time just = asked + std::chrono::minutes(40) - std::chrono::seconds(3);
  EXPECT_EQ(text(after(client(PodPhase::running, just), std::chrono::minutes(40)), "state"),
            "Starting")
      << "it began as the server ended";
  EXPECT_EQ(text(after(client(PodPhase::running, asked), std::chrono::minutes(40)), "state"),
            "Closed")
      << "it was connected, and has left its session";
}

TEST(SparkConnect, ALostServerFailsItAndSaysWhy) {
  auto resource = connect();
  resource.status = *decide(resource, {server(PodPhase::running)}).status;
  auto decision = decide(resource, {server(PodPhase::failed, 5)});
  EXPECT_EQ(text(decision, "state"), "Failed");
  EXPECT_EQ(text(decision, "reason"), "EngineMissing");
  EXPECT_EQ(text(decision, "failed"), "warm-spark-1-server");
  auto taken = server(PodPhase::failed);
  taken.status.get_object()["reason"] = "PortTaken";
  taken.status.get_object()["message"] = "port 15002 is in use by process 7 (x)";
  decision = decide(resource, {taken});
  EXPECT_EQ(text(decision, "reason"), "PortTaken");
  EXPECT_EQ(text(decision, "message"),
            "the warm Spark could not start: port 15002 is in use by process 7 (x)");
  decision = decide(resource, {server(PodPhase::failed, 1)});
  EXPECT_EQ(text(decision, "reason"), "ServerLost");
  decision = decide(resource, {});
  EXPECT_EQ(text(decision, "reason"), "NodeLost");
  EXPECT_THAT(kinds(decision), IsEmpty());
}

TEST(SparkConnect, TheOldServerLeavesBeforeTheNextComes) {
  auto resource = connect("run-2");
  resource.status = *parse_json(R"({"state":"Failed","incarnation":1,"openedBy":"run-1"})");
  const auto decision = decide(resource, {server(PodPhase::running)});
  ASSERT_EQ(decision.remove.size(), 1U);
  EXPECT_EQ(decision.remove[0].name, "warm-spark-1-server");
  EXPECT_THAT(kinds(decision), IsEmpty());
  EXPECT_TRUE(decision.requeue);
}

}  // namespace
}  // namespace metier
