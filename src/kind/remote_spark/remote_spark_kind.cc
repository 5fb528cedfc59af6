#include "kind/remote_spark/remote_spark_kind.h"

#include "kind/lowering.h"
#include "kind/pod_observation.h"
#include "model/spark.h"
#include "resource/pod.h"

namespace metier {
namespace {

class RemoteSparkKind final : public Kind {
 public:
  const KindTraits& traits() const override { return traits_; }

  Result<void> validate(const Subject& subject) const override {
    METIER_CHECK(validate_subject(subject));
    if (subject.run == nullptr) { return {}; }
    if (const JsonArray* env = array_in(subject.function.spec(), "env")) {
      for (const Json& variable : *env) {
        if (!variable.is_object() ||
            string_in(variable.get_object(), "name") != "METIER_SPARK_SERVICE") {
          continue;
        }
        Function probe = subject.function;  // the method's own rules, whoever wrote the variable
        METIER_CHECK(with_spark_service(probe, string_in(variable.get_object(), "value")));
      }
    }
    METIER_TRY(resources, lower(subject, Site{}));
    METIER_CHECK(pod_from(resources.front()));
    return {};
  }

  Result<std::vector<Resource>> lower(const Subject& subject, const Site& site) const override {
    METIER_TRY(command, mlrun_command(subject));
    METIER_TRY(pod, pod_of_run(subject, site, command));
    return std::vector<Resource>{std::move(pod)};
  }

  Observation observe(const Subject& subject, std::span<const ResourceStatus> resources,
                      Time now) const override {
    return observe_single_pod(subject, resources, now);
  }

 private:
  KindTraits traits_{.name = "remote-spark",
                     .summary = "a driver pod for an existing Spark cluster",
                     .executes = Executes::in_pods};
};

}  // namespace

std::unique_ptr<Kind> make_remote_spark_kind() { return std::make_unique<RemoteSparkKind>(); }

}  // namespace metier
