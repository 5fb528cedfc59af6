#include "cluster/embedded/embedded_cluster.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "cluster/conformance/cluster_conformance.h"
#include "cluster/controllers/pod_group.h"
#include "cluster/controllers/task_set.h"
#include "cluster/testing/fake_pod_driver.h"
#include "resource/testing/memory_object_store.h"

namespace metier {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Pair;
using testing::UnorderedElementsAre;

std::filesystem::path fresh_folder() {
  static int number = 0;
  return std::filesystem::temp_directory_path() / fmt::format("metier-cluster-{}-{}", getpid(), ++number);
}

EmbeddedOptions options_of(const std::filesystem::path& data) {
  EmbeddedOptions out;
  out.data = data.string();
  out.host = {.name = "node", .cpu_milli = 4000, .memory = 8LL << 30, .devices = {}, .notes = {}};
  out.controllers = {std::make_shared<TaskSetController>()};
  return out;
}

// A node with a store in memory and pods without processes; `restart` is the crash of the server.
class Node {
 public:
  explicit Node(std::function<void(EmbeddedOptions&)> change = {}) : folder(fresh_folder()), change_(std::move(change)) { boot(); }
  ~Node() {
    shut();
    std::error_code ignored;
    std::filesystem::remove_all(folder, ignored);
  }

  void boot() {
    auto options = options_of(folder);
    options.clock = &clock;
    if (change_) { change_(options); }
    cluster = std::make_unique<EmbeddedCluster>(loop.get_executor(), store, driver, std::move(options));
    const auto opened = run(cluster->open());
    EXPECT_TRUE(opened) << opened.error().text();
  }
  void shut() {
    (void)run(cluster->close());
    cluster.reset();
  }
  void restart() {
    shut();
    driver.forget();
    boot();
  }

  template <class T>
  T run(Async<T> task) {
    std::optional<T> out;
    std::exception_ptr broken;
    asio::co_spawn(loop.get_executor(), std::move(task), [&](std::exception_ptr error, T value) {
      broken = error;
      out.emplace(std::move(value));
    });
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (!out && std::chrono::steady_clock::now() < deadline) {
      loop.restart();
      loop.run_one_until(deadline);
    }
    if (broken) { std::rethrow_exception(broken); }
    return std::move(out.value());
  }
  // Everything that can happen now has happened.
  void settle() {
    loop.restart();
    while (loop.poll() > 0) { loop.restart(); }
  }
  void advance(std::chrono::milliseconds by) {
    clock.advance(by);
    cluster->wake();
    settle();
  }
  Result<void> apply(std::vector<Resource> resources) {
    auto done = run(cluster->apply(std::move(resources)));
    settle();
    return done;
  }
  PodStatus pod(const std::string& name, const std::string& project = "conformance") {
    const auto object = store.get({.name_space = project, .kind = "Pod", .name = name});
    return object ? pod_status_from_json(object->status) : PodStatus{.phase = PodPhase::unknown};
  }
  void remove(Selector selector) {
    EXPECT_TRUE(run(cluster->remove(std::move(selector), {.how = StopOptions::How::forced, .grace = {}, .reason = {}, .message = {}})));
    settle();
  }

  std::filesystem::path folder;
  asio::io_context loop;
  ManualClock clock;
  MemoryObjectStore store{loop.get_executor()};
  FakePodDriver driver{loop.get_executor(), folder / "pods", clock};
  std::unique_ptr<EmbeddedCluster> cluster;

 private:
  std::function<void(EmbeddedOptions&)> change_;
};

const PodScript kForever{.run = PodScript::Run::until_stopped};

JsonObject& base_of(Resource& pod) { return pod.body["spec"].get_object()["containers"].get_array()[0].get_object(); }

Resource pod_with(const std::string& name, std::string_view container_fields, std::string_view spec_fields = "{}", const PodScript& script = kForever) {
  auto out = conformance_pod(name, script);
  const auto fields = parse_json(container_fields).value();
  for (const auto& [key, value] : fields.as_object()) { base_of(out)[key] = value; }
  const auto more = parse_json(spec_fields).value();
  for (const auto& [key, value] : more.as_object()) { out.body["spec"].get_object()[key] = value; }
  return out;
}

Resource cpu_pod(const std::string& name, std::string_view cpu, const PodScript& script = kForever) {
  return pod_with(name, fmt::format(R"({{"resources":{{"requests":{{"cpu":"{}"}}}}}})", cpu), "{}", script);
}

Resource object_of(std::string api, std::string kind, std::string name, std::string_view body) {
  Resource out{.api_version = std::move(api), .kind = std::move(kind), .metadata = {.name = std::move(name), .name_space = "conformance"}};
  const auto fields = parse_json(body).value();
  for (const auto& [key, value] : fields.as_object()) { out.body[key] = value; }
  return out;
}

std::map<std::string, std::string> env_of(const FakePodDriver& driver, const std::string& pod) {
  const auto& list = driver.launched(pod).env.at("base");
  return {list.begin(), list.end()};
}

Resource task_set(const std::string& name, int replicas, bool gang, const PodScript& script, std::string_view cpu = "1") {
  const auto pod = cpu_pod("template", cpu, script);
  auto out = object_of("metier.dev/v1", "TaskSet", name, fmt::format(R"({{"spec":{{"replicas":{},"gang":{}}}}})", replicas, gang));
  out.body["spec"].get_object()["template"] =
      JsonObject{{"metadata", JsonObject{{"annotations", labels_json(pod.metadata.annotations)}}}, {"spec", pod.body.at("spec")}};
  return out;
}

// --- scheduling --------------------------------------------------------------------------------------------

TEST(EmbeddedCluster, QueuesWhatDoesNotFitAndSaysWhy) {
  Node node;
  ASSERT_TRUE(node.apply({cpu_pod("first", "3"), cpu_pod("second", "2")}));
  EXPECT_EQ(node.pod("first").phase, PodPhase::running);
  EXPECT_EQ(node.pod("second").phase, PodPhase::pending);
  EXPECT_EQ(node.pod("second").reason, "InsufficientCpu");
  const auto position = node.cluster->queue_position("conformance", "second");
  ASSERT_TRUE(position);
  EXPECT_EQ(position->position, 1);
  EXPECT_EQ(position->reason, "asks for 2 of cpu; 1 of 4 is free");
  EXPECT_THAT(position->held_by, ElementsAre(Pair("first", "3")));
  node.driver.finish("first", 0);
  node.settle();
  EXPECT_EQ(node.pod("first").phase, PodPhase::succeeded);
  EXPECT_EQ(node.pod("second").phase, PodPhase::running);
  EXPECT_EQ(node.pod("second").reason, "");
  const auto health = node.run(node.cluster->probe());
  EXPECT_EQ(health->free.at("cpu").milli(), 2000);
}

TEST(EmbeddedCluster, RunsWhatSomebodyElseStored) {
  Node node;
  ASSERT_TRUE(node.run(node.store.put_if_version(conformance_pod("stored", {}), 0)));  // without a uid, as the engine may
  node.settle();
  EXPECT_EQ(node.pod("stored").phase, PodPhase::succeeded);
  ASSERT_TRUE(node.apply({conformance_pod("stored", {})}));
  EXPECT_THAT(node.driver.starts, ElementsAre("stored"));
}

TEST(EmbeddedCluster, RefusesWhatItCannotDoByName) {
  Node node;
  const auto admit = [&](Resource resource) { return node.run(node.cluster->admit(std::span(&resource, 1))); };
  EXPECT_EQ(admit(pod_with("v", "{}", R"({"volumes":[{"name":"v","flexVolume":{"driver":"v3io/fuse"}}]})"))->reason,
            "volume 'v': type 'flexVolume' is not supported on the embedded cluster");
  EXPECT_EQ(admit(object_of("kubeflow.org/v1", "MPIJob", "m", "{}"))->reason, "the embedded cluster has no controller for MPIJob (kubeflow.org/v1)");
  EXPECT_EQ(admit(pod_with("g", R"({"resources":{"limits":{"nvidia.com/gpu":1}}})"))->reason, "g asks for 1 of nvidia.com/gpu; this node has none");
  EXPECT_FALSE(admit(pod_with("bad", R"({"env":{"a":1}})")));
  const auto warned = admit(pod_with("w", "{}", R"({"nodeSelector":{"a":"b"},"serviceAccountName":"robot","priorityClassName":"high","tolerations":[{}]})"));
  ASSERT_EQ(warned->verdict, Admission::Verdict::ok);
  EXPECT_EQ(warned->warnings.size(), 4U);
  EXPECT_EQ(warned->warnings[0].message, "spec.nodeSelector has no effect on the embedded cluster: there is one node");
}

TEST(EmbeddedCluster, RefusesAGangThatTogetherCanNeverFit) {
  Node node;
  const auto resource = task_set("set", 3, true, kForever, "2");
  const auto verdict = node.run(node.cluster->admit(std::span(&resource, 1)));
  EXPECT_EQ(verdict->verdict, Admission::Verdict::never_fits);
  EXPECT_EQ(verdict->reason, "the gang set of 3 pods together asks for 6 of cpu; this node has 4");
}

TEST(EmbeddedCluster, AssignsGpusByNumberAndHidesTheOthers) {
  Node node([](EmbeddedOptions& options) { options.host.devices["nvidia.com/gpu"] = {0, 1, 2}; });
  ASSERT_TRUE(node.apply({pod_with("one", R"({"resources":{"limits":{"nvidia.com/gpu":1}}})"), pod_with("two", R"({"resources":{"limits":{"nvidia.com/gpu":2}}})"),
                          pod_with("none", "{}")}));
  EXPECT_EQ(env_of(node.driver, "one").at("CUDA_VISIBLE_DEVICES"), "0");
  EXPECT_EQ(env_of(node.driver, "two").at("NVIDIA_VISIBLE_DEVICES"), "1,2");
  EXPECT_EQ(env_of(node.driver, "none").at("CUDA_VISIBLE_DEVICES"), "");
  node.restart();
  ASSERT_TRUE(node.apply({pod_with("three", R"({"resources":{"limits":{"nvidia.com/gpu":1}}})")}));
  EXPECT_EQ(node.pod("three").reason, "InsufficientGpu");  // it knows after a restart which are given away
  node.driver.finish("one", 0);
  node.settle();
  EXPECT_EQ(env_of(node.driver, "three").at("CUDA_VISIBLE_DEVICES"), "0");
}

// --- launching ---------------------------------------------------------------------------------------------

TEST(EmbeddedCluster, ResolvesEnvironmentAsKubernetesDoes) {
  Node node([](EmbeddedOptions& options) {
    options.ambient = [](const Resource&) -> Async<Result<Ambient>> {
      co_return Ambient{.env = {{"MLRUN_DBPATH", "http://x"}, {"A", "ambient"}}, .python = "/env/bin/python", .environment = "e1", .path_suffix = "/ours"};
    };
    options.secrets = [](const std::string& project, const std::string& name) -> Result<std::optional<std::map<std::string, std::string>>> {
      if (project != "conformance" || name != "vault") { return std::optional<std::map<std::string, std::string>>(); }
      return std::optional(std::map<std::string, std::string>{{"key", "from-vault"}});
    };
  });
  ASSERT_TRUE(node.apply({object_of("v1", "Secret", "plain", R"({"data":{"b":"aGVsbG8="},"stringData":{"s":"text"}})"),
                          object_of("v1", "ConfigMap", "map", R"({"data":{"x":"1","A":"map"}})")}));
  auto pod = pod_with("env", R"J({"args":["$(SECRET)","$$(SECRET)","$(NOBODY)"],"envFrom":[{"prefix":"P_","configMapRef":{"name":"map"}},{"secretRef":{"name":"absent","optional":true}}],
    "env":[{"name":"A","value":"own"},{"name":"SECRET","valueFrom":{"secretKeyRef":{"name":"plain","key":"b"}}},
           {"name":"VAULT","valueFrom":{"secretKeyRef":{"name":"vault","key":"key"}}},
           {"name":"BOTH","value":"$(A)-$(SECRET)-$(LATER)"},{"name":"LATER","value":"x"},{"name":"A","value":"again"},
           {"name":"NAME","valueFrom":{"fieldRef":{"fieldPath":"metadata.name"}}},{"name":"LABEL","valueFrom":{"fieldRef":{"fieldPath":"metadata.labels['run']"}}},
           {"name":"GONE","valueFrom":{"secretKeyRef":{"name":"absent","key":"k","optional":true}}}]})J");
  pod.metadata.labels["run"] = "r1";
  pod.metadata.annotations["metier.dev/host-process"] = "true";
  ASSERT_TRUE(node.apply({pod}));
  const auto env = env_of(node.driver, "env");
  EXPECT_EQ(env.at("A"), "again");
  EXPECT_EQ(env.at("P_x"), "1");
  EXPECT_EQ(env.at("SECRET"), "hello");
  EXPECT_EQ(env.at("VAULT"), "from-vault");
  EXPECT_EQ(env.at("BOTH"), "own-hello-$(LATER)");
  EXPECT_EQ(env.at("NAME"), "env");
  EXPECT_EQ(env.at("LABEL"), "r1");
  EXPECT_EQ(env.at("MLRUN_DBPATH"), "http://x");
  EXPECT_FALSE(env.contains("GONE"));
  const auto& spec = node.driver.launched("env");
  EXPECT_THAT(spec.pod.containers[0].args, ElementsAre("hello", "$(SECRET)", "$(NOBODY)"));
  EXPECT_EQ(spec.python, "/env/bin/python");
  EXPECT_EQ(spec.path_suffix, "/ours");
  EXPECT_TRUE(spec.host_process);
  EXPECT_EQ(spec.pod_ip, "");
}

TEST(EmbeddedCluster, WaitsForAMissingSecretWithoutHoldingAnything) {
  Node node;
  auto pod = cpu_pod("needs", "4");
  base_of(pod)["env"] = parse_json(R"([{"name":"T","valueFrom":{"secretKeyRef":{"name":"later","key":"k"}}}])").value();
  ASSERT_TRUE(node.apply({pod}));
  EXPECT_EQ(node.pod("needs").phase, PodPhase::pending);
  EXPECT_EQ(node.pod("needs").reason, "SecretMissing");
  EXPECT_EQ(node.pod("needs").message, "secret 'later' does not exist");
  ASSERT_TRUE(node.apply({cpu_pod("other", "4", {})}));
  EXPECT_EQ(node.pod("other").phase, PodPhase::succeeded);
  ASSERT_TRUE(node.apply({object_of("v1", "Secret", "later", R"({"stringData":{"wrong":"x"}})")}));
  EXPECT_EQ(node.pod("needs").message, "secret 'later' has no key 'k'");
  ASSERT_TRUE(node.apply({object_of("v1", "Secret", "later", R"({"stringData":{"k":"v"}})")}));
  EXPECT_EQ(node.pod("needs").phase, PodPhase::running);
  EXPECT_EQ(env_of(node.driver, "needs").at("T"), "v");
}

TEST(EmbeddedCluster, GivesVolumesTheirFolders) {
  Node node;
  const auto host = node.folder / "host";
  auto pod = pod_with("volumes", R"({"volumeMounts":[{"name":"claim","mountPath":"/c","subPath":"a/b"},{"name":"host","mountPath":"/h"},{"name":"s","mountPath":"/s"},{"name":"tmp","mountPath":"/t"}]})",
                      fmt::format(R"({{"volumes":[{{"name":"claim","persistentVolumeClaim":{{"claimName":"data"}}}},
      {{"name":"host","hostPath":{{"path":"{}","type":"DirectoryOrCreate"}}}},
      {{"name":"s","secret":{{"secretName":"files","items":[{{"key":"a","path":"deep/a.txt"}}]}}}},{{"name":"tmp","emptyDir":{{"medium":"Memory"}}}}]}})", host.string()));
  ASSERT_TRUE(node.apply({pod}));
  EXPECT_EQ(node.pod("volumes").reason, "VolumeMissing");
  ASSERT_TRUE(node.apply({object_of("v1", "PersistentVolumeClaim", "data", R"({"spec":{"accessModes":["ReadWriteOnce"]}})")}));
  EXPECT_EQ(node.pod("volumes").reason, "SecretMissing");
  ASSERT_TRUE(node.apply({object_of("v1", "Secret", "files", R"({"stringData":{"a":"1","b":"2"}})")}));
  ASSERT_EQ(node.pod("volumes").phase, PodPhase::running);
  const auto& volumes = node.driver.launched("volumes").volumes;
  ASSERT_EQ(volumes.size(), 4U);
  EXPECT_EQ(volumes[0].path, (node.folder / "volumes/conformance/data").string());
  EXPECT_TRUE(std::filesystem::is_directory(node.folder / "volumes/conformance/data/a/b"));
  EXPECT_TRUE(std::filesystem::is_directory(host));
  EXPECT_THAT(volumes[2].files, ElementsAre(Pair("deep/a.txt", "1")));
  EXPECT_TRUE(volumes[3].temporary && volumes[3].memory);
}

TEST(EmbeddedCluster, WaitsForAPathOfTheHost) {
  Node node;
  const auto host = node.folder / "later";
  ASSERT_TRUE(node.apply({pod_with("path", "{}", fmt::format(R"({{"volumes":[{{"name":"h","hostPath":{{"path":"{}"}}}}]}})", host.string()))}));
  EXPECT_EQ(node.pod("path").reason, "VolumeMissing");
  std::filesystem::create_directories(host);
  node.advance(std::chrono::seconds(5));
  EXPECT_EQ(node.pod("path").phase, PodPhase::running);
}

TEST(EmbeddedCluster, RefusesVolumesWhereTheHostCannotMount) {
  Node node;
  node.driver.host_limits = {{.type = "NoMountNamespace", .status = true, .reason = "NoMountNamespace", .message = {}, .since = {}}};
  const auto admit = [&](std::string_view path) {
    const auto pod = pod_with("v", R"({"volumeMounts":[{"name":"v","mountPath":"/data"}]})",
                              fmt::format(R"({{"volumes":[{{"name":"v","hostPath":{{"path":"{}"}}}}]}})", path));
    return node.run(node.cluster->admit(std::span(&pod, 1))).value();
  };
  EXPECT_EQ(admit("/data").verdict, Admission::Verdict::ok);
  EXPECT_EQ(admit("/elsewhere").verdict, Admission::Verdict::unsupported);
}

TEST(EmbeddedCluster, FollowsNoLinkOutOfAVolume) {
  Node node;
  const auto claim = node.folder / "volumes/conformance/data";
  std::filesystem::create_directories(claim);
  std::filesystem::create_directory_symlink("/tmp", claim / "escape");
  ASSERT_TRUE(node.apply({object_of("v1", "PersistentVolumeClaim", "data", "{}")}));
  ASSERT_TRUE(node.apply({pod_with("escapes", R"({"volumeMounts":[{"name":"v","mountPath":"/c","subPath":"escape/x"}]})",
                                   R"({"volumes":[{"name":"v","persistentVolumeClaim":{"claimName":"data"}}]})")}));
  EXPECT_EQ(node.pod("escapes").phase, PodPhase::failed);
  EXPECT_THAT(node.pod("escapes").message, HasSubstr("leads out of the volume"));
}

TEST(EmbeddedCluster, WaitsForAnEnvironmentAndFailsByItsCode) {
  auto error = std::make_shared<Error>(Error{.kind = ErrorKind::invalid, .message = "no package numpyy", .field = {}, .fix = {}, .code = "EnvironmentFailed"});
  Node node([error](EmbeddedOptions& options) {
    options.ambient = [error](const Resource&) -> Async<Result<Ambient>> { co_return fail(*error); };
  });
  ASSERT_TRUE(node.apply({conformance_pod("broken", {})}));
  EXPECT_EQ(node.pod("broken").phase, PodPhase::failed);
  EXPECT_EQ(node.pod("broken").reason, "EnvironmentFailed");
  *error = {.kind = ErrorKind::unavailable, .message = "builds", .field = {}, .fix = {}, .code = "EnvironmentBuilding"};
  ASSERT_TRUE(node.apply({conformance_pod("builds", {})}));
  EXPECT_EQ(node.pod("builds").phase, PodPhase::pending);
  EXPECT_EQ(node.pod("builds").reason, "EnvironmentBuilding");
}

TEST(EmbeddedCluster, GivesAddressesOnlyToThoseWhoNeedThemAndNamesThem) {
  Node node;
  ASSERT_TRUE(node.apply({object_of("v1", "Service", "web", R"({"spec":{"selector":{"app":"web"},"ports":[{"name":"http","port":80,"targetPort":"main"}]}})"),
                          object_of("v1", "Service", "peers", R"({"spec":{"clusterIP":"None","selector":{"app":"web"},"ports":[{"port":7}]}})")}));
  EXPECT_TRUE(node.run(node.cluster->reach("conformance", "web", "http")));
  EXPECT_EQ(node.run(node.cluster->reach("conformance", "peers", "")).error().code, "NotReady");
  auto web = pod_with("web-0", R"({"ports":[{"name":"main","containerPort":8080}]})", R"({"hostname":"host0","subdomain":"peers"})");
  web.metadata.labels["app"] = "web";
  ASSERT_TRUE(node.apply({web, conformance_pod("plain", kForever)}));
  const auto address = node.driver.launched("web-0").pod_ip;
  EXPECT_TRUE(address.starts_with("127."));
  EXPECT_EQ(node.pod("web-0").pod_ip, address);
  EXPECT_EQ(node.driver.launched("plain").pod_ip, "");
  EXPECT_EQ(*node.run(node.cluster->reach("conformance", "web", "80")), address + ":8080");
  const auto& hosts = node.driver.launched("plain").hosts;
  EXPECT_THAT(hosts, HasSubstr(address + " web web.conformance"));
  EXPECT_THAT(hosts, HasSubstr(address + " peers peers.conformance"));
  EXPECT_THAT(hosts, HasSubstr("host0.peers"));
  EXPECT_EQ(env_of(node.driver, "plain").at("METIER_WEB_ADDR"), address);
  EXPECT_EQ(env_of(node.driver, "web-0").at("METIER_POD_IP"), address);
  node.restart();
  EXPECT_EQ(*node.run(node.cluster->reach("conformance", "web", "80")), address + ":8080");
}

// --- ends --------------------------------------------------------------------------------------------------

TEST(EmbeddedCluster, ReportsAFailedStartByItsCauseAndFreesWhatItHeld) {
  Node node;
  node.driver.fail_start = [](const LaunchSpec&) { return Error{.kind = ErrorKind::invalid, .message = "no such program", .field = {}, .fix = {}, .code = "ImageUnknown"}; };
  ASSERT_TRUE(node.apply({cpu_pod("bad", "4")}));
  EXPECT_EQ(node.pod("bad").phase, PodPhase::failed);
  EXPECT_EQ(node.pod("bad").reason, "ImageUnknown");
  EXPECT_EQ(node.run(node.cluster->probe())->free.at("cpu").milli(), 4000);
}

TEST(EmbeddedCluster, StopsAPodAtItsDeadline) {
  Node node;
  ASSERT_TRUE(node.apply({pod_with("slow", "{}", R"({"activeDeadlineSeconds":10})")}));
  node.advance(std::chrono::seconds(9));
  EXPECT_EQ(node.pod("slow").phase, PodPhase::running);
  node.advance(std::chrono::seconds(1));
  EXPECT_EQ(node.pod("slow").phase, PodPhase::failed);
  EXPECT_EQ(node.pod("slow").reason, "DeadlineExceeded");
}

TEST(EmbeddedCluster, StopsPodsAtEveryStage) {
  Node node;
  const auto stop = [&](const std::string& name) {
    ASSERT_TRUE(node.run(node.cluster->stop({.name_space = "conformance", .kind = "Pod", .name = name},
                                            {.how = StopOptions::How::graceful, .grace = {}, .reason = "AbortedByUser", .message = {}})));
    node.settle();
  };
  ASSERT_TRUE(node.apply({cpu_pod("runs", "4"), cpu_pod("queued", "1")}));
  stop("queued");
  EXPECT_EQ(node.pod("queued").reason, "AbortedByUser");
  stop("runs");
  EXPECT_EQ(node.pod("runs").reason, "AbortedByUser");
  node.driver.hold_starts(true);
  ASSERT_TRUE(node.apply({cpu_pod("starting", "4")}));
  stop("starting");
  EXPECT_EQ(node.pod("starting").phase, PodPhase::pending);
  node.driver.hold_starts(false);
  node.settle();
  EXPECT_EQ(node.pod("starting").reason, "AbortedByUser");
  EXPECT_EQ(node.run(node.cluster->probe())->free.at("cpu").milli(), 4000);
}

TEST(EmbeddedCluster, RemovesEveryTrace) {
  Node node;
  node.driver.hold_starts(true);
  ASSERT_TRUE(node.apply({cpu_pod("starting", "1"), cpu_pod("queued", "4")}));
  node.remove({.name_space = "conformance", .kind = "Pod"});
  node.driver.hold_starts(false);
  node.settle();
  ASSERT_TRUE(node.apply({cpu_pod("runs", "4"), cpu_pod("ended", "4", {})}));
  node.driver.finish("runs", 0);
  node.settle();
  node.remove({.name_space = "conformance", .kind = "Pod"});
  EXPECT_TRUE(node.store.list({}).empty());
  EXPECT_EQ(node.cluster->tracked(), 0U);
  EXPECT_EQ(node.driver.destroyed.size(), node.driver.starts.size());
  EXPECT_EQ(node.run(node.cluster->probe())->free.at("cpu").milli(), 4000);
}

TEST(EmbeddedCluster, ReadinessFollowsItsProbe) {
  Node node;
  bool healthy = false;
  node.driver.on_exec = [&](const std::string&, const ExecSpec&) { return ExecResult{.id = {}, .exit_code = healthy ? 0 : 1, .signal = 0, .output = "no"}; };
  ASSERT_TRUE(node.apply({pod_with("probed", R"({"readinessProbe":{"exec":{"command":["check"]},"periodSeconds":5,"failureThreshold":2}})")}));
  const auto ready = [&] { return node.pod("probed").containers.at(0).ready; };
  EXPECT_FALSE(ready());
  healthy = true;
  node.advance(std::chrono::seconds(5));
  EXPECT_TRUE(ready());
  healthy = false;
  node.advance(std::chrono::seconds(5));
  EXPECT_TRUE(ready());  // once is not twice
  node.advance(std::chrono::seconds(5));
  EXPECT_FALSE(ready());
}

TEST(EmbeddedCluster, ALivenessProbeThatGivesUpEndsThePod) {
  Node node;
  node.driver.on_exec = [](const std::string&, const ExecSpec&) { return ExecResult{.id = {}, .exit_code = 7, .signal = 0, .output = "stuck"}; };
  ASSERT_TRUE(node.apply({pod_with("stuck", R"({"livenessProbe":{"exec":{"command":["check"]},"initialDelaySeconds":5,"periodSeconds":5,"failureThreshold":3}})")}));
  for (int i = 0; i < 2; ++i) { node.advance(std::chrono::seconds(5)); }
  EXPECT_EQ(node.pod("stuck").phase, PodPhase::running);
  node.advance(std::chrono::seconds(5));
  EXPECT_EQ(node.pod("stuck").phase, PodPhase::failed);
  EXPECT_EQ(node.pod("stuck").reason, "Unhealthy");
  EXPECT_THAT(node.pod("stuck").message, HasSubstr("liveness probe failed 3 times"));
}

TEST(EmbeddedCluster, AFollowedLogGrowsWithoutPolling) {
  Node node;
  ASSERT_TRUE(node.apply({conformance_pod("talks", kForever)}));
  std::optional<Result<LogChunk>> chunk;
  asio::co_spawn(node.loop.get_executor(), node.cluster->logs({.name_space = "conformance", .pod = "talks"}, 0, 100, std::chrono::hours(1)),
                 [&](std::exception_ptr, Result<LogChunk> value) { chunk.emplace(std::move(value)); });
  node.settle();
  EXPECT_FALSE(chunk);
  node.driver.append_log("talks", "step 1\n");
  node.loop.restart();
  while (!chunk && node.loop.run_one_for(std::chrono::seconds(20)) > 0) {}
  ASSERT_TRUE(chunk);
  EXPECT_EQ((*chunk)->bytes, "step 1\n");
  EXPECT_FALSE((*chunk)->ended);
  EXPECT_EQ(node.run(node.cluster->logs({.name_space = "conformance", .pod = "talks", .container = "nobody"}, 0, 1, {})).error().kind, ErrorKind::not_found);
}

TEST(EmbeddedCluster, WritesTheStatusAgainWhenTheDiskRefusedIt) {
  Node node;
  ASSERT_TRUE(node.apply({conformance_pod("ends", kForever)}));
  int refused = 0;
  node.store.fail_write = [&](const ResourceKey&) -> std::optional<Error> {
    if (refused++ > 0) { return std::nullopt; }
    return Error{.kind = ErrorKind::unavailable, .message = "disk full", .field = {}, .fix = {}, .code = {}};
  };
  node.driver.finish("ends", 0);
  node.settle();
  EXPECT_EQ(node.pod("ends").phase, PodPhase::running);
  node.loop.restart();
  while (node.pod("ends").phase == PodPhase::running && node.loop.run_one_for(std::chrono::seconds(20)) > 0) {}
  EXPECT_EQ(node.pod("ends").phase, PodPhase::succeeded);
}

TEST(EmbeddedCluster, AProbeThatDoesNotAnswerInTimeHasFailed) {
  Node node;
  node.driver.hold_execs(true);
  ASSERT_TRUE(node.apply({pod_with("hangs", R"({"livenessProbe":{"exec":{"command":["check"]},"timeoutSeconds":2,"periodSeconds":5,"failureThreshold":1}})")}));
  node.advance(std::chrono::seconds(1));
  EXPECT_EQ(node.pod("hangs").phase, PodPhase::running);
  node.advance(std::chrono::seconds(1));
  EXPECT_EQ(node.pod("hangs").reason, "Unhealthy");
  EXPECT_THAT(node.pod("hangs").message, HasSubstr("no answer within 2 s"));
  node.driver.hold_execs(false);
  node.settle();
}

// --- restarts ----------------------------------------------------------------------------------------------

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
  auto object = node.store.get({.name_space = "conformance", .kind = "Pod", .name = "runs"}).value();
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
  ASSERT_TRUE(node.apply({conformance_pod("lost", kForever), conformance_pod("forgotten", kForever)}));
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

// --- controllers and gangs ---------------------------------------------------------------------------------

std::string state_of(Node& node, const std::string& name) {
  const auto object = node.store.get({.name_space = "conformance", .kind = "TaskSet", .name = name});
  return object ? std::string(string_at(object->status, "state")) : "gone";
}

TEST(EmbeddedCluster, ATaskSetIsDoneWhenAllItsPodsAre) {
  Node node;
  ASSERT_TRUE(node.apply({task_set("set", 3, false, kForever)}));
  EXPECT_EQ(state_of(node, "set"), "Running");
  EXPECT_THAT(node.driver.starts, UnorderedElementsAre("set-0", "set-1", "set-2"));
  for (const auto* pod : {"set-0", "set-1", "set-2"}) { node.driver.finish(pod, 0); }
  node.settle();
  EXPECT_EQ(state_of(node, "set"), "Succeeded");
  node.remove({.name_space = "conformance", .kind = "TaskSet", .name = "set"});
  EXPECT_TRUE(node.store.list({}).empty());
  EXPECT_EQ(node.cluster->tracked(), 0U);
}

TEST(EmbeddedCluster, AFailedTaskEndsTheSetWithItsCause) {
  Node node;
  ASSERT_TRUE(node.apply({task_set("set", 3, false, kForever)}));
  node.driver.kill("set-1", "OOMKilled");
  node.settle();
  EXPECT_EQ(state_of(node, "set"), "Failed");
  const auto object = node.store.get({.name_space = "conformance", .kind = "TaskSet", .name = "set"});
  EXPECT_EQ(string_at(object->status, "reason"), "OOMKilled");
  EXPECT_EQ(node.run(node.cluster->probe())->free.at("cpu").milli(), 4000);
}

TEST(EmbeddedCluster, AStoppedSetMakesNoMorePodsAndARemovedOneLeavesNothing) {
  Node node;
  ASSERT_TRUE(node.apply({task_set("set", 2, false, kForever)}));
  ASSERT_TRUE(node.run(node.cluster->stop({.name_space = "conformance", .kind = "TaskSet", .name = "set"}, {.how = StopOptions::How::graceful, .grace = {}, .reason = "AbortedByUser", .message = {}})));
  node.settle();
  EXPECT_EQ(node.driver.starts.size(), 2U);
  EXPECT_EQ(node.pod("set-0").reason, "AbortedByUser");
  ASSERT_TRUE(node.apply({task_set("other", 2, true, kForever)}));
  node.remove({.name_space = "conformance", .kind = "TaskSet"});
  EXPECT_TRUE(node.store.list({}).empty()) << key_of(node.store.list({}).front()).text();
  EXPECT_EQ(node.driver.destroyed.size(), 4U);
}

TEST(EmbeddedCluster, TwoGangsRunOneAfterTheOther) {
  Node node;
  ASSERT_TRUE(node.apply({task_set("a", 3, true, kForever), task_set("b", 3, true, kForever)}));
  EXPECT_EQ(node.driver.starts.size(), 3U);
  EXPECT_EQ(state_of(node, "b"), "Waiting");
  EXPECT_TRUE(node.driver.launched("a-0").pod_ip.starts_with("127."));
  EXPECT_EQ(node.driver.launched("a-0").share_group, "conformance.a");
  EXPECT_THAT(node.driver.launched("a-0").hosts, HasSubstr(node.driver.launched("a-2").pod_ip + " a-2"));
  for (const auto* pod : {"a-0", "a-1", "a-2"}) { node.driver.finish(pod, 0); }
  node.settle();
  EXPECT_EQ(state_of(node, "a"), "Succeeded");
  EXPECT_EQ(node.driver.starts.size(), 6U);
}

TEST(EmbeddedCluster, WhenTheKthMemberFailsToStartNothingOfTheGangRuns) {
  for (int k = 0; k < 3; ++k) {
    Node node;
    node.driver.fail_start = [k](const LaunchSpec& spec) -> std::optional<Error> {
      if (spec.pod.metadata.name != fmt::format("gang-{}", k)) { return std::nullopt; }
      return Error{.kind = ErrorKind::internal, .message = "fork refused", .field = {}, .fix = {}, .code = "StartFailed"};
    };
    ASSERT_TRUE(node.apply({task_set("gang", 3, true, kForever)}));
    EXPECT_EQ(state_of(node, "gang"), "Failed") << k;
    const auto object = node.store.get({.name_space = "conformance", .kind = "TaskSet", .name = "gang"});
    EXPECT_THAT(string_at(object->status, "message"), HasSubstr(fmt::format("gang-{}", k)));
    EXPECT_EQ(node.run(node.cluster->probe())->free.at("cpu").milli(), 4000);
    for (int i = 0; i < 3; ++i) {
      const auto phase = node.pod(fmt::format("gang-{}", i)).phase;
      EXPECT_TRUE(phase == PodPhase::failed || phase == PodPhase::unknown) << i;
    }
  }
}

TEST(EmbeddedCluster, AGangThatWasHalfStartedIsCompletedAfterARestart) {
  Node node;
  node.driver.hold_starts(true);
  ASSERT_TRUE(node.apply({task_set("gang", 3, true, kForever)}));
  node.shut();  // all were placed durably, none has started
  node.driver.hold_starts(false);
  node.settle();
  node.driver.forget();
  const auto before = node.driver.starts.size();
  node.store.put([] {
    auto pod = cpu_pod("greedy", "2");
    pod.metadata.uid = "greedy-uid";
    return pod;
  }());
  node.boot();
  node.settle();
  EXPECT_EQ(node.pod("greedy").phase, PodPhase::pending);  // it cannot take a member's place
  for (int i = 0; i < 3; ++i) { EXPECT_EQ(node.pod(fmt::format("gang-{}", i)).phase, PodPhase::running) << i; }
  EXPECT_EQ(node.driver.starts.size(), 3U) << before;
}

// --- many --------------------------------------------------------------------------------------------------

TEST(EmbeddedCluster, ManyPodsLeaveNothingBehind) {
  Node node;
  std::vector<Resource> pods;
  for (int i = 0; i < 300; ++i) { pods.push_back(cpu_pod(fmt::format("p{}", i), "500m", {})); }
  ASSERT_TRUE(node.apply(std::move(pods)));
  for (int i = 0; i < 300; ++i) { ASSERT_EQ(node.pod(fmt::format("p{}", i)).phase, PodPhase::succeeded); }
  node.remove({.name_space = "conformance", .kind = "Pod"});
  EXPECT_EQ(node.cluster->tracked(), 0U);
  EXPECT_EQ(node.driver.destroyed.size(), 300U);
}

// --- the suite ---------------------------------------------------------------------------------------------

class EmbeddedSite final : public ClusterSite {
 public:
  asio::io_context& loop() override { return node_.loop; }
  Cluster& cluster() override { return *node_.cluster; }

 private:
  Node node_;
};

INSTANTIATE_TEST_SUITE_P(EmbeddedWithFakePods, ClusterConformance,
                         testing::Values(ClusterCase{"embedded", [] { return std::make_unique<EmbeddedSite>(); }}));

}  // namespace
}  // namespace metier
