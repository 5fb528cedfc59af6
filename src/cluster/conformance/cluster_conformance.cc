#include "cluster/conformance/cluster_conformance.h"

#include <fmt/format.h>
#include <gmock/gmock.h>

namespace metier {
namespace {

using std::chrono::milliseconds;
using testing::ElementsAre;
using testing::UnorderedElementsAre;

constexpr std::string_view kProject = "conformance";

const PodScript kForever{.run = PodScript::Run::until_stopped};

Selector pod_named(const std::string& name) {
  return {.name_space = std::string(kProject), .kind = "Pod", .name = name};
}
ContainerRef log_of(const std::string& pod) {
  return {.name_space = std::string(kProject), .pod = pod};
}

}  // namespace

// GoogleTest complains about suites that nobody instantiates; a test binary may hold only some clusters.
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(ClusterConformance);

Resource conformance_pod(const std::string& name, const PodScript& script, Labels labels) {
  Resource out{
      .api_version = "v1",
      .kind = "Pod",
      .metadata = {.name = name, .name_space = std::string(kProject), .labels = std::move(labels)}};
  auto& annotations = out.metadata.annotations;
  std::string command;
  switch (script.run) {
    case PodScript::Run::at_once: break;
    case PodScript::Run::until_stopped: annotations["fake.metier.dev/run"] = "until-stopped"; break;
    case PodScript::Run::stubborn:
      annotations["fake.metier.dev/run"] = "stubborn";
      command += "trap '' TERM; ";
      break;
  }
  annotations["fake.metier.dev/exit"] = std::to_string(script.exit_code);
  annotations["fake.metier.dev/log"] = script.log;
  command += fmt::format("printf '%s' '{}'; ", script.log);
  command += script.run == PodScript::Run::at_once    ? fmt::format("exit {}", script.exit_code)
             : script.run == PodScript::Run::stubborn ? "while :; do sleep 1; done"
                                                      : "exec sleep 1000";
  JsonObject container{
      {"name", "base"}, {"image", "shell"}, {"command", JsonArray{"/bin/sh", "-c", command}}};
  out.body["spec"] =
      JsonObject{{"restartPolicy", "Never"}, {"containers", JsonArray{std::move(container)}}};
  return out;
}

bool ClusterConformance::turn_until(const std::function<bool()>& done) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (!done() && std::chrono::steady_clock::now() < deadline) {
    site->loop().restart();
    site->loop().run_one_until(deadline);
  }
  return done();
}

Result<void> ClusterConformance::apply(Resource resource) {
  std::vector<Resource> all;
  all.push_back(std::move(resource));
  return run(cluster().apply(std::move(all)));
}

PodStatus ClusterConformance::wait_for(const std::string& pod,
                                       const std::function<bool(const PodStatus&)>& ready) {
  PodStatus last;
  bool found = false;
  const auto handle = cluster().watch(pod_named(pod), [&](const ResourceStatus& status) {
    if (found || status.removed) { return; }
    last = pod_status_from_json(status.status);
    found = ready(last);
  });
  EXPECT_TRUE(turn_until([&] { return found; }))
      << pod << " is " << to_string(last.phase) << " " << last.reason << " " << last.message;
  return last;
}

PodStatus ClusterConformance::wait_for_end(const std::string& pod) {
  return wait_for(pod, [](const PodStatus& status) { return is_terminal(status.phase); });
}

PodStatus ClusterConformance::wait_for_run(const std::string& pod) {
  return wait_for(pod, [](const PodStatus& status) { return status.phase == PodPhase::running; });
}

TEST_P(ClusterConformance, ReportsAPodToItsEnd) {
  ASSERT_TRUE(apply(conformance_pod("ends", {})));
  const auto status = wait_for_end("ends");
  EXPECT_EQ(status.phase, PodPhase::succeeded);
  ASSERT_EQ(status.containers.size(), 1U);
  EXPECT_EQ(status.containers[0].name, "base");
  EXPECT_EQ(status.containers[0].state, ContainerStatus::State::terminated);
  EXPECT_EQ(status.containers[0].exit_code, 0);
}

TEST_P(ClusterConformance, ReportsTheExitCodeOfAFailure) {
  ASSERT_TRUE(apply(conformance_pod("fails", {.exit_code = 3})));
  const auto status = wait_for_end("fails");
  EXPECT_EQ(status.phase, PodPhase::failed);
  ASSERT_EQ(status.containers.size(), 1U);
  EXPECT_EQ(status.containers[0].exit_code, 3);
}

TEST_P(ClusterConformance, ApplyingTheSameAgainDoesNothingAndPodsNeverChange) {
  const auto pod = conformance_pod("same", kForever);
  ASSERT_TRUE(apply(pod));
  wait_for_run("same");
  const auto before = run(cluster().list(pod_named("same")));
  ASSERT_TRUE(apply(pod));
  const auto after = run(cluster().list(pod_named("same")));
  ASSERT_TRUE(before && after);
  ASSERT_EQ(after->size(), 1U);
  EXPECT_EQ(before->at(0).uid, after->at(0).uid);
  EXPECT_FALSE(after->at(0).uid.empty());
  const auto changed = apply(conformance_pod("same", {.exit_code = 9}));
  ASSERT_FALSE(changed);
  EXPECT_EQ(changed.error().kind, ErrorKind::conflict);
}

TEST_P(ClusterConformance, WatchTellsWhatIsThereThenChangesUntilItsHandleDies) {
  ASSERT_TRUE(apply(conformance_pod("first", kForever)));
  wait_for_run("first");
  std::vector<std::string> heard;
  auto handle = cluster().watch({.name_space = std::string(kProject), .kind = "Pod"},
                                [&](const ResourceStatus& status) {
                                  if (heard.empty() || heard.back() != status.key.name) {
                                    heard.push_back(status.key.name);
                                  }
                                });
  ASSERT_TRUE(handle);
  EXPECT_TRUE(heard.empty());  // never from inside the call
  ASSERT_TRUE(turn_until([&] { return !heard.empty(); }));
  ASSERT_TRUE(apply(conformance_pod("second", {})));
  wait_for_end("second");
  EXPECT_THAT(heard, ElementsAre("first", "second"));
  handle->reset();
  ASSERT_TRUE(apply(conformance_pod("third", {})));
  wait_for_end("third");
  EXPECT_THAT(heard, ElementsAre("first", "second"));
}

TEST_P(ClusterConformance, SelectsByProjectNameAndLabels) {
  ASSERT_TRUE(apply(conformance_pod("one", {}, {{"run", "a"}})));
  ASSERT_TRUE(apply(conformance_pod("two", {}, {{"run", "b"}})));
  auto elsewhere = conformance_pod("one", {}, {{"run", "a"}});
  elsewhere.metadata.name_space = "other";
  ASSERT_TRUE(apply(elsewhere));
  const auto names = [&](const Selector& selector) {
    std::vector<std::string> out;
    for (const auto& status : run(cluster().list(selector)).value()) {
      out.push_back(status.key.name_space + "/" + status.key.name);
    }
    return out;
  };
  EXPECT_THAT(names({.kind = "Pod", .labels = {{"run", "a"}}}),
              UnorderedElementsAre("conformance/one", "other/one"));
  EXPECT_THAT(names({.name_space = "conformance", .kind = "Pod"}),
              UnorderedElementsAre("conformance/one", "conformance/two"));
  EXPECT_THAT(names(pod_named("absent")), ElementsAre());
}

TEST_P(ClusterConformance, ReadsTheLogFromAnyOffsetAlsoAfterTheEnd) {
  ASSERT_TRUE(apply(conformance_pod("talks", {.log = "hello\nworld\n"})));
  wait_for_end("talks");
  const auto all = run(cluster().logs(log_of("talks"), 0, 1024, milliseconds(0)));
  ASSERT_TRUE(all) << all.error().text();
  EXPECT_EQ(all->bytes, "hello\nworld\n");
  EXPECT_EQ(all->size, 12U);
  EXPECT_TRUE(all->ended);
  const auto part = run(cluster().logs(log_of("talks"), 6, 3, milliseconds(0)));
  EXPECT_EQ(part->bytes, "wor");
  EXPECT_EQ(part->offset, 6U);
  EXPECT_FALSE(part->ended);  // there is more to read
  const auto past = run(cluster().logs(log_of("talks"), 12, 1024, milliseconds(60'000)));
  EXPECT_EQ(past->bytes, "");
  EXPECT_TRUE(past->ended);
}

TEST_P(ClusterConformance, AWaitingReadAnswersWhenThePodEnds) {
  ASSERT_TRUE(
      apply(conformance_pod("waits", {.run = PodScript::Run::until_stopped, .log = "up\n"})));
  auto first = run(cluster().logs(log_of("waits"), 0, 1024, milliseconds(60'000)));
  ASSERT_TRUE(first);
  EXPECT_EQ(first->bytes, "up\n");
  EXPECT_FALSE(first->ended);
  std::optional<Result<LogChunk>> last;
  asio::co_spawn(
      site->loop().get_executor(), cluster().logs(log_of("waits"), 3, 1024, milliseconds(60'000)),
      [&](std::exception_ptr, Result<LogChunk> chunk) { last.emplace(std::move(chunk)); });
  ASSERT_TRUE(run(
      cluster().stop(pod_named("waits"),
                     {.how = StopOptions::How::forced, .grace = {}, .reason = {}, .message = {}})));
  ASSERT_TRUE(turn_until([&] { return last.has_value(); }));
  ASSERT_TRUE(*last);
  EXPECT_TRUE((*last)->ended);
}

TEST_P(ClusterConformance, StopEndsAPodWithItsReasonAndKeepsItReadable) {
  ASSERT_TRUE(
      apply(conformance_pod("stops", {.run = PodScript::Run::until_stopped, .log = "up\n"})));
  wait_for_run("stops");
  const StopOptions options{.how = StopOptions::How::graceful,
                            .grace = {},
                            .reason = "AbortedByUser",
                            .message = "asked for by alice"};
  ASSERT_TRUE(run(cluster().stop(pod_named("stops"), options)));
  const auto status = wait_for_end("stops");
  EXPECT_EQ(status.phase, PodPhase::failed);
  EXPECT_EQ(status.reason, "AbortedByUser");
  EXPECT_TRUE(run(cluster().stop(pod_named("stops"), options)));  // repeating it is fine
  EXPECT_TRUE(run(cluster().logs(log_of("stops"), 0, 10, milliseconds(0))));
}

TEST_P(ClusterConformance, StopKillsAPodThatIgnoresItAfterTheGrace) {
  ASSERT_TRUE(apply(conformance_pod("stubborn", {.run = PodScript::Run::stubborn, .log = "up\n"})));
  ASSERT_TRUE(
      run(cluster().logs(log_of("stubborn"), 0, 10, milliseconds(60'000))));  // its trap is set
  wait_for_run("stubborn");
  ASSERT_TRUE(run(cluster().stop(pod_named("stubborn"), {.how = StopOptions::How::graceful,
                                                         .grace = milliseconds(50),
                                                         .reason = {},
                                                         .message = {}})));
  const auto status = wait_for_end("stubborn");
  EXPECT_EQ(status.phase, PodPhase::failed);
}

TEST_P(ClusterConformance, RemoveStopsAndForgetsAPod) {
  ASSERT_TRUE(apply(conformance_pod("goes", kForever)));
  wait_for_run("goes");
  const auto old_uid = run(cluster().list(pod_named("goes")))->at(0).uid;
  bool removed = false;
  const auto handle = cluster().watch(pod_named("goes"), [&](const ResourceStatus& status) {
    removed = removed || status.removed;
  });
  ASSERT_TRUE(run(cluster().remove(
      pod_named("goes"),
      {.how = StopOptions::How::forced, .grace = {}, .reason = {}, .message = {}})));
  ASSERT_TRUE(turn_until([&] { return removed; }));
  EXPECT_TRUE(run(cluster().list(pod_named("goes")))->empty());
  EXPECT_EQ(run(cluster().logs(log_of("goes"), 0, 10, milliseconds(0))).error().kind,
            ErrorKind::not_found);
  EXPECT_TRUE(run(cluster().remove(pod_named("goes"), {})));  // repeating it is fine
  ASSERT_TRUE(apply(conformance_pod("goes", {})));
  wait_for_end("goes");
  EXPECT_NE(run(cluster().list(pod_named("goes")))->at(0).uid, old_uid);
}

TEST_P(ClusterConformance, OtherObjectsAreCreatedAndUpdatedByName) {
  Resource map{.api_version = "v1",
               .kind = "ConfigMap",
               .metadata = {.name = "settings", .name_space = std::string(kProject)}};
  map.body["data"] = JsonObject{{"a", "1"}};
  ASSERT_TRUE(apply(map));
  const Selector selector{.name_space = std::string(kProject), .kind = "ConfigMap"};
  const auto before = run(cluster().list(selector)).value();
  ASSERT_EQ(before.size(), 1U);
  map.body["data"] = JsonObject{{"a", "2"}};
  ASSERT_TRUE(apply(map));
  const auto after = run(cluster().list(selector)).value();
  ASSERT_EQ(after.size(), 1U);
  EXPECT_EQ(before[0].uid, after[0].uid);
  EXPECT_GT(after[0].revision, before[0].revision);
  ASSERT_TRUE(run(cluster().remove(selector, {})));
  EXPECT_TRUE(run(cluster().list(selector))->empty());
}

TEST_P(ClusterConformance, AnUnknownNameIsNotFoundEverywhere) {
  EXPECT_EQ(run(cluster().logs(log_of("nobody"), 0, 10, milliseconds(0))).error().kind,
            ErrorKind::not_found);
  EXPECT_EQ(
      run(cluster().exec(log_of("nobody"), {.command = {"true"}, .env = {}, .working_dir = {}}))
          .error()
          .kind,
      ErrorKind::not_found);
  EXPECT_EQ(run(cluster().usage(std::string(kProject), "nobody")).error().kind,
            ErrorKind::not_found);
  EXPECT_EQ(run(cluster().reach(std::string(kProject), "nobody", "80")).error().kind,
            ErrorKind::not_found);
  EXPECT_FALSE(cluster().queue_position(std::string(kProject), "nobody"));
  EXPECT_FALSE(cluster().work_folder(std::string(kProject), "nobody"));
}

TEST_P(ClusterConformance, RefusesBeforeItIsStoredWhatCanNeverFit) {
  auto pod = conformance_pod("huge", {});
  pod.body["spec"].get_object()["containers"].get_array()[0].get_object()["resources"] =
      JsonObject{{"requests", JsonObject{{"cpu", "1000000"}}}};
  const auto verdict = run(cluster().admit(std::span(&pod, 1)));
  ASSERT_TRUE(verdict) << verdict.error().text();
  EXPECT_EQ(verdict->verdict, Admission::Verdict::never_fits);
  EXPECT_EQ(verdict->code, "NeverFits");
  EXPECT_FALSE(verdict->reason.empty());
  const auto small = conformance_pod("small", {});
  EXPECT_EQ(run(cluster().admit(std::span(&small, 1)))->verdict, Admission::Verdict::ok);
  EXPECT_TRUE(run(cluster().probe())->usable);
}

}  // namespace metier
