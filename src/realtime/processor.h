// The processor of one function: `metier processor --config FILE`. It opens the triggers, hosts the handler, serves health and metrics,
// and drains on SIGTERM.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/log.h"
#include "realtime/event_target.h"
#include "realtime/loop.h"
#include "realtime/metrics.h"
#include "realtime/processor_config.h"

namespace metier::realtime {

// What scaling goes by; adds up over the life of the processor. Read from any thread.
struct HostLoad {
  double busy_seconds = 0;  // over all workers
  std::int64_t handled = 0;
  int queued = 0;
  int in_flight = 0;
  int workers = 0;
  std::int64_t last_event_ms = 0;  // Unix time, 0 none yet
};

// A target that the processor owns.
class Host : public EventTarget {
 public:
  // Starts workers; `ready` (on the loop) once events can be taken, or with the error that makes the processor exit.
  virtual void start(std::function<void(Result<void>)> ready) = 0;
  // Ends workers after what they are doing; `done` when all are gone.
  virtual void shut(std::function<void()> done) = 0;
  virtual void metrics(MetricsWriter& out) const = 0;
  virtual bool ready() const { return true; }
  virtual std::string describe() const { return {}; }
  // Nothing while all is well.
  virtual std::optional<Problem> problem() const { return std::nullopt; }
  virtual HostLoad load() const { return {}; }
};

struct HostSite {
  Loop& loop;
  const ProcessorConfig& config;
  const TriggerConfig& trigger;  // the first one of a shared pool
  std::string trigger_label;     // name of the trigger, or of the shared allocator
  Logger log;
};

// How a runtime's handlers are hosted. Built in: python, native, shell; `main` adds "graph" (serving).
struct RuntimeHost {
  std::string runtime;  // the part before ':'
  Result<std::unique_ptr<Host>> (*make)(const HostSite& site) = nullptr;
};

struct ProcessorProgram {
  std::vector<RuntimeHost> hosts;  // besides the built-in ones
  std::function<Result<std::string>()>
      lib;  // the unpacked bundle, when the configuration names none
};

// Runs until SIGTERM or SIGINT. Gives the exit code: 0 after a drain, 2 for a wrong configuration, 1 when it could not start (the
// sentence is on stderr), 6 when draining took longer than drain_timeout.
int processor_main(const std::string& config_path, const ProcessorProgram& program);

}  // namespace metier::realtime
