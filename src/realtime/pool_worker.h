// Inside of the pool, for its own sources: one worker as the pool sees it.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "base/files.h"
#include "realtime/loop.h"
#include "realtime/ring.h"
#include "realtime/worker_pool.h"

namespace metier::realtime {

inline constexpr std::int64_t kMillisecond = 1'000'000;

class Watch final : public Watched {
 public:
  explicit Watch(std::function<void()> call) : call_(std::move(call)) {}
  void on_ready(std::uint32_t) noexcept override { call_(); }

 private:
  std::function<void()> call_;
};

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

}  // namespace metier::realtime
