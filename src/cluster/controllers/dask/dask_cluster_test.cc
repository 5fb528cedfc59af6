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

Facts of_live_workers(const World& world, int desired, std::optional<int> calm = {},
                      int clients = 1) {
  std::vector<int> names;
  for (const auto& pod : world.around.pods) {
    if (pod.metadata.labels.at("dask.org/component") == "worker" &&
        pod_status_from_json(pod.status).phase == PodPhase::running) {
      names.push_back(std::stoi(pod.metadata.labels.at("metier.dev/index")));
    }
  }
  return says(names, desired, clients, calm);
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

// The status is stored before its decision is carried out: a server that dies in between leaves any first part of it.
TEST(DaskCluster, MakesWhatAServerThatDiedDidNotComeTo) {
  for (std::size_t kept = 0; kept < 3; ++kept) {
    World world(2, 2);
    world.step();
    world.around.pods.resize(kept);
    world.step();
    EXPECT_THAT(world.pods(), testing::UnorderedElementsAre("scheduler", "worker-0", "worker-1"));
    EXPECT_EQ(world.state(), "Starting");
    world.all_run();
    world.step();
    world.step(says({0, 1}));
    EXPECT_EQ(world.state(), "Running");
  }
}

TEST(DaskCluster, RunsOnceTheSchedulerAnswersAndReplacesAWorkerThatIsGone) {
  World world;
  world.step();
  world.all_run();
  world.step();
  EXPECT_EQ(string_at(world.cluster.status, "address"), "127.70.0.1");
  EXPECT_EQ(string_at(world.cluster.status, "comm"), "tcp://127.70.0.1:8786");
  const auto whole = [&] { return bool_in(world.cluster.status.get_object(), "whole"); };
  world.step(says({0}));
  EXPECT_EQ(world.state(), "Running");
  EXPECT_FALSE(whole());
  world.step(says({0, 1}));
  EXPECT_TRUE(whole());
  world.set("worker-0", PodPhase::failed, 0, 9);
  world.step(says({1}));
  EXPECT_THAT(world.pods(), ElementsAre("scheduler", "worker-0", "worker-1", "worker-2"));
  EXPECT_EQ(world.state(), "Running");
  EXPECT_TRUE(whole());
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
  const auto least = [](std::vector<int> names, int calm) {
    Facts facts = says(std::move(names), 1, 1, calm);
    facts.get_object()["closable"] = JsonArray{"3", "0", "1", "2"};
    return facts;
  };
  world.step(least({0, 1, 2, 3}, 1));
  const auto* retire = object_in(world.cluster.status.get_object(), "retire");
  ASSERT_NE(retire, nullptr);
  EXPECT_EQ(dump_json(*retire),
            R"({"workers":{"3":"tcp://w3","0":"tcp://w0","1":"tcp://w1"},"stuck":false})");
  const Json chosen = retire->at("workers");
  world.step(least({0, 1, 2, 3}, 1));  // what they hold is being moved
  EXPECT_EQ(object_in(world.cluster.status.get_object(), "retire")->at("workers"), chosen);
  Facts answer = least({1, 2}, 1);
  // The scheduler gave up two only: the third holds the last copy of something.
  answer.get_object()["retired"] =
      JsonObject{{"gone", JsonArray{"0", "3"}}, {"kept", JsonArray{"1"}}};
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

Facts with_orphans(Facts facts, const std::vector<std::string>& names) {
  JsonArray orphans;
  for (const std::string& name : names) { orphans.emplace_back(name); }
  facts.get_object()["orphans"] = std::move(orphans);
  return facts;
}

Facts answered(Facts facts, std::string_view what, std::string_view name) {
  facts.get_object()["retired"] = JsonObject{{what, JsonArray{name}}};
  return facts;
}

std::vector<std::string> retiring(const World& world) {
  std::vector<std::string> out;
  if (const auto* retire = object_in(world.cluster.status.get_object(), "retire")) {
    for (const auto& worker : retire->at("workers").get_object()) {
      out.emplace_back(worker.key());
    }
  }
  return out;
}

TEST(DaskCluster, AWorkerThatExecutesWhatNobodyWantsIsRetiredAndReplaced) {
  World world;
  world.step();
  world.all_run();
  world.step(says({0, 1}, 0, 1));
  const Facts orphaned = with_orphans(says({0, 1}, 0, 0), {"1"});
  for (int look = 0; look < 3; ++look) {  // the scheduler moves what it holds
    EXPECT_THAT(world.step(orphaned).remove, IsEmpty());
    EXPECT_THAT(retiring(world), ElementsAre("1"));
  }
  EXPECT_THAT(world.pods(), ElementsAre("scheduler", "worker-0", "worker-1"));
  const auto decision = world.step(answered(orphaned, "gone", "1"));
  ASSERT_EQ(decision.remove.size(), 1U);
  EXPECT_EQ(decision.remove[0].name, "mlrun-f-0123456789-worker-1");
  EXPECT_THAT(world.pods(), ElementsAre("scheduler", "worker-0", "worker-2"));
  EXPECT_THAT(retiring(world), IsEmpty());
}

TEST(DaskCluster, AnOrphanedWorkerWithTheOnlyCopyStaysUntilAnotherCanTakeIt) {
  World world(1, 1);
  world.step();
  world.all_run();
  world.step(says({0}, 0, 1));
  world.step(with_orphans(says({0}), {"0"}));
  EXPECT_THAT(retiring(world), ElementsAre("0"));
  auto decision = world.step(answered(with_orphans(says({0}), {"0"}), "kept", "0"));
  EXPECT_THAT(decision.remove, IsEmpty());
  EXPECT_THAT(world.pods(), ElementsAre("scheduler", "worker-0", "worker-1"));
  for (int look = 0; look < 3; ++look) {  // its successor is not there: nobody is asked again
    world.step(with_orphans(says({0}), {"0"}));
    EXPECT_THAT(retiring(world), IsEmpty());
    EXPECT_THAT(world.pods(), ElementsAre("scheduler", "worker-0", "worker-1"));
  }
  world.now += std::chrono::seconds(
      11);  // after a while it is: the scheduler may have moved something itself
  world.step(with_orphans(says({0}), {"0"}));
  EXPECT_THAT(retiring(world), ElementsAre("0"));
  world.step(answered(with_orphans(says({0}), {"0"}), "kept", "0"));
  world.all_run();
  world.step(with_orphans(says({0, 1}), {"0"}));
  EXPECT_THAT(retiring(world), ElementsAre("0"));
  world.step(answered(with_orphans(says({0, 1}), {"0"}), "gone", "0"));
  EXPECT_THAT(world.pods(), ElementsAre("scheduler", "worker-1"));
  world.step(says({1}));
  EXPECT_THAT(world.pods(), ElementsAre("scheduler", "worker-1"));
}

// Its call ends before its successor is there: one of the two is too many.
TEST(DaskCluster, AnOrphanedWorkerThatWasKeptAndComesBackIsOneOfTheClustersAgain) {
  World world(1, 1);
  world.step();
  world.all_run();
  world.step(says({0}, 0, 1));
  world.step(with_orphans(says({0}), {"0"}));
  world.step(answered(with_orphans(says({0}), {"0"}), "kept", "0"));
  world.step(says({0}, 0, 1));
  EXPECT_THAT(world.pods(), ElementsAre("scheduler", "worker-0"));
}

// A pod on its way out is none of the cluster's workers: its successor is not one too many.
TEST(DaskCluster, APodThatIsBeingRemovedIsReplacedAtOnceAndOnce) {
  World world;
  world.step();
  world.all_run();
  world.step(says({0, 1}, 0, 1));
  world.pod("worker-1").metadata.other["deletionTimestamp"] = to_iso(world.now);
  for (int look = 0; look < 3; ++look) {
    EXPECT_THAT(world.step(says({0, 1}, 0, 1)).remove, IsEmpty());
    EXPECT_THAT(world.pods(), ElementsAre("scheduler", "worker-0", "worker-1", "worker-2"));
  }
}

// With actors, say, which cannot be moved: the scheduler is not asked over and over, and another one leaves.
TEST(DaskCluster, AWorkerThatTheSchedulerKeepsIsNotAskedForAgainAtOnce) {
  World world(1, 3);
  world.step();
  world.all_run();
  world.step(says({0}, 3, 1));
  world.all_run();
  world.step(says({0, 1, 2}, 3, 1, 3));
  const Facts calm = says({0, 1, 2}, 2, 1, 2);
  world.step(calm);
  EXPECT_THAT(retiring(world), ElementsAre("2"));  // a scheduler without our page: the newest
  world.step(answered(calm, "kept", "2"));
  EXPECT_THAT(retiring(world), ElementsAre("1"));
  world.step(answered(calm, "kept", "1"));
  world.step(answered(calm, "kept", "0"));
  EXPECT_THAT(retiring(world), IsEmpty());
  world.step(calm);
  EXPECT_THAT(retiring(world), IsEmpty());
  world.now += std::chrono::seconds(11);
  world.step(calm);
  EXPECT_THAT(retiring(world), ElementsAre("2"));
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

// Its handler imports for longer than scheduler_timeout, or computes before it asks for its client.
TEST(DaskCluster, AnOpenerWhosePodGoesOnIsWaitedForHoweverLongItTakes) {
  for (const bool another : {false, true}) {
    World world;
    world.step();
    world.all_run();
    world.step(says({0, 1}));
    if (another) {
      world.step(says({0, 1}, 0, 1));
      world.spec()["openedBy"] = "run-2";
      world.step(says({0, 1}));
    }
    world.around.opener_lives = true;
    const std::string opened(string_at(world.cluster.status, "openedAt"));
    for (const auto& [last, next] :
         {std::pair("scheduler", "scheduler-2"), std::pair("scheduler-2", "scheduler-3")}) {
      world.now += std::chrono::hours(1);
      world.set(last, PodPhase::succeeded);
      world.step();
      EXPECT_EQ(world.state(), "Starting");
      world.step();
      world.step();
      EXPECT_THAT(world.pods(), Contains(next));
      world.all_run();
      world.step();
      world.step(of_live_workers(world, 0, {}, 0));
      EXPECT_EQ(world.state(), "Running");
      EXPECT_EQ(string_at(world.cluster.status, "openedAt"), opened) << "it has waited since then";
    }
    world.step(of_live_workers(world, 0));  // here it is
    world.set("scheduler-3", PodPhase::succeeded);
    world.step();
    EXPECT_EQ(world.state(), "Closed");
  }
}

TEST(DaskCluster, AnOpenerThatEndedOrHasNoPodIsNotWaitedForForever) {
  World over;
  over.step();
  over.all_run();
  over.step(says({0, 1}, 0, 1));
  over.spec()["openedBy"] = "run-2";
  over.step(says({0, 1}));
  over.around.opener_over = true;
  over.set("scheduler", PodPhase::succeeded);
  over.step();
  EXPECT_EQ(over.state(), "Closed");

  for (const bool another : {false, true}) {
    World deployed;
    deployed.step();
    deployed.all_run();
    deployed.step(says({0, 1}));
    if (another) {
      deployed.spec()["openedBy"] = "deploy-2";
      deployed.step(says({0, 1}));
    }
    deployed.now += std::chrono::seconds(4);
    deployed.set("scheduler", PodPhase::succeeded);
    deployed.step();
    EXPECT_EQ(deployed.state(), "Closed");
  }
}

// The pod's end is in the store, the controller has not looked yet, and a run finds a cluster that is Running.
TEST(DaskCluster, AnOpenerThatCameAfterTheSchedulersEndFindsANewOne) {
  for (const PodPhase phase : {PodPhase::failed, PodPhase::succeeded}) {
    for (const bool seen_first : {false, true}) {
      World world;
      world.step();
      world.all_run();
      world.step(says({0, 1}, 0, 1));
      const auto ends = [&](Time finished) {
        PodStatus status{.phase = phase};
        status.finished = finished;
        world.pod("scheduler").status = to_json(status);
      };
      const Time end = world.now += std::chrono::milliseconds(10);
      world.now += std::chrono::milliseconds(30);
      world.spec()["openedBy"] = "run-2";
      if (seen_first) { ends(end); }
      world.step(JsonObject{{"ready", false}});
      if (!seen_first) {
        EXPECT_EQ(world.state(), "Running");
        world.now += std::chrono::seconds(5);
        ends(end);
        world.step();
      }
      EXPECT_EQ(world.state(), "Starting");
      world.step();
      world.step();
      EXPECT_THAT(world.pods(), Contains("scheduler-2"));
    }
  }
  World lost;  // under the one that opened it
  lost.step();
  lost.all_run();
  lost.step(says({0, 1}, 0, 1));
  lost.spec()["openedBy"] = "run-2";
  lost.step(says({0, 1}));
  lost.around.opener_lives = true;
  PodStatus status{.phase = PodPhase::failed};
  status.finished = lost.now += std::chrono::milliseconds(10);
  lost.pod("scheduler").status = to_json(status);
  lost.step();
  EXPECT_EQ(lost.state(), "Failed");
}

// Else one that comes and shuts down between two looks is one that never came.
TEST(DaskCluster, LooksOftenUntilItsFirstClientIsThere) {
  const auto pause = [](World& world, int clients) {
    return world.step(says({0, 1}, 0, clients)).requeue;
  };
  World world;
  world.step();
  world.all_run();
  EXPECT_EQ(pause(world, 0), std::chrono::milliseconds(50));
  EXPECT_EQ(pause(world, 1), std::chrono::seconds(1));
  world.now += std::chrono::minutes(1);
  world.spec()["openedBy"] = "run-2";
  EXPECT_EQ(pause(world, 0), std::chrono::milliseconds(50));
  world.now += std::chrono::seconds(10);
  EXPECT_EQ(pause(world, 0), std::chrono::seconds(1)) << "it takes its time";
  EXPECT_EQ(string_at(world.cluster.status, "state"), "Running");
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

TEST(DaskCluster, AnOpenerThatEndedOrNeverCameKeepsNoRoom) {
  World ended;
  ended.step();
  ended.all_run();
  ended.around.room_wanted = true;
  ended.step(says({0, 1}));
  EXPECT_EQ(ended.state(), "Running");
  ended.around.opener_over = true;  // its handler failed before it asked for its client
  ended.step(says({0, 1}, 1, 0));
  EXPECT_EQ(ended.state(), "Running") << "somebody else's data is there";
  ended.step(says({0, 1}));
  EXPECT_EQ(ended.state(), "Closed");

  World lost;
  lost.step();
  lost.all_run();
  lost.around.room_wanted = true;
  lost.now += std::chrono::seconds(599);
  lost.step(says({0, 1}));
  EXPECT_EQ(lost.state(), "Running");
  lost.now += std::chrono::seconds(1);
  lost.step(says({0, 1}));
  EXPECT_EQ(lost.state(), "Closed");
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

// Nobody knows how its process ended: the words of its pod say what is known.
TEST(DaskCluster, SaysThatItsSchedulersPodWasLost) {
  for (const char* reason : {"ShimLost", "HostRebooted", "FolderLost"}) {
    World world;
    world.step();
    world.all_run();
    world.step(says({0, 1}, 0, 1));
    PodStatus lost{.phase = PodPhase::failed, .reason = reason, .message = "nobody watched it"};
    lost.containers.push_back({.name = "base",
                               .state = ContainerStatus::State::terminated,
                               .message = "its exit status is not known",
                               .exit_code = 255});
    world.pod("scheduler").status = to_json(lost);
    world.step();
    EXPECT_EQ(string_at(world.cluster.status, "reason"), reason);
    EXPECT_EQ(string_at(world.cluster.status, "message"),
              "the scheduler of the Dask cluster is gone: mlrun-f-0123456789-scheduler was lost: "
              "nobody watched it");
  }
}

TEST(DaskCluster, NamesTheLogOfASchedulerThatLeftWithAnError) {
  World world;
  const auto leaves = [&](const std::string& suffix) {
    world.step();
    world.step();
    world.all_run();
    world.step(says({0, 1}, 0, 1));
    world.set(suffix, PodPhase::failed, 3);
    world.step();
    return std::string(string_at(world.cluster.status, "message"));
  };
  EXPECT_THAT(leaves("scheduler"), HasSubstr("--part scheduler"));
  EXPECT_THAT(leaves("scheduler"), testing::Not(HasSubstr("--part scheduler-")));
  world.spec()["openedBy"] = "run-2";
  EXPECT_THAT(leaves("scheduler-2"), HasSubstr("--part scheduler-2"));
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

// A cluster that grows, and whose further workers end before they have joined, goes on with those that it has.
TEST(DaskCluster, WorkersThatDoNotComeAreTriedMoreAndMoreSeldom) {
  World world(1, 4);
  world.step();
  world.all_run();
  world.step(says({0}, 1, 1));
  int made = 0;
  for (int look = 0; look < 120; ++look) {
    world.now += std::chrono::seconds(1);
    world.step(says({0}, 2, 1));
    for (auto& pod : world.around.pods) {
      const auto phase = pod_status_from_json(pod.status).phase;
      if (pod.metadata.labels.at("dask.org/component") != "worker" ||
          pod.metadata.labels.at("metier.dev/index") == "0" || is_terminal(phase)) {
        continue;
      }
      ++made;
      world.set("worker-" + pod.metadata.labels.at("metier.dev/index"), PodPhase::failed, 1);
    }
    ASSERT_EQ(world.state(), "Running");
  }
  EXPECT_GE(made, 5);
  EXPECT_LE(made, 9);
  EXPECT_EQ(string_at(world.cluster.status, "reason"), "WorkerFailed");
  // It is no longer wanted: nothing is wrong.
  world.step(says({0}, 1, 1));
  EXPECT_EQ(string_at(world.cluster.status, "reason"), "");
}

TEST(DaskCluster, AWorkingClusterOutlivesWorkersThatEndTogetherBeforeTheyJoin) {
  World world(1, 4);
  world.step();
  world.all_run();
  world.step(says({0}, 1, 1));
  world.step(says({0}, 4, 1));
  int failed = 0;
  for (auto& pod : world.around.pods) {
    if (pod.metadata.labels.at("dask.org/component") == "worker" &&
        pod.metadata.labels.at("metier.dev/index") != "0") {
      world.set("worker-" + pod.metadata.labels.at("metier.dev/index"), PodPhase::failed, 1);
      ++failed;
    }
  }
  ASSERT_EQ(failed, 3);
  world.step(says({0}, 4, 1));
  EXPECT_EQ(world.state(), "Running");
  EXPECT_EQ(string_at(world.cluster.status, "reason"), "WorkerFailed");
}

// The loss of each part at each step of a cluster's life.
enum class Step { created, placed, answering, joined, growing, retiring };
constexpr std::array kSteps{Step::created, Step::placed,  Step::answering,
                            Step::joined,  Step::growing, Step::retiring};

World lived_to(Step step) {
  World world(1, 4);
  world.step();
  world.step();  // sees what it has made
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
  EXPECT_EQ(string_at(world.cluster.status, "reason"), "EngineMissing");
  EXPECT_THAT(std::string(string_at(world.cluster.status, "message")),
              HasSubstr("no 'dask' program"));
}

TEST(DaskCluster, AnEnvironmentWithoutDaskIsAnEngineThatIsMissing) {
  World world;
  world.step();
  world.all_run();
  world.set("scheduler", PodPhase::failed, 127);
  world.step();
  EXPECT_EQ(world.state(), "Failed");
  EXPECT_EQ(string_at(world.cluster.status, "reason"), "EngineMissing");
  EXPECT_THAT(std::string(string_at(world.cluster.status, "message")),
              HasSubstr("no 'dask' program: metier run --requirements FILE"));
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

// A scheduler's two pages: who is there, and who is to be retired.
struct FakeScheduler final : net::Client {
  Async<Result<net::ClientResponse>> send(net::ClientRequest request) override {
    if (request.url == "http://127.70.0.1:8787/metier/state.json") {
      co_return net::ClientResponse{
          .status = 200,
          .headers = {},
          .body = dump_json(JsonObject{{"workers", workers}, {"closable", JsonArray{"1", "0"}}})};
    }
    EXPECT_EQ(request.url, "http://127.70.0.1:8787/api/v1/retire_workers");
    asked.push_back(request.body);
    if (!answer) { co_return fail(ErrorKind::timed_out, "no answer within 2.5 s"); }
    co_return net::ClientResponse{.status = 200, .headers = {}, .body = dump_json(*answer)};
  }
  Async<Result<std::unique_ptr<net::Duplex>>> open(net::ClientRequest) override {
    co_return fail(ErrorKind::unsupported, "nobody opens a connection here");
  }
  void has(const std::string& name, bool retiring = false) {
    workers[name] = JsonObject{{"address", "tls://w" + name}, {"retiring", retiring}};
  }

  JsonObject workers;
  std::optional<JsonObject> answer;
  std::vector<std::string> asked;
};

Facts gathered(DaskClusterController& controller, const Resource& cluster) {
  asio::io_context loop;
  std::optional<Result<Facts>> out;
  asio::co_spawn(loop, controller.gather(cluster),
                 [&](std::exception_ptr, Result<Facts> facts) { out.emplace(std::move(facts)); });
  loop.run();
  EXPECT_TRUE(out && *out);
  return out && *out ? **out : Facts();
}

TEST(DaskCluster, ARetirementThatIsToldAgainTakesNobodyElse) {
  FakeScheduler scheduler;
  DaskClusterController controller(&scheduler, system_clock());
  Resource cluster{.api_version = "metier.dev/v1", .kind = "DaskCluster"};
  cluster.metadata.uid = "u";
  cluster.status = *parse_json(
      R"({"state":"Running","address":"127.70.0.1","retire":{"workers":{"0":"tls://w0","1":"tls://w1"}}})");
  for (const char* name : {"0", "1", "2"}) { scheduler.has(name); }
  const auto retired = [&] {
    const Facts facts = gathered(controller, cluster);
    const Json* found = facts.get_object().if_contains("retired");
    return found == nullptr ? std::string() : dump_json(*found);
  };
  const std::string both = R"({"workers":["tls://w0","tls://w1"]})";
  EXPECT_EQ(retired(), "");  // it takes longer than the request
  EXPECT_THAT(scheduler.asked, ElementsAre(both));
  scheduler.has("0", true);
  scheduler.has("1", true);
  EXPECT_EQ(retired(), "");
  EXPECT_THAT(scheduler.asked, ElementsAre(both)) << "it is at it";
  scheduler.workers.erase("0");
  scheduler.has("1");  // given back: or never asked, by a scheduler that was too busy
  EXPECT_EQ(retired(), "");
  EXPECT_THAT(scheduler.asked, ElementsAre(both, R"({"workers":["tls://w1"]})"));
  scheduler.answer = JsonObject{};
  EXPECT_EQ(retired(), R"({"gone":["0"],"kept":["1"]})");
  scheduler.answer = JsonObject{{"tls://w1", JsonObject{{"name", "1"}}}};
  EXPECT_EQ(retired(), R"({"gone":["0","1"],"kept":[]})");
  scheduler.asked.clear();
  scheduler.workers.erase("1");
  EXPECT_EQ(retired(), R"({"gone":["0","1"],"kept":[]})");
  EXPECT_THAT(scheduler.asked, IsEmpty());
}

}  // namespace
}  // namespace metier
