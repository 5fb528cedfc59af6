// An optional ability of who listens to acknowledgements: to be told when a worker ends with events that it had answered and not
// acknowledged. Nobody will acknowledge them.
#pragma once

namespace metier::realtime {

class WorkerLossListener {
 public:
  virtual ~WorkerLossListener() = default;
  // Before the worker's events in flight fail; nothing is delivered to that lane meanwhile.
  virtual void worker_lost(int lane) noexcept = 0;
};

}  // namespace metier::realtime
