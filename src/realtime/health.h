// Health and metrics on a thread of their own: they answer while the event loop is busy.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "base/log.h"
#include "base/result.h"
#include "realtime/processor_config.h"

namespace metier::realtime {

struct HealthCalls {
  std::function<bool()> ready;                   // any thread
  std::function<std::string()> why_not_ready;    // any thread
  std::function<Result<std::string>()> metrics;  // may wait for the loop, bounded
  // JSON, may wait for the loop, bounded. Every trigger, or the one of that name ("": there is none), or what it has done.
  std::function<Result<std::string>()> triggers;
  std::function<Result<std::string>(std::string name, bool statistics)> trigger;
  // A JSON list of {"code", "message"}; may wait for the loop, bounded.
  std::function<Result<std::string>()> problems;
  // A tick of a trigger (Trigger::fire); `done` comes on the loop's thread.
  std::function<void(const std::string& trigger, const std::string& id, bool replace,
                     std::function<void(int status)> done)>
      fire;
  // So long a request waits for its tick; then it is answered with kTickRuns, and asks again. Who waits holds one of the few
  // connections that health is asked over.
  std::chrono::milliseconds tick_wait{40'000};
};

// The header of an answer, 202, to a tick whose handler runs still.
inline constexpr std::string_view kTickRuns = "X-Metier-Tick-Runs";

class HealthServer {
 public:
  virtual ~HealthServer() = default;  // ends the thread
  virtual std::uint16_t health_port() const = 0;
  virtual std::uint16_t metrics_port() const = 0;
  virtual std::uint16_t admin_port() const = 0;
};
// Null when neither is configured.
Result<std::unique_ptr<HealthServer>> start_health(const ProcessorConfig& config, HealthCalls calls,
                                                   Logger log);

}  // namespace metier::realtime
