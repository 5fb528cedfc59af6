// Finds and kills the processes of the pod. As a subreaper the shim is the parent of every process whose own
// parent ended, so all of them hang below it, also those that left session and process group.
#pragma once

#include "spec.h"

namespace shim {

// Kills everything below the shim and in the pod's cgroups, again until nothing is left or `limit_ms` passed.
// The zombie `keep` (0: none) stays unreaped. Names of killed ones ("sleep(42)") that were not yet told to
// end go to `names`, at most 16. Returns how many could not be killed (uninterruptible).
int kill_tree(const Spec& spec, int keep, std::int64_t limit_ms, Text* names);

// One SIGKILL to every process below the shim, waiting for none.
void strike_tree(const Spec& spec);

}  // namespace shim
