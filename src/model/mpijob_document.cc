#include "model/mpijob_document.h"

#include <algorithm>
#include <span>

#include "base/text.h"
#include "model/mpi_arguments.h"
#include "model/problems.h"
#include "model/python_text.h"

namespace metier {
namespace {

constexpr std::string_view kSpecs = "spec.mpiReplicaSpecs.";
constexpr std::string_view kOfWorkers = "a function says it once, for its workers";
constexpr std::string_view kNotStartedAgain =
    "a pod that ends is not started again, --retry N tries the run again";

// What becomes of a field: `why` empty: it is read, or says nothing that matters here. Else it has no effect because of `why`.
struct Known {
  std::string_view key;
  std::string_view why = {};
};
constexpr Known kDocument[] = {{"apiVersion"}, {"kind"}, {"metadata"}, {"spec"}, {"status"}};
constexpr Known kMetadata[] = {
    {"name"},          {"generateName"},      {"project"},
    {"labels"},        {"annotations"},       {"namespace", "a run belongs to a project (-P)"},
    {"uid"},           {"creationTimestamp"}, {"generation"},
    {"managedFields"}, {"resourceVersion"}};
constexpr Known kSpec[] = {{"slotsPerWorker"},
                           {"cleanPodPolicy"},
                           {"runPolicy"},
                           {"runLauncherAsWorker"},
                           {"launcherCreationPolicy"},
                           {"mpiImplementation"},
                           {"mpiReplicaSpecs"},
                           {"sshAuthMountPath", "ranks are started without ssh"}};
constexpr Known kRunPolicy[] = {
    {"cleanPodPolicy"},
    {"activeDeadlineSeconds"},
    {"suspend"},
    {"ttlSecondsAfterFinished", "a run that has ended is kept until `metier delete` removes it"},
    {"backoffLimit", "how often a run is tried again is said with it (--retry N)"},
    {"schedulingPolicy", "the pods of a job are placed together or not at all"}};
constexpr Known kRole[] = {{"replicas"}, {"template"}, {"restartPolicy"}};
constexpr Known kTemplate[] = {{"metadata"}, {"spec"}};
constexpr Known kPodMetadata[] = {{"labels"}, {"annotations"}, {"name"}, {"creationTimestamp"}};
constexpr Known kPod[] = {{"containers"},       {"initContainers"},    {"volumes"},
                          {"nodeSelector"},     {"tolerations"},       {"affinity"},
                          {"nodeName"},         {"serviceAccount"},    {"serviceAccountName"},
                          {"imagePullSecrets"}, {"priorityClassName"}, {"securityContext"},
                          {"restartPolicy"}};
constexpr Known kContainer[] = {
    {"name"},    {"image"},     {"imagePullPolicy"}, {"command"},    {"args"},           {"env"},
    {"envFrom"}, {"resources"}, {"volumeMounts"},    {"workingDir"}, {"securityContext"}};

// One pod template of the document, with the paths of its parts.
struct Role {
  std::string_view name;
  std::string at;            // "spec.mpiReplicaSpecs.Worker"
  std::string pod_at;        // "….template.spec"
  std::string container_at;  // "….containers[0]"
  const JsonObject* role = nullptr;
  const JsonObject* pod = nullptr;
  const JsonObject* container = nullptr;

  const Json* pod_field(std::string_view key) const { return given(*pod, key); }
  const Json* container_field(std::string_view key) const { return given(*container, key); }
  static const Json* given(const JsonObject& object, std::string_view key) {
    const Json* value = object.if_contains(key);
    return value == nullptr || is_falsy(*value) ? nullptr : value;
  }
};

bool same(const Json* one, const Json* other) {
  return one != nullptr && other != nullptr && *one == *other;
}

// A worker waits for its ranks here, whatever it would have done there: an sshd, or sleep.
bool only_waits(const Json& command) {
  if (!command.is_array() || command.get_array().empty()) { return false; }
  const Json& first = command.get_array().front();
  if (!first.is_string()) { return false; }
  const std::string_view word(first.get_string());
  return word == "sleep" || word.ends_with("/sleep") || word == "sshd" || word.ends_with("/sshd");
}

class Import {
 public:
  Result<Function> read(const JsonObject& job, std::vector<std::string>* warnings) {
    const JsonObject* body = object_in(job, "spec");
    const JsonObject* specs = body == nullptr ? nullptr : object_in(*body, "mpiReplicaSpecs");
    launcher_.name = "Launcher";
    worker_.name = "Worker";
    for (Role* role : {&launcher_, &worker_}) {
      if (specs == nullptr || !find(*specs, *role)) {
        return fail(
            invalid("spec.mpiReplicaSpecs", "needs a Launcher and a Worker with a container each"));
      }
    }
    check_rest(job, "", kDocument);
    take_metadata(job);
    take_job(*body);
    check_rest(*specs, kSpecs.substr(0, kSpecs.size() - 1), kRoles);
    for (const Role* role : {&launcher_, &worker_}) { take_role(*role); }
    take_command();
    take_containers();
    take_pods();
    METIER_CHECK(std::move(problems_).result());
    if (warnings != nullptr) {
      warnings->insert(warnings->end(), std::make_move_iterator(ignored_.begin()),
                       std::make_move_iterator(ignored_.end()));
    }
    return Function::from_json(Json(JsonObject{
        {"kind", "mpijob"}, {"metadata", std::move(about_)}, {"spec", std::move(spec_)}}));
  }

 private:
  static constexpr Known kRoles[] = {{"Launcher"}, {"Worker"}};

  void ignore(std::string_view field, std::string_view why) {
    ignored_.push_back(std::string(field) + " has no effect: " + std::string(why));
  }

  // What is not read is told, unless it says nothing.
  void check_rest(const JsonObject& object, std::string_view at, std::span<const Known> known) {
    for (const auto& [key, value] : object) {
      const auto found = std::ranges::find(known, std::string_view(key), &Known::key);
      if (is_falsy(value) || (found != known.end() && found->why.empty())) { continue; }
      ignore((at.empty() ? "" : std::string(at) + ".") + std::string(key),
             found == known.end() ? "a function has no field for it" : found->why);
    }
  }

  static bool find(const JsonObject& specs, Role& out) {
    out.role = object_in(specs, out.name);
    const JsonObject* one = out.role == nullptr ? nullptr : object_in(*out.role, "template");
    out.pod = one == nullptr ? nullptr : object_in(*one, "spec");
    const JsonArray* list = out.pod == nullptr ? nullptr : array_in(*out.pod, "containers");
    out.container = list == nullptr || list->empty() ? nullptr : (*list)[0].if_object();
    out.at = std::string(kSpecs) + std::string(out.name);
    out.pod_at = out.at + ".template.spec";
    out.container_at = out.pod_at + ".containers[0]";
    return out.container != nullptr;
  }

  void copy(const JsonObject& from, std::string_view key, JsonObject& to, std::string_view as) {
    const Json* value = from.if_contains(key);
    if (value != nullptr && !value->is_null()) { to[as] = *value; }
  }

  // Those that are there stay.
  void join_texts(const JsonObject& from, std::string_view key) {
    const JsonObject* texts = object_in(from, key);
    if (texts == nullptr || texts->empty()) { return; }
    JsonObject& into = ensure_object(about_, key);
    for (const auto& [name, value] : *texts) {
      if (!into.contains(name)) { into[name] = value; }
    }
  }

  void take_metadata(const JsonObject& job) {
    const JsonObject* metadata = object_in(job, "metadata");
    if (metadata == nullptr) { return; }
    check_rest(*metadata, "metadata", kMetadata);
    std::string_view stem = string_in(*metadata, "generateName");
    while (stem.ends_with('-')) { stem.remove_suffix(1); }
    if (!stem.empty()) { about_["name"] = stem; }
    copy(*metadata, "name", about_, "name");
    copy(*metadata, "project", about_, "project");
    join_texts(*metadata, "labels");
    join_texts(*metadata, "annotations");
  }

  void take_job(const JsonObject& body) {
    check_rest(body, "spec", kSpec);
    copy(body, "slotsPerWorker", spec_, "slots_per_worker");
    copy(body, "cleanPodPolicy", spec_, "clean_pod_policy");
    copy(body, "runLauncherAsWorker", spec_, "run_launcher_as_worker");
    copy(body, "launcherCreationPolicy", spec_, "launcher_creation_policy");
    copy(body, "mpiImplementation", spec_, "mpi_implementation");
    copy(*worker_.role, "replicas", spec_, "replicas");
    const Json* launchers = launcher_.role->if_contains("replicas");
    if (launchers != nullptr && !launchers->is_null() && *launchers != Json(1)) {
      problems_.add(launcher_.at + ".replicas", dump_json(*launchers) + " is not 1",
                    "a job has one launcher");
    }
    const JsonObject* policy = object_in(body, "runPolicy");
    if (policy == nullptr) { return; }
    check_rest(*policy, "spec.runPolicy", kRunPolicy);
    copy(*policy, "cleanPodPolicy", spec_, "clean_pod_policy");
    copy(*policy, "activeDeadlineSeconds", spec_, "active_deadline_seconds");
    if (Role::given(*policy, "suspend") != nullptr) {
      problems_.add("spec.runPolicy.suspend",
                    dump_json(policy->at("suspend")) + ": a run starts when it is submitted",
                    "leave it out, and submit the job when it may start");
    }
  }

  void take_role(const Role& role) {
    check_rest(*role.role, role.at, kRole);
    const auto restart = [&](const JsonObject& in, const std::string& at) {
      const auto policy = string_in(in, "restartPolicy");
      if (!policy.empty() && policy != "Never") { ignore(at + ".restartPolicy", kNotStartedAgain); }
    };
    restart(*role.role, role.at);
    restart(*role.pod, role.pod_at);
    const JsonObject& pod_template = role.role->at("template").get_object();
    check_rest(pod_template, role.at + ".template", kTemplate);
    if (const JsonObject* metadata = object_in(pod_template, "metadata")) {
      check_rest(*metadata, role.at + ".template.metadata", kPodMetadata);
      join_texts(*metadata, "labels");
      join_texts(*metadata, "annotations");
    }
    check_rest(*role.pod, role.pod_at, kPod);
    check_rest(*role.container, role.container_at, kContainer);
    if (role.pod_field("initContainers") != nullptr) {
      problems_.add(role.pod_at + ".initContainers", "a function has none",
                    "let the program do that before MPI starts, or put the files into a volume");
    }
    if (const auto count = array_in(*role.pod, "containers")->size(); count > 1) {
      problems_.add(role.pod_at + ".containers",
                    std::to_string(count) + " containers, and a function's pod has one",
                    "leave out all but that of the MPI program");
    }
  }

  // `sh -c "mpirun …"` and other programs are theirs to run: only mpirun's own words can be taken apart.
  void take_command() {
    const std::string field = launcher_.container_at + ".command";
    std::vector<std::string> words;
    for (const std::string_view key : {"command", "args"}) {
      const JsonArray* list = array_in(*launcher_.container, key);
      for (std::size_t i = 0; list != nullptr && i < list->size(); ++i) {
        if (!(*list)[i].is_string()) {
          problems_.add(
              launcher_.container_at + "." + std::string(key) + "[" + std::to_string(i) + "]",
              dump_json((*list)[i]) + " is not a text", "put it into quotes");
          return;
        }
        words.emplace_back((*list)[i].get_string());
      }
    }
    if (words.empty() || !mpi::is_launcher(words[0])) {
      problems_.add(field, words.empty() ? "is missing" : quote(words[0]) + " is not mpirun",
                    "write [mpirun, OPTIONS…, PROGRAM, ARGUMENTS…]");
      return;
    }
    const std::vector<std::string> rest(words.begin() + 1, words.end());
    mpi::Arguments parsed;
    std::string fix;
    if (auto wrong = mpi::split(rest, parsed, &fix); !wrong.empty()) {
      problems_.add(field, wrong, fix);
      return;
    }
    if (parsed.program.empty()) {
      problems_.add(field, "names no program", "write [mpirun, OPTIONS…, PROGRAM, ARGUMENTS…]");
      return;
    }
    JsonArray options;
    for (std::size_t i = 0; i < rest.size() - parsed.program.size(); ++i) {
      if (rest[i] != "--") { options.push_back(Json(rest[i])); }
    }
    spec_["mpi_args"] = std::move(options);
    // In mode pass braces are placeholders.
    const auto doubled = [](std::string_view text) {
      std::string word;
      for (const char c : text) {
        word += (c == '{' || c == '}') ? std::string(2, c) : std::string(1, c);
      }
      return word;
    };
    spec_["command"] = doubled(parsed.program[0]);
    JsonArray arguments;
    for (std::size_t i = 1; i < parsed.program.size(); ++i) {
      arguments.push_back(Json(doubled(parsed.program[i])));
    }
    spec_["args"] = std::move(arguments);
    spec_["mode"] = "pass";
  }

  // Lists of both templates, each entry once. `name` is what an entry is known by; two of one name have to be equal.
  void join(std::string_view key, std::string_view as, std::string_view name, bool of_pod) {
    JsonArray joined;
    for (const Role* role : {&worker_, &launcher_}) {
      const std::string& at = of_pod ? role->pod_at : role->container_at;
      const JsonArray* list = array_in(of_pod ? *role->pod : *role->container, key);
      for (std::size_t i = 0; list != nullptr && i < list->size(); ++i) {
        const Json& entry = (*list)[i];
        const auto known = std::ranges::find_if(joined, [&](const Json& other) {
          return name.empty() || !entry.is_object() || !other.is_object()
                     ? other == entry
                     : string_in(other.get_object(), name) == string_in(entry.get_object(), name);
        });
        if (known == joined.end()) {
          joined.push_back(entry);
        } else if (*known != entry) {
          problems_.add(
              at + "." + std::string(key) + "[" + std::to_string(i) + "]",
              quote(string_in(entry.get_object(), name)) + " is something else for the Worker",
              "give both the same, or another name");
        }
      }
    }
    if (!joined.empty()) { spec_[as] = std::move(joined); }
  }

  // One for both: the Worker's, else the Launcher's.
  void share(std::string_view key, std::string_view as, bool of_pod) {
    const Json* worker = of_pod ? worker_.pod_field(key) : worker_.container_field(key);
    const Json* launcher = of_pod ? launcher_.pod_field(key) : launcher_.container_field(key);
    if (worker != nullptr && launcher != nullptr && !same(worker, launcher)) {
      ignore((of_pod ? launcher_.pod_at : launcher_.container_at) + "." + std::string(key),
             "the Worker's is taken for both");
    }
    if (const Json* value = worker != nullptr ? worker : launcher) { spec_[as] = *value; }
  }

  void of_workers(std::string_view key, std::string_view as, bool of_pod, std::string_view why) {
    const Json* worker = of_pod ? worker_.pod_field(key) : worker_.container_field(key);
    const Json* launcher = of_pod ? launcher_.pod_field(key) : launcher_.container_field(key);
    if (worker != nullptr) { spec_[as] = *worker; }
    if (launcher != nullptr && (!same(worker, launcher) || key == "resources")) {
      ignore((of_pod ? launcher_.pod_at : launcher_.container_at) + "." + std::string(key), why);
    }
  }

  void take_containers() {
    join("env", "env", "name", false);
    join("envFrom", "env_from", "", false);
    join("volumeMounts", "volume_mounts", "mountPath", false);
    share("image", "image", false);
    share("imagePullPolicy", "image_pull_policy", false);
    of_workers("resources", "resources", false,
               "a function's are its workers', the launcher has the server's default");
    // mpirun hands its own folder to the ranks.
    const Json* workers = worker_.container_field("workingDir");
    const Json* launchers = launcher_.container_field("workingDir");
    if (const Json* folder = launchers != nullptr ? launchers : workers) {
      spec_["workdir"] = *folder;
    }
    if (workers != nullptr && launchers != nullptr && !same(workers, launchers)) {
      ignore(worker_.container_at + ".workingDir", "the Launcher's is taken for both");
    }
    for (const std::string_view key : {"command", "args"}) {
      const Json* value = worker_.container_field(key);
      const Json* command = worker_.container_field("command");
      if (value != nullptr && (command == nullptr || !only_waits(*command))) {
        ignore(worker_.container_at + "." + std::string(key),
               "what a worker runs are the ranks of the launcher's mpirun");
      }
    }
  }

  void take_pods() {
    join("volumes", "volumes", "name", true);
    for (const auto& [key, as] : {std::pair("serviceAccount", "service_account"),
                                  std::pair("serviceAccountName", "service_account"),
                                  std::pair("priorityClassName", "priority_class_name")}) {
      share(key, as, true);
    }
    for (const auto& [key, as] :
         {std::pair("nodeSelector", "node_selector"), std::pair("tolerations", "tolerations"),
          std::pair("affinity", "affinity"), std::pair("nodeName", "node_name")}) {
      of_workers(key, as, true, kOfWorkers);
    }
    take_pull_secrets();
    of_workers("securityContext", "security_context", true, kOfWorkers);
    for (const Role* role : {&worker_, &launcher_}) { take_security(*role); }
  }

  void take_pull_secrets() {
    std::string taken;
    for (const Role* role : {&worker_, &launcher_}) {
      const JsonArray* list = array_in(*role->pod, "imagePullSecrets");
      for (std::size_t i = 0; list != nullptr && i < list->size(); ++i) {
        const auto name = (*list)[i].is_object() ? string_in((*list)[i].get_object(), "name")
                                                 : std::string_view();
        if (taken.empty()) { taken = name; }
        if (name != taken) {
          ignore(role->pod_at + ".imagePullSecrets[" + std::to_string(i) + "]",
                 "a function has one, " + quote(taken));
        }
      }
    }
    if (!taken.empty()) { spec_["image_pull_secret"] = taken; }
  }

  // A container's user and group can be said of the pod. IPC_LOCK is asked for in any case.
  void take_security(const Role& role) {
    const JsonObject* context = object_in(*role.container, "securityContext");
    const std::string at = role.container_at + ".securityContext";
    for (const auto& [key, value] : context == nullptr ? JsonObject{} : *context) {
      const std::string field = at + "." + std::string(key);
      if (key == "privileged" && !is_falsy(value)) {
        problems_.add(field, "a function's pods have no privileges", "leave it out");
        continue;
      }
      if (key == "capabilities" && value == Json(JsonObject{{"add", JsonArray{"IPC_LOCK"}}})) {
        continue;
      }
      if (key == "runAsUser" || key == "runAsGroup" || key == "runAsNonRoot") {
        JsonObject& pod = ensure_object(spec_, "security_context");
        if (!pod.contains(key)) { pod[key] = value; }
        if (pod[key] != value) { ignore(field, "a pod has one, " + dump_json(pod[key])); }
        continue;
      }
      if (!is_falsy(value)) { ignore(field, "a function has no field for it"); }
    }
  }

  Role launcher_;
  Role worker_;
  JsonObject about_;
  JsonObject spec_;
  ProblemList problems_;
  std::vector<std::string> ignored_;
};

}  // namespace

bool is_mpijob(const Json& document) {
  return document.is_object() && string_in(document.get_object(), "kind") == "MPIJob";
}

Result<Function> function_from_mpijob(const Json& document, std::vector<std::string>* warnings) {
  const auto version = string_in(document.get_object(), "apiVersion");
  if (version != "kubeflow.org/v1" && version != "kubeflow.org/v2beta1" &&
      version != "kubeflow.org/v1alpha2") {
    return fail(invalid("apiVersion", quote(version) + " is not read",
                        "kubeflow.org/v1 or kubeflow.org/v2beta1"));
  }
  return Import().read(document.get_object(), warnings);
}

}  // namespace metier
