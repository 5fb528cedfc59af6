// Queue, ends and the conformance suite of the embedded cluster.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cluster/controllers/pod_group.h"
#include "cluster/testing/embedded_node.h"

namespace metier {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Pair;

TEST(EmbeddedCluster, QueuesWhatDoesNotFitAndSaysWhy) {
  Node node;
  ASSERT_TRUE(node.apply({cpu_pod("first", "3"), cpu_pod("second", "2")}));
  EXPECT_EQ(node.pod("first").phase, PodPhase::running);
  EXPECT_EQ(node.pod("second").phase, PodPhase::pending);
  EXPECT_EQ(node.pod("second").reason, "InsufficientCpu");
  const auto position = node.cluster->queue_position("conformance", "second");
  ASSERT_TRUE(position);
  EXPECT_EQ(position->position, 1);
  EXPECT_EQ(position->reason, "asks for 2 of cpu; 1 of 4 is free");
  EXPECT_THAT(position->held_by, ElementsAre(Pair("first", "3")));
  node.driver.finish("first", 0);
  node.settle();
  EXPECT_EQ(node.pod("first").phase, PodPhase::succeeded);
  EXPECT_EQ(node.pod("second").phase, PodPhase::running);
  EXPECT_EQ(node.pod("second").reason, "");
  const auto health = node.run(node.cluster->probe());
  EXPECT_EQ(health->free.at("cpu").milli(), 2000);
}

TEST(EmbeddedCluster, RunsWhatSomebodyElseStored) {
  Node node;
  ASSERT_TRUE(node.run(node.store.put_if_version(conformance_pod("stored", {}),
                                                 0)));  // without a uid, as the engine may
  node.settle();
  EXPECT_EQ(node.pod("stored").phase, PodPhase::succeeded);
  ASSERT_TRUE(node.apply({conformance_pod("stored", {})}));
  EXPECT_THAT(node.driver.starts, ElementsAre("stored"));
}

TEST(EmbeddedCluster, RefusesWhatItCannotDoByName) {
  Node node;
  const auto admit = [&](Resource resource) {
    return node.run(node.cluster->admit(std::span(&resource, 1)));
  };
  EXPECT_EQ(admit(pod_with("v", "{}",
                           R"({"volumes":[{"name":"v","flexVolume":{"driver":"v3io/fuse"}}]})"))
                ->reason,
            "volume 'v': type 'flexVolume' is not supported on the embedded cluster");
  EXPECT_EQ(admit(object_of("kubeflow.org/v1", "MPIJob", "m", "{}"))->reason,
            "the embedded cluster has no controller for MPIJob (kubeflow.org/v1)");
  EXPECT_EQ(admit(pod_with("g", R"({"resources":{"limits":{"nvidia.com/gpu":1}}})"))->reason,
            "g asks for 1 of nvidia.com/gpu; this node has none");
  EXPECT_FALSE(admit(pod_with("bad", R"({"env":{"a":1}})")));
  const auto warned = admit(pod_with(
      "w", "{}",
      R"({"nodeSelector":{"a":"b"},"serviceAccountName":"robot","priorityClassName":"high","tolerations":[{}]})"));
  ASSERT_EQ(warned->verdict, Admission::Verdict::ok);
  EXPECT_EQ(warned->warnings.size(), 4U);
  EXPECT_EQ(warned->warnings[0].message,
            "spec.nodeSelector has no effect on the embedded cluster: there is one node");
}

TEST(EmbeddedCluster, SaysOnThePodWhatHasNoEffect) {
  Node node;
  ASSERT_TRUE(node.apply(
      {pod_with("w", "{}", R"({"nodeSelector":{"a":"b"},"serviceAccountName":"robot"})")}));
  const auto conditions = node.pod("w").conditions;
  const auto ignored = std::ranges::find(conditions, "FieldIgnored", &Condition::type);
  ASSERT_NE(ignored, conditions.end());
  EXPECT_THAT(ignored->message, HasSubstr("spec.nodeSelector has no effect"));
  EXPECT_THAT(ignored->message, HasSubstr("'robot'"));
}

TEST(EmbeddedCluster, RefusesAGangThatTogetherCanNeverFit) {
  Node node;
  const auto resource = task_set("set", 3, true, kForever, "2");
  const auto verdict = node.run(node.cluster->admit(std::span(&resource, 1)));
  EXPECT_EQ(verdict->verdict, Admission::Verdict::never_fits);
  EXPECT_EQ(verdict->reason, "the gang set of 3 pods together asks for 6 of cpu; this node has 4");
  EXPECT_TRUE(verdict->fix.starts_with("2 of them fit together")) << verdict->fix;
}

TEST(EmbeddedCluster, TheQueueGoesByPriorityClass) {
  Node node([](EmbeddedOptions& options) { options.priorities = {{"low", -1}, {"high", 1}}; });
  const auto of_class = [](const std::string& name, const std::string& priority) {
    return pod_with(name, R"({"resources":{"requests":{"cpu":"4"}}})",
                    priority.empty() ? "{}" : R"({"priorityClassName":")" + priority + "\"}");
  };
  ASSERT_TRUE(node.apply({of_class("first", "")}));
  ASSERT_TRUE(node.apply({of_class("low", "low"), of_class("none", ""), of_class("high", "high")}));
  for (const std::string next : {"high", "none", "low"}) {
    EXPECT_EQ(node.pod(next).phase, PodPhase::pending);
    node.driver.finish(next == "high" ? "first" : next == "none" ? "high" : "none", 0);
    node.settle();
    EXPECT_EQ(node.pod(next).phase, PodPhase::running) << next;
  }
  const auto unknown = of_class("unknown", "urgent");
  const auto verdict = node.run(node.cluster->admit(std::span(&unknown, 1)));
  ASSERT_EQ(verdict->warnings.size(), 1U);
  EXPECT_EQ(verdict->warnings[0].message,
            "spec.priorityClassName has no effect on the embedded cluster: 'urgent' is not one of "
            "the server's priority classes, which are high, low");
}

TEST(EmbeddedCluster, AssignsGpusByNumberAndHidesTheOthers) {
  Node node([](EmbeddedOptions& options) { options.host.devices["nvidia.com/gpu"] = {0, 1, 2}; });
  ASSERT_TRUE(node.apply({pod_with("one", R"({"resources":{"limits":{"nvidia.com/gpu":1}}})"),
                          pod_with("two", R"({"resources":{"limits":{"nvidia.com/gpu":2}}})"),
                          pod_with("none", "{}")}));
  EXPECT_EQ(env_of(node.driver, "one").at("CUDA_VISIBLE_DEVICES"), "0");
  EXPECT_EQ(env_of(node.driver, "two").at("NVIDIA_VISIBLE_DEVICES"), "1,2");
  EXPECT_EQ(env_of(node.driver, "none").at("CUDA_VISIBLE_DEVICES"), "");
  node.restart();
  ASSERT_TRUE(node.apply({pod_with("three", R"({"resources":{"limits":{"nvidia.com/gpu":1}}})")}));
  EXPECT_EQ(node.pod("three").reason,
            "InsufficientGpu");  // it knows after a restart which are given away
  node.driver.finish("one", 0);
  node.settle();
  EXPECT_EQ(env_of(node.driver, "three").at("CUDA_VISIBLE_DEVICES"), "0");
}

TEST(EmbeddedCluster, ReportsAFailedStartByItsCauseAndFreesWhatItHeld) {
  Node node;
  node.driver.fail_start = [](const LaunchSpec&) {
    return Error{.kind = ErrorKind::invalid,
                 .message = "no such program",
                 .field = {},
                 .fix = {},
                 .code = "ImageUnknown"};
  };
  ASSERT_TRUE(node.apply({cpu_pod("bad", "4")}));
  EXPECT_EQ(node.pod("bad").phase, PodPhase::failed);
  EXPECT_EQ(node.pod("bad").reason, "ImageUnknown");
  EXPECT_EQ(node.run(node.cluster->probe())->free.at("cpu").milli(), 4000);
}

TEST(EmbeddedCluster, StopsAPodAtItsDeadline) {
  Node node;
  ASSERT_TRUE(node.apply({pod_with("slow", "{}", R"({"activeDeadlineSeconds":10})")}));
  node.advance(std::chrono::seconds(9));
  EXPECT_EQ(node.pod("slow").phase, PodPhase::running);
  node.advance(std::chrono::seconds(1));
  EXPECT_EQ(node.pod("slow").phase, PodPhase::failed);
  EXPECT_EQ(node.pod("slow").reason, "DeadlineExceeded");
}

TEST(EmbeddedCluster, StopsPodsAtEveryStage) {
  Node node;
  const auto stop = [&](const std::string& name) {
    ASSERT_TRUE(
        node.run(node.cluster->stop({.name_space = "conformance", .kind = "Pod", .name = name},
                                    {.how = StopOptions::How::graceful,
                                     .grace = {},
                                     .reason = "AbortedByUser",
                                     .message = {}})));
    node.settle();
  };
  ASSERT_TRUE(node.apply({cpu_pod("runs", "4"), cpu_pod("queued", "1")}));
  stop("queued");
  EXPECT_EQ(node.pod("queued").reason, "AbortedByUser");
  stop("runs");
  EXPECT_EQ(node.pod("runs").reason, "AbortedByUser");
  node.driver.hold_starts(true);
  ASSERT_TRUE(node.apply({cpu_pod("starting", "4")}));
  stop("starting");
  EXPECT_EQ(node.pod("starting").phase, PodPhase::pending);
  node.driver.hold_starts(false);
  node.settle();
  EXPECT_EQ(node.pod("starting").reason, "AbortedByUser");
  EXPECT_EQ(node.run(node.cluster->probe())->free.at("cpu").milli(), 4000);
}

TEST(EmbeddedCluster, RemovesEveryTrace) {
  Node node;
  node.driver.hold_starts(true);
  ASSERT_TRUE(node.apply({cpu_pod("starting", "1"), cpu_pod("queued", "4")}));
  node.remove({.name_space = "conformance", .kind = "Pod"});
  node.driver.hold_starts(false);
  node.settle();
  ASSERT_TRUE(node.apply({cpu_pod("runs", "4"), cpu_pod("ended", "4", {})}));
  node.driver.finish("runs", 0);
  node.settle();
  node.remove({.name_space = "conformance", .kind = "Pod"});
  EXPECT_TRUE(node.store.list({}).empty());
  EXPECT_EQ(node.cluster->tracked(), 0U);
  EXPECT_EQ(node.driver.destroyed.size(), node.driver.starts.size());
  EXPECT_EQ(node.run(node.cluster->probe())->free.at("cpu").milli(), 4000);
}

TEST(EmbeddedCluster, ReadinessFollowsItsProbe) {
  Node node;
  bool healthy = false;
  node.driver.on_exec = [&](const std::string&, const ExecSpec&) {
    return ExecResult{.id = {}, .exit_code = healthy ? 0 : 1, .signal = 0, .output = "no"};
  };
  ASSERT_TRUE(node.apply({pod_with(
      "probed",
      R"({"readinessProbe":{"exec":{"command":["check"]},"periodSeconds":5,"failureThreshold":2}})")}));
  const auto ready = [&] { return node.pod("probed").containers.at(0).ready; };
  EXPECT_FALSE(ready());
  healthy = true;
  node.advance(std::chrono::seconds(5));
  EXPECT_TRUE(ready());
  healthy = false;
  node.advance(std::chrono::seconds(5));
  EXPECT_TRUE(ready());  // once is not twice
  node.advance(std::chrono::seconds(5));
  EXPECT_FALSE(ready());
}

TEST(EmbeddedCluster, ALivenessProbeThatGivesUpEndsThePod) {
  Node node;
  node.driver.on_exec = [](const std::string&, const ExecSpec&) {
    return ExecResult{.id = {}, .exit_code = 7, .signal = 0, .output = "stuck"};
  };
  ASSERT_TRUE(node.apply({pod_with(
      "stuck",
      R"({"livenessProbe":{"exec":{"command":["check"]},"initialDelaySeconds":5,"periodSeconds":5,"failureThreshold":3}})")}));
  for (int i = 0; i < 2; ++i) { node.advance(std::chrono::seconds(5)); }
  EXPECT_EQ(node.pod("stuck").phase, PodPhase::running);
  node.advance(std::chrono::seconds(5));
  EXPECT_EQ(node.pod("stuck").phase, PodPhase::failed);
  EXPECT_EQ(node.pod("stuck").reason, "Unhealthy");
  EXPECT_THAT(node.pod("stuck").message, HasSubstr("liveness probe failed 3 times"));
}

TEST(EmbeddedCluster, ALivenessProbeThatGivesUpRestartsTheContainerWhenThePolicySaysSo) {
  Node node;
  bool healthy = false;
  node.driver.on_exec = [&](const std::string&, const ExecSpec&) {
    return ExecResult{.id = {}, .exit_code = healthy ? 0 : 1, .signal = 0, .output = {}};
  };
  const std::string probe =
      R"({"livenessProbe":{"exec":{"command":["check"]},"initialDelaySeconds":5,"periodSeconds":5,"failureThreshold":1}})";
  ASSERT_TRUE(node.apply(
      {pod_with("stuck", probe, R"({"restartPolicy":"Always","terminationGracePeriodSeconds":3})",
                {.run = PodScript::Run::stubborn})}));
  node.advance(std::chrono::seconds(5));
  EXPECT_THAT(node.driver.signalled, ElementsAre(15));
  healthy = true;
  node.advance(std::chrono::seconds(3));
  EXPECT_THAT(node.driver.signalled, ElementsAre(15, 9));
  EXPECT_EQ(node.pod("stuck").containers.at(0).restarts, 1);
  node.advance(std::chrono::seconds(60));
  EXPECT_EQ(node.pod("stuck").phase, PodPhase::running);
  EXPECT_EQ(node.driver.signalled.size(), 2U);
  healthy = false;
  node.advance(std::chrono::seconds(5));
  EXPECT_EQ(node.driver.signalled.size(), 3U);  // its next life is watched as well
}

TEST(EmbeddedCluster, AFollowedLogGrowsWithoutPolling) {
  Node node;
  ASSERT_TRUE(node.apply({conformance_pod("talks", kForever)}));
  std::optional<Result<LogChunk>> chunk;
  asio::co_spawn(
      node.loop.get_executor(),
      node.cluster->logs({.name_space = "conformance", .pod = "talks"}, 0, 100,
                         std::chrono::hours(1)),
      [&](std::exception_ptr, Result<LogChunk> value) { chunk.emplace(std::move(value)); });
  node.settle();
  EXPECT_FALSE(chunk);
  node.driver.append_log("talks", "step 1\n");
  node.loop.restart();
  while (!chunk && node.loop.run_one_for(std::chrono::seconds(20)) > 0) {}
  ASSERT_TRUE(chunk);
  EXPECT_EQ((*chunk)->bytes, "step 1\n");
  EXPECT_FALSE((*chunk)->ended);
  EXPECT_EQ(
      node.run(node.cluster->logs(
                   {.name_space = "conformance", .pod = "talks", .container = "nobody"}, 0, 1, {}))
          .error()
          .kind,
      ErrorKind::not_found);
}

TEST(EmbeddedCluster, WritesTheStatusAgainWhenTheDiskRefusedIt) {
  Node node;
  ASSERT_TRUE(node.apply({conformance_pod("ends", kForever)}));
  int refused = 0;
  node.store.fail_write = [&](const ResourceKey&) -> std::optional<Error> {
    if (refused++ > 0) { return std::nullopt; }
    return Error{
        .kind = ErrorKind::unavailable, .message = "disk full", .field = {}, .fix = {}, .code = {}};
  };
  node.driver.finish("ends", 0);
  node.settle();
  EXPECT_EQ(node.pod("ends").phase, PodPhase::running);
  node.loop.restart();
  while (node.pod("ends").phase == PodPhase::running &&
         node.loop.run_one_for(std::chrono::seconds(20)) > 0) {}
  EXPECT_EQ(node.pod("ends").phase, PodPhase::succeeded);
}

TEST(EmbeddedCluster, AProbeThatDoesNotAnswerInTimeHasFailed) {
  Node node;
  node.driver.hold_execs(true);
  ASSERT_TRUE(node.apply({pod_with(
      "hangs",
      R"({"livenessProbe":{"exec":{"command":["check"]},"timeoutSeconds":2,"periodSeconds":5,"failureThreshold":1}})")}));
  node.advance(std::chrono::seconds(1));
  EXPECT_EQ(node.pod("hangs").phase, PodPhase::running);
  node.advance(std::chrono::seconds(1));
  EXPECT_EQ(node.pod("hangs").reason, "Unhealthy");
  EXPECT_THAT(node.pod("hangs").message, HasSubstr("no answer within 2 s"));
  node.driver.hold_execs(false);
  node.settle();
}

TEST(EmbeddedCluster, AProbeThatHangsFailsWithEveryPeriod) {
  Node node;
  node.driver.hold_execs(true);
  ASSERT_TRUE(node.apply({pod_with(
      "hangs",
      R"({"livenessProbe":{"exec":{"command":["check"]},"timeoutSeconds":2,"periodSeconds":5,"failureThreshold":3}})")}));
  node.advance(std::chrono::seconds(2));
  node.advance(std::chrono::seconds(5));
  EXPECT_EQ(node.pod("hangs").phase, PodPhase::running);
  node.advance(std::chrono::seconds(5));
  EXPECT_EQ(node.pod("hangs").reason, "Unhealthy");
  EXPECT_THAT(node.pod("hangs").message, HasSubstr("failed 3 times: no answer within 2 s"));
  node.driver.hold_execs(false);
  node.settle();
}

TEST(EmbeddedCluster, ARemovalThatTheStoreRefusesIsTriedAgain) {
  Node node;
  ASSERT_TRUE(node.apply({conformance_pod("ended", {})}));
  ASSERT_EQ(node.pod("ended").phase, PodPhase::succeeded);
  int refused = 0;
  node.store.fail_write = [&refused](const ResourceKey&) -> std::optional<Error> {
    if (refused > 0) { return std::nullopt; }
    ++refused;
    return Error{.kind = ErrorKind::unavailable, .message = "no space left on device"};
  };
  node.remove({.name_space = "conformance", .kind = "Pod"});
  EXPECT_EQ(refused, 1);
  EXPECT_TRUE(node.until([&] { return node.cluster->tracked() == 0U; }));
  ASSERT_TRUE(node.apply({conformance_pod("ended", {})}));
  EXPECT_EQ(node.pod("ended").phase, PodPhase::succeeded);
}

TEST(EmbeddedCluster, ManyPodsLeaveNothingBehind) {
  Node node;
  std::vector<Resource> pods;
  for (int i = 0; i < 300; ++i) { pods.push_back(cpu_pod(fmt::format("p{}", i), "500m", {})); }
  ASSERT_TRUE(node.apply(std::move(pods)));
  for (int i = 0; i < 300; ++i) {
    ASSERT_EQ(node.pod(fmt::format("p{}", i)).phase, PodPhase::succeeded);
  }
  node.remove({.name_space = "conformance", .kind = "Pod"});
  EXPECT_EQ(node.cluster->tracked(), 0U);
  EXPECT_EQ(node.driver.destroyed.size(), 300U);
}

class EmbeddedSite final : public ClusterSite {
 public:
  asio::io_context& loop() override { return node_.loop; }
  Cluster& cluster() override { return *node_.cluster; }

 private:
  Node node_;
};

INSTANTIATE_TEST_SUITE_P(EmbeddedWithFakePods, ClusterConformance,
                         testing::Values(ClusterCase{
                             "embedded", [] { return std::make_unique<EmbeddedSite>(); }}));

}  // namespace
}  // namespace metier
