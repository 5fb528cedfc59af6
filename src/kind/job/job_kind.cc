#include "kind/job/job_kind.h"

#include "kind/single_pod_kind.h"

namespace metier {

std::unique_ptr<Kind> make_job_kind() {
  return std::make_unique<SinglePodKind>(
      KindTraits{.name = "job", .summary = "one pod per run", .executes = Executes::in_pods});
}

}  // namespace metier
