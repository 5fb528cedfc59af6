#include <fmt/format.h>

#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>
#include <unordered_map>

#include "realtime/event_copy.h"
#include "realtime/hosts.h"
#include "realtime/native_call.h"
#include "realtime/worker_pool.h"

namespace metier::realtime {
namespace {

class NativeHost final : public Host {
 public:
  NativeHost(const HostSite& site, const NativeLibrary& library)
      : loop_(site.loop),
        trigger_(site.trigger),
        names_{site.config.project, site.config.name},
        library_(library),
        inline_call_(names_) {
    stats_.kind = site.trigger.kind;
    stats_.name = site.trigger_label;
  }
  ~NativeHost() override { join(); }

  void start(std::function<void(Result<void>)> ready) override {
    if (library_.blocking()) {
      for (int i = 0; i < trigger_.num_workers; ++i) {
        threads_.emplace_back([this] { work(); });
      }
    }
    up_ = true;
    loop_.post([ready = std::move(ready)] { ready({}); });
  }

  void shut(std::function<void()> done) override {
    join();
    loop_.post(std::move(done));  // behind the answers that the threads have posted
  }

  bool ready() const override { return up_; }
  std::string describe() const override {
    return library_.blocking() ? fmt::format("{} threads", threads_.size())
                               : std::string("inline on the event thread");
  }
  HostLoad load() const override {
    return {.busy_seconds = static_cast<double>(stats_.handler.sum_ns()) * 1e-9,
            .handled = static_cast<std::int64_t>(stats_.success.value() + stats_.failure.value()),
            .in_flight = static_cast<int>(jobs_.size()),
            .workers = library_.blocking() ? trigger_.num_workers : 1,
            .last_event_ms = last_event_ms_};
  }
  void metrics(MetricsWriter& out) const override { trigger_metrics(stats_, out); }

  void deliver(const Event& event, ResponseSink& sink) noexcept override {
    last_event_ms_ = loop_.wall_us() / 1000;
    if (!library_.blocking()) {
      stats_.immediate.add();
      inline_call_.run(library_.handler(), event);
      stats_.handler.observe_ns(inline_call_.head().handler_ns);
      stats_.success.add();
      // The sink may deliver the next event before it returns, which uses the call again: the sink has read it by then.
      sink.respond(inline_call_.head(), inline_call_.body());
      return;
    }
    if (static_cast<int>(jobs_.size()) >= trigger_.num_workers + trigger_.queue_size) {
      stats_.failure.add();
      stats_.allocation_timeout.add();
      sink.fail({.reason = FailReason::no_worker,
                 .status = 503,
                 .message = "no thread is free and the queue is full",
                 .retry_after_s = 1});
      return;
    }
    auto job = std::make_shared<Job>(event, names_);
    job->sink = &sink;
    jobs_[&sink] = job;
    {
      const std::lock_guard lock(mutex_);
      waiting_.push_back(job);
    }
    wake_.notify_one();
  }

  void cancel(EventId, ResponseSink& sink) noexcept override {
    const auto found = jobs_.find(&sink);
    if (found == jobs_.end()) { return; }
    found->second->sink = nullptr;  // the thread works on its copy
    jobs_.erase(found);
    stats_.failure.add();
    sink.fail({.reason = FailReason::cancelled, .status = 499});
  }
  bool has_room() const noexcept override {
    return !library_.blocking() || static_cast<int>(jobs_.size()) < trigger_.num_workers;
  }
  void when_room(int, std::function<void()> call) noexcept override {
    if (has_room()) {
      loop_.post(std::move(call));
    } else {
      room_calls_.push_back(std::move(call));
    }
  }

 private:
  struct Job {
    Job(const Event& event, const NativeNames& names) : copy(event), call(names) {}
    EventCopy copy;
    NativeCall call;
    ResponseSink* sink = nullptr;  // the loop's only
  };

  void work() {
    while (true) {
      std::shared_ptr<Job> job;
      {
        std::unique_lock lock(mutex_);
        wake_.wait(lock, [&] { return ending_ || !waiting_.empty(); });
        if (waiting_.empty()) { return; }
        job = waiting_.front();
        waiting_.pop_front();
      }
      job->call.run(library_.handler(), job->copy.event());
      loop_.post([this, job] { done(*job); });
    }
  }

  void done(Job& job) {
    stats_.handler.observe_ns(job.call.head().handler_ns);
    if (job.sink == nullptr) { return; }
    ResponseSink* const sink = job.sink;
    jobs_.erase(sink);
    stats_.success.add();
    sink->respond(job.call.head(), job.call.body());
    for (auto& call : std::exchange(room_calls_, {})) { call(); }
  }

  void join() {
    {
      const std::lock_guard lock(mutex_);
      ending_ = true;
    }
    wake_.notify_all();
    for (std::thread& thread : threads_) { thread.join(); }
    threads_.clear();
  }

  Loop& loop_;
  TriggerConfig trigger_;
  NativeNames names_;
  NativeLibrary library_;
  NativeCall inline_call_;
  TriggerStats stats_;
  std::vector<std::thread> threads_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::shared_ptr<Job>> waiting_;
  bool ending_ = false, up_ = false;
  std::unordered_map<ResponseSink*, std::shared_ptr<Job>> jobs_;
  std::vector<std::function<void()>> room_calls_;
  std::int64_t last_event_ms_ = 0;
};

}  // namespace

Result<std::unique_ptr<Host>> make_native_host(const HostSite& site) {
  METIER_TRY(library, NativeLibrary::load(site.config.handler, site.config.path));
  return std::make_unique<NativeHost>(site, library);
}

}  // namespace metier::realtime
