// The timeline of one attempt as phases that add up to its wall time: queue, place, environment, start, import,
// user, upload. A mark that is missing gives a phase of no length, and its time to the phase before. Pure.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "resource/pod.h"
#include "store/store.h"

namespace metier {

struct Phase {
  std::string name;
  Time from{};
  Time to{};
};

// `rows` are the run's timeline; `now` ends a run that has not.
std::vector<Phase> phases_of(std::span<const TimelineRow> rows, std::int64_t attempt, Time now);
Json to_json(std::span<const Phase> phases);

// The marks that a pod's status adds: scheduled, environment, started (as timeline "phase" rows).
struct Mark {
  std::string name;  // "scheduled", "environment", "started", "finished"
  Time at{};
};
std::vector<Mark> marks_of(const PodStatus& pod);

}  // namespace metier
