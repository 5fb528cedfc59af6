// The embedded cluster after a restart of the server.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cluster/controllers/pod_group.h"
#include "cluster/testing/embedded_node.h"

namespace metier {
namespace {

using testing::Contains;
using testing::UnorderedElementsAre;

TEST(EmbeddedCluster, AdoptsWhatRunsReportsWhatEndedAndLaunchesTheRest) {
  Node node;
  ASSERT_TRUE(node.apply({cpu_pod("runs", "2"), cpu_pod("ends", "2"), cpu_pod("waits", "2")}));
  node.shut();
  node.driver.forget();
  node.driver.finish("ends", 3);
  node.store.put([] {
    auto pod = cpu_pod("stored", "2");
    pod.metadata.uid = "stored-uid";
    return pod;
  }());
  node.boot();
  node.settle();
  EXPECT_EQ(node.pod("runs").phase, PodPhase::running);
  EXPECT_EQ(node.pod("ends").phase, PodPhase::failed);
  EXPECT_EQ(node.pod("ends").containers.at(0).exit_code, 3);
  EXPECT_THAT(node.driver.recovered, UnorderedElementsAre("runs", "ends"));
  EXPECT_EQ(node.driver.starts.size(), 3U);  // one of the two that waited has the freed place
  node.driver.finish("runs", 0);
  node.settle();
  EXPECT_EQ(node.driver.starts.size(), 4U);
  EXPECT_EQ(node.pod("runs").phase, PodPhase::succeeded);
  EXPECT_EQ(node.pod("waits").phase, PodPhase::running);
  EXPECT_EQ(node.pod("stored").phase, PodPhase::running);
}

TEST(EmbeddedCluster, AdoptsAPodWhoseStartWasNeverWritten) {
  Node node;
  node.store.fail_write = [](const ResourceKey&) -> std::optional<Error> { return std::nullopt; };
  ASSERT_TRUE(node.apply({cpu_pod("runs", "2")}));
  auto object =
      node.store.get({.name_space = "conformance", .kind = "Pod", .name = "runs"}).value();
  node.shut();
  object.status = to_json(PodStatus{});  // as if the server had died before it wrote
  node.store.put(object);
  node.driver.forget();
  node.boot();
  node.settle();
  EXPECT_EQ(node.pod("runs").phase, PodPhase::running);
  EXPECT_EQ(node.driver.starts.size(), 1U);
}

TEST(EmbeddedCluster, ALostPodFailsByNameAndAnUnknownFolderGoes) {
  Node node;
  ASSERT_TRUE(
      node.apply({conformance_pod("lost", kForever), conformance_pod("forgotten", kForever)}));
  const auto unknown = node.driver.id_of("forgotten");
  node.shut();
  node.store.erase({.name_space = "conformance", .kind = "Pod", .name = "forgotten"});
  node.driver.kill("lost", "ShimLost");
  (void)node.run(node.driver.destroy(node.driver.id_of("lost")));
  node.driver.forget();
  node.boot();
  node.settle();
  EXPECT_EQ(node.pod("lost").phase, PodPhase::failed);
  EXPECT_EQ(node.pod("lost").reason, "ShimLost");
  EXPECT_THAT(node.driver.destroyed, Contains(unknown));
}

TEST(EmbeddedCluster, ARemovalGoesOnAfterARestart) {
  Node node;
  ASSERT_TRUE(node.apply({conformance_pod("stubborn", {.run = PodScript::Run::stubborn})}));
  ASSERT_TRUE(node.run(node.cluster->remove({.name_space = "conformance", .kind = "Pod"}, {})));
  node.settle();
  EXPECT_EQ(node.pod("stubborn").phase, PodPhase::running);
  EXPECT_EQ(node.apply({conformance_pod("stubborn", {})}).error().kind, ErrorKind::conflict);
  node.restart();
  node.driver.finish("stubborn", 0);
  node.settle();
  EXPECT_TRUE(node.store.list({}).empty());
  EXPECT_EQ(node.driver.destroyed.size(), 1U);
}

TEST(EmbeddedCluster, TheRemovalOfASetGoesOnAfterARestart) {
  Node node;
  ASSERT_TRUE(node.apply({task_set("set", 2, true, {.run = PodScript::Run::stubborn})}));
  ASSERT_TRUE(node.run(node.cluster->remove({.name_space = "conformance", .kind = "TaskSet"}, {})));
  node.settle();
  ASSERT_EQ(node.pod("set-0").phase, PodPhase::running);
  node.restart();
  node.driver.finish("set-0", 0);
  node.settle();
  EXPECT_TRUE(node.store.get({.name_space = "conformance", .kind = "TaskSet", .name = "set"}));
  node.driver.finish("set-1", 0);
  node.settle();
  EXPECT_TRUE(node.store.list({}).empty());
  EXPECT_EQ(node.driver.starts.size(), 2U);
}

}  // namespace
}  // namespace metier
