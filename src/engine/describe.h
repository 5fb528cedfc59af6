// What people ask about one run or about the site: why, timeline, pods, kinds.
#pragma once

#include <string>

#include "engine/engine.h"
#include "engine/why.h"

namespace metier {

class Describe final {
 public:
  Describe(Ground& ground, Engine& engine) : ground_(ground), engine_(engine) {}

  Async<Result<Why>> why(std::string project, std::string uid);
  // {"phases": [{name, start, ms}] of the newest attempt, "attempts": [{attempt, phases, seconds}], "events": […]}.
  Result<Json> timeline(const std::string& project, const std::string& uid) const;
  // Pods of a project ("*" = all), short: name, run, phase, reason, times. Full: what each was made from as well.
  enum class Detail { brief, full };
  Async<Result<Json>> pods(std::string project, std::string uid, Detail detail = Detail::brief);
  // Every kind: usable here, with what, and if not what to install.
  Async<Result<Json>> kinds();
  // The uid that a unique prefix (or a run's name) means. Errors: not_found, conflict (several, named).
  Result<std::string> find_run(const std::string& project, const std::string& text) const;

 private:
  Ground& ground_;
  Engine& engine_;
};

}  // namespace metier
