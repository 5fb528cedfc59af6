// What kind dask and its controller make together for a Kubernetes cluster, against what MLRun's server makes through
// dask-kubernetes (function-kinds reference 2.7), written down by hand in kind/dask/golden/mlrun-pods.json.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/files.h"
#include "cluster/controllers/dask/dask_cluster.h"
#include "kind/dask/dask_kind.h"
#include "metier/test_paths.h"
#include "model/attributes.h"

namespace metier {
namespace {

using testing::ElementsAre;

// As LowersEveryAttributeForKubernetes, with a place of the user's own.
Function function() {
  auto f = Function::from_json(*parse_json(
      R"({"kind":"dask","metadata":{"name":"my_f","project":"p","labels":{"team":"a"}},"spec":)"
      R"({"image":"dask:1","replicas":2,"nthreads":2,"scheduler_timeout":"90 minutes","node_port":30087,)"
      R"("args":["--death-timeout","60"],"pythonpath":"/lib","service_account":"sa","image_pull_policy":"Always",)"
      R"("image_pull_secret":"registry","tolerations":[{"key":"mine","operator":"Exists"}]}})"));
  EXPECT_TRUE(set_env(*f, "A", 1));
  EXPECT_TRUE(with_role_limits(*f, "worker_resources", {.mem = "2Gi", .cpu = "1"}));
  EXPECT_TRUE(with_role_requests(*f, "scheduler_resources", {.mem = "1Gi", .cpu = "500m"}));
  EXPECT_TRUE(mount_pvc(*f, "claim", "data", "/data"));
  EXPECT_TRUE(with_node_selection(*f, {.node_selector = JsonObject{{"zone", "b"}}}));
  return *f;
}

// Service, scheduler and second worker.
std::vector<Resource> made() {
  Site site;
  site.embedded = false;
  site.api_url = "http://api:8080";
  site.node_selector = {{"arch", "amd64"}};
  const Function f = function();
  auto resources = make_dask_kind()->lower(Subject{f, nullptr}, site);
  EXPECT_TRUE(resources) << resources.error().text();
  auto decision = DaskClusterController(nullptr, system_clock())
                      .reconcile(resources->front(), {}, Facts(), system_clock().now());
  std::vector<Resource> out;
  for (Resource& resource : decision.create) {
    if (resource.kind != "PodGroup" && !resource.metadata.name.ends_with("worker-0")) {
      out.push_back(std::move(resource));
    }
  }
  return out;
}

// What is ours, taken away: its names are told.
std::vector<std::string> take_ours(Resource& resource, const std::string& cluster) {
  std::vector<std::string> ours;
  for (const char* label : {"metier.dev/shared", "metier.dev/incarnation", "metier.dev/index",
                            "scheduling.metier.dev/pod-group"}) {
    if (resource.metadata.labels.erase(label) > 0) { ours.emplace_back(label); }
  }
  if (resource.metadata.owner) { ours.emplace_back("owner"); }
  resource.metadata.owner.reset();
  if (resource.kind != "Pod") { return ours; }
  EXPECT_TRUE(resource.metadata.name.starts_with(cluster + "-"));
  resource.metadata.name.clear();
  resource.metadata.other["generateName"] = cluster + "-";  // dask-kubernetes names them so
  resource.status = nullptr;
  JsonArray& env = resource.body.at("spec").at("containers").at(0).at("env").get_array();
  for (auto entry = env.begin(); entry != env.end(); ++entry) {
    if (string_at(*entry, "name") == "DASK_DISTRIBUTED__SCHEDULER__HTTP__ROUTES") {
      ours.emplace_back("routes");
      env.erase(entry);
      break;
    }
  }
  return ours;
}

TEST(DaskPods, AreThoseThatDaskKubernetesMakesForMlrun) {
  auto resources = made();
  ASSERT_EQ(resources.size(), 3U);
  const std::string cluster = resources.front().metadata.name;
  EXPECT_THAT(take_ours(resources[0], cluster), ElementsAre("metier.dev/shared", "owner"));
  EXPECT_THAT(take_ours(resources[1], cluster),
              ElementsAre("metier.dev/shared", "metier.dev/incarnation", "metier.dev/index",
                          "scheduling.metier.dev/pod-group", "owner", "routes"));
  EXPECT_THAT(take_ours(resources[2], cluster),
              ElementsAre("metier.dev/shared", "metier.dev/incarnation", "metier.dev/index",
                          "scheduling.metier.dev/pod-group", "owner"));
  std::string text =
      *read_file(std::filesystem::path(METIER_SOURCE_DIR) / "src/kind/dask/golden/mlrun-pods.json");
  for (std::size_t at = text.find("CLUSTER"); at != std::string::npos; at = text.find("CLUSTER")) {
    text.replace(at, 7, cluster);
  }
  const auto expected = parse_json(text);
  ASSERT_TRUE(expected) << expected.error().text();
  for (std::size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(to_json(resources[i]), expected->at(i))
        << dump_json(to_json(resources[i]), JsonStyle::pretty);
  }
}

}  // namespace
}  // namespace metier
