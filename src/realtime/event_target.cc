#include "realtime/event_target.h"

namespace metier::realtime {

int status_of(FailReason reason) {
  switch (reason) {
    case FailReason::no_worker:
    case FailReason::stopping: return 503;
    case FailReason::timed_out: return 408;
    case FailReason::worker_died: return 502;
    case FailReason::cancelled: return 499;
    case FailReason::refused: return 400;
    case FailReason::internal: return 500;
  }
  return 500;
}

void ResponseSink::respond(const ResponseHead& given, std::string_view body) noexcept {
  ResponseHead whole = given;
  whole.length = static_cast<std::int64_t>(body.size());
  head(whole);
  if (!body.empty()) { chunk(body); }
  end();
}

void EventTarget::deliver_batch(std::span<const Event* const> events,
                                std::span<ResponseSink* const> sinks) noexcept {
  for (std::size_t i = 0; i < events.size(); ++i) { deliver(*events[i], *sinks[i]); }
}

void EventTarget::deliver_to(int, const Event& event, ResponseSink& sink) noexcept {
  deliver(event, sink);
}

}  // namespace metier::realtime
