// What watchers of a cluster hear of one resource; also what a kind observes.
#pragma once

#include "resource/resource.h"

namespace metier {

// What watchers hear of one resource. For a Pod `status` is PodStatus as JSON.
struct ResourceStatus {
  ResourceKey key;
  std::string uid;
  Labels labels;
  Json status;
  bool removed = false;
  std::uint64_t revision = 0;
};

}  // namespace metier
