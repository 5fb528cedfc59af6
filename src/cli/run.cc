// `metier run` and `metier render`.
#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>

#include "base/clock.h"
#include "base/files.h"
#include "base/programs.h"
#include "cli/deploy.h"
#include "cli/document.h"
#include "cli/follow.h"
#include "cli/outcome.h"
#include "cli/secrets.h"

namespace metier::cli {
namespace {

namespace fs = std::filesystem;

// The interpreter of a foreground handler: `--python X.Y` or a path, else the active one.
Result<std::string> handler_python(const Environment& environment, const JsonObject& spec) {
  const auto* build = object_in(spec, "build");
  const std::string wish(build == nullptr ? "" : string_in(*build, "python"));
  if (wish.empty()) {
    if (auto active = active_python(environment); !active.empty()) { return active; }
    return fail(Error{.kind = ErrorKind::exhausted,
                      .message = "there is no Python interpreter on this machine",
                      .fix = "apt-get install python3, or name one with --python",
                      .code = "EnvironmentFailed"});
  }
  const auto found = wish.find('/') != std::string::npos
                         ? (::access(wish.c_str(), X_OK) == 0 ? wish : std::string())
                         : find_interpreter(variable(environment, "PATH"),
                                            wish.starts_with("python") ? wish : "python" + wish);
  if (!found.empty()) { return found; }
  return fail(Error{.kind = ErrorKind::exhausted,
                    .message = "no interpreter " + quote(wish) + " on this machine",
                    .field = "--python",
                    .fix = "install it, or leave --python out",
                    .code = "EnvironmentFailed"});
}

std::string uid_of(const JsonObject& run) {
  const auto* metadata = object_in(run, "metadata");
  return std::string(metadata == nullptr ? "" : string_in(*metadata, "uid"));
}
std::string name_of(const JsonObject& run) {
  const auto* metadata = object_in(run, "metadata");
  return std::string(metadata == nullptr ? "" : string_in(*metadata, "name"));
}

void announce(Command& command, const Submission& submission) {
  auto& screen = command.screen;
  if (screen.style().quiet) { return; }
  screen.say(fmt::format("{} {}  {}  {}", screen.paint(Role::good, screen.glyph(Role::good)),
                         screen.paint(Role::name, name_of(submission.run)), submission.kind,
                         screen.paint(Role::aside, short_uid(uid_of(submission.run)))));
}

void warn(Command& command, const Submission& submission) {
  for (const auto& warning : submission.warnings) { command.screen.warn(printable(warning)); }
}

// What the server says of a run that it took: a field without effect, a folder that was too large.
void warn_of(Command& command, const JsonObject& run) {
  const auto* status = object_in(run, "status");
  const auto* conditions = status == nullptr ? nullptr : array_in(*status, "conditions");
  for (const auto& condition : conditions == nullptr ? JsonArray{} : *conditions) {
    command.screen.warn(printable(string_at(condition, "message")));
  }
}

// A secret that is not there is told before anything starts, not when the pod cannot start.
Result<void> check_secrets(Command& command) {
  const auto wanted = command.arguments.values("--secret");
  if (wanted.empty()) { return {}; }
  METIER_TRY(project, project_secrets(command));
  METIER_TRY(named, secret_keys(command));
  for (const auto& text : wanted) {
    const auto colon = text.find(':');
    const auto name = text.substr(0, colon);
    const auto it = named.find(name);
    const bool known =
        colon == std::string::npos
            ? std::ranges::find(project, name) != project.end()
            : it != named.end() &&
                  std::ranges::find(it->second, text.substr(colon + 1)) != it->second.end();
    if (known) { continue; }
    return fail(
        Error{.kind = ErrorKind::not_found,
              .message = fmt::format("no secret {} in project {}", quote(text), command.project),
              .field = "--secret",
              .fix = fmt::format("metier secret set {} -P {}", text, command.project),
              .code = "SecretMissing"});
  }
  return {};
}

Result<JsonObject> submit_job(Command& command, const Submission& submission) {
  JsonObject body{{"task", submission.run}, {"function", submission.function}};
  METIER_TRY(answer, command.session.call("POST", "/api/v1/submit_job", Json(std::move(body)),
                                          submit_headers(command, submission)));
  const auto* data = answer.is_object() ? object_in(answer.as_object(), "data") : nullptr;
  if (data == nullptr) {
    return fail(ErrorKind::internal, "the server's answer to the submit holds no run");
  }
  return *data;
}

Result<JsonObject> submit_local(Command& command, const Submission& submission,
                                const Caller& caller) {
  METIER_CHECK(command.session.open());
  if (!command.session.endpoint().unix_socket) {
    return fail(
        invalid("--kind",
                "local runs on the server's own machine, by its unix socket; METIER_SERVER is " +
                    command.session.endpoint().url,
                command.session.without("METIER_SERVER") + ", or choose --kind job"));
  }
  JsonObject variables;
  for (const auto& [name, value] : command.environment()) {
    if (name != "METIER_TOKEN" && name != "METIER_READY_FD") { variables[name] = value; }
  }
  JsonObject body{{"task", submission.run},
                  {"function", submission.function},
                  {"env", std::move(variables)},
                  {"cwd", caller.folder},
                  {"python", active_python(command.environment())}};
  METIER_TRY(answer, command.session.call("POST", "/api/metier/v1/local", Json(std::move(body)),
                                          submit_headers(command, submission)));
  const auto* data = answer.is_object() ? object_in(answer.as_object(), "data") : nullptr;
  if (data == nullptr) { return fail(ErrorKind::internal, "the server's answer holds no run"); }
  return *data;
}

std::string took_text(const JsonObject& run, std::chrono::steady_clock::time_point began) {
  const auto cell = took_cell(run, system_clock().now());
  if (cell.text != "–") { return cell.text; }
  return human_duration(
      std::chrono::duration_cast<Duration>(std::chrono::steady_clock::now() - began));
}

// "queue 2 ms · place 1 ms · …", on a terminal only: it costs a request.
void show_phases(Command& command, const std::string& uid) {
  auto& screen = command.screen;
  if (!screen.style().err_terminal || screen.style().quiet) { return; }
  auto answer = command.session.get(
      fmt::format("/api/metier/v1/runs/{}/timeline?project={}", uid, command.project));
  if (!answer || !answer->is_object()) {
    return;
  }  // the run is told already: a missing timeline is no failure
  const auto* phases = array_in(answer->as_object(), "phases");
  if (phases == nullptr) { return; }
  std::string text;
  for (const auto& phase : *phases) {
    if (!phase.is_object()) { continue; }
    const auto* ms = phase.as_object().if_contains("ms");
    const double value = ms == nullptr ? 0
                         : ms->is_double()
                             ? ms->as_double()
                             : static_cast<double>(int_in(phase.as_object(), "ms").value_or(0));
    auto part = fmt::format("{} {}", string_in(phase.as_object(), "name"),
                            human_duration(Duration(static_cast<std::int64_t>(value * 1000))));
    text += (text.empty() ? "" : " " + screen.dot() + " ") +
            (value > 1000 && string_in(phase.as_object(), "name") != "user"
                 ? screen.paint(Role::care, part)
                 : screen.paint(Role::aside, part));
  }
  if (!text.empty()) { screen.say("  " + text); }
}

// The cause and the fixes of a failure that is not the user's own.
void show_cause(Command& command, const std::string& uid) {
  auto answer = command.session.get(
      fmt::format("/api/metier/v1/runs/{}/why?project={}", uid, command.project));
  if (!answer || !answer->is_object()) { return; }
  const auto* fixes = array_in(answer->as_object(), "fixes");
  if (fixes == nullptr) { return; }
  for (const auto& fix : *fixes) {
    if (fix.is_array() && fix.as_array().size() == 2) {
      const auto text = printable(value_text(fix.as_array()[0]));
      const auto command_line = printable(value_text(fix.as_array()[1]));
      if (command_line.starts_with("metier logs")) { continue; }  // the last line says that
      command.screen.say("  " + text + (command_line.empty() ? "" : ": " + command_line));
    }
  }
}

// The end of a run in the foreground: what came out, and the exit code.
int conclude(Command& command, const Submission& submission, const JsonObject& run,
             std::chrono::steady_clock::time_point began) {
  auto& screen = command.screen;
  const auto* status = object_in(run, "status");
  const auto state = status == nullptr ? std::string_view() : string_in(*status, "state");
  const auto reason = status == nullptr ? std::string_view() : string_in(*status, "reason");
  const int code = exit_code_of_run(state, reason);
  const auto uid = short_uid(uid_of(run));
  const auto took = took_text(run, began);
  const bool document = command.output == "json" || command.output == "yaml";
  if (state == "error") {
    show_failure(command, run, took);
    if (status != nullptr && object_in(*status, "failure") == nullptr) {
      show_cause(command, uid_of(run));
    }
  } else if (state == "aborted") {
    screen.say(screen.paint(Role::care, fmt::format("! aborted after {}", took)));
  } else if (!screen.style().quiet) {
    screen.say(screen.paint(Role::good, screen.glyph(Role::good)) +
               fmt::format(" {} in {}", state, took));
    show_phases(command, uid_of(run));
  }
  if (document) {
    command.output == "json" ? screen.json(run) : screen.yaml(run);
  } else if (command.output == "name") {
    screen.out(uid_of(run) + "\n");
  } else {
    show_results(command, run);
  }
  if (code == 0 && !document) {
    screen.next({"metier get runs",
                 submission.kind == "local"
                     ? fmt::format("metier run {} --kind job", submission.shown)
                     : "metier logs " + uid,
                 "metier describe " + uid});
  }
  return code;
}

// The runner's folder or zip, as the server unpacked it.
std::string runner_path(Command& command) {
  if (const auto given = variable(command.environment(), "METIER_RUNNER"); !given.empty()) {
    return given;
  }
  return command.session.places().data + "/lib/current";
}

// One interpreter in the foreground, with our terminal: prints, prompts and debuggers work.
Result<int> run_handler(Command& command, Submission& submission) {
  const auto began = std::chrono::steady_clock::now();
  auto& session = command.session;
  METIER_TRY(python,
             handler_python(command.environment(), *object_in(submission.function, "spec")));
  METIER_CHECK(session.open());
  const auto uid = uid_of(submission.run);
  auto run = submission.run;
  ensure_object(run, "status")["state"] = "running";
  ensure_object(run, "status")["start_time"] = to_iso(system_clock().now());
  // Where the server would put them for the other kinds, never the caller's folder.
  auto& asked = ensure_object(run, "spec");
  if (string_in(asked, "output_path").empty() && session.endpoint().unix_socket) {
    asked["output_path"] =
        fmt::format("{}/projects/{}/artifacts/{}", session.places().data, command.project, uid);
  }
  METIER_CHECK(session.call(
      "POST", fmt::format("/api/v1/projects/{}/runs/{}?iter=0", command.project, uid), Json(run)));
  announce(command, submission);

  auto variables = command.environment();
  const auto& spec = *object_in(submission.function, "spec");
  if (const auto* list = array_in(spec, "env")) {
    for (const auto& entry : *list) {
      variables[std::string(string_in(entry.as_object(), "name"))] =
          string_in(entry.as_object(), "value");
    }
  }
  const auto endpoint = session.endpoint();
  variables["METIER_SERVER"] =
      endpoint.unix_socket ? endpoint.url.substr(0, endpoint.url.size() - 1) : endpoint.url;
  variables["MLRUN_EXEC_CONFIG"] = dump_json(Json(run));
  variables["MLRUN_DEFAULT_PROJECT"] = command.project;
  const auto known = variable(command.environment(), "PYTHONPATH");
  variables["PYTHONPATH"] = runner_path(command) + (known.empty() ? "" : ":" + known);
  std::vector<std::string> words{python,    "-m",     "metier_runner",
                                 "handler", "--name", name_of(submission.run)};
  const auto* run_spec = object_in(submission.run, "spec");
  if (const auto handler =
          run_spec == nullptr ? std::string_view() : string_in(*run_spec, "handler");
      !handler.empty()) {
    words.insert(words.end(), {"--handler", std::string(handler)});
  }
  if (const auto mode = string_in(spec, "mode"); !mode.empty()) {
    words.insert(words.end(), {"--mode", std::string(mode)});
  }
  words.emplace_back(string_in(spec, "command"));
  if (const auto* more = array_in(spec, "args")) {
    for (const auto& word : *more) { words.push_back(value_text(word)); }
  }

  const bool document = command.output == "json" || command.output == "yaml";
  std::vector<char*> argv;
  for (auto& word : words) { argv.push_back(word.data()); }
  argv.push_back(nullptr);
  std::vector<std::string> lines;
  for (const auto& [name, value] : variables) { lines.push_back(name + "=" + value); }
  std::vector<char*> envp;
  for (auto& line : lines) { envp.push_back(line.data()); }
  envp.push_back(nullptr);

  ::signal(SIGINT, SIG_IGN);  // the interpreter gets it too and decides
  const pid_t child = ::fork();
  if (child < 0) { return fail(errno_error("fork", errno)); }
  if (child == 0) {
    ::signal(SIGINT, SIG_DFL);
    ::signal(SIGPIPE, SIG_DFL);
    if (document) { ::dup2(STDERR_FILENO, STDOUT_FILENO); }  // stdout is one JSON document
    ::execvpe(argv[0], argv.data(), envp.data());
    ::_exit(127);
  }
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {}
  ::signal(SIGINT, SIG_DFL);
  METIER_TRY(ended, read_run(command, command.project, uid));
  const auto* ended_status = object_in(ended, "status");
  const auto state =
      ended_status == nullptr ? std::string_view() : string_in(*ended_status, "state");
  if (state == "running" || state == "created" || state == "pending") {
    // The interpreter ended without a word: killed, or it could not start.
    const auto text =
        WIFSIGNALED(status)
            ? fmt::format("the interpreter was killed by signal {}", WTERMSIG(status))
        : WEXITSTATUS(status) == 127
            ? "the interpreter " + python + " cannot be started"
            : fmt::format("the interpreter ended with exit code {}", WEXITSTATUS(status));
    JsonObject patch{
        {"status.state", "error"}, {"status.error", text}, {"status.reason", "HandlerError"}};
    METIER_CHECK(session.call(
        "PATCH", fmt::format("/api/v1/projects/{}/runs/{}?iter=0", command.project, uid),
        Json(std::move(patch))));
    METIER_TRY(again, read_run(command, command.project, uid));
    ended = std::move(again);
  }
  return conclude(command, submission, ended, began);
}

// What differs between what was given and what would be stored: the defaults, "spec.image = mlrun/mlrun".
void collect_defaults(const Json& given, const Json& stored, const std::string& path,
                      std::vector<std::string>& out) {
  if (stored.is_object()) {
    for (const auto& [key, value] : stored.as_object()) {
      const auto* own = given.is_object() ? given.as_object().if_contains(key) : nullptr;
      collect_defaults(own == nullptr ? Json() : *own, value,
                       path.empty() ? std::string(key) : path + "." + std::string(key), out);
    }
    return;
  }
  if (!is_empty_value(stored) && given != stored) {
    out.push_back(fmt::format("{} = {}", path, cut(value_text(stored), 100)));
  }
}

// `--dry-run`: the server's verdict on this submit, the documents it would store and what it would add to them.
Result<int> try_run(Command& command, const Submission& submission) {
  JsonObject body{{"task", submission.run}, {"function", submission.function}};
  if (submission.kind == "local") { body["env"] = JsonObject{}; }
  METIER_TRY(answer, command.session.call("POST", "/api/metier/v1/admit", Json(std::move(body)),
                                          submit_headers(command, submission)));
  auto& screen = command.screen;
  const auto verdict = std::string(string_at(answer, "verdict"));
  const int code = verdict == "ok" ? 0 : 5;
  if (command.output == "json" || command.output == "yaml") {
    command.output == "json" ? screen.json(answer) : screen.yaml(answer);
    return code;
  }
  const auto* document = answer.is_object() ? &answer.as_object() : nullptr;
  if (document == nullptr) {
    return fail(ErrorKind::internal, "the server's answer holds no verdict");
  }
  const auto pair = [&](std::string_view name, std::string_view value) {
    if (!value.empty()) { screen.out(fmt::format("  {:<12} {}\n", name, printable(value))); }
  };
  screen.out(
      fmt::format("{}  {}  nothing was started\n", name_of(submission.run), submission.kind));
  pair("python", string_at(answer, "environment.python"));
  if (const auto* requirements = find_path(answer, "environment.requirements")) {
    pair("requirements", value_text(*requirements));
  }
  if (const auto* objects = array_in(*document, "objects")) {
    for (const auto& object : *objects) {
      pair("would make",
           fmt::format("{} {}", string_at(object, "kind"), string_at(object, "name")));
    }
  }
  std::vector<std::string> defaults;
  const auto* function = document->if_contains("function");
  collect_defaults(find_path(Json(submission.function), "spec") == nullptr
                       ? Json()
                       : *find_path(Json(submission.function), "spec"),
                   function == nullptr || find_path(*function, "spec") == nullptr
                       ? Json()
                       : *find_path(*function, "spec"),
                   "spec", defaults);
  for (const auto& line : defaults) { pair("default", line); }
  if (const auto* warnings = array_in(*document, "warnings")) {
    for (const auto& warning : *warnings) { pair("warning", string_at(warning, "message")); }
  }
  if (code == 0) {
    screen.out(fmt::format("{} it fits: it would run now or when its turn comes\n",
                           screen.paint_out(Role::good, screen.glyph(Role::good))));
    return 0;
  }
  return fail(Error{.kind = ErrorKind::exhausted,
                    .message = std::string(string_at(answer, "reason")),
                    .fix = std::string(string_at(answer, "fix")),
                    .code = std::string(string_at(answer, "code", "NeverFits"))});
}

}  // namespace

Result<Caller> caller_of(Command& command) {
  METIER_TRY(places, find_places(command.environment(), ::geteuid() == 0));
  METIER_TRY(endpoint, find_endpoint(command.environment(), places));
  std::error_code ec;
  Caller out{.folder = fs::current_path(ec).string(),
             .data = places.data,
             .socket = places.socket,
             .project = command.project,
             .same_machine = endpoint.unix_socket};
  if (ec) {
    return fail(
        invalid("", "the current folder is not there any more", "cd to a folder that exists"));
  }
  return out;
}

net::Headers submit_headers(Command& command, const Submission& submission) {
  net::Headers out{{"x-metier-python", active_python(command.environment())}};
  if (!submission.context.empty()) { out.emplace_back("x-metier-context", submission.context); }
  return out;
}

Result<int> run_main(Command& command) {
  METIER_TRY(caller, caller_of(command));
  METIER_TRY(submission, make_submission(command.arguments, caller));
  auto& screen = command.screen;
  warn(command, submission);
  METIER_CHECK(check_secrets(command));
  if (command.arguments.has("--dry-run") && submission.kind != "handler") {
    return try_run(command, submission);
  }
  if (submission.kind == "handler") {
    if (command.arguments.has("--dry-run")) {
      return fail(invalid("--dry-run", "a handler runs in this terminal: there is nothing to admit",
                          "choose --kind local or job"));
    }
    if (command.arguments.has("--detach")) {
      return fail(
          invalid("--detach", "a handler runs in this terminal", "choose --kind local or job"));
    }
    if (command.arguments.has("--requirements")) {
      return fail(invalid("--requirements",
                          "a handler runs in your own interpreter, nothing is installed into it",
                          "choose --kind local or job"));
    }
    if (command.arguments.has("--file")) {
      return fail(invalid("--kind", "handler runs a file, not a function document",
                          "name the file: metier run FILE:HANDLER"));
    }
    return run_handler(command, submission);
  }
  const auto began = std::chrono::steady_clock::now();
  const bool local = submission.kind == "local";
  auto submitted =
      local ? submit_local(command, submission, caller) : submit_job(command, submission);
  if (!submitted) { return fail(std::move(submitted).error()); }
  if (!uid_of(*submitted).empty()) {
    submission.run["metadata"] = *object_in(*submitted, "metadata");
  }
  const auto uid = uid_of(submission.run);
  announce(command, submission);
  warn_of(command, *submitted);
  const bool document = command.output == "json" || command.output == "yaml";
  if (command.arguments.has("--detach")) {
    if (document) {
      command.output == "json" ? screen.json(*submitted) : screen.yaml(*submitted);
    } else if (command.output == "name" || !screen.style().out_terminal) {
      screen.out(uid + "\n");
    }
    screen.next({"metier logs -f " + short_uid(uid), "metier why " + short_uid(uid),
                 "metier abort " + short_uid(uid)});
    return 0;
  }
  METIER_TRY(followed, follow_run(command, command.project, uid,
                                  {.to = document ? LogOutput::To::err : LogOutput::To::out,
                                   .holds = submission.kind == "mpijob" ? LogOutput::Holds::of_ranks
                                                                        : LogOutput::Holds::yes,
                                   .part = {},
                                   .attempts = retries_of(*submitted) > 0}));
  if (followed.ending == Ending::detached) {
    screen.say(fmt::format("! detached: {} goes on. metier logs -f {}", name_of(submission.run),
                           short_uid(uid)));
    return 130;
  }
  return conclude(command, submission, followed.run, began);
}

Result<int> render_main(Command& command) {
  METIER_TRY(caller, caller_of(command));
  METIER_TRY(submission, make_submission(command.arguments, caller, "job"));
  const auto* task = object_in(submission.run, "spec");
  const auto* spec = object_in(submission.function, "spec");
  const bool handler = (task != nullptr && !string_in(*task, "handler").empty()) ||
                       (spec != nullptr && !string_in(*spec, "default_handler").empty());
  // Dask: what `run` applies where there is something to run, else what `deploy` applies.
  const bool deployed = submission.kind == "nuclio" || submission.kind == "remote" ||
                        submission.kind == "serving" || (submission.kind == "dask" && !handler);
  if (deployed) {
    METIER_TRY(again, make_deployment(command));
    submission = std::move(again);
  }
  warn(command, submission);
  if (submission.kind == "handler") {
    return fail(invalid("--kind", "a handler runs in its caller: there is nothing to render",
                        "choose another kind: metier kinds"));
  }
  if (auto* metadata = object_in(submission.run, "metadata")) {
    (*metadata)["uid"] = std::string(32, '0');
  }  // the same input gives the same output
  JsonObject body{{"task", submission.run}, {"function", submission.function}};
  if (command.arguments.has("--api")) { body["api"] = command.arguments.value("--api"); }
  METIER_TRY(answer,
             command.session.call(
                 "POST", deployed ? "/api/metier/v1/deployments/render" : "/api/metier/v1/render",
                 Json(std::move(body)), submit_headers(command, submission)));
  const JsonArray* items = answer.is_array() ? &answer.as_array() : nullptr;
  for (const char* key : {"items", "resources", "objects"}) {
    if (items == nullptr && answer.is_object()) { items = array_in(answer.as_object(), key); }
  }
  if (items == nullptr) {
    return fail(ErrorKind::internal, "the server's answer holds no objects");
  }
  if (command.output == "json") {
    command.screen.json(JsonObject{{"apiVersion", "v1"}, {"kind", "List"}, {"items", *items}});
    return 0;
  }
  command.screen.out(fmt::format("# {}: {} object{}, nothing was applied\n", submission.kind,
                                 items->size(), items->size() == 1 ? "" : "s"));
  bool first = true;
  for (const auto& item : *items) {
    if (!first) { command.screen.out("---\n"); }
    command.screen.yaml(item);
    first = false;
  }
  return 0;
}

}  // namespace metier::cli
