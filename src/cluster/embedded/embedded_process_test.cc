// The embedded cluster with real processes: the conformance suite, and what only real pods can show.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "cluster/conformance/cluster_conformance.h"
#include "cluster/controllers/task_set.h"
#include "cluster/embedded/embedded_cluster.h"
#include "cluster/embedded/process_driver.h"
#include "metier/test_paths.h"
#include "resource/testing/memory_object_store.h"

namespace metier {
namespace {

using testing::HasSubstr;

class ProcessSite final : public ClusterSite {
 public:
  ProcessSite() {
    static int number = 0;
    folder_ = (std::filesystem::temp_directory_path() /
               fmt::format("metier-process-{}-{}", getpid(), ++number))
                  .string();
    std::filesystem::create_directories(folder_);
    boot();
  }
  ~ProcessSite() override {
    if (cluster_) {
      (void)run(cluster_->remove(
          {}, {.how = StopOptions::How::forced, .grace = {}, .reason = {}, .message = {}}));
      const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
      while (cluster_->tracked() > 0 && std::chrono::steady_clock::now() < deadline) {
        loop_.restart();
        loop_.run_one_until(deadline);
      }
    }
    shut();
    std::error_code ignored;
    std::filesystem::remove_all(folder_, ignored);
  }
  asio::io_context& loop() override { return loop_; }
  Cluster& cluster() override { return *cluster_; }

  void boot() {
    ProcessDriver::Options options;
    options.data = folder_;
    options.shim = std::string(METIER_BINARY_DIR) + "/shim/metier-shim";
    options.use_zygotes = false;
    driver_ = std::make_unique<ProcessDriver>(loop_.get_executor(), system_clock(), system_random(),
                                              host_cgroups("/", options.force), options);
    EmbeddedOptions embedded;
    embedded.data = folder_;
    embedded.host = {
        .name = "node", .cpu_milli = 4000, .memory = 8LL << 30, .devices = {}, .notes = {}};
    embedded.controllers = {std::make_shared<TaskSetController>()};
    cluster_ = std::make_unique<EmbeddedCluster>(loop_.get_executor(), store_, *driver_,
                                                 std::move(embedded));
    const auto opened = run(cluster_->open());
    EXPECT_TRUE(opened) << opened.error().text();
  }
  // The server dies; its pods live on.
  void shut() {
    if (!cluster_) { return; }
    (void)run(cluster_->close());
    cluster_.reset();
    bool closed = false;
    asio::co_spawn(loop_.get_executor(), driver_->close(),
                   [&](std::exception_ptr) { closed = true; });
    while (!closed) {
      loop_.restart();
      loop_.run_one();
    }
    driver_.reset();
  }

  template <class T>
  T run(Async<T> task) {
    std::optional<T> out;
    asio::co_spawn(loop_.get_executor(), std::move(task),
                   [&](std::exception_ptr, T value) { out.emplace(std::move(value)); });
    while (!out) {
      loop_.restart();
      loop_.run_one();
    }
    return std::move(*out);
  }

  MemoryObjectStore& store() { return store_; }
  const std::string& folder() const { return folder_; }

 private:
  std::string folder_;
  asio::io_context loop_;
  MemoryObjectStore store_{loop_.get_executor()};
  std::unique_ptr<ProcessDriver> driver_;
  std::unique_ptr<EmbeddedCluster> cluster_;
};

INSTANTIATE_TEST_SUITE_P(EmbeddedWithProcesses, ClusterConformance,
                         testing::Values(ClusterCase{
                             "processes", [] { return std::make_unique<ProcessSite>(); }}));

class EmbeddedProcesses : public testing::Test {
 protected:
  Resource shell(const std::string& name, const std::string& script,
                 std::string_view container = "{}", std::string_view spec = "{}") {
    Resource out{
        .api_version = "v1", .kind = "Pod", .metadata = {.name = name, .name_space = "default"}};
    JsonObject base{
        {"name", "base"}, {"image", "shell"}, {"command", JsonArray{"/bin/sh", "-c", script}}};
    const auto fields = parse_json(container).value();
    for (const auto& [key, value] : fields.as_object()) { base[key] = value; }
    JsonObject body{{"restartPolicy", "Never"}, {"containers", JsonArray{std::move(base)}}};
    const auto more = parse_json(spec).value();
    for (const auto& [key, value] : more.as_object()) { body[key] = value; }
    out.body["spec"] = std::move(body);
    return out;
  }
  Resource object(std::string api, std::string kind, std::string name, std::string_view body) {
    Resource out{.api_version = std::move(api),
                 .kind = std::move(kind),
                 .metadata = {.name = std::move(name), .name_space = "default"}};
    const auto fields = parse_json(body).value();
    for (const auto& [key, value] : fields.as_object()) { out.body[key] = value; }
    return out;
  }
  PodStatus status(const std::string& name) {
    const auto object = site.store().get({.name_space = "default", .kind = "Pod", .name = name});
    return object ? pod_status_from_json(object->status) : PodStatus{.phase = PodPhase::unknown};
  }
  bool turn_until(const std::function<bool()>& done) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (!done() && std::chrono::steady_clock::now() < deadline) {
      site.loop().restart();
      site.loop().run_one_until(deadline);
    }
    return done();
  }
  PodStatus end_of(const std::string& name) {
    EXPECT_TRUE(turn_until([&] { return is_terminal(status(name).phase); })) << name;
    return status(name);
  }
  std::string log(const std::string& name) {
    return site
        .run(site.cluster().logs({.name_space = "default", .pod = name}, 0, 1U << 20U,
                                 std::chrono::milliseconds(0)))
        ->bytes;
  }
  void apply(std::vector<Resource> all) {
    const auto applied = site.run(site.cluster().apply(std::move(all)));
    ASSERT_TRUE(applied) << applied.error().text();
  }

  ProcessSite site;
};

TEST_F(EmbeddedProcesses, SecretsConfigAndVolumesAreInsideThePod) {
  apply({object("v1", "Secret", "s", R"({"stringData":{"k":"hidden","f":"in a file"}})"),
         object("v1", "ConfigMap", "c", R"({"data":{"COLOUR":"red"}})"),
         object("v1", "PersistentVolumeClaim", "data", "{}")});
  const std::string volumes =
      R"("volumes":[{"name":"claim","persistentVolumeClaim":{"claimName":"data"}},{"name":"s","secret":{"secretName":"s"}},{"name":"tmp","emptyDir":{}}])";
  const auto at = site.folder() + "/at";
  const auto mounts = fmt::format(
      R"("volumeMounts":[{{"name":"claim","mountPath":"{0}/claim","subPath":"sub"}},{{"name":"s","mountPath":"{0}/secret"}},{{"name":"tmp","mountPath":"{0}/tmp"}}])",
      at);
  apply({shell(
      "writes",
      fmt::format("cd {}; echo kept > claim/file; cat secret/f; echo \" $SECRET $COLOUR\"; echo x "
                  "> tmp/y && cat tmp/y",
                  at),
      "{" + mounts +
          R"(,"env":[{"name":"SECRET","valueFrom":{"secretKeyRef":{"name":"s","key":"k"}}}],"envFrom":[{"configMapRef":{"name":"c"}}]})",
      "{" + volumes + "}")});
  const auto first = end_of("writes");
  ASSERT_EQ(first.phase, PodPhase::succeeded)
      << first.reason << " " << first.message << log("writes");
  EXPECT_EQ(log("writes"), "in a file hidden red\nx\n");
  apply({shell("reads", fmt::format("cd {}; cat claim/file; ls tmp", at), "{" + mounts + "}",
               "{" + volumes + "}")});
  EXPECT_EQ(end_of("reads").phase, PodPhase::succeeded);
  EXPECT_EQ(log("reads"), "kept\n");
  EXPECT_FALSE(std::filesystem::exists(at + "/claim/file"));  // at its path inside the pod only
}

TEST_F(EmbeddedProcesses, ServiceNamesResolveInsidePods) {
  apply({object("v1", "Service", "db",
                R"({"spec":{"selector":{"app":"db"},"ports":[{"port":5432}]}})")});
  auto db =
      shell("db-0", "getent hosts db-0; exec sleep 1000", R"({"ports":[{"containerPort":5432}]})");
  db.metadata.labels["app"] = "db";
  apply({db});
  ASSERT_TRUE(turn_until([&] { return status("db-0").phase == PodPhase::running; }));
  apply({shell("client", "getent hosts db.default.svc; echo $METIER_DB_ADDR")});
  ASSERT_EQ(end_of("client").phase, PodPhase::succeeded) << log("client");
  const auto address = status("db-0").pod_ip;
  EXPECT_TRUE(address.starts_with("127."));
  EXPECT_THAT(log("client"), HasSubstr(address + "  "));
  EXPECT_THAT(log("client"), HasSubstr("\n" + address + "\n"));
}

TEST_F(EmbeddedProcesses, PodsLiveOnWhileTheServerIsAwayAndTheirEndIsReported) {
  const auto gate = site.folder() + "/gate";
  apply({shell("long",
               fmt::format("echo begun; while [ ! -e {} ]; do sleep 0.02; done; echo over; exit 5",
                           gate)),
         shell("queued", "echo ran", R"({"resources":{"requests":{"cpu":"4"}}})"),
         shell("blocks", "exec sleep 1000", R"({"resources":{"requests":{"cpu":"1"}}})")});
  ASSERT_TRUE(turn_until([&] {
    return status("long").phase == PodPhase::running && status("blocks").phase != PodPhase::unknown;
  }));
  site.shut();
  std::filesystem::create_directory(gate);
  site.boot();
  const auto ended = end_of("long");
  EXPECT_EQ(ended.phase, PodPhase::failed);
  EXPECT_EQ(ended.containers.at(0).exit_code, 5);
  EXPECT_EQ(log("long"), "begun\nover\n");
  ASSERT_TRUE(site.run(site.cluster().stop(
      {.name_space = "default", .kind = "Pod", .name = "blocks"},
      {.how = StopOptions::How::forced, .grace = {}, .reason = {}, .message = {}})));
  EXPECT_EQ(end_of("queued").phase, PodPhase::succeeded);
}

TEST_F(EmbeddedProcesses, ExecAndUsageReachARunningPod) {
  apply({shell("runs", "exec sleep 1000", R"({"env":[{"name":"A","value":"b"}]})")});
  ASSERT_TRUE(turn_until([&] { return status("runs").phase == PodPhase::running; }));
  const auto ran = site.run(site.cluster().exec(
      {.name_space = "default", .pod = "runs"},
      {.command = {"/bin/sh", "-c", "echo $A; exit 4"}, .env = {}, .working_dir = {}}));
  ASSERT_TRUE(ran) << ran.error().text();
  EXPECT_EQ(ran->exit_code, 4);
  EXPECT_EQ(ran->output, "b\n");
  EXPECT_TRUE(site.run(site.cluster().usage("default", "runs")));
  EXPECT_TRUE(site.cluster().work_folder("default", "runs"));
}

TEST_F(EmbeddedProcesses, AContainerThatIsNotAliveStartsAnew) {
  const auto lives = site.folder() + "/lives";
  std::filesystem::create_directory(lives);
  apply({shell(
      "stuck", fmt::format("touch {}/$$; exec sleep 1000", lives),
      fmt::format(
          R"({{"livenessProbe":{{"exec":{{"command":["/bin/sh","-c","[ $(ls {} | wc -l) -ge 2 ]"]}},"failureThreshold":1}}}})",
          lives),
      R"({"restartPolicy":"Always","terminationGracePeriodSeconds":1})")});
  ASSERT_TRUE(turn_until([&] {
    return !status("stuck").containers.empty() && status("stuck").containers.back().restarts == 1;
  }));
  EXPECT_EQ(status("stuck").phase, PodPhase::running);
}

TEST_F(EmbeddedProcesses, AGangOfRealPodsRunsTogetherAndEnds) {
  auto set = object("metier.dev/v1", "TaskSet", "gang", R"({"spec":{"replicas":3,"gang":true}})");
  set.body["spec"].get_object()["template"] =
      JsonObject{{"spec", shell("t", "getent hosts gang-0 gang-1 gang-2 | wc -l").body.at("spec")}};
  apply({set});
  const ResourceKey key{.name_space = "default", .kind = "TaskSet", .name = "gang"};
  ASSERT_TRUE(turn_until([&] {
    return string_at(site.store().get(key)->status, "state") == "Succeeded" ||
           string_at(site.store().get(key)->status, "state") == "Failed";
  }));
  EXPECT_EQ(string_at(site.store().get(key)->status, "state"), "Succeeded");
  EXPECT_EQ(log("gang-1"), "3\n");
}

}  // namespace
}  // namespace metier
