#include "cluster/embedded/alarms.h"

namespace metier {

Alarms::Alarms(Executor executor, const Clock& clock)
    : clock_(clock), timer_(executor), self_(std::make_shared<Alarms*>(this)) {}

Alarms::~Alarms() { *self_ = nullptr; }

Alarms::Id Alarms::at(When when, std::function<void()> action) {
  const Id id = next_++;
  times_.emplace(id, when);
  actions_.emplace(std::pair(when, id), std::move(action));
  arm();
  return id;
}

void Alarms::cancel(Id& id) {
  if (const auto found = times_.find(id); found != times_.end()) {
    actions_.erase({found->second, id});
    times_.erase(found);
  }
  id = 0;
  if (actions_.empty()) { clear(); }  // so that an idle loop can end
}

void Alarms::clear() {
  actions_.clear();
  times_.clear();
  armed_ = When::max();
  timer_.cancel();
}

void Alarms::wake() {
  while (!actions_.empty() && actions_.begin()->first.first <= clock_.steady()) {
    auto node = actions_.extract(actions_.begin());
    times_.erase(node.key().second);
    node.mapped()();
  }
  armed_ = When::max();
  arm();
}

void Alarms::arm() {
  if (actions_.empty()) { return; }
  const auto next = actions_.begin()->first.first;
  if (next >= armed_) { return; }
  armed_ = next;
  const auto delay = std::max(next - clock_.steady(), std::chrono::steady_clock::duration::zero());
  timer_.expires_after(delay);
  timer_.async_wait([self = self_](boost::system::error_code ec) {
    if (!ec && *self != nullptr) { (*self)->wake(); }
  });
}

}  // namespace metier
