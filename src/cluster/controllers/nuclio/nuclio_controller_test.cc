#include "cluster/controllers/nuclio/nuclio_controller.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cluster/controllers/nuclio/processor_pod.h"
#include "resource/pod.h"

namespace metier {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

class NoSite final : public FunctionSite {
 public:
  Result<FunctionSocket> hold(const Resource&, const std::string&, int) override {
    return FunctionSocket{};
  }
  void release(const ResourceKey&) override {}
  void crons(const ResourceKey&, std::map<std::string, JsonObject>) override {}
  bool waiting(const ResourceKey&) override { return false; }
  void tell_when_waiting(const ResourceKey&, bool) override {}
  Async<Result<ProcessorSample>> sample(const std::string&, const std::string&) override {
    co_return ProcessorSample{};
  }
  Async<Result<std::vector<ProcessorProblem>>> problems(const std::string&,
                                                        const std::string&) override {
    co_return std::vector<ProcessorProblem>{};
  }
  double free_cpus() override { return 1; }
  std::optional<std::string> substitute(const std::string&) override { return std::nullopt; }
  std::chrono::steady_clock::time_point now() override { return {}; }
};

class NuclioControllerTest : public testing::Test {
 protected:
  NuclioControllerTest() {
    function_ = {.api_version = "nuclio.io/v1beta1",
                 .kind = "NuclioFunction",
                 .metadata = {.name = "p-hello", .name_space = "p", .uid = "u"}};
    function_.metadata.labels["metier.dev/deployment"] = "hello";
    generation(1);
    spec(
        R"({"handler":"main:handler","runtime":"python","triggers":{"web":{"kind":"http","numWorkers":2}}})");
  }
  void spec(std::string_view text) { function_.body["spec"] = *parse_json(text); }
  void generation(int number) {
    function_.metadata.annotations["metier.dev/generation"] = std::to_string(number);
  }
  // One reconciliation; the status is kept, objects appear and disappear.
  Decision step(JsonObject facts = {{"address", "127.64.0.3:8080"}}) {
    Decision decision = NuclioController(site_).reconcile(function_, snapshot_, Facts(facts), now_);
    if (decision.status) { function_.status = *decision.status; }
    for (const Resource& made : decision.create) {
      (made.kind == "Pod" ? snapshot_.pods : snapshot_.services).push_back(made);
    }
    for (const ResourceKey& key : decision.remove) {
      std::erase_if(snapshot_.pods, [&](const Resource& pod) { return key_of(pod) == key; });
    }
    return decision;
  }
  void pod(std::size_t index, PodPhase phase, bool ready, std::string reason = {},
           int restarts = 0) {
    PodStatus status{.phase = phase, .reason = reason};
    if (ready) { status.conditions.push_back({.type = "Ready", .status = true}); }
    ContainerStatus container{.name = "nuclio", .state = ContainerStatus::State::running};
    container.restarts = restarts;
    if (restarts > 0) {
      container.state = ContainerStatus::State::waiting;
      container.reason = "CrashLoopBackOff";
      container.message = "no module named 'nothing'";
    }
    status.containers.push_back(container);
    if (is_terminal(phase)) { status.finished = now_; }
    snapshot_.pods.at(index).status = to_json(status);
  }
  void unplaced(std::size_t index) {
    PodStatus waiting{.phase = PodPhase::pending};
    waiting.conditions.push_back({.type = "PodScheduled",
                                  .status = false,
                                  .reason = "InsufficientMemory",
                                  .message = "no room"});
    snapshot_.pods.at(index).status = to_json(waiting);
  }
  std::vector<std::string> pods() const {
    std::vector<std::string> out;
    for (const Resource& made : snapshot_.pods) { out.push_back(made.metadata.name); }
    return out;
  }
  std::string said(std::string_view key) const {
    return std::string(string_at(function_.status, key));
  }

  NoSite site_;
  Resource function_;
  Snapshot snapshot_;
  Time now_ = *from_iso("2026-01-01T00:00:00+00:00");
};

TEST_F(NuclioControllerTest, WaitsForItsAddressAndMakesAPod) {
  Decision first = step({});
  EXPECT_THAT(pods(), IsEmpty());
  ASSERT_EQ(snapshot_.services.size(), 1U);
  EXPECT_EQ(snapshot_.services[0].metadata.name, "nuclio-p-hello");
  EXPECT_TRUE(first.requeue);
  step();
  EXPECT_THAT(pods(), ElementsAre("nuclio-p-hello-1-0"));
  EXPECT_TRUE(pod_from(snapshot_.pods[0]));
  EXPECT_EQ(snapshot_.pods[0].metadata.labels.at("metier.dev/deployment"), "hello");
  EXPECT_EQ(said("state"), "waitingForResourceConfiguration");
  pod(0, PodPhase::running, true);
  step();
  EXPECT_EQ(said("state"), "ready");
  EXPECT_EQ(string_at(function_.status, "internalInvocationUrls"), "");
  EXPECT_EQ(*int_in(function_.status.get_object(), "httpPort"), 8080);
  EXPECT_EQ(*int_in(function_.status.get_object(), "observedGeneration"), 1);
}

TEST_F(NuclioControllerTest, TheOldGenerationGoesWhenTheNewOneIsReady) {
  step();
  pod(0, PodPhase::running, true);
  step();
  generation(2);
  step();
  EXPECT_THAT(pods(), ElementsAre("nuclio-p-hello-1-0", "nuclio-p-hello-2-0"));
  EXPECT_EQ(said("state"), "waitingForResourceConfiguration");
  step();
  EXPECT_THAT(pods(), ElementsAre("nuclio-p-hello-1-0", "nuclio-p-hello-2-0"));
  pod(1, PodPhase::running, true);
  step();
  EXPECT_THAT(pods(), ElementsAre("nuclio-p-hello-2-0"));
  EXPECT_EQ(said("state"), "ready");
}

TEST_F(NuclioControllerTest, AFailingGenerationLeavesTheOldOneAnswering) {
  step();
  pod(0, PodPhase::running, true);
  step();
  generation(2);
  step();
  pod(1, PodPhase::running, false, "", 2);
  step();
  EXPECT_EQ(said("state"), "error");
  EXPECT_THAT(said("message"), HasSubstr("no module named 'nothing'"));
  EXPECT_THAT(said("message"), HasSubstr("the generation before still answers"));
  EXPECT_THAT(pods(), ElementsAre("nuclio-p-hello-1-0", "nuclio-p-hello-2-0"));
}

TEST_F(NuclioControllerTest, WithoutRoomForBothTheOldOneMakesIt) {
  step();
  pod(0, PodPhase::running, true);
  step();
  generation(2);
  step();
  unplaced(1);
  step();
  EXPECT_THAT(pods(), ElementsAre("nuclio-p-hello-2-0"));
}

TEST_F(NuclioControllerTest, WithoutRoomForBothTheOldOnesGoOneByOne) {
  spec(R"({"handler":"m:h","replicas":3,"triggers":{"web":{"kind":"http"}}})");
  step();
  for (std::size_t i = 0; i < 3; ++i) { pod(i, PodPhase::running, true); }
  step();
  generation(2);
  step();
  for (std::size_t i = 3; i < 6; ++i) { unplaced(i); }
  snapshot_.pods.front().metadata.other["deletionTimestamp"] = "2026-01-01T00:00:00Z";
  EXPECT_THAT(step().remove, IsEmpty());  // it is not gone yet
  snapshot_.pods.erase(snapshot_.pods.begin());
  EXPECT_EQ(step().remove.size(), 1U);
}

TEST_F(NuclioControllerTest, AReplicaThatFindsNoRoomIsGivenUpWithTheLoad) {
  spec(R"({"handler":"m:h","minReplicas":0,"maxReplicas":2,"triggers":{"web":{"kind":"http"}},
           "scaleToZero":{"scaleResources":[{"metricName":"x","windowSize":"1m","threshold":0}]}})");
  step();
  pod(0, PodPhase::running, true);
  step();
  step({{"address", "127.64.0.3:8080"}, {"busy", 0.95}, {"free_cpus", 8.0}});
  ASSERT_EQ(pods().size(), 2U);
  unplaced(1);
  const JsonObject calm{{"address", "127.64.0.3:8080"}, {"busy", 0.5}, {"busiest", 0.5}};
  step({{"address", "127.64.0.3:8080"}, {"busy", 0.9}, {"busiest", 0.95}});
  EXPECT_EQ(pods().size(), 2U);  // it is still wanted
  EXPECT_EQ(said("state"), "ready");
  EXPECT_EQ(said("reason"), "InsufficientMemory");
  step(calm);
  EXPECT_THAT(pods(), ElementsAre("nuclio-p-hello-1-0"));
  step({{"address", "127.64.0.3:8080"}, {"idle_ms", 61'000}});
  EXPECT_EQ(said("state"), "scaledToZero");
}

TEST_F(NuclioControllerTest, NotReadyAfterItWasIsUnhealthy) {
  step();
  pod(0, PodPhase::running, true);
  step();
  pod(0, PodPhase::running, false, "", 1);
  step();
  EXPECT_EQ(said("state"), "unhealthy");
  pod(0, PodPhase::running, true);
  step();
  EXPECT_EQ(said("state"), "ready");
}

TEST_F(NuclioControllerTest, NotReadyInTimeIsAnError) {
  spec(R"({"handler":"m:h","readinessTimeoutSeconds":5,"triggers":{"web":{"kind":"http"}}})");
  step();
  pod(0, PodPhase::running, false);
  const auto decision = step();
  ASSERT_TRUE(decision.requeue);
  EXPECT_LE(*decision.requeue, std::chrono::milliseconds(5050));
  now_ += std::chrono::seconds(6);
  step();
  EXPECT_EQ(said("state"), "error");
  EXPECT_EQ(said("reason"), "ReadinessTimeout");
}

TEST_F(NuclioControllerTest, APodThatHasEndedIsMadeAnewLater) {
  step();
  pod(0, PodPhase::failed, false, "EnvironmentFailed");
  auto decision = step();
  EXPECT_EQ(said("state"), "error");
  EXPECT_THAT(decision.remove, IsEmpty());
  ASSERT_TRUE(decision.requeue);
  now_ += std::chrono::seconds(11);
  step();
  EXPECT_THAT(pods(), IsEmpty());
  step();
  EXPECT_THAT(pods(), ElementsAre("nuclio-p-hello-1-0"));
  pod(0, PodPhase::failed, false, "HostRebooted");
  decision = step();
  EXPECT_EQ(decision.remove.size(), 1U);
}

TEST_F(NuclioControllerTest, ScalesUpAndDown) {
  spec(R"({"handler":"m:h","minReplicas":1,"maxReplicas":3,"triggers":{"web":{"kind":"http"}}})");
  step();
  pod(0, PodPhase::running, true);
  const JsonObject busy{{"address", "127.64.0.3:8080"}, {"busy", 2.9}, {"free_cpus", 1.0}};
  step(busy);
  EXPECT_EQ(pods().size(), 2U);
  step(busy);
  EXPECT_EQ(pods().size(), 2U);  // the second one is not ready yet
  pod(1, PodPhase::running, true);
  step(busy);
  EXPECT_EQ(pods().size(), 3U);
  pod(2, PodPhase::running, true);
  step(busy);
  EXPECT_EQ(pods().size(), 3U);  // most
  step({{"address", "127.64.0.3:8080"}, {"busy", 0.1}, {"busiest", 0.1}, {"free_cpus", 8.0}});
  EXPECT_THAT(pods(), ElementsAre("nuclio-p-hello-1-0"));
  EXPECT_EQ(said("state"), "ready");
}

TEST_F(NuclioControllerTest, ToZeroAndBack) {
  spec(R"({"handler":"m:h","minReplicas":0,"maxReplicas":2,"triggers":{"web":{"kind":"http"}},
           "scaleToZero":{"scaleResources":[{"metricName":"x","windowSize":"1m","threshold":0}]}})");
  step();
  pod(0, PodPhase::running, true);
  step();
  step({{"address", "127.64.0.3:8080"}, {"idle_ms", 61'000}});
  EXPECT_THAT(pods(), IsEmpty());
  EXPECT_EQ(said("state"), "scaledToZero");
  EXPECT_EQ(said("reason"), "ScaledToZero");
  EXPECT_FALSE(step().requeue);  // nothing is polled at zero
  EXPECT_THAT(pods(), IsEmpty());
  step({{"address", "127.64.0.3:8080"}, {"waiting", true}});
  EXPECT_THAT(pods(), ElementsAre("nuclio-p-hello-1-0"));
  EXPECT_EQ(said("state"), "waitingForScaleResourceFromZero");
  pod(0, PodPhase::running, true);
  step();
  EXPECT_EQ(said("state"), "ready");
}

TEST_F(NuclioControllerTest, ADisabledFunctionHasNoPods) {
  spec(R"({"handler":"m:h","disable":true,"triggers":{"web":{"kind":"http"}}})");
  step();
  EXPECT_THAT(pods(), IsEmpty());
  EXPECT_EQ(said("state"), "ready");
}

TEST_F(NuclioControllerTest, APortThatIsTakenIsAnErrorThatSaysSo) {
  step({});
  step({{"error", "127.0.0.1:8080 is taken by another program"}, {"code", "PortTaken"}});
  EXPECT_EQ(said("state"), "error");
  EXPECT_EQ(said("reason"), "PortTaken");
  EXPECT_THAT(pods(), IsEmpty());
}

TEST_F(NuclioControllerTest, AdmissionSeesThePodsThatItWouldMake) {
  spec(R"({"handler":"m:h","replicas":2,"triggers":{"web":{"kind":"http"}}})");
  const auto decision = NuclioController(site_).reconcile(function_, {}, Facts(), now_);
  EXPECT_EQ(std::ranges::count(decision.create, "Pod", &Resource::kind), 2);
}

TEST(ProcessorConfig, SaysWhatTheProcessorReads) {
  Resource function{.api_version = "nuclio.io/v1beta1",
                    .kind = "NuclioFunction",
                    .metadata = {.name = "p-f", .name_space = "p"}};
  function.body["spec"] = *parse_json(
      R"({"handler":"pkg.mod:go","runtime":"python:3.11","eventTimeout":"30s","loggerSinks":[{"level":"warn","sink":"x"}],
          "triggers":{"web":{"kind":"http","numWorkers":3,"attributes":{"port":30080,"serviceType":"NodePort","maxRequestBodySize":10}},
                      "tick":{"kind":"cron","attributes":{"interval":"1s"}},
                      "k":{"kind":"kafka-cluster","numWorkers":2,"workerTerminationTimeout":"20s","attributes":{"topics":["t"]}}}})");
  const JsonObject config = processor_config(function, {.path = "/code",
                                                        .python = "/py",
                                                        .lib = "/lib",
                                                        .gate = "/d/gate.sock",
                                                        .socket = "f/p/p-f#1",
                                                        .pod = "x",
                                                        .pod_ip = "127.1.2.3"});
  EXPECT_EQ(
      dump_json(Json(config)),
      R"({"v":1,"name":"p-f","namespace":"p","project":"p","labels":{},"handler":"pkg.mod:go","runtime":"python:3.11",)"
      R"("path":"/code","lib":"/lib","logLevel":"warn","instance":"x","health":{"address":"127.1.2.3:8082"},)"
      R"("metrics":{"address":"127.1.2.3:8090"},"admin":{"address":"127.1.2.3:8081"},"python":"/py","eventTimeout":"30s","triggers":[)"
      R"({"name":"web","kind":"http","numWorkers":3,"listen":{"gate":"/d/gate.sock","name":"f/p/p-f#1"},"attributes":{"maxRequestBodySize":10}},)"
      R"({"name":"tick","kind":"cron","numWorkers":1,"attributes":{"interval":"1s"}},)"
      R"({"name":"k","kind":"kafka-cluster","workerTerminationTimeout":"20s","numWorkers":2,"attributes":{"topics":["t"]}}]})");
  EXPECT_EQ(code_file(function.spec()), "pkg/mod.py");
}

TEST_F(NuclioControllerTest, WhatProcessorsSayOfThemselvesIsAConditionOnce) {
  step();
  pod(0, PodPhase::running, true);
  const Json crash = JsonObject{{"code", "WorkerCrashed"}, {"message", "1 ended"}};
  const Decision decision =
      step({{"address", "127.64.0.3:8080"}, {"problems", JsonArray{crash, crash}}});
  EXPECT_EQ(said("state"), "ready");
  EXPECT_EQ(said("reason"), "");
  const JsonArray* conditions = array_in(function_.status.get_object(), "conditions");
  ASSERT_NE(conditions, nullptr);
  ASSERT_EQ(conditions->size(), 1U);
  EXPECT_EQ(string_at(conditions->front(), "type"), "WorkerCrashed");
  EXPECT_EQ(string_at(conditions->front(), "message"), "1 ended");
  ASSERT_TRUE(decision.requeue) << "it is looked at again without being told";
  step();
  EXPECT_EQ(array_in(function_.status.get_object(), "conditions"), nullptr) << "and goes again";
}

TEST_F(NuclioControllerTest, AStartThatWaitsForItsBrokerSaysSo) {
  step();
  pod(0, PodPhase::running, false);
  step({{"address", "127.64.0.3:8080"},
        {"problems", JsonArray{JsonObject{{"code", "BrokerUnavailable"}, {"message", "away"}}}}});
  EXPECT_EQ(said("state"), "waitingForResourceConfiguration");
  EXPECT_EQ(said("reason"), "BrokerUnavailable");
  EXPECT_EQ(said("message"), "away");
}

TEST_F(NuclioControllerTest, AnExternalAddressOnEveryNetworkIsACondition) {
  for (const auto& [external, told] :
       {std::pair("0.0.0.0:30080", true), std::pair("[::]:30080", true), std::pair(":::1", true),
        std::pair("10.0.0.1:30080", false), std::pair("[::1]:30080", false)}) {
    step({{"address", "127.64.0.3:8080"}, {"external", external}});
    const JsonArray* conditions = array_in(function_.status.get_object(), "conditions");
    ASSERT_EQ(conditions != nullptr, told) << external;
    if (told) { EXPECT_EQ(string_at(conditions->front(), "type"), "ListensOnAllInterfaces"); }
  }
}

}  // namespace
}  // namespace metier
