// The life of deployments against the scripted cluster and a store in memory, with a small kind.
#include "engine/deployments.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>

#include "cluster/fake/fake_cluster.h"
#include "engine/testing/memory_store.h"
#include "kind/testing/deployment_kind.h"

namespace metier {
namespace {

class DeploymentsTest : public ::testing::Test {
 protected:
  DeploymentsTest() : cluster_(io_.get_executor(), clock_), store_(cluster_.objects()) {
    std::string name = (std::filesystem::temp_directory_path() / "metier-deploy-XXXXXX").string();
    data_ = ::mkdtemp(name.data());
    kinds_.add(make_deployment_kind());
    store_.records_.project_bodies["default"] =
        R"({"metadata":{"name":"default"},"spec":{},"status":{"state":"online"}})";
    cluster_.addresses["default/hello/8080"] = "127.9.0.1:8080";
    start();
  }
  ~DeploymentsTest() override {
    stop();
    std::error_code error;
    std::filesystem::remove_all(data_, error);
  }

  void start() {
    EngineOptions options;
    options.data = data_;
    const Ground ground{io_.get_executor(), store_, cluster_, kinds_, clock_, random_,
                        Logger{},           options};
    engine_ = std::make_unique<Engine>(ground);
    ASSERT_TRUE(wait(engine_->open_tokens()));
    ASSERT_TRUE(wait(engine_->start()));
    deployments_ = std::make_unique<Deployments>(ground, *engine_);
    ASSERT_TRUE(wait(deployments_->start()));
    drain();
  }
  void stop() {
    if (!engine_) { return; }
    asio::co_spawn(io_.get_executor(), deployments_->stop(), [](std::exception_ptr) {});
    asio::co_spawn(io_.get_executor(), engine_->stop(), [](std::exception_ptr) {});
    drain();
    deployments_.reset();
    engine_.reset();
  }

  void drain() {
    io_.restart();
    while (io_.poll() > 0) {}
  }
  // As drain, and lets real time pass for timers, until `condition` holds.
  template <class F>
  bool eventually(F condition) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (!condition()) {
      if (std::chrono::steady_clock::now() > end) { return false; }
      io_.restart();
      io_.run_one_for(std::chrono::milliseconds(20));
    }
    return true;
  }
  template <class T>
  T wait(Async<T> task) {
    std::optional<T> out;
    asio::co_spawn(
        io_.get_executor(),
        [](Async<T> inner, std::optional<T>& result) -> Async<void> {
          result.emplace(co_await std::move(inner));
        }(std::move(task), out),
        [](std::exception_ptr error) {
          if (error) { std::rethrow_exception(error); }
        });
    if (!eventually([&] { return out.has_value(); })) {
      throw std::runtime_error("the call did not end");
    }
    return std::move(*out);
  }

  static Json function(std::string_view command = "serve") {
    return JsonObject{{"kind", "test-deployment"},
                      {"metadata", JsonObject{{"name", "hello"}, {"project", "default"}}},
                      {"spec", JsonObject{{"image", "i"}, {"command", command}}}};
  }
  Result<Json> deploy(Json document = function()) {
    auto out =
        wait(deployments_->deploy({.function = std::move(document), .caller = {}, .context = {}}));
    drain();
    return out;
  }
  std::string state() {
    const auto view = deployments_->find("default", "hello", "");
    return view ? view->state : "none";
  }
  // What clients read.
  Json record() {
    auto row = store_.records().function("default", "hello", "latest", "");
    return row && *row ? *parse_json((*row)->body) : Json();
  }
  std::size_t objects() { return store_.objects().list(Selector{}).size(); }

  asio::io_context io_;
  ManualClock clock_;
  Random& random_ = system_random();
  FakeCluster cluster_;
  MemoryStore store_;
  KindRegistry kinds_;
  std::string data_;
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<Deployments> deployments_;
};

TEST_F(DeploymentsTest, DeploysAndReportsReadyWithAnAddress) {
  auto answer = deploy();
  ASSERT_TRUE(answer) << answer.error().text();
  EXPECT_EQ(string_at(*answer, "status.state"), "deploying");
  EXPECT_EQ(state(), "deploying");
  EXPECT_EQ(objects(), 2U);
  cluster_.run("default", "hello");
  drain();
  EXPECT_EQ(state(), "ready");
  EXPECT_EQ(string_at(record(), "status.state"), "ready");
  EXPECT_EQ(string_at(record(), "status.address"), "127.9.0.1:8080");
}

TEST_F(DeploymentsTest, TheSameAgainDoesNothingAndAnotherIsANewGeneration) {
  ASSERT_TRUE(deploy());
  cluster_.run("default", "hello");
  drain();
  auto pod = store_.objects().get({"default", "Pod", "hello"});
  ASSERT_TRUE(pod);
  auto again = deploy();
  ASSERT_TRUE(again);
  EXPECT_EQ(string_at(*again, "status.state"), "ready");
  EXPECT_EQ(store_.objects().get({"default", "Pod", "hello"})->metadata.uid, pod->metadata.uid);
  EXPECT_EQ(deployments_->find("default", "hello", "")->generation, 1);
  ASSERT_TRUE(deploy(function("serve2")));
  ASSERT_TRUE(eventually([&] {
    const auto now = store_.objects().get({"default", "Pod", "hello"});
    return now && now->metadata.uid != pod->metadata.uid;
  }));
  drain();
  EXPECT_EQ(deployments_->find("default", "hello", "")->generation, 2);
  EXPECT_EQ(state(), "deploying");  // the old pod's readiness does not count
  cluster_.run("default", "hello");
  drain();
  EXPECT_EQ(state(), "ready");
}

TEST_F(DeploymentsTest, FailsBeforeItWasReadyAndIsUnhealthyAfter) {
  ASSERT_TRUE(deploy());
  cluster_.fail_pod("default", "hello", 3, "Error", "no such module");
  drain();
  EXPECT_EQ(state(), "error");
  EXPECT_EQ(string_at(record(), "status.message"), "no such module");
  ASSERT_TRUE(deploy());  // an error is tried again by the next deploy, even an equal one
  ASSERT_TRUE(eventually([&] { return state() == "deploying"; }));
  ASSERT_TRUE(eventually([&] {
    const auto pod = store_.objects().get({"default", "Pod", "hello"});
    return pod && string_at(pod->status, "phase") != "Failed";
  }));
  cluster_.run("default", "hello");
  drain();
  EXPECT_EQ(state(), "ready");
  cluster_.vanish("default", "hello");
  drain();
  EXPECT_EQ(state(), "unhealthy");
}

TEST_F(DeploymentsTest, RefusesBeforeAnythingIsStored) {
  cluster_.admission.verdict = Admission::Verdict::never_fits;
  cluster_.admission.reason = "hello needs 900 CPUs, the node has 2";
  auto refused = deploy();
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().kind, ErrorKind::exhausted);
  EXPECT_EQ(objects(), 0U);
  EXPECT_TRUE(deployments_->idle());
  EXPECT_TRUE(record().is_null());
  cluster_.admission = {};
  Json unknown = function();
  unknown.at("metadata").get_object()["project"] = "nowhere";
  EXPECT_EQ(deploy(unknown).error().kind, ErrorKind::not_found);
  Json nameless = function();
  nameless.at("metadata").get_object().erase("name");
  EXPECT_EQ(deploy(nameless).error().kind, ErrorKind::invalid);
}

TEST_F(DeploymentsTest, AFailedCommitLeavesNothing) {
  store_.fail_writes = 1;
  auto refused = deploy();
  ASSERT_FALSE(refused);
  EXPECT_EQ(objects(), 0U);
  EXPECT_TRUE(deployments_->idle());
  ASSERT_TRUE(deploy());
}

TEST_F(DeploymentsTest, RemovesPodsRecordAndPlan) {
  ASSERT_TRUE(deploy());
  cluster_.run("default", "hello");
  drain();
  ASSERT_TRUE(wait(deployments_->remove("default", "hello")));
  ASSERT_TRUE(eventually([&] { return deployments_->idle(); }));
  EXPECT_EQ(objects(), 0U);
  EXPECT_TRUE(record().is_null());
  EXPECT_FALSE(*read_deployment(store_.records(), "default/hello"));
}

TEST_F(DeploymentsTest, ARemovalThatCannotBeRecordedIsTriedAgain) {
  ASSERT_TRUE(deploy());
  cluster_.hold(FakeCluster::Op::remove);
  ASSERT_TRUE(wait(deployments_->remove("default", "hello")));
  drain();
  store_.fail_writes = 1;
  cluster_.release(FakeCluster::Op::remove);
  ASSERT_TRUE(eventually([&] { return deployments_->idle(); }));
  EXPECT_EQ(store_.fail_writes, 0);
  EXPECT_FALSE(*read_deployment(store_.records(), "default/hello"));
  ASSERT_TRUE(deploy());
}

// However often its resources change meanwhile: each change wakes who waits.
TEST_F(DeploymentsTest, ADeployWaitsForTheRemovalBeforeIt) {
  ASSERT_TRUE(deploy());
  cluster_.hold(FakeCluster::Op::remove);
  ASSERT_TRUE(wait(deployments_->remove("default", "hello")));
  std::optional<Result<Json>> answer;
  asio::co_spawn(
      io_.get_executor(),
      [](Deployments& deployments, Json document, std::optional<Result<Json>>& out) -> Async<void> {
        out = co_await deployments.deploy({.function = std::move(document)});
      }(*deployments_, function(), answer),
      [](std::exception_ptr) {});
  for (int i = 0; i < 100; ++i) {
    cluster_.run("default", "hello");
    drain();
  }
  EXPECT_FALSE(answer);
  cluster_.release(FakeCluster::Op::remove);
  ASSERT_TRUE(eventually([&] { return answer.has_value(); }));
  EXPECT_TRUE(*answer);
}

TEST_F(DeploymentsTest, ComesBackAfterARestart) {
  ASSERT_TRUE(deploy());
  cluster_.run("default", "hello");
  drain();
  stop();
  start();
  EXPECT_EQ(state(), "ready");
  EXPECT_EQ(deployments_->find("default", "hello", "")->generation, 1);
  // What the cluster has lost meanwhile is made again.
  stop();
  cluster_.vanish("default", "hello");
  drain();
  start();
  EXPECT_TRUE(store_.objects().get({"default", "Pod", "hello"}));
  EXPECT_EQ(state(), "unhealthy");
}

TEST_F(DeploymentsTest, GoesOnWithARemovalAfterARestart) {
  ASSERT_TRUE(deploy());
  cluster_.hold(FakeCluster::Op::remove);
  ASSERT_TRUE(wait(deployments_->remove("default", "hello")));
  drain();
  stop();
  EXPECT_EQ(objects(), 2U);
  cluster_.release(FakeCluster::Op::remove);
  start();
  ASSERT_TRUE(eventually([&] { return deployments_->idle(); }));
  EXPECT_EQ(objects(), 0U);
}

TEST_F(DeploymentsTest, TriesAgainWhileTheClusterIsAway) {
  cluster_.fail_next(FakeCluster::Op::apply,
                     Error{.kind = ErrorKind::unavailable, .message = "away"}, 2);
  ASSERT_TRUE(deploy());
  ASSERT_TRUE(eventually([&] { return objects() == 2U; }));
  cluster_.run("default", "hello");
  drain();
  EXPECT_EQ(state(), "ready");
}

TEST_F(DeploymentsTest, TwoAtOnceEndAsOne) {
  std::vector<Result<Json>> answers;
  for (const char* command : {"one", "two", "three"}) {
    asio::co_spawn(
        io_.get_executor(),
        [](Deployments& deployments, Json document, std::vector<Result<Json>>& out) -> Async<void> {
          out.push_back(co_await deployments.deploy(
              {.function = std::move(document), .caller = {}, .context = {}}));
        }(*deployments_, function(command), answers),
        [](std::exception_ptr error) { ASSERT_FALSE(error); });
  }
  ASSERT_TRUE(eventually([&] { return answers.size() == 3; }));
  for (const auto& answer : answers) { EXPECT_TRUE(answer) << answer.error().text(); }
  ASSERT_TRUE(eventually([&] { return objects() == 2U; }));
  drain();
  const auto pod = store_.objects().get({"default", "Pod", "hello"});
  ASSERT_TRUE(pod);
  EXPECT_EQ(pod->metadata.annotations.at("metier.dev/generation"),
            std::to_string(deployments_->find("default", "hello", "")->generation));
}

TEST_F(DeploymentsTest, WaitersHearOfChanges) {
  ASSERT_TRUE(deploy());
  const auto seen = deployments_->find("default", "hello", "")->revision;
  std::optional<Result<DeploymentView>> answer;
  asio::co_spawn(
      io_.get_executor(),
      [](Deployments& deployments, std::uint64_t revision,
         std::optional<Result<DeploymentView>>& out) -> Async<void> {
        out = co_await deployments.changed("default", "hello", "", revision,
                                           std::chrono::seconds(30));
      }(*deployments_, seen, answer),
      [](std::exception_ptr) {});
  drain();
  EXPECT_FALSE(answer);
  cluster_.run("default", "hello");
  ASSERT_TRUE(eventually([&] { return answer.has_value(); }));
  EXPECT_EQ((*answer)->state, "ready");
}

}  // namespace
}  // namespace metier
