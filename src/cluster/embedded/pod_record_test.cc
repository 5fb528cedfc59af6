#include "cluster/embedded/pod_record.h"

#include <gtest/gtest.h>

namespace metier {
namespace {

std::string record(std::string_view type, std::string_view container) {
  return std::string(R"({"v":1,"t":")") + std::string(type) +
         R"(","id":"a","shim":7,"boot":"b","started_us":5,"finished_us":9,"reason":"","message":"","containers":[)" +
         std::string(container) + "]}";
}

TEST(PodRecord, A_signal_is_named_and_counts_as_128_more) {
  const auto read =
      read_pod_record(
          record(
              "exit",
              R"({"name":"m","state":"terminated","starts":1,"signal":11,"code":0,"started_us":5,"finished_us":8})"))
          .value();
  EXPECT_TRUE(read.ended);
  EXPECT_EQ(read.status.phase, PodPhase::failed);
  EXPECT_EQ(read.status.reason, "Killed(SIGSEGV)");
  EXPECT_EQ(read.status.containers[0].exit_code, 139);
  EXPECT_EQ(read.status.containers[0].signal, 11);
}

TEST(PodRecord, What_is_not_a_record_is_refused) {
  EXPECT_FALSE(read_pod_record(""));
  EXPECT_FALSE(read_pod_record("{}"));
  EXPECT_FALSE(read_pod_record(R"({"v":2,"containers":[]})"));
  EXPECT_FALSE(read_pod_record(record("exit", "3")));
}

TEST(PodRecord, A_lost_pod_keeps_what_is_known_and_invents_no_exit_status) {
  const auto last = record(
      "state",
      R"({"name":"done","state":"terminated","starts":1,"code":4,"started_us":5,"finished_us":6},
                                       {"name":"live","state":"running","starts":1,"pid":44,"ticks":3,"started_us":5})");
  const auto read =
      read_pod_record(lost_record(last, "a", "ShimLost", "gone", Time{Duration(10)})).value();
  EXPECT_TRUE(read.ended);
  EXPECT_EQ(read.status.reason, "ShimLost");
  EXPECT_EQ(read.status.containers[0].exit_code, 4);
  EXPECT_EQ(read.status.containers[1].reason, "ShimLost");
  EXPECT_EQ(read.status.containers[1].signal, 0);
  EXPECT_TRUE(
      read_pod_record(lost_record("damaged", "a", "ShimLost", "gone", Time{})).value().ended);
}

}  // namespace
}  // namespace metier
