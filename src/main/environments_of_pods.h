// What the server adds to each pod when it starts: its environment (built when it is not there), the run's token,
// the snapshot of the function's folder.
#pragma once

#include <functional>
#include <map>
#include <set>
#include <string>
#include <string_view>

#include "base/async.h"
#include "cluster/embedded/launch.h"
#include "cluster/environments/environments.h"
#include "engine/builds.h"

namespace metier {

// What is said wherever Python is needed and there is none.
inline constexpr std::string_view kNoPython = "there is no Python interpreter on this machine";
inline constexpr std::string_view kNoPythonFix =
    "apt-get install python3, or start the server with --python INTERPRETER";

// The interpreter that a wish means: a path, "3.11" (on PATH), or empty (the default).
Result<std::string> find_python(const std::string& wish, const std::string& fallback);
// METIER_PYTHON, the active virtual environment, else python3 of PATH; empty when there is none.
std::string default_python(const std::string& given);

// What builds environments: METIER_UV, else uv where `find_uv` looks; empty when there is none.
std::string uv_program();

// Version of a package beside this interpreter, found by its folder's name; empty when it is not there.
std::string package_version(const std::string& python, const std::string& package);

class PodEnvironments final : public EnvironmentBuilder {
 public:
  struct Options {
    std::string python;  // the default interpreter
    std::string lib;     // the unpacked bundle
    std::function<std::string(const std::string& project, const std::string& uid)> token;
    std::map<std::string, std::string> variables = {};  // of every pod; its own win
  };
  PodEnvironments(Executor loop, Environments& environments, Options options)
      : environments_(environments), options_(std::move(options)), scope_(loop) {}

  // For EmbeddedOptions::ambient. Errors: unavailable EnvironmentBuilding while it is built, EnvironmentFailed.
  Async<Result<Ambient>> ambient(Resource pod);
  Async<void> close();

  Async<Result<std::string>> build(BuildAsk ask) override;
  std::string log_path(const BuildAsk& ask) const override;

 private:
  Result<EnvironmentSpec> spec_of(const BuildAsk& ask) const;
  Async<void> build_aside(EnvironmentSpec spec, std::string id);
  Environments& environments_;
  Options options_;
  Scope scope_;
  std::map<std::string, std::set<std::string>> building_;  // environment → pods that wait for it
  struct Failure {
    Error error;
    std::set<std::string> untold;  // pods that waited and have not asked since
  };
  std::map<std::string, Failure> failed_;  // a new build begins with a pod that did not wait
};

}  // namespace metier
