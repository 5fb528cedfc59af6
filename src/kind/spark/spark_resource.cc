#include "kind/spark/spark_resource.h"

#include <algorithm>
#include <array>
#include <cctype>

#include "base/quantity.h"
#include "base/text.h"
#include "kind/lowering.h"
#include "kind/spark/spark_fields.h"
#include "kind/spark/spark_role.h"
#include "kind/spark/spark_sizes.h"
#include "kind/spark/spark_warm.h"
#include "model/problems.h"
#include "model/python_text.h"
#include "model/spark.h"

namespace metier {
namespace {

constexpr std::string_view kDefaultVersion = "3.2.3";  // MLRun's
constexpr std::size_t kLongestRunName = 29;

struct Amounts {
  std::string cpu;
  std::string memory;
  std::string cpu_limit;
};

Amounts amounts_of(const Function& function, const Role& role, const Site& site) {
  Amounts out{.cpu = amount(function, role, "requests", "cpu"),
              .memory = amount(function, role, "requests", "memory"),
              .cpu_limit = amount(function, role, "limits", "cpu")};
  if (site.embedded) {
    const bool untouched = asks_for_defaults(function, role);
    if (out.cpu.empty() || untouched) { out.cpu = kEmbeddedSparkCpu; }
    if (out.memory.empty() || untouched) { out.memory = kEmbeddedSparkMemory; }
    return out;
  }
  if (out.cpu.empty()) { out.cpu = "1"; }
  if (out.memory.empty()) { out.memory = role.default_memory; }
  if (out.cpu_limit.empty()) { out.cpu_limit = "2"; }
  return out;
}

bool is_python(const Function& function) {
  const std::string type = function.text("job_type");
  return type.empty() || type == "Python";
}

// A function of ours is started by the runner; a program that is no Python, or a plain file on a cluster with the
// real operator, is what the application itself starts.
bool runs_by_mlrun(const Subject& subject, const Site& site) {
  if (!is_python(subject.function)) { return false; }
  return site.embedded || !subject.function.text("build.functionSourceCode").empty() ||
         !handler_of(subject).empty();
}

std::string main_file(const Subject& subject) {
  const std::string command = subject.function.text("command");
  if (command.contains("://")) { return command; }
  const std::string folder = working_dir(subject);
  if (folder.empty() || command.starts_with('/')) { return "local://" + command; }
  return "local://" + folder + (folder.ends_with('/') ? "" : "/") + command;
}

void copy(const Function& function, std::string_view from, JsonObject& out, std::string_view to) {
  const Json* value = function.spec().if_contains(from);
  if (value != nullptr && !is_falsy(*value)) { out[to] = *value; }
}

JsonObject texts_of(const JsonObject& values) {
  JsonObject out;
  for (const auto& member : values) { out[member.key()] = python_text(member.value()); }
  return out;
}

JsonArray mounts_of(const Function& function, const Role& role) {
  JsonArray out;
  for (const std::string& field : {std::string("volume_mounts"), field_of(role, "volume_mounts")}) {
    const JsonArray* mounts = array_in(function.spec(), field);
    if (mounts != nullptr) { out.insert(out.end(), mounts->begin(), mounts->end()); }
  }
  return out;
}

JsonObject selector_of(const Subject& subject, const Site& site, const Role& role) {
  JsonObject out;
  for (const auto& [key, value] : site.node_selector) { out[key] = value; }
  const JsonObject* own = object_in(subject.function.spec(), field_of(role, "node_selector"));
  if ((own == nullptr || own->empty()) && subject.run != nullptr) {
    own = object_in(subject.run->spec(), "node_selector");
  }
  if (own == nullptr || own->empty()) { own = object_in(subject.function.spec(), "node_selector"); }
  for (const auto& label : own == nullptr ? JsonObject{} : *own) {
    out[label.key()] = label.value();
  }
  JsonObject kept;
  for (const auto& label : out) {
    if (!is_falsy(label.value())) { kept[label.key()] = label.value(); }
  }
  return kept;
}

JsonObject role_of(const Subject& subject, const Site& site, const Role& role) {
  const Function& function = subject.function;
  const Amounts asked = amounts_of(function, role, site);
  const auto cores = int_in(function.spec(), field_of(role, "cores"));
  JsonObject out{{"cores", std::max<std::int64_t>(1, cores.value_or(1))},
                 {"coreRequest", asked.cpu}};
  if (!asked.cpu_limit.empty()) { out["coreLimit"] = asked.cpu_limit; }
  out["memory"] = asked.memory;
  if (role.name == "executor") {
    out["instances"] = std::max<std::int64_t>(1, int_in(function.spec(), "replicas").value_or(1));
  }
  if (const JsonObject* limits = role_part(function, role, "limits")) {
    for (const auto& limit : *limits) {
      if (limit.key() != "cpu" && limit.key() != "memory" && !is_falsy(limit.value())) {
        out["gpu"] = JsonObject{{"name", limit.key()}, {"quantity", limit.value()}};
      }
    }
  }
  out["labels"] = labels_json(resource_labels(subject, site));
  out["env"] = container_env(subject, site);
  copy(function, "env_from", out, "envFrom");
  if (JsonArray mounts = mounts_of(function, role); !mounts.empty()) {
    out["volumeMounts"] = std::move(mounts);
  }
  const std::string account = function.text("service_account");
  out["serviceAccount"] = role.name == "driver" || account.empty() ? "sparkapp" : account;
  if (JsonObject selector = selector_of(subject, site, role); !selector.empty()) {
    out["nodeSelector"] = std::move(selector);
  }
  for (const std::string_view field : {"tolerations", "affinity"}) {
    const Json* of_run = subject.run == nullptr ? nullptr : subject.run->spec().if_contains(field);
    if (of_run != nullptr && !is_falsy(*of_run)) { out[field] = *of_run; }  // SDK 1.12 sends them
    copy(function, field_of(role, field), out, field);
  }
  copy(function, field_of(role, "java_options"), out, "javaOptions");
  return out;
}

JsonObject restart_policy(const Function& function) {
  JsonObject out{{"type", "OnFailure"},
                 {"onFailureRetries", 0},
                 {"onFailureRetryInterval", 10},
                 {"onSubmissionFailureRetries", 3},
                 {"onSubmissionFailureRetryInterval", 20}};
  const JsonObject* own = object_in(function.spec(), "restart_policy");
  if (own == nullptr) { return out; }
  for (const auto& [from, to] :
       {std::pair("type", "type"), std::pair("retries", "onFailureRetries"),
        std::pair("retry_interval", "onFailureRetryInterval"),
        std::pair("submission_retries", "onSubmissionFailureRetries"),
        std::pair("submission_retry_interval", "onSubmissionFailureRetryInterval")}) {
    if (const Json* value = own->if_contains(from); value != nullptr && !value->is_null()) {
      out[to] = *value;
    }
  }
  return out;
}

// MLRun's /tmp is of the operator's driver; here the driver finds a folder that is kept with the run.
JsonObject spark_conf(const Function& function, const Site& site) {
  const JsonObject* own = object_in(function.spec(), "spark_conf");
  JsonObject out = own == nullptr ? JsonObject{} : texts_of(*own);
  if (site.embedded) { return out; }
  if (string_in(out, "spark.eventLog.enabled") == "True" ||
      string_in(out, "spark.eventLog.enabled") == "true") {
    if (string_in(out, "spark.eventLog.dir").empty()) { out["spark.eventLog.dir"] = "/tmp"; }
  }
  return out;
}

// The main file of a function: the line that calls what `mlrun` is on the path.
Resource script_of(const Resource& application) {
  Resource out{.api_version = "v1", .kind = "ConfigMap"};
  out.metadata.name = application.metadata.name + "-script";
  out.metadata.name_space = application.metadata.name_space;
  out.metadata.labels = application.metadata.labels;
  out.body["data"] =
      JsonObject{{"spark-function-code.py",
                  "# The driver's main file: runs the function that MLRUN_EXEC_CONFIG and "
                  "MLRUN_EXEC_CODE describe.\n"
                  "import mlrun.__main__ as cli\n\n"
                  "context = cli.main(standalone_mode=False)\n"
                  "if context is not None:\n"
                  "    context.commit(completed=True)\n"}};
  return out;
}

void add_script(JsonObject& spec, const Resource& script) {
  ensure_array(spec, "volumes")
      .push_back(JsonObject{{"name", "script"},
                            {"configMap", JsonObject{{"name", script.metadata.name}}}});
  ensure_array(ensure_object(spec, "driver"), "volumeMounts")
      .push_back(JsonObject{{"name", "script"}, {"mountPath", "/etc/config/mlrun"}});
}

Result<JsonArray> arguments_of(const Subject& subject, bool by_mlrun, bool embedded) {
  JsonArray out;
  if (!by_mlrun) {
    const JsonArray* args = array_in(subject.function.spec(), "args");
    for (const Json& argument : args == nullptr ? JsonArray{} : *args) {
      out.emplace_back(python_text(argument));
    }
    return out;
  }
  METIER_TRY(line, mlrun_command(subject));
  // A SparkApplication has no working directory, and MLRun ignores it. Here the driver changes to it, as other kinds run in it.
  const std::string folder = working_dir(subject);
  const auto named = std::ranges::find(line.args, "--from-env");
  if (embedded && !folder.empty() && named != line.args.end()) {
    const std::array<std::string, 2> option{"--workdir", folder};
    line.args.insert(named + 1, option.begin(), option.end());
  }
  for (const std::string& word : line.args) { out.emplace_back(word); }
  return out;
}

double cores_of(std::string_view text) {
  auto parsed = Quantity::parse(text);
  return parsed ? static_cast<double>(parsed->milli()) / 1000 : 0;
}

void check_role(const Subject& subject, const Role& role, ProblemList& problems) {
  const Function& function = subject.function;
  const std::string path = "function.spec." + field_of(role, "resources");
  if (const std::string memory = amount(function, role, "requests", "memory"); !memory.empty()) {
    if (auto checked = check_spark_memory(memory, path + ".requests.memory"); !checked) {
      problems.add(std::move(checked.error()));
    }
  }
  for (const std::string_view part : {"requests", "limits"}) {
    const std::string cpu = amount(function, role, part, "cpu");
    if (!cpu.empty() && !Quantity::parse(cpu)) {
      problems.add(path + "." + std::string(part) + ".cpu",
                   quote(cpu) + " is not a number of processors", "write 500m or 2");
    }
  }
  if (!amount(function, role, "limits", "memory").empty()) {
    problems.add(path + ".limits.memory",
                 "Spark has no memory limit: it is the request and its overhead",
                 "set requests.memory");
  }
  const std::string request = amount(function, role, "requests", "cpu");
  const std::string limit = amount(function, role, "limits", "cpu");
  if (!request.empty() && !limit.empty() && cores_of(request) > cores_of(limit)) {
    problems.add(path,
                 std::string(role.name) + " requests " + request +
                     " processors, more than its limit of " + limit,
                 "raise limits.cpu or lower requests.cpu");
  }
  if (const JsonObject* limits = role_part(function, role, "limits")) {
    const auto devices = std::ranges::count_if(*limits, [](const auto& one) {
      return one.key() != "cpu" && one.key() != "memory" && !is_falsy(one.value());
    });
    if (devices > 1) {
      problems.add(path + ".limits", "Spark takes one type of GPU, got " + std::to_string(devices),
                   "keep one");
    }
  }
  const Json* cores = function.spec().if_contains(field_of(role, "cores"));
  if (cores != nullptr && !is_falsy(*cores) && (!cores->is_int64() || cores->get_int64() < 1)) {
    problems.add("function.spec." + field_of(role, "cores"),
                 python_text(*cores) + " is not a number of cores", "a whole number from 1 up");
  }
}

void check_allocation(const Function& function, ProblemList& problems) {
  const JsonObject* dynamic = object_in(function.spec(), "dynamic_allocation");
  if (dynamic == nullptr || !bool_in(*dynamic, "enabled")) { return; }
  const std::string path = "function.spec.dynamic_allocation";
  for (const std::string_view key : {"minExecutors", "maxExecutors", "initialExecutors"}) {
    const Json* value = dynamic->if_contains(key);
    if (value != nullptr && !value->is_null() && (!value->is_int64() || value->get_int64() < 0)) {
      problems.add(path + "." + std::string(key),
                   python_text(*value) + " is not a number of executors",
                   "a whole number from 0 up");
      return;
    }
  }
  const auto least = int_in(*dynamic, "minExecutors").value_or(0);
  const auto most = int_in(*dynamic, "maxExecutors");
  const auto initial = int_in(*dynamic, "initialExecutors");
  if (most && *most < std::max<std::int64_t>(1, least)) {
    problems.add(
        path,
        "at least " + std::to_string(least) + " executors and at most " + std::to_string(*most),
        "min <= max, and max at least 1");
  } else if (initial && (*initial < least || (most && *initial > *most))) {
    problems.add(path + ".initialExecutors",
                 std::to_string(*initial) + " executors at the start are " +
                     (*initial < least ? "fewer than minExecutors, " + std::to_string(least)
                                       : "more than maxExecutors, " + std::to_string(*most)),
                 "initialExecutors between minExecutors and maxExecutors, or leave it out");
  }
}

void check_restart(const Function& function, ProblemList& problems) {
  const JsonObject* policy = object_in(function.spec(), "restart_policy");
  if (policy == nullptr) { return; }
  const std::string path = "function.spec.restart_policy";
  for (const auto& member : *policy) {
    const Json& value = member.value();
    if (member.key() == "type") {
      const auto type = python_text(value);
      if (type != "Never" && type != "OnFailure" && type != "Always") {
        problems.add(path + ".type", quote(type) + " is no restart policy",
                     "Never, OnFailure or Always");
      }
    } else if (!value.is_null() && (!value.is_int64() || value.get_int64() < 0)) {
      const bool times = !member.key().ends_with("interval");
      problems.add(path + "." + std::string(member.key()),
                   python_text(value) + " is not a number of " + (times ? "retries" : "seconds"),
                   "a whole number from 0 up");
    }
  }
}

void check_name(const Run& run, ProblemList& problems) {
  const std::string name = run.name();
  if (name.size() > kLongestRunName) {
    problems.add("metadata.name",
                 "the run's name " + quote(name) + " has " + std::to_string(name.size()) +
                     " characters, kind spark takes at most " + std::to_string(kLongestRunName),
                 "give a shorter one: --name");
    return;
  }
  if (name.empty()) { return; }
  if (std::islower(static_cast<unsigned char>(name.front())) == 0) {
    problems.add("metadata.name",
                 "the run's name " + quote(name) +
                     " must begin with a lower case letter: Spark's services are named after it",
                 "give another one: --name");
  }
}

// The application's spec; without a run, what its function alone says.
Result<JsonObject> application_spec(const Subject& subject, const Site& site) {
  const Function& function = subject.function;
  const std::string type = function.text("job_type");
  const std::string version = function.text("spark_version");
  JsonObject spec{{"type", type.empty() ? "Python" : type}, {"mode", "cluster"}};
  if (type == "Python") {
    const std::string python = function.text("python_version");
    spec["pythonVersion"] = python.empty() ? "3" : python;
  }
  spec["image"] = image_of(subject, site);
  copy(function, "image_pull_policy", spec, "imagePullPolicy");
  if (const std::string secret = function.text("image_pull_secret"); !secret.empty()) {
    spec["imagePullSecrets"] = JsonArray{secret};
  }
  copy(function, "main_class", spec, "mainClass");
  if (subject.run != nullptr) {
    const bool by_mlrun = runs_by_mlrun(subject, site);
    spec["mainApplicationFile"] = by_mlrun ? std::string(kSparkScript) : main_file(subject);
    METIER_TRY(arguments, arguments_of(subject, by_mlrun, site.embedded));
    if (!arguments.empty()) { spec["arguments"] = std::move(arguments); }
  }
  spec["sparkVersion"] = version.empty() ? std::string(kDefaultVersion) : version;
  spec["restartPolicy"] = restart_policy(function);
  copy(function, "deps", spec, "deps");
  copy(function, "volumes", spec, "volumes");
  if (JsonObject conf = spark_conf(function, site); !conf.empty()) {
    spec["sparkConf"] = std::move(conf);
  }
  if (const JsonObject* conf = object_in(function.spec(), "hadoop_conf");
      conf != nullptr && !conf->empty()) {
    spec["hadoopConf"] = texts_of(*conf);
  }
  copy(function, "monitoring", spec, "monitoring");
  if (const JsonObject* dynamic = object_in(function.spec(), "dynamic_allocation");
      dynamic != nullptr && bool_in(*dynamic, "enabled")) {
    spec["dynamicAllocation"] = *dynamic;
  }
  if (!site.valid_priority_classes.empty() && !function.text("priority_class_name").empty()) {
    spec["batchSchedulerOptions"] =
        JsonObject{{"priorityClassName", function.text("priority_class_name")}};
  }
  for (const Role& role : kRoles) { spec[role.name] = role_of(subject, site, role); }
  return spec;
}

}  // namespace

Result<void> validate_spark(const Subject& given) {
  if (is_for_iguazio(given.function)) {
    Function probe = given.function;  // the method's own refusal
    return with_igz_spark(probe);
  }
  ProblemList problems;
  check_own_fields(given.function, problems);
  check_conf_sizes(given.function, problems);
  const Function function = with_conf_sizes(given.function);
  const Subject subject{.function = function, .run = given.run, .attempt = given.attempt};
  const std::string type = function.text("job_type");
  const std::string command = function.text("command");
  if (type == "R" || command.ends_with(".R") || command.ends_with(".r")) {
    return fail(Error{
        .kind = ErrorKind::unsupported,
        .message =
            "Spark programs in R are not run: SparkR is deprecated and not in the pyspark package",
        .field = type == "R" ? "function.spec.job_type" : "function.spec.command",
        .fix = "write it in Python, Java or Scala",
        .code = {}});
  }
  if (!type.empty() && type != "Python" && type != "Java" && type != "Scala") {
    problems.add("function.spec.job_type", quote(type) + " is no type of Spark program",
                 "Python, Java or Scala");
  }
  if ((type == "Java" || type == "Scala") && function.text("main_class").empty()) {
    problems.add("function.spec.main_class", "a " + type + " program needs its main class",
                 "set main_class to its full name, like org.example.Main");
  }
  if ((type == "Java" || type == "Scala") && !command.ends_with(".jar")) {
    problems.add("function.spec.command", quote(command) + " is no jar",
                 "name the program's .jar file");
  }
  if (const Json* replicas = function.spec().if_contains("replicas");
      replicas != nullptr && !replicas->is_null() &&
      (!replicas->is_int64() || replicas->get_int64() < 0)) {
    problems.add("function.spec.replicas", python_text(*replicas) + " is not a number of executors",
                 "a whole number from 1 up");
  }
  check_common_fields(function, problems);
  for (const Role& role : kRoles) { check_role(subject, role, problems); }
  check_allocation(function, problems);
  check_warm(function, problems);
  check_restart(function, problems);
  if (subject.run != nullptr) { check_name(*subject.run, problems); }
  return std::move(problems).result();
}

Result<std::vector<Resource>> spark_resources(const Subject& given, const Site& site) {
  const Function function = with_conf_sizes(given.function);
  const Subject subject{.function = function, .run = given.run, .attempt = given.attempt};
  if (subject.run == nullptr) {
    return fail(Error{.kind = ErrorKind::unsupported,
                      .message = "kind 'spark' has runs, not deployments",
                      .field = "kind",
                      .fix = "run it: metier run"});
  }
  // Here the driver fetches it, and executors get its modules from the driver. The operator's executors have what is in the image.
  if (!site.embedded && loads_source(function)) {
    return fail(
        Error{.kind = ErrorKind::precondition,
              .message = "kind spark cannot load its source when it runs: executors need it too",
              .field = "function.spec.build.load_source_on_run",
              .fix = "with_source_archive(…, pull_at_runtime=False)",
              .code = {}});
  }
  const Run& run = *subject.run;
  if (is_warm(subject.function)) {
    Function bare = subject.function;  // of all its runs
    if (JsonObject* build = object_in(bare.spec(), "build")) {
      build->stable_erase("functionSourceCode");
    }
    METIER_TRY(application, application_spec(Subject{bare, nullptr}, site));
    return warm_resources(subject, site, std::move(application));
  }
  const bool by_mlrun = runs_by_mlrun(subject, site);
  Resource out{.api_version = "sparkoperator.k8s.io/v1beta2", .kind = "SparkApplication"};
  out.metadata.name = resource_name(run.name(), run.uid(), run.iteration(), subject.attempt);
  out.metadata.name_space = project_of(subject, site);
  out.metadata.labels = resource_labels(subject, site);
  out.metadata.annotations = resource_annotations(subject);
  METIER_TRY(spec, application_spec(subject, site));
  std::vector<Resource> all;
  if (by_mlrun) {
    Resource script = script_of(out);
    add_script(spec, script);
    all.push_back(std::move(script));
  }
  out.body["spec"] = std::move(spec);
  all.insert(all.begin(), std::move(out));
  return all;
}

}  // namespace metier
