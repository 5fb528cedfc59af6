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

}  // namespace metier
