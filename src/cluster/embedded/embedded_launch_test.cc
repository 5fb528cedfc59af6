// What a pod starts with.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cluster/controllers/pod_group.h"
#include "cluster/testing/embedded_node.h"

namespace metier {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Pair;

TEST(EmbeddedCluster, ResolvesEnvironmentAsKubernetesDoes) {
  Node node([](EmbeddedOptions& options) {
    options.ambient = [](const Resource&) -> Async<Result<Ambient>> {
      co_return Ambient{.env = {{"MLRUN_DBPATH", "http://x"}, {"A", "ambient"}},
                        .python = "/env/bin/python",
                        .environment = "e1",
                        .path_suffix = "/ours"};
    };
    options.secrets =
        [](const std::string& project,
           const std::string& name) -> Result<std::optional<std::map<std::string, std::string>>> {
      if (project != "conformance" || name != "vault") {
        return std::optional<std::map<std::string, std::string>>();
      }
      return std::optional(std::map<std::string, std::string>{{"key", "from-vault"}});
    };
  });
  ASSERT_TRUE(node.apply(
      {object_of("v1", "Secret", "plain", R"({"data":{"b":"aGVsbG8="},"stringData":{"s":"text"}})"),
       object_of("v1", "ConfigMap", "map", R"({"data":{"x":"1","A":"map"}})")}));
  auto pod = pod_with(
      "env",
      R"J({"args":["$(SECRET)","$$(SECRET)","$(NOBODY)"],"envFrom":[{"prefix":"P_","configMapRef":{"name":"map"}},{"secretRef":{"name":"absent","optional":true}}],
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
  base_of(pod)["env"] =
      parse_json(R"([{"name":"T","valueFrom":{"secretKeyRef":{"name":"later","key":"k"}}}])")
          .value();
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
  auto pod = pod_with(
      "volumes",
      R"({"volumeMounts":[{"name":"claim","mountPath":"/c","subPath":"a/b"},{"name":"host","mountPath":"/h"},{"name":"s","mountPath":"/s"},{"name":"tmp","mountPath":"/t"}]})",
      fmt::format(R"({{"volumes":[{{"name":"claim","persistentVolumeClaim":{{"claimName":"data"}}}},
      {{"name":"host","hostPath":{{"path":"{}","type":"DirectoryOrCreate"}}}},
      {{"name":"s","secret":{{"secretName":"files","items":[{{"key":"a","path":"deep/a.txt"}}]}}}},{{"name":"tmp","emptyDir":{{"medium":"Memory"}}}}]}})",
                  host.string()));
  ASSERT_TRUE(node.apply({pod}));
  EXPECT_EQ(node.pod("volumes").reason, "VolumeMissing");
  ASSERT_TRUE(node.apply({object_of("v1", "PersistentVolumeClaim", "data",
                                    R"({"spec":{"accessModes":["ReadWriteOnce"]}})")}));
  EXPECT_EQ(node.pod("volumes").reason, "SecretMissing");
  ASSERT_TRUE(
      node.apply({object_of("v1", "Secret", "files", R"({"stringData":{"a":"1","b":"2"}})")}));
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
  ASSERT_TRUE(node.apply(
      {pod_with("path", "{}",
                fmt::format(R"({{"volumes":[{{"name":"h","hostPath":{{"path":"{}"}}}}]}})",
                            host.string()))}));
  EXPECT_EQ(node.pod("path").reason, "VolumeMissing");
  std::filesystem::create_directories(host);
  node.advance(std::chrono::seconds(5));
  EXPECT_EQ(node.pod("path").phase, PodPhase::running);
}

TEST(EmbeddedCluster, RefusesVolumesWhereTheHostCannotMount) {
  Node node;
  node.driver.host_limits = {{.type = "NoMountNamespace",
                              .status = true,
                              .reason = "NoMountNamespace",
                              .message = {},
                              .since = {}}};
  const auto admit = [&](std::string_view path) {
    const auto pod =
        pod_with("v", R"({"volumeMounts":[{"name":"v","mountPath":"/data"}]})",
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
  ASSERT_TRUE(node.apply({pod_with(
      "escapes", R"({"volumeMounts":[{"name":"v","mountPath":"/c","subPath":"escape/x"}]})",
      R"({"volumes":[{"name":"v","persistentVolumeClaim":{"claimName":"data"}}]})")}));
  EXPECT_EQ(node.pod("escapes").phase, PodPhase::failed);
  EXPECT_THAT(node.pod("escapes").message, HasSubstr("leads out of the volume"));
}

TEST(EmbeddedCluster, WaitsForAnEnvironmentAndFailsByItsCode) {
  auto error = std::make_shared<Error>(Error{.kind = ErrorKind::invalid,
                                             .message = "no package numpyy",
                                             .field = {},
                                             .fix = {},
                                             .code = "EnvironmentFailed"});
  Node node([error](EmbeddedOptions& options) {
    options.ambient = [error](const Resource&) -> Async<Result<Ambient>> {
      co_return fail(*error);
    };
  });
  ASSERT_TRUE(node.apply({conformance_pod("broken", {})}));
  EXPECT_EQ(node.pod("broken").phase, PodPhase::failed);
  EXPECT_EQ(node.pod("broken").reason, "EnvironmentFailed");
  *error = {.kind = ErrorKind::unavailable,
            .message = "builds",
            .field = {},
            .fix = {},
            .code = "EnvironmentBuilding"};
  ASSERT_TRUE(node.apply({conformance_pod("builds", {})}));
  EXPECT_EQ(node.pod("builds").phase, PodPhase::pending);
  EXPECT_EQ(node.pod("builds").reason, "EnvironmentBuilding");
}

TEST(EmbeddedCluster, WhoWaitsForAnEnvironmentKeepsNobodyFromStarting) {
  auto built = std::make_shared<bool>(false);
  Node node([built](EmbeddedOptions& options) {
    options.most_starting = 2;
    options.ambient = [built](const Resource& pod) -> Async<Result<Ambient>> {
      if (*built || !pod.metadata.name.starts_with("slow")) { co_return Ambient{}; }
      co_return fail(Error{.kind = ErrorKind::unavailable,
                           .message = "builds",
                           .field = {},
                           .fix = {},
                           .code = "EnvironmentBuilding"});
    };
  });
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(node.apply({conformance_pod("slow-" + std::to_string(i), {})}));
  }
  ASSERT_TRUE(node.apply({conformance_pod("other", kForever)}));
  EXPECT_EQ(node.pod("other").phase, PodPhase::running);
  EXPECT_EQ(node.pod("slow-2").reason, "EnvironmentBuilding");  // and not silent behind the others
  *built = true;
  const auto waits = [&] {
    int out = 0;
    for (int i = 0; i < 3; ++i) {
      out += node.pod("slow-" + std::to_string(i)).reason == "EnvironmentBuilding" ? 1 : 0;
    }
    return out;
  };
  EXPECT_TRUE(node.until([&] { return waits() == 0; }));
}

TEST(EmbeddedCluster, GivesAddressesOnlyToThoseWhoNeedThemAndNamesThem) {
  Node node;
  ASSERT_TRUE(node.apply(
      {object_of(
           "v1", "Service", "web",
           R"({"spec":{"selector":{"app":"web"},"ports":[{"name":"http","port":80,"targetPort":"main"}]}})"),
       object_of(
           "v1", "Service", "peers",
           R"({"spec":{"clusterIP":"None","selector":{"app":"web"},"ports":[{"port":7}]}})")}));
  EXPECT_TRUE(node.run(node.cluster->reach("conformance", "web", "http")));
  EXPECT_EQ(node.run(node.cluster->reach("conformance", "peers", "")).error().code, "NotReady");
  auto web = pod_with("web-0", R"({"ports":[{"name":"main","containerPort":8080}]})",
                      R"({"hostname":"host0","subdomain":"peers"})");
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

}  // namespace
}  // namespace metier
