#include "resource/pod.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace metier {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

// A pod whose spec is `spec`; `container` goes into its only container.
Resource pod_of(std::string_view spec) {
  Resource out{
      .api_version = "v1", .kind = "Pod", .metadata = {.name = "p", .name_space = "default"}};
  out.body["spec"] = parse_json(spec).value();
  return out;
}
Resource with_container(std::string_view container, std::string_view spec = "") {
  return pod_of(std::string(R"({"containers":[{"name":"base")") + (container.empty() ? "" : ",") +
                std::string(container) + "}]" + (spec.empty() ? "" : ",") + std::string(spec) +
                "}");
}
std::string problem(const Resource& resource, const PodRules& rules = {}) {
  const auto pod = pod_from(resource, rules);
  return pod ? "" : pod.error().text();
}

TEST(Pod, ReadsThePodThatTheServerMakes) {
  const auto pod = pod_from(with_container(
      R"("image":"mlrun/mlrun","command":["mlrun"],"args":["run","--from-env"],"workingDir":"/w","lifecycle":null,"imagePullPolicy":"IfNotPresent",
         "env":[{"name":"A","value":"1"},{"name":"A","value":"2"},{"name":"S","valueFrom":{"secretKeyRef":{"name":"s","key":"k"}}},
                {"name":"P","valueFrom":{"fieldRef":{"fieldPath":"metadata.labels['x']"}}}],
         "envFrom":[{"prefix":"X_","configMapRef":{"name":"c","optional":true}}],
         "ports":[{"containerPort":8080,"name":"http"}],
         "volumeMounts":[{"name":"v","mountPath":"/data","subPath":"a/b","readOnly":true}],
         "resources":{"requests":{"cpu":"500m"},"limits":{"cpu":1,"memory":"1Gi","nvidia.com/gpu":1}},
         "readinessProbe":{"httpGet":{"path":"/ready","port":"http"},"periodSeconds":2})",
      R"("volumes":[{"name":"v","persistentVolumeClaim":{"claimName":"c1"}}],"restartPolicy":"Never","terminationGracePeriodSeconds":5,
         "securityContext":{"runAsUser":1000,"runAsGroup":1000,"supplementalGroups":[7]},"nodeSelector":{"a":"b"})"));
  ASSERT_TRUE(pod) << pod.error().text();
  const auto& base = pod->containers.at(0);
  EXPECT_THAT(base.command, ElementsAre("mlrun"));
  EXPECT_EQ(base.env.size(), 4U);
  EXPECT_EQ(base.env[2].secret->key, "k");
  EXPECT_EQ(base.env_from.at(0).config_map, "c");
  EXPECT_TRUE(base.mounts.at(0).read_only);
  EXPECT_EQ(base.readiness->port, 8080);
  EXPECT_EQ(base.readiness->period_s, 2);
  EXPECT_EQ(pod->restart, RestartPolicy::never);
  EXPECT_EQ(pod->grace_s, 5);
  EXPECT_EQ(pod->run_as_user, 1000);
  EXPECT_THAT(pod->groups, ElementsAre(7));
  EXPECT_EQ(pod->volumes.at(0).kind, Volume::Kind::claim);
  const auto requests = pod_requests(*pod);
  EXPECT_EQ(requests.find("cpu")->second.milli(), 500);
  EXPECT_EQ(requests.find("memory")->second.units(), 1 << 30);  // from the limit
  EXPECT_EQ(requests.find("nvidia.com/gpu")->second.units(), 1);
}

TEST(Pod, HasKubernetesDefaults) {
  const auto pod = pod_from(with_container("")).value();
  EXPECT_EQ(pod.restart, RestartPolicy::always);
  EXPECT_EQ(pod.grace_s, 30);
  EXPECT_FALSE(pod.deadline_s);
  EXPECT_FALSE(pod.run_as_user);
}

TEST(Pod, NamesFieldAndBothTypes) {
  EXPECT_EQ(problem(with_container(R"("env":{"a":1})")),
            "spec.containers[0].env: expected list, got object");
  EXPECT_EQ(problem(with_container(R"("command":[1,null])")),
            "spec.containers[0].command[0]: expected text, got integer");
  EXPECT_EQ(problem(with_container(R"("resources":[])")),
            "spec.containers[0].resources: expected object, got list");
  EXPECT_EQ(problem(with_container(R"("resources":null)")), "");
  EXPECT_EQ(problem(pod_of(R"({"containers":"x"})")), "spec.containers: expected list, got text");
  EXPECT_THAT(problem(pod_of("{}")), HasSubstr("no container"));
  Resource empty{.api_version = "v1", .kind = "Pod", .metadata = {.name = "p"}};
  EXPECT_THAT(problem(empty), HasSubstr("spec: it is missing"));
}

TEST(Pod, FindsAllProblemsInDocumentOrder) {
  const auto problems = pod_problems(with_container(
      R"("command":[1],"env":[{"name":"a=b"},{"value":"x"}])", R"("restartPolicy":"Sometimes")"));
  std::vector<std::string> fields;
  for (const auto& error : problems) { fields.push_back(error.field); }
  EXPECT_THAT(fields, ElementsAre("spec.containers[0].command[0]", "spec.containers[0].env[0].name",
                                  "spec.containers[0].env[1].name", "spec.restartPolicy"));
}

TEST(Pod, RefusesVariablesThatCannotBe) {
  EXPECT_THAT(problem(with_container(R"("env":[{"value":"x"}])")),
              HasSubstr("env[0].name: it is missing"));
  EXPECT_THAT(problem(with_container(R"("env":[{"name":"a=b"}])")),
              HasSubstr("not the name of a variable"));
  EXPECT_THAT(problem(with_container(R"("env":[{"name":"a","value":"x\u0000y"}])")),
              HasSubstr("NUL"));
  EXPECT_THAT(problem(with_container(R"("env":[{"name":"a","valueFrom":{}}])")),
              HasSubstr("names no source"));
  EXPECT_THAT(
      problem(with_container(
          R"("env":[{"name":"a","valueFrom":{"secretKeyRef":{"name":"s","key":"k"},"fieldRef":{"fieldPath":"metadata.name"}}}])")),
      HasSubstr("two sources"));
  EXPECT_THAT(
      problem(with_container(
          R"("env":[{"name":"a","value":"1","valueFrom":{"fieldRef":{"fieldPath":"metadata.name"}}}])")),
      HasSubstr("a value as well"));
  EXPECT_THAT(problem(with_container(
                  R"("env":[{"name":"a","valueFrom":{"fieldRef":{"fieldPath":"spec.x"}}}])")),
              HasSubstr("fieldPath"));
}

TEST(Pod, RefusesVolumesThatCannotBe) {
  const auto volume = [](std::string_view source, std::string_view mount = R"("mountPath":"/m")") {
    return problem(with_container(R"("volumeMounts":[{"name":"v",)" + std::string(mount) + "}]",
                                  R"("volumes":[{"name":"v")" +
                                      std::string(source.empty() ? "" : ",") + std::string(source) +
                                      "}]"));
  };
  EXPECT_EQ(volume(R"("emptyDir":{})"), "");
  EXPECT_THAT(volume(""), HasSubstr("spec.volumes[0]: the volume has no source"));
  EXPECT_THAT(volume(R"("emptyDir":{},"secret":{"secretName":"s"})"), HasSubstr("two sources"));
  EXPECT_THAT(volume(R"("emptyDir":{})", R"("mountPath":"m")"),
              HasSubstr("not a path to mount at"));
  EXPECT_THAT(volume(R"("emptyDir":{})", R"("mountPath":"/a/../b")"),
              HasSubstr("not a path to mount at"));
  EXPECT_THAT(volume(R"("emptyDir":{})", R"("mountPath":"/m","subPath":"../x")"),
              HasSubstr("leaves the volume"));
  EXPECT_THAT(volume(R"("emptyDir":{})", R"("mountPath":"/m","subPath":"/x")"),
              HasSubstr("leaves the volume"));
  EXPECT_THAT(volume(R"("hostPath":{"path":"relative"})"), HasSubstr("not an absolute path"));
  EXPECT_THAT(problem(with_container(R"("volumeMounts":[{"name":"w","mountPath":"/m"}])")),
              HasSubstr("no volume is named 'w'"));
  EXPECT_THAT(
      problem(with_container(
          R"("volumeMounts":[{"name":"v","mountPath":"/m"},{"name":"v","mountPath":"/m/"}])",
          R"("volumes":[{"name":"v","emptyDir":{}}])")),
      HasSubstr("is taken by volume"));
}

TEST(Pod, RefusesQuantitiesThatCannotBe) {
  const auto limits = [](std::string_view resources) {
    return problem(with_container(R"("resources":)" + std::string(resources)));
  };
  EXPECT_THAT(limits(R"({"requests":{"cpu":"2"},"limits":{"cpu":"1"}})"),
              HasSubstr("requests.cpu: the request 2 is above the limit 1"));
  EXPECT_THAT(limits(R"({"limits":{"cpu":"-1"}})"), HasSubstr("negative"));
  EXPECT_THAT(limits(R"({"limits":{"memory":"1Gib"}})"),
              HasSubstr("spec.containers[0].resources.limits.memory: '1Gib' is not a quantity"));
  EXPECT_THAT(limits(R"({"limits":{"gpus":"1"}})"), HasSubstr("'gpus' is not a resource"));
  EXPECT_THAT(limits(R"({"requests":{"nvidia.com/gpu":1}})"), HasSubstr("request but no limit"));
  EXPECT_THAT(limits(R"({"limits":{"nvidia.com/gpu":"500m"}})"), HasSubstr("not a whole number"));
  EXPECT_EQ(limits(R"({"limits":{"cpu":"0"}})"), "");
}

TEST(Pod, RefusesWhatIsDangerousUnlessTheServerAllowsIt) {
  const auto check = [](const Resource& resource, const PodRules& allowed,
                        std::string_view option) {
    const auto refused = pod_from(resource);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().kind, ErrorKind::denied);
    EXPECT_THAT(refused.error().fix, HasSubstr(std::string(option)));
    EXPECT_EQ(problem(resource, allowed), "");
  };
  check(with_container(R"("securityContext":{"privileged":true})"), {.allow_privileged = true},
        "--allow-privileged-pods");
  check(with_container(R"("securityContext":{"capabilities":{"add":["SYS_ADMIN"]}})"),
        {.allow_privileged = true}, "--allow-privileged-pods");
  check(with_container("", R"("hostPID":true)"), {.allow_host_namespaces = true},
        "--allow-host-namespaces");
  check(with_container("", R"("hostNetwork":true)"), {.allow_host_namespaces = true},
        "--allow-host-namespaces");
  check(with_container("", R"("securityContext":{"runAsUser":0})"), {.allow_root_user = true},
        "--allow-root-pods");
  check(with_container("", R"("volumes":[{"name":"v","hostPath":{"path":"//"}}])"),
        {.allow_host_root = true}, "--allow-host-root");
}

TEST(Pod, TakesTheUserFromContainersThatAgree) {
  EXPECT_EQ(pod_from(with_container(R"("securityContext":{"runAsUser":7})"))->run_as_user, 7);
  EXPECT_THAT(
      problem(pod_of(
          R"({"containers":[{"name":"a","securityContext":{"runAsUser":7}},{"name":"b"}]})")),
      HasSubstr("different users"));
}

TEST(Pod, CountsInitContainersAsTheLargest) {
  const auto pod = pod_from(pod_of(
      R"({"initContainers":[{"name":"i","resources":{"requests":{"cpu":"3","memory":"1Mi"}}}],
          "containers":[{"name":"a","resources":{"requests":{"cpu":"1","memory":"5Mi"}}},{"name":"b","resources":{"requests":{"cpu":"1"}}}]})"));
  ASSERT_TRUE(pod) << pod.error().text();
  const auto requests = pod_requests(*pod);
  EXPECT_EQ(requests.find("cpu")->second.milli(), 3000);
  EXPECT_EQ(requests.find("memory")->second.units(), 5 << 20);
}

}  // namespace
}  // namespace metier
