#include "engine/phases.h"

#include <algorithm>
#include <array>
#include <map>

#include "model/run.h"

namespace metier {
namespace {

// A phase ends with its mark. `finished` ends the last one.
struct Border {
  std::string_view phase;
  std::string_view mark;
};
constexpr std::array<Border, 7> kBorders{{{"queue", "scheduled"},
                                          {"place", "placed"},
                                          {"environment", "environment"},
                                          {"start", "import"},
                                          {"import", "user"},
                                          {"user", "upload"},
                                          {"upload", "finished"}}};

Time time_from_seconds(const Json& value) {
  double seconds = 0;
  if (value.is_double()) { seconds = value.get_double(); }
  if (value.is_int64()) { seconds = static_cast<double>(value.get_int64()); }
  return Time{std::chrono::microseconds(static_cast<std::int64_t>(seconds * 1e6))};
}

}  // namespace

std::vector<Mark> marks_of(const PodStatus& pod) {
  std::vector<Mark> marks;
  for (const Condition& condition : pod.conditions) {
    if (!condition.status || condition.since == Time{}) { continue; }
    if (condition.type == "PodScheduled") { marks.push_back({"scheduled", condition.since}); }
    if (condition.type == "EnvironmentReady") { marks.push_back({"environment", condition.since}); }
  }
  for (const ContainerStatus& container : pod.containers) {
    if (container.init) { continue; }
    if (container.started != Time{}) { marks.push_back({"started", container.started}); }
    if (container.finished != Time{}) { marks.push_back({"finished", container.finished}); }
    break;
  }
  return marks;
}

std::vector<Phase> phases_of(std::span<const TimelineRow> rows, std::int64_t attempt, Time now) {
  std::map<std::string, Time, std::less<>> at;
  std::optional<Time> begin;
  std::optional<Time> end;
  for (const TimelineRow& row : rows) {
    if (row.attempt != attempt) { continue; }
    if (row.what == "accepted" || row.what == "attempt") { begin = begin.value_or(row.at); }
    auto detail = parse_json(row.detail);
    if (!detail || !detail->is_object()) { continue; }
    const JsonObject& object = detail->get_object();
    if (row.what == "phase") {
      const Json* when = object.if_contains("at");
      const Time time = when != nullptr && !when->is_string()
                            ? time_from_seconds(*when)
                            : from_iso(string_in(object, "at")).value_or(row.at);
      at.try_emplace(std::string(string_in(object, "name")), time);
    }
    if (row.what == "state") {
      const auto to = run_state_from(string_in(object, "to"));
      if (to && (is_terminal(*to) || *to == RunState::pending_retry)) {
        end = from_iso(string_in(object, "finished")).value_or(row.at);
      }
    }
  }
  if (!begin) { return {}; }
  const auto started = at.find("started");
  if (started != at.end()) {
    at.try_emplace(
        "environment",
        started->second);  // without a build the environment is there when the process is
    at.try_emplace("import",
                   started->second);  // a program that is not ours has no marks of its own
    at.try_emplace("user", at.find("import")->second);
  }
  if (const auto scheduled = at.find("scheduled"); scheduled != at.end()) {
    at.try_emplace("placed", scheduled->second);
  }
  const Time last = std::max(end.value_or(now), *begin);
  at["finished"] = last;
  // A mark that is missing lies where the next known one lies, so that its time goes to the phase before it.
  std::array<Time, kBorders.size()> ends{};
  Time next = last;
  for (std::size_t i = kBorders.size(); i-- > 0;) {
    const auto mark = at.find(kBorders[i].mark);
    if (mark != at.end()) { next = std::min(next, mark->second); }
    ends[i] = std::max(next, *begin);
  }
  std::vector<Phase> phases;
  Time from = *begin;
  for (std::size_t i = 0; i < kBorders.size(); ++i) {
    const Time to = std::max(ends[i], from);
    phases.push_back({std::string(kBorders[i].phase), from, to});
    from = to;
  }
  return phases;
}

Json to_json(std::span<const Phase> phases) {
  JsonArray out;
  for (const Phase& phase : phases) {
    out.push_back(JsonObject{
        {"name", phase.name},
        {"start", to_iso(phase.from)},
        {"ms", std::chrono::duration<double, std::milli>(phase.to - phase.from).count()}});
  }
  return out;
}

}  // namespace metier
