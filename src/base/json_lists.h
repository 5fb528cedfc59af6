// Lists of JSON values.
#pragma once

#include "base/json.h"

namespace metier {

// Of `list` what `keep` (of one value) says yes to, in its order.
template <class Keep>
void keep_only(JsonArray& list, Keep&& keep) {
  for (auto it = list.begin(); it != list.end();) { it = keep(*it) ? it + 1 : list.erase(it); }
}

}  // namespace metier
