#include "cluster/controllers/task_set.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cluster/controllers/pod_group.h"
#include "resource/pod.h"

namespace metier {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

Resource set_of(std::string_view spec) {
  Resource out{
      .api_version = "metier.dev/v1",
      .kind = "TaskSet",
      .metadata = {.name = "set", .name_space = "p", .uid = "u", .labels = {{"run", "r"}}}};
  out.body["spec"] = parse_json(spec).value();
  return out;
}

Decision decide(const Resource& resource, const Snapshot& snapshot = {}) {
  return TaskSetController().reconcile(resource, snapshot, Facts(), Time{});
}

std::vector<std::string> names(const std::vector<Resource>& resources) {
  std::vector<std::string> out;
  for (const auto& resource : resources) {
    out.push_back(resource.kind + "/" + resource.metadata.name);
  }
  return out;
}

Resource pod_in(std::string name, PodPhase phase, std::string reason = "") {
  Resource out{
      .api_version = "v1", .kind = "Pod", .metadata = {.name = std::move(name), .name_space = "p"}};
  out.status = to_json(PodStatus{.phase = phase, .reason = std::move(reason)});
  return out;
}

const Resource kTwo = set_of(
    R"({"replicas":2,"template":{"metadata":{"labels":{"a":"b"},"annotations":{"c":"d"}},"spec":{"containers":[{"name":"base"}]}}})");

TEST(TaskSet, MakesWhatIsMissing) {
  const auto decision = decide(kTwo);
  EXPECT_THAT(names(decision.create), ElementsAre("Pod/set-0", "Pod/set-1"));
  const auto& pod = decision.create[1];
  EXPECT_EQ(pod.metadata.owner->uid, "u");
  EXPECT_EQ(pod.metadata.labels.at("run"), "r");
  EXPECT_EQ(pod.metadata.labels.at("a"), "b");
  EXPECT_EQ(pod.metadata.labels.at("metier.dev/index"), "1");
  EXPECT_EQ(pod.metadata.annotations.at("c"), "d");
  EXPECT_TRUE(pod_from(pod));
  EXPECT_EQ(string_at(*decision.status, "state"), "Waiting");
  EXPECT_THAT(
      names(
          decide(kTwo, {.pods = {pod_in("set-0", PodPhase::running)}, .services = {}, .groups = {}})
              .create),
      ElementsAre("Pod/set-1"));
}

TEST(TaskSet, MakesTheGroupOfAGangFirst) {
  const auto decision = decide(
      set_of(R"({"replicas":2,"gang":true,"template":{"spec":{"containers":[{"name":"base"}]}}})"));
  EXPECT_THAT(names(decision.create), ElementsAre("PodGroup/set", "Pod/set-0", "Pod/set-1"));
  EXPECT_EQ(decision.create[1].metadata.labels.at(std::string(kPodGroupLabel)), "set");
}

TEST(TaskSet, IsDoneWhenAllHaveSucceededAndFailsWithTheFirstCause) {
  const auto done = decide(
      kTwo, {.pods = {pod_in("set-0", PodPhase::succeeded), pod_in("set-1", PodPhase::succeeded)},
             .services = {},
             .groups = {}});
  EXPECT_EQ(string_at(*done.status, "state"), "Succeeded");
  EXPECT_THAT(done.create, IsEmpty());
  const auto failed = decide(kTwo, {.pods = {pod_in("set-0", PodPhase::running),
                                             pod_in("set-1", PodPhase::failed, "OOMKilled")},
                                    .services = {},
                                    .groups = {}});
  EXPECT_EQ(string_at(*failed.status, "state"), "Failed");
  EXPECT_EQ(string_at(*failed.status, "reason"), "OOMKilled");
  EXPECT_THAT(failed.create, IsEmpty());
  ASSERT_EQ(failed.remove.size(), 1U);
  EXPECT_EQ(failed.remove[0].name, "set-0");
}

TEST(TaskSet, DoesNothingOnceItIsOver) {
  auto over = kTwo;
  over.status = JsonObject{{"state", "Succeeded"}};
  const auto decision = decide(over);
  EXPECT_THAT(decision.create, IsEmpty());
  EXPECT_FALSE(decision.status);
}

TEST(TaskSet, CutsLongNamesSoThatEveryPodHasOne) {
  auto resource = set_of(R"({"replicas":11,"template":{"spec":{"containers":[{"name":"base"}]}}})");
  resource.metadata.name = std::string(63, 'x');
  const auto created = decide(resource).create;
  ASSERT_EQ(created.size(), 11U);
  EXPECT_TRUE(is_dns_label(created[10].metadata.name));
  EXPECT_NE(created[10].metadata.name, created[1].metadata.name);
}

}  // namespace
}  // namespace metier
