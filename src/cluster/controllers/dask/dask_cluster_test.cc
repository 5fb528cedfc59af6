#include "cluster/controllers/dask/dask_cluster.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>

#include "cluster/controllers/pod_group.h"
#include "resource/pod.h"

namespace metier {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr Time kStart{std::chrono::seconds(1'800'000'000)};

// A cluster with everything around it: what a decision creates and removes is carried out here, as the driver of
// controllers does it.
struct World {
  explicit World(int minimum = 2, int maximum = 2, bool handler = false) {
    cluster.metadata = {
        .name = "mlrun-f-0123456789",
        .name_space = "p",
        .uid = "u",
        .labels = {{"mlrun/function", "f"}, {"metier.dev/shared", "mlrun-f-0123456789"}}};
    cluster.body["spec"] =
        parse_json(
            R"({"address":"tcp://s:8786","openedBy":"run-1","scheduler":{"template":{"metadata":)"
            R"({"labels":{"dask.org/component":"scheduler"}},"spec":{"restartPolicy":"Never","containers":)"
            R"([{"name":"base","args":["dask","scheduler"]}]}}},"worker":{"template":{"metadata":{"labels":)"
            R"({"dask.org/component":"worker"}},"spec":{"restartPolicy":"Never","containers":)"
            R"([{"name":"base","args":["dask","worker","--nthreads","1"]}]}}}})")
            .value();
    spec()["minimum"] = minimum;
    spec()["maximum"] = maximum;
    spec()["handler"] = handler;
  }
  JsonObject& spec() { return ensure_object(cluster.body, "spec"); }

  Decision step(const Facts& facts = Facts()) {
    auto decision =
        DaskClusterController(nullptr, system_clock()).reconcile(cluster, around, facts, now);
    if (decision.status) { cluster.status = *decision.status; }
    for (auto& object : decision.create) {
      object.version = ++versions;
      if (object.kind == "Pod") { object.status = to_json(PodStatus{}); }
      auto& into = object.kind == "Pod"       ? around.pods
                   : object.kind == "Service" ? around.services
                                              : around.groups;
      into.push_back(object);
    }
    for (const auto& key : decision.remove) {
      for (auto* objects : {&around.pods, &around.services, &around.groups}) {
        std::erase_if(*objects, [&](const Resource& object) { return key_of(object) == key; });
      }
    }
    return decision;
  }
  Resource& pod(const std::string& suffix) {
    for (auto& one : around.pods) {
      if (one.metadata.name == "mlrun-f-0123456789-" + suffix) { return one; }
    }
    ADD_FAILURE() << "no pod " << suffix;
    static Resource none;
    return none;
  }
  void set(const std::string& suffix, PodPhase phase, int code = 0, int signal = 0) {
    PodStatus status{.phase = phase};
    status.pod_ip = "127.70.0.1";
    if (is_terminal(phase)) {
      status.containers.push_back({.name = "base",
                                   .state = ContainerStatus::State::terminated,
                                   .exit_code = code,
                                   .signal = signal});
    }
    pod(suffix).status = to_json(status);
  }
  void all_run() {
    for (auto& one : around.pods) {
      if (pod_status_from_json(one.status).phase == PodPhase::pending) {
        one.status = to_json(PodStatus{.phase = PodPhase::running, .pod_ip = "127.70.0.1"});
      }
    }
  }
  std::vector<std::string> pods() const {
    std::vector<std::string> out;
    for (const auto& one : around.pods) { out.push_back(one.metadata.name.substr(19)); }
    return out;
  }
  std::string state() const { return std::string(string_at(cluster.status, "state")); }

  Resource cluster{.api_version = "metier.dev/v1", .kind = "DaskCluster"};
  Snapshot around;
  Time now = kStart;
  std::uint64_t versions = 0;
};

Facts says(std::vector<int> names, int desired = 0, int clients = 0, std::optional<int> calm = {}) {
  JsonObject out{{"ready", true},
                 {"workers", static_cast<std::int64_t>(names.size())},
                 {"desired", desired},
                 {"clients", clients}};
  JsonObject registered;
  for (const int name : names) {
    registered[std::to_string(name)] = "tcp://w" + std::to_string(name);
  }
  out["names"] = std::move(registered);
  if (calm) { out["calm"] = *calm; }
  return out;
}

std::vector<std::string> texts(const Json& list) {
  std::vector<std::string> out;
  for (const auto& one : list.get_array()) { out.emplace_back(one.get_string()); }
  return out;
}

TEST(DaskCluster, MakesTheGroupOfTheWholeGangFirst) {
  World world(2, 2, true);
  const auto decision = world.step();
  ASSERT_EQ(decision.create.size(), 5U);
  EXPECT_EQ(decision.create[0].kind, "Service");
  EXPECT_EQ(decision.create[1].kind, "PodGroup");
  EXPECT_EQ(int_in(decision.create[1].spec(), "minMember"), 4);  // with the handler's pod
  EXPECT_THAT(world.pods(), ElementsAre("scheduler", "worker-0", "worker-1"));
  const auto& worker = world.pod("worker-1");
  EXPECT_EQ(worker.metadata.labels.at(std::string(kPodGroupLabel)), "mlrun-f-0123456789");
  EXPECT_EQ(worker.metadata.labels.at("metier.dev/shared"), "mlrun-f-0123456789");
  EXPECT_EQ(worker.metadata.labels.at("dask.org/cluster-name"), "mlrun-f-0123456789");
  const auto& container = worker.spec().at("containers").at(0);
  EXPECT_THAT(texts(container.at("args")),
              ElementsAre("dask", "worker", "--nthreads", "1", "--name", "1"));
  EXPECT_EQ(dump_json(container.at("env")),
            R"([{"name":"DASK_SCHEDULER_ADDRESS","value":"tcp://s:8786"}])");
  EXPECT_TRUE(pod_from(worker));
  EXPECT_EQ(world.state(), "Starting");
  EXPECT_THAT(world.step().create, IsEmpty());
}

TEST(DaskCluster, RunsOnceTheSchedulerAnswersAndReplacesAWorkerThatIsGone) {
  World world;
  world.step();
  world.all_run();
  world.step();
  EXPECT_EQ(string_at(world.cluster.status, "address"), "127.70.0.1");
  world.step(says({0, 1}));
  EXPECT_EQ(world.state(), "Running");
  world.set("worker-0", PodPhase::failed, 0, 9);
  world.step(says({1}));
  EXPECT_THAT(world.pods(), ElementsAre("scheduler", "worker-0", "worker-1", "worker-2"));
  EXPECT_EQ(world.state(), "Running");
}

TEST(DaskCluster, FollowsTheNeedWithinItsBoundsAndLetsTheSchedulerChooseWhoLeaves) {
  World world(0, 4);
  world.step();
  EXPECT_THAT(world.pods(), ElementsAre("scheduler", "worker-0"));  // one at least to begin with
  world.all_run();
  world.step(says({0}, 0));
  EXPECT_THAT(world.pods(), ElementsAre("scheduler", "worker-0"));  // stays until the first client
  world.step(says({0}, 9, 1));
  EXPECT_THAT(world.pods(),
              ElementsAre("scheduler", "worker-0", "worker-1", "worker-2", "worker-3"));
  world.all_run();
  world.step(says({0, 1, 2, 3}, 9, 1, 9));
  world.step(says({0, 1, 2, 3}, 1, 1, 9));  // the need fell once: nothing yet
  EXPECT_FALSE(world.cluster.status.get_object().contains("retire"));
  world.step(says({0, 1, 2, 3}, 1, 1, 1));
  const auto* retire = object_in(world.cluster.status.get_object(), "retire");
  ASSERT_NE(retire, nullptr);
  EXPECT_EQ(int_in(*retire, "n"), 3);
  Facts answer = says({2}, 1, 1, 1);
  // The scheduler gave up two only: the third holds the last copy of something.
  answer.get_object()["retired"] =
      JsonObject{{"id", string_in(*retire, "id")}, {"names", JsonArray{"0", "3"}}};
  answer.get_object()["names"] = JsonObject{{"1", "tcp://w1"}, {"2", "tcp://w2"}};
  auto decision = world.step(answer);
  EXPECT_THAT(decision.remove, IsEmpty());  // they leave by themselves
  EXPECT_EQ(object_in(world.cluster.status.get_object(), "leaving")->size(), 2U);
  world.set("worker-0", PodPhase::succeeded);
  world.now += std::chrono::seconds(31);
  decision = world.step(says({1, 2}, 2, 1, 2));
  ASSERT_EQ(decision.remove.size(), 1U);  // the other stayed too long
  EXPECT_EQ(decision.remove[0].name, "mlrun-f-0123456789-worker-3");
  EXPECT_THAT(decision.create, IsEmpty());
}

TEST(DaskCluster, AWorkerWithoutAPlaceIsTakenBackFirst) {
  World world(0, 4);
  world.step();
  world.all_run();
  world.step(says({0}, 3, 1));
  EXPECT_EQ(world.pods().size(), 4U);  // worker-1 and worker-2 wait for room
  world.step(says({0}, 1, 1, 1));
  EXPECT_THAT(world.pods(), ElementsAre("scheduler", "worker-0"));
  EXPECT_FALSE(world.cluster.status.get_object().contains("retire"));
}

TEST(DaskCluster, AWorkerThatExecutesWhatNobodyWantsIsReplaced) {
  World world;
  world.step();
  world.all_run();
  world.step(says({0, 1}, 0, 1));
  Facts facts = says({0, 1}, 0, 0);
  facts.get_object()["orphans"] = JsonArray{"1"};
  const auto decision = world.step(facts);
  ASSERT_EQ(decision.remove.size(), 1U);
  EXPECT_EQ(decision.remove[0].name, "mlrun-f-0123456789-worker-1");
  EXPECT_THAT(world.pods(), ElementsAre("scheduler", "worker-0", "worker-2"));
}

TEST(DaskCluster, ClosesWhenTheSchedulerLeavesAndOpensForTheNextRun) {
  World world;
  world.step();
  world.all_run();
  world.step(says({0, 1}, 0, 1));
  world.set("scheduler", PodPhase::succeeded);
  world.step();
  EXPECT_EQ(world.state(), "Closed");
  EXPECT_THAT(world.pods(), ElementsAre("scheduler"));  // for its log
  EXPECT_FALSE(world.step().status);
  world.spec()["openedBy"] = "run-2";
  world.step();
  world.step();
  EXPECT_EQ(world.state(), "Starting");
  EXPECT_THAT(world.pods(), ElementsAre("scheduler", "scheduler-2", "worker-2", "worker-3"));
}

TEST(DaskCluster, AnOpenerThatCameAsTheSchedulerLeftFindsANewOne) {
  World world;
  world.step();
  world.all_run();
  world.step(says({0, 1}, 0, 1));
  world.spec()["openedBy"] = "run-2";
  world.step(says({0, 1}));
  world.set("scheduler", PodPhase::succeeded);
  world.step();
  EXPECT_EQ(world.state(), "Starting");
  world.step();
  world.step();
  EXPECT_THAT(world.pods(), Contains("scheduler-2"));
}

TEST(DaskCluster, GivesItsRoomToOthersOnlyWhenNobodyUsesIt) {
  World world;
  world.step();
  world.all_run();
  world.around.room_wanted = true;
  world.step(says({0, 1}));  // its first client is on its way
  EXPECT_EQ(world.state(), "Running");
  world.step(says({0, 1}, 0, 1));
  EXPECT_EQ(world.state(), "Running");
  world.step(says({0, 1}, 1, 0));  // data without a client: a published dataset
  EXPECT_EQ(world.state(), "Running");
  world.step(says({0, 1}));
  EXPECT_EQ(world.state(), "Closed");
  EXPECT_EQ(string_at(world.cluster.status, "reason"), "GaveRoom");
  EXPECT_THAT(world.pods(), IsEmpty());
  world.spec()["openedBy"] = "run-2";
  world.step();
  world.step();
  EXPECT_THAT(world.pods(), ElementsAre("scheduler-2", "worker-2", "worker-3"));
}

TEST(DaskCluster, AClientThatLeftBetweenTwoLooksHasUsedIt) {
  World world;
  world.step();
  world.all_run();
  world.around.room_wanted = true;
  Facts facts = says({0, 1});
  facts.get_object()["served"] = 12;
  world.spec()["openedBy"] = "run-2";
  world.step(facts);  // what was served before run-2 says nothing of it
  world.step(facts);
  EXPECT_EQ(world.state(), "Running");
  facts.get_object()["served"] = 20;
  world.step(facts);
  EXPECT_EQ(world.state(), "Closed");
}

TEST(DaskCluster, FailsWithItsScheduler) {
  World world;
  world.step();
  world.all_run();
  world.step(says({0, 1}, 0, 1));
  world.set("scheduler", PodPhase::failed, 0, 9);
  world.step();
  EXPECT_EQ(world.state(), "Failed");
  EXPECT_EQ(string_at(world.cluster.status, "reason"), "SchedulerLost");
  EXPECT_THAT(std::string(string_at(world.cluster.status, "message")),
              HasSubstr("killed by signal 9"));
  EXPECT_TRUE(from_iso(string_at(world.cluster.status, "failedAt")));
  EXPECT_THAT(world.pods(), ElementsAre("scheduler"));
}

TEST(DaskCluster, FailsByTheNameOfThePortThatItsSchedulerCannotHave) {
  World world;
  world.step();
  world.all_run();
  world.pod("scheduler").status =
      to_json(PodStatus{.phase = PodPhase::failed,
                        .reason = "PortTaken",
                        .message = "port 8787 is in use by process 7 (nginx)"});
  world.step();
  EXPECT_EQ(world.state(), "Failed");
  EXPECT_EQ(string_at(world.cluster.status, "reason"), "PortTaken");
  EXPECT_THAT(std::string(string_at(world.cluster.status, "message")),
              HasSubstr("process 7 (nginx)"));
}

// The loss of each part at each step of a cluster's life.
enum class Step { created, placed, answering, joined, growing, retiring };
constexpr std::array kSteps{Step::created, Step::placed,  Step::answering,
                            Step::joined,  Step::growing, Step::retiring};

Facts of_live_workers(const World& world, int desired, std::optional<int> calm = {}) {
  std::vector<int> names;
  for (const auto& pod : world.around.pods) {
    if (pod.metadata.labels.at("dask.org/component") == "worker" &&
        pod_status_from_json(pod.status).phase == PodPhase::running) {
      names.push_back(std::stoi(pod.metadata.labels.at("metier.dev/index")));
    }
  }
  return says(names, desired, 1, calm);
}

World lived_to(Step step) {
  World world(1, 4);
  world.step();
  if (step == Step::created) { return world; }
  world.all_run();
  world.step();
  if (step == Step::placed) { return world; }
  world.step(says({}, 0, 0));
  if (step == Step::answering) { return world; }
  world.step(says({0}, 0, 1));
  if (step == Step::joined) { return world; }
  world.step(says({0}, 3, 1));
  if (step == Step::growing) { return world; }
  world.all_run();
  world.step(of_live_workers(world, 3));
  world.step(of_live_workers(world, 1, 1));
  EXPECT_TRUE(world.cluster.status.get_object().contains("retire"));
  return world;
}

TEST(DaskCluster, TheLossOfTheSchedulerFailsItAtEveryStepAndItOpensAgain) {
  for (const Step step : kSteps) {
    SCOPED_TRACE(static_cast<int>(step));
    for (const bool removed : {false, true}) {
      World world = lived_to(step);
      if (removed) {
        std::erase_if(world.around.pods, [](const Resource& pod) {
          return pod.metadata.labels.at("dask.org/component") == "scheduler";
        });
      } else {
        world.set("scheduler", PodPhase::failed, 0, 9);
      }
      world.step(of_live_workers(world, 1));
      EXPECT_EQ(world.state(), "Failed");
      EXPECT_EQ(string_at(world.cluster.status, "reason"), "SchedulerLost");
      world.step();
      for (const auto& pod : world.around.pods) {
        EXPECT_TRUE(is_terminal(pod_status_from_json(pod.status).phase)) << pod.metadata.name;
      }
      world.spec()["openedBy"] = "run-2";
      world.step();
      world.step();
      EXPECT_EQ(world.state(), "Starting");
      EXPECT_THAT(world.pods(), Contains("scheduler-2"));
      world.all_run();
      world.step();
      world.step(of_live_workers(world, 1));
      EXPECT_EQ(world.state(), "Running");
    }
  }
}

TEST(DaskCluster, TheLossOfAWorkerIsMadeGoodAtEveryStep) {
  for (const Step step : kSteps) {
    SCOPED_TRACE(static_cast<int>(step));
    for (const bool removed : {false, true}) {
      World world = lived_to(step);
      if (removed) {
        std::erase_if(world.around.pods, [](const Resource& pod) {
          return pod.metadata.name == "mlrun-f-0123456789-worker-0";
        });
      } else {
        world.set("worker-0", PodPhase::failed, 0, 9);
      }
      const int wanted = step == Step::growing ? 3 : 1;
      for (int i = 0; i < 4; ++i) {
        world.all_run();
        world.step(of_live_workers(world, wanted, wanted));
      }
      EXPECT_EQ(world.state(), "Running");
      int live = 0;
      for (const auto& pod : world.around.pods) {
        live += pod.metadata.labels.at("dask.org/component") == "worker" &&
                !is_terminal(pod_status_from_json(pod.status).phase);
      }
      EXPECT_GE(live, wanted);
      EXPECT_LE(live, 4);
    }
  }
}

// A scheduler that answers nothing for a while (a long garbage collection, a stopped process) is no reason to do anything.
TEST(DaskCluster, ASchedulerThatDoesNotAnswerKeepsItsWorkers) {
  World world(1, 4);
  world.step();
  world.all_run();
  world.step(says({0}, 3, 1));
  world.all_run();
  world.step(of_live_workers(world, 3));
  const auto before = world.pods();
  for (int i = 0; i < 5; ++i) {
    world.step(JsonObject{{"ready", false}});
    world.step();
  }
  EXPECT_EQ(world.pods(), before);
  EXPECT_EQ(world.state(), "Running");
}

TEST(DaskCluster, FailsWhenWorkersNeverJoin) {
  World world;
  world.step();
  world.all_run();
  for (int i = 0; i < 8 && world.state() != "Failed"; ++i) {
    for (auto& one : world.around.pods) {
      if (one.metadata.labels.at("dask.org/component") == "worker") {
        world.set(one.metadata.name.substr(19), PodPhase::failed, 127);
      }
    }
    world.step(says({}));
  }
  EXPECT_EQ(world.state(), "Failed");
  EXPECT_EQ(string_at(world.cluster.status, "reason"), "WorkerFailed");
  EXPECT_THAT(std::string(string_at(world.cluster.status, "message")),
              HasSubstr("no 'dask' program"));
}

TEST(DaskCluster, AGangThatLostItsHandlerTakesTheSizeThatIsWantedNow) {
  World world(1, 1, true);
  world.step();
  world.spec()["handler"] = false;
  world.spec()["openedBy"] = "";
  world.step();
  EXPECT_THAT(world.around.groups, IsEmpty());
  world.step();
  ASSERT_EQ(world.around.groups.size(), 1U);
  EXPECT_EQ(int_in(world.around.groups[0].spec(), "minMember"), 2);
}

}  // namespace
}  // namespace metier
