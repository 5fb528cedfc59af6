// Events of a trigger with `batch.mode: enable` go out together: when the batch is full, or when the time since its first event is over,
// and never before the target has room. One partition a batch: streams call `deliver` partition by partition.
#include <algorithm>
#include <chrono>
#include <utility>
#include <vector>

#include "realtime/hosts.h"

namespace metier::realtime {
namespace {

class Batcher final : public EventTarget {
 public:
  Batcher(Loop& loop, const BatchConfig& config, EventTarget& target)
      : loop_(loop),
        size_(static_cast<std::size_t>(std::min(config.size, 1000))),
        timeout_(config.timeout),
        target_(target),
        timer_(loop, [this] { cut(true); }) {}

  void deliver(const Event& event, ResponseSink& sink) noexcept override {
    waiting_.push_back({&event, &sink, loop_.now() + timeout_});
    cut(false);
  }
  void deliver_to(int, const Event& event, ResponseSink& sink) noexcept override {
    deliver(event, sink);
  }

  // A batch that its trigger made.
  void deliver_batch(std::span<const Event* const> events,
                     std::span<ResponseSink* const> sinks) noexcept override {
    target_.deliver_batch(events, sinks);
  }
  int room_in(int lane) const noexcept override { return target_.room_in(lane); }

  void cancel(EventId id, ResponseSink& sink) noexcept override {
    const auto found = std::ranges::find(waiting_, &sink, &Waiting::sink);
    if (found == waiting_.end()) { return target_.cancel(id, sink); }
    waiting_.erase(found);
    sink.fail({.reason = FailReason::cancelled, .status = 499});
  }
  void resume(ResponseSink& sink) noexcept override { target_.resume(sink); }
  void drain(std::function<void()> done) noexcept override {
    cut(true);
    target_.drain(std::move(done));
  }
  void terminate(std::function<void()> done) noexcept override {
    target_.terminate(std::move(done));
  }
  void listen_acks(AckListener* listener) noexcept override { target_.listen_acks(listener); }
  bool has_room() const noexcept override { return waiting_.size() < size_ * 2; }
  void when_room(int lane, std::function<void()> call) noexcept override {
    target_.when_room(lane, std::move(call));
  }
  int lanes() const noexcept override { return target_.lanes(); }

 private:
  struct Waiting {
    const Event* event;
    ResponseSink* sink;
    SteadyTime due;
  };

  void cut(bool timed) {
    while (!waiting_.empty() &&
           (waiting_.size() >= size_ || (timed && waiting_.front().due <= loop_.now()))) {
      if (!target_.has_room()) {
        if (!asked_) {
          asked_ = true;
          target_.when_room(-1, [this] {
            asked_ = false;
            cut(true);
          });
        }
        break;
      }
      // Kafka's records of several partitions do not mix: the batch is of the first one's partition.
      std::vector<const Event*> events;
      std::vector<ResponseSink*> sinks;
      const Event& first = *waiting_.front().event;
      std::erase_if(waiting_, [&](const Waiting& entry) {
        if (events.size() >= size_ || entry.event->shard != first.shard ||
            entry.event->topic != first.topic) {
          return false;
        }
        events.push_back(entry.event);
        sinks.push_back(entry.sink);
        return true;
      });
      target_.deliver_batch(events, sinks);
    }
    if (!waiting_.empty() && !asked_) { timer_.at(std::max(waiting_.front().due, loop_.now())); }
  }

  Loop& loop_;
  std::size_t size_;
  std::chrono::milliseconds timeout_;
  EventTarget& target_;
  LoopTimer timer_;
  std::vector<Waiting> waiting_;
  bool asked_ = false;
};

}  // namespace

std::unique_ptr<EventTarget> make_batcher(Loop& loop, const BatchConfig& config,
                                          EventTarget& target) {
  return std::make_unique<Batcher>(loop, config, target);
}

}  // namespace metier::realtime
