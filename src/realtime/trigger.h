// Where events come from. A kind of trigger is one folder below triggers/ with one function
// `const TriggerKind& NAME_trigger_kind()` declared in triggers/NAME/NAME.h; CMake finds the folder (triggers/README.md), nothing
// outside it changes.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/log.h"
#include "base/result.h"
#include "realtime/event_target.h"
#include "realtime/loop.h"
#include "realtime/metrics.h"
#include "realtime/processor_config.h"

namespace metier::realtime {

// All calls on the loop's thread, also those of a trigger with threads of its own (it posts to the loop).
class Trigger {
 public:
  virtual ~Trigger() = default;
  // Begins to deliver. The target outlives the trigger. Errors: the processor does not start (address taken, bad attribute); a broker
  // that is away is no error: the trigger keeps trying and says so in `describe`.
  virtual Result<void> start(EventTarget& target) = 0;
  // Takes no more events; `done` once the last delivered one has ended (or at once). Called once.
  virtual void stop(std::function<void()> done) = 0;
  // Counters of its own; the processor adds Nuclio's (events handled, worker allocation). On the loop's thread.
  virtual void metrics(MetricsWriter& out) const = 0;
  // Ready to take events: the processor's /ready needs it of all triggers. From any thread.
  virtual bool ready() const { return true; }
  // State in words for /triggers: "reading orders/3 at 1200", "broker b:9092 does not answer".
  virtual std::string describe() const { return {}; }
  // Nothing while all is well.
  virtual std::optional<Problem> problem() const { return std::nullopt; }
  // Of a trigger that is fired from outside (cron): one event of its own. `id` is the event's, given again when the caller does not
  // know how it ended; `replace`: what runs is cancelled. `done` (once, here or later) has the status of the answer.
  virtual void fire(const std::string& id, bool replace, std::function<void(int status)> done);
  // Of a trigger that listens: its port (0 none) and its socket (-1 none).
  virtual std::uint16_t port() const { return 0; }
  virtual int listener() const { return -1; }
};

struct TriggerSite {
  Loop& loop;
  const ProcessorConfig& config;
  const TriggerConfig& trigger;
  Logger log;
};

struct TriggerKind {
  std::string_view name;                      // "kafka-cluster"
  std::span<const std::string_view> aliases;  // "kafka"
  bool is_stream = false;                     // minReplicas 0 is refused; explicit ack is meant
  // Names of its attributes when `check` refuses others; empty: it reads those that it knows.
  std::span<const std::string_view> attributes;
  // Attributes, without I/O: errors name `triggers.NAME.attributes.X`, value, rule and fix. Also used at deploy.
  Result<void> (*check)(const TriggerConfig& trigger) = nullptr;
  Result<std::unique_ptr<Trigger>> (*make)(const TriggerSite& site) = nullptr;
};

// Every kind that this build has, sorted by name.
std::span<const TriggerKind* const> trigger_kinds();
// By name or alias; null when there is none.
const TriggerKind* find_trigger_kind(std::string_view name);
// Known to Nuclio, refused here by name: kinesis, mqtt, nats …; "" when it is not even that.
std::string_view refused_trigger_kind(std::string_view name);

}  // namespace metier::realtime
