// `metier logs`: what a run or a deployed function printed.
#include <fmt/format.h>

#include "cli/deploy.h"
#include "cli/follow.h"
#include "cli/log_reader.h"
#include "cli/names.h"
#include "cli/parts.h"

namespace metier::cli {
namespace {

// The attempt before the newest one, which may wait for its turn still.
Result<std::int64_t> previous_attempt(const JsonObject& run) {
  const auto* status = object_in(run, "status");
  const auto* lost = status == nullptr ? nullptr : array_in(*status, "retries");
  const auto ended = lost == nullptr ? 0 : static_cast<std::int64_t>(lost->size());
  const bool waits = status != nullptr && string_in(*status, "state") == "pendingRetry";
  const auto previous = waits ? ended - 1 : ended;
  if (previous > 0) { return previous; }
  return fail(Error{.kind = ErrorKind::not_found,
                    .message = "the run has one attempt only, there is none before it",
                    .field = "--previous",
                    .fix = "leave it out"});
}

}  // namespace

Result<int> logs_main(Command& command) {
  METIER_TRY(view, log_view(command.arguments));
  const bool follow = command.arguments.has("--follow");
  const auto& word = command.arguments.words()[0];
  const bool previous = command.arguments.has("--previous");
  if (previous && (follow || command.arguments.has("--part"))) {
    return fail(invalid("--previous", "an attempt that has ended is one whole log",
                        "leave --follow and --part out"));
  }
  auto found = resolve_run(command, word);
  if (!found && !previous && found.error().kind == ErrorKind::not_found) {
    auto logged = function_logs(command, word, follow, view);
    if (logged || logged.error().kind != ErrorKind::not_found) { return logged; }
  }
  METIER_TRY(run, std::move(found));
  const auto* metadata = object_in(run, "metadata");
  const std::string uid(metadata == nullptr ? "" : string_in(*metadata, "uid"));
  const std::string part(command.arguments.value("--part"));
  if (part == "all") { return logs_of_parts(command, uid, view); }
  std::int64_t attempt = 0;
  if (previous) {
    METIER_TRY(whole, read_run(command, command.project, uid));
    METIER_TRY(before, previous_attempt(whole));
    attempt = before;
  }
  const auto place = log_of_run(command, uid, part, attempt);
  LogText text(command, place, view.timestamps);
  const auto as_option = [](Error error) {
    if (error.field == "part") { error.field = "--part"; }
    return error;
  };
  const auto begin = log_begin(command, place, view);
  if (!begin) { return fail(as_option(begin.error())); }
  const auto end = print_log(command, place, text, *begin);
  if (!end) { return fail(as_option(end.error())); }
  if (!follow) { return 0; }
  METIER_TRY(followed, follow_run(command, command.project, uid,
                                  {.offset = *end, .part = part, .text = &text}));
  return followed.ending == Ending::detached ? 130 : 0;
}

}  // namespace metier::cli
