// The common methods of functions, with MLRun's results and corner cases (function-kinds reference 3.1-3.6):
// set_env, with_limits, mounts, code, requirements. Each works on the document of one function and either does all
// of its work or nothing. Kinds without pods refuse what has no meaning for them (unsupported); environment
// variables, labels and code are for every kind.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "model/function.h"

namespace metier {

// --- environment -------------------------------------------------------------------------------------------

// Replaces the entry of that name in its place, else appends. `value` becomes text as Python's str() makes it and
// wins over `value_from`; with neither the entry has a name only.
Result<void> set_env(Function& function, std::string_view name, const Json& value,
                     const Json& value_from = nullptr);
// Exactly one of both. A file is dotenv: comments, export, quotes, ${A} of earlier lines.
// Errors: invalid (both, neither, a line without "="), not_found (the file).
Result<void> set_envs(Function& function, const JsonObject* variables,
                      const std::optional<std::filesystem::path>& file = {});
// {name, valueFrom: {secretKeyRef: {name: secret, key: key or name}}}
Result<void> set_env_from_secret(Function& function, std::string_view name, std::string_view secret,
                                 std::string_view key = {});
// Every key of the secret as a variable: {secretRef: {name: secret}} in env_from, once.
// Errors: invalid (no name), unsupported (a kind without pods).
Result<void> set_env_from_secret_ref(Function& function, std::string_view secret);
// The value's text, the source object, or nullopt.
std::optional<Json> get_env(const Function& function, std::string_view name);
// The variables of a dotenv text, in order.
Result<std::vector<std::pair<std::string, std::string>>> parse_dotenv(std::string_view text);

// --- resources ---------------------------------------------------------------------------------------------

struct LimitArguments {
  Json mem;  // null, "", 0: not given
  Json cpu;
  Json gpus;
  std::string gpu_type = "nvidia.com/gpu";
  bool patch = false;  // false replaces the whole map, an earlier GPU included
};
// spec.resources. Errors: invalid with function.spec.resources.(limits|requests).(memory|cpu|gpus); unsupported for
// spark and dask, which have roles.
Result<void> with_limits(Function& function, const LimitArguments& arguments);
Result<void> with_requests(Function& function,
                           const LimitArguments& arguments);  // `gpus` is not read
// The same for one role of dask ("scheduler_resources", "worker_resources") and spark ("driver_resources", …).
Result<void> with_role_limits(Function& function, std::string_view field,
                              const LimitArguments& arguments);
Result<void> with_role_requests(Function& function, std::string_view field,
                                const LimitArguments& arguments);
// Sets limits[gpu_type] only; dask: of the workers.
Result<void> gpus(Function& function, const Json& count,
                  std::string_view gpu_type = "nvidia.com/gpu");
// MLRun's rule for quantities, looser than Kubernetes': "12M", "12e6", "50mi" pass, "1g", "1GPU" do not.
bool is_mlrun_quantity(std::string_view text);

// --- placement and pod settings ----------------------------------------------------------------------------

Result<void> with_annotations(Function& function, const JsonObject& annotations);
// Empty leaves the old value. Errors: invalid unless Always, IfNotPresent or Never.
Result<void> set_image_pull_configuration(Function& function, std::string_view policy,
                                          std::string_view secret_name);
Result<void> set_state_thresholds(Function& function, const JsonObject& thresholds,
                                  bool patch = true);

struct NodeSelection {
  std::string node_name;
  Json node_selector;  // null: not given
  Json affinity;
  Json tolerations;
};
// Each given value replaces the stored one. Errors: invalid for a snake_case key in affinity or tolerations.
// Selectors are checked at submit; `warnings` (may be null) hears of them now, as MLRun warns.
Result<void> with_node_selection(Function& function, const NodeSelection& selection,
                                 std::vector<std::string>* warnings = nullptr);
// The same rules for what a kind stores elsewhere: `prefix` ("spec.driver_") begins the fields' names. Null values are not looked at.
Result<void> check_selection(const NodeSelection& selection, const std::string& prefix,
                             std::vector<std::string>* warnings = nullptr);
// Those of MLRun's platform and of the embedded cluster's queue, the lowest first; the middle one is as good as none.
std::vector<std::string> default_priority_classes();
Result<void> with_priority_class(
    Function& function, std::string_view name,
    const std::vector<std::string>& valid = default_priority_classes());
Result<void> with_preemption_mode(Function& function,
                                  std::string_view mode);  // allow, constrain, prevent, none
Result<void> with_security_context(Function& function, const Json& context);

// --- volumes -----------------------------------------------------------------------------------------------

// A volume replaces the one of its name; a mount the one of its path.
Result<void> add_volume(Function& function, const Json& volume, const Json& mount);
// `fallback` is "name:path" of MLRUN_PVC_MOUNT, used when no name is given. Sets disable_auto_mount.
Result<void> mount_pvc(Function& function, std::string_view pvc_name,
                       std::string_view volume_name = "pipeline",
                       std::string_view mount_path = "/mnt/pipeline",
                       std::string_view fallback = {});
Result<void> mount_secret(Function& function, std::string_view secret_name,
                          std::string_view mount_path, std::string_view volume_name = "secret",
                          const Json& items = nullptr);
Result<void> mount_configmap(Function& function, std::string_view name, std::string_view mount_path,
                             std::string_view volume_name = "configmap",
                             const Json& items = nullptr);
Result<void> mount_hostpath(Function& function, std::string_view host_path,
                            std::string_view mount_path, std::string_view volume_name = "hostpath");
struct S3Arguments {
  std::string secret_name;
  std::string access_key;
  std::string secret_key;
  std::string endpoint_url;
  std::string prefix;
  std::string region;
  bool non_anonymous = false;
};
Result<void> mount_s3(Function& function, const S3Arguments& arguments);

// --- code and build ----------------------------------------------------------------------------------------

// Either a file or a text, kept as base64 in spec.build.functionSourceCode. `with_doc` fills entry_points.
Result<void> with_code(Function& function, const std::optional<std::filesystem::path>& file,
                       std::optional<std::string_view> body, bool with_doc = true);
// Deduplicated, order kept; file lines first; comments removed. `overwrite` starts anew.
Result<void> with_requirements(Function& function, const std::vector<std::string>& requirements,
                               const std::optional<std::filesystem::path>& file = {},
                               bool overwrite = false);
Result<void> with_commands(Function& function, const Json& commands, bool overwrite = false);
Result<void> with_source_archive(Function& function, std::string_view source,
                                 std::string_view workdir = {}, std::string_view handler = {},
                                 bool pull_at_runtime = true, std::string_view target_dir = {});
// The image becomes the base image when something must be built on it (requirements, commands, a source that is not
// loaded at run).
void prepare_image_for_deploy(Function& function);
// Where no image could hold it, a source archive is fetched when the run starts, whatever `pull_at_runtime` was.
void load_source_on_run(Function& function);
// Whether a run of the function begins with fetching its source archive.
bool loads_source(const Function& function);
bool requires_build(const Function& function);

}  // namespace metier
