// The Python workers of one trigger (or of several that share an allocator): a LIFO pool, a bounded queue with deadlines, timeouts,
// replacement of what died.
#pragma once

#include <atomic>
#include <chrono>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "realtime/processor.h"
#include "realtime/python_template.h"
#include "realtime/ring.h"

namespace metier::realtime {

// Nuclio's counters of one trigger, and our histograms.
struct TriggerStats {
  std::string kind, name;
  Counter success, failure;
  Counter immediate, after_wait, allocation_timeout;
  Counter wait_ms, available_percent;
  Histogram queue, handler;
};

void trigger_metrics(const TriggerStats& stats, MetricsWriter& out);

class WorkerPool final : public Host {
 public:
  explicit WorkerPool(const HostSite& site);
  ~WorkerPool() override;

  void start(std::function<void(Result<void>)> ready) override;
  void shut(std::function<void()> done) override;
  void metrics(MetricsWriter& out) const override;
  bool ready() const override { return ready_count_.value() > 0; }
  std::string describe() const override;
  HostLoad load() const override;
  std::optional<Problem> problem() const override;

  void deliver(const Event& event, ResponseSink& sink) noexcept override;
  void deliver_batch(std::span<const Event* const> events,
                     std::span<ResponseSink* const> sinks) noexcept override;
  void deliver_to(int lane, const Event& event, ResponseSink& sink) noexcept override;
  void cancel(EventId id, ResponseSink& sink) noexcept override;
  void resume(ResponseSink& sink) noexcept override;
  void drain(std::function<void()> done) noexcept override;
  void terminate(std::function<void()> done) noexcept override;
  void listen_acks(AckListener* listener) noexcept override;
  bool has_room() const noexcept override;
  int room_in(int lane) const noexcept override;
  void when_room(int lane, std::function<void()> call) noexcept override;
  int lanes() const noexcept override { return static_cast<int>(workers_.size()); }

 private:
  struct Worker;
  struct Flight {
    const Event* event = nullptr;
    ResponseSink* sink = nullptr;  // null: its answer is dropped
    TriggerStats* stats = nullptr;
    std::uint32_t generation = 0;
    std::int64_t pushed_ns = 0;
    std::uint64_t held_credit = 0;
    std::int64_t left = -1;  // of a body of known length
    std::uint8_t redispatches = 0;
    bool in_use = false;
    bool headed = false;
    bool streamed = false;
    bool cancelling = false;
    bool revoked = false;  // taken back from a worker that never began it
  };
  struct Waiting {
    const Event* event;
    ResponseSink* sink;
    std::int64_t since_ns;
    int lane;
    std::uint8_t redispatches;
  };

  std::int64_t now_ns() const;
  TriggerStats& stats_of(const Event& event);
  int depth() const;
  Worker* pick(int lane);
  bool give(Worker& worker, const Event& event, ResponseSink& sink, std::int64_t since_ns,
            std::uint8_t redispatches);
  bool place(Worker& worker, const Event& event, ResponseSink& sink, std::int64_t since_ns,
             std::uint8_t redispatches, std::size_t inline_limit);
  void occupied(Worker& worker);
  void enqueue(const Event& event, ResponseSink& sink, int lane, std::uint8_t redispatches,
               bool front);
  void feed();
  void arm_queue_timer();
  void expire_queue();
  void finish(Worker& worker, std::uint32_t slot);
  void became_free(Worker& worker);
  void steal_for_idle();
  void read_worker(Worker& worker);
  void handle(Worker& worker, const Incoming& incoming);
  void answered(Worker& worker, Flight& flight, const Incoming& incoming);
  void spawn(Worker& worker);
  void forked(int index, pid_t pid);
  void lost(Worker& worker, std::string_view why, bool trust_claims);
  void exited(pid_t pid, int status);
  // Its process is gone, or none came of what the template was asked: its place is free, its events are another's.
  void ended(Worker& worker);
  void replace_later(Worker& worker);
  void check_timeouts(Worker& worker);
  void fail_flight(Worker& worker, std::uint32_t slot, const Failure& failure);
  void tell_all(int type, int answer, std::function<void()> done);
  void told(Worker& worker);
  void give_room();
  void check_shut();
  void kill(Worker& worker, int signal);

  Loop& loop_;
  const ProcessorConfig& config_;
  TriggerConfig trigger_;
  std::string label_;
  Logger log_;
  std::unique_ptr<PythonTemplate> template_;
  std::vector<std::unique_ptr<Worker>> workers_;
  std::vector<Worker*> idle_;  // the last one freed is the first one used
  std::deque<Waiting> queue_;
  LoopTimer queue_timer_, steal_timer_, shut_timer_, template_timer_;
  std::function<void(Result<void>)> ready_call_;
  std::function<void()> shut_call_;
  std::vector<std::function<void()>> room_calls_;
  std::vector<AckListener*> ack_listeners_;
  std::vector<std::unique_ptr<TriggerStats>> stats_;
  std::map<pid_t, std::string> reasons_;
  struct Crashes {
    std::uint64_t count = 0;
    std::chrono::steady_clock::time_point last{};
    std::string how;  // "signal 11"
  };
  Crashes crashes_;                      // workers that ended by themselves after the start
  std::set<pid_t> ended_by_themselves_;  // not reaped yet
  bool started_ = false, shutting_ = false, native_ = true, cold_ = false, async_ = false;
  std::int64_t handler_ewma_ns_ = -1;
  std::int64_t import_ms_ = 0;
  int tell_type_ = 0, tell_answer_ = 0;
  std::function<void()> tell_done_;
  Gauge ready_count_, queued_, in_flight_, busy_count_;
  Counter restarts_, corrupt_, redispatched_, stolen_, timeouts_, unknown_acks_;
  std::atomic<std::int64_t> busy_ns_{0}, last_event_ms_{0};
};

}  // namespace metier::realtime
