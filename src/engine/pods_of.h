// Finds the Pods inside lowered resources: a Pod itself, and every pod template of a custom resource.
#pragma once

#include <functional>
#include <string_view>
#include <vector>

#include "resource/resource.h"

namespace metier {

struct PodPart {
  JsonObject& spec;  // has `containers`; of a SparkApplication the role, which has none
  std::function<void(std::string_view, std::string_view)> annotate;
  std::function<void(std::string_view, std::string_view)> label;  // unless it has one of that name
};
void for_each_pod(Resource& resource, const std::function<void(PodPart&)>& visit);
void for_each_pod(std::vector<Resource>& resources, const std::function<void(PodPart&)>& visit);

// What a pod runs in and as whom: the environment's description, the folder of its code (both may be empty), a user when
// above 0 and the pod names none.
void set_place(PodPart& pod, const std::string& environment, const std::string& context,
               std::int64_t run_as);

}  // namespace metier
