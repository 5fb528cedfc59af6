// How the pod of a part ended, as controllers tell it.
#pragma once

#include <string_view>

namespace metier {

// The reason of a pod whose end nobody saw: how its processes ended is not known.
inline bool end_is_unseen(std::string_view reason) {
  return reason == "ShimLost" || reason == "HostRebooted" || reason == "FolderLost";
}

}  // namespace metier
