// Verbs that look: get, describe, why, kinds; and those that end things: abort, delete.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>

#include "base/clock.h"
#include "base/quantity.h"
#include "cli/deploy.h"
#include "cli/document.h"
#include "cli/follow.h"
#include "cli/names.h"
#include "cli/outcome.h"
#include "cli/parts.h"
#include "net/url.h"

namespace metier::cli {
namespace {

constexpr std::int64_t kRows = 20;
constexpr std::int64_t kMostRows = 1000;

const JsonObject& part(const JsonObject& object, std::string_view key) {
  static const JsonObject empty;
  const auto* found = object_in(object, key);
  return found == nullptr ? empty : *found;
}
Cell text_cell(std::string_view text, Role role = Role::plain) {
  return {std::string(text), {}, role};
}
Cell uid_cell(std::string_view uid) { return {short_uid(uid), std::string(uid), Role::aside}; }

// Items of a list answer, under the first of `keys` that is there.
const JsonArray* items_of(const Json& answer, std::initializer_list<std::string_view> keys) {
  if (answer.is_array()) { return &answer.as_array(); }
  if (!answer.is_object()) { return nullptr; }
  for (const auto key : keys) {
    if (const auto* items = array_in(answer.as_object(), key)) { return items; }
  }
  return nullptr;
}

Result<std::int64_t> limit_of(const Arguments& arguments) {
  if (!arguments.has("--limit")) { return kRows; }
  return parse_count("--limit", arguments.value("--limit"), 1, kMostRows);
}

std::string labels_text(const JsonObject& metadata) {
  std::string out;
  for (const auto& [key, value] : part(metadata, "labels")) {
    out += fmt::format("{}{}={}", out.empty() ? "" : ",", std::string_view(key), value_text(value));
  }
  return out;
}

// -o json and yaml give the REST document unchanged; true when that was done.
bool show_document(Command& command, const Json& answer) {
  if (command.output == "json") { command.screen.json(answer); }
  if (command.output == "yaml") { command.screen.yaml(answer); }
  return command.output == "json" || command.output == "yaml";
}

void show_table(Command& command, Table table, std::size_t name_column, std::string_view noun,
                std::string_view how_to_start) {
  auto& screen = command.screen;
  if (command.output == "name") {
    for (const auto& row : table.rows) {
      screen.out((row[name_column].full.empty() ? row[name_column].text : row[name_column].full) +
                 "\n");
    }
    return;
  }
  if (table.rows.empty()) {
    if (!screen.style().quiet) {
      screen.say(fmt::format("No {} in project {} yet.{}{}", noun, command.project,
                             how_to_start.empty() ? "" : " Start one: ", how_to_start));
    }
    return;
  }
  screen.table(table, !command.arguments.has("--no-headers"));
}

std::vector<Cell> run_row(const JsonObject& run, Time now, bool wide) {
  const auto& metadata = part(run, "metadata");
  const auto& status = part(run, "status");
  const auto state = string_in(status, "state");
  std::vector<Cell> row{text_cell(string_in(metadata, "name")),
                        text_cell(string_in(part(metadata, "labels"), "kind")),
                        text_cell(state, role_of_state(state)),
                        age_cell(string_in(status, "start_time"), now),
                        took_cell(run, now),
                        result_cell(run),
                        uid_cell(string_in(metadata, "uid"))};
  if (!wide && row[5].text.size() > 40) {
    row[5] = {cut(printable(row[5].text), 40), row[5].full.empty() ? row[5].text : row[5].full};
  }
  if (wide) {
    row.insert(row.end(), {text_cell(string_in(metadata, "project")),
                           text_cell(labels_text(metadata)), text_cell(string_in(status, "host"))});
  }
  return row;
}

void show_run(Command& command, const JsonObject& run, const Table& form,
              const std::vector<int>& widths) {
  auto& screen = command.screen;
  if (show_document(command, Json(run))) { return; }
  auto row = run_row(run, system_clock().now(), command.output == "wide");
  if (command.output == "name") {
    screen.out(row[6].full + "\n");
    return;
  }
  for (std::size_t i = 0; screen.style().out_terminal && i + 1 < row.size(); ++i) {
    const int missing = widths[i] - display_width(row[i].text);
    if (missing > 0) { row[i].text.append(static_cast<std::size_t>(missing), ' '); }
  }
  screen.table(Table{form.columns, {std::move(row)}}, false);
}

// Every change of a run as one more row, until the reader goes or Ctrl-C. A row is read when it is told that it changed:
// what is not any more in the list (its filter, its project) is not shown.
Result<int> watch_runs(Command& command, const std::string& query, const Table& form,
                       std::int64_t last) {
  const InterruptCounter counter;
  command.session.interrupted = [&] { return counter.count() > 0; };
  std::vector<int> widths(form.columns.size(), 8);
  for (const auto& row : form.rows) {
    for (std::size_t i = 0; i < row.size(); ++i) {
      widths[i] = std::max(widths[i], display_width(row[i].text));
    }
  }
  while (counter.count() == 0) {
    auto answer = command.session.get(
        fmt::format("/api/metier/v1/events?form=json&project={}&since={}", command.project, last));
    if (!answer) {
      if (answer.error().kind == ErrorKind::cancelled) { break; }
      return fail(std::move(answer).error());
    }
    if (!answer->is_object()) { continue; }
    last = int_in(answer->as_object(), "last").value_or(last);
    std::vector<std::string> changed;
    const auto* events = array_in(answer->as_object(), "events");
    for (const auto& event : events == nullptr ? JsonArray{} : *events) {
      const auto uid = std::string(string_at(event, "data.uid"));
      if (string_at(event, "type") == "dev.metier.run.state" && !uid.empty() &&
          std::ranges::find(changed, uid) == changed.end()) {
        changed.push_back(uid);
      }
    }
    for (const auto& uid : changed) {
      auto found = command.session.get(
          fmt::format("/api/v1/projects/{}/runs?iter=no&uid={}{}", command.project, uid, query));
      if (!found) {
        if (found.error().kind == ErrorKind::cancelled) { break; }  // Ctrl-C: the loop ends too
        return fail(std::move(found).error());
      }
      const auto* runs = items_of(*found, {"runs"});
      for (const auto& run : runs == nullptr ? JsonArray{} : *runs) {
        if (run.is_object()) { show_run(command, run.as_object(), form, widths); }
      }
    }
  }
  command.session.interrupted = nullptr;
  return counter.count() > 0 ? 130 : 0;
}

Result<int> get_runs(Command& command) {
  const auto& arguments = command.arguments;
  const bool watch = arguments.has("--watch");
  std::int64_t seen = 0;
  if (watch) {  // asked first: a change between the list and the first event is not lost
    METIER_TRY(now, command.session.get("/api/metier/v1/events?form=json&wait=false"));
    seen = now.is_object() ? int_in(now.as_object(), "last").value_or(0) : 0;
  }
  METIER_TRY(limit, limit_of(arguments));
  std::string query;
  for (const auto& state : arguments.values("--state")) {
    query += "&state=" + net::percent_encode(state);
  }
  for (const auto& label : arguments.values("--label")) {
    query += "&label=" + net::percent_encode(label);
  }
  if (arguments.has("--kind")) {
    query += "&label=" + net::percent_encode("kind=" + arguments.value("--kind"));
  }
  if (arguments.has("--name")) {
    query += "&name=" + net::percent_encode(arguments.value("--name"));
  }
  if (arguments.has("--since")) {
    const auto since = parse_duration(arguments.value("--since"));
    if (!since) {
      return fail(invalid("--since", quote(arguments.value("--since")) + " is not a duration",
                          "write 30m, 12h or 1d"));
    }
    query += "&start_time_from=" + net::percent_encode(to_iso(system_clock().now() - *since));
  } else {
    query += kAllRuns;
  }
  METIER_TRY(answer, command.session.get(fmt::format(
                         "/api/v1/projects/{}/runs?iter=no&sort=yes&page=1&page-size={}{}",
                         command.project, limit, query)));
  if (!watch && show_document(command, answer)) { return 0; }
  const auto* runs = items_of(answer, {"runs"});
  const bool wide = command.output == "wide";
  Table table{{{"NAME"}, {"KIND", 3}, {"STATE"}, {"AGE", 2}, {"TOOK", 4}, {"RESULT", 1}, {"UID"}},
              {}};
  if (wide) {
    table.columns.insert(table.columns.end(), {{"PROJECT", 5}, {"LABELS", 7}, {"HOST", 6}});
  }
  const auto now = system_clock().now();
  for (const auto& item : runs == nullptr ? JsonArray{} : *runs) {
    if (item.is_object()) { table.rows.push_back(run_row(item.as_object(), now, wide)); }
  }
  if (watch) {
    if (command.output == "json" || command.output == "yaml") {
      for (const auto& item : runs == nullptr ? JsonArray{} : *runs) {
        show_document(command, item);
      }
    } else {
      auto copy = table;
      show_table(command, std::move(copy), 6, "runs", "metier run FILE");
    }
    return watch_runs(command, query, table, seen);
  }
  const auto shown = static_cast<std::int64_t>(table.rows.size());
  show_table(command, std::move(table), 6, "runs", "metier run FILE");
  if (shown == limit && command.screen.style().err_terminal && !command.screen.style().quiet) {
    command.screen.say(command.screen.paint(
        Role::aside, fmt::format("{} in project {} {} more: --limit 50, --state error, --since 1d",
                                 shown, command.project, command.screen.dot())));
  }
  return 0;
}

Result<int> get_functions(Command& command) {
  METIER_TRY(limit, limit_of(command.arguments));
  std::string query;
  if (command.arguments.has("--name")) {
    query += "&name=" + net::percent_encode(command.arguments.value("--name"));
  }
  if (command.arguments.has("--kind")) {
    query += "&kind=" + net::percent_encode(command.arguments.value("--kind"));
  }
  METIER_TRY(answer, command.session.get(fmt::format(
                         "/api/v1/projects/{}/functions?tag=latest&page=1&page-size={}{}",
                         command.project, limit, query)));
  if (show_document(command, answer)) { return 0; }
  const auto* functions = items_of(answer, {"funcs", "functions"});
  Table table{
      {{"NAME"}, {"KIND"}, {"TAG", 2}, {"STATE", 3}, {"ADDRESS", 2}, {"UPDATED", 1}, {"HASH", 4}},
      {}};
  const auto now = system_clock().now();
  for (const auto& item : functions == nullptr ? JsonArray{} : *functions) {
    if (!item.is_object()) { continue; }
    const auto& metadata = part(item.as_object(), "metadata");
    table.rows.push_back(
        {text_cell(string_in(metadata, "name")), text_cell(string_in(item.as_object(), "kind")),
         text_cell(string_in(metadata, "tag")),
         text_cell(string_in(part(item.as_object(), "status"), "state"),
                   role_of_state(string_in(part(item.as_object(), "status"), "state"))),
         text_cell(string_in(part(item.as_object(), "status"), "address")),
         age_cell(string_in(metadata, "updated"), now), uid_cell(string_in(metadata, "hash"))});
  }
  show_table(command, std::move(table), 0, "functions", "metier run FILE --kind job");
  return 0;
}

Result<int> get_artifacts(Command& command) {
  METIER_TRY(limit, limit_of(command.arguments));
  std::string query;
  if (command.arguments.has("--name")) {
    query += "&name=" + net::percent_encode(command.arguments.value("--name"));
  }
  if (command.arguments.has("--kind")) {
    query += "&kind=" + net::percent_encode(command.arguments.value("--kind"));
  }
  for (const auto& label : command.arguments.values("--label")) {
    query += "&label=" + net::percent_encode(label);
  }
  METIER_TRY(answer,
             command.session.get(fmt::format("/api/v2/projects/{}/artifacts?tag=latest&limit={}{}",
                                             command.project, limit, query)));
  if (show_document(command, answer)) { return 0; }
  const auto* artifacts = items_of(answer, {"artifacts"});
  Table table{{{"NAME"}, {"KIND"}, {"SIZE", 2, true}, {"AGE", 3}, {"WHERE", 1}}, {}};
  if (command.output == "wide") {
    table.columns.insert(table.columns.end(), {{"PRODUCER", 4}, {"HASH", 5}});
  }
  const auto now = system_clock().now();
  for (const auto& item : artifacts == nullptr ? JsonArray{} : *artifacts) {
    if (!item.is_object()) { continue; }
    const auto& metadata = part(item.as_object(), "metadata");
    const auto& spec = part(item.as_object(), "spec");
    const auto kind = string_in(item.as_object(), "kind");
    const auto size = int_in(spec, "size");
    const auto key = string_in(spec, "db_key", string_in(metadata, "key"));
    const auto folder = kind == "model" ? "models" : kind == "dataset" ? "datasets" : "artifacts";
    std::vector<Cell> row{
        text_cell(key),
        text_cell(kind.empty() ? "artifact" : kind),
        {size ? human_bytes(*size) : "", size ? std::to_string(*size) : ""},
        age_cell(string_in(metadata, "updated", string_in(metadata, "created")), now),
        text_cell(fmt::format("store://{}/{}/{}", folder, command.project, key))};
    if (command.output == "wide") {
      row.insert(row.end(), {text_cell(string_in(part(spec, "producer"), "uri")),
                             uid_cell(string_in(metadata, "hash"))});
    }
    table.rows.push_back(std::move(row));
  }
  show_table(command, std::move(table), 0, "artifacts", "");
  return 0;
}

Result<int> get_projects(Command& command) {
  METIER_TRY(answer, command.session.get("/api/v1/projects?format=full"));
  if (show_document(command, answer)) { return 0; }
  const auto* projects = items_of(answer, {"projects"});
  Table table{{{"NAME"}, {"STATE"}, {"AGE", 1}, {"DESCRIPTION", 2}}, {}};
  const auto now = system_clock().now();
  for (const auto& item : projects == nullptr ? JsonArray{} : *projects) {
    if (item.is_string()) {
      table.rows.push_back({text_cell(std::string_view(item.as_string())), {}, {}, {}});
    }
    if (!item.is_object()) { continue; }
    const auto& metadata = part(item.as_object(), "metadata");
    table.rows.push_back({text_cell(string_in(metadata, "name")),
                          text_cell(string_in(part(item.as_object(), "status"), "state", "online")),
                          age_cell(string_in(metadata, "created"), now),
                          text_cell(string_in(part(item.as_object(), "spec"), "description"))});
  }
  show_table(command, std::move(table), 0, "projects", "");
  return 0;
}

Result<int> get_pods(Command& command) {
  const bool document = command.output == "json" || command.output == "yaml";
  METIER_TRY(answer, command.session.get(
                         "/api/metier/v1/pods?project=" + net::percent_encode(command.project) +
                         (document ? "&format=full" : "")));
  if (show_document(command, answer)) { return 0; }
  const auto* pods = items_of(answer, {"pods", "items"});
  Table table{{{"NAME"}, {"PHASE"}, {"REASON", 2}, {"RUN", 1}, {"AGE", 3}, {"ADDRESS", 4}}, {}};
  const auto now = system_clock().now();
  for (const auto& item : pods == nullptr ? JsonArray{} : *pods) {
    if (!item.is_object()) { continue; }
    const auto& pod = item.as_object();
    const auto& metadata = part(pod, "metadata");
    const auto& status = part(pod, "status");
    const auto& labels = part(metadata, "labels");
    const auto phase = string_in(status, "phase", string_in(pod, "phase"));
    const auto role = phase == "Succeeded" ? Role::good
                      : phase == "Failed"  ? Role::bad
                      : phase == "Running" ? Role::live
                                           : Role::care;
    table.rows.push_back(
        {text_cell(string_in(metadata, "name", string_in(pod, "name"))), text_cell(phase, role),
         text_cell(string_in(status, "reason", string_in(pod, "reason"))),
         uid_cell(string_in(labels, "mlrun/uid", string_in(pod, "run"))),
         age_cell(string_in(status, "startTime",
                            string_in(metadata, "creationTimestamp", string_in(pod, "started"))),
                  now),
         text_cell(string_in(status, "podIP", string_in(pod, "address")))});
  }
  show_table(command, std::move(table), 0, "pods", "");
  return 0;
}

Result<int> get_environments(Command& command) {
  METIER_TRY(answer, command.session.get("/api/metier/v1/environments"));
  if (show_document(command, answer)) { return 0; }
  const auto* environments = items_of(answer, {"environments", "items"});
  Table table{
      {{"NAME"}, {"PYTHON"}, {"STATE", 3}, {"PACKAGES", 2, true}, {"SIZE", 4, true}, {"WHERE", 5}},
      {}};
  for (const auto& item : environments == nullptr ? JsonArray{} : *environments) {
    if (!item.is_object()) { continue; }
    const auto& object = item.as_object();
    const auto* list = array_in(object, "requirements");
    const auto packages =
        int_in(object, "packages")
            .value_or(list == nullptr ? 0 : static_cast<std::int64_t>(list->size()));
    const auto size = int_in(object, "size");
    table.rows.push_back({text_cell(string_in(object, "name", string_in(object, "id"))),
                          text_cell(string_in(object, "python", string_in(object, "version"))),
                          text_cell(string_in(object, "state", "ready")),
                          {std::to_string(packages)},
                          {size ? human_bytes(*size) : ""},
                          text_cell(string_in(object, "interpreter", string_in(object, "path")))});
  }
  show_table(command, std::move(table), 0, "environments", "");
  return 0;
}

void say_pair(Screen& screen, std::string_view name, std::string_view value) {
  if (!value.empty()) { screen.out(fmt::format("  {:<12} {}\n", name, value)); }
}

void describe_run(Command& command, const JsonObject& run) {
  auto& screen = command.screen;
  const auto& metadata = part(run, "metadata");
  const auto& spec = part(run, "spec");
  const auto& status = part(run, "status");
  const auto now = system_clock().now();
  const auto state = string_in(status, "state");
  screen.out(fmt::format("{}  {}  {}\n", screen.paint_out(Role::name, string_in(metadata, "name")),
                         string_in(part(metadata, "labels"), "kind"),
                         screen.paint_out(role_of_state(state), state)));
  say_pair(screen, "uid", string_in(metadata, "uid"));
  say_pair(screen, "project", string_in(metadata, "project"));
  say_pair(screen, "function", string_in(spec, "function"));
  say_pair(screen, "handler", string_in(spec, "handler"));
  say_pair(screen, "started", string_in(status, "start_time"));
  say_pair(screen, "ended", string_in(status, "end_time"));
  say_pair(screen, "took", took_cell(run, now).text);
  say_pair(screen, "reason", string_in(status, "reason"));
  say_pair(screen, "status", printable(string_in(status, "status_text")));
  say_pair(screen, "error", printable(string_in(status, "error").substr(0, 500)));
  say_pair(screen, "host", string_in(status, "host"));
  say_pair(screen, "labels", labels_text(metadata));
  for (const auto& [title, values] : {std::pair{"parameters", &part(spec, "parameters")},
                                      std::pair{"inputs", &part(spec, "inputs")}}) {
    if (values->empty()) { continue; }
    screen.out(std::string(title) + "\n");
    for (const auto& [key, value] : *values) {
      screen.out(fmt::format("  {} = {}\n", std::string_view(key), printable(value_text(value))));
    }
  }
  if (const auto* conditions = array_in(status, "conditions");
      conditions != nullptr && !conditions->empty()) {
    screen.out("conditions\n");
    for (const auto& condition : *conditions) {
      if (condition.is_object()) {
        screen.out(fmt::format("  {} {}  {}\n", screen.paint_out(Role::care, "!"),
                               string_in(condition.as_object(), "type"),
                               printable(string_in(condition.as_object(), "message"))));
      } else {
        screen.out("  ! " + printable(value_text(condition)) + "\n");
      }
    }
  }
  show_parts(command, std::string(string_in(metadata, "uid")));
  auto timeline = command.session.get(fmt::format("/api/metier/v1/runs/{}/timeline?project={}",
                                                  string_in(metadata, "uid"), command.project));
  if (const auto* phases =
          timeline && timeline->is_object() ? array_in(timeline->as_object(), "phases") : nullptr;
      phases != nullptr && !phases->empty()) {
    screen.out("timeline\n");
    for (const auto& phase : *phases) {
      if (!phase.is_object()) { continue; }
      const auto* ms = phase.as_object().if_contains("ms");
      const double value = ms == nullptr ? 0
                           : ms->is_double()
                               ? ms->as_double()
                               : static_cast<double>(int_in(phase.as_object(), "ms").value_or(0));
      screen.out(fmt::format("  {:<12} {}\n", string_in(phase.as_object(), "name"),
                             human_duration(Duration(static_cast<std::int64_t>(value * 1000)))));
    }
    show_parts_in_time(command, timeline->as_object());
  }
  show_results(command, run);
}

void describe_function(Command& command, const JsonObject& function) {
  auto& screen = command.screen;
  const auto& metadata = part(function, "metadata");
  const auto& spec = part(function, "spec");
  // Deployed or only stored.
  const auto view = deployment(command, std::string(string_in(metadata, "name")));
  screen.out(fmt::format("{}  {}  function\n",
                         screen.paint_out(Role::name, string_in(metadata, "name")),
                         string_in(function, "kind")));
  if (view) { show_deployment(command, *view); }
  say_pair(screen, "project", string_in(metadata, "project"));
  say_pair(screen, "tag", string_in(metadata, "tag"));
  say_pair(screen, "hash", string_in(metadata, "hash"));
  say_pair(screen, "updated", string_in(metadata, "updated"));
  say_pair(screen, "image", string_in(spec, "image"));
  say_pair(screen, "command", string_in(spec, "command"));
  say_pair(screen, "file", string_in(part(spec, "build"), "origin_filename"));
  say_pair(screen, "handler", string_in(spec, "default_handler"));
  for (const char* key : {"resources", "env", "volumes", "volume_mounts"}) {
    if (const auto* value = spec.if_contains(key); value != nullptr && !is_empty_value(*value)) {
      say_pair(screen, key, printable(dump_json(*value)));
    }
  }
}

bool ask(Command& command, const std::string& question) {
  if (command.arguments.has("--yes")) { return true; }
  command.screen.say(question + " [y/N]");
  std::array<char, 64> line{};
  const auto n = ::read(STDIN_FILENO, line.data(), line.size());
  return n > 0 && (line[0] == 'y' || line[0] == 'Y');
}

}  // namespace

Result<int> get_main(Command& command) {
  const auto& noun = command.arguments.words()[0];
  if (noun == "runs" || noun == "run") { return get_runs(command); }
  if (noun == "functions" || noun == "function") { return get_functions(command); }
  if (noun == "artifacts" || noun == "artifact") { return get_artifacts(command); }
  if (noun == "projects" || noun == "project") { return get_projects(command); }
  if (noun == "pods" || noun == "pod") { return get_pods(command); }
  if (noun == "environments" || noun == "environment") { return get_environments(command); }
  const std::vector<std::string> nouns{"runs", "functions", "artifacts",
                                       "pods", "projects",  "environments"};
  const auto close = nearest(noun, nouns);
  return fail(
      invalid("get", quote(noun) + " is unknown" + (close ? ", did you mean " + *close + "?" : ""),
              noun == "schedules" ? std::string(absent_verb("schedule"))
                                  : "runs, functions, artifacts, pods, projects or environments"));
}

Result<int> describe_main(Command& command) {
  const auto& word = command.arguments.words()[0];
  auto run = resolve_run(command, word);
  if (run) {
    if (!show_document(command, *run)) { describe_run(command, *run); }
    return 0;
  }
  if (run.error().kind != ErrorKind::not_found) { return fail(std::move(run).error()); }
  auto function = resolve_function(command, word);
  if (!function) {
    return fail(function.error().kind == ErrorKind::not_found ? std::move(run).error()
                                                              : std::move(function).error());
  }
  if (!show_document(command, *function)) { describe_function(command, *function); }
  return 0;
}

Result<int> why_main(Command& command) {
  const auto& word = command.arguments.words()[0];
  auto found = resolve_run(command, word);
  if (!found && found.error().kind == ErrorKind::not_found) {
    if (const auto view = deployment(command, word)) { return why_deployment(command, *view); }
  }
  METIER_TRY(run, std::move(found));
  const std::string uid(string_in(part(run, "metadata"), "uid"));
  METIER_TRY(answer, command.session.get(fmt::format("/api/metier/v1/runs/{}/why?project={}", uid,
                                                     command.project)));
  if (show_document(command, answer)) { return 0; }
  if (!answer.is_object()) {
    return fail(ErrorKind::internal, "the server's answer holds no cause");
  }
  auto& screen = command.screen;
  const auto& why = answer.as_object();
  screen.out(printable(string_in(why, "sentence")) + "\n");
  if (const auto* facts = array_in(why, "facts"); facts != nullptr && !facts->empty()) {
    screen.out("\n");
    for (const auto& fact : *facts) {
      if (!fact.is_array() || fact.as_array().size() < 2) { continue; }
      const auto& row = fact.as_array();
      const auto note = row.size() > 2 ? printable(value_text(row[2])) : std::string();
      screen.out(fmt::format("  {:<12} {}{}\n", printable(value_text(row[0])),
                             printable(value_text(row[1])),
                             note.empty() ? "" : "   " + screen.paint_out(Role::aside, note)));
    }
  }
  if (const auto* fixes = array_in(why, "fixes"); fixes != nullptr && !fixes->empty()) {
    screen.out("\n");
    for (const auto& fix : *fixes) {
      if (fix.is_array() && fix.as_array().size() >= 2) {
        const auto command = printable(value_text(fix.as_array()[1]));
        const auto text = printable(value_text(fix.as_array()[0]));
        screen.out(command.empty() ? fmt::format("  {}\n", text)
                                   : fmt::format("  {:<22} {}\n", text, command));
      }
    }
  }
  if (const auto code = string_in(why, "code"); !code.empty()) {
    screen.out(screen.paint_out(Role::aside,
                                fmt::format("reason {0} {1} metier help {0}", code, screen.dot())) +
               "\n");
  }
  return 0;
}

Result<int> abort_main(Command& command) {
  METIER_TRY(run, resolve_run(command, command.arguments.words()[0]));
  const std::string uid(string_in(part(run, "metadata"), "uid"));
  const std::string name(string_in(part(run, "metadata"), "name"));
  METIER_CHECK(abort_run(command, command.project, uid));
  // The answer comes when the abort has begun; it is told when the run has ended.
  METIER_TRY(size, command.session.get(
                       fmt::format("/api/v1/projects/{}/logs/{}/size", command.project, uid)));
  auto offset = static_cast<std::uint64_t>(
      size.is_object() ? int_in(size.as_object(), "size").value_or(0) : 0);
  std::string state;
  for (int i = 0; i < 100; ++i) {
    METIER_TRY(answer, command.session.send(
                           "GET", fmt::format("/api/v1/projects/{}/logs/{}?offset={}&size=65536",
                                              command.project, uid, offset)));
    state = net::header(answer.headers, "x-mlrun-run-state");
    offset += answer.body.size();
    if (state == "aborted" || state == "completed" || state == "error") { break; }
  }
  if (!command.screen.style().quiet) {
    command.screen.say(fmt::format(
        "{} {} {}  {}", command.screen.paint(Role::good, command.screen.glyph(Role::good)), name,
        state, short_uid(uid)));
  }
  if (state == "aborted") { return 0; }
  return fail(Error{.kind = ErrorKind::conflict,
                    .message = fmt::format("run {} is {}, not aborted", short_uid(uid), state),
                    .fix = "metier why " + short_uid(uid)});
}

Result<int> delete_main(Command& command) {
  const auto& word = command.arguments.words()[0];
  auto run = resolve_run(command, word);
  if (!run && run.error().kind != ErrorKind::not_found) { return fail(std::move(run).error()); }
  if (run) {
    const std::string uid(string_in(part(*run, "metadata"), "uid"));
    const auto state = string_in(part(*run, "status"), "state");
    if (state == "running" || state == "pending" || state == "aborting" || state == "created") {
      if (!command.arguments.has("--yes") && ::isatty(STDIN_FILENO) == 0) {
        return fail(invalid("delete", fmt::format("run {} is {}", short_uid(uid), state),
                            "abort it first: metier abort " + short_uid(uid) + "; or give --yes"));
      }
      if (!ask(command, fmt::format("run {} is {}: abort and delete it?", short_uid(uid), state))) {
        return 4;
      }
      METIER_CHECK(abort_run(command, command.project, uid));
      for (int i = 0; i < 100; ++i) {
        METIER_TRY(answer, command.session.send(
                               "GET", fmt::format("/api/v1/projects/{}/logs/{}?offset=0&size=1",
                                                  command.project, uid)));
        if (net::header(answer.headers, "x-mlrun-run-state") == "aborted") { break; }
      }
    }
    METIER_CHECK(command.session.call(
        "DELETE", fmt::format("/api/v1/projects/{}/runs/{}", command.project, uid), nullptr));
    if (!command.screen.style().quiet) {
      command.screen.say(
          fmt::format("{} deleted run {}", command.screen.glyph(Role::good), short_uid(uid)));
    }
    return 0;
  }
  auto function = resolve_function(command, word);
  if (!function) {
    return fail(function.error().kind == ErrorKind::not_found ? std::move(run).error()
                                                              : std::move(function).error());
  }
  if (!command.arguments.has("--yes") && ::isatty(STDIN_FILENO) == 0) {
    return fail(invalid("delete", "this deletes function " + quote(word) + " with all its versions",
                        "give --yes"));
  }
  if (!ask(command, "delete function " + word + " with all its versions?")) { return 4; }
  METIER_CHECK(command.session.call(
      "DELETE",
      fmt::format("/api/v1/projects/{}/functions/{}", command.project, net::percent_encode(word)),
      nullptr));
  if (!command.screen.style().quiet) {
    command.screen.say(
        fmt::format("{} deleted function {}", command.screen.glyph(Role::good), word));
  }
  return 0;
}

Result<int> kinds_main(Command& command) {
  const bool check = command.arguments.has("--check");
  std::string wanted;
  if (!command.arguments.words().empty()) {
    wanted = command.arguments.words()[0];
    METIER_CHECK(check_kind("kinds", wanted));
  }
  const auto began = std::chrono::steady_clock::now();
  METIER_TRY(answer, command.session.get(std::string("/api/metier/v1/kinds") +
                                         (check ? "?check=true" : "")));
  const bool shown = show_document(command, answer);
  const auto* kinds = items_of(answer, {"kinds", "items"});
  if (kinds == nullptr) { return fail(ErrorKind::internal, "the server's answer holds no kinds"); }
  auto& screen = command.screen;
  Table table;
  table.columns = check ? std::vector<Column>{{"kind"}, {"usable"}, {"with", 2}, {"note", 1}}
                        : std::vector<Column>{{"kind"}, {"here", 1}, {"what it is for"}};
  int usable = 0;
  int total = 0;
  bool wanted_usable = true;
  for (const auto& item : *kinds) {
    if (!item.is_object()) { continue; }
    const auto& kind = item.as_object();
    const auto name = string_in(kind, "name", string_in(kind, "kind"));
    if (!wanted.empty() && name != wanted) { continue; }
    const auto* flag = kind.if_contains("usable");
    const bool in_part = flag != nullptr && flag->is_string() && flag->as_string() == "part";
    const bool yes =
        in_part || (flag != nullptr ? (flag->is_bool() && flag->as_bool()) ||
                                          (flag->is_string() && flag->as_string() == "yes")
                                    : bool_in(kind, "available", true));
    ++total;
    usable += yes ? 1 : 0;
    wanted_usable = yes;
    const auto role = in_part ? Role::care : yes ? Role::good : Role::bad;
    const auto word = screen.glyph(role) + (in_part ? " part" : yes ? " yes" : " no");
    const auto note =
        string_in(kind, "note", string_in(kind, "reason", string_in(kind, "unavailable")));
    if (check) {
      table.rows.push_back({text_cell(name),
                            {word,
                             in_part ? "part"
                             : yes   ? "yes"
                                     : "no",
                             role},
                            text_cell(string_in(kind, "with")),
                            text_cell(note)});
    } else {
      table.rows.push_back({text_cell(name), text_cell(yes ? "yes" : "no", role),
                            text_cell(string_in(kind, "summary"))});
    }
  }
  if (!shown && command.output == "name") {
    for (const auto& row : table.rows) { screen.out(row[0].text + "\n"); }
  } else if (!shown) {
    screen.table(table, !command.arguments.has("--no-headers"));
    if (check && screen.style().err_terminal && !screen.style().quiet) {
      const auto took =
          std::chrono::duration_cast<Duration>(std::chrono::steady_clock::now() - began);
      screen.say(fmt::format("\n{} of {} usable here {} {}", usable, total, screen.dot(),
                             human_duration(took)));
    }
  }
  return check && !wanted.empty() && !wanted_usable ? 5 : 0;
}

}  // namespace metier::cli
