#include "engine/spark_history.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <optional>
#include <vector>

#include "base/clock.h"
#include "base/json.h"
#include "base/quantity.h"
#include "base/text.h"

namespace metier {
namespace {

struct Stage {
  std::string name;
  std::int64_t attempt = 0, tasks = 0, done = 0, failed = 0, killed = 0;
  std::int64_t submitted = 0, completed = 0;
  std::int64_t run_ms = 0, gc_ms = 0, cpu_ns = 0, read = 0, shuffle_read = 0, shuffle_written = 0,
               spilled = 0;
  std::string reason;
  bool ended = false;
};
struct Job {
  std::int64_t submitted = 0, completed = 0;
  std::vector<std::int64_t> stages;
  std::string result, error, name;
};
struct Executor {
  std::string host, removed;
  std::int64_t cores = 0, added = 0, gone = 0, tasks = 0, failed = 0, run_ms = 0, gc_ms = 0;
};
struct Application {
  std::string name, id, spark;
  std::int64_t started = 0, ended = 0;
  std::map<std::int64_t, Job> jobs;
  std::map<std::pair<std::int64_t, std::int64_t>, Stage> stages;  // stage, attempt
  std::map<std::string, Executor> executors;
  std::size_t events = 0;
};

std::int64_t number(const JsonObject& event, std::string_view name) {
  return int_in(event, name).value_or(0);
}
const JsonObject& object_of(const JsonObject& event, std::string_view name) {
  static const JsonObject none;
  const JsonObject* found = object_in(event, name);
  return found == nullptr ? none : *found;
}

Stage& stage_of(Application& app, const JsonObject& info) {
  const auto attempt = number(info, "Stage Attempt ID");
  Stage& stage = app.stages[{number(info, "Stage ID"), attempt}];
  stage.attempt = attempt;
  stage.name = string_in(info, "Stage Name", stage.name);
  stage.tasks = std::max(stage.tasks, number(info, "Number of Tasks"));
  if (const auto at = number(info, "Submission Time"); at > 0) { stage.submitted = at; }
  return stage;
}

void task_ended(Application& app, const JsonObject& event) {
  Stage& stage = app.stages[{number(event, "Stage ID"), number(event, "Stage Attempt ID")}];
  const JsonObject& metrics = object_of(event, "Task Metrics");
  Executor& executor =
      app.executors[std::string(string_in(object_of(event, "Task Info"), "Executor ID"))];
  const auto reason = string_in(object_of(event, "Task End Reason"), "Reason");
  ++executor.tasks;
  if (reason == "Success") {
    ++stage.done;
  } else if (reason == "TaskKilled") {
    ++stage.killed;
  } else {
    ++stage.failed;
    ++executor.failed;
  }
  const auto run = number(metrics, "Executor Run Time");
  const auto gc = number(metrics, "JVM GC Time");
  stage.run_ms += run;
  executor.run_ms += run;
  stage.gc_ms += gc;
  executor.gc_ms += gc;
  stage.cpu_ns += number(metrics, "Executor CPU Time");
  stage.read += number(object_of(metrics, "Input Metrics"), "Bytes Read");
  const JsonObject& shuffled = object_of(metrics, "Shuffle Read Metrics");
  stage.shuffle_read +=
      number(shuffled, "Remote Bytes Read") + number(shuffled, "Local Bytes Read");
  stage.shuffle_written +=
      number(object_of(metrics, "Shuffle Write Metrics"), "Shuffle Bytes Written");
  stage.spilled += number(metrics, "Disk Bytes Spilled");
}

void take(Application& app, const JsonObject& event) {
  const auto what = string_in(event, "Event");
  ++app.events;
  if (what == "SparkListenerLogStart") {
    app.spark = string_in(event, "Spark Version");
  } else if (what == "SparkListenerApplicationStart") {
    app.name = string_in(event, "App Name");
    app.id = string_in(event, "App ID");
    app.started = number(event, "Timestamp");
  } else if (what == "SparkListenerApplicationEnd") {
    app.ended = number(event, "Timestamp");
  } else if (what == "SparkListenerJobStart") {
    Job& job = app.jobs[number(event, "Job ID")];
    job.submitted = number(event, "Submission Time");
    if (const JsonArray* infos = array_in(event, "Stage Infos")) {
      for (const Json& info : *infos) {
        if (!info.is_object()) { continue; }
        job.stages.push_back(number(info.get_object(), "Stage ID"));
        job.name = string_in(info.get_object(), "Stage Name");  // the last is the result's
      }
    }
  } else if (what == "SparkListenerJobEnd") {
    Job& job = app.jobs[number(event, "Job ID")];
    job.completed = number(event, "Completion Time");
    const JsonObject& result = object_of(event, "Job Result");
    job.result = string_in(result, "Result");
    job.error = string_in(object_of(result, "Exception"), "Message");
  } else if (what == "SparkListenerStageSubmitted") {
    stage_of(app, object_of(event, "Stage Info"));
  } else if (what == "SparkListenerStageCompleted") {
    const JsonObject& info = object_of(event, "Stage Info");
    Stage& stage = stage_of(app, info);
    stage.ended = true;
    stage.completed = number(info, "Completion Time");
    stage.reason = string_in(info, "Failure Reason");
  } else if (what == "SparkListenerTaskEnd") {
    task_ended(app, event);
  } else if (what == "SparkListenerExecutorAdded") {
    Executor& executor = app.executors[std::string(string_in(event, "Executor ID"))];
    const JsonObject& info = object_of(event, "Executor Info");
    executor.host = string_in(info, "Host");
    executor.cores = number(info, "Total Cores");
    executor.added = number(event, "Timestamp");
  } else if (what == "SparkListenerExecutorRemoved") {
    Executor& executor = app.executors[std::string(string_in(event, "Executor ID"))];
    executor.gone = number(event, "Timestamp");
    executor.removed = string_in(event, "Removed Reason");
  } else {
    --app.events;
  }
}

std::string escaped(std::string_view text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '<': out += "&lt;"; break;
      case '>': out += "&gt;"; break;
      case '&': out += "&amp;"; break;
      case '"': out += "&quot;"; break;
      default: out += c;
    }
  }
  return out;
}

std::string first_line(const std::string& text) { return text.substr(0, text.find('\n')); }
std::string length(std::int64_t from, std::int64_t to) {
  return from > 0 && to >= from ? human_duration(std::chrono::milliseconds(to - from)) : "";
}
std::string bytes(std::int64_t amount) { return amount > 0 ? human_bytes(amount) : ""; }
std::string ms(std::int64_t amount) {
  return amount > 0 ? human_duration(std::chrono::milliseconds(amount)) : "";
}

using Row = std::vector<std::string>;
void add_table(std::string& out, std::string_view title, const Row& header,
               const std::vector<Row>& rows) {
  out += fmt::format("<h2>{} ({})</h2>\n<table><tr>", title, rows.size());
  for (const auto& name : header) { out += fmt::format("<th>{}</th>", name); }
  out += "</tr>\n";
  for (const Row& row : rows) {
    out += "<tr>";
    for (const auto& cell : row) { out += fmt::format("<td>{}</td>", escaped(cell)); }
    out += "</tr>\n";
  }
  out += "</table>\n";
}

std::string page_of(const Application& app, std::string_view name) {
  std::string out = fmt::format(
      "<!doctype html><html><head><meta charset=\"utf-8\"><title>Spark: {0}</title><style>"
      "body{{font:14px sans-serif;margin:2em}}table{{border-collapse:collapse}}"
      "td,th{{border:1px solid #ccc;padding:.2em .6em;text-align:left}}th{{background:#eee}}"
      "</style></head><body>\n<h1>{0}</h1>\n<p>Spark {1}, application {2}, {3}{4}</p>\n",
      escaped(name), escaped(app.spark), escaped(app.id), escaped(app.name),
      app.ended > 0 ? ", took " + length(app.started, app.ended)
                    : ", its log ends before the application did");
  std::vector<Row> jobs;
  for (const auto& [id, job] : app.jobs) {
    std::string stages;
    for (const auto stage : job.stages) {
      stages += (stages.empty() ? "" : ", ") + std::to_string(stage);
    }
    jobs.push_back({std::to_string(id), job.name,
                    job.result == "JobSucceeded" ? "completed"
                    : job.result.empty()         ? "not ended"
                                                 : "failed",
                    length(job.submitted, job.completed), stages, first_line(job.error)});
  }
  add_table(out, "Jobs", {"job", "what", "state", "took", "stages", "error"}, jobs);
  std::vector<Row> stages;
  for (const auto& [key, stage] : app.stages) {
    std::string tasks = fmt::format("{}/{}", stage.done, stage.tasks);
    if (stage.failed > 0) { tasks += fmt::format(", {} failed", stage.failed); }
    if (stage.killed > 0) { tasks += fmt::format(", {} killed", stage.killed); }
    stages.push_back(
        {key.second > 0 ? fmt::format("{}.{}", key.first, key.second) : std::to_string(key.first),
         stage.name,
         !stage.ended           ? "not ended"
         : stage.reason.empty() ? "completed"
                                : "failed",
         length(stage.submitted, stage.completed), tasks, ms(stage.run_ms),
         ms(stage.cpu_ns / 1'000'000), ms(stage.gc_ms), bytes(stage.read),
         bytes(stage.shuffle_read), bytes(stage.shuffle_written), bytes(stage.spilled),
         first_line(stage.reason)});
  }
  add_table(out, "Stages",
            {"stage", "what", "state", "took", "tasks", "run time", "cpu", "gc", "input",
             "shuffle read", "shuffle written", "spilled", "error"},
            stages);
  std::vector<Row> executors;
  for (const auto& [id, executor] : app.executors) {
    const auto end = executor.gone > 0 ? executor.gone : app.ended;
    executors.push_back(
        {id, executor.host, std::to_string(executor.cores), length(executor.added, end),
         executor.failed > 0 ? fmt::format("{}, {} failed", executor.tasks, executor.failed)
                             : std::to_string(executor.tasks),
         ms(executor.run_ms), ms(executor.gc_ms), first_line(executor.removed)});
  }
  add_table(out, "Executors",
            {"executor", "host", "cores", "lived", "tasks", "run time", "gc", "removed"},
            executors);
  return out + "</body></html>\n";
}

// The codec of spark.eventLog.compression.codec that wrote these bytes, by the first of them; empty: none of Spark's.
std::string_view codec_of(std::string_view bytes) {
  using namespace std::string_view_literals;
  for (const auto& [magic, codec] :
       {std::pair("\x28\xb5\x2f\xfd"sv, "zstd"sv), std::pair("LZ4Block"sv, "lz4"sv),
        std::pair("\x82SNAPPY\0"sv, "snappy"sv), std::pair("ZV"sv, "lzf"sv)}) {
    if (bytes.starts_with(magic)) { return codec; }
  }
  return {};
}

}  // namespace

Result<std::string> spark_history_page(std::string_view events, std::string_view name) {
  Application app;
  if (const auto codec = codec_of(events); !codec.empty()) {
    return fail(
        invalid("spark.eventLog.compress",
                fmt::format("the event log is compressed with {}, which is not read here", codec),
                "set spark.eventLog.compress to false, or give the log to a Spark history server"));
  }
  if (events.empty()) {
    return fail(invalid("", "the event log is empty: the driver ended before it wrote any event"));
  }
  while (!events.empty()) {
    const auto end = events.find('\n');
    const auto line = events.substr(0, end);
    events.remove_prefix(end == std::string_view::npos ? events.size() : end + 1);
    // Events of SQL and of other listeners have longer names, and some are large: they are not even parsed.
    if (!line.starts_with(R"({"Event":"SparkListener)")) { continue; }
    const auto event = parse_json(line);
    if (event && event->is_object()) { take(app, event->get_object()); }
  }
  if (app.events == 0) {
    return fail(invalid("", "there is no event of Spark's in the event log"));
  }
  return page_of(app, name);
}

}  // namespace metier
