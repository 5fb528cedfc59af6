#include "engine/events.h"

#include "base/json.h"
#include "engine/plan.h"

namespace metier {

std::string event_json(const EngineEvent& event) {
  JsonObject data{{"project", event.project}, {"uid", event.uid}};
  if (!event.name.empty()) { data["name"] = event.name; }
  if (!event.state.empty()) { data["state"] = event.state; }
  if (!event.reason.empty()) { data["reason"] = event.reason; }
  return dump_json(JsonObject{{"specversion", "1.0"},
                              {"id", std::to_string(event.id)},
                              {"source", "/metier/" + event.project},
                              {"type", event.type},
                              {"subject", event.uid},
                              {"time", to_iso(event.at)},
                              {"datacontenttype", "application/json"},
                              {"data", std::move(data)}});
}

void EventHub::publish(EngineEvent event) {
  event.id = next_++;
  const std::string key = plan_key(event.project, event.uid);
  ring_.push_back(std::move(event));
  if (ring_.size() > kKept) { ring_.pop_front(); }
  grew_.notify();
  wake(key);
}

std::vector<EngineEvent> EventHub::after(std::uint64_t seen, bool& lost) const {
  std::vector<EngineEvent> out;
  lost = !ring_.empty() && ring_.front().id > seen + 1;
  if (ring_.empty() || ring_.back().id <= seen) { return out; }
  const std::uint64_t first = ring_.front().id;
  for (std::size_t i = seen + 1 > first ? static_cast<std::size_t>(seen + 1 - first) : 0;
       i < ring_.size(); ++i) {
    out.push_back(ring_[i]);
  }
  return out;
}

std::shared_ptr<Signal> EventHub::of_run(const std::string& key) {
  if (const auto have = waiting_.find(key); have != waiting_.end()) {
    if (auto signal = have->second.lock()) { return signal; }
  }
  auto signal = std::make_shared<Signal>(loop_);
  // Nothing tells when the last waiter of a run has left: the map is swept when it has doubled.
  if (waiting_.size() >= sweep_at_) {
    std::erase_if(waiting_, [](const auto& one) { return one.second.expired(); });
    sweep_at_ = std::max<std::size_t>(64, waiting_.size() * 2);
  }
  waiting_[key] = signal;
  return signal;
}

void EventHub::wake(const std::string& key) {
  const auto have = waiting_.find(key);
  if (have == waiting_.end()) { return; }
  if (auto signal = have->second.lock()) {
    signal->notify();
  } else {
    waiting_.erase(have);
  }
}

}  // namespace metier
