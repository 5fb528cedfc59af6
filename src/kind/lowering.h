// What all kinds with pods share when they lower (function-kinds reference 2.0, 2.3; mlrun-rest-api 5.1, 5.2).
#pragma once

#include <string>
#include <vector>

#include "kind/kind.h"

namespace metier {

// The handler of the run, else the function's default.
std::string handler_of(const Subject& subject);
std::string project_of(const Subject& subject, const Site& site);

// A text of ours as the value of a label. Kubernetes refuses other characters and more than 63: they are mended, never
// refused.
std::string label_value(std::string_view text);
// The function's labels, then mlrun/class, project, function, tag, scrape-metrics and, with a run, uid, name, owner.
Labels resource_labels(const Subject& subject, const Site& site);
// The function's annotations, else the run's.
Labels resource_annotations(const Subject& subject);

// MLRUN_DEFAULT_PROJECT, MLRUN_EXEC_CONFIG, MLRUN_LOG_LEVEL, MLRUN_DBPATH, MLRUN_NAMESPACE, PYTHONPATH, MLRUN_EXEC_CODE,
// then spec.env, in which references to the project's secrets replace entries of the same name.
JsonArray container_env(const Subject& subject, const Site& site);

struct CommandLine {
  std::vector<std::string> command;
  std::vector<std::string> args;
};
// `mlrun run --name N --from-env …`, or in mode pass the program itself with {parameters} filled in.
// Errors: invalid (mode pass with a handler, inline code with a source that is loaded at run, unknown {parameter}).
Result<CommandLine> mlrun_command(const Subject& subject);
// The program itself: text with {name} filled from the run's parameters; "{{" and "}}" are braces.
Result<std::string> fill_placeholders(std::string_view text, const Subject& subject,
                                      std::string_view field);
Result<CommandLine> program_command(const Subject& subject);

// "" when the pod has none of its own: a source loaded at run sets it after unpacking.
std::string working_dir(const Subject& subject);
std::string image_of(const Subject& subject, const Site& site);

// `field` of the spec ("resources", "worker_resources") with the site's defaults for what it does not say; exactly {}
// means none. Requests keep processor and memory only.
JsonObject role_resources(const Function& function, std::string_view field, const Site& site);

// What differs between the pods of one function.
struct PodRole {
  CommandLine line;
  JsonArray env;
  JsonObject resources;
  std::string working_dir;
};
// The pod spec of one role: container `base`, restartPolicy Never, and the function's volumes, selectors and so on.
JsonObject role_spec(const Subject& subject, const Site& site, PodRole role);

// The Pod of one run, container `base`, restartPolicy Never.
Result<Resource> pod_of_run(const Subject& subject, const Site& site,
                            const CommandLine& command_line);

// Checks that every kind makes: the function, the run, that there is something to run, that a handler named in inline
// code can be there.
Result<void> validate_subject(const Subject& subject);

}  // namespace metier
