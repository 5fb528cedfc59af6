// `metier logs`: what a run or a deployed function printed.
#include <fmt/format.h>

#include "cli/deploy.h"
#include "cli/follow.h"
#include "cli/log_reader.h"
#include "cli/names.h"
#include "cli/parts.h"

namespace metier::cli {

Result<int> logs_main(Command& command) {
  METIER_TRY(view, log_view(command.arguments));
  const bool follow = command.arguments.has("--follow");
  const auto& word = command.arguments.words()[0];
  auto found = resolve_run(command, word);
  if (!found && found.error().kind == ErrorKind::not_found) {
    auto logged = function_logs(command, word, follow, view);
    if (logged || logged.error().kind != ErrorKind::not_found) { return logged; }
  }
  METIER_TRY(run, std::move(found));
  const auto* metadata = object_in(run, "metadata");
  const std::string uid(metadata == nullptr ? "" : string_in(*metadata, "uid"));
  const std::string part(command.arguments.value("--part"));
  if (part == "all") { return logs_of_parts(command, uid, view); }
  const auto place = log_of_run(command, uid, part);
  LogText text(command, place, view.timestamps);
  METIER_TRY(begin, log_begin(command, place, view));
  METIER_TRY(end, print_log(command, place, text, begin));
  if (!follow) { return 0; }
  METIER_TRY(followed, follow_run(command, command.project, uid,
                                  {.offset = end, .part = part, .text = &text}));
  return followed.ending == Ending::detached ? 130 : 0;
}

}  // namespace metier::cli
