// Workers begin and end: forks, deaths, replacement, event timeouts.
#include <fmt/format.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>

#include "realtime/pool_worker.h"
#include "realtime/worker_pool.h"

namespace metier::realtime {
namespace {

using std::chrono::milliseconds;
using std::chrono::nanoseconds;
constexpr auto kCrashShown = std::chrono::minutes(10);  // a crash that old is history

}  // namespace

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
  const bool by_itself = ended_by_themselves_.erase(pid) > 0;
  if (shutting_) { return; }
  const std::string how = WIFSIGNALED(status) ? fmt::format("signal {}", WTERMSIG(status))
                                              : fmt::format("exit code {}", WEXITSTATUS(status));
  if (by_itself) {
    ++crashes_.count;
    crashes_.last = std::chrono::steady_clock::now();
    crashes_.how = how;
  }
  log_.warn("a worker ended and is replaced",
            {{"pid", Json(pid)}, {"how", Json(how)}, {"why", Json(why)}});
}

std::optional<Problem> WorkerPool::problem() const {
  const auto age = std::chrono::steady_clock::now() - crashes_.last;
  if (crashes_.count == 0 || age > kCrashShown) { return std::nullopt; }
  return Problem{"WorkerCrashed",
                 fmt::format("{} of its workers ended by {} ({}); {} replaced", crashes_.count,
                             crashes_.count == 1 ? "itself" : "themselves",
                             crashes_.count == 1 ? crashes_.how : "the last: " + crashes_.how,
                             crashes_.count == 1 ? "it was" : "they were")};
}

void WorkerPool::ended(Worker& worker) {
  // What it wrote before it ended counts: why it could not start, the answer to its last event.
  if (worker.state != Worker::State::dying && worker.ring) { read_worker(worker); }
  if (worker.state != Worker::State::dying && worker.pid > 0 && started_ && !shutting_) {
    ended_by_themselves_.insert(worker.pid);
  }
  lost(worker, "it ended", true);
  if (worker.pidfd) {
    loop_.forget(worker.pidfd.get(), worker.end_watch);
    worker.pidfd.reset();
  }
  worker.timeout_timer.cancel();
  if (worker.pid > 0) { template_->reap(worker.pid); }
  worker.pid = -1;
  worker.state = Worker::State::none;
  if (worker.ring) {
    loop_.forget(worker.ring->out_eventfd(), worker.out_watch);
    worker.ring.reset();
  }
  told(worker);
  replace_later(worker);
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
    const bool untouched =
        flight.revoked || (trust_claims && !flight.headed && flight.redispatches == 0 &&
                           worker.ring->revoke({slot, flight.generation}));
    finish(worker, slot);
    if (flight.sink != nullptr) { left.push_back({flight, !untouched}); }
  }
  for (AckListener* listener : ack_listeners_) { listener->worker_lost(worker.index); }
  std::ranges::sort(
      left, [](const Left& a, const Left& b) { return a.flight.pushed_ns > b.flight.pushed_ns; });
  for (const Left& entry : left) {  // the oldest ends at the front of the queue
    if (!entry.started && !shutting_ && entry.flight.event->lane < 0) {
      redispatched_.add();
      enqueue(*entry.flight.event, *entry.flight.sink, -1,
              static_cast<std::uint8_t>(entry.flight.redispatches + 1), true);
    }
  }
  for (const Left& entry : left) {
    if (entry.started || shutting_ || entry.flight.event->lane >= 0) {
      entry.flight.stats->failure.add();
      // Of a stream: what no handler saw is delivered again and counts as no try.
      entry.flight.sink->fail(
          entry.flight.revoked ? Failure{.reason = FailReason::no_worker,
                                         .status = 503,
                                         .message = "its worker did not begin the event in time"}
                               : Failure{.reason = FailReason::worker_died,
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
  // Timers come before the turn's end: after a stall the answer may be here, unread.
  if (worker.state == Worker::State::ready) { read_worker(worker); }
  if (worker.state != Worker::State::ready || worker.in_flight == 0) { return; }
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
    const std::size_t together = trigger_.batch.enabled ? worker.order.size() : 1;
    const std::vector<std::uint32_t> heads(
        worker.order.begin(), worker.order.begin() + static_cast<std::ptrdiff_t>(together));
    bool began = false;
    for (const std::uint32_t slot : heads) {
      Flight& flight = worker.flights[slot];
      flight.revoked = worker.ring->revoke({slot, flight.generation});  // another worker may
      if (!flight.revoked) { fail_flight(worker, slot, failure); }
      began = began || !flight.revoked;
    }
    if (began) { timeouts_.add(); }
    kill(worker, SIGALRM);
    lost(worker, began ? "the event timeout" : "it began no event within the event timeout", true);
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

}  // namespace metier::realtime
