// Why a run is pending, stuck, failed or killed: one cause, one sentence, the facts it rests on, and what to do.
// Pure: whoever asks gathers the facts.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "cluster/cluster.h"
#include "model/function.h"
#include "model/run.h"
#include "store/store.h"

namespace metier {

struct Fix {
  std::string text;     // "ask for less"
  std::string command;  // to copy, may be empty
};
struct Why {
  std::string code;  // "InsufficientMemory"
  std::string sentence;
  std::vector<std::pair<std::string, std::string>> facts;
  std::vector<Fix> fixes;
};
Json to_json(const Why& why);

// A pod that holds what a waiting one needs, and the run that it belongs to (empty: a deployment's).
struct Holder {
  std::string pod;
  std::string amount;
  std::string run;
  std::string project;
  std::string uid;
};

struct WhyFacts {
  const Run* run = nullptr;
  std::vector<std::pair<std::string, PodStatus>> pods;  // as they are now
  std::optional<QueuePosition> queue;
  std::vector<Holder> holders;                                   // of the queue's resource
  std::vector<std::pair<std::string, std::string>> secret_refs;  // name, key, as its pods refer to
  Health health;  // of the cluster; empty when unknown
  std::map<std::string, Quantity, std::less<>> asked;
  std::map<std::string, Quantity, std::less<>> limits;
  std::string last_event;  // the newest "event" of the timeline that warns
  std::string last_event_code;
  std::int64_t peak_memory = 0;  // of earlier runs of this function, 0 = unknown
  std::string log_tail;
  std::optional<Duration>
      silent;  // it runs, and for so long nothing was printed and hardly any processor used
  std::vector<std::pair<std::string, std::string>>
      ranks;  // "rank 1" → where it is, when it prints nothing
  Time now{};
};
Why why(const WhyFacts& facts);

// Every named cause with its standard sentence; `metier help CODE`.
struct CauseText {
  std::string_view code;
  std::string_view sentence;
  std::string_view fix;
};
std::span<const CauseText> all_causes();
const CauseText* find_cause(std::string_view code);

}  // namespace metier
