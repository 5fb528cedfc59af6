#include "kind/remote_spark/remote_spark_kind.h"

#include <algorithm>

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
      for (const std::string& service : services_of(subject.function)) {
        Function probe = subject.function;  // the method's own rules
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
    METIER_TRY(resources, SinglePodKind::lower(subject, site));
    const auto services = services_of(subject.function);
    if (site.embedded && !services.empty() && services.back().starts_with("sc://")) {
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
