#include "model/spark.h"

#include <gtest/gtest.h>

#include "model/kinds.h"

namespace metier {
namespace {

Function of_kind(std::string_view kind) {
  Function f;
  f.set_kind(kind);
  f.set_name("f");
  return f;
}

std::string json(const Function& f, std::string_view path) {
  const Json* found = f.find(path);
  return found == nullptr ? "absent" : dump_json(*found);
}

TEST(SparkMethods, RequestsTakeSparksMemoryAndReplaceTheMap) {
  Function f = of_kind("spark");
  f.spec() = default_spec("spark");
  ASSERT_TRUE(with_spark_requests(f, SparkRole::driver, "512m", "500m"));
  EXPECT_EQ(json(f, "driver_resources.requests"), R"({"cpu":"500m","memory":"512m"})");
  EXPECT_EQ(json(f, "driver_resources.limits"), R"({"cpu":"2"})");
  ASSERT_TRUE(with_spark_requests(f, SparkRole::driver, "1g", nullptr));
  EXPECT_EQ(json(f, "driver_resources.requests"), R"({"memory":"1g"})");
  ASSERT_TRUE(with_spark_requests(f, SparkRole::driver, nullptr, 2, true));
  EXPECT_EQ(json(f, "driver_resources.requests"), R"({"memory":"1g","cpu":2})");
  for (const std::string_view bad : {"1Gi", "1.5g", "g", "", "1GB", "512"}) {
    if (bad.empty()) { continue; }
    auto refused = with_spark_requests(f, SparkRole::executor, Json(bad), nullptr);
    ASSERT_FALSE(refused) << bad;
    EXPECT_EQ(refused.error().field, "function.spec.executor_resources.requests.memory");
  }
  EXPECT_EQ(json(f, "executor_resources.requests"), R"({"memory":"5g","cpu":"1"})")
      << "nothing half done";
  Function job = of_kind("job");
  EXPECT_EQ(with_spark_requests(job, SparkRole::driver, "1g", nullptr).error().kind,
            ErrorKind::unsupported);
}

TEST(SparkMethods, LimitsHaveNoMemory) {
  Function f = of_kind("spark");
  ASSERT_TRUE(with_spark_limits(f, SparkRole::executor, {.mem = {}, .cpu = 2, .gpus = 1}));
  EXPECT_EQ(json(f, "executor_resources.limits"), R"({"cpu":2,"nvidia.com/gpu":1})");
  EXPECT_EQ(with_spark_limits(f, SparkRole::executor, {.mem = "1g"}).error().kind,
            ErrorKind::invalid);
}

TEST(SparkMethods, CoresAllocationAndRestart) {
  Function f = of_kind("spark");
  ASSERT_TRUE(with_spark_cores(f, 2, 0));
  EXPECT_EQ(json(f, "executor_cores"), "2");
  EXPECT_EQ(json(f, "driver_cores"), "absent");
  EXPECT_EQ(with_spark_cores(f, -1, nullptr).error().text(),
            "function.spec.executor_cores: -1 is not a number of cores");
  EXPECT_FALSE(with_spark_cores(f, "two", nullptr));
  ASSERT_TRUE(with_dynamic_allocation(f, 1, 4, 0));
  EXPECT_EQ(json(f, "dynamic_allocation"), R"({"enabled":true,"minExecutors":1,"maxExecutors":4})");
  ASSERT_TRUE(with_restart_policy(f, {.type = "Always", .retries = 3}));
  EXPECT_EQ(
      json(f, "restart_policy"),
      R"({"type":"Always","retries":3,"retry_interval":10,"submission_retries":3,"submission_retry_interval":20})");
  ASSERT_TRUE(disable_monitoring(f));
  EXPECT_EQ(json(f, "monitoring"), R"({"enabled":false})");
  EXPECT_EQ(with_igz_spark(f).error().kind, ErrorKind::unsupported);
}

TEST(SparkMethods, PlacesEachRole) {
  Function f = of_kind("spark");
  ASSERT_TRUE(with_node_selection(f, {.node_name = {},
                                      .node_selector = JsonObject{{"a", "b"}},
                                      .affinity = {},
                                      .tolerations = {}}));
  EXPECT_EQ(json(f, "driver_node_selector"), R"({"a":"b"})");
  EXPECT_EQ(json(f, "executor_node_selector"), R"({"a":"b"})");
  EXPECT_EQ(json(f, "node_selector"), "absent");
  EXPECT_EQ(with_node_selection(f, {.node_name = "n"}).error().kind, ErrorKind::unsupported);
  EXPECT_EQ(
      with_node_selection(
          f, {.node_name = {}, .node_selector = {}, .affinity = {}, .tolerations = JsonArray{}})
          .error()
          .kind,
      ErrorKind::invalid);
  const auto placed = [&](NodeSelection selection, std::vector<std::string>* warnings = nullptr) {
    auto done = with_spark_node_selection(f, SparkRole::executor, selection, warnings);
    return done ? "placed" : done.error().text();
  };
  NodeSelection wrong;
  wrong.tolerations = *parse_json(R"([{"key":"k","toleration_seconds":3}])");
  EXPECT_EQ(
      placed(wrong),
      "spec.executor_tolerations[0].toleration_seconds: 'toleration_seconds' is not Kubernetes' "
      "form of the name");
  wrong = {.affinity = "zone"};
  EXPECT_EQ(placed(wrong), "spec.executor_affinity: expected an object, got a text");
  EXPECT_EQ(json(f, "executor_tolerations"), "absent") << "nothing half done";
  std::vector<std::string> warnings;
  EXPECT_EQ(placed({.node_selector = JsonObject{{"no key!", "b"}}}, &warnings), "placed");
  ASSERT_EQ(warnings.size(), 1U) << "a selector only warns, as with_node_selection's";
  EXPECT_TRUE(warnings[0].starts_with("spec.executor_node_selector: ")) << warnings[0];
  EXPECT_EQ(with_preemption_mode(f, "allow").error().kind, ErrorKind::invalid);
  EXPECT_EQ(with_security_context(f, JsonObject{}).error().kind, ErrorKind::invalid);
  EXPECT_TRUE(with_source_archive(f, "git://h/r", {}, {}, false));
  ASSERT_TRUE(with_spark_preemption_mode(f, SparkRole::driver, "allow"));
  EXPECT_FALSE(with_spark_preemption_mode(f, SparkRole::driver, "never"));
  ASSERT_TRUE(with_spark_host_path(f, SparkRole::driver, "/a", "/m", "", "v"));
  ASSERT_TRUE(with_spark_host_path(f, SparkRole::executor, "/b", "/m", "Directory", "v"));
  EXPECT_EQ(json(f, "volumes"), R"([{"name":"v","hostPath":{"path":"/b","type":"Directory"}}])");
  EXPECT_EQ(json(f, "executor_volume_mounts"), R"([{"name":"v","mountPath":"/m"}])");
  EXPECT_FALSE(with_spark_host_path(f, SparkRole::driver, "relative", "/m", "", "v"));
}

TEST(SparkMethods, ServicesByAddressOrName) {
  Function f = of_kind("remote-spark");
  ASSERT_TRUE(with_spark_service(f, "spark://h:7077", "iguazio"));
  EXPECT_EQ(json(f, "env"), R"([{"name":"METIER_SPARK_SERVICE","value":"spark://h:7077"}])");
  EXPECT_EQ(json(f, "provider"), R"("iguazio")");
  ASSERT_TRUE(with_spark_service(f, "analytics"));
  for (const std::string_view bad : {"", "ftp://h", "spark://"}) {
    EXPECT_EQ(with_spark_service(f, bad).error().kind, ErrorKind::invalid) << bad;
  }
  EXPECT_EQ(with_spark_service(f, "livy://h").error().kind, ErrorKind::unsupported);
  EXPECT_EQ(with_spark_service(f, "https://h:8998").error().kind, ErrorKind::unsupported);
}

TEST(SparkMethods, TakeTheFlagsOfTheCommandLine) {
  JsonObject spec =
      parse_json(
          R"({"resources":{"limits":{"cpu":"1","memory":"1G","nvidia.com/gpu":"1"},"requests":{"cpu":"1","memory":"1G"}},
      "min_replicas":1,"max_replicas":4,"replicas":2,"driver_resources":{"requests":{"memory":"2g","cpu":"1"}}})")
          ->get_object();
  ASSERT_TRUE(spread_over_roles(spec));
  JsonObject memory =
      parse_json(
          R"({"resources":{"requests":{"memory":"1Gi"}},"driver_resources":{"requests":{"memory":"2g","cpu":"1"}}})")
          ->get_object();
  ASSERT_TRUE(spread_over_roles(memory));
  EXPECT_EQ(dump_json(*find_path(memory, "driver_resources")), R"({"requests":{"memory":"1024m"}})")
      << "MLRun's own default of processors does not come along";
  EXPECT_EQ(
      dump_json(spec),
      R"({"replicas":2,"driver_resources":{"requests":{"cpu":"1","memory":"954m"},"limits":{"cpu":"1"}},)"
      R"("dynamic_allocation":{"enabled":true,"minExecutors":1,"maxExecutors":4,"initialExecutors":2},)"
      R"("executor_resources":{"requests":{"cpu":"1","memory":"954m"},"limits":{"cpu":"1","nvidia.com/gpu":"1"}}})");
}

}  // namespace
}  // namespace metier
