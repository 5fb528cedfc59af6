// PodGroup (scheduling.metier.dev/v1): pods that start together or not at all. A pod joins by the label
// kPodGroupLabel; the scheduler places the first `minMember` of them at once.
#pragma once

#include <string>

#include "resource/labels.h"
#include "resource/resource.h"

namespace metier {

inline constexpr std::string_view kPodGroupApi = "scheduling.metier.dev/v1";
// Pods of a gang with this annotation ("true") share a folder (METIER_GANG), and any of them may start processes in the
// others: ranks.
inline constexpr std::string_view kRanksAnnotation = "metier.dev/ranks";
// A stopped custom resource has this annotation (the reason): its controller's new pods are not created.
inline constexpr std::string_view kStoppedAnnotation = "metier.dev/stopped";

inline Resource make_pod_group(std::string name, std::string name_space, int min_member) {
  Resource out;
  out.api_version = kPodGroupApi;
  out.kind = "PodGroup";
  out.metadata.name = std::move(name);
  out.metadata.name_space = std::move(name_space);
  out.body["spec"] = JsonObject{{"minMember", min_member}};
  return out;
}

}  // namespace metier
