#include "kind/job/job_kind.h"

#include "kind/lowering.h"
#include "kind/pod_observation.h"
#include "resource/pod.h"

namespace metier {
namespace {

class JobKind final : public Kind {
 public:
  const KindTraits& traits() const override { return traits_; }

  Result<void> validate(const Subject& subject) const override {
    METIER_CHECK(validate_subject(subject));
    if (subject.run == nullptr) { return {}; }
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
  KindTraits traits_{.name = "job", .summary = "one pod per run", .executes = Executes::in_pods};
};

}  // namespace

std::unique_ptr<Kind> make_job_kind() { return std::make_unique<JobKind>(); }

}  // namespace metier
