#include "main/environments_of_pods.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>

#include "base/programs.h"

namespace metier {
namespace {

std::string path_of_programs() {
  const char* listed = std::getenv("PATH");
  return listed != nullptr && *listed != '\0' ? listed : "/usr/local/bin:/usr/bin:/bin";
}

std::vector<std::string> texts(const JsonObject& object, std::string_view key) {
  std::vector<std::string> out;
  if (const JsonArray* list = array_in(object, key)) {
    for (const Json& item : *list) {
      if (item.is_string()) { out.emplace_back(item.get_string()); }
    }
  }
  return out;
}

// Whether a container's program is Python of the pod's environment. The launcher of MPI jobs has the runner among its
// words.
bool is_python(const JsonObject& container) {
  std::vector<std::string> words = texts(container, "command");
  for (std::string& word : texts(container, "args")) { words.push_back(std::move(word)); }
  if (words.empty()) { return false; }
  const std::string& program = words.front();
  if (program.ends_with("/metier-mpi")) { return std::ranges::find(words, "mlrun") != words.end(); }
  return program == "mlrun" || program == "dask" || program == "$(METIER_PYTHON)";
}

bool needs_python(const Resource& pod) {
  for (const char* list : {"initContainers", "containers"}) {
    const JsonArray* containers = array_in(pod.spec(), list);
    if (containers == nullptr) { continue; }
    for (const Json& one : *containers) {
      if (one.is_object() && is_python(one.get_object())) { return true; }
    }
  }
  return false;
}

std::string on_path(std::string_view program) { return find_program(path_of_programs(), program); }

}  // namespace

Result<std::string> find_python(const std::string& wish, const std::string& fallback) {
  if (wish.empty()) {
    if (!fallback.empty()) { return fallback; }
    // It may have been installed since the server began.
    if (std::string found = default_python(""); !found.empty()) { return found; }
    return fail(Error{.kind = ErrorKind::not_found,
                      .message = std::string(kNoPython),
                      .fix = std::string(kNoPythonFix),
                      .code = "EnvironmentFailed"});
  }
  if (wish.find('/') != std::string::npos) {
    if (::access(wish.c_str(), X_OK) == 0) { return wish; }
    return fail(Error{.kind = ErrorKind::not_found,
                      .message = "no interpreter " + quote(wish),
                      .field = "--python",
                      .fix = "name one that exists",
                      .code = "EnvironmentFailed"});
  }
  const std::string name = wish.starts_with("python") ? wish : "python" + wish;
  if (std::string found = find_interpreter(path_of_programs(), name); !found.empty()) {
    return found;
  }
  std::string present;
  for (int minor = 9; minor <= 15; ++minor) {
    const std::string version = "3." + std::to_string(minor);
    if (!find_interpreter(path_of_programs(), "python" + version).empty()) {
      present += (present.empty() ? "" : ", ") + version;
    }
  }
  return fail(Error{.kind = ErrorKind::not_found,
                    .message = "no interpreter " + quote(name) + " on this machine",
                    .field = "--python",
                    .fix = "choose one that is here: " + (present.empty() ? "none found" : present),
                    .code = "EnvironmentFailed"});
}

std::string default_python(const std::string& given) {
  if (!given.empty()) {
    return given.find('/') != std::string::npos
               ? std::filesystem::absolute(given).lexically_normal().string()
               : on_path(given.starts_with("python") ? given : "python" + given);
  }
  if (const char* own = std::getenv("METIER_PYTHON"); own != nullptr && *own != '\0') {
    return default_python(own);
  }
  for (const char* name : {"VIRTUAL_ENV", "CONDA_PREFIX"}) {
    if (const char* prefix = std::getenv(name); prefix != nullptr && *prefix != '\0') {
      const std::string python = std::string(prefix) + "/bin/python";
      if (::access(python.c_str(), X_OK) == 0) { return python; }
    }
  }
  return on_path("python3");
}

std::string uv_program() {
  const char* given = std::getenv("METIER_UV");
  return find_uv(given == nullptr ? "" : given, path_of_programs());
}

std::string package_version(const std::string& python, const std::string& package) {
  namespace fs = std::filesystem;
  const fs::path lib = fs::path(python).parent_path().parent_path() / "lib";
  const std::string start = package + "-";
  std::error_code error;
  for (fs::directory_iterator folder(lib, error), end; !error && folder != end;
       folder.increment(error)) {
    if (!folder->path().filename().string().starts_with("python3")) { continue; }
    for (const char* packages : {"site-packages", "dist-packages"}) {
      std::error_code missing;
      for (fs::directory_iterator one(folder->path() / packages, missing), last;
           !missing && one != last; one.increment(missing)) {
        const std::string name = one->path().filename().string();
        if (name.starts_with(start) && name.ends_with(".dist-info")) {
          return name.substr(start.size(), name.size() - start.size() - 10);
        }
      }
    }
  }
  return {};
}

Result<EnvironmentSpec> PodEnvironments::spec_of(const BuildAsk& ask) const {
  EnvironmentSpec spec;
  METIER_TRY(python, find_python(ask.python, options_.python));
  spec.python = python;
  METIER_TRY(requirements, clean_requirements(ask.requirements));
  spec.requirements = std::move(requirements);
  spec.commands = ask.commands;
  return spec;
}

Async<Result<Ambient>> PodEnvironments::ambient(Resource pod) {
  Ambient out;
  for (const auto& [name, value] : options_.variables) { out.env.emplace_back(name, value); }
  const auto uid = pod.metadata.labels.find("mlrun/uid");
  if (uid != pod.metadata.labels.end() && options_.token) {
    out.env.emplace_back("MLRUN_HTTPDB__TOKEN",
                         options_.token(pod.metadata.name_space, uid->second));
  }
  BuildAsk ask;
  if (const auto wish = pod.metadata.annotations.find("metier.dev/environment");
      wish != pod.metadata.annotations.end()) {
    if (auto document = parse_json(wish->second); document && document->is_object()) {
      ask.python = string_in(document->get_object(), "python");
      ask.requirements = texts(document->get_object(), "requirements");
      ask.commands = texts(document->get_object(), "commands");
    }
  }
  auto spec = spec_of(ask);
  if (!spec) {
    // A program that needs no interpreter runs without one.
    const bool asks = !ask.python.empty() || !ask.requirements.empty() || !ask.commands.empty();
    if (!asks && !needs_python(pod)) { co_return out; }
    co_return fail(std::move(spec.error()));
  }
  const std::string id = environment_id(*spec);
  if (!environments_.ready(*spec)) {
    const std::string who =
        pod.metadata.name_space + "/" + pod.metadata.name + "/" + pod.metadata.uid;
    if (const auto failed = failed_.find(id);
        failed != failed_.end() && failed->second.untold.erase(who) > 0) {
      Error error = failed->second.error;
      if (failed->second.untold.empty()) { failed_.erase(failed); }
      co_return fail(std::move(error));
    }
    const bool builds = building_.contains(id);
    building_[id].insert(who);
    if (!builds) { scope_.spawn("environment " + id, build_aside(*spec, id)); }
    const std::string progress = environments_.progress(id);
    co_return fail(Error{.kind = ErrorKind::unavailable,
                         .message = progress.empty()
                                        ? "its environment is being built"
                                        : "its environment is being built: " + progress,
                         .code = "EnvironmentBuilding"});
  }
  auto environment = co_await environments_.resolve(*spec);
  if (!environment) { co_return fail(std::move(environment.error())); }
  out.python = environment->python;
  out.environment = environment->id;
  out.path_suffix = options_.lib + "/bin";
  out.env.emplace_back("METIER_PYTHON", environment->python);
  if (const auto context = pod.metadata.annotations.find("metier.dev/context");
      context != pod.metadata.annotations.end()) {
    out.env.emplace_back("PYTHONPATH", context->second);
  }
  co_return out;
}

Async<void> PodEnvironments::build_aside(EnvironmentSpec spec, std::string id) {
  auto built = co_await environments_.resolve(std::move(spec));
  const auto waited = building_.extract(id);
  failed_.erase(id);
  if (!built && !waited.empty()) {
    failed_.emplace(id, Failure{.error = built.error(), .untold = waited.mapped()});
  }
}

Async<Result<std::string>> PodEnvironments::build(BuildAsk ask) {
  auto spec = spec_of(ask);
  if (!spec) { co_return fail(std::move(spec.error())); }
  auto built = co_await environments_.resolve(std::move(*spec));
  if (!built) { co_return fail(std::move(built.error())); }
  co_return built->id;
}

std::string PodEnvironments::log_path(const BuildAsk& ask) const {
  auto spec = spec_of(ask);
  return spec ? environments_.log_path(environment_id(*spec)) : std::string();
}

Async<void> PodEnvironments::close() {
  auto closed = co_await scope_.close(std::chrono::seconds(2));
  static_cast<void>(closed);
}

}  // namespace metier
