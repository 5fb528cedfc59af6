// Environments instead of images: an interpreter with a set of packages, content-addressed by what was asked,
// built once by uv, kept below <data>/environments, shared by all runs.
//
//   <folder>/<id>/          the virtual environment      <folder>/<id>.log   what building printed
//   <folder>/<id>/.ready    written last, durable: an environment without it is built anew
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/async.h"
#include "base/json.h"
#include "base/log.h"

namespace metier {

struct EnvironmentSpec {
  std::string python;  // the interpreter that it builds on; its packages stay visible
  std::vector<std::string> requirements;  // pip requirement lines, without options
  std::vector<std::string> commands;      // shell commands, run in order after the packages
};

struct Environment {
  std::string id;      // 16 hex digits
  std::string python;  // the interpreter to run
};

struct EnvironmentInfo {
  std::string id;
  std::string python;
  std::vector<std::string> requirements;
  std::string state;  // "ready", "building", "failed"
  std::string built;  // time, ISO
};

// Requirement lines as MLRun cleans them: comments and blanks away, duplicates once, order kept.
// Errors: invalid for a line with an option or a line break ("options are not taken from requirements").
Result<std::vector<std::string>> clean_requirements(const std::vector<std::string>& lines);

// Identity of an environment; an interpreter without additions is its own.
std::string environment_id(const EnvironmentSpec& spec);

class Environments final {
 public:
  struct Options {
    std::string folder;
    std::string uv;  // the program; empty = `python -m uv` of the interpreter
    Logger log;
  };
  Environments(Executor executor, Options options);

  // The environment, built now when it is not there; callers of one that is being built wait for it.
  // Errors: not_found (no such interpreter), invalid (requirements), exhausted with code EnvironmentFailed and
  // the last lines of the build's log.
  Async<Result<Environment>> resolve(EnvironmentSpec spec);
  // Whether `resolve` would answer at once.
  bool ready(const EnvironmentSpec& spec) const;
  // The last line that a running build printed; empty when none is running.
  std::string progress(const std::string& id) const;
  std::string log_path(const std::string& id) const;
  std::vector<EnvironmentInfo> list() const;

 private:
  struct Build {
    explicit Build(Executor executor) : done(executor) {}
    Signal done;
    bool finished = false;
  };
  Async<Result<void>> build(const EnvironmentSpec& spec, const std::string& id);
  Async<Result<std::string>> site_packages(const std::string& python, const std::string& log);
  std::vector<std::string> uv_command(const std::string& python) const;
  std::unexpected<Error> failed(const std::string& id, const std::string& step) const;

  Executor executor_;
  Options options_;
  std::map<std::string, std::shared_ptr<Build>> building_;
};

}  // namespace metier
