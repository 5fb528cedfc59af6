// Events in: which worker takes one, what waits, for how long.
#include <algorithm>
#include <chrono>

#include "realtime/pool_worker.h"
#include "realtime/worker_pool.h"

namespace metier::realtime {
namespace {

using std::chrono::nanoseconds;

// Handlers that take less than this may have events waiting inside their worker: a hand-off costs as much.
constexpr std::int64_t kFastHandler = 30'000;
constexpr int kFastDepth = 16;

}  // namespace

TriggerStats& WorkerPool::stats_of(const Event& event) {
  for (auto& stats : stats_) {
    if (stats->name == event.trigger_name) { return *stats; }
  }
  stats_.push_back(std::make_unique<TriggerStats>());
  stats_.back()->kind =
      event.trigger_name == trigger_.name ? trigger_.kind : std::string(event.trigger_kind);
  stats_.back()->name = std::string(event.trigger_name);
  return *stats_.back();
}

int WorkerPool::depth() const {
  if (async_) { return trigger_.max_connections; }
  if (trigger_.batch.enabled) { return 1; }
  if (trigger_.queue_depth > 0) { return trigger_.queue_depth; }
  return native_ && handler_ewma_ns_ >= 0 && handler_ewma_ns_ < kFastHandler ? kFastDepth : 1;
}

WorkerPool::Worker* WorkerPool::pick(int lane) {
  if (lane >= 0) {
    Worker& worker = *workers_[static_cast<std::size_t>(lane) % workers_.size()];
    return worker.state == Worker::State::ready && worker.in_flight < depth() ? &worker : nullptr;
  }
  if (!async_ && !idle_.empty()) { return idle_.back(); }
  const int allowed = depth();
  if (allowed <= 1) { return nullptr; }
  Worker* best = nullptr;
  for (auto& worker : workers_) {
    if (worker->state == Worker::State::ready && worker->in_flight < allowed &&
        worker->cancelling == 0 && (best == nullptr || worker->in_flight < best->in_flight)) {
      best = worker.get();
    }
  }
  return best;
}

bool WorkerPool::place(Worker& worker, const Event& event, ResponseSink& sink,
                       std::int64_t since_ns, std::uint8_t redispatches, std::size_t inline_limit) {
  if (worker.free_slots.empty()) { return false; }
  const std::uint32_t slot = worker.free_slots.back();
  Flight& flight = worker.flights[slot];
  const EventId id{slot, flight.generation + 1};
  worker.ring->set_claim(id, METIER_CLAIM_QUEUED);
  const Pushed pushed = worker.ring->push_event(event, id, inline_limit);
  if (pushed == Pushed::full) { return false; }
  TriggerStats& stats = stats_of(event);
  if (pushed == Pushed::too_large) {
    stats.failure.add();
    sink.fail({.reason = FailReason::refused,
               .status = 431,
               .message = "the event's headers are larger than a worker can take"});
    return true;
  }
  worker.free_slots.pop_back();
  const std::int64_t now = now_ns();
  stats.queue.observe_ns(now - since_ns);
  flight = Flight{.event = &event,
                  .sink = &sink,
                  .stats = &stats,
                  .generation = id.generation,
                  .pushed_ns = now,
                  .redispatches = redispatches,
                  .in_use = true};
  if (worker.in_flight++ == 0) {
    worker.busy_since_ns = now;
    worker.head_since_ns = now;
    busy_count_.add(1);
  }
  in_flight_.add(1);
  if (!async_) { worker.order.push_back(slot); }
  worker.dirty = true;
  if (config_.event_timeout.count() > 0 && !worker.timeout_timer.armed()) {
    worker.timeout_timer.at(loop_.now() + config_.event_timeout);
  }
  last_event_ms_.store(loop_.wall_us() / 1000, std::memory_order_relaxed);
  return true;
}

void WorkerPool::occupied(Worker& worker) {
  if (worker.is_idle && worker.in_flight > 0) {
    std::erase(idle_, &worker);
    worker.is_idle = false;
  }
}

bool WorkerPool::give(Worker& worker, const Event& event, ResponseSink& sink, std::int64_t since_ns,
                      std::uint8_t redispatches) {
  if (trigger_.batch.enabled) {  // a handler of batches sees a list, also of one
    if (!worker.ring->has_room(sizeof(metier_record) +
                               Ring::record_bytes(event, METIER_RING_INLINE)) ||
        worker.ring->push(METIER_BATCH, 1) != Pushed::yes) {
      return false;
    }
  }
  if (!place(worker, event, sink, since_ns, redispatches, METIER_RING_INLINE)) { return false; }
  occupied(worker);
  return true;
}

void WorkerPool::deliver(const Event& event, ResponseSink& sink) noexcept {
  deliver_to(-1, event, sink);
}

void WorkerPool::deliver_to(int lane, const Event& event, ResponseSink& sink) noexcept {
  TriggerStats& stats = stats_of(event);
  if (shutting_) {
    stats.failure.add();
    sink.fail({.reason = FailReason::stopping,
               .status = 503,
               .message = "the function stops",
               .retry_after_s = 1});
    return;
  }
  Worker* worker = queue_.empty() || lane >= 0 ? pick(lane) : nullptr;
  stats.available_percent.add(idle_.size() * 100 / workers_.size());
  if (worker != nullptr && give(*worker, event, sink, now_ns(), 0)) {
    stats.immediate.add();
    return;
  }
  enqueue(event, sink, lane, 0, false);
}

void WorkerPool::deliver_batch(std::span<const Event* const> events,
                               std::span<ResponseSink* const> sinks) noexcept {
  const int lane = events.empty() ? -1 : events.front()->lane;
  Worker* worker = shutting_ ? nullptr : pick(lane);
  std::size_t bytes = sizeof(metier_record);
  const std::size_t limit = std::min<std::size_t>(
      METIER_RING_INLINE, METIER_RING_BYTES / 2 / std::max<std::size_t>(1, events.size()));
  for (const Event* event : events) { bytes += Ring::record_bytes(*event, limit); }
  if (worker == nullptr || worker->free_slots.size() < events.size() ||
      !worker->ring->has_room(bytes) ||
      worker->ring->push(METIER_BATCH, static_cast<std::uint32_t>(events.size())) != Pushed::yes) {
    for (std::size_t i = 0; i < events.size(); ++i) { deliver_to(lane, *events[i], *sinks[i]); }
    return;
  }
  for (std::size_t i = 0; i < events.size(); ++i) {
    stats_of(*events[i]).immediate.add();
    place(*worker, *events[i], *sinks[i], now_ns(), 0, limit);
  }
  occupied(*worker);
}

void WorkerPool::enqueue(const Event& event, ResponseSink& sink, int lane,
                         std::uint8_t redispatches, bool front) {
  TriggerStats& stats = stats_of(event);
  const bool no_wait = trigger_.worker_availability_timeout.count() == 0;
  if (!front && (no_wait || static_cast<int>(queue_.size()) >= trigger_.queue_size)) {
    stats.failure.add();
    stats.allocation_timeout.add();
    sink.fail({.reason = FailReason::no_worker,
               .status = 503,
               .message = no_wait ? "no worker is free" : "no worker is free and the queue is full",
               .retry_after_s = 1});
    return;
  }
  const Waiting waiting{&event, &sink, now_ns(), lane, redispatches};
  if (front) {
    queue_.push_front(waiting);
  } else {
    queue_.push_back(waiting);
  }
  queued_.set(static_cast<std::int64_t>(queue_.size()));
  arm_queue_timer();
}

void WorkerPool::arm_queue_timer() {
  if (!queue_.empty() && !queue_timer_.armed()) {
    queue_timer_.at(loop_.now() + trigger_.worker_availability_timeout);
  }
}

void WorkerPool::expire_queue() {
  const std::int64_t oldest =
      now_ns() -
      std::chrono::duration_cast<nanoseconds>(trigger_.worker_availability_timeout).count();
  std::vector<ResponseSink*> expired;
  while (!queue_.empty() && queue_.front().since_ns <= oldest) {
    TriggerStats& stats = stats_of(*queue_.front().event);
    stats.failure.add();
    stats.allocation_timeout.add();
    stats.wait_ms.add(
        static_cast<std::uint64_t>((now_ns() - queue_.front().since_ns) / kMillisecond));
    expired.push_back(queue_.front().sink);
    queue_.pop_front();
  }
  queued_.set(static_cast<std::int64_t>(queue_.size()));
  if (!queue_.empty()) {
    queue_timer_.at(loop_.now() + nanoseconds(queue_.front().since_ns - oldest));
  }
  for (ResponseSink* sink : expired) {
    sink->fail({.reason = FailReason::no_worker,
                .status = 503,
                .message = "no worker was free in time",
                .retry_after_s = 1});
  }
}

void WorkerPool::feed() {
  for (std::size_t i = 0; i < queue_.size();) {
    const Waiting waiting = queue_[i];
    Worker* worker = pick(waiting.lane);
    if (worker == nullptr) {
      if (waiting.lane < 0) { break; }
      ++i;  // pinned to a busy worker: those behind it need not wait
      continue;
    }
    queue_.erase(queue_.begin() + static_cast<std::ptrdiff_t>(i));
    if (!give(*worker, *waiting.event, *waiting.sink, waiting.since_ns, waiting.redispatches)) {
      queue_.insert(queue_.begin() + static_cast<std::ptrdiff_t>(i), waiting);
      break;
    }
    TriggerStats& stats = stats_of(*waiting.event);
    stats.after_wait.add();
    stats.wait_ms.add(static_cast<std::uint64_t>((now_ns() - waiting.since_ns) / kMillisecond));
  }
  queued_.set(static_cast<std::int64_t>(queue_.size()));
}

void WorkerPool::cancel(EventId, ResponseSink& sink) noexcept {
  const Failure failure{.reason = FailReason::cancelled, .status = 499};
  const auto waiting = std::ranges::find(queue_, &sink, &Waiting::sink);
  if (waiting != queue_.end()) {
    queue_.erase(waiting);
    queued_.set(static_cast<std::int64_t>(queue_.size()));
    sink.fail(failure);
    return;
  }
  for (auto& worker : workers_) {
    if (worker->in_flight == 0) { continue; }
    for (std::uint32_t slot = 0; slot < worker->flights.size(); ++slot) {
      Flight& flight = worker->flights[slot];
      if (!flight.in_use || flight.sink != &sink) { continue; }
      fail_flight(*worker, slot, failure);
      if (worker->ring->revoke({slot, flight.generation})) {
        finish(*worker, slot);
        became_free(*worker);
      } else if (flight.streamed || async_) {
        // A stream's writer sees that its claim is gone; a coroutine is cancelled.
        if (flight.streamed) {
          worker->ring->add_credit(slot, flight.held_credit);
          flight.held_credit = 0;
          worker->ring->set_claim({slot, flight.generation}, METIER_CLAIM_REVOKED);
          worker->ring->wake_writer();
        }
        if (async_ && worker->ring->push(METIER_CANCEL, slot, flight.generation) == Pushed::yes) {
          worker->dirty = true;
        }
      }
      return;
    }
  }
}

}  // namespace metier::realtime
