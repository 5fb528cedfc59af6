#include "cluster/controllers/mpi/mpi_job.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cluster/controllers/pod_group.h"
#include "resource/pod.h"

namespace metier {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::UnorderedElementsAre;

Resource job_of(std::string_view more = "", std::string_view version = "v1") {
  Resource out{.api_version = "kubeflow.org/" + std::string(version),
               .kind = "MPIJob",
               .metadata = {.name = "job", .name_space = "p", .uid = "u"}};
  out.body["spec"] =
      parse_json(R"({"slotsPerWorker":2,)" + std::string(more) + R"("mpiReplicaSpecs":{
    "Launcher":{"template":{"metadata":{"labels":{"mlrun/uid":"r"}},"spec":{"serviceAccountName":"sa","containers":[{"name":"base",
      "securityContext":{"capabilities":{"add":["IPC_LOCK"]}},"command":["mpirun","-x","A=1","prog"]}]}}},
    "Worker":{"replicas":2,"template":{"metadata":{"labels":{"mlrun/uid":"r"}},"spec":{"containers":[{"name":"base"}]}}}}})")
          .value();
  return out;
}

Decision decide(const Resource& resource, std::vector<Resource> pods = {}, bool group = false) {
  Snapshot snapshot;
  snapshot.pods = std::move(pods);
  if (group) { snapshot.groups.push_back(make_pod_group("job", "p", 3)); }
  return MpiJobController("/lib/metier-mpi").reconcile(resource, snapshot, Facts(), Time{});
}

std::vector<std::string> names(const std::vector<Resource>& resources) {
  std::vector<std::string> out;
  for (const auto& resource : resources) {
    out.push_back(resource.kind + "/" + resource.metadata.name);
  }
  return out;
}
std::vector<std::string> names(const std::vector<ResourceKey>& keys) {
  std::vector<std::string> out;
  for (const auto& key : keys) { out.push_back(key.name); }
  return out;
}

Resource pod(std::string name, PodPhase phase, std::string reason = "") {
  Resource out{
      .api_version = "v1", .kind = "Pod", .metadata = {.name = std::move(name), .name_space = "p"}};
  out.status = to_json(PodStatus{.phase = phase, .reason = std::move(reason)});
  return out;
}

std::string condition(const Decision& decision) {
  std::string out;
  for (const auto& one : decision.status->at("conditions").as_array()) {
    if (one.at("status").as_string() == "True") { out = std::string(one.at("type").as_string()); }
  }
  return out;
}

std::vector<std::string> command_of(const Resource& pod) {
  std::vector<std::string> out;
  for (const auto& word : pod.spec().at("containers").at(0).at("command").as_array()) {
    out.emplace_back(word.as_string());
  }
  return out;
}

TEST(MpiJobController, MakesGangWorkersAndLauncher) {
  const auto decision = decide(job_of());
  ASSERT_THAT(names(decision.create), ElementsAre("PodGroup/job", "Pod/job-worker-0",
                                                  "Pod/job-worker-1", "Pod/job-launcher"));
  EXPECT_EQ(int_in(decision.create[0].spec(), "minMember"), 3);
  const auto& worker = decision.create[2];
  EXPECT_THAT(command_of(worker), ElementsAre("/lib/metier-mpi", "wait"));
  EXPECT_EQ(worker.metadata.labels.at("mpi-job-role"), "worker");
  EXPECT_EQ(worker.metadata.labels.at("mlrun/uid"), "r");
  EXPECT_EQ(worker.metadata.annotations.at(std::string(kRanksAnnotation)), "true");
  EXPECT_EQ(string_in(worker.spec(), "hostname"), "job-worker-1");
  const auto& launcher = decision.create[3];
  EXPECT_THAT(command_of(launcher),
              ElementsAre("/lib/metier-mpi", "launch", "--hosts", "job-worker-0,job-worker-1",
                          "--slots", "2", "--", "mpirun", "-x", "A=1", "prog"));
  EXPECT_EQ(launcher.metadata.labels.at("mpi-job-role"), "launcher");
  for (const auto& made : decision.create) {
    if (made.kind == "Pod") { EXPECT_TRUE(pod_from(made)) << pod_from(made).error().text(); }
  }
  EXPECT_EQ(condition(decision), "Created");
}

TEST(MpiJobController, ObeysTheNewerVersion) {
  const auto decision = decide(
      job_of(R"("runLauncherAsWorker":true,"runPolicy":{"cleanPodPolicy":"None"},)", "v2beta1"));
  ASSERT_EQ(decision.create.size(), 4U);
  EXPECT_THAT(
      command_of(decision.create[3]),
      ElementsAre("/lib/metier-mpi", "launch", "--hosts", "job-launcher,job-worker-0,job-worker-1",
                  "--slots", "2", "--stay", "--", "mpirun", "-x", "A=1", "prog"));
  EXPECT_EQ(decision.create[1].metadata.labels.at("training.kubeflow.org/job-role"), "worker");
}

TEST(MpiJobController, TellsTheLauncherWhichMpiTheJobAsksFor) {
  auto old = job_of();
  old.metadata.annotations["metier.dev/mpi-implementation"] = "MPICH";
  for (const auto& job : {old, job_of(R"("mpiImplementation":"MPICH",)", "v2beta1")}) {
    const auto decision = decide(job);
    ASSERT_EQ(decision.create.size(), 4U);
    const auto words = command_of(decision.create[3]);
    const auto at = std::ranges::find(words, "--implementation");
    ASSERT_NE(at, words.end());
    EXPECT_EQ(*(at + 1), "MPICH");
    EXPECT_LT(at, std::ranges::find(words, "--"));
  }
}

TEST(MpiJobController, ADeadlineIsTheLaunchersAndWithItTheJobs) {
  for (const char* version : {"v1", "v2beta1"}) {
    const auto decision = decide(job_of(R"("runPolicy":{"activeDeadlineSeconds":90},)", version));
    ASSERT_EQ(decision.create.size(), 4U);
    EXPECT_EQ(int_in(decision.create[3].spec(), "activeDeadlineSeconds"), 90);
    EXPECT_FALSE(decision.create[1].spec().contains("activeDeadlineSeconds"));
  }
  const auto ended = decide(job_of(),
                            {pod("job-launcher", PodPhase::failed, "DeadlineExceeded"),
                             pod("job-worker-0", PodPhase::failed)},
                            true);
  EXPECT_EQ(condition(ended), "Failed");
  EXPECT_EQ(string_at(ended.status->at("conditions").as_array().back(), "reason"),
            "DeadlineExceeded");
}

TEST(MpiJobController, WaitsForWorkersWhenAsked) {
  auto job = job_of();
  job.metadata.annotations["metier.dev/launcher-creation-policy"] = "WaitForWorkersReady";
  EXPECT_THAT(names(decide(job).create),
              ElementsAre("PodGroup/job", "Pod/job-worker-0", "Pod/job-worker-1"));
  EXPECT_THAT(
      decide(job, {pod("job-worker-0", PodPhase::running), pod("job-worker-1", PodPhase::pending)},
             true)
          .create,
      IsEmpty());
  EXPECT_THAT(
      names(decide(job,
                   {pod("job-worker-0", PodPhase::running), pod("job-worker-1", PodPhase::running)},
                   true)
                .create),
      ElementsAre("Pod/job-launcher"));
}

TEST(MpiJobController, IsOverWhenLauncherAndWorkersHaveEnded) {
  auto decision =
      decide(job_of(),
             {pod("job-launcher", PodPhase::running), pod("job-worker-0", PodPhase::running),
              pod("job-worker-1", PodPhase::running)},
             true);
  EXPECT_EQ(condition(decision), "Running");
  EXPECT_THAT(decision.stop, IsEmpty());
  decision =
      decide(job_of(),
             {pod("job-launcher", PodPhase::succeeded), pod("job-worker-0", PodPhase::running),
              pod("job-worker-1", PodPhase::succeeded)},
             true);
  EXPECT_EQ(condition(decision), "Created");
  EXPECT_THAT(names(decision.stop), ElementsAre("job-worker-0"));
  EXPECT_EQ(decision.stop_reason, "JobEnded");
  decision = decide(
      job_of(),
      {pod("job-launcher", PodPhase::succeeded), pod("job-worker-0", PodPhase::failed, "JobEnded"),
       pod("job-worker-1", PodPhase::succeeded)},
      true);
  EXPECT_EQ(condition(decision), "Succeeded");
  EXPECT_TRUE(decision.status->as_object().contains("completionTime"));
  auto over = job_of();
  over.status = *decision.status;
  EXPECT_FALSE(decide(over).status);
  EXPECT_THAT(decide(over).create, IsEmpty());
}

TEST(MpiJobController, ALostWorkerEndsTheJobAndALostLauncherItsWorkers) {
  const auto worker =
      decide(job_of(),
             {pod("job-launcher", PodPhase::running), pod("job-worker-0", PodPhase::running),
              pod("job-worker-1", PodPhase::failed, "Killed(SIGKILL)")},
             true);
  EXPECT_THAT(names(worker.stop), UnorderedElementsAre("job-launcher", "job-worker-0"));
  EXPECT_THAT(worker.create, IsEmpty());
  const auto launcher =
      decide(job_of(),
             {pod("job-launcher", PodPhase::failed, "Killed(SIGKILL)"),
              pod("job-worker-0", PodPhase::running), pod("job-worker-1", PodPhase::running)},
             true);
  EXPECT_THAT(names(launcher.stop), UnorderedElementsAre("job-worker-0", "job-worker-1"));
  const auto ended =
      decide(job_of(),
             {pod("job-launcher", PodPhase::failed, "Killed(SIGKILL)"),
              pod("job-worker-0", PodPhase::failed), pod("job-worker-1", PodPhase::failed)},
             true);
  EXPECT_EQ(condition(ended), "Failed");
}

TEST(MpiJobController, WithPolicyNoneWorkersStay) {
  auto decision =
      decide(job_of(R"("cleanPodPolicy":"None",)"),
             {pod("job-launcher", PodPhase::succeeded), pod("job-worker-0", PodPhase::running),
              pod("job-worker-1", PodPhase::running)},
             true);
  EXPECT_EQ(condition(decision), "Succeeded");
  EXPECT_THAT(decision.stop, IsEmpty());
}

TEST(MpiJobController, StoppedBeforeItsPodsWereMadeItFails) {
  auto job = job_of();
  job.metadata.annotations[std::string(kStoppedAnnotation)] = "AbortedByUser";
  const auto decision = decide(job);
  EXPECT_EQ(condition(decision), "Failed");
  EXPECT_THAT(decision.create, IsEmpty());
}

}  // namespace
}  // namespace metier
