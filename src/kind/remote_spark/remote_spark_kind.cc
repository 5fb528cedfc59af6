#include "kind/remote_spark/remote_spark_kind.h"

#include <algorithm>
#include <array>
#include <set>
#include <span>

#include "base/json_lists.h"
#include "kind/single_pod_kind.h"
#include "kind/spark/spark_warm.h"
#include "model/spark.h"
#include "resource/labels.h"

namespace metier {
namespace {

constexpr std::string_view kService = "METIER_SPARK_SERVICE";

// The variable's values, whoever wrote it; those of secrets are known in the pod only.
std::vector<std::string> services_of(const Function& function) {
  std::vector<std::string> out;
  const JsonArray* env = array_in(function.spec(), "env");
  for (const Json& variable : env == nullptr ? JsonArray{} : *env) {
    if (string_at(variable, "name") == kService && find_path(variable, "valueFrom") == nullptr) {
      out.emplace_back(string_at(variable, "value"));
    }
  }
  return out;
}

// MLRun's SDK writes Iguazio's mounts for with_spark_service(NAME), and the name as that of a ConfigMap. The mounts are on
// Iguazio's platform only; here the name counts, as it does in metier's own with_spark_service.
constexpr std::string_view kIguazioConfig = "v3io-config";
constexpr std::string_view kIguazioSuffix = "-submit";
constexpr std::array<std::string_view, 4> kIguazioVolumes{"shm", "v3iod-comm", "daemon-health",
                                                          kIguazioConfig};
constexpr std::array<std::string_view, 3> kIguazioVariables{
    "MLRUN_SPARK_CLIENT_IGZ_SPARK", "CURRENT_NODE_IP", "IGZ_DATA_CONFIG_FILE"};

// Empty when the SDK's method was not called.
std::string iguazio_service(const Function& function) {
  const JsonArray* volumes = array_in(function.spec(), "volumes");
  for (const Json& volume : volumes == nullptr ? JsonArray{} : *volumes) {
    const auto config = string_at(volume, "configMap.name");
    if (string_at(volume, "name") == kIguazioConfig && config.ends_with(kIguazioSuffix)) {
      return std::string(config.substr(0, config.size() - kIguazioSuffix.size()));
    }
  }
  return {};
}

bool is_one_of(std::string_view name, std::span<const std::string_view> names) {
  return std::ranges::find(names, name) != names.end();
}

// The function with the service that the SDK's method names, in our form. One that the user's variable names wins.
Result<Function> with_iguazio_service(const Function& function) {
  Function out = function;
  const std::string service = iguazio_service(function);
  if (service.empty()) { return out; }
  std::set<std::string, std::less<>> dropped;
  keep_only(ensure_array(out.spec(), "volumes"), [&](const Json& volume) {
    const auto name = string_at(volume, "name");
    const bool theirs =
        is_one_of(name, kIguazioVolumes) || string_at(volume, "flexVolume.driver") == "v3io/fuse";
    if (theirs) { dropped.emplace(name); }
    return !theirs;
  });
  keep_only(ensure_array(out.spec(), "volume_mounts"),
            [&](const Json& mount) { return !dropped.contains(string_at(mount, "name")); });
  bool named = false;
  keep_only(ensure_array(out.spec(), "env"), [&](const Json& variable) {
    const auto name = string_at(variable, "name");
    named = named || name == kService;
    return !is_one_of(name, kIguazioVariables);
  });
  if (!named) { METIER_CHECK(with_spark_service(out, service)); }
  return out;
}

// Without any, a session would be one of its own pod: no cluster that exists already.
bool names_cluster(const Function& function) {
  if (const JsonArray* from = array_in(function.spec(), "env_from"); from && !from->empty()) {
    return true;
  }
  const JsonArray* env = array_in(function.spec(), "env");
  return env != nullptr && std::ranges::any_of(*env, [](const Json& variable) {
           const auto name = string_at(variable, "name");
           return name == kService || name == "SPARK_REMOTE" || name == "MASTER" ||
                  name == "PYSPARK_SUBMIT_ARGS" || name == "MLRUN_SPARK_CLIENT_IGZ_SPARK";
         });
}

class RemoteSparkKind final : public SinglePodKind {
 public:
  using SinglePodKind::SinglePodKind;

  Result<void> validate(const Subject& subject) const override {
    if (subject.run != nullptr) {
      METIER_TRY(function, with_iguazio_service(subject.function));
      for (const std::string& service : services_of(function)) {
        Function probe = function;  // the method's own rules
        METIER_CHECK(with_spark_service(probe, service));
      }
      if (!names_cluster(subject.function)) {
        return fail(invalid("function.spec.env",
                            "kind remote-spark needs the Spark cluster that its session goes to",
                            "-e METIER_SPARK_SERVICE=sc://HOST:PORT or spark://HOST:PORT, in code "
                            "with_spark_service(…); kind spark starts a cluster of its own"));
      }
    }
    return SinglePodKind::validate(subject);
  }

  Result<std::vector<Resource>> lower(const Subject& subject, const Site& site) const override {
    if (!site.embedded) { return SinglePodKind::lower(subject, site); }
    METIER_TRY(function, with_iguazio_service(subject.function));
    METIER_TRY(
        resources,
        SinglePodKind::lower(
            Subject{.function = function, .run = subject.run, .attempt = subject.attempt}, site));
    const auto services = services_of(function);
    if (!services.empty() && services.back().starts_with("sc://")) {
      resources.front().metadata.annotations[std::string(kPreloadAnnotation)] = kSparkPreload;
    }
    return resources;
  }
};

}  // namespace

std::unique_ptr<Kind> make_remote_spark_kind() {
  return std::make_unique<RemoteSparkKind>(
      KindTraits{.name = "remote-spark",
                 .summary = "a driver pod for an existing Spark cluster",
                 .executes = Executes::in_pods});
}

}  // namespace metier
