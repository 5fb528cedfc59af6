#include "kind/single_pod_kind.h"

#include "kind/lowering.h"
#include "kind/pod_observation.h"
#include "resource/pod.h"

namespace metier {

Result<void> SinglePodKind::validate(const Subject& subject) const {
  METIER_CHECK(validate_subject(subject));
  if (subject.run == nullptr) { return {}; }
  METIER_TRY(resources, lower(subject, Site{}));
  METIER_CHECK(pod_from(resources.front()));
  return {};
}

Result<std::vector<Resource>> SinglePodKind::lower(const Subject& subject, const Site& site) const {
  METIER_TRY(command, mlrun_command(subject));
  METIER_TRY(pod, pod_of_run(subject, site, command));
  return std::vector<Resource>{std::move(pod)};
}

Observation SinglePodKind::observe(const Subject& subject,
                                   std::span<const ResourceStatus> resources, Time now) const {
  return observe_single_pod(subject, resources, now);
}

}  // namespace metier
