// A serving function whose graph needs Python: its workers are one segment, the native steps before it run here and an event that they
// drop costs no hop. What the workers count of their steps is read from their files.
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <unordered_map>

#include "base/files.h"
#include "realtime/hosts.h"
#include "serving/host/event_names.h"
#include "serving/host/graph_host.h"
#include "serving/host/graph_source.h"
#include "serving/host/step_metrics.h"
#include "serving/native_graph.h"
#include "serving/step_stats.h"

namespace metier::serving {
namespace {

using realtime::Event;
using realtime::EventId;
using realtime::Host;
using realtime::HostLoad;
using realtime::HostSite;
using realtime::MetricsWriter;
using realtime::ResponseSink;

class SegmentHost final : public Host {
 public:
  SegmentHost(realtime::Loop& loop, std::unique_ptr<realtime::ProcessorConfig> config,
              std::unique_ptr<Host> workers, std::string counters)
      : config_(std::move(config)),
        workers_(std::move(workers)),
        counters_(std::move(counters)),
        ask_timer_(loop, [this] { look_for_graph(); }) {}
  // The native steps that run here.
  void cut(std::unique_ptr<NativeGraph> prefix) {
    prefix_ = std::move(prefix);
    std::vector<std::string> names;
    for (const PlanStep& step : prefix_->plan().steps) { names.push_back(step.name); }
    if (auto stats =
            StepStats::create(fmt::format("{}/processor-{}", counters_, ::getpid()), names)) {
      stats_ = std::move(*stats);
    }
    prefix_->observe([this](int step, std::int64_t ns, bool failed) {
      if (stats_) { stats_->add(static_cast<std::size_t>(step), ns, failed); }
    });
    prefix_->on_exit([this](const NativeEvent& event, bool first) {
      if (first) { hand_over(event); }
    });
  }
  ~SegmentHost() override {
    std::error_code ignored;
    if (!counters_.empty()) { std::filesystem::remove_all(counters_, ignored); }
  }

  // The graph is built by the code: a worker tells it (`graph.json`), and waits for the step from which on it runs it (`entry`).
  void ask(GraphOptions options) {
    options_ = std::move(options);
    asks_ = true;
  }

  void start(std::function<void(Result<void>)> ready) override {
    if (!asks_) { return workers_->start(std::move(ready)); }
    look_for_graph();
    workers_->start([this, ready = std::move(ready)](Result<void> up) {
      // No worker has asked: the code serves itself, or MLRun's engine does.
      if (std::exchange(asks_, false)) { answer(""); }
      ready(std::move(up));
    });
  }
  void shut(std::function<void()> done) override {
    ask_timer_.cancel();
    workers_->shut(std::move(done));
  }
  bool ready() const override { return workers_->ready(); }
  HostLoad load() const override { return workers_->load(); }
  std::string describe() const override {
    return prefix_ == nullptr ? workers_->describe()
                              : "native steps before " + workers_->describe();
  }
  void metrics(MetricsWriter& out) const override {
    workers_->metrics(out);
    write_step_metrics(read_step_stats(counters_), out);
  }

  void deliver(const Event& event, ResponseSink& sink) noexcept override { take(-1, event, sink); }
  void deliver_to(int lane, const Event& event, ResponseSink& sink) noexcept override {
    take(lane, event, sink);
  }
  void deliver_batch(std::span<const Event* const> events,
                     std::span<ResponseSink* const> sinks) noexcept override {
    workers_->deliver_batch(events, sinks);
  }
  void cancel(EventId id, ResponseSink& sink) noexcept override {
    const auto found = passed_.find(&sink);
    workers_->cancel(id, found == passed_.end() ? sink : *found->second);
  }
  void resume(ResponseSink& sink) noexcept override {
    const auto found = passed_.find(&sink);
    workers_->resume(found == passed_.end() ? sink : *found->second);
  }
  void drain(std::function<void()> done) noexcept override { workers_->drain(std::move(done)); }
  void terminate(std::function<void()> done) noexcept override {
    workers_->terminate(std::move(done));
  }
  void listen_acks(realtime::AckListener* acks) noexcept override { workers_->listen_acks(acks); }
  bool has_room() const noexcept override { return workers_->has_room(); }
  void when_room(int lane, std::function<void()> call) noexcept override {
    workers_->when_room(lane, std::move(call));
  }
  int lanes() const noexcept override { return workers_->lanes(); }
  int room_in(int lane) const noexcept override { return workers_->room_in(lane); }

 private:
  // An event on its way through the workers, with what the native steps made of it.
  struct Passed final : ResponseSink {
    Passed(SegmentHost& host, const Event& given, ResponseSink& outer)
        : host(host), event(given), outer(outer) {}
    void head(const realtime::ResponseHead& head) noexcept override { outer.head(head); }
    bool chunk(std::string_view bytes) noexcept override { return outer.chunk(bytes); }
    void started() noexcept override { outer.started(); }
    void log(std::string_view record) noexcept override { outer.log(record); }
    void end() noexcept override {
      ResponseSink& to = outer;
      host.passed_.erase(&outer);  // and this with it
      to.end();
    }
    void respond(const realtime::ResponseHead& head, std::string_view body) noexcept override {
      const std::unique_ptr<Passed> held = gone();
      outer.respond(head, body);
    }
    // A graph's time is over: the gateway's word for it.
    void fail(const realtime::Failure& failure) noexcept override {
      const std::unique_ptr<Passed> held = gone();
      realtime::Failure told = failure;
      if (told.reason == realtime::FailReason::timed_out) { told.status = 504; }
      outer.fail(told);
    }
    std::unique_ptr<Passed> gone() {
      auto node = host.passed_.extract(&outer);
      return node ? std::move(node.mapped()) : nullptr;
    }
    SegmentHost& host;
    Event event;
    ResponseSink& outer;
    std::string body, id;
  };

  void look_for_graph() {
    const auto text = read_file(counters_ + "/graph.json");
    if (!text) { return ask_timer_.after(std::chrono::milliseconds(2)); }
    asks_ = false;
    std::string entry;
    const auto graph = parse_json(*text);
    if (graph && graph->is_object()) {
      auto made = NativeGraph::make_prefix(graph->get_object(), entry, std::move(options_));
      if (made && *made) {
        cut(std::move(*made));
      } else {
        entry.clear();  // what is wrong with the graph, its worker says
      }
    }
    answer(entry);
  }
  // Says the step to all workers, those to come too. Never half there: they read it as soon as it is.
  void answer(const std::string& entry) {
    ask_timer_.cancel();
    const std::string part = counters_ + "/entry.part";
    if (!write_file(part, entry) || ::rename(part.c_str(), (counters_ + "/entry").c_str()) != 0) {
      prefix_.reset();  // the worker gives up, and says so
    }
  }
  void take(int lane, const Event& event, ResponseSink& sink) noexcept {
    if (prefix_ == nullptr) { return send(lane, std::make_unique<Passed>(*this, event, sink)); }
    given_ = &event;
    sink_ = &sink;
    prefix_->start({.body = event.body,
                    .content_type = event.content_type,
                    .method = event.method,
                    .path = path_of(event, false),
                    .id = id_of(event),
                    .key = event.key,
                    .timestamp_us = event.timestamp_us},
                   false, [&sink](GraphAnswer&& answer) {
                     sink.respond({.status = answer.status,
                                   .content_type = answer.content_type,
                                   .length = static_cast<std::int64_t>(answer.body.size()),
                                   .outcome = answer.failed ? realtime::Outcome::raised
                                                            : realtime::Outcome::answered},
                                  answer.body);
                   });
    // Behind the walk: the workers may answer before they return, and the trigger may deliver again before that.
    if (auto passed = std::exchange(leaving_passed_, nullptr)) { send(lane, std::move(passed)); }
  }
  void hand_over(const NativeEvent& event) {
    auto passed = std::make_unique<Passed>(*this, *given_, *sink_);
    passed->body = event.raw ? std::string(event.body.get().get_string()) : event.body.dump(false);
    passed->id = event.id;
    passed->event.body = passed->body;
    passed->event.uid = passed->id;
    if (!event.raw) { passed->event.content_type = "application/json"; }
    leaving_passed_ = std::move(passed);
  }
  void send(int lane, std::unique_ptr<Passed> passed) noexcept {
    Passed& sent = *passed;
    passed_[&sent.outer] = std::move(passed);
    if (lane < 0) {
      workers_->deliver(sent.event, sent);
    } else {
      workers_->deliver_to(lane, sent.event, sent);
    }
  }

  std::unique_ptr<realtime::ProcessorConfig> config_;
  std::unique_ptr<Host> workers_;
  std::unique_ptr<NativeGraph> prefix_;
  std::string counters_;
  realtime::LoopTimer ask_timer_;
  GraphOptions options_;
  bool asks_ = false;
  std::optional<StepStats> stats_;
  std::unordered_map<ResponseSink*, std::unique_ptr<Passed>> passed_;
  const Event* given_ = nullptr;
  ResponseSink* sink_ = nullptr;
  std::unique_ptr<Passed> leaving_passed_;
};

}  // namespace

Result<std::unique_ptr<Host>> make_segment_host(const HostSite& site) {
  const bool serving = !variable(site.config, "SERVING_SPEC_ENV").empty();
  if (!serving) { return realtime::make_python_host(site); }
  auto config = std::make_unique<realtime::ProcessorConfig>(site.config);
  std::string folder = (std::filesystem::temp_directory_path() / "metier-steps-XXXXXX").string();
  if (::mkdtemp(folder.data()) == nullptr) { folder.clear(); }
  if (!folder.empty()) {
    ::chmod(folder.c_str(), 0700);
    config->env.emplace_back("METIER_GRAPH_STATS", folder);
  }
  if (site.trigger.explicit_ack != realtime::ExplicitAck::disable) {
    // The worker acknowledges, when an event has ended.
    config->env.emplace_back("METIER_GRAPH_ACKS", "explicit");
  }
  std::unique_ptr<NativeGraph> prefix;
  GraphOptions options;
  bool ask = false;
  if (variable(site.config, "START_FROM_STEP").empty() && site.trigger.kind == "http" &&
      !folder.empty()) {
    auto source = graph_source(site.config);
    const std::string current = variable(site.config, "SERVING_CURRENT_FUNCTION");
    options.current_function = current.empty() ? "*" : current;
    if (!site.config.path.empty()) { options.folders = {site.config.path}; }
    if (source) {
      options.default_content_type = source->default_content_type;
      std::string entry;
      auto made = NativeGraph::make_prefix(source->graph, entry, std::move(options));
      if (made && *made) {
        prefix = std::move(*made);
        config->env.emplace_back("START_FROM_STEP", entry);
      }
    } else if (const auto spec = parse_json(variable(site.config, "SERVING_SPEC_ENV"));
               spec && spec->is_object() && field_of_mlrun(spec->get_object()).empty()) {
      ask = true;
      options.default_content_type = string_in(spec->get_object(), "default_content_type");
      config->env.emplace_back("METIER_GRAPH_CUT", "ask");
    }
  }
  METIER_TRY(workers, realtime::make_python_host({.loop = site.loop,
                                                  .config = *config,
                                                  .trigger = site.trigger,
                                                  .trigger_label = site.trigger_label,
                                                  .log = site.log}));
  auto host = std::make_unique<SegmentHost>(site.loop, std::move(config), std::move(workers),
                                            std::move(folder));
  if (prefix != nullptr) { host->cut(std::move(prefix)); }
  if (ask) { host->ask(std::move(options)); }
  return host;
}

}  // namespace metier::serving
