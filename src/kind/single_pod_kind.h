// A kind whose runs are one pod each: `mlrun run` with the function's code. Kinds of that form differ in what they check and add.
#pragma once

#include "kind/kind.h"

namespace metier {

class SinglePodKind : public Kind {
 public:
  explicit SinglePodKind(KindTraits traits) : traits_(traits) {}
  const KindTraits& traits() const final { return traits_; }
  Result<void> validate(const Subject& subject) const override;
  Result<std::vector<Resource>> lower(const Subject& subject, const Site& site) const override;
  Observation observe(const Subject& subject, std::span<const ResourceStatus> resources,
                      Time now) const override;

 private:
  KindTraits traits_;
};

}  // namespace metier
