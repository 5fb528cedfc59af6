// Coroutines. The one header outside net/ that names Asio types: rooms use Async<T>, use_async, Timer
// and Scope, and nothing else of Asio.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/basic_waitable_timer.hpp>
#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>

#include <cassert>
#include <chrono>
#include <list>
#include <string>

#include "base/result.h"

namespace metier {

namespace asio = boost::asio;

using Executor = asio::io_context::executor_type;
template <class T>
using Async = asio::awaitable<T, Executor>;
inline constexpr asio::use_awaitable_t<Executor> use_async{};
using Timer = asio::basic_waitable_timer<std::chrono::steady_clock,
                                         asio::wait_traits<std::chrono::steady_clock>, Executor>;

// Sleeps; returns early (and quietly) when the coroutine is cancelled.
Async<void> sleep_for(Executor executor, std::chrono::steady_clock::duration duration);

// A condition that coroutines of one executor wait for. `notify` wakes every waiter; a waiter re-checks
// its own condition. Waiting is cancellable.
class Signal final {
 public:
  explicit Signal(Executor executor) : executor_(executor) {}
  Signal(const Signal&) = delete;
  Signal& operator=(const Signal&) = delete;
  void notify();
  std::uint64_t generation() const { return generation_; }
  // Waits for a notify after `seen` (a value of generation()), or until `deadline`. True when notified.
  Async<bool> wait(std::uint64_t seen, Timer::time_point deadline = Timer::time_point::max());

 private:
  Executor executor_;
  std::uint64_t generation_ = 0;
  std::list<Timer*> waiters_;
};

// Owns coroutines. `close` cancels them, waits until none is inside, gives up at the deadline. All calls
// on one executor thread. The Scope must outlive what it could not stop.
class Scope final {
 public:
  explicit Scope(Executor executor)
      : executor_(executor), empty_(executor, Timer::time_point::max()) {}
  ~Scope() { assert(live_.empty()); }
  Scope(const Scope&) = delete;
  Scope& operator=(const Scope&) = delete;

  // False when closing: the task was not started.
  bool spawn(std::string name, Async<void> task);
  Async<Result<void>> close(std::chrono::milliseconds grace);
  std::size_t size() const { return live_.size(); }
  // The first exception that a task ended with: a broken invariant, ours to report.
  std::exception_ptr error() const { return error_; }

 private:
  struct Task {
    explicit Task(std::string task_name) : name(std::move(task_name)) {}
    std::string name;
    asio::cancellation_signal stop;
  };
  Executor executor_;
  Timer empty_;
  std::list<Task> live_;
  std::exception_ptr error_;
  bool closing_ = false;
};

}  // namespace metier
