#include "realtime/worker_pool.h"

#include <fmt/format.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>

#include "realtime/hosts.h"

namespace metier::realtime {
namespace {

using std::chrono::milliseconds;
using std::chrono::nanoseconds;

constexpr std::int64_t kMillisecond = 1'000'000;
// Handlers that take less than this may have events waiting inside their worker: a hand-off costs as much.
constexpr std::int64_t kFastHandler = 30'000;
constexpr int kFastDepth = 16;
constexpr int kSamples = 16;

class Watch final : public Watched {
 public:
  explicit Watch(std::function<void()> call) : call_(std::move(call)) {}
  void on_ready(std::uint32_t) noexcept override { call_(); }

 private:
  std::function<void()> call_;
};

}  // namespace

struct WorkerPool::Worker {
  enum class State { none, starting, ready, dying };
  Worker(Loop& loop, int number, std::function<void()> on_timeout, std::function<void()> on_restart,
         std::function<void()> on_end)
      : index(number),
        out_watch([] {}),
        end_watch(std::move(on_end)),
        timeout_timer(loop, std::move(on_timeout)),
        restart_timer(loop, std::move(on_restart)) {}

  int index;
  State state = State::none;
  std::unique_ptr<Ring> ring;
  pid_t pid = -1;
  Fd pidfd;
  Watch out_watch;  // the turn's end reads every busy ring: the event only ends the sleep
  Watch end_watch;
  LoopTimer timeout_timer, restart_timer;
  std::vector<Flight> flights;
  std::vector<std::uint32_t> free_slots;
  std::deque<std::uint32_t> order;  // of a sync worker: the first is the one it works on
  int in_flight = 0;
  int cancelling =
      0;  // timed out coroutines that have not ended: it gets nothing new, its loop may be stuck
  bool dirty = false;
  bool is_idle = false;
  bool told = false;  // has an answer to DRAIN or TERMINATE to give
  std::int64_t busy_since_ns = 0, head_since_ns = 0, started_ns = 0;
  int failures = 0;
};

WorkerPool::WorkerPool(const HostSite& site)
    : loop_(site.loop),
      config_(site.config),
      trigger_(site.trigger),
      label_(site.trigger_label),
      log_(site.log.with("trigger", Json(site.trigger_label))),
      queue_timer_(site.loop, [this] { expire_queue(); }),
      steal_timer_(site.loop, [this] { steal_for_idle(); }),
      shut_timer_(site.loop,
                  [this] {
                    for (auto& worker : workers_) { kill(*worker, SIGKILL); }
                  }),
      template_timer_(site.loop, [this] {
        if (auto begun = template_->start(); !begun) {
          template_timer_.after(std::chrono::seconds(1));
        }
      }) {
  async_ = trigger_.mode == "async";
  for (int i = 0; i < trigger_.num_workers; ++i) {
    workers_.push_back(std::make_unique<Worker>(
        loop_, i, [this, i] { check_timeouts(*workers_[static_cast<std::size_t>(i)]); },
        [this, i] { spawn(*workers_[static_cast<std::size_t>(i)]); },
        [this, i] {
          Worker& worker = *workers_[static_cast<std::size_t>(i)];
          if (worker.state != Worker::State::dying) { lost(worker, "it ended", true); }
          loop_.forget(worker.pidfd.get(), worker.end_watch);
          worker.pidfd.reset();
          worker.timeout_timer.cancel();
          template_->reap(worker.pid);
          worker.pid = -1;
          worker.state = Worker::State::none;
          if (worker.ring) {
            loop_.forget(worker.ring->out_eventfd(), worker.out_watch);
            worker.ring.reset();
          }
          told(worker);
          replace_later(worker);
        }));
  }
  loop_.at_turn_end([this] {
    for (auto& worker : workers_) {
      if (worker->ring && worker->state != Worker::State::dying) { read_worker(*worker); }
    }
    for (auto& worker : workers_) {
      if (worker->dirty && worker->ring) {
        worker->dirty = false;
        worker->ring->flush();
      }
    }
    return false;
  });
  loop_.around_sleep(
      [this] {
        bool may = true;
        for (auto& worker : workers_) {
          if (worker->ring && worker->state != Worker::State::dying) {
            may = worker->ring->fall_asleep() && may;
          }
        }
        return may;
      },
      [this] {
        for (auto& worker : workers_) {
          if (worker->in_flight > 0 && worker->ring) { worker->ring->awake(); }
        }
      });
}

WorkerPool::~WorkerPool() {
  for (auto& worker : workers_) { kill(*worker, SIGKILL); }
}

std::int64_t WorkerPool::now_ns() const {
  return std::chrono::duration_cast<nanoseconds>(loop_.now().time_since_epoch()).count();
}

void WorkerPool::start(std::function<void(Result<void>)> ready) {
  ready_call_ = std::move(ready);
  template_ = std::make_unique<PythonTemplate>(
      loop_, config_, log_,
      PythonTemplate::Calls{
          .ready =
              [this](Result<PythonTemplate::Started> result) {
                if (!result) {
                  if (!started_) {
                    if (ready_call_) {
                      std::exchange(ready_call_, nullptr)(fail(std::move(result.error())));
                    }
                  } else {
                    log_.error("the handler cannot be imported again",
                               {{"error", Json(result.error().message)}});
                    template_timer_.after(std::chrono::seconds(1));
                  }
                  return;
                }
                native_ = result->native;
                cold_ = result->cold;
                import_ms_ = result->import_ms;
                if (!native_) {
                  log_.warn(
                      "SlowWorker: the interpreter cannot load the ring's extension, plain Python "
                      "reads the ring");
                }
                if (cold_) {
                  log_.warn(
                      "ColdWorkers: the module starts threads when it is imported, every worker "
                      "imports it");
                }
                for (auto& worker : workers_) {
                  if (worker->state == Worker::State::none && !worker->restart_timer.armed()) {
                    spawn(*worker);
                  }
                }
              },
          .forked = [this](int index, pid_t pid) { forked(index, pid); },
          .exited = [this](pid_t pid, int status) { exited(pid, status); },
          .died =
              [this] {
                if (shutting_) { return; }
                log_.warn("the template process ended, it is started again");
                template_timer_.after(milliseconds(50));
              },
      });
  if (auto begun = template_->start(); !begun) {
    std::exchange(ready_call_, nullptr)(fail(std::move(begun.error())));
  }
}

void WorkerPool::spawn(Worker& worker) {
  if (shutting_ || worker.state != Worker::State::none || !template_->is_ready()) { return; }
  auto ring = Ring::create();
  if (!ring) {
    log_.error("a worker cannot be started", {{"error", Json(ring.error().text())}});
    worker.restart_timer.after(std::chrono::seconds(1));
    return;
  }
  worker.ring = std::move(*ring);
  worker.flights.clear();
  worker.free_slots.clear();
  const int slots = async_ || trigger_.batch.enabled ? METIER_RING_SLOTS : 64;
  worker.flights.resize(static_cast<std::size_t>(slots));
  for (int i = slots - 1; i >= 0; --i) {
    worker.free_slots.push_back(static_cast<std::uint32_t>(i));
  }
  worker.order.clear();
  worker.in_flight = 0;
  worker.cancelling = 0;
  JsonObject spec;
  spec["worker_id"] = fmt::format("{}", worker.index);
  spec["trigger_kind"] = trigger_.worker_allocator_name.empty() ? trigger_.kind : "";
  spec["trigger_name"] = label_;
  spec["mode"] = trigger_.mode;
  worker.state = Worker::State::starting;
  worker.started_ns = now_ns();
  if (auto sent = template_->fork(worker.index, spec,
                                  {worker.ring->segment(), worker.ring->out_eventfd(),
                                   worker.ring->in_eventfd(), worker.ring->peer_socket()});
      !sent) {
    worker.state = Worker::State::none;
    worker.ring.reset();
    worker.restart_timer.after(milliseconds(200));
    return;
  }
  worker.ring->close_peer();
  static_cast<void>(loop_.watch(worker.ring->out_eventfd(), EPOLLIN | EPOLLET, worker.out_watch));
}

void WorkerPool::forked(int index, pid_t pid) {
  if (index < 0 || index >= static_cast<int>(workers_.size()) || pid <= 0) { return; }
  Worker& worker = *workers_[static_cast<std::size_t>(index)];
  // The worker's own word (ready, or a corrupt record) may be here before the template's.
  if (worker.state == Worker::State::none || worker.pid > 0) { return; }
  // The template reaps only when it is told to: the pid is still this worker's.
  worker.pid = pid;
  worker.pidfd.reset(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  if (!worker.pidfd || !loop_.watch(worker.pidfd.get(), EPOLLIN, worker.end_watch)) {
    log_.error("a worker cannot be watched", {{"pid", Json(pid)}});
  }
  if (worker.state == Worker::State::dying) { kill(worker, SIGKILL); }
}

void WorkerPool::kill(Worker& worker, int signal) {
  if (worker.pidfd) { ::syscall(SYS_pidfd_send_signal, worker.pidfd.get(), signal, nullptr, 0); }
}

void WorkerPool::exited(pid_t pid, int status) {
  const auto found = reasons_.find(pid);
  const std::string why = found == reasons_.end() ? "" : found->second;
  if (found != reasons_.end()) { reasons_.erase(found); }
  if (shutting_) { return; }
  const std::string how = WIFSIGNALED(status) ? fmt::format("signal {}", WTERMSIG(status))
                                              : fmt::format("exit code {}", WEXITSTATUS(status));
  log_.warn("a worker ended and is replaced",
            {{"pid", Json(pid)}, {"how", Json(how)}, {"why", Json(why)}});
}

void WorkerPool::replace_later(Worker& worker) {
  if (shutting_) {
    check_shut();
    return;
  }
  if (!started_) {
    if (ready_call_) {
      std::exchange(ready_call_, nullptr)(
          fail(ErrorKind::user_code,
               "a worker ended while it started: its output says why (the lines above)"));
    }
    return;
  }
  restarts_.add();
  const bool lived = now_ns() - worker.started_ns > 10'000 * kMillisecond;
  worker.failures = lived ? 0 : worker.failures + 1;
  const int exponent = std::min(worker.failures - 2, 7);
  const auto delay =
      worker.failures < 2 ? milliseconds(0) : milliseconds(std::min(10'000, 100 << exponent));
  worker.restart_timer.after(delay);
}

// ---- events in ----

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
    return worker.state == Worker::State::ready &&
                   worker.in_flight < (async_ ? trigger_.max_connections : 1)
               ? &worker
               : nullptr;
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
  Worker* worker = shutting_ ? nullptr : pick(-1);
  std::size_t bytes = sizeof(metier_record);
  const std::size_t limit = std::min<std::size_t>(
      METIER_RING_INLINE, METIER_RING_BYTES / 2 / std::max<std::size_t>(1, events.size()));
  for (const Event* event : events) { bytes += Ring::record_bytes(*event, limit); }
  if (worker == nullptr || worker->free_slots.size() < events.size() ||
      !worker->ring->has_room(bytes) ||
      worker->ring->push(METIER_BATCH, static_cast<std::uint32_t>(events.size())) != Pushed::yes) {
    for (std::size_t i = 0; i < events.size(); ++i) { deliver(*events[i], *sinks[i]); }
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

// ---- answers out ----

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

// ---- ends, timeouts ----

void WorkerPool::fail_flight(Worker& worker, std::uint32_t slot, const Failure& failure) {
  ResponseSink* const sink = worker.flights[slot].sink;
  worker.flights[slot].sink = nullptr;
  worker.flights[slot].stats->failure.add();
  if (sink != nullptr) { sink->fail(failure); }
}

void WorkerPool::lost(Worker& worker, std::string_view why, bool trust_claims) {
  if (worker.state == Worker::State::dying || worker.state == Worker::State::none) { return; }
  if (worker.state == Worker::State::ready) { ready_count_.add(-1); }
  worker.state = Worker::State::dying;
  if (worker.is_idle) {
    std::erase(idle_, &worker);
    worker.is_idle = false;
  }
  if (worker.pid > 0) { reasons_[worker.pid] = std::string(why); }
  if (!trust_claims) { kill(worker, SIGKILL); }
  struct Left {
    Flight flight;
    bool started;
  };
  std::vector<Left> left;
  for (std::uint32_t slot = 0; slot < worker.flights.size(); ++slot) {
    const Flight flight = worker.flights[slot];
    if (!flight.in_use) { continue; }
    const bool untouched = trust_claims && !flight.headed && flight.redispatches == 0 &&
                           worker.ring->revoke({slot, flight.generation});
    finish(worker, slot);
    if (flight.sink != nullptr) { left.push_back({flight, !untouched}); }
  }
  std::ranges::sort(
      left, [](const Left& a, const Left& b) { return a.flight.pushed_ns > b.flight.pushed_ns; });
  for (const Left& entry : left) {  // the oldest ends at the front of the queue
    if (!entry.started && !shutting_) {
      redispatched_.add();
      enqueue(*entry.flight.event, *entry.flight.sink, -1,
              static_cast<std::uint8_t>(entry.flight.redispatches + 1), true);
    }
  }
  for (const Left& entry : left) {
    if (entry.started || shutting_) {
      entry.flight.stats->failure.add();
      entry.flight.sink->fail({.reason = FailReason::worker_died,
                               .status = 502,
                               .message = "the worker died while it handled the event"});
    }
  }
  feed();
}

void WorkerPool::check_timeouts(Worker& worker) {
  if (worker.state == Worker::State::dying) {
    kill(worker, SIGKILL);  // it had a second for its `finally` clauses
    return;
  }
  if (worker.in_flight == 0) { return; }
  const std::int64_t limit = std::chrono::duration_cast<nanoseconds>(config_.event_timeout).count();
  const Failure failure{.reason = FailReason::timed_out,
                        .status = 408,
                        .message = R"({"error": "handler timed out"})"};
  const std::int64_t now = now_ns();
  if (!async_) {
    const std::int64_t due = worker.head_since_ns + limit;
    if (now < due) {
      worker.timeout_timer.at(loop_.now() + nanoseconds(due - now));
      return;
    }
    timeouts_.add();
    const std::size_t together = trigger_.batch.enabled ? worker.order.size() : 1;
    const std::vector<std::uint32_t> heads(
        worker.order.begin(), worker.order.begin() + static_cast<std::ptrdiff_t>(together));
    for (const std::uint32_t slot : heads) { fail_flight(worker, slot, failure); }
    kill(worker, SIGALRM);
    lost(worker, "the event timeout", true);
    worker.timeout_timer.after(std::chrono::seconds(1));
    return;
  }
  std::int64_t next = INT64_MAX;
  for (std::uint32_t slot = 0; slot < worker.flights.size(); ++slot) {
    Flight& flight = worker.flights[slot];
    if (!flight.in_use) { continue; }
    const std::int64_t due =
        flight.pushed_ns + limit + (flight.cancelling ? 1000 * kMillisecond : 0);
    if (now < due) {
      next = std::min(next, due);
      continue;
    }
    if (flight.cancelling) {
      lost(worker, "its event loop does not turn", false);
      return;
    }
    if (worker.ring->revoke({slot, flight.generation})) {  // it never started: another worker may
      const Flight moved = flight;
      finish(worker, slot);
      if (moved.sink != nullptr) {
        enqueue(*moved.event, *moved.sink, -1, moved.redispatches, true);
      }
      continue;
    }
    timeouts_.add();
    flight.cancelling = true;
    ++worker.cancelling;
    next = std::min(next, due + 1000 * kMillisecond);
    if (worker.ring->push(METIER_CANCEL, slot, flight.generation) == Pushed::yes) {
      worker.dirty = true;
    }
    fail_flight(worker, slot, failure);
    if (worker.state != Worker::State::ready) { return; }
  }
  if (next != INT64_MAX) { worker.timeout_timer.at(loop_.now() + nanoseconds(next - now)); }
  if (!queue_.empty()) { feed(); }
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

// ---- drain, end ----

void WorkerPool::tell_all(int type, int answer, std::function<void()> done) {
  tell_type_ = type;
  tell_answer_ = answer;
  tell_done_ = std::move(done);
  for (auto& worker : workers_) {
    if (worker->state == Worker::State::ready && worker->ring->push(type) == Pushed::yes) {
      worker->told = true;
      worker->dirty = true;
    }
  }
  if (std::ranges::none_of(workers_, [](const auto& worker) { return worker->told; }) &&
      tell_done_) {
    std::exchange(tell_done_, nullptr)();
  }
}

void WorkerPool::told(Worker& worker) {
  if (!worker.told) { return; }
  worker.told = false;
  if (std::ranges::none_of(workers_, [](const auto& other) { return other->told; }) && tell_done_) {
    std::exchange(tell_done_, nullptr)();
  }
}

void WorkerPool::drain(std::function<void()> done) noexcept {
  tell_all(METIER_DRAIN, METIER_DRAINED, std::move(done));
}
void WorkerPool::terminate(std::function<void()> done) noexcept {
  tell_all(METIER_TERMINATE, METIER_TERMINATED, std::move(done));
}
void WorkerPool::listen_acks(AckListener* listener) noexcept {
  if (listener != nullptr) {
    ack_listeners_.push_back(listener);
  } else {
    ack_listeners_.clear();
  }
}

bool WorkerPool::has_room() const noexcept {
  if (shutting_ || !queue_.empty()) { return false; }
  if (!idle_.empty()) { return true; }
  const int allowed = depth();
  return (async_ || allowed > 1) && std::ranges::any_of(workers_, [&](const auto& worker) {
           return worker->state == Worker::State::ready && worker->in_flight < allowed;
         });
}

void WorkerPool::when_room(std::function<void()> call) noexcept {
  room_calls_.push_back(std::move(call));
  if (has_room()) {
    loop_.post([this] { give_room(); });
  }
}

void WorkerPool::give_room() {
  std::vector<std::function<void()>> calls;
  calls.swap(room_calls_);
  for (auto& call : calls) { call(); }
}

void WorkerPool::shut(std::function<void()> done) {
  shut_call_ = std::move(done);
  shutting_ = true;
  const auto waiting = std::exchange(queue_, {});
  queued_.set(0);
  for (const Waiting& entry : waiting) {
    entry.sink->fail({.reason = FailReason::stopping,
                      .status = 503,
                      .message = "the function stops",
                      .retry_after_s = 1});
  }
  for (auto& worker : workers_) {
    worker->restart_timer.cancel();
    if (worker->state == Worker::State::starting) {
      kill(*worker, SIGKILL);
    } else if (worker->state == Worker::State::ready) {
      worker->ring->push(METIER_TERMINATE);
      worker->ring->push(METIER_STOP);
      worker->dirty = true;
    }
  }
  shut_timer_.after(trigger_.worker_termination_timeout);
  check_shut();
}

void WorkerPool::check_shut() {
  if (!shutting_ || !shut_call_) { return; }
  for (auto& worker : workers_) {
    if (worker->state != Worker::State::none) { return; }
  }
  shut_timer_.cancel();
  if (template_) { template_->stop(); }
  std::exchange(shut_call_, nullptr)();
}

// ---- figures ----

HostLoad WorkerPool::load() const {
  HostLoad load;
  load.busy_seconds = static_cast<double>(busy_ns_.load(std::memory_order_relaxed)) * 1e-9;
  for (const auto& stats : stats_) {
    load.handled += static_cast<std::int64_t>(stats->success.value() + stats->failure.value());
  }
  // What runs now counts as well: a handler of an hour is busy for an hour.
  const std::int64_t now =
      std::chrono::duration_cast<nanoseconds>(std::chrono::steady_clock::now().time_since_epoch())
          .count();
  for (const auto& worker : workers_) {
    if (worker->in_flight > 0) {
      load.busy_seconds += static_cast<double>(now - worker->busy_since_ns) * 1e-9;
    }
  }
  load.queued = static_cast<int>(queued_.value());
  load.in_flight = static_cast<int>(in_flight_.value());
  load.workers = static_cast<int>(workers_.size());
  load.last_event_ms = last_event_ms_.load(std::memory_order_relaxed);
  return load;
}

std::string WorkerPool::describe() const {
  return fmt::format("{} of {} workers ready{}{}", ready_count_.value(), workers_.size(),
                     native_ ? "" : ", SlowWorker", cold_ ? ", ColdWorkers" : "");
}

void trigger_metrics(const TriggerStats& stats, MetricsWriter& out) {
  const Labels id{{"trigger_kind", stats.kind}, {"trigger_id", stats.name}};
  constexpr std::string_view kHandled = "nuclio_processor_handled_events_total";
  out.counter(kHandled, "Events handled",
              {{"trigger_kind", stats.kind}, {"trigger_id", stats.name}, {"result", "success"}},
              stats.success.value());
  out.counter(kHandled, "Events handled",
              {{"trigger_kind", stats.kind}, {"trigger_id", stats.name}, {"result", "failure"}},
              stats.failure.value());
  constexpr std::string_view kAllocation = "nuclio_processor_worker_allocation_total";
  out.counter(
      kAllocation, "Worker allocations",
      {{"trigger_kind", stats.kind}, {"trigger_id", stats.name}, {"result", "success_immediate"}},
      stats.immediate.value());
  out.counter(
      kAllocation, "Worker allocations",
      {{"trigger_kind", stats.kind}, {"trigger_id", stats.name}, {"result", "success_after_wait"}},
      stats.after_wait.value());
  out.counter(
      kAllocation, "Worker allocations",
      {{"trigger_kind", stats.kind}, {"trigger_id", stats.name}, {"result", "error_timeout"}},
      stats.allocation_timeout.value());
  const std::uint64_t count =
      stats.immediate.value() + stats.after_wait.value() + stats.allocation_timeout.value();
  out.counter("nuclio_processor_worker_allocation_count", "Worker allocations", id, count);
  out.counter("nuclio_processor_worker_allocation_wait_duration_milliseconds_sum",
              "Time waited for workers", id, stats.wait_ms.value());
  out.counter("nuclio_processor_worker_allocation_workers_available_percentage",
              "Sum over allocations of free workers in percent", id,
              stats.available_percent.value());
  out.counter("nuclio_processor_handled_events_duration_milliseconds_sum", "Time in handlers", id,
              stats.handler.sum_ns() / 1'000'000);
  out.counter("nuclio_processor_handled_events_duration_milliseconds_count", "Events timed", id,
              stats.handler.count());
  out.histogram("metier_processor_queue_seconds", "From arrival to the worker", id, stats.queue);
  out.histogram("metier_processor_handler_seconds", "In the handler", id, stats.handler);
}

void WorkerPool::metrics(MetricsWriter& out) const {
  for (const auto& stats : stats_) { trigger_metrics(*stats, out); }
  const Labels pool{{"pool", label_}};
  out.gauge("metier_processor_workers", "Workers of the pool", pool,
            static_cast<double>(workers_.size()));
  out.gauge("metier_processor_workers_ready", "Workers that are up", pool,
            static_cast<double>(ready_count_.value()));
  out.gauge("metier_processor_workers_busy", "Workers with an event", pool,
            static_cast<double>(busy_count_.value()));
  out.gauge("metier_processor_queued_events", "Events that wait for a worker", pool,
            static_cast<double>(queued_.value()));
  out.gauge("metier_processor_in_flight_events", "Events in workers", pool,
            static_cast<double>(in_flight_.value()));
  out.counter("metier_processor_worker_restarts_total", "Workers replaced", pool,
              restarts_.value());
  out.counter("metier_processor_worker_corrupt_total", "Workers replaced for impossible records",
              pool, corrupt_.value());
  out.counter("metier_processor_event_timeouts_total", "Events that timed out", pool,
              timeouts_.value());
  out.counter("metier_processor_redispatched_events_total",
              "Unstarted events of dead workers given to another", pool, redispatched_.value());
  out.counter("metier_processor_unknown_acks_total",
              "Explicit acknowledgements that no stream waits for", pool, unknown_acks_.value());
  out.counter("metier_processor_moved_events_total",
              "Unstarted events taken from behind a slow one", pool, stolen_.value());
}

Result<std::unique_ptr<Host>> make_python_host(const HostSite& site) {
  return std::make_unique<WorkerPool>(site);
}

}  // namespace metier::realtime
