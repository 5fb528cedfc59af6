#include "cluster/fake/fake_cluster.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cluster/conformance/cluster_conformance.h"

namespace metier {
namespace {

// Plays pods' scripts and has a node, so that it passes for a cluster.
class FakeSite final : public ClusterSite {
 public:
  FakeSite() : cluster_(loop_.get_executor()) {
    cluster_.play_scripts(true);
    cluster_.on_admit = [](std::span<const Resource> resources) {
      for (const auto& resource : resources) {
        const auto pod = pod_from(resource);
        if (!pod) { continue; }
        if (const auto requests = pod_requests(*pod);
            requests.contains("cpu") && requests.at("cpu").units() > 4) {
          return Admission{.verdict = Admission::Verdict::never_fits,
                           .reason = "the node has 4 cpus",
                           .fix = "ask for less",
                           .code = "NeverFits",
                           .warnings = {}};
        }
      }
      return Admission{};
    };
  }
  asio::io_context& loop() override { return loop_; }
  Cluster& cluster() override { return cluster_; }

 private:
  asio::io_context loop_;
  FakeCluster cluster_;
};

class FakeClusterTest : public testing::Test {
 protected:
  template <class T>
  std::optional<T> run(Async<T> task) {
    auto out = std::make_shared<std::optional<T>>();
    asio::co_spawn(loop.get_executor(), std::move(task),
                   [out](std::exception_ptr, T value) { out->emplace(std::move(value)); });
    loop.restart();
    loop.poll();
    return std::move(*out);
  }
  asio::io_context loop;
  FakeCluster cluster{loop.get_executor()};
};

TEST_F(FakeClusterTest, DoesNothingByItself) {
  ASSERT_TRUE(run(cluster.apply({conformance_pod("a", {})}))->has_value());
  EXPECT_EQ(pod_status_from_json(run(cluster.list({}))->value().at(0).status).phase,
            PodPhase::pending);
  cluster.wait_for("conformance", "a", "InsufficientMemory");
  EXPECT_EQ(pod_status_from_json(run(cluster.list({}))->value().at(0).status).reason,
            "InsufficientMemory");
  cluster.run("conformance", "a");
  cluster.fail_pod("conformance", "a", 137, "OOMKilled");
  const auto status = pod_status_from_json(run(cluster.list({}))->value().at(0).status);
  EXPECT_EQ(status.phase, PodPhase::failed);
  EXPECT_EQ(status.reason, "OOMKilled");
}

TEST_F(FakeClusterTest, FailsAndHoldsOperationsOnDemand) {
  cluster.fail_next(
      FakeCluster::Op::apply,
      Error{.kind = ErrorKind::unavailable, .message = "down", .field = {}, .fix = {}, .code = {}});
  EXPECT_EQ(run(cluster.apply({conformance_pod("a", {})}))->error().kind, ErrorKind::unavailable);
  EXPECT_TRUE(run(cluster.apply({conformance_pod("a", {})}))->has_value());
  cluster.hold(FakeCluster::Op::apply);
  bool done = false;
  asio::co_spawn(loop.get_executor(), cluster.apply({conformance_pod("b", {})}),
                 [&](std::exception_ptr, Result<void> result) { done = result.has_value(); });
  loop.restart();
  loop.poll();
  EXPECT_FALSE(done);
  cluster.release(FakeCluster::Op::apply);
  loop.restart();
  loop.poll();
  EXPECT_TRUE(done);
  EXPECT_EQ(cluster.calls(FakeCluster::Op::apply), 3);
}

INSTANTIATE_TEST_SUITE_P(Fake, ClusterConformance,
                         testing::Values(ClusterCase{"fake",
                                                     [] { return std::make_unique<FakeSite>(); }}));

}  // namespace
}  // namespace metier
