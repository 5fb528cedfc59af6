// Verbs of deployments: deploy, invoke; and their part of describe and logs.
#include "cli/deploy.h"

#include <fmt/format.h>

#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <set>
#include <thread>

#include "base/clock.h"
#include "base/files.h"
#include "cli/follow.h"
#include "cli/outcome.h"
#include "model/create.h"
#include "model/kinds.h"
#include "model/serving_children.h"
#include "net/url.h"

namespace metier::cli {
namespace {

namespace fs = std::filesystem;

bool has_ended(std::string_view state) {
  return state == "ready" || state == "error" || state == "unhealthy" || state == "scaledToZero";
}

const JsonObject& inside(const JsonObject& object, std::string_view key) {
  static const JsonObject none;
  const auto* found = object_in(object, key);
  return found == nullptr ? none : *found;
}

std::string address_of(const JsonObject& status) {
  return std::string(string_in(status, "address"));
}

// Where it is called, or where the clients of its cluster connect.
std::string url_of(const JsonObject& status) {
  const auto address = address_of(status);
  return address.empty() ? std::string(string_in(status, "scheduler_address"))
                         : "http://" + address;
}

// A library or a script is a native or shell handler: its bytes go with the function.
Result<void> embed_program(const Arguments& arguments, Submission& out) {
  auto& spec = ensure_object(out.function, "spec");
  const fs::path file(std::string(string_in(spec, "command")));
  if (file.empty() || !string_in(inside(spec, "build"), "functionSourceCode").empty()) {
    return {};
  }
  METIER_TRY(bytes, read_file(file, 16U << 20U));
  const bool native = std::string_view(bytes).starts_with(
      "\x7f"
      "ELF");
  const auto handler = arguments.has("--handler") ? arguments.value("--handler")
                                                  : std::string(string_in(spec, "default_handler"));
  ensure_object(spec, "build")["functionSourceCode"] = base64_encode(bytes);
  ensure_object(spec, "build")["origin_filename"] = file.filename().string();
  spec["nuclio_runtime"] = native ? "native" : "shell";
  spec["function_handler"] =
      native ? file.filename().string() + ":" + (handler.empty() ? "handler" : handler)
             : file.filename().string();
  spec.erase("command");
  spec.erase("mode");
  return {};
}

void show_conditions(Command& command, const JsonObject& status) {
  const auto* conditions = array_in(status, "conditions");
  for (const auto& condition : conditions == nullptr ? JsonArray{} : *conditions) {
    if (!condition.is_object()) { continue; }
    command.screen.warn(std::string(string_in(condition.as_object(), "type")) + ": " +
                        printable(string_in(condition.as_object(), "message")));
  }
}

// The last lines of a pod's log, and how much there is of it.
// The end of what the first pod printed: where the cause of a failed start is.
void show_log_end(Command& command, const std::string& name) {
  const auto place = log_of_function(command, name);
  const auto begin = log_begin(command, place, {.tail = 12});
  if (!begin) { return; }
  auto answer = command.session.send("GET", fmt::format("{}&offset={}", place.bytes, *begin));
  if (!answer || answer->body.empty()) { return; }
  while (answer->body.ends_with('\n')) { answer->body.pop_back(); }
  command.screen.say(printable_lines(answer->body));
}

Result<int> follow_deploy(Command& command, const std::string& name, Json first,
                          std::chrono::steady_clock::time_point began) {
  auto& screen = command.screen;
  const InterruptCounter counter;
  const Interruptible interruptible(command.session, counter);
  std::uint64_t revision = 0;
  std::string said;
  while (true) {
    auto view = deployment(command, name, revision);
    if (!view && view.error().kind == ErrorKind::cancelled) {
      screen.say(fmt::format("{} goes on being deployed: metier describe {}", name, name));
      return 130;
    }
    METIER_TRY(seen, std::move(view));
    revision = static_cast<std::uint64_t>(int_in(seen, "revision").value_or(0));
    const auto& status = inside(seen, "status");
    const auto state = string_in(seen, "state");
    if (!has_ended(state)) {
      const auto reason = string_in(status, "reason");
      auto text = std::string(reason);
      if (const auto message = string_in(status, "message"); !message.empty()) {
        text += (text.empty() ? "" : ": ") + printable(message);
      }
      if (!text.empty() && text != said && !screen.style().quiet) {
        screen.say(screen.paint(Role::aside, text));
        said = text;
      }
      continue;
    }
    if (command.output == "json") { screen.json(Json(seen)); }
    if (command.output == "yaml") { screen.yaml(Json(seen)); }
    if (state == "error" || state == "unhealthy") {
      show_log_end(command, name);
      return fail(
          Error{.kind = ErrorKind::user_code,
                .message = fmt::format("function {} is {}: {}", quote(name), state,
                                       string_in(status, "message", "it did not become ready")),
                .fix = fmt::format("metier logs {}; then deploy it again", name),
                .code = std::string(string_in(status, "reason"))});
    }
    const auto took = human_duration(
        std::chrono::duration_cast<Duration>(std::chrono::steady_clock::now() - began));
    if (!screen.style().quiet) {
      screen.say(fmt::format("{} {}  {}  {} in {}",
                             screen.paint(Role::good, screen.glyph(Role::good)),
                             screen.paint(Role::name, name), string_in(seen, "kind"), state, took));
      show_conditions(command, status);
    }
    if (command.output.empty() || command.output == "table" || command.output == "wide") {
      if (const auto url = url_of(status); !url.empty()) { screen.out(url + "\n"); }
    } else if (command.output == "name") {
      screen.out(name + "\n");
    }
    if (string_in(seen, "kind") == "dask") {
      screen.next({"metier ui " + name, "metier describe " + name, "metier delete " + name});
    } else {
      screen.next({"metier invoke " + name, "metier logs -f " + name});
    }
    return 0;
  }
}

// "K: V" or "K=V".
Result<std::pair<std::string, std::string>> header_of(const std::string& text) {
  const auto colon = text.find_first_of(":=");
  std::string name = text.substr(0, colon);
  std::string value = colon == std::string::npos ? std::string() : text.substr(colon + 1);
  while (value.starts_with(' ')) { value.erase(0, 1); }
  const bool token = !name.empty() && std::ranges::all_of(name, [](unsigned char c) {
    return std::isalnum(c) != 0 || c == '-' || c == '_' || c == '.';
  });
  if (colon == std::string::npos || !token || value.find_first_of("\r\n") != std::string::npos) {
    return fail(invalid("-H", quote(text) + " is not a header", "write -H 'Name: value'"));
  }
  return std::pair(std::move(name), std::move(value));
}

Result<std::string> body_of(const std::string& text) {
  if (!text.starts_with('@')) { return text; }
  if (text == "@-") {
    std::string out;
    std::string piece(65536, '\0');
    while (true) {
      const auto n = ::read(STDIN_FILENO, piece.data(), piece.size());
      if (n <= 0) { return out; }
      out.append(piece.data(), static_cast<std::size_t>(n));
    }
  }
  auto bytes = read_file(text.substr(1), 1U << 30U);
  if (!bytes) { return fail(std::move(bytes).error().at("-d")); }
  return std::move(*bytes);
}

}  // namespace

Result<Submission> make_deployment(Command& command) {
  METIER_TRY(caller, caller_of(command));
  METIER_TRY(out, make_submission(command.arguments, caller, "nuclio"));
  auto& metadata = ensure_object(out.function, "metadata");
  if (command.arguments.has("--name")) {
    metadata["name"] = normalized_name(command.arguments.value("--name"));
  }
  if (command.arguments.has("--tag")) { metadata["tag"] = command.arguments.value("--tag"); }
  const auto kind = string_in(out.function, "kind");
  const auto file = string_in(inside(out.function, "spec"), "command");
  if (canonical_kind(kind) == "serving" && file.ends_with(".so")) {  // its METIER_GRAPH
    METIER_CHECK(embed_program(command.arguments, out));
  }
  if (canonical_kind(kind) == "nuclio") {
    METIER_CHECK(embed_program(command.arguments, out));
    auto& spec = ensure_object(out.function, "spec");
    const auto python = command.arguments.value("--python");
    if (!python.empty()) { spec["nuclio_runtime"] = "python:" + python; }
    const auto origin = string_in(inside(spec, "build"), "origin_filename");
    const std::string named(string_in(spec, "function_handler"));
    const auto handler = named.substr(named.rfind(':') + 1);
    // MLRun's name of the module ("train-nuclio") is for code that its client has wrapped.
    if (string_in(spec, "nuclio_runtime") != "native" &&
        string_in(spec, "nuclio_runtime") != "shell" && !command.arguments.has("--file") &&
        !origin.empty() && string_in(spec, "function_kind").empty()) {
      spec["function_handler"] = fs::path(std::string(origin)).stem().string() + ":" +
                                 (handler.empty() ? std::string("handler") : std::string(handler));
    }
  }
  return out;
}

Result<JsonObject> deployment(Command& command, const std::string& name, std::uint64_t revision) {
  METIER_TRY(answer,
             command.session.get(fmt::format("/api/metier/v1/deployments/{}?project={}&revision={}",
                                             net::percent_encode(name),
                                             net::percent_encode(command.project), revision)));
  if (!answer.is_object()) { return fail(ErrorKind::internal, "the answer holds no deployment"); }
  return std::move(answer.as_object());
}

// What each step of a serving graph has cost, and how many events came to it in the last half second.
void show_steps(Command& command, const JsonObject& view) {
  if (canonical_kind(string_in(view, "kind")) != "serving") { return; }
  const auto ask = [&] {
    auto answer = command.session.get(fmt::format(
        "/api/metier/v1/deployments/{}?project={}&revision=0&steps=yes",
        net::percent_encode(string_in(view, "name")), net::percent_encode(command.project)));
    const auto* steps =
        answer && answer->is_object() ? array_in(answer->as_object(), "steps") : nullptr;
    return steps == nullptr ? JsonArray{} : *steps;
  };
  const JsonArray before = ask();
  if (before.empty()) { return; }
  constexpr auto kWindow = std::chrono::milliseconds(500);
  std::this_thread::sleep_for(kWindow);
  const JsonArray now = ask();
  command.screen.out(fmt::format("steps\n  {:<18} {:>10} {:>9} {:>9} {:>10}\n", "step", "events",
                                 "failed", "rate/s", "mean"));
  for (std::size_t i = 0; i < now.size(); ++i) {
    const JsonObject& step = now[i].as_object();
    const auto events = int_in(step, "events").value_or(0);
    const Json* seconds = step.if_contains("seconds");
    const double spent = seconds == nullptr || !seconds->is_double() ? 0 : seconds->get_double();
    const auto old = std::ranges::find_if(before, [&](const Json& other) {
      return string_in(other.as_object(), "name") == string_in(step, "name");
    });
    const auto passed = old == before.end() ? 0 : int_in(old->as_object(), "events").value_or(0);
    const double micros = events == 0 ? 0 : spent * 1e6 / static_cast<double>(events);
    command.screen.out(fmt::format(
        "  {:<18} {:>10} {:>9} {:>9.0f} {:>10}\n", printable(string_in(step, "name")), events,
        int_in(step, "failures").value_or(0),
        static_cast<double>(events - passed) / std::chrono::duration<double>(kWindow).count(),
        micros < 1000 ? fmt::format("{:.0f} µs", micros)
                      : fmt::format("{:.1f} ms", micros / 1000)));
  }
}

void show_deployment(Command& command, const JsonObject& view) {
  auto& screen = command.screen;
  const auto& status = inside(view, "status");
  const auto pair = [&](std::string_view name, std::string_view value) {
    if (!value.empty()) { screen.out(fmt::format("  {:<12} {}\n", name, printable(value))); }
  };
  const auto state = string_in(view, "state");
  screen.out(fmt::format("  {:<12} {}\n", "state", screen.paint_out(role_of_state(state), state)));
  pair("reason", string_in(status, "reason"));
  pair("message", string_in(status, "message"));
  for (const char* key : {"internal_invocation_urls", "external_invocation_urls"}) {
    const auto* urls = array_in(status, key);
    for (const auto& url : urls == nullptr ? JsonArray{} : *urls) {
      pair(key == std::string_view("internal_invocation_urls") ? "address" : "external",
           "http://" + value_text(url));
    }
  }
  for (const char* key : {"cluster_name", "scheduler_address", "dashboard"}) {
    const std::string_view name(key);
    pair(name.substr(0, name.find('_')), string_in(status, key));
  }
  if (const auto replicas = int_in(status, "replicas")) {
    pair("replicas",
         fmt::format("{} ({} ready)", *replicas, int_in(status, "ready_replicas").value_or(0)));
  }
  if (const auto generation = int_in(view, "generation")) {
    pair("deploys", std::to_string(*generation));
  }
  show_steps(command, view);
  if (const auto* parts = array_in(view, "parts"); parts != nullptr && !parts->empty()) {
    screen.out("pods\n");
    for (const auto& part : *parts) {
      if (!part.is_object()) { continue; }
      screen.out(fmt::format("  {:<12} {}\n", string_in(part.as_object(), "role"),
                             string_in(part.as_object(), "pod")));
    }
  }
  if (const auto* conditions = array_in(status, "conditions");
      conditions != nullptr && !conditions->empty()) {
    screen.out("conditions\n");
    for (const auto& condition : *conditions) {
      if (!condition.is_object()) { continue; }
      screen.out(fmt::format("  {} {}  {}\n", screen.paint_out(Role::care, "!"),
                             string_in(condition.as_object(), "type"),
                             printable(string_in(condition.as_object(), "message"))));
    }
  }
}

int why_deployment(Command& command, const JsonObject& view) {
  auto& screen = command.screen;
  const auto& status = inside(view, "status");
  const auto state = string_in(view, "state");
  const auto name = string_in(view, "name");
  if (command.output == "json") { screen.json(Json(status)); }
  if (command.output == "yaml") { screen.yaml(Json(status)); }
  if (command.output == "json" || command.output == "yaml") { return 0; }
  const auto message = string_in(status, "message");
  screen.out(fmt::format("function {} is {}{}\n", quote(name), state,
                         message.empty() ? "" : ": " + printable(message)));
  if (state == "error" || state == "unhealthy") {
    const auto fix = topic_fix(string_in(status, "reason"));
    screen.out(fmt::format("\n  {:<22} {}\n  {:<22} {}\n", "what it printed",
                           fmt::format("metier logs {}", name), "once more",
                           fix.empty() ? "metier deploy, with what is mended" : fix));
  }
  std::set<std::string> told;
  const auto* conditions = array_in(status, "conditions");
  for (const auto& condition : conditions == nullptr ? JsonArray{} : *conditions) {
    if (!condition.is_object()) { continue; }
    const auto type = string_in(condition.as_object(), "type");
    screen.out(fmt::format("\n{} {}: {}\n", screen.paint_out(Role::care, "!"), printable(type),
                           printable(string_in(condition.as_object(), "message"))));
    const auto fix = topic_fix(type);
    if (!fix.empty() && told.insert(std::string(type)).second) {
      screen.out(fmt::format("  {:<22} {}\n", "fix", fix));
    }
  }
  if (const auto code = string_in(status, "reason"); !code.empty()) {
    screen.out(screen.paint_out(Role::aside,
                                fmt::format("reason {0} {1} metier help {0}", code, screen.dot())) +
               "\n");
  }
  return 0;
}

FunctionLogs::FunctionLogs(Command& command, std::string name, LogView view)
    : command_(command), name_(std::move(name)), view_(view) {}
FunctionLogs::~FunctionLogs() = default;

struct FunctionLogs::Read {
  LogPlace place;
  LogText text;
  std::uint64_t offset = 0;
};

Result<FunctionLogs::Step> FunctionLogs::step(bool wait) {
  auto deployed = deployment(command_, name_);
  if (!deployed) {
    if (!first_ && deployed.error().kind == ErrorKind::not_found) { return Step::gone; }
    return fail(std::move(deployed).error());
  }
  std::vector<std::string> pods;
  const auto* parts = array_in(*deployed, "parts");
  for (const auto& part : parts == nullptr ? JsonArray{} : *parts) {
    if (part.is_object()) { pods.emplace_back(string_in(part.as_object(), "pod")); }
  }
  bool any = false;
  for (const auto& pod : pods) {
    auto entry = reads_.find(pod);
    if (entry == reads_.end()) {
      const auto place = log_of_function(command_, name_, pod);
      entry = reads_
                  .emplace(pod, std::make_unique<Read>(
                                    Read{place, LogText(command_, place, view_.timestamps), 0}))
                  .first;
      if (first_ && (view_.since || view_.tail >= 0)) {
        METIER_TRY(begin, log_begin(command_, place, view_));
        entry->second->offset = begin;
      }
    }
    auto& read = *entry->second;
    while (true) {
      // One pod is followed by long poll; several are asked in turn.
      const bool here = wait && pods.size() == 1 && !first_;
      auto answer =
          command_.session.send("GET", fmt::format("{}&offset={}&wait={}", read.place.bytes,
                                                   read.offset, here ? "true" : "false"));
      if (!answer) {
        if (answer.error().kind == ErrorKind::not_found) { break; }  // the pod has gone
        return fail(std::move(answer).error());
      }
      if (answer->body.empty()) {
        any = any || here;
        break;
      }
      any = true;
      METIER_TRY(shown, read.text.of(answer->body, read.offset));
      read.offset += answer->body.size();
      if (pods.size() > 1 && last_ != pod) {
        command_.screen.say(command_.screen.paint(Role::aside, "── " + pod));
      }
      last_ = pod;
      command_.screen.out(shown);
    }
  }
  first_ = false;
  return any ? Step::read : Step::nothing;
}

Result<int> function_logs(Command& command, const std::string& name, bool follow,
                          const LogView& view) {
  const InterruptCounter counter;
  const Interruptible interruptible(command.session, counter);
  FunctionLogs logs(command, name, view);
  while (counter.count() == 0) {
    auto step = logs.step(follow);
    if (!step && step.error().kind == ErrorKind::cancelled) { return follow ? 130 : 0; }
    if (!step) { return fail(std::move(step).error()); }
    if (!follow || *step == FunctionLogs::Step::gone) { return 0; }
    if (*step == FunctionLogs::Step::nothing) { ::poll(nullptr, 0, 300); }
  }
  return 130;
}

namespace {

// The functions that read a graph's durable queues stand before the one that writes to them; a graph that is refused leaves none behind.
Result<int> deploy_children(Command& command, const Submission& submission) {
  METIER_TRY(parent, Function::from_json(Json(submission.function)));
  METIER_TRY(children, child_functions(parent, submission.context));
  if (children.empty()) { return 0; }
  METIER_CHECK(command.session.call("POST", "/api/metier/v1/deployments/render",
                                    JsonObject{{"function", submission.function}},
                                    submit_headers(command, submission)));
  for (const Function& child : children) {
    const auto began = std::chrono::steady_clock::now();
    METIER_TRY(answer, command.session.call("POST", "/api/metier/v1/deployments",
                                            JsonObject{{"function", child.document()}},
                                            submit_headers(command, submission)));
    if (command.arguments.has("--detach")) { continue; }
    Command follower = command;
    follower.output = "none";
    METIER_TRY(code, follow_deploy(follower, child.name(), answer, began));
    if (code != 0) { return code; }
  }
  return 0;
}

// One deploy from the arguments as they are now; `name`: what it was called, as soon as that is known.
Result<int> deploy_once(Command& command, std::string& name) {
  const auto began = std::chrono::steady_clock::now();
  METIER_TRY(submission, make_deployment(command));
  for (const auto& warning : submission.warnings) { command.screen.warn(printable(warning)); }
  METIER_TRY(left, deploy_children(command, submission));
  if (left != 0) { return left; }
  METIER_TRY(answer, command.session.call("POST", "/api/metier/v1/deployments",
                                          JsonObject{{"function", submission.function}},
                                          submit_headers(command, submission)));
  const auto* data = answer.is_object() ? object_in(answer.as_object(), "data") : nullptr;
  if (data == nullptr) { return fail(ErrorKind::internal, "the answer holds no function"); }
  name = string_in(inside(*data, "metadata"), "name");
  if (command.arguments.has("--detach")) {
    command.screen.out(name + "\n");
    return 0;
  }
  return follow_deploy(command, name, answer, began);
}

}  // namespace

Result<int> deploy_main(Command& command) {
  if (command.arguments.has("--watch")) {
    return watch_deploy(command,
                        [&command](std::string& name) { return deploy_once(command, name); });
  }
  std::string name;
  return deploy_once(command, name);
}

// Where the function of a view is reached from here, empty while it has no address.
std::string address_for(Command& command, const JsonObject& view) {
  const auto& status = inside(view, "status");
  const auto* external = array_in(status, "external_invocation_urls");
  if (!command.session.endpoint().unix_socket && external != nullptr && !external->empty()) {
    return value_text(external->front());
  }
  return address_of(status);
}

Result<int> invoke_main(Command& command) {
  const auto& arguments = command.arguments;
  const auto& name = arguments.words()[0];
  METIER_TRY(view, deployment(command, name));
  std::string address = address_for(command, view);
  // One that is being deployed, or found again by a server that has just started, is waited for, as one at zero is.
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  while (address.empty() && !has_ended(string_in(view, "state")) &&
         std::chrono::steady_clock::now() < until) {
    const auto revision = static_cast<std::uint64_t>(int_in(view, "revision").value_or(0));
    METIER_TRY(next, deployment(command, name, revision));
    view = std::move(next);
    address = address_for(command, view);
  }
  const auto& status = inside(view, "status");
  if (address.empty()) {
    return fail(Error{.kind = ErrorKind::unavailable,
                      .message = fmt::format("function {} is {} and has no address", quote(name),
                                             string_in(view, "state")),
                      .fix = "metier describe " + name});
  }
  net::ClientRequest request;
  METIER_TRY(body, body_of(arguments.value("--data")));
  request.body = std::move(body);
  request.method = arguments.value("--method", arguments.has("--data") ? "POST" : "GET");
  for (char& c : request.method) {
    c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  }
  std::string path = arguments.value("--path", "/");
  if (!path.starts_with('/')) { path.insert(0, "/"); }
  request.url = "http://" + address + path;
  request.body_limit = 1U << 30U;
  request.timeout = std::chrono::hours(1);
  bool typed = false;
  for (const auto& text : arguments.values("--header")) {
    METIER_TRY(header, header_of(text));
    typed = typed || net::header({{header.first, "x"}}, "content-type") == "x";
    request.headers.emplace_back(std::move(header));
  }
  if (!typed && !request.body.empty() && parse_json(request.body)) {
    request.headers.emplace_back("Content-Type", "application/json");
  }
  request.headers.emplace_back("x-nuclio-target", std::string(string_in(status, "nuclio_name")));
  const auto client = net::make_blocking_client();
  auto answer = client->send(request);
  if (!answer) {
    return fail(std::move(answer).error().in("function " + quote(name) + " at " + address));
  }
  command.screen.out(answer->body);
  if (!answer->body.ends_with('\n') && command.screen.style().out_terminal) {
    command.screen.out("\n");
  }
  if (answer->status < 400) { return 0; }
  return fail(Error{.kind = ErrorKind::user_code,
                    .message = fmt::format("function {} answered {}", quote(name), answer->status),
                    .fix = "metier logs " + name});
}

}  // namespace metier::cli
