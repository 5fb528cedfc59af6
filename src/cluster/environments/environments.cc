#include "cluster/environments/environments.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>

#include "base/clock.h"
#include "base/digest.h"
#include "base/files.h"
#include "cluster/environments/program.h"

namespace metier {
namespace {

namespace fs = std::filesystem;

std::string trimmed(std::string_view text) {
  const auto first = text.find_first_not_of(" \t\r");
  if (first == std::string_view::npos) { return {}; }
  return std::string(text.substr(first, text.find_last_not_of(" \t\r") - first + 1));
}

// The last `count` lines of a file, for an error.
std::string last_lines(const std::string& path, std::size_t count) {
  auto text = read_file(path, 64U << 20U);
  if (!text) { return {}; }
  std::size_t at = text->size();
  while (at > 0 && (*text)[at - 1] == '\n') { --at; }
  text->resize(at);
  for (; count > 0 && at != std::string::npos && at > 0; --count) {
    at = text->rfind('\n', at - 1);
  }
  return at == std::string::npos || at == 0 ? *text : text->substr(at + 1);
}

JsonArray list_of(const std::vector<std::string>& texts) {
  JsonArray out;
  for (const auto& text : texts) { out.emplace_back(text); }
  return out;
}

std::vector<std::string> texts_of(const JsonObject& object, std::string_view key) {
  std::vector<std::string> out;
  if (const auto* list = array_in(object, key)) {
    for (const auto& item : *list) {
      if (const auto* text = item.if_string()) { out.emplace_back(*text); }
    }
  }
  return out;
}

// Forgets a build when the coroutine that ran it ends, however it ends.
template <class Map, class Build>
struct Finish {
  Map& map;
  std::string id;
  Build build;
  ~Finish() {
    build->finished = true;
    build->done.notify();
    map.erase(id);
  }
};

}  // namespace

Result<std::vector<std::string>> clean_requirements(const std::vector<std::string>& lines) {
  std::vector<std::string> out;
  for (const auto& raw : lines) {
    if (raw.find('\n') != std::string::npos || raw.find('\0') != std::string::npos) {
      return fail(invalid("spec.build.requirements", fmt::format("{} has a line break", quote(raw)),
                          "give one requirement a line"));
    }
    auto line = trimmed(raw);
    if (const auto comment = line.find(" #"); comment != std::string::npos) {
      line = trimmed(line.substr(0, comment));
    }
    if (line.empty() || line.front() == '#') { continue; }
    if (line.front() == '-') {
      return fail(
          invalid("spec.build.requirements", fmt::format("{} is an option", quote(line)),
                  "list packages only; set an index for all with UV_INDEX_URL on the server"));
    }
    if (std::ranges::find(out, line) == out.end()) { out.push_back(line); }
  }
  return out;
}

std::string environment_id(const EnvironmentSpec& spec) {
  JsonObject key{{"python", spec.python}};
  if (!spec.requirements.empty()) { key["requirements"] = list_of(spec.requirements); }
  if (!spec.commands.empty()) { key["commands"] = list_of(spec.commands); }
  return sha256_hex(dump_json(Json(std::move(key)))).substr(0, 16);
}

Environments::Environments(Executor executor, Options options)
    : executor_(executor), options_(std::move(options)) {}

std::string Environments::log_path(const std::string& id) const {
  return options_.folder + "/" + id + ".log";
}

bool Environments::ready(const EnvironmentSpec& spec) const {
  if (spec.requirements.empty() && spec.commands.empty()) { return true; }
  return fs::exists(options_.folder + "/" + environment_id(spec) + "/.ready");
}

std::string Environments::progress(const std::string& id) const {
  return building_.contains(id) ? last_lines(log_path(id), 1) : std::string();
}

Async<Result<Environment>> Environments::resolve(EnvironmentSpec spec) {
  auto requirements = clean_requirements(spec.requirements);
  if (!requirements) { co_return fail(std::move(requirements.error())); }
  spec.requirements = std::move(*requirements);
  if (::access(spec.python.c_str(), X_OK) != 0) {
    co_return fail(Error{.kind = ErrorKind::not_found,
                         .message = fmt::format("no interpreter at {}", quote(spec.python)),
                         .fix = "set METIER_PYTHON or --python to one that is there",
                         .code = "EnvironmentFailed"});
  }
  const auto id = environment_id(spec);
  if (spec.requirements.empty() && spec.commands.empty()) {
    co_return Environment{id, spec.python};
  }
  const auto folder = options_.folder + "/" + id;
  while (!fs::exists(folder + "/.ready")) {
    if (const auto found = building_.find(id); found != building_.end()) {
      const auto other = found->second;
      while (!other->finished) { co_await other->done.wait(other->done.generation()); }
      if (fs::exists(folder + "/.ready")) { break; }
      co_return failed(id, "the build that was running");
    }
    const auto build_state = std::make_shared<Build>(executor_);
    building_[id] = build_state;
    const Finish<decltype(building_), std::shared_ptr<Build>> finish{building_, id, build_state};
    auto built = co_await build(spec, id);
    if (!built) { co_return fail(std::move(built.error())); }
  }
  co_return Environment{id, folder + "/bin/python"};
}

std::vector<std::string> Environments::uv_command(const std::string& python) const {
  if (!options_.uv.empty()) { return {options_.uv}; }
  return {python, "-m", "uv"};
}

std::unexpected<Error> Environments::failed(const std::string& id, const std::string& step) const {
  // One line: it travels as the reason of a pod. The whole log stays in its file. What uv says before its error is of steps that
  // went well.
  constexpr std::size_t kMost = 400;
  std::string said;
  const auto tail = last_lines(log_path(id), 6);
  for (std::string_view rest = tail; !rest.empty();) {
    const auto end = rest.find('\n');
    const auto line = trimmed(rest.substr(0, end));
    if (line.starts_with("error:") || line.starts_with("ERROR:")) { said.clear(); }
    if (!line.empty()) { said += (said.empty() ? "" : " ") + line; }
    rest = end == std::string_view::npos ? std::string_view{} : rest.substr(end + 1);
  }
  if (said.size() > kMost) { said = "…" + said.substr(said.size() - kMost); }
  return fail(Error{
      .kind = ErrorKind::exhausted,
      .message = fmt::format("environment {} could not be built: {} failed: {} (whole log: {})", id,
                             step, said, log_path(id)),
      .field = "spec.build.requirements",
      .fix = "mend the requirements and run it again",
      .code = "EnvironmentFailed"});
}

Async<Result<std::string>> Environments::site_packages(const std::string& python,
                                                       const std::string& log) {
  const auto out = log + ".site";
  fs::remove(out);
  Program program{
      .arguments =
          {python, "-c",
           "import sys; print('\\n'.join(p for p in sys.path if p.endswith('-packages')))"},
      .unset = {"PYTHONPATH", "PYTHONHOME"},
      .log = out};
  auto code = co_await run_program(executor_, std::move(program));
  if (!code) { co_return fail(std::move(code.error())); }
  auto text = read_file(out);
  fs::remove(out);
  if (*code != 0 || !text) {
    co_return fail(ErrorKind::invalid,
                   fmt::format("{} is not a working interpreter", quote(python)));
  }
  co_return std::move(*text);
}

Async<Result<void>> Environments::build(const EnvironmentSpec& spec, const std::string& id) {
  const auto folder = options_.folder + "/" + id;
  const auto log = log_path(id);
  std::error_code ec;
  fs::create_directories(options_.folder, ec);
  fs::remove_all(folder, ec);  // half-built by a server that died
  fs::remove(log, ec);
  options_.log.info("environment is being built",
                    {{"environment", Json(id)}, {"python", Json(spec.python)}});

  auto base = co_await site_packages(spec.python, log);
  if (!base) { co_return fail(std::move(base.error())); }
  const std::vector<std::string> clean{"PYTHONPATH", "PYTHONHOME", "PYTHONDONTWRITEBYTECODE",
                                       "VIRTUAL_ENV"};
  const auto uv = uv_command(spec.python);
  auto step = [&](std::vector<std::string> arguments) {
    auto all = uv;
    all.insert(all.end(), arguments.begin(), arguments.end());
    return run_program(
        executor_,
        Program{
            .arguments = std::move(all), .env = {{"NO_COLOR", "1"}}, .unset = clean, .log = log});
  };
  std::vector<std::string> make{"venv", "--python", spec.python, folder};
  auto made = co_await step(std::move(make));
  const bool is_module = uv.size() > 1;  // asked of the interpreter because no program was found
  if ((!made && made.error().kind == ErrorKind::not_found) || (made && *made != 0 && is_module)) {
    co_return fail(Error{.kind = ErrorKind::exhausted,
                         .message = "environments are built by uv, which is not there",
                         .fix = "pip install uv, or set METIER_UV to it",
                         .code = "EnvironmentFailed"});
  }
  if (!made) { co_return fail(std::move(made.error())); }
  if (*made != 0) { co_return failed(id, "uv venv"); }

  // The packages of the interpreter it builds on stay visible, behind its own.
  for (const auto& entry : fs::directory_iterator(folder + "/lib", ec)) {
    auto written = write_file(entry.path() / "site-packages" / "metier_base.pth", *base, 0644);
    if (!written) { co_return fail(std::move(written.error())); }
  }
  if (!spec.requirements.empty()) {
    std::vector<std::string> install{
        "pip", "install", "--compile-bytecode", "--python", folder + "/bin/python", "--"};
    install.insert(install.end(), spec.requirements.begin(), spec.requirements.end());
    auto installed = co_await step(std::move(install));
    if (!installed) { co_return fail(std::move(installed.error())); }
    if (*installed != 0) { co_return failed(id, "uv pip install"); }
  }
  for (const auto& command : spec.commands) {
    if (command == "@nuclio.postCopy") { continue; }  // Nuclio's mark: where an image gets the code
    const char* path = std::getenv("PATH");
    Program program{
        .arguments = {"/bin/sh", "-c", command},
        .env = {{"VIRTUAL_ENV", folder},
                {"PATH", folder + "/bin:" + (path == nullptr ? "/usr/bin:/bin" : path)}},
        .unset = {"PYTHONPATH", "PYTHONHOME", "PYTHONDONTWRITEBYTECODE"},
        .folder = folder,
        .log = log};
    auto code = co_await run_program(executor_, std::move(program));
    if (!code) { co_return fail(std::move(code.error())); }
    if (*code != 0) { co_return failed(id, fmt::format("command {}", quote(command))); }
  }
  JsonObject about{{"python", spec.python},
                   {"requirements", list_of(spec.requirements)},
                   {"commands", list_of(spec.commands)},
                   {"built", to_iso(system_clock().now())}};
  co_return write_record(folder + "/.ready", dump_json(Json(std::move(about))));
}

std::vector<EnvironmentInfo> Environments::list() const {
  std::vector<EnvironmentInfo> out;
  std::error_code ec;
  for (const auto& entry : fs::directory_iterator(options_.folder, ec)) {
    if (!entry.is_directory()) { continue; }
    EnvironmentInfo info{.id = entry.path().filename().string(), .state = "failed"};
    if (building_.contains(info.id)) { info.state = "building"; }
    if (auto record = read_record(entry.path() / ".ready")) {
      if (auto about = parse_json(*record); about && about->is_object()) {
        const auto& object = about->get_object();
        info.python = string_in(object, "python");
        info.requirements = texts_of(object, "requirements");
        info.built = string_in(object, "built");
        info.state = "ready";
      }
    }
    out.push_back(std::move(info));
  }
  std::ranges::sort(out, {}, &EnvironmentInfo::id);
  return out;
}

}  // namespace metier
