// `metier wait`: blocks until a run has come where it is waited for.
#include <fmt/format.h>

#include "base/clock.h"
#include "cli/follow.h"
#include "cli/live_line.h"
#include "cli/names.h"
#include "cli/outcome.h"

namespace metier::cli {
namespace {

using SteadyClock = std::chrono::steady_clock;

bool has_ended(std::string_view state) {
  return state == "completed" || state == "error" || state == "aborted" || state == "skipped";
}

std::string_view state_of(const JsonObject& run) {
  const auto* status = object_in(run, "status");
  return status == nullptr ? std::string_view() : string_in(*status, "state");
}

struct Wanted {
  std::string state;  // ended, completed, running
  std::optional<SteadyClock::time_point> until;
};

Result<Wanted> wanted_of(const Arguments& arguments) {
  Wanted out{.state = arguments.value("--for", "ended"), .until = {}};
  if (out.state != "ended" && out.state != "completed" && out.state != "running") {
    return fail(invalid("--for", quote(out.state) + " cannot be waited for",
                        "ended, completed or running"));
  }
  if (arguments.has("--timeout")) {
    const auto timeout = parse_duration(arguments.value("--timeout"));
    if (!timeout || *timeout < Duration(0)) {
      return fail(invalid("--timeout", quote(arguments.value("--timeout")) + " is not a duration",
                          "write 30s, 5m or 1h"));
    }
    out.until = SteadyClock::now() + *timeout;
  }
  return out;
}

}  // namespace

Result<int> wait_main(Command& command) {
  METIER_TRY(wanted, wanted_of(command.arguments));
  METIER_TRY(run, resolve_run(command, command.arguments.words()[0]));
  const auto* metadata = object_in(run, "metadata");
  const std::string uid(metadata == nullptr ? "" : string_in(*metadata, "uid"));
  const InterruptCounter counter;
  // Asked before the run's state is read: a change in between is among the events that follow.
  const std::string events = "/api/metier/v1/events?form=json&project=" + command.project;
  METIER_TRY(now, command.session.get(events + "&wait=false"));
  std::int64_t seen = now.is_object() ? int_in(now.as_object(), "last").value_or(0) : 0;
  for (;;) {
    METIER_TRY(read, read_run(command, command.project, uid));
    const auto state = state_of(read);
    if (has_ended(state) || (wanted.state == "running" && state == "running")) {
      if (!command.screen.style().quiet) {
        command.screen.say(fmt::format(
            "{} {}  {}",
            command.screen.paint(role_of_state(state), command.screen.glyph(role_of_state(state))),
            state, short_uid(uid)));
      }
      if (wanted.state == "ended" || state == wanted.state) { return 0; }
      const auto* status = object_in(read, "status");
      return wanted.state == "running" && state == "completed"
                 ? 0
                 : exit_code_of_run(state, status == nullptr ? "" : string_in(*status, "reason"));
    }
    auto patience = std::chrono::milliseconds(25'000);  // the server answers after 20 s
    if (wanted.until) {
      const auto left =
          std::chrono::duration_cast<std::chrono::milliseconds>(*wanted.until - SteadyClock::now());
      if (left <= std::chrono::milliseconds(0)) {
        command.screen.error(
            Error{.kind = ErrorKind::timed_out,
                  .message = fmt::format("run {} is {} after {}", short_uid(uid), state,
                                         command.arguments.value("--timeout")),
                  .fix = fmt::format("metier why {}", short_uid(uid))});
        return 1;
      }
      patience = std::min(patience, left + std::chrono::milliseconds(1));
    }
    command.session.interrupted = [&] { return counter.count() > 0; };
    auto answer =
        command.session.send("GET", fmt::format("{}&since={}", events, seen), {}, {}, patience);
    command.session.interrupted = nullptr;
    if (counter.count() > 0) { return 130; }
    if (!answer) {
      if (answer.error().kind == ErrorKind::timed_out) { continue; }
      return fail(std::move(answer).error());
    }
    METIER_TRY(body, parse_json(answer->body, {.bytes = 64U << 20U}));
    if (body.is_object()) { seen = int_in(body.as_object(), "last").value_or(seen); }
  }
}

}  // namespace metier::cli
