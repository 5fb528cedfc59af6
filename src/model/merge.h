// What a submit may change of a stored function (function-kinds reference 3.3).
#pragma once

#include "model/function.h"

namespace metier {

// env and volumes are merged by name; volume_mounts replaced; resources replaced unless the override has neither
// requests nor limits; image, image_pull_policy, replicas, node_name, node_selector, affinity, priority_class_name,
// tolerations, preemption_mode and security_context replaced when truthy; credentials of the metadata replaced. Other
// fields of the override are left aside. Errors: invalid for a field of the wrong type.
Result<void> merge_override(Function& stored, const JsonObject& override_document);

// Default for what the function leaves open: labels of nodes, most specific last wins, an empty value removes.
JsonObject merge_node_selectors(const JsonObject& general, const JsonObject& specific);

}  // namespace metier
