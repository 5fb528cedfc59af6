#include "cluster/controllers/nuclio/scaling.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

namespace metier {
namespace {

// Looks at processors every two seconds; each look adds to their counters.
struct LoadWindowTest : testing::Test {
  void look(const std::map<std::string, double>& shares, double workers = 1) {
    now += std::chrono::seconds(2);
    for (const auto& [name, share] : shares) {
      ProcessorSample& sample = samples[name];
      sample.busy_seconds += 2 * share * workers;
      sample.events += share > 0 ? 10 : 0;
      sample.workers = workers;
    }
    std::map<std::string, ProcessorSample> answered;
    for (const auto& [name, share] : shares) { answered[name] = samples[name]; }
    load.add(now, answered);
  }

  LoadWindow load;
  std::map<std::string, ProcessorSample> samples;
  std::chrono::steady_clock::time_point now{};
};

TEST_F(LoadWindowTest, SaysHowBusyWorkersAre) {
  EXPECT_FALSE(load.busy(now));
  for (int i = 0; i <= 8; ++i) { look({{"a", 0.75}}, 4); }
  ASSERT_TRUE(load.busy(now));
  EXPECT_NEAR(*load.busy(now), 0.75, 1e-9);
  EXPECT_FALSE(load.busiest(now));
  EXPECT_EQ(load.idle(now).count(), 0);
  // The processor starts anew: its counters begin at 0.
  samples["a"] = {};
  look({{"a", 0}});
  EXPECT_EQ(load.idle(now).count(), 2000);
  samples["a"].in_flight = 1;
  look({{"a", 0}});
  EXPECT_EQ(load.idle(now).count(), 0);
}

TEST_F(LoadWindowTest, IsTheSameWhateverTheReplicasThatShareIt) {
  for (int i = 0; i < 40; ++i) { look({{"a", 0.3}, {"b", 0.3}, {"c", 0.3}}); }
  EXPECT_NEAR(*load.busy(now), 0.9, 1e-9);
  for (int i = 0; i < 3; ++i) { look({{"a", 0.45}, {"b", 0.45}}); }
  EXPECT_NEAR(*load.busy(now), 0.9, 1e-9);
  EXPECT_NEAR(*load.busiest(now), 0.9, 1e-9);
}

TEST_F(LoadWindowTest, RemembersTheBusiestTime) {
  for (int i = 0; i < 30; ++i) { look({{"a", 0.1}}); }
  for (int i = 0; i < 5; ++i) { look({{"a", 0.9}}); }
  for (int i = 0; i < 15; ++i) { look({{"a", 0.1}}); }
  EXPECT_NEAR(*load.busy(now), 0.1, 1e-9);
  EXPECT_NEAR(*load.busiest(now), 0.9, 1e-9);
  for (int i = 0; i < 20; ++i) { look({{"a", 0.1}}); }
  EXPECT_NEAR(*load.busiest(now), 0.1, 1e-9);
}

TEST_F(LoadWindowTest, AProcessorThatDoesNotAnswerOnceIsCountedAfterwards) {
  for (int i = 0; i < 10; ++i) { look({{"a", 0.4}, {"b", 0.4}}); }
  samples["b"].busy_seconds += 0.8;
  look({{"a", 0.4}});
  look({{"a", 0.4}, {"b", 0.4}});
  EXPECT_NEAR(*load.busy(now), 0.8, 1e-9);
  // One that is seen for the first time long after its start counts for the time since the last look only.
  samples["c"].busy_seconds = 1000;
  look({{"a", 0.4}, {"b", 0.4}, {"c", 0.5}});
  EXPECT_LE(*load.busy(now), 1.0 + 1e-9);
}

TEST_F(LoadWindowTest, ALongHandlerIsBusyWhileItRunsAndNotOnceMoreWhenItEnds) {
  samples["a"] = {.busy_now = 1, .in_flight = 1};
  for (int i = 0; i <= 8; ++i) { look({{"a", 0}}, 2); }
  EXPECT_NEAR(*load.busy(now), 0.5, 1e-9);
  samples["a"].busy_seconds = 18;
  samples["a"].busy_now = 0;
  look({{"a", 0}}, 2);
  EXPECT_LE(*load.busy(now), 0.6 + 1e-9);
}

// Callers that ask again at once keep as many replicas wholly busy as they are, if there are so many.
TEST_F(LoadWindowTest, ALoadThatStaysMakesNoReplicasComeAndGo) {
  const ScaleRange range{.least = 1, .most = 10};
  for (const int callers : {1, 2, 3, 5}) {
    load = {};
    samples.clear();
    std::int64_t replicas = 1;
    std::vector<std::int64_t> seen{replicas};
    for (int i = 0; i < 300; ++i) {
      std::map<std::string, double> shares;
      for (int r = 0; r < replicas; ++r) {
        shares[fmt::format("r{}", r)] =
            std::min(1.0, static_cast<double>(callers) / static_cast<double>(replicas)) * 0.98;
      }
      look(shares);
      const Load now_is{.busy = load.busy(now), .busiest = load.busiest(now), .free_cpus = 8};
      replicas = wanted_replicas(range, replicas, now_is);
      if (replicas != seen.back()) { seen.push_back(replicas); }
    }
    EXPECT_TRUE(std::ranges::is_sorted(seen)) << testing::PrintToString(seen);
    EXPECT_EQ(seen.back(), static_cast<std::int64_t>(std::ceil(callers * 0.98 / 0.75)));
  }
}

TEST(WantedReplicas, StayWithinTheNodesFreeProcessors) {
  const ScaleRange range{.least = 1, .most = 10};
  EXPECT_EQ(wanted_replicas(range, 2, {.busy = 1.8, .free_cpus = 8}), 3);
  EXPECT_EQ(wanted_replicas(range, 2, {.busy = 1.8, .free_cpus = 0.1}), 2);
  EXPECT_EQ(wanted_replicas(range, 4, {.busy = 0.8, .busiest = 1.6, .free_cpus = 8}), 3);
  EXPECT_EQ(wanted_replicas(range, 4, {.busy = 0.8, .free_cpus = 8}), 4);  // 60 s have not passed
}

}  // namespace
}  // namespace metier
