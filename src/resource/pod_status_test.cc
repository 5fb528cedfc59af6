#include <gtest/gtest.h>

#include "resource/pod.h"

namespace metier {
namespace {

const Time kStart{std::chrono::seconds(1'700'000'000)};

PodStatus failed_status() {
  PodStatus out;
  out.phase = PodPhase::failed;
  out.reason = "OOMKilled";
  out.message = "used 1 GiB of 1 GiB";
  out.pod_ip = "127.8.0.1";
  out.host = "node";
  out.started = kStart;
  out.finished = kStart + std::chrono::seconds(3);
  set_condition(
      out, {.type = "PodScheduled", .status = true, .reason = "", .message = "", .since = kStart});
  out.containers = {
      {.name = "init",
       .init = true,
       .state = ContainerStatus::State::terminated,
       .reason = "Completed"},
      {.name = "base",
       .state = ContainerStatus::State::terminated,
       .reason = "OOMKilled",
       .exit_code = 137,
       .signal = 9,
       .restarts = 2,
       .started = kStart,
       .finished = kStart + std::chrono::seconds(3),
       .cpu_us = 12345,
       .peak_memory = 1 << 30},
      {.name = "side", .state = ContainerStatus::State::running, .ready = true, .started = kStart}};
  return out;
}

TEST(PodStatus, IsKubernetesJsonBothWays) {
  const auto json = to_json(failed_status());
  EXPECT_EQ(string_at(json, "phase"), "Failed");
  EXPECT_EQ(int_in(json.at("containerStatuses").at(0).at("state").at("terminated").as_object(),
                   "exitCode"),
            137);
  EXPECT_EQ(json.at("initContainerStatuses").as_array().size(), 1U);
  const auto back = pod_status_from_json(json);
  EXPECT_EQ(dump_json(to_json(back)), dump_json(json));
  EXPECT_EQ(back.containers.at(1).peak_memory, 1 << 30);
  EXPECT_EQ(back.finished - back.started, std::chrono::seconds(3));
}

TEST(PodStatus, ReadsAnAbsentOneAsPending) {
  EXPECT_EQ(pod_status_from_json(Json()).phase, PodPhase::pending);
  EXPECT_EQ(pod_status_from_json(
                parse_json(R"({"phase":"Odd","conditions":[1],"containerStatuses":{}})").value())
                .phase,
            PodPhase::unknown);
}

TEST(PodStatus, KeepsTheTimeOfTheLastChange) {
  PodStatus status;
  set_condition(status,
                {.type = "Ready", .status = false, .reason = "A", .message = "", .since = kStart});
  set_condition(status, {.type = "Ready",
                         .status = false,
                         .reason = "B",
                         .message = "",
                         .since = kStart + std::chrono::seconds(1)});
  EXPECT_EQ(status.conditions.at(0).since, kStart);
  EXPECT_EQ(status.conditions.at(0).reason, "B");
  set_condition(status, {.type = "Ready",
                         .status = true,
                         .reason = "",
                         .message = "",
                         .since = kStart + std::chrono::seconds(2)});
  EXPECT_EQ(status.conditions.size(), 1U);
  EXPECT_EQ(status.conditions.at(0).since, kStart + std::chrono::seconds(2));
}

TEST(PodPhase, HasTheNamesOfKubernetes) {
  EXPECT_EQ(to_string(PodPhase::succeeded), "Succeeded");
  EXPECT_EQ(pod_phase_from("Running"), PodPhase::running);
  EXPECT_FALSE(pod_phase_from("running"));
}

}  // namespace
}  // namespace metier
