// A target that makes a span of each event: the handler sees a traceparent whose parent is that span.
#include <algorithm>
#include <chrono>
#include <memory>
#include <random>
#include <unordered_map>
#include <vector>

#include "base/text.h"
#include "realtime/hosts.h"
#include "realtime/trace_context.h"

namespace metier::realtime {
namespace {

std::int64_t unix_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

class TracingTarget final : public EventTarget {
 public:
  TracingTarget(std::string function, EventTarget& target, SpanExporter& exporter)
      : function_(std::move(function)), target_(target), exporter_(exporter) {}

  void deliver(const Event& event, ResponseSink& sink) noexcept override {
    Flight& flight = begin(event, sink);
    target_.deliver(flight.event, flight);
  }
  void deliver_to(int lane, const Event& event, ResponseSink& sink) noexcept override {
    Flight& flight = begin(event, sink);
    target_.deliver_to(lane, flight.event, flight);
  }
  void deliver_batch(std::span<const Event* const> events,
                     std::span<ResponseSink* const> sinks) noexcept override {
    std::vector<const Event*> traced;
    std::vector<ResponseSink*> flights;
    for (std::size_t i = 0; i < events.size(); ++i) {
      Flight& flight = begin(*events[i], *sinks[i]);
      traced.push_back(&flight.event);
      flights.push_back(&flight);
    }
    target_.deliver_batch(traced, flights);
  }
  void cancel(EventId id, ResponseSink& sink) noexcept override {
    if (Flight* flight = of(sink)) { target_.cancel(id, *flight); }
  }
  void resume(ResponseSink& sink) noexcept override {
    if (Flight* flight = of(sink)) { target_.resume(*flight); }
  }
  void drain(std::function<void()> done) noexcept override { target_.drain(std::move(done)); }
  void terminate(std::function<void()> done) noexcept override {
    target_.terminate(std::move(done));
  }
  void listen_acks(AckListener* listener) noexcept override { target_.listen_acks(listener); }
  bool has_room() const noexcept override { return target_.has_room(); }
  void when_room(int lane, std::function<void()> call) noexcept override {
    target_.when_room(lane, std::move(call));
  }
  int lanes() const noexcept override { return target_.lanes(); }
  int room_in(int lane) const noexcept override { return target_.room_in(lane); }

 private:
  struct Flight final : ResponseSink {
    explicit Flight(TracingTarget& owner) : own(owner) {}
    void head(const ResponseHead& given) noexcept override {
      note(given);
      sink->head(given);
    }
    bool chunk(std::string_view bytes) noexcept override { return sink->chunk(bytes); }
    void end() noexcept override {
      ResponseSink* const to = sink;
      own.finish(*this);
      to->end();
    }
    void fail(const Failure& failure) noexcept override {
      span.status = failure.status;
      span.error = failure.message.empty() ? "the event failed" : std::string(failure.message);
      ResponseSink* const to = sink;
      own.finish(*this);
      to->fail(failure);
    }
    void respond(const ResponseHead& given, std::string_view body) noexcept override {
      note(given);
      ResponseSink* const to = sink;
      own.finish(*this);
      to->respond(given, body);
    }
    void started() noexcept override { sink->started(); }
    void log(std::string_view record) noexcept override { sink->log(record); }
    void note(const ResponseHead& given) {
      span.status = given.status;
      span.handler_ns = given.handler_ns;
      if (given.outcome == Outcome::raised) { span.error = "the handler raised"; }
    }

    TracingTarget& own;
    ResponseSink* sink = nullptr;
    Event event;
    std::vector<HeaderView> headers;
    std::string traceparent;
    SpanRecord span;
    bool sampled = true;
  };

  std::string random_id(std::size_t digits) {
    static constexpr std::string_view kDigits = "0123456789abcdef";
    std::string out(digits, '0');
    for (std::size_t i = 0; i < digits; i += 16) {
      std::uint64_t bits = random_() | 1U;  // never all zero
      for (std::size_t k = 0; k < 16; ++k, bits >>= 4U) { out[i + 15 - k] = kDigits[bits & 15U]; }
    }
    return out;
  }

  Flight& begin(const Event& event, ResponseSink& sink) {
    if (free_.empty()) { free_.push_back(std::make_unique<Flight>(*this)); }
    std::unique_ptr<Flight> made = std::move(free_.back());
    free_.pop_back();
    Flight& flight = *made;
    flying_.emplace(&sink, std::move(made));
    flight.sink = &sink;
    flight.event = event;
    flight.headers.clear();
    flight.span = SpanRecord{};
    std::optional<TraceContext> context;
    for (const HeaderView& header : event.headers) {
      if (lower_case(header.name) == "traceparent") {
        if (!context) { context = parse_traceparent(header.value); }
      } else {
        flight.headers.push_back(header);
      }
    }
    flight.sampled = !context || context->sampled;
    flight.span.trace = context ? context->trace : random_id(32);
    flight.span.span = random_id(16);
    if (context) { flight.span.parent = context->parent; }
    flight.span.name =
        event.method.empty() ? function_ : std::string(event.method) + " " + function_;
    flight.span.trigger_kind = event.trigger_kind;
    flight.span.trigger_name = event.trigger_name;
    flight.span.method = event.method;
    flight.span.path = event.path;
    flight.span.begin_ns = unix_ns();
    flight.traceparent = format_traceparent(flight.span.trace, flight.span.span, flight.sampled);
    flight.headers.push_back({"traceparent", flight.traceparent});
    flight.event.headers = flight.headers;
    return flight;
  }

  void finish(Flight& flight) {
    if (flight.sampled) {
      flight.span.end_ns = unix_ns();
      exporter_.add(std::move(flight.span));
    }
    const auto known = flying_.find(flight.sink);
    free_.push_back(std::move(known->second));
    flying_.erase(known);
  }

  Flight* of(ResponseSink& sink) {
    const auto known = flying_.find(&sink);
    return known == flying_.end() ? nullptr : known->second.get();
  }

  std::string function_;
  EventTarget& target_;
  SpanExporter& exporter_;
  std::mt19937_64 random_{std::random_device{}()};
  std::unordered_map<ResponseSink*, std::unique_ptr<Flight>> flying_;
  std::vector<std::unique_ptr<Flight>> free_;
};

}  // namespace

std::unique_ptr<EventTarget> make_tracer(std::string function, EventTarget& target,
                                         SpanExporter& exporter) {
  return std::make_unique<TracingTarget>(std::move(function), target, exporter);
}

}  // namespace metier::realtime
