// Controllers and gangs of the embedded cluster.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cluster/controllers/pod_group.h"
#include "cluster/controllers/spark/connect_controller.h"
#include "cluster/testing/embedded_node.h"

namespace metier {
namespace {

using testing::HasSubstr;
using testing::UnorderedElementsAre;

std::string state_of(Node& node, const std::string& name) {
  const auto object =
      node.store.get({.name_space = "conformance", .kind = "TaskSet", .name = name});
  return object ? std::string(string_at(object->status, "state")) : "gone";
}

// Holds three processors until others want them; looks by itself once an hour.
class GivingController final : public Controller {
 public:
  std::string_view api_version() const override { return "metier.dev/v1"; }
  std::string_view kind() const override { return "Giver"; }
  Async<Result<Facts>> gather(const Resource&) override { co_return Facts(); }
  Async<Result<void>> before_stop(const Resource&) override { co_return Result<void>{}; }
  bool gives_room() const override { return true; }
  Decision reconcile(const Resource& resource, const Snapshot& snapshot, const Facts&,
                     Time) const override {
    Decision out;
    out.requeue = std::chrono::hours(1);
    const bool closed = string_at(resource.status, "state") == "Closed" || snapshot.room_wanted;
    if (closed) { out.status = JsonObject{{"state", "Closed"}}; }
    for (const Resource& pod : snapshot.pods) {
      if (closed) { out.remove.push_back(key_of(pod)); }
    }
    if (!closed && snapshot.pods.empty()) {
      out.create.push_back(cpu_pod(resource.metadata.name + "-0", "3"));
    }
    return out;
  }
};

TEST(EmbeddedCluster, WhoGivesRoomIsAskedAsSoonAsOthersWaitForIt) {
  Node node([](EmbeddedOptions& options) {
    options.controllers.push_back(std::make_shared<GivingController>());
  });
  ASSERT_TRUE(node.apply({object_of("metier.dev/v1", "Giver", "idle", "{}")}));
  ASSERT_THAT(node.driver.starts, UnorderedElementsAre("idle-0"));
  ASSERT_TRUE(node.apply({task_set("small", 1, false, kForever)}));  // fits beside it
  EXPECT_EQ(node.pod("idle-0").phase, PodPhase::running);
  ASSERT_TRUE(node.apply({task_set("set", 2, true, kForever)}));
  EXPECT_EQ(node.pod("idle-0").phase, PodPhase::unknown);
  EXPECT_EQ(state_of(node, "set"), "Running");
}

// Wants a pod, and another one after its end.
class FollowingController final : public Controller {
 public:
  std::string_view api_version() const override { return "metier.dev/v1"; }
  std::string_view kind() const override { return "Follower"; }
  Async<Result<Facts>> gather(const Resource&) override { co_return Facts(); }
  Async<Result<void>> before_stop(const Resource&) override { co_return Result<void>{}; }
  Decision reconcile(const Resource& resource, const Snapshot&, const Facts&, Time) const override {
    Decision out;
    out.create.push_back(cpu_pod(resource.metadata.name + "-0", "1"));
    out.follow.push_back(cpu_pod(resource.metadata.name + "-after", "1"));
    return out;
  }
};

TEST(EmbeddedCluster, WhatFollowsAResourceIsMadeAlsoWhenItWasStopped) {
  Node node([](EmbeddedOptions& options) {
    options.controllers.push_back(std::make_shared<FollowingController>());
  });
  auto stopped = object_of("metier.dev/v1", "Follower", "done", "{}");
  stopped.metadata.annotations[std::string(kStoppedAnnotation)] = "RunEnded";
  ASSERT_TRUE(node.apply({stopped}));
  EXPECT_THAT(node.driver.starts, UnorderedElementsAre("done-after"));
  node.remove({.name_space = "conformance", .kind = "Follower", .name = "done"});
  EXPECT_TRUE(node.store.list({}).empty());
}

// A warm Spark whose server runs until it is told to end.
class LongSparkConnect final : public Controller {
 public:
  std::string_view api_version() const override { return real_.api_version(); }
  std::string_view kind() const override { return real_.kind(); }
  Async<Result<Facts>> gather(const Resource& resource) override { return real_.gather(resource); }
  Async<Result<void>> before_stop(const Resource& pod) override { return real_.before_stop(pod); }
  Decision reconcile(const Resource& resource, const Snapshot& snapshot, const Facts& facts,
                     Time now) const override {
    Decision out = real_.reconcile(resource, snapshot, facts, now);
    for (Resource& made : out.create) {
      if (made.kind == "Pod") {
        made.metadata.annotations.merge(cpu_pod("any", "1", kForever).metadata.annotations);
      }
    }
    return out;
  }

 private:
  SparkConnectController real_;
};

TEST(EmbeddedCluster, AWarmSparkThatEndsIdleComesBackForAClientInTheQueue) {
  Node node([](EmbeddedOptions& options) {
    options.controllers.push_back(std::make_shared<LongSparkConnect>());
  });
  const auto client = [](const std::string& name, const std::string& cpu) {
    Resource pod = cpu_pod(name, cpu);
    pod.metadata.labels[std::string(kPodGroupLabel)] = "warm";
    return pod;
  };
  const auto connect = [](const std::string& opener) {
    return object_of("metier.dev/v1", "SparkConnect", "warm",
                     R"({"spec":{"idle":9,"token":"t","openedBy":")" + opener +
                         R"(","application":{"driver":{"coreRequest":"250m","memory":"8m"},
            "executor":{"instances":1,"coreRequest":"250m","memory":"8m"}}}})");
  };
  ASSERT_TRUE(node.apply({object_of("v1", "Secret", "t", R"({"stringData":{"token":"x"}})"),
                          connect("first"), client("first", "1")}));
  ASSERT_EQ(node.pod("warm-server").phase, PodPhase::running);
  ASSERT_TRUE(node.apply({cpu_pod("other", "2500m"), connect("second"), client("second", "2")}));
  node.driver.finish("first", 0);
  node.settle();
  node.clock.advance(std::chrono::minutes(1));
  node.driver.finish("warm-server", 0);
  node.settle();
  EXPECT_EQ(node.pod("second").phase, PodPhase::pending);
  EXPECT_EQ(node.pod("warm-server-2").phase, PodPhase::pending) << "it waits with its client";
  node.driver.finish("other", 0);
  node.settle();
  EXPECT_EQ(node.pod("warm-server-2").phase, PodPhase::running);
  EXPECT_EQ(node.pod("second").phase, PodPhase::running);
  node.driver.finish("second", 0);
  node.settle();
  node.clock.advance(std::chrono::minutes(1));
  node.driver.finish("warm-server-2", 0);
  node.settle();
  const auto seen =
      node.store.get({.name_space = "conformance", .kind = "SparkConnect", .name = "warm"});
  EXPECT_EQ(string_at(seen->status, "state"), "Closed");
}

TEST(EmbeddedCluster, ATaskSetIsDoneWhenAllItsPodsAre) {
  Node node;
  ASSERT_TRUE(node.apply({task_set("set", 3, false, kForever)}));
  EXPECT_EQ(state_of(node, "set"), "Running");
  EXPECT_THAT(node.driver.starts, UnorderedElementsAre("set-0", "set-1", "set-2"));
  for (const auto* pod : {"set-0", "set-1", "set-2"}) { node.driver.finish(pod, 0); }
  node.settle();
  EXPECT_EQ(state_of(node, "set"), "Succeeded");
  node.remove({.name_space = "conformance", .kind = "TaskSet", .name = "set"});
  EXPECT_TRUE(node.store.list({}).empty());
  EXPECT_EQ(node.cluster->tracked(), 0U);
}

TEST(EmbeddedCluster, AFailedTaskEndsTheSetWithItsCause) {
  Node node;
  ASSERT_TRUE(node.apply({task_set("set", 3, false, kForever)}));
  node.driver.kill("set-1", "OOMKilled");
  node.settle();
  EXPECT_EQ(state_of(node, "set"), "Failed");
  const auto object =
      node.store.get({.name_space = "conformance", .kind = "TaskSet", .name = "set"});
  EXPECT_EQ(string_at(object->status, "reason"), "OOMKilled");
  EXPECT_EQ(node.run(node.cluster->probe())->free.at("cpu").milli(), 4000);
}

TEST(EmbeddedCluster, AStoppedSetMakesNoMorePodsAndARemovedOneLeavesNothing) {
  Node node;
  ASSERT_TRUE(node.apply({task_set("set", 2, false, kForever)}));
  ASSERT_TRUE(node.run(node.cluster->stop(
      {.name_space = "conformance", .kind = "TaskSet", .name = "set"},
      {.how = StopOptions::How::graceful, .grace = {}, .reason = "AbortedByUser", .message = {}})));
  node.settle();
  EXPECT_EQ(node.driver.starts.size(), 2U);
  EXPECT_EQ(node.pod("set-0").reason, "AbortedByUser");
  ASSERT_TRUE(node.apply({task_set("other", 2, true, kForever)}));
  node.remove({.name_space = "conformance", .kind = "TaskSet"});
  EXPECT_TRUE(node.store.list({}).empty()) << key_of(node.store.list({}).front()).text();
  EXPECT_EQ(node.driver.destroyed.size(), 4U);
}

TEST(EmbeddedCluster, TwoGangsRunOneAfterTheOther) {
  Node node;
  ASSERT_TRUE(node.apply({task_set("a", 3, true, kForever), task_set("b", 3, true, kForever)}));
  EXPECT_EQ(node.driver.starts.size(), 3U);
  EXPECT_EQ(state_of(node, "b"), "Waiting");
  EXPECT_TRUE(node.driver.launched("a-0").pod_ip.starts_with("127."));
  EXPECT_EQ(node.driver.launched("a-0").share_group, "conformance.a");
  EXPECT_THAT(node.driver.launched("a-0").hosts,
              HasSubstr(node.driver.launched("a-2").pod_ip + " a-2"));
  for (const auto* pod : {"a-0", "a-1", "a-2"}) { node.driver.finish(pod, 0); }
  node.settle();
  EXPECT_EQ(state_of(node, "a"), "Succeeded");
  EXPECT_EQ(node.driver.starts.size(), 6U);
}

TEST(EmbeddedCluster, WhenTheKthMemberFailsToStartNothingOfTheGangRuns) {
  for (int k = 0; k < 3; ++k) {
    Node node;
    node.driver.fail_start = [k](const LaunchSpec& spec) -> std::optional<Error> {
      if (spec.pod.metadata.name != fmt::format("gang-{}", k)) { return std::nullopt; }
      return Error{.kind = ErrorKind::internal,
                   .message = "fork refused",
                   .field = {},
                   .fix = {},
                   .code = "StartFailed"};
    };
    ASSERT_TRUE(node.apply({task_set("gang", 3, true, kForever)}));
    EXPECT_EQ(state_of(node, "gang"), "Failed") << k;
    const auto object =
        node.store.get({.name_space = "conformance", .kind = "TaskSet", .name = "gang"});
    EXPECT_THAT(string_at(object->status, "message"), HasSubstr(fmt::format("gang-{}", k)));
    EXPECT_EQ(node.run(node.cluster->probe())->free.at("cpu").milli(), 4000);
    for (int i = 0; i < 3; ++i) {
      const auto phase = node.pod(fmt::format("gang-{}", i)).phase;
      EXPECT_TRUE(phase == PodPhase::failed || phase == PodPhase::unknown) << i;
    }
  }
}

TEST(EmbeddedCluster, AGangThatWasHalfStartedIsCompletedAfterARestart) {
  Node node;
  node.driver.hold_starts(true);
  ASSERT_TRUE(node.apply({task_set("gang", 3, true, kForever)}));
  node.shut();  // all were placed durably, none has started
  node.driver.hold_starts(false);
  node.settle();
  node.driver.forget();
  const auto before = node.driver.starts.size();
  node.store.put([] {
    auto pod = cpu_pod("greedy", "2");
    pod.metadata.uid = "greedy-uid";
    return pod;
  }());
  node.boot();
  node.settle();
  EXPECT_EQ(node.pod("greedy").phase, PodPhase::pending);  // it cannot take a member's place
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(node.pod(fmt::format("gang-{}", i)).phase, PodPhase::running) << i;
  }
  EXPECT_EQ(node.driver.starts.size(), 3U) << before;
}

TEST(EmbeddedCluster, RemovingByLabelTakesOwnerAndPodsAndMakesNoNewOnes) {
  Node node;
  auto set = task_set("set", 8, false, kForever);  // four run, four wait
  set.metadata.labels["mlrun/uid"] = "u1";
  ASSERT_TRUE(node.apply({set}));
  node.remove({.name_space = "conformance", .labels = {{"mlrun/uid", "u1"}}});
  EXPECT_TRUE(node.store.list({}).empty());
  EXPECT_EQ(node.driver.starts.size(), 4U);
  EXPECT_EQ(node.cluster->tracked(), 0U);
}

TEST(EmbeddedCluster, StoppingByLabelEndsOwnerAndPodsOnce) {
  Node node;
  auto set = task_set("set", 2, false, kForever);
  set.metadata.labels["mlrun/uid"] = "u1";
  ASSERT_TRUE(node.apply({set}));
  ASSERT_TRUE(node.run(
      node.cluster->stop({.name_space = "conformance", .labels = {{"mlrun/uid", "u1"}}}, {})));
  node.settle();
  EXPECT_EQ(node.driver.stops.size(), 2U);
  EXPECT_EQ(node.driver.starts.size(), 2U);
  const auto before = node.store.writes;
  ASSERT_TRUE(node.apply({set}));  // the engine, after its restart
  EXPECT_EQ(node.store.writes, before);
}

}  // namespace
}  // namespace metier
