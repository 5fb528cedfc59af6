#include "cli/parts.h"

#include <fmt/format.h>

#include "base/clock.h"
#include "base/quantity.h"
#include "cli/live_line.h"

namespace metier::cli {
namespace {

Result<Json> answer_of(Command& command, const std::string& uid) {
  return command.session.get(
      fmt::format("/api/metier/v1/runs/{}/parts?project={}", uid, command.project));
}

JsonArray parts_in(const Json& answer) {
  const auto* list = answer.is_object() ? array_in(answer.get_object(), "parts") : nullptr;
  return list == nullptr ? JsonArray{} : *list;
}

double number_in(const JsonObject& object, std::string_view key) {
  const auto* value = object.if_contains(key);
  return value != nullptr && value->is_number() ? value->to_number<double>() : 0;
}

std::string took(const JsonObject& part) {
  const auto start = from_iso(string_in(part, "start_time"));
  const auto end_text = string_in(part, "end_time");
  const auto end =
      end_text.empty() ? std::optional<Time>(system_clock().now()) : from_iso(end_text);
  return start && end && *end > *start ? human_duration(*end - *start) : "";
}

std::string ended(const JsonObject& part) {
  std::string out(string_in(part, "reason"));
  if (out == "Completed") { return {}; }
  if (const auto code = int_in(part, "exit_code").value_or(0); code != 0) {
    if (out.empty() || out == "Error") { return fmt::format("exit code {}", code); }
  }
  return out;
}

}  // namespace

void show_parts(Command& command, const std::string& uid) {
  const auto answer = answer_of(command, uid);
  const auto parts = answer ? parts_in(*answer) : JsonArray{};
  if (parts.empty()) { return; }
  auto& screen = command.screen;
  screen.out("parts\n");
  std::size_t widest = 4;
  for (const auto& part : parts) { widest = std::max(widest, string_at(part, "name").size()); }
  for (const auto& entry : parts) {
    const auto* part = entry.if_object();
    if (part == nullptr) { continue; }
    const auto state = string_in(*part, "state");
    const auto cpu = number_in(*part, "cpu_seconds");
    const auto peak = int_in(*part, "peak_memory").value_or(0);
    std::string line =
        fmt::format("  {:<{}}  {}", string_in(*part, "name"), widest,
                    screen.paint_out(role_of_state(state), fmt::format("{:<9}", state)));
    line += fmt::format("  {:>8}", took(*part));
    line += fmt::format("  {:>9}", cpu > 0 ? fmt::format("{:.2f} s cpu", cpu) : "");
    line += fmt::format("  {:>9}", peak > 0 ? human_bytes(peak) : "");
    if (const auto* asks = object_in(*part, "requests")) {
      line += fmt::format("  asks {:>4} cpu {:>6}", string_in(*asks, "cpu", "0"),
                          string_in(*asks, "memory", "-"));
    }
    line += fmt::format("  {}", string_in(*part, "pod"));
    if (const auto why = ended(*part); !why.empty()) { line += "  " + why; }
    screen.out(line + "\n");
  }
  if (const auto* progress = answer->as_object().if_contains("progress")) {
    const auto text = progress_text(*progress, screen.style().glyphs);
    if (!text.empty()) { screen.out(fmt::format("progress  {}\n", text)); }
  }
}

void show_parts_in_time(Command& command, const JsonObject& timeline) {
  const auto* parts = array_in(timeline, "parts");
  const auto* attempts = array_in(timeline, "attempts");
  if (parts == nullptr || attempts == nullptr || attempts->empty()) { return; }
  const auto* newest = attempts->back().if_object();
  const auto zero = newest == nullptr ? std::nullopt : from_iso(string_in(*newest, "start"));
  for (const auto& entry : *parts) {
    const auto* part = entry.if_object();
    const auto start = part == nullptr ? std::nullopt : from_iso(string_in(*part, "start_time"));
    if (!zero || !start) { continue; }
    const auto after = std::max(*start - *zero, Duration{});
    command.screen.out(fmt::format("  {:<12} {:<9} from +{}\n", string_in(*part, "name"),
                                   took(*part), human_duration(after)));
  }
}

Result<int> logs_of_parts(Command& command, const std::string& uid, const LogView& view) {
  METIER_TRY(answer, answer_of(command, uid));
  const auto parts = parts_in(answer);
  if (parts.empty()) {
    return fail(invalid("--part", "the run has one pod, and so one log", "leave --part out"));
  }
  for (const auto& part : parts) {
    const std::string name(string_at(part, "name"));
    const auto place = log_of_run(command, uid, name);
    LogText text(command, place, view.timestamps, name);
    METIER_TRY(begin, log_begin(command, place, view));
    METIER_CHECK(print_log(command, place, text, begin));
    text.end_line();
  }
  return 0;
}

}  // namespace metier::cli
