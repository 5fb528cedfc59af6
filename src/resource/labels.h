// Labels of ours that several rooms know.
#pragma once

#include <string_view>

namespace metier {

// A pod joins the PodGroup of this name; the scheduler places the group's first members at once.
inline constexpr std::string_view kPodGroupLabel = "scheduling.metier.dev/pod-group";
// An object that several runs share (a Dask cluster) and everything that its controller makes of it. It outlives its
// runs: no run stops or removes it, each hears of it.
inline constexpr std::string_view kSharedLabel = "metier.dev/shared";
// A set of modules that the interpreter which a pod is forked from has imported already ("dask").
inline constexpr std::string_view kPreloadAnnotation = "metier.dev/preload";
// Ports that a pod cannot do without ("7078,4040=spark.ui.port"): where somebody holds one on its address it does not start. Behind
// the `=` is the user's setting that chooses another port.
inline constexpr std::string_view kPortsAnnotation = "metier.dev/ports";
// A processor whose function is Python: its template may be forked from an interpreter of the node.
inline constexpr std::string_view kForkedTemplateAnnotation = "metier.dev/forked-template";

}  // namespace metier
