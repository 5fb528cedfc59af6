#include "realtime/loop.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <mutex>
#include <set>
#include <utility>
#include <vector>

#include "base/files.h"

namespace metier::realtime {

using std::chrono::steady_clock;

struct LoopTimer::State {
  Loop& loop;
  std::function<void()> call;
  SteadyTime when{};
  bool armed = false;
};

struct Loop::State {
  Fd epoll;
  Fd wake;
  std::array<epoll_event, 256> ready{};
  int ready_count = 0;
  std::set<std::pair<SteadyTime, LoopTimer::State*>> timers;
  std::vector<std::function<bool()>> turn_ends;
  std::vector<std::pair<std::function<bool()>, std::function<void()>>> sleeps;
  std::mutex mutex;
  std::vector<std::function<void()>> posted;
  std::atomic<bool> has_posted{false};
  std::atomic<bool> stopped{false};
};

LoopTimer::LoopTimer(Loop& loop, std::function<void()> call)
    : state_(std::make_unique<State>(loop, std::move(call))) {}
LoopTimer::~LoopTimer() { cancel(); }

void LoopTimer::at(SteadyTime when) {
  cancel();
  state_->when = when;
  state_->armed = true;
  state_->loop.state_->timers.emplace(when, state_.get());
}
void LoopTimer::after(std::chrono::nanoseconds delay) { at(steady_clock::now() + delay); }
void LoopTimer::cancel() {
  if (!state_->armed) { return; }
  state_->armed = false;
  state_->loop.state_->timers.erase({state_->when, state_.get()});
}
bool LoopTimer::armed() const { return state_->armed; }

Loop::Loop() : state_(std::make_unique<State>()), now_(steady_clock::now()) {
  state_->epoll.reset(::epoll_create1(EPOLL_CLOEXEC));
  state_->wake.reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  epoll_event event{};
  event.events = EPOLLIN | EPOLLET;
  event.data.ptr = nullptr;
  ::epoll_ctl(state_->epoll.get(), EPOLL_CTL_ADD, state_->wake.get(), &event);
  wall_us_ = std::chrono::duration_cast<std::chrono::microseconds>(
                 std::chrono::system_clock::now().time_since_epoch())
                 .count();
}
Loop::~Loop() = default;

Result<void> Loop::watch(int fd, std::uint32_t events, Watched& watched) {
  epoll_event event{};
  event.events = events;
  event.data.ptr = &watched;
  if (::epoll_ctl(state_->epoll.get(), EPOLL_CTL_ADD, fd, &event) != 0) {
    return fail(errno_error("epoll", errno));
  }
  return {};
}

void Loop::change(int fd, std::uint32_t events, Watched& watched) {
  epoll_event event{};
  event.events = events;
  event.data.ptr = &watched;
  ::epoll_ctl(state_->epoll.get(), EPOLL_CTL_MOD, fd, &event);
}

void Loop::forget(int fd, Watched& watched) {
  ::epoll_ctl(state_->epoll.get(), EPOLL_CTL_DEL, fd, nullptr);
  // What was reported in this turn and not handled yet is not handled any more.
  for (int i = 0; i < state_->ready_count; ++i) {
    auto& event = state_->ready[static_cast<std::size_t>(i)];
    if (event.data.ptr == &watched) { event.data.ptr = nullptr; }
  }
}

void Loop::post(std::function<void()> call) {
  {
    const std::lock_guard lock(state_->mutex);
    state_->posted.push_back(std::move(call));
  }
  if (!state_->has_posted.exchange(true)) {
    const std::uint64_t one = 1;
    [[maybe_unused]] const auto written = ::write(state_->wake.get(), &one, sizeof one);
  }
}

void Loop::at_turn_end(std::function<bool()> call) { state_->turn_ends.push_back(std::move(call)); }
void Loop::around_sleep(std::function<bool()> before, std::function<void()> after) {
  state_->sleeps.emplace_back(std::move(before), std::move(after));
}

void Loop::stop() {
  state_->stopped = true;
  post([] {});
}

void Loop::run() {
  State& state = *state_;
  const auto tick = [&] {
    now_ = steady_clock::now();
    wall_us_ = std::chrono::duration_cast<std::chrono::microseconds>(
                   std::chrono::system_clock::now().time_since_epoch())
                   .count();
  };
  tick();
  while (!state.stopped) {
    if (state.has_posted.exchange(false)) {
      std::vector<std::function<void()>> posted;
      {
        const std::lock_guard lock(state.mutex);
        posted.swap(state.posted);
      }
      for (auto& call : posted) { call(); }
    }
    while (!state.timers.empty() && state.timers.begin()->first <= now_) {
      LoopTimer::State* timer = state.timers.begin()->second;
      state.timers.erase(state.timers.begin());
      timer->armed = false;
      const auto call = timer->call;  // the call may end its timer
      call();
    }
    bool again = false;
    for (std::size_t i = 0; i < state.turn_ends.size(); ++i) {
      again = state.turn_ends[i]() || again;
    }
    again = again || state.has_posted || state.stopped;
    int timeout = -1;
    if (!again) {
      for (auto& [before, after] : state.sleeps) { again = !before() || again; }
    }
    if (again) {
      timeout = 0;
    } else if (!state.timers.empty()) {
      const auto left = state.timers.begin()->first - steady_clock::now();
      const auto ms = std::chrono::ceil<std::chrono::milliseconds>(left).count();
      timeout = static_cast<int>(std::clamp<std::int64_t>(ms, 0, 60'000));
    }
    const int count = ::epoll_wait(state.epoll.get(), state.ready.data(),
                                   static_cast<int>(state.ready.size()), timeout);
    for (auto& [before, after] : state.sleeps) { after(); }
    tick();
    state.ready_count = std::max(count, 0);
    for (int i = 0; i < state.ready_count; ++i) {
      const epoll_event& event = state.ready[static_cast<std::size_t>(i)];
      if (event.data.ptr != nullptr) {
        static_cast<Watched*>(event.data.ptr)->on_ready(event.events);
      }
    }
    state.ready_count = 0;
  }
}

}  // namespace metier::realtime
