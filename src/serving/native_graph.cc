#include "serving/native_graph.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/json_ordered.h"
#include "serving/native_steps.h"
#include "serving/python_value.h"
#include "serving/walk.h"

namespace metier::serving {

class NativeGraph::Host final : public StepHost {
 public:
  Plan plan;
  std::vector<std::unique_ptr<NativeStep>> steps;  // null: not here
  GraphOptions options;
  StepObserver observer;
  GraphExit exit;
  int entry = -1;  // the step behind a prefix

  Result<void> build(const JsonObject& graph, bool prefix) {
    const JsonObject* documents = object_in(graph, "steps");
    steps.resize(plan.steps.size());
    for (std::size_t i = 0; i < plan.steps.size(); ++i) {
      if (!plan.steps[i].local) { continue; }
      const JsonObject* spec =
          plan.router_root ? &graph : object_in(*documents, plan.steps[i].name);
      if (spec == nullptr) {
        return metier::fail(ErrorKind::internal, "a step without its document");
      }
      auto step = make_native_step({.plan = plan.steps[i],
                                    .graph = plan,
                                    .spec = *spec,
                                    .folders = options.folders,
                                    .now = options.now,
                                    .check = options.check});
      if (!step && prefix && step.error().code == "NeedsPython") { continue; }
      if (!step) { return metier::fail(std::move(step.error())); }
      steps[i] = std::move(*step);
    }
    reads_part_ = !plan.starts.empty() && std::ranges::all_of(plan.starts, [&](int start) {
      const auto& step = steps[static_cast<std::size_t>(start)];
      return step != nullptr && step->reads_part();
    });
    return {};
  }

  // --- StepHost

  Verdict run(int at, Token token, int from) override {
    const auto index = static_cast<std::size_t>(at);
    if (at == entry) {
      NativeEvent& event = *event_of(token);
      const bool first = event.request != nullptr && !event.request->answered;
      if (first) {
        event.request->answered = event.request->told = true;
      }  // it is somebody else's now
      if (exit) { exit(event, first); }
      return Verdict::drop;
    }
    event_of(token)->from = from;
    auto event = std::unique_ptr<NativeEvent>(event_of(token));
    out_.events.clear();
    out_.outlets.clear();
    const auto began = observer ? options.now() : SteadyTime();
    const StepResult done = steps[index]->run(event, out_);
    if (observer) {
      observer(at,
               std::chrono::duration_cast<std::chrono::nanoseconds>(options.now() - began).count(),
               !done);
    }
    for (auto& lost : std::exchange(out_.lost, {})) { drop({lost.release()}); }
    NativeEvent* const still = event.release();  // null: the step keeps it
    if (!done) {
      raised_ = done.error();
      return Verdict::failed;
    }
    switch (*done) {
      case StepDone::next: return still->terminated ? Verdict::ended : Verdict::next;
      case StepDone::drop: return Verdict::drop;
      case StepDone::keep: return Verdict::parked;
      case StepDone::some: return Verdict::some;
      case StepDone::many: break;
    }
    return Verdict::many;
  }
  void outlets(std::vector<int>& chosen) override {
    for (const int outlet : out_.outlets) { chosen.push_back(outlet); }
  }
  void take(std::vector<Token>& tokens) override {
    for (auto& event : out_.events) {
      if (event->request != nullptr) { ++event->request->refs; }
      tokens.push_back({event.release()});
    }
    out_.events.clear();
  }
  Token branch(Token token) override {
    auto* other = new NativeEvent(*event_of(token));
    if (other->request != nullptr) { ++other->request->refs; }
    for (NativeRequest* kept : other->kept) { ++kept->refs; }
    return {other};
  }
  void drop(Token token) override {
    const std::unique_ptr<NativeEvent> event(event_of(token));
    if (event->request != nullptr) { release(event->request); }
    for (NativeRequest* kept : event->kept) { release(kept); }
  }
  void recover(int, Token token) override { event_of(token)->raw = false; }
  void fail(int, Token token) override {
    NativeEvent* event = event_of(token);
    if (event->request != nullptr && !event->request->answered) {
      event->request->answered = true;
      event->request->answer = GraphAnswer{.status = raised_.type == "Unanswered" ? 500 : 400,
                                           .content_type = "text/plain",
                                           .body = raised_.type + ": " + raised_.message,
                                           .failed = true};
    }
    drop(token);
  }
  void respond(Token token) override {
    NativeEvent* event = event_of(token);
    if (event->request == nullptr || event->request->answered) { return; }
    event->request->answered = true;
    event->request->answer = encoded(*event);
  }

  // --- requests

  void start(const GraphCall& call, bool hold, std::function<void(GraphAnswer&&)> finished) {
    auto* request = new NativeRequest;
    request->hold = hold;
    request->finished = std::move(finished);
    request->refs = 1;  // ours, until the walk has returned
    auto event = std::make_unique<NativeEvent>();
    event->id = call.id.empty() ? random_event_id() : std::string(call.id);
    event->key = call.key;
    event->path = call.path;
    event->method = call.method;
    event->timestamp_us = call.timestamp_us;
    const std::string id = event->id;
    if (auto refused = read_body(call, *event)) {
      request->answered = true;
      request->answer = std::move(*refused);
    } else {
      event->request = request;
      ++request->refs;
      Walk(plan, *this).start({event.release()});
      if (!request->answered && (plan.waits || hold)) {
        if (!hold) { unanswered(*request, id); }
      } else if (!request->answered) {
        request->answered = true;
        request->answer = GraphAnswer{.content_type = "application/json",
                                      .body = dump_python_ordered(JsonObject{{"id", id}})};
      }
    }
    if (!hold && !request->told) { tell(*request); }
    release(request);
  }

  void flushed(std::optional<SteadyTime> now) {
    for (std::size_t i = 0; i < steps.size(); ++i) {
      if (steps[i] == nullptr) { continue; }
      StepOutput out;
      steps[i]->flush(now, out);
      for (auto& event : out.events) {
        Walk(plan, *this).resume(static_cast<int>(i), {event.release()}, Verdict::next);
      }
    }
  }

 private:
  static NativeEvent* event_of(Token token) { return static_cast<NativeEvent*>(token.event); }
  static void tell(NativeRequest& request) {
    request.told = true;
    if (auto call = std::exchange(request.finished, {})) { call(std::move(request.answer)); }
  }
  static void release(NativeRequest* request) {
    if (--request->refs > 0) { return; }
    if (!request->told) { tell(*request); }
    delete request;
  }
  void unanswered(NativeRequest& request, std::string_view id) {
    request.answered = true;
    for (const auto& step : steps) {
      if (step == nullptr) { continue; }
      StepOutput out;
      const std::string why = step->missing(id, out);
      for (auto& lost : out.lost) { drop({lost.release()}); }
      if (why.empty()) { continue; }
      request.answer = GraphAnswer{.status = 500,
                                   .content_type = "text/plain",
                                   .body = "Unanswered: " + why,
                                   .failed = true};
      return;
    }
  }
  // What a queue of another function wrote is the event itself in a body (MLRun's form).
  static void unwrap(Json&& value, NativeEvent& event) {
    JsonObject* wrapped = value.if_object();
    if (wrapped == nullptr || !bool_in(*wrapped, "full_event_wrapper")) {
      event.body = Payload(std::move(value));
      return;
    }
    if (const auto id = string_in(*wrapped, "id"); !id.empty()) { event.id = id; }
    if (const auto key = string_in(*wrapped, "key"); !key.empty()) { event.key = key; }
    Json* body = wrapped->if_contains("body");
    event.body = Payload(body == nullptr ? Json() : std::move(*body));
  }
  std::optional<GraphAnswer> read_body(const GraphCall& call, NativeEvent& event) const {
    const std::string_view type = call.content_type.empty()
                                      ? std::string_view(options.default_content_type)
                                      : call.content_type;
    const bool declared = type == "application/json" || type == "json";
    if (call.body.empty()) { return std::nullopt; }
    if (declared || type.empty()) {
      if (reads_part_ && call.body.size() >= kMembersFrom && call.body.size() <= kMembersTo) {
        auto text = BodyText::of(call.body);
        if (text && !text->has("full_event_wrapper")) {
          event.body = Payload(std::move(text));
          return std::nullopt;
        }
      }
      auto value = parse_python_json(call.body);
      if (value) {
        unwrap(std::move(*value), event);
        return std::nullopt;
      }
      if (declared) {
        return GraphAnswer{.status = 400,
                           .content_type = "text/plain",
                           .body = "failed to json decode event, " + value.error().message,
                           .failed = true};
      }
    }
    event.raw = true;
    event.body = Payload(Json(call.body));
    return std::nullopt;
  }
  static GraphAnswer encoded(const NativeEvent& event) {
    GraphAnswer out;
    if (event.body.is_late()) {
      out.content_type = "application/json";
      out.body = event.body.dump(true);
      return out;
    }
    const Json& body = event.body.get();
    if (body.is_null()) { return out; }
    if (body.is_string()) {
      out.content_type = "text/plain";
      out.body = body.get_string();
      return out;
    }
    out.content_type = "application/json";
    out.body = dump_python_ordered(body);
    return out;
  }

  StepOutput out_;
  Raised raised_;
  bool reads_part_ = false;  // no step at the start sees the whole body
};

NativeGraph::NativeGraph(std::unique_ptr<Host> host) : host_(std::move(host)) {}
NativeGraph::~NativeGraph() = default;

Result<std::unique_ptr<NativeGraph>> NativeGraph::make(const JsonObject& graph,
                                                       GraphOptions options) {
  METIER_TRY(plan, compile_graph(graph, {.current_function = options.current_function}));
  auto host = std::make_unique<Host>();
  host->plan = std::move(plan);
  host->options = std::move(options);
  METIER_CHECK(host->build(graph, false));
  return std::unique_ptr<NativeGraph>(new NativeGraph(std::move(host)));
}

Result<std::unique_ptr<NativeGraph>> NativeGraph::make_prefix(const JsonObject& graph,
                                                              std::string& entry,
                                                              GraphOptions options) {
  METIER_TRY(plan, compile_graph(graph, {.current_function = options.current_function}));
  if (plan.router_root || plan.starts.size() != 1 || plan.sync) { return nullptr; }
  auto host = std::make_unique<Host>();
  host->plan = std::move(plan);
  host->options = std::move(options);
  METIER_CHECK(host->build(graph, true));
  const JsonObject& documents = *object_in(graph, "steps");
  int at = host->plan.starts[0];
  const int first = at;
  for (;;) {
    const PlanStep& step = host->plan.steps[static_cast<std::size_t>(at)];
    const std::string_view class_name = string_in(*object_in(documents, step.name), "class_name");
    const bool several = class_name.contains("Flat") || class_name.contains("Choice");
    const bool fits = host->steps[static_cast<std::size_t>(at)] != nullptr && step.error < 0 &&
                      !step.responder && step.next.size() == 1 && step.before.size() <= 1 &&
                      !several && step.kind == StepKind::task;
    if (!fits) { break; }
    at = step.next[0];
  }
  if (at == first || host->plan.steps[static_cast<std::size_t>(at)].before.size() > 1) {
    return nullptr;
  }
  host->entry = at;
  entry = host->plan.steps[static_cast<std::size_t>(at)].name;
  return std::unique_ptr<NativeGraph>(new NativeGraph(std::move(host)));
}

const Plan& NativeGraph::plan() const { return host_->plan; }
void NativeGraph::observe(StepObserver observer) { host_->observer = std::move(observer); }
void NativeGraph::on_exit(GraphExit exit) { host_->exit = std::move(exit); }
void NativeGraph::start(const GraphCall& call, bool hold,
                        std::function<void(GraphAnswer&&)> finished) {
  host_->start(call, hold, std::move(finished));
}
GraphAnswer NativeGraph::test(const GraphCall& call) {
  GraphAnswer out;
  start(call, false, [&](GraphAnswer&& answer) { out = std::move(answer); });
  return out;
}
std::optional<SteadyTime> NativeGraph::due() const {
  std::optional<SteadyTime> out;
  for (const auto& step : host_->steps) {
    const auto at = step == nullptr ? std::nullopt : step->due();
    if (at && (!out || *at < *out)) { out = at; }
  }
  return out;
}
void NativeGraph::tick() { host_->flushed(host_->options.now()); }
void NativeGraph::flush() { host_->flushed(std::nullopt); }

}  // namespace metier::serving
