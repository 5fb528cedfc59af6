#include "model/run.h"

#include <algorithm>
#include <array>

#include "base/clock.h"
#include "base/text.h"
#include "model/hyper.h"
#include "model/problems.h"

namespace metier {
namespace {

constexpr std::array<std::pair<RunState, std::string_view>, 10> kStates = {
    {{RunState::created, "created"},
     {RunState::pending, "pending"},
     {RunState::running, "running"},
     {RunState::completed, "completed"},
     {RunState::error, "error"},
     {RunState::aborting, "aborting"},
     {RunState::aborted, "aborted"},
     {RunState::unknown, "unknown"},
     {RunState::skipped, "skipped"},
     {RunState::pending_retry, "pendingRetry"}}};

constexpr std::array<std::string_view, 4> kThresholds = {
    "pending_scheduled", "pending_not_scheduled", "image_pull_backoff", "executing"};

const JsonObject& section(const JsonObject& document, std::string_view name) {
  static const JsonObject kNone;
  const JsonObject* found = object_in(document, name);
  return found == nullptr ? kNone : *found;
}

void check_inputs(const JsonObject& spec, ProblemList& problems) {
  const Json* inputs = spec.if_contains("inputs");
  if (inputs == nullptr || inputs->is_null()) { return; }
  if (!inputs->is_object()) {
    problems.add("spec.inputs",
                 "expected an object of key to URL, got a " + std::string(type_name(*inputs)),
                 "write {key: url}");
    return;
  }
  for (const auto& input : inputs->get_object()) {
    if (!input.value().is_string()) {
      problems.add("spec.inputs." + std::string(input.key()),
                   "expected a URL as text, got a " + std::string(type_name(input.value())));
    }
  }
}

void check_retry(const JsonObject& spec, ProblemList& problems) {
  const JsonObject* retry = object_in(spec, "retry");
  if (retry == nullptr) { return; }
  if (const Json* count = retry->if_contains("count"); count != nullptr && !count->is_null()) {
    if (!count->is_int64() || count->get_int64() < 0 || count->get_int64() > 1000) {
      problems.add("spec.retry.count", quote(dump_json(*count)) + " is not a number of retries",
                   "0 to 1000");
    }
  }
  const JsonObject* backoff = object_in(*retry, "backoff");
  const Json* delay = backoff == nullptr ? nullptr : backoff->if_contains("base_delay");
  if (delay != nullptr && !delay->is_null()) {
    const auto parsed =
        delay->is_string() ? parse_duration(delay->get_string().c_str()) : std::nullopt;
    if (!parsed || *parsed < std::chrono::seconds(30)) {
      problems.add("spec.retry.backoff.base_delay",
                   quote(dump_json(*delay)) + " is not a delay of at least 30 s",
                   "write \"30s\", \"2m\", …");
    }
  }
}

}  // namespace

std::string_view to_string(RunState state) {
  for (const auto& [known, text] : kStates) {
    if (known == state) { return text; }
  }
  return "unknown";
}

std::optional<RunState> run_state_from(std::string_view text) {
  for (const auto& [state, known] : kStates) {
    if (known == text) { return state; }
  }
  return std::nullopt;
}

bool is_terminal(RunState state) {
  return state == RunState::completed || state == RunState::error || state == RunState::aborted ||
         state == RunState::skipped;
}

bool may_follow(RunState from, RunState to) {
  if (is_terminal(from)) {
    return from == to;  // terminal states never change
  }
  if (from == RunState::aborting) {  // either the abort works or it fails
    return to == RunState::aborting || to == RunState::aborted || to == RunState::error;
  }
  if (to == RunState::created) { return from == RunState::created || from == RunState::unknown; }
  if (to == RunState::aborted) {  // only by way of aborting, which nobody can skip
    return false;
  }
  if (to == RunState::skipped) {
    return from == RunState::created || from == RunState::pending || from == RunState::unknown;
  }
  return true;
}

Run::Run()
    : document_{{"kind", "run"},
                {"metadata", JsonObject{}},
                {"spec", JsonObject{}},
                {"status", JsonObject{{"state", "created"}}}} {}

Result<Run> Run::from_json(Json document) {
  if (!document.is_object()) {
    return fail(invalid("", "expected a run object, got a " + std::string(type_name(document)),
                        "a run has metadata, spec and status"));
  }
  ProblemList problems;
  JsonObject& given = document.get_object();
  for (const std::string_view name : {"metadata", "spec", "status"}) {
    const Json* value = given.if_contains(name);
    if (value != nullptr && !value->is_null() && !value->is_object()) {
      problems.add(name, "expected an object, got a " + std::string(type_name(*value)));
    }
  }
  for (const std::string_view key : {"uid", "name", "project"}) {
    const Json* value = section(given, "metadata").if_contains(key);
    if (value != nullptr && !value->is_null() && !value->is_string()) {
      problems.add("metadata." + std::string(key),
                   "expected text, got a " + std::string(type_name(*value)));
    }
  }
  METIER_CHECK(std::move(problems).result());
  Run run;
  run.document_ = std::move(given);
  if (string_in(run.document_, "kind").empty()) { run.document_["kind"] = "run"; }
  for (const std::string_view name : {"metadata", "spec", "status"}) {
    ensure_object(run.document_, name);
  }
  return run;
}

std::string Run::uid() const { return std::string(string_in(metadata(), "uid")); }
std::string Run::name() const { return std::string(string_in(metadata(), "name")); }
std::string Run::project() const { return std::string(string_in(metadata(), "project")); }
std::int64_t Run::iteration() const {
  const auto iteration = int_in(metadata(), "iteration");
  return iteration ? *iteration : int_in(metadata(), "iter").value_or(0);
}
RunState Run::state() const {
  const std::string_view text = string_in(status(), "state");
  return text.empty() ? RunState::created : run_state_from(text).value_or(RunState::unknown);
}
void Run::set_uid(std::string_view uid) { metadata()["uid"] = uid; }
void Run::set_name(std::string_view name) { metadata()["name"] = name; }
void Run::set_project(std::string_view project) { metadata()["project"] = project; }
void Run::set_state(RunState state) { status()["state"] = to_string(state); }
std::string Run::label(std::string_view key) const {
  return std::string(string_in(section(metadata(), "labels"), key));
}
void Run::set_label(std::string_view key, std::string_view value) {
  ensure_object(metadata(), "labels")[key] = value;
}

JsonObject& Run::metadata() { return ensure_object(document_, "metadata"); }
JsonObject& Run::spec() { return ensure_object(document_, "spec"); }
JsonObject& Run::status() { return ensure_object(document_, "status"); }
const JsonObject& Run::metadata() const { return section(document_, "metadata"); }
const JsonObject& Run::spec() const { return section(document_, "spec"); }
const JsonObject& Run::status() const { return section(document_, "status"); }

Json Run::to_dict() const {
  JsonObject out = document_;
  for (const std::string_view name : {"metadata", "spec", "status"}) {
    if (JsonObject* part = object_in(out, name)) {
      JsonObject kept;
      for (auto& member : *part) {
        if (!is_empty_value(member.value())) { kept[member.key()] = std::move(member.value()); }
      }
      *part = std::move(kept);
    }
  }
  return out;
}

Result<void> check_integers(const Json& value, std::string_view field) {
  if (value.is_uint64() && value.get_uint64() > static_cast<std::uint64_t>(INT64_MAX)) {
    return fail(invalid(field,
                        quote(std::to_string(value.get_uint64())) + " is larger than 2^63 - 1",
                        "pass it as text"));
  }
  if (value.is_object()) {
    for (const auto& member : value.get_object()) {
      METIER_CHECK(
          check_integers(member.value(), std::string(field) + "." + std::string(member.key())));
    }
  } else if (value.is_array()) {
    for (std::size_t i = 0; i < value.get_array().size(); ++i) {
      METIER_CHECK(
          check_integers(value.get_array()[i], std::string(field) + "[" + std::to_string(i) + "]"));
    }
  }
  return {};
}

Result<void> check_state_thresholds(const JsonObject& thresholds, std::string_view field) {
  ProblemList problems;
  for (const auto& entry : thresholds) {
    const std::string path = std::string(field) + "." + std::string(entry.key());
    if (std::ranges::find(kThresholds, std::string_view(entry.key())) == kThresholds.end()) {
      problems.add(path, unknown_name(entry.key(), nearest(entry.key(), kThresholds)),
                   "one of " + join(kThresholds));
      continue;
    }
    if (entry.value().is_null()) { continue; }
    if (!entry.value().is_string()) {
      problems.add(path, "expected text, got a " + std::string(type_name(entry.value())),
                   "write \"1h\", \"30m\" or \"-1\" for never");
      continue;
    }
    const std::string_view text = entry.value().get_string();
    const auto duration = parse_duration(text);
    if (text != "-1" && (!duration || *duration < std::chrono::minutes(1))) {
      problems.add(path, quote(text) + " is not a duration of at least one minute",
                   "write \"1h\", \"30m\" or \"-1\" for never");
    }
  }
  return std::move(problems).result();
}

Result<void> validate_run(const Run& run) {
  ProblemList problems;
  const JsonObject& spec = run.spec();
  if (auto checked = check_name(run.name(), "metadata.name", "run name"); !checked) {
    problems.add(std::move(checked.error()));
  }
  if (!run.project().empty()) {
    if (auto checked = check_project_name(run.project()); !checked) {
      problems.add(std::move(checked.error()));
    }
  }
  const Json* parameters = spec.if_contains("parameters");
  if (parameters != nullptr && !parameters->is_null()) {
    if (!parameters->is_object()) {
      problems.add("spec.parameters",
                   "expected an object, got a " + std::string(type_name(*parameters)),
                   "write {name: value}");
    } else if (auto checked = check_integers(*parameters, "spec.parameters"); !checked) {
      problems.add(std::move(checked.error()));
    }
  }
  check_inputs(spec, problems);
  const Json* path = spec.if_contains("output_path");
  if (path != nullptr && !path->is_null() && !path->is_string()) {
    problems.add("spec.output_path", "expected text, got a " + std::string(type_name(*path)));
  }
  if (const JsonObject* thresholds = object_in(spec, "state_thresholds")) {
    if (auto checked = check_state_thresholds(*thresholds, "spec.state_thresholds"); !checked) {
      problems.add(std::move(checked.error()));
    }
  }
  check_hyper_parameters(spec, problems);
  check_retry(spec, problems);
  return std::move(problems).result();
}

}  // namespace metier
