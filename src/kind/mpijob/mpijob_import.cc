#include "kind/mpijob/mpijob_import.h"

#include <algorithm>

#include "base/text.h"
#include "kind/mpijob/mpi_arguments.h"

namespace metier {
namespace {

void copy(const JsonObject& from, std::string_view key, JsonObject& to, std::string_view as) {
  if (const Json* value = from.if_contains(key); value != nullptr && !value->is_null()) {
    to[as] = *value;
  }
}

const JsonObject* container_of(const JsonObject* specs, std::string_view role,
                               const JsonObject** pod) {
  const JsonObject* one = specs == nullptr ? nullptr : object_in(*specs, role);
  const JsonObject* pod_template = one == nullptr ? nullptr : object_in(*one, "template");
  const JsonObject* spec = pod_template == nullptr ? nullptr : object_in(*pod_template, "spec");
  const JsonArray* containers = spec == nullptr ? nullptr : array_in(*spec, "containers");
  *pod = spec;
  return containers == nullptr || containers->empty() ? nullptr : (*containers)[0].if_object();
}

// `sh -c "mpirun …"` and other programs are theirs to run: only mpirun's own words can be taken apart.
Result<void> take_command(const JsonObject& launcher, JsonObject& spec) {
  constexpr std::string_view kField =
      "spec.mpiReplicaSpecs.Launcher.template.spec.containers[0].command";
  std::vector<std::string> words;
  for (const std::string_view key : {"command", "args"}) {
    const JsonArray* list = array_in(launcher, key);
    for (std::size_t i = 0; list != nullptr && i < list->size(); ++i) {
      if (!(*list)[i].is_string()) { return fail(invalid(kField, "is not a list of texts")); }
      words.emplace_back((*list)[i].get_string());
    }
  }
  if (words.empty() || !mpi::is_launcher(words[0])) {
    return fail(invalid(kField, words.empty() ? "is missing" : quote(words[0]) + " is not mpirun",
                        "write [mpirun, OPTIONS…, PROGRAM, ARGUMENTS…]"));
  }
  const std::vector<std::string> rest(words.begin() + 1, words.end());
  mpi::Arguments parsed;
  if (auto wrong = mpi::split(rest, parsed); !wrong.empty()) {
    return fail(invalid(kField, wrong));
  }
  if (parsed.program.empty()) { return fail(invalid(kField, "names no program")); }
  JsonArray options;
  for (std::size_t i = 0; i < rest.size() - parsed.program.size(); ++i) {
    if (rest[i] != "--") { options.push_back(Json(rest[i])); }
  }
  spec["mpi_args"] = std::move(options);
  spec["command"] = parsed.program[0];
  JsonArray arguments;
  for (std::size_t i = 1; i < parsed.program.size(); ++i) {
    // In mode pass braces are placeholders.
    std::string word;
    for (const char c : parsed.program[i]) {
      word += (c == '{' || c == '}') ? std::string(2, c) : std::string(1, c);
    }
    arguments.push_back(Json(std::move(word)));
  }
  spec["args"] = std::move(arguments);
  spec["mode"] = "pass";
  return {};
}

}  // namespace

bool is_mpijob(const Json& document) {
  return document.is_object() && string_in(document.get_object(), "kind") == "MPIJob" &&
         string_in(document.get_object(), "apiVersion").starts_with("kubeflow.org/");
}

Result<Function> function_from_mpijob(const Json& document) {
  const JsonObject& job = document.get_object();
  const JsonObject* metadata = object_in(job, "metadata");
  const JsonObject* body = object_in(job, "spec");
  if (body == nullptr) { return fail(invalid("spec", "an MPIJob needs a spec")); }
  const JsonObject* specs = object_in(*body, "mpiReplicaSpecs");
  const JsonObject* launcher_pod = nullptr;
  const JsonObject* worker_pod = nullptr;
  const JsonObject* launcher = container_of(specs, "Launcher", &launcher_pod);
  const JsonObject* worker = container_of(specs, "Worker", &worker_pod);
  if (launcher == nullptr || worker == nullptr) {
    return fail(
        invalid("spec.mpiReplicaSpecs", "needs a Launcher and a Worker with a container each"));
  }
  JsonObject spec;
  METIER_CHECK(take_command(*launcher, spec));
  copy(*object_in(*specs, "Worker"), "replicas", spec, "replicas");
  copy(*body, "slotsPerWorker", spec, "slots_per_worker");
  copy(*body, "cleanPodPolicy", spec, "clean_pod_policy");
  if (const JsonObject* policy = object_in(*body, "runPolicy")) {
    copy(*policy, "cleanPodPolicy", spec, "clean_pod_policy");
    copy(*policy, "activeDeadlineSeconds", spec, "active_deadline_seconds");
  }
  copy(*body, "runLauncherAsWorker", spec, "run_launcher_as_worker");
  copy(*body, "launcherCreationPolicy", spec, "launcher_creation_policy");
  copy(*body, "mpiImplementation", spec, "mpi_implementation");
  copy(*launcher, "image", spec, "image");
  copy(*worker, "image", spec, "image");
  for (const auto& [from, to] :
       {std::pair("env", "env"), std::pair("envFrom", "env_from"),
        std::pair("volumeMounts", "volume_mounts"), std::pair("resources", "resources"),
        std::pair("workingDir", "workdir"), std::pair("imagePullPolicy", "image_pull_policy")}) {
    copy(*worker, from, spec, to);
  }
  for (const auto& [from, to] :
       {std::pair("volumes", "volumes"), std::pair("nodeSelector", "node_selector"),
        std::pair("tolerations", "tolerations"), std::pair("affinity", "affinity"),
        std::pair("serviceAccountName", "service_account"), std::pair("nodeName", "node_name")}) {
    copy(*worker_pod, from, spec, to);
  }
  JsonObject out{{"kind", "mpijob"}, {"metadata", JsonObject{}}};
  JsonObject& about = out["metadata"].get_object();
  if (metadata != nullptr) {
    copy(*metadata, "name", about, "name");
    copy(*metadata, "project", about, "project");
    copy(*metadata, "labels", about, "labels");
  }
  out["spec"] = std::move(spec);
  return Function::from_json(Json(std::move(out)));
}

}  // namespace metier
