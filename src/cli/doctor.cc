// `metier doctor`: what this machine, its server and its environments need to work well, each failure with its fix.
#include <fmt/format.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <filesystem>

#include "base/files.h"
#include "base/interfaces.h"
#include "base/programs.h"
#include "base/quantity.h"
#include "cli/outcome.h"
#include "cli/verbs.h"
#include "net/client.h"
#include "net/url.h"

namespace metier::cli {
namespace {

namespace fs = std::filesystem;
constexpr std::uint64_t kLittleDisk = 1ULL << 30U;
constexpr rlim_t kFewFiles = 4096;

enum class Mark { fine, look, failed };

struct Check {
  std::string group;
  std::string name;
  Mark mark = Mark::fine;
  std::string text;
  std::string fix;
};

// The server, asked without starting one.
std::optional<Json> ask(const std::string& url, const std::string& token) {
  net::ClientRequest request{.url = url, .timeout = std::chrono::milliseconds(2000)};
  if (!token.empty()) { request.headers.emplace_back("authorization", "Bearer " + token); }
  auto answer = net::make_blocking_client()->send(request);
  if (!answer || answer->status != 200) { return std::nullopt; }
  auto body = parse_json(answer->body, {.bytes = 16U << 20U});
  return body ? std::optional(std::move(*body)) : std::nullopt;
}

void check_server(Command& command, const std::optional<Json>& server, const Endpoint& endpoint,
                  std::vector<Check>& out) {
  if (!server) {
    out.push_back(endpoint.given
                      ? Check{"installation", "server", Mark::failed,
                              "no server answers at " + endpoint.url + " (" +
                                  command.session.origin_of("METIER_SERVER") + ")",
                              "start it: metier server --listen ADDR:PORT, or " +
                                  command.session.without("METIER_SERVER")}
                      : Check{"installation", "server", Mark::fine,
                              "no server runs now; commands start one by themselves", ""});
    return;
  }
  const auto version = std::string(string_at(*server, "version"));
  const bool same = version == command.program.version;
  const auto pid = server->is_object() ? int_in(server->as_object(), "pid").value_or(0) : 0;
  out.push_back(
      {"installation", "server", same ? Mark::fine : Mark::look,
       fmt::format("metier {} (client) and {} (server, pid {})", command.program.version, version,
                   pid),
       same ? "" : fmt::format("restart the server: kill {}; it starts again by itself", pid)});
}

// Of the data folder's own server: where it listens besides its socket.
void check_listening(const Places& places, std::vector<Check>& out) {
  auto text = read_file(places.data + "/url", 4096);
  if (!text) { return; }
  text->erase(std::min(text->find('\n'), text->size()));
  const auto url = net::parse_url(*text);
  if (url && is_all_interfaces(url->host)) {
    out.push_back({"installation", "ListensOnAllInterfaces", Mark::look,
                   fmt::format("every network of this machine reaches the server: {}", *text),
                   "listen on one address: metier help ListensOnAllInterfaces"});
  }
}

void check_data(const Places& places, std::vector<Check>& out) {
  auto folder = places.data;
  while (!fs::exists(folder) && folder.size() > 1) { folder = fs::path(folder).parent_path(); }
  if (::access(folder.c_str(), W_OK) != 0) {
    out.push_back({"installation", "data", Mark::failed, folder + " cannot be written",
                   "choose another folder: export METIER_DATA=FOLDER"});
  } else {
    out.push_back({"installation", "data", Mark::fine, "records are in " + places.data, ""});
  }
  struct statvfs disk{};
  if (::statvfs(folder.c_str(), &disk) != 0) { return; }
  const std::uint64_t free = static_cast<std::uint64_t>(disk.f_bavail) * disk.f_frsize;
  out.push_back(
      {"machine", "disk", free < kLittleDisk ? Mark::look : Mark::fine,
       fmt::format("{} free where the records are", human_bytes(static_cast<std::int64_t>(free))),
       free < kLittleDisk ? "make room, or move them: export METIER_DATA=FOLDER" : ""});
}

void check_machine(std::vector<Check>& out) {
  rlimit files{};
  if (::getrlimit(RLIMIT_NOFILE, &files) == 0) {
    const bool few = files.rlim_cur < kFewFiles && files.rlim_max < kFewFiles;
    out.push_back(
        {"machine", "open files", few ? Mark::look : Mark::fine,
         fmt::format("open files: {} (may be raised to {})", files.rlim_cur, files.rlim_max),
         few ? "ulimit -n 65536, or LimitNOFILE= of its unit" : ""});
  }
  const bool root = ::geteuid() == 0;
  const bool v2 = fs::exists("/sys/fs/cgroup/cgroup.controllers");
  const bool v1 = !v2 && fs::exists("/sys/fs/cgroup/memory");
  const bool writable = ::access(v2 ? "/sys/fs/cgroup" : "/sys/fs/cgroup/memory", W_OK) == 0;
  const bool limits = (v1 || v2) && (writable || (v2 && !root));
  out.push_back(
      {"machine", "limits", limits ? Mark::fine : Mark::look,
       limits ? fmt::format("cgroup {}", v2 ? "v2" : "v1")
              : "limits of cpu and memory are not enforced: no cgroup can be written",
       limits ? "" : "run the server as root, or with a delegated cgroup (systemd: Delegate=yes)"});
  const auto allowed = read_file("/proc/sys/user/max_user_namespaces", 64);
  const auto clone = read_file("/proc/sys/kernel/unprivileged_userns_clone", 64);
  const bool spaces =
      root || (allowed && !allowed->starts_with("0") && (!clone || !clone->starts_with("0")));
  out.push_back(
      {"machine", "namespaces", spaces ? Mark::fine : Mark::look,
       spaces ? "pods have their own mounts"
              : "pods have no mounts of their own: volumes at foreign paths are refused",
       spaces ? "" : "sysctl kernel.unprivileged_userns_clone=1 user.max_user_namespaces=10000"});
}

void check_environments(Command& command, const std::optional<Json>& listed,
                        std::vector<Check>& out) {
  const auto python = active_python(command.environment());
  const bool there = !python.empty() && ::access(python.c_str(), X_OK) == 0;
  out.push_back({"environments", "python", there ? Mark::fine : Mark::look,
                 there ? "the default environment is that of " + python
                 : python.empty()
                     ? "there is no Python interpreter: only programs and native handlers run"
                     : python + " is not there (METIER_PYTHON)",
                 there ? "" : "apt-get install python3, or set METIER_PYTHON to an interpreter"});
  const auto uv = find_uv(variable(command.environment(), "METIER_UV"),
                          variable(command.environment(), "PATH"));
  out.push_back({"environments", "uv", uv.empty() ? Mark::look : Mark::fine,
                 uv.empty() ? "there is no uv: --requirements cannot be installed without it"
                            : "requirements are installed by " + uv,
                 uv.empty() ? "pip install uv, or set METIER_UV to it" : ""});
  const auto* all =
      listed && listed->is_object() ? array_in(listed->as_object(), "environments") : nullptr;
  if (all == nullptr) { return; }
  std::size_t good = 0;
  for (const auto& one : *all) {
    const auto python = std::string(string_at(one, "python"));
    const auto id = std::string(string_at(one, "id"));
    if (python.empty() || ::access(python.c_str(), X_OK) == 0) {
      ++good;
      continue;
    }
    out.push_back({"environments", id, Mark::failed,
                   fmt::format("environment {} is broken: {} is not there any more", id, python),
                   fmt::format("install it again, or run with another: --python X.Y")});
  }
  out.push_back({"environments", "built", Mark::fine,
                 fmt::format("{} environment{} built", good, good == 1 ? "" : "s"), ""});
}

void check_clients(Command& command, std::vector<Check>& out) {
  const auto path = variable(command.environment(), "MLRUN_DBPATH");
  if (path.empty()) {
    out.push_back({"clients", "mlrun", Mark::fine,
                   "the mlrun SDK is not pointed anywhere (MLRUN_DBPATH is not set)", ""});
    return;
  }
  const bool reached =
      ask(path + "/api/v1/healthz", variable(command.environment(), "METIER_TOKEN")).has_value();
  out.push_back({"clients", "mlrun", reached ? Mark::fine : Mark::failed,
                 fmt::format("the mlrun SDK {} {} (MLRUN_DBPATH)",
                             reached ? "reaches" : "does not reach", path),
                 reached ? "" : "metier server --listen ADDR:PORT, then: eval \"$(metier env)\""});
}

std::string_view word_of(Mark mark) {
  return mark == Mark::fine ? "fine" : mark == Mark::look ? "look" : "failed";
}
Role role_of(Mark mark) {
  return mark == Mark::fine ? Role::good : mark == Mark::look ? Role::care : Role::bad;
}

void show(Command& command, const std::vector<Check>& checks) {
  auto& screen = command.screen;
  for (const auto* group : {"installation", "machine", "environments", "clients"}) {
    screen.out(std::string(group) + "\n");
    for (const auto& check : checks) {
      if (check.group != group) { continue; }
      const auto mark = screen.paint_out(
          role_of(check.mark), check.mark == Mark::look ? "!" : screen.glyph(role_of(check.mark)));
      screen.out(fmt::format("{} {}{}\n", mark, printable(check.text),
                             check.fix.empty() ? "" : "   fix: " + printable(check.fix)));
    }
  }
}

}  // namespace

Result<int> doctor_main(Command& command) {
  METIER_TRY(places, find_places(command.environment(), ::geteuid() == 0));
  METIER_TRY(endpoint, find_endpoint(command.environment(), places));
  const auto token = variable(command.environment(), "METIER_TOKEN");
  std::vector<Check> checks;
  check_server(command, ask(endpoint.url + "/api/metier/v1/version", token), endpoint, checks);
  check_listening(places, checks);
  check_data(places, checks);
  check_machine(checks);
  check_environments(command, ask(endpoint.url + "/api/metier/v1/environments", token), checks);
  check_clients(command, checks);
  const auto count = [&](Mark mark) { return std::ranges::count(checks, mark, &Check::mark); };
  const auto failed = count(Mark::failed);
  const int code = failed > 0 ? 5 : 0;
  if (command.output == "json" || command.output == "yaml") {
    JsonArray list;
    for (const auto& check : checks) {
      list.push_back(JsonObject{{"group", check.group},
                                {"check", check.name},
                                {"state", word_of(check.mark)},
                                {"text", check.text},
                                {"fix", check.fix}});
    }
    command.output == "json" ? command.screen.json(list) : command.screen.yaml(list);
    return code;
  }
  show(command, checks);
  if (!command.screen.style().quiet) {
    command.screen.say(fmt::format("\n{} failed, {} to look at, {} fine {} exit {}", failed,
                                   count(Mark::look), count(Mark::fine), command.screen.dot(),
                                   code));
  }
  return code;
}

}  // namespace metier::cli
