// The processor's event thread: epoll, timers, work posted by other threads. One thread runs it; only `post` and `stop` may be called
// from others.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>

#include "base/result.h"

namespace metier::realtime {

using SteadyTime = std::chrono::steady_clock::time_point;

class Loop;

// Something with a descriptor. `events` are epoll's bits.
class Watched {
 public:
  virtual ~Watched() = default;
  virtual void on_ready(std::uint32_t events) noexcept = 0;
};

// A deadline of its owner; gone with it. Armed again by `at`.
class LoopTimer final {
 public:
  LoopTimer(Loop& loop, std::function<void()> call);
  ~LoopTimer();
  LoopTimer(const LoopTimer&) = delete;
  LoopTimer& operator=(const LoopTimer&) = delete;
  void at(SteadyTime when);
  void after(std::chrono::nanoseconds delay);
  void cancel();
  bool armed() const;

 private:
  friend class Loop;
  struct State;
  std::unique_ptr<State> state_;
};

class Loop final {
 public:
  Loop();
  ~Loop();
  Loop(const Loop&) = delete;
  Loop& operator=(const Loop&) = delete;

  // `events` as epoll_ctl takes them (EPOLLIN | EPOLLET …). The watched object is removed before it or its descriptor goes.
  Result<void> watch(int fd, std::uint32_t events, Watched& watched);
  void change(int fd, std::uint32_t events, Watched& watched);
  void forget(int fd, Watched& watched);

  // From any thread; runs on the loop's.
  void post(std::function<void()> call);
  // Runs at the end of every turn, after all that became ready was handled and before the loop sleeps. Gives true when it found
  // work, and the loop then looks again without sleeping.
  void at_turn_end(std::function<bool()> call);
  // Around the sleep: `before` may give false to forbid it.
  void around_sleep(std::function<bool()> before, std::function<void()> after);

  SteadyTime now() const { return now_; }            // of this turn
  std::int64_t wall_us() const { return wall_us_; }  // Unix time of this turn
  void run();
  void stop();  // from any thread; `run` returns after the turn

 private:
  friend class LoopTimer;
  struct State;
  std::unique_ptr<State> state_;
  SteadyTime now_;
  std::int64_t wall_us_ = 0;
};

}  // namespace metier::realtime
