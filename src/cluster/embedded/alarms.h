// Things to do at a time of an injected clock, in order, on the loop's thread. One real timer wakes it; a
// test that moves the clock calls `wake`.
#pragma once

#include <functional>
#include <map>
#include <memory>

#include "base/async.h"
#include "base/clock.h"

namespace metier {

class Alarms final {
 public:
  using Id = std::uint64_t;  // 0 = none
  using When = std::chrono::steady_clock::time_point;

  Alarms(Executor executor, const Clock& clock);
  ~Alarms();
  Alarms(const Alarms&) = delete;
  Alarms& operator=(const Alarms&) = delete;

  Id at(When when, std::function<void()> action);
  Id after(std::chrono::milliseconds delay, std::function<void()> action) {
    return at(clock_.steady() + delay, std::move(action));
  }
  // Clears `id`; an unknown or past one is fine.
  void cancel(Id& id);
  // Does what is due and waits for the next.
  void wake();
  void clear();

 private:
  void arm();

  const Clock& clock_;
  Timer timer_;
  std::map<std::pair<When, Id>, std::function<void()>> actions_;
  std::map<Id, When> times_;
  std::shared_ptr<Alarms*> self_;  // null inside once this is gone: a wake-up may be on its way
  Id next_ = 1;
  When armed_ = When::max();
};

}  // namespace metier
