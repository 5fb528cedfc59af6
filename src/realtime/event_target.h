// Where events go and where their answers come out. A worker pool, a graph, a native handler, a shell handler are all targets; limits,
// batching and metrics are targets that wrap one. Everything here happens on the processor's event loop thread; nothing blocks.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>

#include "realtime/event.h"

namespace metier::realtime {

// What the owner of a function should know although it runs: a stable code of `metier help`, and this case in words.
struct Problem {
  std::string code;  // "BrokerUnavailable"
  std::string message;
};

// Why an event has no answer of a handler.
enum class FailReason {
  no_worker,    // 503: the queue was full, or no worker was free in time
  stopping,     // 503: the processor drains
  timed_out,    // 408: the event timeout; the event had started
  worker_died,  // 502: the worker crashed or was replaced; the event had started
  cancelled,    // the trigger asked for it
  refused,  // 4xx/5xx of `Failure::status`: this event cannot be taken (too large, no such graph …)
  internal,  // 500
};

struct Failure {
  FailReason reason = FailReason::internal;
  int status = 500;
  std::string_view message;  // one sentence, for the log and the body; may be empty
  int retry_after_s = 0;     // Retry-After when > 0
};
int status_of(FailReason reason);

// How a handler's answer came about: a stream's acknowledgement follows it.
enum class Outcome {
  answered,
  raised,  // the handler raised; the answer says so (500, or 400 of a graph)
};

struct ResponseHead {
  int status = 200;
  std::string_view content_type;  // empty: text/plain; charset=utf-8
  std::span<const HeaderView>
      headers;               // checked by the sink's side before they reach a peer; repeats allowed
  std::int64_t length = -1;  // of the body when known; else it is sent chunked
  Outcome outcome = Outcome::answered;
  std::int64_t handler_ns = 0;  // time in the handler, 0 unknown
  bool no_ack = false;          // X-Nuclio-Stream-No-Ack, in any case of letters
};

// Takes the answer to one event. Order: head, chunk…, end; or fail, at any point before end. Views are copied or written out before
// the call returns. After `end` or `fail` the target never touches the sink or the event again.
class ResponseSink {
 public:
  virtual ~ResponseSink() = default;
  virtual void head(const ResponseHead& head) noexcept = 0;
  // False: the peer reads slowly. The target may go on (the sink keeps what it was given) but should wait for
  // `EventTarget::resume`.
  virtual bool chunk(std::string_view bytes) noexcept = 0;
  virtual void end() noexcept = 0;
  virtual void fail(const Failure& failure) noexcept = 0;
  // A whole answer at once, the common case: same as head (with the length), chunk, end.
  virtual void respond(const ResponseHead& head, std::string_view body) noexcept;
  // The event's handler has begun. Streams count it as a delivery.
  virtual void started() noexcept {}
  // A log record of this event's handler (one JSON object), only when the event `wants_logs`.
  virtual void log(std::string_view) noexcept {}
};

// Explicit acknowledgement: a handler finished every delivered offset up to `offset` of that partition. Comes at any time after the
// event was delivered, also after its answer (background tasks). Unknown topics and partitions are ignored and counted.
class AckListener {
 public:
  virtual ~AckListener() = default;
  virtual void acknowledge(std::string_view topic, std::int32_t partition,
                           std::int64_t offset) noexcept = 0;
  // A worker ends: nobody will acknowledge what it had answered and not acknowledged. Told before its events in flight
  // fail; nothing is delivered to that lane meanwhile.
  virtual void worker_lost(int /*lane*/) noexcept {}
};

class EventTarget {
 public:
  virtual ~EventTarget() = default;
  // Answers by the sink, at once or later. The event and the sink live until then.
  virtual void deliver(const Event& event, ResponseSink& sink) noexcept = 0;
  // One call of the handler with a list. Answers go to the sinks by event_id. The default delivers one by one.
  virtual void deliver_batch(std::span<const Event* const> events,
                             std::span<ResponseSink* const> sinks) noexcept;
  // The peer has gone or the trigger gave up: the sink is told `fail(cancelled)` before this returns, unless it has ended.
  // A sync handler that runs is left alone, its answer dropped; a coroutine is cancelled; one that waits never starts.
  virtual void cancel(EventId id, ResponseSink& sink) noexcept = 0;
  // After `chunk` gave false: the sink takes more.
  virtual void resume(ResponseSink&) noexcept {}
  // A rebalance or the end: handlers' drain (termination) callbacks run after what they are doing; `done` is called when all have.
  virtual void drain(std::function<void()> done) noexcept { done(); }
  virtual void terminate(std::function<void()> done) noexcept { done(); }
  virtual void listen_acks(AckListener*) noexcept {}
  // Can take an event now without waiting: a stream's trigger asks before it takes the next record.
  virtual bool has_room() const noexcept { return true; }
  // Called once when a target that had no room in that lane (-1: in any) has some. May be called spuriously.
  virtual void when_room(int /*lane*/, std::function<void()> call) noexcept { call(); }
  // The number of workers, for static partition → worker allocation. `deliver` goes to worker `lane % lanes()` when
  // pinned; a graph or native handler has one lane and ignores it.
  virtual int lanes() const noexcept { return 1; }
  // The lane that an event can go to now without waiting: `lane` itself, or any one for -1; -1 when there is none.
  virtual int room_in(int lane) const noexcept { return has_room() ? std::max(lane, 0) : -1; }
  virtual void deliver_to(int lane, const Event& event, ResponseSink& sink) noexcept;
};

}  // namespace metier::realtime
