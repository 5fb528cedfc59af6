#include "cli/session.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/close_range.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <filesystem>
#include <set>

#include "base/files.h"
#include "base/programs.h"
#include "net/url.h"

namespace metier::cli {
namespace {

namespace fs = std::filesystem;
constexpr auto kStartPatience = std::chrono::seconds(20);

// Causes that are the machine's or the cluster's, not the user's code: exit 5.
const std::set<std::string, std::less<>>& cluster_codes() {
  static const std::set<std::string, std::less<>> codes{"InsufficientCpu",
                                                        "InsufficientMemory",
                                                        "InsufficientGpu",
                                                        "GangIncomplete",
                                                        "QueuePaused",
                                                        "NeverFits",
                                                        "EnvironmentBuilding",
                                                        "EnvironmentFailed",
                                                        "SecretMissing",
                                                        "VolumeMissing",
                                                        "ConfigMapMissing",
                                                        "NoSpace",
                                                        "Damaged",
                                                        "KeyLost",
                                                        "PortTaken",
                                                        "EngineMissing",
                                                        "ServiceUnavailable",
                                                        "NodeLost",
                                                        "ShimLost",
                                                        "HostRebooted",
                                                        "StoreUnavailable",
                                                        "StartFailed",
                                                        "SchedulerLost",
                                                        "ClusterBusy",
                                                        "WorkerFailed",
                                                        "ClusterClosed"};
  return codes;
}

// Is somebody listening? A socket file that nobody serves counts as nobody.
bool answers(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) { return false; }
  std::memcpy(address.sun_path, path.data(), path.size());
  const Fd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  return ::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
}

// What a server said last: its "error: …" and what follows it, else its last line.
std::string last_lines(const std::string& path) {
  auto text = read_file(path);
  if (!text) { return {}; }
  std::string_view tail = *text;
  if (tail.size() > 2000) { tail = tail.substr(tail.size() - 2000); }
  while (tail.ends_with('\n')) { tail.remove_suffix(1); }
  constexpr std::string_view kError = "error: ";
  if (const auto at = tail.rfind(kError);
      at != std::string_view::npos && (at == 0 || tail[at - 1] == '\n')) {
    return std::string(tail.substr(at + kError.size()));
  }
  const auto newline = tail.rfind('\n');
  return std::string(newline == std::string_view::npos ? tail : tail.substr(newline + 1));
}

// MLRunNotFoundError('run not found') → run not found
std::string unquoted(std::string_view text) {
  const auto open = text.find('(');
  if (open == std::string_view::npos || !text.ends_with(')') ||
      text.substr(0, open).find(' ') != std::string_view::npos) {
    return std::string(text);
  }
  auto inner = text.substr(open + 1, text.size() - open - 2);
  if (inner.size() >= 2 && (inner[0] == '\'' || inner[0] == '"') && inner.back() == inner[0]) {
    inner = inner.substr(1, inner.size() - 2);
  }
  return std::string(inner);
}

}  // namespace

std::string variable(const Environment& environment, const std::string& name) {
  const auto it = environment.find(name);
  return it == environment.end() ? std::string() : it->second;
}

std::string active_python(const Environment& environment) {
  if (const auto python = variable(environment, "METIER_PYTHON"); !python.empty()) {
    return python.contains('/') ? std::filesystem::absolute(python).lexically_normal().string()
                                : python;  // the server has another working folder
  }
  for (const char* name : {"VIRTUAL_ENV", "CONDA_PREFIX"}) {
    const auto prefix = variable(environment, name);
    if (!prefix.empty() && ::access((prefix + "/bin/python").c_str(), X_OK) == 0) {
      return prefix + "/bin/python";
    }
  }
  return find_program(variable(environment, "PATH"), "python3");
}

Result<Places> find_places(const Environment& environment, bool root) {
  Places out;
  out.data = variable(environment, "METIER_DATA");
  if (out.data.empty() && root) { out.data = "/var/lib/metier"; }
  if (out.data.empty()) {
    const auto base = variable(environment, "XDG_DATA_HOME");
    const auto home = variable(environment, "HOME");
    if (base.starts_with('/')) {
      out.data = base + "/metier";
    } else if (!home.empty()) {
      out.data = home + "/.local/share/metier";
    } else {
      return fail(invalid("METIER_DATA", "is not set, nor is HOME", "export METIER_DATA=FOLDER"));
    }
  }
  std::error_code ec;
  out.data = fs::absolute(out.data, ec).lexically_normal().string();
  while (out.data.size() > 1 && out.data.ends_with('/')) { out.data.pop_back(); }
  // Also when it is named: `metier server --data /var/lib/metier` is the same server.
  out.socket =
      root && out.data == "/var/lib/metier" ? "/run/metier/metier.sock" : out.data + "/metier.sock";
  return out;
}

Result<Endpoint> find_endpoint(const Environment& environment, const Places& places) {
  Endpoint out;
  auto server = variable(environment, "METIER_SERVER");
  if (server.empty()) {
    out.url = "unix://" + places.socket + ":";
    return out;
  }
  out.given = true;
  if (server.starts_with('/')) { server = "unix://" + server; }
  while (server.size() > 8 && server.ends_with('/')) { server.pop_back(); }
  auto url = net::parse_url(server);
  if (!url) {
    auto error = std::move(url).error();
    error.field = "METIER_SERVER";
    if (error.fix.empty()) {
      error.fix = "write http://HOST:PORT, https://HOST:PORT or the path of a unix socket";
    }
    return fail(std::move(error));
  }
  out.unix_socket = url->scheme == net::Url::Scheme::unix_socket;
  out.url = out.unix_socket ? "unix://" + url->host + ":" : server;
  return out;
}

Session::Session(Environment given, Settings settings, Screen& screen, std::string program)
    : given_(std::move(given)),
      settings_(std::move(settings)),
      environment_(given_),
      screen_(screen),
      program_(std::move(program)),
      client_(net::make_blocking_client()) {
  settings_.fill(environment_);
}

std::string Session::origin_of(const std::string& variable) const {
  const auto file = settings_.origin(variable);
  return file.empty() ? variable : file;
}

std::string Session::without(const std::string& variable) const {
  for (const auto& setting : all_settings()) {
    if (setting.variable == variable && !settings_.origin(variable).empty()) {
      return fmt::format("metier config unset {}", setting.name);
    }
  }
  return "unset " + variable;
}

std::string Session::token() const { return variable(environment_, "METIER_TOKEN"); }

Result<void> Session::open() {
  if (opened_) { return {}; }
  METIER_TRY(places, find_places(environment_, ::geteuid() == 0));
  places_ = std::move(places);
  METIER_TRY(endpoint, find_endpoint(environment_, places_));
  endpoint_ = std::move(endpoint);
  if (!endpoint_.given && !answers(places_.socket)) { METIER_CHECK(start_private_server()); }
  opened_ = true;
  return {};
}

Result<void> Session::start_private_server() {
  METIER_CHECK(make_folders(places_.data));
  const bool first = !fs::exists(places_.data + "/metier.db");
  std::array<int, 2> ready{};
  if (::pipe2(ready.data(), O_CLOEXEC) != 0) { return fail(errno_error("pipe", errno)); }
  Fd reader(ready[0]);
  Fd writer(ready[1]);
  const Fd log(::open((places_.data + "/server.log").c_str(),
                      O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600));
  const Fd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
  if (!log || !null) { return fail(errno_error(places_.data + "/server.log", errno)); }
  const bool chosen = !variable(environment_, "METIER_PYTHON").empty();
  const std::string python = chosen ? active_python(environment_) : std::string();
  const pid_t child = ::fork();
  if (child < 0) { return fail(errno_error("fork", errno)); }
  if (child == 0) {
    ::setsid();
    if (chosen) { ::setenv("METIER_PYTHON", python.c_str(), 1); }
    if (::fork() != 0) { ::_exit(0); }  // nobody's child: the command does not have to wait for it
    ::dup2(null.get(), STDIN_FILENO);
    ::dup2(null.get(), STDOUT_FILENO);
    ::dup2(log.get(), STDERR_FILENO);
    ::signal(SIGPIPE, SIG_DFL);
    ::signal(SIGINT, SIG_DFL);
    // Descriptors of whoever called the command (a lock, a pipe) must not live as long as the server does.
    ::close_range(3, ~0U, CLOSE_RANGE_CLOEXEC);
    const int fd = ::dup(writer.get());  // without close-on-exec
    ::setenv("METIER_READY_FD", std::to_string(fd).c_str(), 1);
    if (::chdir("/") != 0) { ::_exit(70); }
    ::execl(program_.c_str(), "metier", "server", "--private", "--data", places_.data.c_str(),
            static_cast<char*>(nullptr));
    ::_exit(70);
  }
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {}
  writer.reset();
  std::array<char, 64> text{};
  pollfd entry{reader.get(), POLLIN, 0};
  const auto deadline = std::chrono::steady_clock::now() + kStartPatience;
  while (::poll(&entry, 1, static_cast<int>(std::chrono::milliseconds(kStartPatience).count())) <
             0 &&
         errno == EINTR) {}
  const auto n = ::read(reader.get(), text.data(), text.size());
  bool up = n > 0;
  // Ended without "ready": another command's server may have won the start; then it answers soon.
  while (!up && std::chrono::steady_clock::now() < deadline) {
    up = answers(places_.socket);
    if (!up && !fs::exists(places_.data + "/lock")) { break; }
    if (!up) { ::usleep(5000); }
  }
  if (!up) {
    return fail(
        Error{.kind = ErrorKind::unavailable,
              .message = "the server did not start: " + last_lines(places_.data + "/server.log"),
              .fix = "its log: " + places_.data + "/server.log"});
  }
  if (first && !screen_.style().quiet) {
    screen_.say(fmt::format(
        "No server is set up: started one for you (ends when idle). Records: {}", places_.data));
  }
  return {};
}

Error Session::unreachable(Error error) const {
  if (error.kind != ErrorKind::unavailable && error.kind != ErrorKind::timed_out) { return error; }
  if (endpoint_.given) {
    error.message += " (" + origin_of("METIER_SERVER") + ")";
    if (error.fix.empty()) {
      error.fix = "start it: metier server --listen ADDR:PORT; or work without: " +
                  without("METIER_SERVER");
    }
  } else if (error.fix.empty()) {
    error.fix = "its log: " + places_.data + "/server.log";
  }
  return error;
}

Result<net::ClientResponse> Session::send_once(const net::ClientRequest& request) {
  return client_->send(request);
}

Result<Answer> Session::send(std::string method, std::string path, std::string body,
                             net::Headers headers, std::chrono::milliseconds timeout) {
  METIER_CHECK(open());
  net::ClientRequest request{.method = std::move(method),
                             .url = endpoint_.url + path,
                             .headers = std::move(headers),
                             .body = std::move(body),
                             .timeout = timeout,
                             .ca_file = variable(environment_, "SSL_CERT_FILE"),
                             .interrupted = interrupted};
  request.headers.emplace_back("user-agent", "metier");
  if (!request.body.empty()) { request.headers.emplace_back("content-type", "application/json"); }
  if (const auto secret = token(); !secret.empty()) {
    request.headers.emplace_back("authorization", "Bearer " + secret);
  }
  auto response = send_once(request);
  const bool repeatable =
      request.method == "GET" || request.method == "PUT" || request.method == "DELETE";
  if (!response && response.error().kind == ErrorKind::unavailable && repeatable &&
      !endpoint_.given) {
    // The server was killed, or ended when idle just now: records and runs are still there.
    if (!answers(places_.socket)) { METIER_CHECK(start_private_server()); }
    response = send_once(request);
  }
  if (!response) { return fail(unreachable(std::move(response).error())); }
  if (response->status >= 400) {
    auto error = error_of(response->status, response->body);
    if (response->status == 401) {
      error.message =
          token().empty()
              ? "this server wants a token"
              : "this token is not accepted (" + origin_of("METIER_TOKEN") + ", ends in …" +
                    token().substr(token().size() - std::min<std::size_t>(4, token().size())) + ")";
      error.fix = "on the server's machine: metier env";
    }
    return fail(std::move(error));
  }
  return Answer{response->status, std::move(response->headers), std::move(response->body)};
}

Result<Json> Session::get(std::string path) {
  METIER_TRY(answer, send("GET", std::move(path)));
  return parse_json(answer.body.empty() ? "null" : answer.body, {.bytes = 64U << 20U});
}

Result<Json> Session::call(std::string method, std::string path, const Json& body,
                           net::Headers headers) {
  METIER_TRY(answer, send(std::move(method), std::move(path),
                          body.is_null() ? std::string() : dump_json(body), std::move(headers),
                          std::chrono::seconds(200)));
  return parse_json(answer.body.empty() ? "null" : answer.body, {.bytes = 64U << 20U});
}

Error error_of(int status, std::string_view body) {
  Error error{.kind = error_kind_of_http(status)};
  const auto document = parse_json(body);
  const Json* detail =
      document && document->is_object() ? document->as_object().if_contains("detail") : nullptr;
  if (detail != nullptr && detail->is_object()) {
    const auto& object = detail->as_object();
    error.message = string_in(object, "reason", string_in(object, "message"));
    error.field = string_in(object, "field");
    error.fix = string_in(object, "fix");
    error.code = string_in(object, "code");
    // Submit answers 400 whatever it is (the SDK prints that best); the kind says what.
    for (const auto kind : {ErrorKind::invalid, ErrorKind::not_found, ErrorKind::conflict,
                            ErrorKind::precondition, ErrorKind::unsupported, ErrorKind::denied,
                            ErrorKind::too_large, ErrorKind::exhausted, ErrorKind::unavailable,
                            ErrorKind::cancelled, ErrorKind::user_code, ErrorKind::internal}) {
      if (string_in(object, "kind") == to_string(kind)) { error.kind = kind; }
    }
  } else if (detail != nullptr && detail->is_string()) {
    error.message = unquoted(std::string_view(detail->as_string()));
  } else if (detail != nullptr) {
    error.message = dump_json(*detail);
  }
  if (error.message.empty()) { error.message = fmt::format("the server answered {}", status); }
  if (error.code == "NeverFits") { error.kind = ErrorKind::exhausted; }
  return error;
}

int exit_code_of_run(std::string_view state, std::string_view reason) {
  if (state == "completed" || state == "skipped") { return 0; }
  if (state == "aborted" || state == "aborting") { return 4; }
  if (reason == "Internal") { return 70; }
  if (reason == "HandlerMissing" || reason == "InvalidParameter") { return 2; }
  if (reason == "ProgramMissing") { return 3; }
  return cluster_codes().contains(reason) ? 5 : 1;
}

int exit_code_of_error(const Error& error) {
  if (error.kind == ErrorKind::not_found) { return 3; }
  // The server's own port is a setting of it (2), a function's is the cluster's.
  const bool own_port = error.code == "PortTaken" && error.kind != ErrorKind::user_code;
  if (!own_port && cluster_codes().contains(error.code)) { return 5; }
  return exit_code_of(error.kind);
}

}  // namespace metier::cli
