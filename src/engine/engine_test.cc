// The life of runs against the scripted cluster, a store in memory and a clock that the test moves.
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>

#include "base/files.h"
#include "cluster/fake/fake_cluster.h"
#include "engine/describe.h"
#include "engine/engine.h"
#include "engine/engine_impl.h"
#include "engine/journal.h"
#include "engine/merge.h"
#include "engine/objects.h"
#include "engine/testing/memory_store.h"

namespace metier {
namespace {

constexpr std::string_view kBeside = "-beside";

// A kind as small as can be: one Pod a run, and one beside it when the function has replicas.
class PodKind final : public Kind {
 public:
  const KindTraits& traits() const override {
    static const KindTraits traits{.name = "job", .summary = "a pod"};
    return traits;
  }
  Result<void> validate(const Subject&) const override { return {}; }
  Result<std::vector<Resource>> lower(const Subject& subject, const Site& site) const override {
    Resource pod;
    pod.api_version = "v1";
    pod.kind = "Pod";
    pod.metadata.name = resource_name(subject.run->name(), subject.run->uid(), 0, subject.attempt);
    pod.metadata.name_space = site.name_space;
    pod.metadata.labels = {{"mlrun/uid", subject.run->uid()},
                           {"mlrun/project", subject.run->project()},
                           {"mlrun/class", "job"}};
    pod.body["spec"] = JsonObject{
        {"restartPolicy", "Never"},
        {"terminationGracePeriodSeconds", 5},
        {"containers",
         JsonArray{JsonObject{{"name", "base"}, {"image", "i"}, {"command", JsonArray{"true"}}}}}};
    std::vector<Resource> out{pod};
    if (int_in(subject.function.spec(), "replicas")) {
      out.push_back(pod);
      out.back().metadata.name += kBeside;
    }
    return out;
  }
  Observation observe(const Subject& subject, std::span<const ResourceStatus> resources,
                      Time) const override {
    Observation seen;
    seen.pods_stay = subject.function.text("clean_pod_policy") == "None";
    for (const ResourceStatus& resource : resources) {
      const PodStatus pod = pod_status_from_json(resource.status);
      if (resource.key.name.ends_with(kBeside)) {
        seen.parts.push_back({"worker", 0, resource.key.name});
        continue;
      }
      seen.parts.push_back({"main", 0, resource.key.name});
      seen.reason = pod.reason;
      seen.message = pod.message;
      // As of a kind whose runs share a service: its loss is the run's, whose pod lives on.
      const bool lost = pod.reason == "ServerLost";
      if (pod.phase == PodPhase::running) {
        seen.state = lost ? RunState::error : RunState::running;
      }
      if (pod.phase == PodPhase::succeeded) { seen.state = RunState::completed; }
      if (pod.phase == PodPhase::failed) {
        seen.state = RunState::error;
        Failure failure;
        failure.code = pod.reason;
        for (const ContainerStatus& container : pod.containers) {
          failure.exit_code = container.exit_code;
          failure.signal = container.signal;
          if (failure.code.empty()) { failure.code = container.reason; }
          if (seen.reason.empty()) { seen.reason = container.reason; }
        }
        failure.part = resource.key.name;
        seen.first_failure = failure;
      }
      if (pod.finished != Time{}) { seen.finished = pod.finished; }
    }
    return seen;
  }
};

class CountingRandom final : public Random {
 public:
  void fill(char* out, std::size_t n) override {
    for (std::size_t i = 0; i < n; ++i) { out[i] = static_cast<char>(next_++); }
  }

 private:
  unsigned next_ = 1;
};

class EngineTest : public ::testing::Test {
 protected:
  EngineTest() : cluster_(io_.get_executor(), clock_), store_(cluster_.objects()) {
    std::string name = (std::filesystem::temp_directory_path() / "metier-engine-XXXXXX").string();
    data_ = ::mkdtemp(name.data());
    kinds_.add(std::make_unique<PodKind>());
    store_.records_.project_bodies["default"] =
        R"({"metadata":{"name":"default"},"spec":{},"status":{"state":"online"}})";
    start_engine();
  }
  ~EngineTest() override {
    stop_engine();
    std::error_code error;
    std::filesystem::remove_all(data_, error);
  }

  void start_engine() {
    EngineOptions options;
    options.data = data_;
    options.log_wait = std::chrono::milliseconds(0);
    engine_ = std::make_unique<Engine>(
        Ground{io_.get_executor(), store_, cluster_, kinds_, clock_, random_, Logger{}, options});
    ASSERT_TRUE(wait(engine_->open_tokens()));
    auto started = wait(engine_->start());
    ASSERT_TRUE(started) << started.error().text();
  }
  void stop_engine() {
    if (!engine_) { return; }
    asio::co_spawn(io_.get_executor(), engine_->stop(), [](std::exception_ptr) {});
    drain();
    engine_.reset();
  }

  // The pod of the run that was submitted runs, and its runner has written these lines.
  Result<void> run_with_journal(std::string_view lines) {
    const std::string work = data_ + "/work";
    std::filesystem::create_directories(work);
    cluster_.work_folders["default/" + pod()] = work;
    cluster_.run("default", pod());
    drain();
    return write_file(work + "/journal", lines);
  }

  // Runs the loop until nothing is ready.
  void drain() {
    io_.restart();
    while (io_.poll() > 0) {}
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
    for (int i = 0; i < 1000 && !out; ++i) { drain(); }
    if (!out) { throw std::runtime_error("the call did not end"); }
    return std::move(*out);
  }
  void advance(std::chrono::milliseconds by) {
    clock_.advance(by);
    asio::co_spawn(io_.get_executor(), engine_->run_due(), [](std::exception_ptr) {});
    drain();
  }

  SubmitRequest request(std::string uid = "u1", JsonObject spec = {}) {
    SubmitRequest out;
    out.task =
        JsonObject{{"metadata",
                    JsonObject{{"name", "train"}, {"project", "default"}, {"uid", std::move(uid)}}},
                   {"spec", std::move(spec)}};
    out.function = JsonObject{{"kind", "job"},
                              {"metadata", JsonObject{{"name", "trainer"}, {"project", "default"}}},
                              {"spec", JsonObject{{"image", "i"}}}};
    return out;
  }
  // A run that has ended while its second pod lives.
  void end_beside_another(std::string_view policy) {
    SubmitRequest ask = request();
    ask.function.get_object()["spec"] =
        JsonObject{{"image", "i"}, {"replicas", 1}, {"clean_pod_policy", policy}};
    submit(std::move(ask));
    cluster_.run("default", pod());
    cluster_.run("default", beside());
    drain();
    cluster_.succeed("default", pod());
    drain();
    EXPECT_EQ(state(), "completed");
  }
  std::string beside() { return pod() + std::string(kBeside); }
  // As the record of the run says it.
  std::string beside_state() {
    const metier::Run known = run();
    const JsonArray* parts = array_in(known.status(), "parts");
    const JsonObject* part = parts == nullptr ? nullptr : find_part(*parts, "worker-0");
    return std::string(part == nullptr ? "none" : string_in(*part, "state"));
  }
  Json submit(SubmitRequest ask) {
    auto run = wait(engine_->submit(std::move(ask)));
    EXPECT_TRUE(run) << (run ? "" : run.error().text());
    drain();
    return run ? std::move(*run) : Json();
  }
  std::string state(const std::string& uid = "u1") {
    auto row = store_.records().run("default", uid, 0);
    return row && *row ? (*row)->state : "none";
  }
  metier::Run run(const std::string& uid = "u1") {
    return **read_run(store_.records(), "default", uid);
  }
  std::string pod(std::int64_t attempt = 1, const std::string& uid = "u1") {
    return resource_name("train", uid, 0, attempt);
  }
  std::vector<std::string> states(const std::string& uid = "u1") {
    std::vector<std::string> out;
    for (const TimelineRow& row : *store_.records().timeline("default", uid)) {
      if (row.what == "state") { out.emplace_back(string_at(*parse_json(row.detail), "to")); }
    }
    return out;
  }

  asio::io_context io_;
  ManualClock clock_;
  CountingRandom random_;
  FakeCluster cluster_;
  MemoryStore store_;
  KindRegistry kinds_;
  std::string data_;
  std::unique_ptr<Engine> engine_;
};

TEST(FillFunction, DefaultResourcesAreOfKindsWithOneRole) {
  SubmitDefaults defaults;
  defaults.default_resources = *parse_json(R"({"requests":{"cpu":"1"}})");
  const auto filled = [&](std::string_view kind) {
    Function function;
    function.set_kind(kind);
    fill_function(function, defaults);
    const Json* found = function.find("resources");
    return found == nullptr ? "absent" : dump_json(*found);
  };
  EXPECT_EQ(filled("job"), R"({"requests":{"cpu":"1"}})");
  EXPECT_EQ(filled("spark"), "absent") << "it would be refused: its roles have their own";
}

TEST_F(EngineTest, RunsFromSubmitToCompleted) {
  const Json answer = submit(request());
  EXPECT_EQ(string_at(answer, "status.state"), "pending");
  EXPECT_NE(string_at(answer, "status.status_text").find(pod()), std::string::npos);
  EXPECT_EQ(string_at(answer, "spec.output_path"), data_ + "/projects/default/artifacts/u1");
  EXPECT_EQ(cluster_.calls(FakeCluster::Op::apply), 1);
  cluster_.run("default", pod());
  drain();
  EXPECT_EQ(state(), "running");
  cluster_.succeed("default", pod());
  drain();
  EXPECT_EQ(state(), "completed");
  EXPECT_EQ(states(), (std::vector<std::string>{"running", "completed"}));
  EXPECT_EQ(engine_->live_runs(), 0U);
}

TEST_F(EngineTest, RepeatingASubmitGivesTheSameRunOnce) {
  submit(request());
  submit(request());
  EXPECT_EQ(cluster_.calls(FakeCluster::Op::apply), 1);
  SubmitRequest keyed = request("");
  keyed.task.get_object()["metadata"].get_object().erase("uid");
  keyed.caller.idempotency_key = "k";
  const Json first = submit(keyed);
  const Json second = submit(keyed);
  EXPECT_EQ(string_at(first, "metadata.uid"), string_at(second, "metadata.uid"));
  EXPECT_EQ(cluster_.calls(FakeCluster::Op::apply), 2);
}

TEST_F(EngineTest, NothingIsLeftOfASubmitThatCouldNotBeStored) {
  store_.fail_writes = 1;
  auto refused = wait(engine_->submit(request()));
  ASSERT_FALSE(refused);
  EXPECT_EQ(state(), "none");
  EXPECT_EQ(engine_->live_runs(), 0U);
  EXPECT_EQ(cluster_.calls(FakeCluster::Op::apply), 0);
}

TEST_F(EngineTest, RefusesWhatCanNeverFit) {
  cluster_.admission.verdict = Admission::Verdict::never_fits;
  cluster_.admission.code = "NeverFits";
  cluster_.admission.reason = "asks for 1Ti of memory, the machine has 32Gi";
  auto refused = wait(engine_->submit(request()));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().kind, ErrorKind::exhausted);
  EXPECT_EQ(state(), "none");
}

TEST_F(EngineTest, RefusesAnUnknownProjectAndAnUnknownFunction) {
  SubmitRequest ask = request();
  ask.task.get_object()["metadata"].get_object()["project"] = "nowhere";
  EXPECT_EQ(wait(engine_->submit(std::move(ask))).error().kind, ErrorKind::not_found);
  SubmitRequest other = request();
  other.function = nullptr;
  other.function_url = "default/none@0000000000000000000000000000000000000000";
  EXPECT_EQ(wait(engine_->submit(std::move(other))).error().kind, ErrorKind::not_found);
}

TEST_F(EngineTest, TakesResultsFromTheJournalBeforeTheState) {
  submit(request());
  ASSERT_TRUE(run_with_journal(
      R"({"v":1,"op":"phase","name":"user","at":1700000000.5})"
      "\n"
      R"({"v":1,"op":"patch_run","iter":0,"body":{"status.results.accuracy":0.97,"status.state":"completed","metadata.uid":"evil"}})"
      "\n"
      R"({"v":1,"op":"store_run","iter":1,"body":{"metadata":{"name":"train"},"status":{"state":"completed"}}})"
      "\n"));
  cluster_.succeed("default", pod());
  drain();
  EXPECT_EQ(state(), "completed");
  EXPECT_EQ(run().uid(), "u1");
  const auto ended = run();
  const Json* accuracy = find_path(ended.document(), "status.results.accuracy");
  ASSERT_NE(accuracy, nullptr);
  EXPECT_DOUBLE_EQ(accuracy->get_double(), 0.97);
  EXPECT_TRUE(*store_.records().run("default", "u1", 1));
}

TEST_F(EngineTest, NamesTheUsersExceptionAsTheCause) {
  submit(request());
  ASSERT_TRUE(run_with_journal(
      R"({"v":1,"op":"failure","body":{"type":"TypeError","message":"no","file":"t.py","line":3,"code":"HandlerError"}})"
      "\n"));
  cluster_.fail_pod("default", pod(), 1);
  drain();
  EXPECT_EQ(state(), "error");
  EXPECT_EQ(string_in(run().status(), "error"), "TypeError: no");
  EXPECT_EQ(string_in(run().status(), "reason"), "HandlerError");
  EXPECT_EQ(string_at(run().document(), "status.failure.file"), "t.py");
}

TEST_F(EngineTest, OfTwoRanksOfAPodTheFirstThatFailedIsTold) {
  submit(request());
  ASSERT_TRUE(run_with_journal(
      R"({"v":1,"op":"failure","body":{"type":"ValueError","message":"first","rank":1,"at":1700000000.25}})"
      "\n"
      R"({"v":1,"op":"failure","body":{"type":"KeyError","message":"later","rank":0,"at":1700000000.5}})"
      "\n"));
  cluster_.fail_pod("default", pod(), 1);
  drain();
  EXPECT_EQ(string_in(run().status(), "error"), "rank 1: ValueError: first");
}

TEST(JournalCause, IsTheLaunchersElseTheFirstRanksElseTheLatest) {
  const auto told = [](std::initializer_list<const char*> records) {
    Json held;
    for (const char* record : records) { keep_cause(held, *parse_json(record)); }
    return std::string(string_at(held, "message"));
  };
  const char* launcher = R"({"message":"launcher","part":"launcher"})";
  const char* first = R"({"message":"first","rank":1,"at":5.0})";
  const char* second = R"({"message":"second","rank":0,"at":5.25})";
  EXPECT_EQ(told({first, second}), "first");
  EXPECT_EQ(told({second, first}), "first");
  EXPECT_EQ(told({first, launcher}), "launcher");
  EXPECT_EQ(told({launcher, first}), "launcher");
  EXPECT_EQ(told({R"({"message":"one"})", R"({"message":"two"})"}), "two");
}

TEST_F(EngineTest, AnOomKillIsNotHiddenByAnException) {
  submit(request());
  cluster_.run("default", pod());
  cluster_.fail_pod("default", pod(), 137, "OOMKilled", "used 1Gi of 1Gi");
  drain();
  EXPECT_EQ(state(), "error");
  EXPECT_EQ(string_in(run().status(), "reason"), "OOMKilled");
}

TEST_F(EngineTest, AbortsARunAndItsTaskSucceeds) {
  submit(request());
  cluster_.run("default", pod());
  drain();
  auto task = wait(engine_->abort("default", "u1", ""));
  ASSERT_TRUE(task) << task.error().text();
  drain();
  EXPECT_EQ(state(), "aborted");
  EXPECT_EQ(states(), (std::vector<std::string>{"running", "aborting", "aborted"}));
  auto body = engine_->tasks().get(*task);
  ASSERT_TRUE(body && *body);
  EXPECT_EQ(string_at(**body, "status.state"), "succeeded");
  EXPECT_EQ(wait(engine_->abort("default", "u1", "")).error().kind, ErrorKind::conflict);
}

TEST_F(EngineTest, AStubbornPodIsAbortedAfterItsGrace) {
  submit(request());
  cluster_.run("default", pod());
  drain();
  cluster_.fail_next(FakeCluster::Op::stop,
                     Error{.kind = ErrorKind::timed_out, .message = "no answer"});
  ASSERT_TRUE(wait(engine_->abort("default", "u1", "")));
  drain();
  EXPECT_EQ(state(), "aborting");
  advance(std::chrono::seconds(4));
  EXPECT_EQ(state(), "aborting");
  advance(std::chrono::seconds(3));
  EXPECT_EQ(state(), "aborted");
}

TEST_F(EngineTest, RetriesWithANewPodAfterTheDelay) {
  submit(request(
      "u1", {{"retry", JsonObject{{"count", 1}, {"backoff", JsonObject{{"base_delay", "30s"}}}}}}));
  cluster_.run("default", pod());
  cluster_.fail_pod("default", pod(), 1);
  drain();
  EXPECT_EQ(state(), "pendingRetry");
  advance(std::chrono::seconds(29));
  EXPECT_EQ(state(), "pendingRetry");
  advance(std::chrono::seconds(2));
  EXPECT_EQ(state(), "pending");
  EXPECT_NE(pod(1), pod(2));
  cluster_.run("default", pod(2));
  cluster_.fail_pod("default", pod(2), 1);
  drain();
  EXPECT_EQ(state(), "error");
  EXPECT_EQ(int_in(run().status(), "retry_count"), 1);
}

TEST_F(EngineTest, ARunThatLostItsServiceBeforeItBeganIsSubmittedAnew) {
  submit(request());
  cluster_.set_pod("default", pod(), PodStatus{.phase = PodPhase::running, .reason = "ServerLost"});
  drain();
  EXPECT_EQ(cluster_.calls(FakeCluster::Op::stop), 1);
  EXPECT_EQ(cluster_.stops().front().second.how, StopOptions::How::forced);
  advance(std::chrono::milliseconds(0));
  EXPECT_EQ(state(), "pending");  // without spec.retry
  cluster_.run("default", pod(2));
  drain();
  cluster_.succeed("default", pod(2));
  drain();
  EXPECT_EQ(state(), "completed");
  EXPECT_EQ(states(),
            (std::vector<std::string>{"pendingRetry", "pending", "running", "completed"}));
  EXPECT_FALSE(run().status().contains("retry_count"));
  EXPECT_TRUE(was_unbegun(run()));
}

TEST_F(EngineTest, ARunThatLostItsServiceAgainAndAgainFails) {
  submit(request());
  std::int64_t attempt = 1;
  for (; state() != "error" && attempt < 10; ++attempt) {
    cluster_.fail_pod("default", pod(attempt), 1, "ServerLost");
    drain();
    advance(std::chrono::milliseconds(0));
  }
  EXPECT_EQ(attempt - 1, 4);
}

TEST_F(EngineTest, ARunThatHadBegunFailsWithItsService) {
  submit(request());
  cluster_.run("default", pod());
  ASSERT_TRUE(store_.records_.add_timeline({.project = "default",
                                            .uid = "u1",
                                            .attempt = 1,
                                            .at = clock_.now(),
                                            .what = "phase",
                                            .detail = R"({"name":"import","at":1700000000.5})"}));
  cluster_.set_pod("default", pod(), PodStatus{.phase = PodPhase::running, .reason = "ServerLost"});
  drain();
  EXPECT_EQ(state(), "error");
  EXPECT_EQ(string_in(run().status(), "reason"), "ServerLost");
}

TEST_F(EngineTest, AThresholdStopsTheRun) {
  submit(request("u1", {{"state_thresholds", JsonObject{{"executing", "2m"}}}}));
  cluster_.run("default", pod());
  drain();
  advance(std::chrono::seconds(119));
  EXPECT_EQ(state(), "running");
  advance(std::chrono::seconds(2));
  EXPECT_EQ(state(), "aborted");
  EXPECT_EQ(string_in(run().status(), "reason"), "ThresholdExceeded");
  EXPECT_NE(string_in(run().status(), "error").find("executing"), std::string::npos);
}

TEST_F(EngineTest, AThresholdGoesOnOverARestart) {
  submit(request("u1", {{"state_thresholds", JsonObject{{"executing", "2m"}}}}));
  cluster_.run("default", pod());
  drain();
  advance(std::chrono::seconds(119));
  stop_engine();
  start_engine();
  drain();
  EXPECT_EQ(state(), "running");
  advance(std::chrono::seconds(2));
  EXPECT_EQ(state(), "aborted");
}

TEST_F(EngineTest, AClientThatDoesNotRenewIsLost) {
  metier::Run held;
  held.set_uid("c1");
  held.set_name("mine");
  held.set_project("default");
  held.set_state(RunState::running);
  ASSERT_TRUE(store_.records_.put_run(row_of(held, clock_.now(), nullptr)));
  ASSERT_TRUE(wait(engine_->renew_lease("default", "c1")));
  advance(std::chrono::seconds(14));
  ASSERT_TRUE(wait(engine_->renew_lease("default", "c1")));
  advance(std::chrono::seconds(14));
  EXPECT_EQ(state("c1"), "running");
  advance(std::chrono::seconds(2));
  EXPECT_EQ(state("c1"), "error");
  EXPECT_EQ(string_in(run("c1").status(), "reason"), "ClientLost");
}

TEST_F(EngineTest, RecoversRunsAndWhatEndedMeanwhile) {
  submit(request("u1"));
  submit(request("u2"));
  cluster_.run("default", pod(1, "u1"));
  cluster_.run("default", pod(1, "u2"));
  drain();
  stop_engine();
  cluster_.succeed("default", pod(1, "u1"));
  start_engine();
  drain();
  EXPECT_EQ(state("u1"), "completed");
  EXPECT_EQ(state("u2"), "running");
  cluster_.fail_pod("default", pod(1, "u2"), 3);
  drain();
  EXPECT_EQ(state("u2"), "error");
}

TEST_F(EngineTest, FinishesAnAbortThatARestartInterrupted) {
  submit(request());
  cluster_.run("default", pod());
  drain();
  cluster_.hold(FakeCluster::Op::stop);
  ASSERT_TRUE(wait(engine_->abort("default", "u1", "enough")));
  EXPECT_EQ(state(), "aborting");
  stop_engine();
  cluster_.release(FakeCluster::Op::stop);
  start_engine();
  drain();
  EXPECT_EQ(state(), "aborted");
  EXPECT_EQ(string_in(run().status(), "status_text"), "enough");
}

TEST_F(EngineTest, AppliesAgainWhatTheClusterNeverGot) {
  cluster_.fail_next(FakeCluster::Op::apply,
                     Error{.kind = ErrorKind::unavailable, .message = "gone"});
  submit(request());
  EXPECT_EQ(state(), "pending");
  stop_engine();
  start_engine();
  drain();
  EXPECT_GE(cluster_.calls(FakeCluster::Op::apply), 2);  // the first engine may have come to it
  cluster_.run("default", pod());
  drain();
  EXPECT_EQ(state(), "running");
}

// The cluster is away, or something of the same name is on its way out.
TEST_F(EngineTest, AppliesAgainWithoutARestart) {
  for (const ErrorKind kind : {ErrorKind::unavailable, ErrorKind::conflict}) {
    const std::string uid = "u-" + std::string(to_string(kind));
    cluster_.fail_next(FakeCluster::Op::apply, Error{.kind = kind, .message = "not now"}, 2);
    submit(request(uid));
    EXPECT_EQ(state(uid), "pending");
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (!store_.objects().get({"default", "Pod", pod(1, uid)}) &&
           std::chrono::steady_clock::now() < end) {
      io_.restart();
      io_.run_one_for(std::chrono::milliseconds(10));
    }
    cluster_.run("default", pod(1, uid));
    drain();
    EXPECT_EQ(state(uid), "running");
  }
}

TEST_F(EngineTest, APodThatVanishesIsAnError) {
  submit(request());
  cluster_.run("default", pod());
  drain();
  cluster_.vanish("default", pod());
  drain();
  EXPECT_EQ(state(), "error");
  EXPECT_EQ(string_in(run().status(), "reason"), "NodeLost");
}

TEST_F(EngineTest, MasksASecretThatLiesAcrossTwoReads) {
  store_.records_.secrets["default/mlrun-project-secrets-default"]["KEY"] = "s3cret-value";
  engine_->secrets_changed("default");
  submit(request());
  cluster_.run("default", pod());
  cluster_.append_log("default", pod(), "begin s3cr");
  drain();
  auto first = wait(engine_->log("default", "u1", 0, -1, 0, false));
  ASSERT_TRUE(first) << first.error().text();
  EXPECT_EQ(first->bytes, "begin ") << "what may become a secret is held back";
  cluster_.append_log("default", pod(), "et-value end\n");
  auto whole = wait(engine_->log("default", "u1", 0, -1, 0, false));
  EXPECT_EQ(whole->bytes, "begin ************ end\n");
  std::string pieces;
  for (std::uint64_t at = 0; at < whole->size; at += 3) {
    pieces += wait(engine_->log("default", "u1", at, 3, 0, false))->bytes;
  }
  EXPECT_EQ(pieces, whole->bytes);
}

TEST_F(EngineTest, KeepsTheLogWhenItRemovesThePod) {
  submit(request());
  cluster_.run("default", pod());
  cluster_.append_log("default", pod(), "line\n");
  cluster_.succeed("default", pod());
  drain();
  advance(std::chrono::seconds(3601));
  EXPECT_FALSE(cluster_.objects().get({"default", "Pod", pod()}));
  auto log = wait(engine_->log("default", "u1", 0, -1, 0, false));
  ASSERT_TRUE(log) << log.error().text();
  EXPECT_EQ(log->bytes, "line\n");
  EXPECT_EQ(log->state, "completed");
}

TEST_F(EngineTest, AppendsLogsOfClientsButNotOfPods) {
  submit(request());
  EXPECT_EQ(engine_->append_log("default", "u1", "x", true).error().kind, ErrorKind::conflict);
  metier::Run held;
  held.set_uid("c1");
  held.set_name("mine");
  held.set_project("default");
  held.set_state(RunState::running);
  ASSERT_TRUE(store_.records_.put_run(row_of(held, clock_.now(), nullptr)));
  ASSERT_TRUE(engine_->append_log("default", "c1", "one\n", true));
  ASSERT_TRUE(engine_->append_log("default", "c1", "two\n", true));
  EXPECT_EQ(wait(engine_->log("default", "c1", 4, -1, 0, false))->bytes, "two\n");
  EXPECT_EQ(engine_->append_log("default", "../x", "y", true).error().kind, ErrorKind::invalid);
}

TEST_F(EngineTest, ARunTokenEndsWithItsRun) {
  submit(request());
  const std::string token = engine_->tokens().token("default", "u1");
  EXPECT_TRUE(engine_->check_token(token));
  cluster_.run("default", pod());
  cluster_.succeed("default", pod());
  drain();
  EXPECT_FALSE(engine_->check_token(token));
}

TEST_F(EngineTest, AStateIsRecordedLaterWhenTheStoreDoesNotAnswer) {
  submit(request());
  store_.fail_writes = 1;
  cluster_.run("default", pod());
  drain();
  EXPECT_EQ(state(), "pending");
  cluster_.succeed("default", pod());
  for (int i = 0; i < 200 && state() != "completed"; ++i) {
    io_.restart();
    io_.run_for(std::chrono::milliseconds(20));
  }
  EXPECT_EQ(state(), "completed");
}

TEST_F(EngineTest, PodsThatLiveAtTheEndOfTheirRunAreStopped) {
  end_beside_another("All");
  ASSERT_EQ(cluster_.stops().size(), 1U);
  EXPECT_EQ(cluster_.stops().front().second.reason, kRunEnded);
  EXPECT_EQ(beside_state(), "removed");
}

TEST_F(EngineTest, PodsStayAfterTheEndWhereTheKindSaysSoUntilTheirTimeIsOver) {
  end_beside_another("None");
  stop_engine();
  start_engine();
  drain();
  advance(std::chrono::seconds(1800));
  EXPECT_TRUE(cluster_.stops().empty());
  EXPECT_EQ(beside_state(), "running");
  advance(std::chrono::seconds(1801));
  EXPECT_FALSE(cluster_.objects().get({"default", "Pod", beside()}));
  EXPECT_EQ(beside_state(), "removed");
}

TEST_F(EngineTest, PodsThatStayEndWithTheirDeletedRun) {
  end_beside_another("None");
  ASSERT_TRUE(wait(engine_->forget("default", "u1")));
  EXPECT_FALSE(cluster_.objects().get({"default", "Pod", beside()}));
}

TEST_F(EngineTest, AnAbortEndsPodsThatWouldStay) {
  SubmitRequest ask = request();
  ask.function.get_object()["spec"] =
      JsonObject{{"image", "i"}, {"replicas", 1}, {"clean_pod_policy", "None"}};
  submit(std::move(ask));
  cluster_.run("default", pod());
  cluster_.run("default", beside());
  drain();
  ASSERT_TRUE(wait(engine_->abort("default", "u1", "")));
  drain();
  EXPECT_EQ(state(), "aborted");
  const auto left = cluster_.objects().get({"default", "Pod", beside()});
  ASSERT_TRUE(left);
  EXPECT_EQ(pod_status_from_json(left->status).phase, PodPhase::failed);
}

TEST_F(EngineTest, TheEndOfAPartIsRecordedLaterWhenTheStoreDoesNotAnswer) {
  end_beside_another("None");
  store_.fail_writes = 1;
  cluster_.succeed("default", beside());
  drain();
  EXPECT_EQ(beside_state(), "running");
  for (int i = 0; i < 200 && beside_state() != "completed"; ++i) {
    io_.restart();
    io_.run_for(std::chrono::milliseconds(20));
  }
  EXPECT_EQ(beside_state(), "completed");
}

TEST_F(EngineTest, ProjectObjectsKeepSecretsOutOfWhatIsListed) {
  Ground ground{io_.get_executor(), store_, cluster_, kinds_, clock_, random_, Logger{}, {}};
  ProjectObjects objects(ground);
  auto applied = wait(objects.apply(
      "default",
      *parse_json(
          R"({"apiVersion":"v1","kind":"Secret","metadata":{"name":"s"},"stringData":{"k":"canary-value"}})")));
  ASSERT_TRUE(applied) << applied.error().text();
  EXPECT_EQ(dump_json(*applied).find("canary"), std::string::npos);
  EXPECT_EQ((*objects.open_secret("default", "s"))->at("k"), "canary-value");
  auto foreign = wait(objects.apply(
      "default",
      *parse_json(
          R"({"apiVersion":"v1","kind":"Secret","metadata":{"name":"s","namespace":"other"},"stringData":{}})")));
  EXPECT_EQ(foreign.error().kind, ErrorKind::not_found);
  auto pod = wait(objects.apply(
      "default", *parse_json(R"({"apiVersion":"v1","kind":"Pod","metadata":{"name":"s"}})")));
  EXPECT_EQ(pod.error().kind, ErrorKind::invalid);
}

}  // namespace
}  // namespace metier
