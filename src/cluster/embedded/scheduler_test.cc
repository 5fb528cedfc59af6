#include "cluster/embedded/scheduler.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

namespace metier {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

NodeCapacity node(int cpu, int memory_mi, int gpus = 0, int pods = 1000) {
  NodeCapacity out;
  out.allocatable["cpu"] = Quantity::from_units(cpu);
  out.allocatable["memory"] = Quantity::from_units(std::int64_t{memory_mi} << 20);
  out.allocatable["pods"] = Quantity::from_units(pods);
  for (int i = 0; i < gpus; ++i) { out.devices["nvidia.com/gpu"].push_back(i); }
  return out;
}

PodRequest pod(std::string id, int cpu_milli, std::int64_t priority = 0, std::string gang = "",
               std::string owner = "") {
  PodRequest out{.id = id,
                 .name = id,
                 .owner = std::move(owner),
                 .gang = std::move(gang),
                 .priority = priority,
                 .requests = {}};
  out.requests["cpu"] = Quantity::from_milli(cpu_milli);
  return out;
}

std::vector<std::string> ids(const std::vector<Placement>& placements) {
  std::vector<std::string> out;
  for (const auto& placement : placements) { out.push_back(placement.id); }
  return out;
}

TEST(Scheduler, PlacesByPriorityThenFirstCome) {
  Scheduler scheduler(node(2, 100));
  scheduler.add(pod("a", 1000));
  scheduler.add(pod("b", 1000));
  scheduler.add(pod("urgent", 1000, 5));
  scheduler.add(pod("a", 1));  // known already
  EXPECT_THAT(ids(scheduler.place()), ElementsAre("urgent", "a"));
  EXPECT_EQ(scheduler.cause("b")->code, "InsufficientCpu");
  EXPECT_EQ(scheduler.cause("b")->reason, "asks for 1 of cpu; 0 of 2 is free");
  scheduler.remove("a");
  EXPECT_THAT(ids(scheduler.place()), ElementsAre("b"));
  EXPECT_FALSE(scheduler.cause("b"));
}

TEST(Scheduler, SaysWhatCanNeverFit) {
  const Scheduler scheduler(node(2, 100));
  EXPECT_FALSE(scheduler.never_fits(pod("a", 2000).requests));
  EXPECT_EQ(scheduler.never_fits(pod("a", 2001).requests)->reason,
            "asks for 2001m of cpu; this node has 2");
  EXPECT_EQ(scheduler.never_fits({{"nvidia.com/gpu", Quantity::from_units(1)}})->reason,
            "asks for 1 of nvidia.com/gpu; this node has none");
  EXPECT_EQ(scheduler.never_fits({{"memory", Quantity::from_units(1LL << 30)}})->reason,
            "asks for 1.0 GiB of memory; this node has 100 MiB");
  EXPECT_FALSE(scheduler.never_fits({{"amd.com/gpu", Quantity()}}));
}

TEST(Scheduler, LetsSmallPodsPassALargeOneButNotForEver) {
  Scheduler scheduler(node(2, 100));
  scheduler.add(pod("holder", 1000));
  EXPECT_EQ(scheduler.place().size(), 1U);
  scheduler.add(pod("large", 2000));
  int passed = 0;
  for (int i = 0; i < 1000; ++i) {
    const auto id = fmt::format("small-{}", i);
    scheduler.add(pod(id, 100));
    const auto placed = ids(scheduler.place());
    if (placed.empty()) { break; }
    ++passed;
    scheduler.remove(id);
  }
  EXPECT_EQ(passed, Scheduler::kMostPasses);
  EXPECT_THAT(ids(scheduler.place()), IsEmpty());
  scheduler.remove("holder");
  EXPECT_EQ(scheduler.place().at(0).id, "large");
}

TEST(Scheduler, LetsFurtherPodsOfARunningOwnerPassAlways) {
  Scheduler scheduler(node(2, 100));
  scheduler.add(pod("parent", 1000, 0, "", "run"));
  (void)scheduler.place();
  scheduler.add(pod("large", 2000));
  for (int i = 0; i < 200; ++i) {
    const auto id = fmt::format("child-{}", i);
    scheduler.add(pod(id, 100, 0, "", "run"));
    ASSERT_THAT(ids(scheduler.place()), ElementsAre(id));
    scheduler.remove(id);
  }
}

TEST(Scheduler, PlacesAGangWholeOrNotAtAll) {
  Scheduler scheduler(node(4, 100));
  scheduler.add(pod("w0", 1000, 0, "g"));
  EXPECT_EQ(scheduler.cause("w0")->code, "GangIncomplete");
  scheduler.set_gang("g", 3);
  scheduler.add(pod("w1", 1000, 0, "g"));
  EXPECT_THAT(scheduler.place(), IsEmpty());
  EXPECT_EQ(scheduler.cause("w0")->reason, "2 of the 3 pods of its gang exist");
  scheduler.add(pod("other", 2000));
  EXPECT_THAT(ids(scheduler.place()), ElementsAre("other"));  // an incomplete gang blocks nobody
  scheduler.add(pod("w2", 1000, 0, "g"));
  EXPECT_THAT(scheduler.place(), IsEmpty());
  EXPECT_EQ(scheduler.cause("w2")->code, "InsufficientCpu");
  EXPECT_EQ(scheduler.free().find("cpu")->second.milli(), 2000);
  scheduler.remove("other");
  EXPECT_THAT(ids(scheduler.place()), ElementsAre("w0", "w1", "w2"));
  scheduler.add(pod("w3", 1000, 0, "g"));  // beyond the gang: single
  EXPECT_THAT(ids(scheduler.place()), ElementsAre("w3"));
}

// A Dask cluster opens anew for a handler that came while the last pods of its life before were on their way out.
TEST(Scheduler, AGangIsCompleteWithAMemberThatWasPlacedSingly) {
  Scheduler scheduler(node(4, 100));
  scheduler.set_gang("g", 3);
  for (const char* id : {"old-0", "old-1", "old-2"}) { scheduler.add(pod(id, 1000, 0, "g")); }
  scheduler.place();
  scheduler.add(pod("handler", 1000, 0, "g"));
  for (const char* id : {"old-0", "old-1", "old-2"}) { scheduler.remove(id); }
  EXPECT_THAT(ids(scheduler.place()), ElementsAre("handler"));
  scheduler.add(pod("new-0", 1000, 0, "g"));
  EXPECT_THAT(scheduler.place(), IsEmpty());
  EXPECT_EQ(scheduler.cause("new-0")->reason, "2 of the 3 pods of its gang exist");
  scheduler.add(pod("new-1", 1000, 0, "g"));
  EXPECT_THAT(ids(scheduler.place()), ElementsAre("new-0", "new-1"));
}

TEST(Scheduler, AMemberThatIsPlacedSinglyCompletesItsGangAtOnce) {
  Scheduler scheduler(node(4, 100));
  scheduler.set_gang("g", 2);
  scheduler.add(pod("server", 1000, 0, "g"));
  scheduler.add(pod("client", 1000, 0, "g"));
  EXPECT_EQ(scheduler.place().size(), 2U);
  scheduler.add(pod("other", 2000));
  scheduler.add(pod("late", 3000, 0, "g"));
  EXPECT_THAT(ids(scheduler.place()), ElementsAre("other"));
  scheduler.remove("client");
  scheduler.remove("server");
  scheduler.add(pod("server-2", 1000, 0, "g"));
  EXPECT_THAT(ids(scheduler.place()), IsEmpty());
  scheduler.remove("other");
  EXPECT_THAT(ids(scheduler.place()), ElementsAre("late", "server-2"));
}

TEST(Scheduler, TwoGangsNeverBlockEachOtherHalfPlaced) {
  Scheduler scheduler(node(4, 100));
  scheduler.set_gang("a", 3);
  scheduler.set_gang("b", 3);
  for (int i = 0; i < 3; ++i) {
    scheduler.add(pod(fmt::format("a{}", i), 1000, 0, "a"));
    scheduler.add(pod(fmt::format("b{}", i), 1000, 0, "b"));
  }
  EXPECT_THAT(ids(scheduler.place()), ElementsAre("a0", "a1", "a2"));
  EXPECT_FALSE(scheduler.holds("b0"));
  for (int i = 0; i < 3; ++i) { scheduler.remove(fmt::format("a{}", i)); }
  EXPECT_THAT(ids(scheduler.place()), ElementsAre("b0", "b1", "b2"));
}

TEST(Scheduler, KnowsWhetherOthersWaitForWhatAnOwnerHolds) {
  Scheduler scheduler(node(4, 100));
  scheduler.add(pod("idle", 3000, 0, "", "cluster"));
  scheduler.place();
  EXPECT_FALSE(scheduler.others_want_room_of("cluster"));
  scheduler.add(pod("more", 2000, 0, "", "cluster"));
  scheduler.place();
  EXPECT_FALSE(scheduler.others_want_room_of("cluster"));  // it is its own that waits
  scheduler.set_gang("g", 2);
  for (const char* member : {"g0", "g1"}) { scheduler.add(pod(member, 1000, 0, "g", "other")); }
  scheduler.place();
  EXPECT_TRUE(scheduler.others_want_room_of("cluster"));
  EXPECT_FALSE(scheduler.others_want_room_of("a third, that holds nothing"));
  scheduler.remove("g0");
  scheduler.remove("g1");
  scheduler.add(pod("huge", 9000));
  scheduler.place();
  EXPECT_FALSE(scheduler.others_want_room_of("cluster"));  // never fits, whoever ends
}

TEST(Scheduler, AGangThatCanNeverFitKeepsNobodyWaiting) {
  Scheduler scheduler(node(2, 100));
  scheduler.set_gang("g", 3);
  for (int i = 0; i < 3; ++i) { scheduler.add(pod(fmt::format("g{}", i), 1000, 9, "g")); }
  for (int i = 0; i < 200; ++i) {
    const auto id = fmt::format("p{}", i);
    scheduler.add(pod(id, 1000));
    ASSERT_EQ(scheduler.place().size(), 1U);
    scheduler.remove(id);
  }
  EXPECT_EQ(scheduler.cause("g0")->code, "NeverFits");
}

TEST(Scheduler, GivesDevicesByNumberAndTakesThemBack) {
  Scheduler scheduler(node(8, 100, 2));
  auto gpu_pod = [](std::string id, int gpus) {
    auto out = pod(std::move(id), 0);
    out.requests["nvidia.com/gpu"] = Quantity::from_units(gpus);
    return out;
  };
  scheduler.add(gpu_pod("a", 1));
  scheduler.add(gpu_pod("b", 1));
  scheduler.add(gpu_pod("c", 1));
  const auto placed = scheduler.place();
  ASSERT_EQ(placed.size(), 2U);
  EXPECT_THAT(placed[0].devices.at("nvidia.com/gpu"), ElementsAre(0));
  EXPECT_THAT(placed[1].devices.at("nvidia.com/gpu"), ElementsAre(1));
  EXPECT_EQ(scheduler.cause("c")->code, "InsufficientGpu");
  scheduler.remove("b");
  const auto next = scheduler.place();
  EXPECT_THAT(next.at(0).devices.at("nvidia.com/gpu"), ElementsAre(1));
}

TEST(Scheduler, RunsNoMorePodsAtOnceThanTheNodeMay) {
  Scheduler scheduler(node(8, 100, 0, 2));
  for (const char* id : {"a", "b", "c"}) { scheduler.add(pod(id, 100)); }
  EXPECT_THAT(ids(scheduler.place()), ElementsAre("a", "b"));
  EXPECT_EQ(scheduler.cause("c")->code, "InsufficientPods");
  EXPECT_EQ(scheduler.cause("c")->reason, "asks for 1 of pods; 0 of 2 is free");
  scheduler.remove("a");
  EXPECT_THAT(ids(scheduler.place()), ElementsAre("c"));
}

TEST(Scheduler, AdoptsWhatRanBeforeEvenWhenTheNodeShrank) {
  Scheduler scheduler(node(1, 100));
  scheduler.set_gang("g", 2);
  scheduler.adopt(pod("g0", 1000, 0, "g"), {});
  scheduler.adopt(pod("g1", 1000, 0, "g"), {});
  EXPECT_EQ(scheduler.free().find("cpu")->second.milli(), 0);
  scheduler.add(pod("x", 100));
  EXPECT_THAT(scheduler.place(), IsEmpty());
  scheduler.remove("g0");
  EXPECT_THAT(scheduler.place(), IsEmpty());
  scheduler.remove("g1");
  EXPECT_THAT(ids(scheduler.place()), ElementsAre("x"));
}

TEST(Scheduler, TellsPositionAndHolders) {
  Scheduler scheduler(node(2, 100));
  scheduler.add(pod("a", 1500));
  scheduler.add(pod("b", 500));
  (void)scheduler.place();
  scheduler.add(pod("c", 1000));
  scheduler.add(pod("d", 1000, 1));
  (void)scheduler.place();
  EXPECT_EQ(scheduler.position("c")->position, 2);
  EXPECT_EQ(scheduler.position("c")->length, 2);
  EXPECT_EQ(scheduler.position("d")->position, 1);
  EXPECT_FALSE(scheduler.position("a"));
  EXPECT_EQ(scheduler.holders("cpu", 5).at(0).first, "a");
}

TEST(Scheduler, PlacesNothingWhilePaused) {
  Scheduler scheduler(node(2, 100));
  scheduler.pause(true, "new disks");
  scheduler.add(pod("a", 100));
  EXPECT_THAT(scheduler.place(), IsEmpty());
  EXPECT_EQ(scheduler.cause("a")->code, "QueuePaused");
  EXPECT_EQ(scheduler.cause("a")->reason, "the queue is paused: new disks");
  scheduler.pause(false);
  EXPECT_EQ(scheduler.place().size(), 1U);
}

// Random histories: what is given away never exceeds the node, devices have one holder, gangs are whole.
class SchedulerHistory : public testing::TestWithParam<unsigned> {};

TEST_P(SchedulerHistory, NeverOverCommitsAndKeepsGangsWhole) {
  std::mt19937 random(GetParam());
  const auto below = [&](unsigned n) { return static_cast<int>(random() % n); };
  Scheduler scheduler(node(8, 64, 3, 12));
  struct Known {
    PodRequest request;
    Devices devices;
    bool running = false;
  };
  std::map<std::string, Known> known;
  std::map<std::string, int> gangs;
  std::map<std::string, bool> started;  // gang → had its min_member at once
  int number = 0;
  for (int step = 0; step < 300; ++step) {
    const int what = below(10);
    if (what < 4) {
      auto request = pod(fmt::format("p{}", number++), below(3000), below(3), "",
                         below(2) == 0 ? fmt::format("o{}", below(3)) : "");
      request.requests["memory"] = Quantity::from_units(std::int64_t{below(20)} << 20);
      request.requests["nvidia.com/gpu"] = Quantity::from_units(below(3) == 0 ? below(3) : 0);
      known[request.id] = {.request = request, .devices = {}};
      scheduler.add(request);
    } else if (what == 4) {
      const auto gang = fmt::format("g{}", gangs.size());
      gangs[gang] = 1 + below(4);
      if (below(2) == 0) { scheduler.set_gang(gang, gangs[gang]); }
      const int members = gangs[gang] + below(2);
      for (int i = 0; i < members; ++i) {
        auto request = pod(fmt::format("{}-{}", gang, i), below(2500), below(2), gang);
        known[request.id] = {.request = request, .devices = {}};
        scheduler.add(request);
      }
      scheduler.set_gang(gang, gangs[gang]);
    } else if (!known.empty()) {
      auto victim = std::next(known.begin(), below(static_cast<unsigned>(known.size())));
      scheduler.remove(victim->first);
      known.erase(victim);
    }
    std::map<std::string, int> gang_placed;
    const auto placements = scheduler.place();
    for (const auto& placement : placements) {
      auto& entry = known.at(placement.id);
      ASSERT_FALSE(entry.running);
      entry.running = true;
      entry.devices = placement.devices;
      if (!entry.request.gang.empty()) { ++gang_placed[entry.request.gang]; }
    }
    std::map<std::string, std::int64_t> used;
    std::set<int> devices;
    std::map<std::string, int> holding;
    std::size_t running = 0;
    for (const auto& [id, entry] : known) {
      ASSERT_EQ(entry.running, scheduler.holds(id));
      ASSERT_EQ(!entry.running, scheduler.waits(id));
      if (!entry.running) { continue; }
      ++running;
      if (!entry.request.gang.empty()) { ++holding[entry.request.gang]; }
      for (const auto& [resource, amount] : entry.request.requests) {
        used[resource] += amount.milli();
      }
      const auto given = entry.devices.find("nvidia.com/gpu");
      const std::int64_t asked = entry.request.requests.contains("nvidia.com/gpu")
                                     ? entry.request.requests.at("nvidia.com/gpu").units()
                                     : 0;
      ASSERT_EQ(static_cast<std::int64_t>(given == entry.devices.end() ? 0 : given->second.size()),
                asked);
      if (given == entry.devices.end()) { continue; }
      for (const int device : given->second) {
        ASSERT_TRUE(devices.insert(device).second) << "device " << device << " given twice";
      }
    }
    ASSERT_LE(used["cpu"], 8000);
    ASSERT_LE(used["memory"], (std::int64_t{64} << 20) * 1000);
    ASSERT_LE(running, 12U);
    for (const auto& [gang, placed] : gang_placed) {
      // A gang starts with at least its number at once; later members join only while some of it runs.
      const int before = holding[gang] - placed;
      ASSERT_TRUE(before > 0 || placed >= gangs[gang]) << gang << " was placed in part";
    }
    // Nothing that could start now is left: a second round places nothing.
    ASSERT_THAT(scheduler.place(), IsEmpty());
  }
  for (const auto& [id, entry] : known) { scheduler.remove(id); }
  EXPECT_EQ(scheduler.free().find("cpu")->second.milli(), 8000);
  EXPECT_EQ(scheduler.waiting() + scheduler.running(), 0U);
}

INSTANTIATE_TEST_SUITE_P(Seeds, SchedulerHistory, testing::Range(1U, 21U));

}  // namespace
}  // namespace metier
