// The contract of a kind: a pure translation in both directions, for a run or for a deployment. No I/O.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "model/function.h"
#include "model/run.h"
#include "resource/pod.h"
#include "resource/resource.h"
#include "resource/status.h"

namespace metier {

enum class Executes { in_caller, on_host, in_pods, by_call };

struct KindTraits {
  std::string_view name;
  std::string_view summary;  // one line for `metier kinds`
  Executes executes = Executes::in_pods;
  bool deploys = false;  // has a deployment (dask, nuclio, serving)
  bool abortable = true;
  bool nested_hyperparams = true;  // iterations expand inside the pod
  bool stores_function = true;     // handler is never stored
  bool available = true;         // false: can be created, described, exported; running it is exit 5
  std::string_view unavailable;  // the sentence that says so
};

// What lowering may know besides the subject. Plain data.
struct Site {
  std::string name_space = "default";  // of what is made, when the function names no project
  std::string api_url;                 // MLRUN_DBPATH of pods
  std::string default_image = "mlrun/mlrun";
  Json default_resources;  // default_function_pod_resources, may be null
  std::vector<std::string>
      project_secret_keys;  // of mlrun-project-secrets-<project>, internal ones left out
  std::vector<std::string>
      valid_priority_classes;  // kind spark names a class only when there are some
  std::map<std::string, std::string> node_selector;
  std::string mpi_api = "v1";
  std::string
      environment;  // what pods run in besides their image (interpreter, requirements, user), as a text
  bool embedded = true;
};

struct Subject {
  const Function& function;
  const Run* run = nullptr;  // null for a deployment
  std::int64_t attempt = 1;
};

struct Part {        // what `describe` and `logs` list
  std::string role;  // "main", "launcher", "worker", "rank"
  int index = 0;
  std::string pod;
  std::string container;  // empty: the pod's first
};
struct Endpoint {
  std::string name;
  std::string service;
  std::string port;
  std::string path;
};
struct Failure {
  std::string code;  // "OOMKilled", "HandlerError"
  std::string message;
  std::string part;  // pod of the first failure
  int rank = -1;     // the rank that failed first, where there are ranks
  int exit_code = 0;
  int signal = 0;
};
struct Observation {
  RunState state = RunState::pending;
  std::string reason;  // while pending or after a failure: reason code
  std::string message;
  std::optional<Failure> first_failure;
  std::vector<Part> parts;
  std::vector<Endpoint> endpoints;
  std::optional<Time> started;  // the first process of the user ran
  std::optional<Time> finished;
  Json progress;  // may be null
  // Of a deployment. Its state, when `state` does not say it: "building", "unhealthy", "scaledToZero".
  std::string function_state;
  Json function_status;  // further fields of the function's status (an object), may be null
  std::vector<Condition> conditions;
  std::string host;
  bool service_ends = false;  // what it shares with other runs is on its way out
  bool pods_stay = false;     // that live at its end, until its resources are removed
};

class Kind {
 public:
  virtual ~Kind() = default;
  virtual const KindTraits& traits() const = 0;
  // What cannot be right whatever the site: checked at submit, before anything is stored. All problems at once.
  virtual Result<void> validate(const Subject& subject) const = 0;
  // Fields of the function that have no effect at the site, a sentence each. They are told and never refused: MLRun's server
  // has a use for them.
  virtual std::vector<std::string> ignored(const Subject& /*subject*/, const Site& /*site*/) const {
    return {};
  }
  // The objects that say it, complete with names; the same subject and site give the same objects, byte for byte.
  // Errors: invalid, unsupported (kind not built, or not for a deployment).
  virtual Result<std::vector<Resource>> lower(const Subject& subject, const Site& site) const = 0;
  // What these resources mean for the subject. `resources` may be partial, stale or repeated; a run that is
  // terminal stays what it is.
  virtual Observation observe(const Subject& subject, std::span<const ResourceStatus> resources,
                              Time now) const = 0;
};

// Kinds by name, in the order they were added. `main` fills it (kind/builtin.h lists them); nothing registers itself.
// "remote" and "nuclio:<sub>" are nuclio, "" is local.
class KindRegistry {
 public:
  void add(std::unique_ptr<Kind> kind);
  // Errors: invalid with the nearest name and the list of kinds.
  Result<const Kind*> find(std::string_view name) const;
  std::vector<const Kind*> all() const;

 private:
  std::map<std::string, std::unique_ptr<Kind>, std::less<>> kinds_;
  std::vector<std::string> order_;
};

}  // namespace metier
