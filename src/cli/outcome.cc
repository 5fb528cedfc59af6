#include "cli/outcome.h"

#include <fmt/format.h>

#include <charconv>

#include "base/clock.h"
#include "base/quantity.h"

namespace metier::cli {
namespace {

const JsonObject& status_of(const JsonObject& run) {
  static const JsonObject empty;
  const auto* status = object_in(run, "status");
  return status == nullptr ? empty : *status;
}

std::string_view first_line(std::string_view text) {
  return text.substr(0, std::min(text.find('\n'), text.size()));
}

std::string joined_results(const JsonObject& results, std::size_t most) {
  std::string out;
  std::size_t shown = 0;
  for (const auto& [key, value] : results) {
    if (shown++ < most) {
      out +=
          fmt::format("{}{}={}", out.empty() ? "" : " ", std::string_view(key), value_text(value));
    }
  }
  if (shown > most) { out += fmt::format(" +{}", shown - most); }
  return out;
}

std::string size_text(const JsonObject& spec) {
  const auto size = int_in(spec, "size");
  return size ? human_bytes(*size) : "";
}

std::string artifact_uri(const JsonObject& artifact, const JsonObject& status) {
  const auto* metadata = object_in(artifact, "metadata");
  const auto key = metadata == nullptr ? std::string_view() : string_in(*metadata, "key");
  if (const auto* uris = object_in(status, "artifact_uris")) {
    if (const auto uri = string_in(*uris, key); !uri.empty()) { return std::string(uri); }
  }
  const auto* spec = object_in(artifact, "spec");
  return spec == nullptr ? std::string() : std::string(string_in(*spec, "target_path"));
}

}  // namespace

std::string printable_lines(std::string_view text) {
  std::string out;
  while (!text.empty()) {
    const auto end = std::min(text.find('\n'), text.size());
    out += (out.empty() ? "" : "\n") + printable(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return out;
}

std::string short_uid(std::string_view uid) { return std::string(uid.substr(0, 8)); }

std::string value_text(const Json& value) {
  if (value.is_string()) { return std::string(value.as_string()); }
  if (value.is_double()) {
    const double number = value.as_double();
    auto text = fmt::format("{:.6g}", number);
    return text;
  }
  return dump_json(value);
}

Role role_of_state(std::string_view state) {
  if (state == "completed" || state == "ready") { return Role::good; }
  if (state == "error" || state == "unhealthy") { return Role::bad; }
  if (state == "scaledToZero") { return Role::aside; }
  if (state == "running" || state == "aborting" || state == "deploying" || state == "building") {
    return Role::live;
  }
  if (state == "aborted" || state == "skipped" || state == "removed" || state == "released") {
    return Role::aside;
  }
  return Role::care;
}

Cell result_cell(const JsonObject& run) {
  const auto& status = status_of(run);
  const auto state = string_in(status, "state");
  if (state == "error" || state == "aborted") {
    if (const auto* failure = object_in(status, "failure")) {
      auto text = std::string(string_in(*failure, "type"));
      if (const auto line = int_in(*failure, "line"); line && *line > 0) {
        text += fmt::format(" {}:{}", string_in(*failure, "file"), *line);
      }
      if (!text.empty()) { return {text, {}, Role::plain}; }
    }
    const auto error = first_line(string_in(status, "error"));
    return {std::string(error.empty() ? string_in(status, "reason") : error), {}, Role::plain};
  }
  if (const auto* results = object_in(status, "results"); results != nullptr && !results->empty()) {
    return {joined_results(*results, 2), joined_results(*results, 99)};
  }
  if (state == "completed") { return {}; }
  return {std::string(string_in(status, "reason"))};
}

Cell age_cell(std::string_view iso, Time now) {
  const auto at = from_iso(iso);
  if (!at) { return {"–", "-"}; }
  const auto seconds = std::max<std::int64_t>(
      std::chrono::duration_cast<std::chrono::seconds>(now - *at).count(), 0);
  std::string text = seconds < 60      ? fmt::format("{} s", seconds)
                     : seconds < 3600  ? fmt::format("{} min", seconds / 60)
                     : seconds < 86400 ? fmt::format("{} h", seconds / 3600)
                                       : fmt::format("{} d", seconds / 86400);
  return {std::move(text), std::string(iso), Role::aside};
}

Cell took_cell(const JsonObject& run, Time now) {
  const auto& status = status_of(run);
  const auto start = from_iso(string_in(status, "start_time"));
  const auto state = string_in(status, "state");
  if (!start || state == "created" || state == "pending") { return {"–", "-"}; }
  auto end = from_iso(string_in(status, "end_time"));
  if (!end && state != "running" && state != "aborting") {
    end = from_iso(string_in(status, "last_update"));
  }
  return {human_duration(std::max(end.value_or(now) - *start, Duration(0)))};
}

void show_results(Command& command, const JsonObject& run) {
  const auto& status = status_of(run);
  auto& screen = command.screen;
  if (const auto* results = object_in(status, "results"); results != nullptr && !results->empty()) {
    Table table{{{"result"}, {"value"}}, {}};
    for (const auto& [key, value] : *results) {
      table.rows.push_back({{std::string(key)}, {value_text(value)}});
    }
    if (screen.style().out_terminal) { screen.out("\n"); }
    screen.table(table);
  }
  if (const auto* artifacts = array_in(status, "artifacts");
      artifacts != nullptr && !artifacts->empty()) {
    Table table{{{"artifact"}, {"kind", 2}, {"size", 1, true}, {"where"}}, {}};
    for (const auto& entry : *artifacts) {
      if (!entry.is_object()) { continue; }
      const auto& artifact = entry.as_object();
      const auto* metadata = object_in(artifact, "metadata");
      const auto* spec = object_in(artifact, "spec");
      const auto kind = string_in(artifact, "kind", "artifact");
      table.rows.push_back({{std::string(metadata == nullptr ? "" : string_in(*metadata, "key"))},
                            {std::string(kind.empty() ? "artifact" : kind)},
                            {spec == nullptr ? "" : size_text(*spec)},
                            {artifact_uri(artifact, status)}});
    }
    if (screen.style().out_terminal) { screen.out("\n"); }
    screen.table(table);
  } else if (const auto* uris = object_in(status, "artifact_uris");
             uris != nullptr && !uris->empty()) {
    Table table{{{"artifact"}, {"where"}}, {}};
    for (const auto& [key, value] : *uris) {
      table.rows.push_back({{std::string(key)}, {value_text(value)}});
    }
    if (screen.style().out_terminal) { screen.out("\n"); }
    screen.table(table);
  }
}

std::string excerpt(const Screen& screen, std::string_view source, std::int64_t line,
                    std::int64_t first_column, std::int64_t end_column) {
  std::string out;
  while (!source.empty()) {
    const auto end = std::min(source.find('\n'), source.size());
    const auto text = source.substr(0, end);
    source.remove_prefix(std::min(end + 1, source.size()));
    std::int64_t number = 0;
    const auto from = std::min(text.find_first_not_of(' '), text.size());
    const auto parsed = std::from_chars(text.data() + from, text.data() + text.size(), number);
    if (parsed.ec != std::errc{}) {
      out += "    " + printable(text) + "\n";
      continue;
    }
    auto code = text.substr(static_cast<std::size_t>(parsed.ptr - text.data()));
    if (code.starts_with(' ')) { code.remove_prefix(1); }
    const bool here = number == line;
    const auto mark = here ? screen.paint(Role::live, screen.glyph(Role::live)) : std::string(" ");
    out += fmt::format("  {} {:<4} {}\n", mark, number, printable(code));
    if (here && end_column > first_column && first_column >= 0 &&
        end_column <= static_cast<std::int64_t>(code.size())) {
      const std::string space(
          static_cast<std::size_t>(
              9 + display_width(code.substr(0, static_cast<std::size_t>(first_column)))),
          ' ');
      const auto width =
          display_width(code.substr(static_cast<std::size_t>(first_column),
                                    static_cast<std::size_t>(end_column - first_column)));
      out +=
          space + screen.paint(Role::bad, std::string(static_cast<std::size_t>(width), '^')) + "\n";
    }
  }
  return out;
}

namespace {

// What the caller of the run got wrong: one sentence says it, there is no place in the code.
bool is_misuse(std::string_view reason) {
  return reason == "InvalidParameter" || reason == "HandlerMissing" || reason == "ProgramMissing";
}

// The machine lacks something: the sentence says what, no code of anybody's is to blame.
bool is_lack(const JsonObject* failure, int code) {
  return failure != nullptr && code == 5 && string_in(*failure, "file").empty();
}

// Who has to act is the first fact.
std::string place_of(const JsonObject& status, int code) {
  if (const auto* failure = object_in(status, "failure")) {
    const auto rank = int_in(*failure, "rank");
    return rank ? fmt::format(" in your code (rank {})", *rank) : " in your code";
  }
  return code == 70 ? " in metier" : code == 5 ? " on the cluster" : "";
}

void show_called_from(Screen& screen, const JsonObject& failure, std::string_view uid) {
  std::string text;
  if (const auto* calls = array_in(failure, "called_from")) {
    for (const auto& call : *calls) {
      if (!call.is_object() || !text.empty()) { continue; }
      text = fmt::format("called from {}:{}, in {}", string_in(call.as_object(), "file"),
                         int_in(call.as_object(), "line").value_or(0),
                         string_in(call.as_object(), "function"));
    }
  }
  if (const auto hidden = int_in(failure, "hidden_frames"); hidden && *hidden > 0) {
    text += fmt::format(
        "{}{} frame{} of python and metier not shown, the whole traceback: metier logs {}",
        text.empty() ? "" : " " + screen.dot() + " ", *hidden, *hidden == 1 ? "" : "s", uid);
  }
  if (!text.empty()) { screen.say("  " + screen.paint(Role::aside, text)); }
}

}  // namespace

void show_failure(Command& command, const JsonObject& run, std::string_view took) {
  auto& screen = command.screen;
  const auto& status = status_of(run);
  const auto* metadata = object_in(run, "metadata");
  const auto uid = short_uid(metadata == nullptr ? "" : string_in(*metadata, "uid"));
  const auto reason = string_in(status, "reason");
  const int code = exit_code_of_run(string_in(status, "state"), reason);
  const auto* failure = object_in(status, "failure");
  const auto verb = reason == "OOMKilled" ? "killed" : "failed";
  const bool misuse = is_misuse(reason) || is_lack(failure, code);
  const auto what = failure != nullptr && misuse
                        ? printable(first_line(string_in(*failure, "message")))
                    : failure != nullptr && !string_in(*failure, "type").empty()
                        ? std::string(string_in(*failure, "type")) + place_of(status, code)
                    : !string_in(status, "error").empty()
                        ? printable(first_line(string_in(status, "error")))
                        : std::string(reason.empty() ? "no reason is known" : reason);
  screen.say(screen.paint(
      Role::bad, fmt::format("{} {} after {}: {}", screen.glyph(Role::bad), verb, took, what)));
  if (failure != nullptr && misuse) {
    const auto message = string_in(*failure, "message");
    if (const auto at = message.find('\n'); at != std::string_view::npos) {
      screen.say("  " + printable_lines(message.substr(at + 1)));
    }
  }
  if (failure != nullptr) {
    const auto line = int_in(*failure, "line").value_or(0);
    if (!string_in(*failure, "file").empty()) {
      screen.say("");
      const auto function = string_in(*failure, "function");
      screen.say(fmt::format("  {}:{}{}", printable(string_in(*failure, "file")), line,
                             function.empty() || function == "<module>"
                                 ? ""
                                 : fmt::format(", in {}", printable(function))));
      std::int64_t first = 0;
      std::int64_t end = 0;
      if (const auto* columns = array_in(*failure, "columns");
          columns != nullptr && columns->size() == 2 && (*columns)[0].is_int64() &&
          (*columns)[1].is_int64()) {
        first = (*columns)[0].as_int64();
        end = (*columns)[1].as_int64();
      }
      auto lines = excerpt(screen, string_in(*failure, "source"), line, first, end);
      if (lines.ends_with('\n')) { lines.pop_back(); }
      if (!lines.empty()) { screen.say(lines); }
    }
    const auto message = string_in(*failure, "message");
    if (const auto type = string_in(*failure, "type"); !type.empty() && !misuse) {
      screen.say(fmt::format("  {}{}", printable(type),
                             message.empty() ? "" : ": " + printable_lines(message)));
      screen.say("");
    }
    if (!misuse) { show_called_from(screen, *failure, uid); }
    if (const auto hint = string_in(*failure, "hint"); !hint.empty()) {
      screen.say("  " + screen.paint(Role::care, "hint: " + printable(hint)));
    }
  } else if (const auto error = string_in(status, "error");
             error.find('\n') != std::string_view::npos) {
    screen.say(printable_lines(error.substr(error.find('\n') + 1, 2000)));
  }
  const auto* conditions = array_in(status, "conditions");
  for (const auto& condition : conditions == nullptr ? JsonArray{} : *conditions) {
    if (string_at(condition, "type") != "ProcessOOMKilled") { continue; }
    screen.say("  " + screen.paint(Role::care, printable(string_at(condition, "message"))));
  }
  screen.say(screen.paint(
      Role::aside,
      fmt::format("exit {} {} {}metier logs {}", code, screen.dot(),
                  reason.empty() ? "" : fmt::format("reason {} {} ", reason, screen.dot()), uid)));
}

}  // namespace metier::cli
