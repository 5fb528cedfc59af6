// State changes as they happen, for server-sent events and for whoever waits for a run. A bounded ring: a slow
// reader that falls out of it is told so (`lost`) and reads the lists again.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/async.h"
#include "base/clock.h"

namespace metier {

struct EngineEvent {
  std::uint64_t id = 0;
  std::string type;  // "dev.metier.run.state", "dev.metier.log.grew"
  std::string project;
  std::string uid;
  std::string name;
  std::string state;
  std::string reason;
  Time at{};
};
// CloudEvents 1.0, structured.
std::string event_json(const EngineEvent& event);

class EventHub final {
 public:
  explicit EventHub(Executor loop) : loop_(loop), grew_(loop) {}

  void publish(EngineEvent event);
  // Events after `seen`; sets `lost` when some are gone.
  std::vector<EngineEvent> after(std::uint64_t seen, bool& lost) const;
  std::uint64_t last() const { return next_ - 1; }
  Signal& grew() { return grew_; }

  // A signal for one run, shared by those who wait for it; it lives as long as they do.
  std::shared_ptr<Signal> of_run(const std::string& key);
  void wake(const std::string& key);

 private:
  static constexpr std::size_t kKept = 4096;
  Executor loop_;
  Signal grew_;
  std::deque<EngineEvent> ring_;
  std::uint64_t next_ = 1;
  std::map<std::string, std::weak_ptr<Signal>, std::less<>> waiting_;
  std::size_t sweep_at_ = 64;
};

}  // namespace metier
