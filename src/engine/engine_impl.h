// Inside the engine: what its parts share. Not for others.
#pragma once

#include "engine/engine.h"
#include "engine/phases.h"
#include "resource/labels.h"

namespace metier {

struct Engine::Live {
  Plan plan;
  Function function;
  Run run;  // as submitted: what the kind lowers and observes
  std::map<ResourceKey, ResourceStatus> resources;
  RunState state = RunState::pending;
  std::string log_pod;
  std::vector<Part> parts;
  std::vector<Part> gone;  // parts whose pods were taken from the run while it went on
  std::map<std::string, Part, std::less<>>
      held;               // part → whose log has a second name, should its pod go
  UsageByPod usage;       // of a run of several parts
  bool sampling = false;  // somebody fills `usage`
  Time quiet_since{};     // nothing was printed and hardly any processor time used since then
  Time printed_at{};      // something was printed last
  std::map<std::string, std::uint64_t, std::less<>>
      printed;                  // part → size of its log at the last look
  Json progress;                // what the engine of its kind says (stages, tasks), or null
  std::string reason, message;  // while pending
  bool committed = false;       // its transaction is durable
  bool working = false;
  bool dirty = false;
  bool done = false;
  bool resting = false;       // what becomes of its parts after its end is being noted
  bool unbegun_stop = false;  // its pods are being killed because nothing of the user's has begun
  bool had_resources = false;
  int failures = 0;                                                   // of the store, in a row
  std::map<std::string, int, std::less<>> journal_watches;            // pod → inotify watch
  std::map<std::string, std::uint64_t, std::less<>> journal_offsets;  // pod → offset
  std::set<std::string, std::less<>> marks;                           // of this attempt
  std::string claimed_error;
  std::string threshold;  // which state threshold runs
  Time since{};           // of a run that a server before left: when its state began

  std::string key() const { return plan_key(plan.project, plan.uid); }
};

struct Engine::Prepared {
  Function function;
  Run run;
  Plan plan;
  const Kind* kind = nullptr;
  std::vector<Resource> resources;
  std::string environment_secret;
  std::vector<std::string> warnings;
};

inline bool is_shared(const Labels& labels) { return labels.contains(std::string(kSharedLabel)); }
// Its own objects and those that it shares, into the plan.
void name_objects(Plan& plan, std::span<const Resource> resources);

// The reason code of a run that failed, and its sentence.
struct FailureText {
  std::string reason;
  std::string text;
};
FailureText failure_text(const Observation& seen, const Json& journal_failure);

// spec.retry{count, backoff.base_delay}; base_delay is at least 30 s (of MLRun's client).
struct RetryRule {
  std::int64_t count = 0;
  std::chrono::seconds delay{30};
  std::chrono::seconds delay_before(
      std::int64_t attempt) const;  // of attempt 2, 3…: doubled each time, at most 1 h
};
RetryRule retry_of(const Run& run);
// Whether its last attempt ended before anything of the user's began: the next one waits for nothing.
bool was_unbegun(const Run& run);

// What counts against the user's retries and what does not (an interruption).
bool is_interruption(std::string_view reason);

}  // namespace metier
