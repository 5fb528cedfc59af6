#include "realtime/worker_pool.h"

#include <algorithm>
#include <csignal>
#include <utility>

#include "realtime/hosts.h"
#include "realtime/pool_worker.h"

namespace metier::realtime {
namespace {

using std::chrono::milliseconds;
using std::chrono::nanoseconds;

}  // namespace

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
        [this, i] { ended(*workers_[static_cast<std::size_t>(i)]); }));
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
                // What it was asked to fork and did not tell of: one that it still made sees its ring close, and ends.
                for (auto& worker : workers_) {
                  if (worker->state != Worker::State::none && worker->pid <= 0) { ended(*worker); }
                }
                if (shutting_) { return; }
                log_.warn("the template process ended, it is started again");
                template_timer_.after(milliseconds(50));
              },
      });
  if (auto begun = template_->start(); !begun) {
    std::exchange(ready_call_, nullptr)(fail(std::move(begun.error())));
  }
}

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

int WorkerPool::room_in(int lane) const noexcept {
  if (shutting_ || !queue_.empty()) { return -1; }
  const int allowed = depth();
  if (lane >= 0) {
    const Worker& worker = *workers_[static_cast<std::size_t>(lane) % workers_.size()];
    return worker.state == Worker::State::ready && worker.in_flight < allowed ? lane : -1;
  }
  const Worker* best = nullptr;
  for (const auto& worker : workers_) {
    if (worker->state == Worker::State::ready && worker->in_flight < allowed &&
        (best == nullptr || worker->in_flight < best->in_flight)) {
      best = worker.get();
    }
  }
  return best == nullptr ? -1 : best->index;
}

void WorkerPool::when_room(int lane, std::function<void()> call) noexcept {
  room_calls_.push_back(std::move(call));
  // Another worker's room is none for who waits for this one: it would ask again and again while that one is idle.
  if (room_in(lane) >= 0) {
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

Result<std::unique_ptr<Host>> make_python_host(const HostSite& site) {
  return std::make_unique<WorkerPool>(site);
}

}  // namespace metier::realtime
