// Answers out: the records of a worker, checked and handed to their sinks.
#include <algorithm>
#include <utility>

#include "realtime/pool_worker.h"
#include "realtime/worker_pool.h"

namespace metier::realtime {
namespace {

constexpr int kSamples = 16;

}  // namespace

void WorkerPool::finish(Worker& worker, std::uint32_t slot) {
  Flight& flight = worker.flights[slot];
  if (flight.cancelling) { --worker.cancelling; }
  flight.in_use = false;
  flight.sink = nullptr;
  flight.event = nullptr;
  worker.ring->set_claim({slot, flight.generation}, METIER_CLAIM_FREE);
  worker.free_slots.push_back(slot);
  in_flight_.add(-1);
  const std::int64_t now = now_ns();
  if (!worker.order.empty()) {
    if (worker.order.front() == slot) {
      worker.order.pop_front();
      worker.head_since_ns = now;
    } else {
      std::erase(worker.order, slot);
    }
  }
  if (--worker.in_flight == 0) {
    busy_ns_.fetch_add(now - worker.busy_since_ns, std::memory_order_relaxed);
    busy_count_.add(-1);
  }
}

void WorkerPool::became_free(Worker& worker) {
  if (worker.state != Worker::State::ready) { return; }
  if (!async_ && worker.in_flight == 0 && !worker.is_idle) {
    worker.is_idle = true;
    idle_.push_back(&worker);
  }
  if (!queue_.empty()) { feed(); }
  if (queue_.empty()) {
    if (!idle_.empty() && workers_.size() > 1 && !steal_timer_.armed()) {
      for (auto& other : workers_) {
        if (other->in_flight > 1 && !async_) {
          steal_timer_.after(std::chrono::milliseconds(1));
          break;
        }
      }
    }
    if (!room_calls_.empty()) { give_room(); }
  }
}

void WorkerPool::steal_for_idle() {
  // Behind an event that turned out slow others wait although a worker is free: those that have not started move.
  bool more = false;
  for (auto& other : workers_) {
    if (other->state != Worker::State::ready || other->in_flight < 2) { continue; }
    more = true;
    if (now_ns() - other->head_since_ns < kMillisecond) { continue; }
    while (!idle_.empty() && other->in_flight > 1) {
      const std::uint32_t slot = other->order.back();
      const Flight flight = other->flights[slot];
      if (flight.sink != nullptr && flight.event->lane >= 0) { break; }
      if (!other->ring->revoke({slot, flight.generation})) { break; }
      finish(*other, slot);
      stolen_.add();
      if (flight.sink != nullptr) {
        enqueue(*flight.event, *flight.sink, -1, flight.redispatches, true);
      }
      feed();
    }
  }
  if (more && !idle_.empty()) { steal_timer_.after(std::chrono::milliseconds(1)); }
}

void WorkerPool::read_worker(Worker& worker) {
  Incoming incoming;
  Ring* const ring = worker.ring.get();
  bool any = false;
  for (int i = 0; i < 1024; ++i) {
    const Read read = ring->next(incoming);
    if (read == Read::nothing) { break; }
    if (read == Read::corrupt) {
      corrupt_.add();
      lost(worker, ring->why_corrupt(), false);
      return;
    }
    any = true;
    handle(worker, incoming);
    if (worker.state == Worker::State::dying || worker.ring.get() != ring) { return; }
    ring->release();
  }
  if (any) { ring->wake_writer(); }
}

void WorkerPool::handle(Worker& worker, const Incoming& incoming) {
  switch (incoming.type) {
    case METIER_READY: {
      if (worker.state != Worker::State::starting) {
        return lost(worker, "it said ready twice", false);
      }
      worker.state = Worker::State::ready;
      ready_count_.add(1);
      became_free(worker);
      if (!started_ && ready_count_.value() == static_cast<std::int64_t>(workers_.size())) {
        started_ = true;
        if (ready_call_) { std::exchange(ready_call_, nullptr)({}); }
      }
      return;
    }
    case METIER_INIT_FAILED:
      if (!started_ && ready_call_) {
        std::exchange(ready_call_,
                      nullptr)(fail(ErrorKind::user_code, std::string(incoming.bytes)));
      } else {
        log_.error("a worker could not start", {{"error", Json(incoming.bytes)}});
      }
      return;
    case METIER_DRAINED:
    case METIER_TERMINATED:
      if (incoming.type == tell_answer_) { told(worker); }
      return;
    case METIER_ACK:
      for (AckListener* listener : ack_listeners_) {
        listener->acknowledge(incoming.bytes, incoming.partition, incoming.offset);
      }
      if (ack_listeners_.empty()) { unknown_acks_.add(); }
      return;
    default: break;
  }
  if (incoming.id.slot >= worker.flights.size()) {
    return lost(worker, "it answers an event that there is not", false);
  }
  Flight& flight = worker.flights[incoming.id.slot];
  if (!flight.in_use || flight.generation != incoming.id.generation) {
    if (incoming.type == METIER_LOG) { return; }  // of a task that outlived its event
    return lost(worker, "it answers an event that it does not have", false);
  }
  switch (incoming.type) {
    case METIER_LOG:
      if (flight.sink != nullptr) { flight.sink->log(incoming.bytes); }
      return;
    case METIER_CHUNK: {
      if (!flight.headed) { return lost(worker, "its answer has no head", false); }
      const auto size = static_cast<std::int64_t>(incoming.bytes.size());
      if (flight.left >= 0 && (flight.left -= size) < 0) {
        return lost(worker, "its answer is longer than it said", false);
      }
      const bool wants_more = flight.sink == nullptr || flight.sink->chunk(incoming.bytes);
      if (!flight.streamed) { return; }
      if (wants_more) {
        worker.ring->add_credit(incoming.id.slot, incoming.bytes.size());
      } else {
        flight.held_credit += incoming.bytes.size();
      }
      return;
    }
    case METIER_HEAD: {
      if (flight.headed) { return lost(worker, "its answer has two heads", false); }
      flight.headed = true;
      flight.streamed = (incoming.flags & METIER_RESPONSE_STREAM) != 0;
      flight.left = incoming.length;
      if (flight.sink != nullptr) {
        flight.sink->head({.status = incoming.status,
                           .content_type = incoming.content_type,
                           .headers = incoming.headers,
                           .length = incoming.length,
                           .outcome = (incoming.flags & METIER_RESPONSE_RAISED) != 0
                                          ? Outcome::raised
                                          : Outcome::answered,
                           .handler_ns = incoming.handler_ns,
                           .no_ack = (incoming.flags & METIER_RESPONSE_NO_ACK) != 0});
      }
      return;
    }
    case METIER_RESPONSE:
    case METIER_END:
    case METIER_ERROR: return answered(worker, flight, incoming);
    default: return lost(worker, "its record is not one that answers", false);
  }
}

void WorkerPool::answered(Worker& worker, Flight& flight, const Incoming& incoming) {
  ResponseSink* const sink = flight.sink;
  TriggerStats& stats = *flight.stats;
  const bool was_headed = flight.headed;
  if (incoming.type == METIER_RESPONSE ? was_headed
                                       : (!was_headed && incoming.type == METIER_END)) {
    return lost(worker, "its answer's records do not fit together", false);
  }
  if (incoming.type == METIER_END && flight.left > 0) {
    return lost(worker, "its answer is shorter than it said", false);
  }
  if (incoming.type != METIER_ERROR) {
    const std::int64_t took =
        std::min(incoming.handler_ns, now_ns() - flight.pushed_ns + kMillisecond);
    stats.handler.observe_ns(took);
    if (handler_ewma_ns_ < 0) {
      // The first answers decide slowly: a cold cache is no measure.
      handler_ewma_ns_ = stats.handler.count() >= kSamples ? took : -1;
    } else {
      handler_ewma_ns_ += (took - handler_ewma_ns_) / 16;
      if (took > kMillisecond) { handler_ewma_ns_ = std::max(handler_ewma_ns_, took / 4); }
    }
  }
  finish(worker, incoming.id.slot);
  if (sink != nullptr) {
    if (incoming.type == METIER_RESPONSE) {
      stats.success.add();
      sink->respond({.status = incoming.status,
                     .content_type = incoming.content_type,
                     .headers = incoming.headers,
                     .length = incoming.length,
                     .outcome = (incoming.flags & METIER_RESPONSE_RAISED) != 0 ? Outcome::raised
                                                                               : Outcome::answered,
                     .handler_ns = incoming.handler_ns,
                     .no_ack = (incoming.flags & METIER_RESPONSE_NO_ACK) != 0},
                    incoming.bytes);
    } else if (incoming.type == METIER_END) {
      stats.success.add();
      sink->end();
    } else {
      stats.failure.add();
      sink->fail({.reason = FailReason::internal, .status = 500, .message = incoming.bytes});
    }
  }
  became_free(worker);
}

void WorkerPool::resume(ResponseSink& sink) noexcept {
  for (auto& worker : workers_) {
    if (worker->in_flight == 0) { continue; }
    for (std::uint32_t slot = 0; slot < worker->flights.size(); ++slot) {
      Flight& flight = worker->flights[slot];
      if (flight.in_use && flight.sink == &sink && flight.held_credit > 0) {
        worker->ring->add_credit(slot, std::exchange(flight.held_credit, 0));
        worker->ring->wake_writer();
        return;
      }
    }
  }
}

}  // namespace metier::realtime
