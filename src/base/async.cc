#include "base/async.h"

namespace metier {

Async<void> sleep_for(Executor executor, std::chrono::steady_clock::duration duration) {
  Timer timer(executor, duration);
  boost::system::error_code ec;
  co_await timer.async_wait(asio::redirect_error(use_async, ec));
}

void Signal::notify() {
  ++generation_;
  for (auto* waiter : waiters_) { waiter->cancel(); }
}

Async<bool> Signal::wait(std::uint64_t seen, Timer::time_point deadline) {
  if (generation_ != seen) { co_return true; }
  Timer timer(executor_, deadline);
  const auto it = waiters_.insert(waiters_.end(), &timer);
  boost::system::error_code ec;
  co_await timer.async_wait(asio::redirect_error(use_async, ec));
  waiters_.erase(it);
  co_return generation_ != seen;
}

bool Scope::spawn(std::string name, Async<void> task) {
  if (closing_) { return false; }
  auto it = live_.emplace(live_.end(), std::move(name));
  asio::co_spawn(executor_, std::move(task),
                 asio::bind_cancellation_slot(it->stop.slot(), [this, it](std::exception_ptr e) {
                   if (e && !error_) { error_ = e; }
                   live_.erase(it);
                   if (live_.empty()) { empty_.cancel(); }
                 }));
  return true;
}

Async<Result<void>> Scope::close(std::chrono::milliseconds grace) {
  closing_ = true;
  for (auto it = live_.begin(); it != live_.end();) {
    auto& task = *it++;  // emit may end the task and erase its entry
    task.stop.emit(asio::cancellation_type::terminal);
  }
  const auto deadline = std::chrono::steady_clock::now() + grace;
  while (!live_.empty()) {
    empty_.expires_at(deadline);
    boost::system::error_code ec;
    co_await empty_.async_wait(asio::redirect_error(use_async, ec));
    if (!ec && !live_.empty()) {
      co_return fail(ErrorKind::timed_out, "still running: " + live_.front().name);
    }
  }
  co_return Result<void>{};
}

}  // namespace metier
