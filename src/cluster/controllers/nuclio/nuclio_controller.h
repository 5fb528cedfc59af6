// NuclioFunction (nuclio.io/v1beta1) into processor Pods and a Service whose socket the gate holds. A new generation
// is started beside the old one and replaces it once it is ready: both take connections from one socket, so that no
// request fails. Replicas follow the share of time in which workers are busy, to zero and back.
//
// Status: Nuclio's (state, message, httpPort, internalInvocationUrls, externalInvocationUrls, containerImage), and
// observedGeneration, replicas, ready, readyGeneration, reason, conditions, since.
#pragma once

#include <map>

#include "cluster/controllers/controller.h"
#include "cluster/controllers/nuclio/function_site.h"
#include "cluster/controllers/nuclio/scaling.h"

namespace metier {

class NuclioController final : public Controller {
 public:
  explicit NuclioController(FunctionSite& site) : site_(site) {}
  std::string_view api_version() const override { return "nuclio.io/v1beta1"; }
  std::string_view kind() const override { return "NuclioFunction"; }
  // {"address", "external", "error", "fix", "waiting", "busy", "busiest", "idle_ms", "free_cpus", "substitute",
  //  "problems": [{"code", "message"}, …]}
  Async<Result<Facts>> gather(const Resource& resource) override;
  Decision reconcile(const Resource& resource, const Snapshot& snapshot, const Facts& facts,
                     Time now) const override;
  Async<Result<void>> before_stop(const Resource& pod) override;

 private:
  FunctionSite& site_;
  std::map<ResourceKey, LoadWindow> loads_;
};

}  // namespace metier
