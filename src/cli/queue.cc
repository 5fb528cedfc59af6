// `metier queue`: whether runs that wait may start; pause and resume.
#include <fmt/format.h>

#include "cli/outcome.h"
#include "cli/verbs.h"

namespace metier::cli {
namespace {

constexpr std::string_view kPath = "/api/metier/v1/queue";

int show(Command& command, const Json& queue) {
  auto& screen = command.screen;
  if (command.output == "json" || command.output == "yaml") {
    command.output == "json" ? screen.json(queue) : screen.yaml(queue);
    return 0;
  }
  const bool paused = queue.is_object() && bool_in(queue.as_object(), "paused");
  const auto reason = printable(string_at(queue, "reason"));
  const auto* waiting = find_path(queue, "waiting");
  screen.out(fmt::format("{}{}, {} waiting\n", paused ? "paused" : "open",
                         reason.empty() ? "" : " (" + reason + ")",
                         waiting == nullptr ? "none" : value_text(*waiting)));
  if (paused) { screen.next({"metier queue resume"}); }
  return 0;
}

}  // namespace

Result<int> queue_main(Command& command) {
  const auto& words = command.arguments.words();
  if (words.empty()) {
    METIER_TRY(queue, command.session.get(std::string(kPath)));
    return show(command, queue);
  }
  const bool pause = words[0] == "pause";
  if (!pause && words[0] != "resume") {
    return fail(invalid("queue", quote(words[0]) + " is unknown", "pause or resume"));
  }
  if (!pause && words.size() > 1) {
    return fail(invalid("queue resume", quote(words[1]) + " is too much", "metier queue resume"));
  }
  JsonObject body{{"paused", pause}, {"reason", words.size() > 1 ? words[1] : ""}};
  METIER_TRY(queue, command.session.call("PUT", std::string(kPath), Json(std::move(body))));
  if (!command.screen.style().quiet) {
    command.screen.say(
        fmt::format("{} {}", command.screen.glyph(Role::good),
                    pause ? "the queue is paused: what runs goes on, nothing new starts"
                          : "the queue is open"));
  }
  return show(command, queue);
}

}  // namespace metier::cli
