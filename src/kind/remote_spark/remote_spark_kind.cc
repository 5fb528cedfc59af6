#include "kind/remote_spark/remote_spark_kind.h"

#include "kind/single_pod_kind.h"
#include "kind/spark/spark_warm.h"
#include "model/spark.h"
#include "resource/labels.h"

namespace metier {
namespace {

constexpr std::string_view kService = "METIER_SPARK_SERVICE";

// The variable's values, whoever wrote it.
std::vector<std::string> services_of(const Function& function) {
  std::vector<std::string> out;
  const JsonArray* env = array_in(function.spec(), "env");
  for (const Json& variable : env == nullptr ? JsonArray{} : *env) {
    if (string_at(variable, "name") == kService) { out.emplace_back(string_at(variable, "value")); }
  }
  return out;
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
