#include "serving/host/graph_host.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <optional>
#include <unordered_map>

#include "realtime/worker_pool.h"
#include "serving/host/event_names.h"
#include "serving/host/graph_source.h"
#include "serving/host/step_metrics.h"
#include "serving/native_graph.h"

namespace metier::serving {
namespace {

using realtime::Event;
using realtime::EventId;
using realtime::FailReason;
using realtime::Host;
using realtime::HostLoad;
using realtime::HostSite;
using realtime::MetricsWriter;
using realtime::ResponseSink;

class GraphHost final : public Host {
 public:
  GraphHost(const HostSite& site, std::unique_ptr<NativeGraph> graph)
      : loop_(site.loop),
        stream_(site.trigger.kind != "http"),
        explicit_(site.trigger.explicit_ack != realtime::ExplicitAck::disable),
        graph_(std::move(graph)),
        timer_(site.loop, [this] {
          graph_->tick();
          wind();
        }) {
    trigger_.kind = site.trigger.kind;
    trigger_.name = site.trigger_label;
    for (const PlanStep& step : graph_->plan().steps) { steps_.push_back({.name = step.name}); }
    graph_->observe([this](int step, std::int64_t ns, bool failed) {
      steps_[static_cast<std::size_t>(step)].add(ns, failed);
    });
  }

  void start(std::function<void(Result<void>)> ready) override {
    up_ = true;
    loop_.post([ready = std::move(ready)] { ready({}); });
  }
  void shut(std::function<void()> done) override {
    graph_->flush();
    loop_.post(std::move(done));
  }
  bool ready() const override { return up_; }
  std::string describe() const override {
    return fmt::format("graph of {} native steps", steps_.size());
  }
  HostLoad load() const override {
    return {
        .busy_seconds = static_cast<double>(trigger_.handler.sum_ns()) * 1e-9,
        .handled = static_cast<std::int64_t>(trigger_.success.value() + trigger_.failure.value()),
        .workers = 1,
        .last_event_ms = last_event_ms_};
  }
  void metrics(MetricsWriter& out) const override {
    realtime::trigger_metrics(trigger_, out);
    write_step_metrics(steps_, out);
  }
  void terminate(std::function<void()> done) noexcept override {
    graph_->flush();
    done();
  }
  void drain(std::function<void()> done) noexcept override {
    graph_->flush();
    done();
  }

  void listen_acks(realtime::AckListener* acks) noexcept override { acks_ = acks; }

  void deliver(const Event& event, ResponseSink& sink) noexcept override {
    last_event_ms_ = loop_.wall_us() / 1000;
    const std::string_view path = path_of(event, stream_);
    trigger_.immediate.add();
    sink.started();
    auto to = std::make_shared<Arrival>(&sink);
    if (stream_) { waiting_[&sink] = to; }
    if (explicit_) {
      to->place = {std::string(event.topic), event.shard};
      to->offset = event.offset;
      unfinished_[to->place].insert_or_assign(event.offset, false);
    }
    const auto began = std::chrono::steady_clock::now();
    graph_->start({.body = event.body,
                   .content_type = event.content_type,
                   .method = event.method,
                   .path = path,
                   .id = id_of(event),
                   .key = event.key,
                   .timestamp_us = event.timestamp_us},
                  stream_, [this, to, began](GraphAnswer&& answer) {
                    const auto ns = std::chrono::duration_cast<std::chrono::nanoseconds>(
                                        std::chrono::steady_clock::now() - began)
                                        .count();
                    trigger_.handler.observe_ns(ns);
                    (answer.failed ? trigger_.failure : trigger_.success).add();
                    ResponseSink* const sink = to->sink;
                    if (sink == nullptr) { return; }
                    if (stream_) { waiting_.erase(sink); }
                    sink->respond({.status = answer.status,
                                   .content_type = answer.content_type,
                                   .length = static_cast<std::int64_t>(answer.body.size()),
                                   .outcome = answer.failed ? realtime::Outcome::raised
                                                            : realtime::Outcome::answered,
                                   .handler_ns = ns},
                                  answer.body);
                    if (explicit_) { acknowledge(*to); }
                  });
    wind();
  }
  void cancel(EventId, ResponseSink& sink) noexcept override {
    const auto found = waiting_.find(&sink);
    if (found == waiting_.end()) { return; }
    found->second->sink = nullptr;  // it stays in its batch
    if (explicit_) { unfinished_[found->second->place].erase(found->second->offset); }
    waiting_.erase(found);
    sink.fail({.reason = FailReason::cancelled, .status = 499});
  }

 private:
  using Place = std::pair<std::string, std::int32_t>;  // topic and partition
  struct Arrival {
    explicit Arrival(ResponseSink* to) : sink(to) {}
    ResponseSink* sink;  // null: nobody waits any more
    Place place;
    std::int64_t offset = 0;
  };
  // Where acknowledgements are explicit, one finishes all records before it: the oldest that has not ended decides.
  void acknowledge(const Arrival& ended) {
    auto& records = unfinished_[ended.place];
    records[ended.offset] = true;
    std::optional<std::int64_t> last;
    while (!records.empty() && records.begin()->second) {
      last = records.begin()->first;
      records.erase(records.begin());
    }
    if (last && acks_ != nullptr) {
      acks_->acknowledge(ended.place.first, ended.place.second, *last);
    }
  }
  void wind() {
    const auto due = graph_->due();
    if (due && (!timer_.armed() || *due != due_)) {
      due_ = *due;
      timer_.at(*due);
    }
  }

  realtime::Loop& loop_;
  bool stream_, explicit_, up_ = false;
  realtime::AckListener* acks_ = nullptr;
  std::unique_ptr<NativeGraph> graph_;
  realtime::LoopTimer timer_;
  SteadyTime due_;
  realtime::TriggerStats trigger_;
  std::vector<StepCost> steps_;
  // Shared with the answer that is to come.
  std::unordered_map<ResponseSink*, std::shared_ptr<Arrival>> waiting_;  // of streams: in a batch
  std::map<Place, std::map<std::int64_t, bool>> unfinished_;             // offset: has it ended?
  std::int64_t last_event_ms_ = 0;
};

}  // namespace

Result<std::unique_ptr<Host>> make_graph_host(const HostSite& site) {
  METIER_TRY(source, graph_source(site.config));
  GraphOptions options;
  options.current_function = source.current_function;
  options.default_content_type = source.default_content_type;
  options.folders = source.folders;
  METIER_TRY(graph, NativeGraph::make(source.graph, std::move(options)));
  return std::make_unique<GraphHost>(site, std::move(graph));
}

}  // namespace metier::serving
