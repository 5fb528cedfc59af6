#include "cluster/controllers/spark/spark_pods.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <set>

#include "base/json_lists.h"
#include "base/quantity.h"
#include "cluster/controllers/pod_end.h"
#include "cluster/controllers/pod_group.h"
#include "resource/labels.h"

namespace metier {
namespace {

constexpr std::string_view kScript = "local:///etc/config/mlrun/spark-function-code.py";
constexpr std::int64_t kMebi = 1 << 20;
constexpr std::int64_t kLeastOverhead = 384 * kMebi;

const JsonObject& role_of(const Resource& application, std::string_view role) {
  static const JsonObject kNone;
  const auto* found = object_in(application.spec(), role);
  return found == nullptr ? kNone : *found;
}

const JsonObject& conf_of(const Resource& application) {
  static const JsonObject kNone;
  const auto* found = object_in(application.spec(), "sparkConf");
  return found == nullptr ? kNone : *found;
}

bool is_python(const Resource& application) {
  const auto type = string_in(application.spec(), "type", "Python");
  return type == "Python";
}

std::string local_path(std::string_view url) {
  for (const std::string_view scheme : {"local://", "file://"}) {
    if (url.starts_with(scheme)) { return std::string(url.substr(scheme.size())); }
  }
  return std::string(url);
}

// A number in a property, with Spark's default unit for it (MiB).
std::optional<std::int64_t> mebibytes(std::string_view text) {
  if (text.empty()) { return std::nullopt; }
  if (std::ranges::all_of(text, [](unsigned char c) { return std::isdigit(c) != 0; })) {
    return std::atoll(std::string(text).c_str()) * kMebi;
  }
  return spark_bytes(text);
}

// What a role takes beside its heap: Python's processes and the JVM's own (Spark's rule on Kubernetes).
std::int64_t overhead_of(const Resource& application, std::string_view role, std::int64_t heap) {
  const auto& conf = conf_of(application);
  const auto own = string_in(role_of(application, role), "memoryOverhead");
  if (const auto given = mebibytes(own)) { return *given; }
  const auto key = fmt::format("spark.{}.memoryOverhead", role);
  if (const auto given = mebibytes(string_in(conf, key))) { return *given; }
  const std::string factor(string_in(conf, key + "Factor"));
  const double share = !factor.empty()          ? std::atof(factor.c_str())
                       : is_python(application) ? 0.4
                                                : 0.1;
  return std::max(kLeastOverhead, static_cast<std::int64_t>(static_cast<double>(heap) * share));
}

std::int64_t heap_of(const Resource& application, std::string_view role) {
  return spark_bytes(string_in(role_of(application, role), "memory", "1g")).value_or(1024 * kMebi);
}

JsonObject resources_of(const Resource& application, std::string_view role) {
  const auto& body = role_of(application, role);
  const auto cores = std::max<std::int64_t>(1, int_in(body, "cores").value_or(1));
  const auto heap = heap_of(application, role);
  const auto memory =
      fmt::format("{}Mi", (heap + overhead_of(application, role, heap) + kMebi - 1) / kMebi);
  const auto cpu = string_in(body, "coreRequest");
  JsonObject requests{{"cpu", cpu.empty() ? std::to_string(cores) : std::string(cpu)},
                      {"memory", memory}};
  JsonObject limits{{"memory", memory}};
  if (const auto limit = string_in(body, "coreLimit"); !limit.empty()) { limits["cpu"] = limit; }
  if (const auto* gpu = object_in(body, "gpu")) {
    if (const auto* quantity = gpu->if_contains("quantity")) {
      limits[string_in(*gpu, "name", "nvidia.com/gpu")] = *quantity;
    }
  }
  return {{"requests", std::move(requests)}, {"limits", std::move(limits)}};
}

JsonObject dependencies_of(const Resource& application) {
  JsonObject out;
  const auto* deps = object_in(application.spec(), "deps");
  if (deps == nullptr) { return out; }
  for (const auto& [key, property] :
       {std::pair("jars", "spark.jars"), std::pair("files", "spark.files"),
        std::pair("pyFiles", "spark.submit.pyFiles"), std::pair("archives", "spark.archives"),
        std::pair("packages", "spark.jars.packages"),
        std::pair("excludePackages", "spark.jars.excludes"),
        std::pair("repositories", "spark.jars.repositories")}) {
    std::string joined;
    const auto* items = array_in(*deps, key);
    for (const auto& item : items == nullptr ? JsonArray{} : *items) {
      if (!item.is_string()) { continue; }
      joined += (joined.empty() ? "" : ",") + local_path(item.get_string());
    }
    if (!joined.empty()) { out[property] = joined; }
  }
  return out;
}

// The application's properties as the driver gets them; addresses are added where it starts.
JsonObject properties_of(const Resource& application, const SparkNames& names) {
  const auto size = spark_size(application);
  const auto& driver = role_of(application, "driver");
  const auto& executor = role_of(application, "executor");
  const auto cores = std::max<std::int64_t>(1, int_in(executor, "cores").value_or(1));
  JsonObject out{{"spark.app.name", names.prefix},
                 {"spark.ui.killEnabled", "false"},
                 {"spark.scheduler.minRegisteredResourcesRatio", "0.8"}};
  for (const auto& property : dependencies_of(application)) {
    out[property.key()] = property.value();
  }
  if (const auto* hadoop = object_in(application.spec(), "hadoopConf")) {
    for (const auto& member : *hadoop) {
      out["spark.hadoop." + std::string(member.key())] = member.value();
    }
  }
  for (const auto& member : conf_of(application)) { out[member.key()] = member.value(); }
  out["spark.ui.port"] = std::to_string(spark_ui_port(application));
  out["spark.driver.memory"] = string_in(driver, "memory", "1g");
  out["spark.driver.port"] = std::to_string(kSparkDriverPort);
  out["spark.driver.blockManager.port"] = std::to_string(kSparkBlockPort);
  out["spark.blockManager.port"] = std::to_string(kSparkBlockPort);
  out["spark.executor.memory"] = string_in(executor, "memory", "1g");
  out["spark.executor.cores"] = std::to_string(cores);
  out["spark.executor.instances"] = std::to_string(size.initial);
  if (size.dynamic) {
    out["spark.metier.wishes.port"] = std::to_string(kSparkWishesPort);
    out["spark.dynamicAllocation.enabled"] = "true";
    out["spark.dynamicAllocation.shuffleTracking.enabled"] = "true";
    out["spark.dynamicAllocation.minExecutors"] = std::to_string(size.least);
    out["spark.dynamicAllocation.maxExecutors"] = std::to_string(size.most);
    out["spark.dynamicAllocation.initialExecutors"] = std::to_string(size.initial);
  }
  return out;
}

// A value that holds no reference to another variable.
std::string literal(std::string_view text) {
  std::string out;
  for (const char c : text) {
    out += c;
    if (c == '$') { out += c; }
  }
  return out;
}

std::string address_variable(std::string_view service) {
  std::string out = "METIER_";
  for (const char c : service) {
    out +=
        c == '-' || c == '.' ? '_' : static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  }
  return out + "_ADDR";
}

// Spark takes the next port where one is taken: whoever asks the driver would speak to the program that holds this one.
void need_ports(Resource& pod, const Resource& application, std::vector<int> ports) {
  std::string text = fmt::format("{}", fmt::join(ports, ","));
  if (string_in(conf_of(application), "spark.ui.enabled") != "false") {
    text += fmt::format(",{}=spark.ui.port", spark_ui_port(application));
  }
  pod.metadata.annotations[std::string(kPortsAnnotation)] = std::move(text);
}

void put_env(JsonArray& env, std::string_view name, std::string_view value) {
  env.push_back(JsonObject{{"name", name}, {"value", value}});
}

// The part of a pod that both roles share; the container has no command yet.
Resource pod_of(const Resource& application, const SparkNames& names, std::string_view role,
                std::string name, const JsonObject& start) {
  const auto& spec = application.spec();
  const auto& body = role_of(application, role);
  Resource out{.api_version = "v1", .kind = "Pod"};
  out.metadata.name = std::move(name);
  out.metadata.name_space = application.metadata.name_space;
  out.metadata.owner = owner_ref_to(application);
  out.metadata.labels = application.metadata.labels;
  for (const auto& [key, target] : {std::pair("labels", &out.metadata.labels),
                                    std::pair("annotations", &out.metadata.annotations)}) {
    const auto* values = body.if_contains(key);
    if (values == nullptr || values->is_null()) { continue; }
    if (auto parsed = labels_from_json(*values, key)) {
      for (auto& [label, value] : *parsed) { (*target)[label] = value; }
    }
  }
  auto& labels = out.metadata.labels;
  labels[std::string(kSparkAppLabel)] = names.prefix;
  labels[std::string(kSparkRoleLabel)] = role;
  labels[std::string(kSparkAttemptLabel)] = std::to_string(names.attempt);
  labels[std::string(kPodGroupLabel)] = names.group;

  JsonArray env;
  if (const auto* own = array_in(body, "env")) { env = *own; }
  put_env(env, "METIER_SPARK", literal(dump_json(start)));
  if (!names.archives.empty()) { put_env(env, "METIER_SPARK_ARCHIVES", names.archives); }
  put_env(env, "METIER_SPARK_DRIVER_ADDR", fmt::format("$({})", address_variable(names.service)));
  JsonObject container{{"name", fmt::format("spark-kubernetes-{}", role)},
                       {"image", string_in(spec, "image")},
                       {"env", std::move(env)},
                       {"resources", resources_of(application, role)},
                       {"ports", JsonArray{JsonObject{{"name", "blockmanager"},
                                                      {"containerPort", kSparkBlockPort}}}}};
  if (const auto* from = array_in(body, "envFrom")) { container["envFrom"] = *from; }
  // `mlrun` stands for the script, which needs no file then.
  const bool script = string_in(spec, "mainApplicationFile") == kScript;
  JsonArray mounts;
  const auto* own_mounts = array_in(body, "volumeMounts");
  for (const auto& mount : own_mounts == nullptr ? JsonArray{} : *own_mounts) {
    if (script && string_at(mount, "mountPath") == "/etc/config/mlrun") { continue; }
    mounts.push_back(mount);
  }
  JsonArray volumes;
  const auto* all_volumes = array_in(spec, "volumes");
  for (const auto& volume : all_volumes == nullptr ? JsonArray{} : *all_volumes) {
    const auto used = std::ranges::any_of(mounts, [&](const Json& mount) {
      return string_at(mount, "name") == string_at(volume, "name");
    });
    if (used) { volumes.push_back(volume); }
  }
  if (!mounts.empty()) { container["volumeMounts"] = std::move(mounts); }
  if (const auto policy = string_in(spec, "imagePullPolicy"); !policy.empty()) {
    container["imagePullPolicy"] = policy;
  }
  JsonObject pod{{"restartPolicy", "Never"}, {"containers", JsonArray{std::move(container)}}};
  if (!volumes.empty()) { pod["volumes"] = std::move(volumes); }
  for (const auto& [from, to] :
       {std::pair("securityContext", "securityContext"), std::pair("nodeSelector", "nodeSelector"),
        std::pair("tolerations", "tolerations"), std::pair("affinity", "affinity")}) {
    if (const auto* value = body.if_contains(from); value != nullptr && !value->is_null()) {
      pod[to] = *value;
    }
  }
  if (const auto* batch = object_in(spec, "batchSchedulerOptions")) {
    if (const auto name_of = string_in(*batch, "priorityClassName"); !name_of.empty()) {
      pod["priorityClassName"] = name_of;
    }
  }
  out.body["spec"] = std::move(pod);
  return out;
}

JsonObject& container_of(Resource& pod) {
  return pod.body["spec"].get_object()["containers"].get_array()[0].get_object();
}

JsonArray texts_in(const JsonObject& object, std::string_view key) {
  JsonArray out;
  const auto* list = array_in(object, key);
  for (const auto& item : list == nullptr ? JsonArray{} : *list) {
    if (item.is_string()) { out.push_back(Json(literal(item.get_string()))); }
  }
  return out;
}

using Ports = std::vector<std::pair<std::string_view, int>>;

Resource service_of(const Resource& owner, const std::string& name, const std::string& app,
                    std::string_view role, const Ports& ports) {
  Resource out{.api_version = "v1", .kind = "Service"};
  out.metadata.name = name;
  out.metadata.name_space = owner.metadata.name_space;
  out.metadata.labels = owner.metadata.labels;
  out.metadata.owner = owner_ref_to(owner);
  JsonArray list;
  for (const auto& [port, number] : ports) {
    list.push_back(JsonObject{{"name", port}, {"port", number}, {"targetPort", number}});
  }
  out.body["spec"] =
      JsonObject{{"selector", JsonObject{{kSparkAppLabel, app}, {kSparkRoleLabel, role}}},
                 {"ports", std::move(list)}};
  return out;
}

// The application that a warm Spark stands for, under the warm Spark's own name.
Resource application_of(const Resource& connect) {
  Resource out = connect;
  const auto* spec = object_in(connect.spec(), "application");
  out.body["spec"] = spec == nullptr ? JsonObject{} : *spec;
  return out;
}

void add_text(JsonObject& object, std::string_view key, std::string_view more,
              std::string_view separator) {
  const std::string own(string_in(object, key));
  if (more.empty() || own == more) { return; }
  object[key] = own.empty() ? std::string(more) : own + std::string(separator) + std::string(more);
}

// A warm Spark has one process: what the executors alone have is the driver's too.
Resource in_one(Resource application) {
  JsonObject& spec = ensure_object(application.body, "spec");
  const JsonObject executor = role_of(application, "executor");
  JsonObject& driver = ensure_object(spec, "driver");
  JsonObject& conf = ensure_object(spec, "sparkConf");
  add_text(driver, "javaOptions",
           string_in(executor, "javaOptions", string_in(conf, "spark.executor.extraJavaOptions")),
           " ");
  add_text(conf, "spark.driver.extraClassPath", string_in(conf, "spark.executor.extraClassPath"),
           ":");
  const auto* mounts = array_in(executor, "volumeMounts");
  for (const auto& mount : mounts == nullptr ? JsonArray{} : *mounts) {
    JsonArray& own = ensure_array(driver, "volumeMounts");
    if (std::ranges::find(own, mount) == own.end()) { own.push_back(mount); }
  }
  return application;
}

// Devices of the driver and of every executor together.
void add_devices(const Resource& application, std::int64_t executors, JsonObject& limits) {
  for (const auto& [role, count] :
       {std::pair("driver", std::int64_t{1}), std::pair("executor", executors)}) {
    const auto* gpu = object_in(role_of(application, role), "gpu");
    const auto* given = gpu == nullptr ? nullptr : gpu->if_contains("quantity");
    if (given == nullptr) { continue; }
    const auto each = given->is_string() ? std::atoll(std::string(given->get_string()).c_str())
                                         : int_in(*gpu, "quantity").value_or(0);
    const auto name = string_in(*gpu, "name", "nvidia.com/gpu");
    limits[name] = int_in(limits, name).value_or(0) + count * each;
  }
}

std::int64_t milli_of(const Resource& application, std::string_view role, std::string_view field) {
  auto parsed = Quantity::parse(string_in(role_of(application, role), field));
  return parsed ? parsed->milli() : 0;
}

// Leaves out volumes that hold secrets, and their mounts.
void drop_secrets(JsonObject& pod) {
  std::set<std::string, std::less<>> dropped;
  keep_only(ensure_array(pod, "volumes"), [&](const Json& volume) {
    const auto* body = volume.if_object();
    const bool secret =
        body != nullptr && (body->contains("secret") || body->contains("projected"));
    if (secret) { dropped.emplace(string_at(volume, "name")); }
    return !secret;
  });
  auto& container = pod["containers"].get_array()[0].get_object();
  keep_only(ensure_array(container, "volumeMounts"),
            [&](const Json& mount) { return !dropped.contains(string_at(mount, "name")); });
}

}  // namespace

SparkNames::SparkNames(const Resource& application, std::int64_t number) : attempt(number) {
  const auto suffix = number > 1 ? fmt::format("-{}", number) : std::string();
  prefix = shorten_name(application.metadata.name, 63 - suffix.size() - 11) + suffix;
  driver = prefix + "-driver";
  service = prefix + "-driver-svc";
  archiver = prefix + "-archiver";
  group = prefix;
}

std::string SparkNames::executor(std::int64_t id) const {
  return fmt::format("{}-exec-{}", prefix, id);
}

std::optional<std::int64_t> spark_bytes(std::string_view text) {
  const auto digits = std::ranges::find_if_not(
      text, [](char c) { return std::isdigit(static_cast<unsigned char>(c)) != 0; });
  const std::string number(text.begin(), digits);
  const std::string_view unit(digits, text.end());
  if (number.empty() || number.size() > 12 || unit.empty()) { return std::nullopt; }
  const auto value = std::atoll(number.c_str());
  switch (std::tolower(static_cast<unsigned char>(unit[0]))) {
    case 'k': return value << 10;
    case 'm': return value << 20;
    case 'g': return value << 30;
    default: return std::nullopt;
  }
}

SparkSize spark_size(const Resource& application) {
  SparkSize out;
  const auto replicas = std::clamp<std::int64_t>(
      int_in(role_of(application, "executor"), "instances").value_or(1), 1, 10'000);
  out.initial = out.least = out.most = replicas;
  const auto* dynamic = object_in(application.spec(), "dynamicAllocation");
  if (dynamic == nullptr || !bool_in(*dynamic, "enabled")) { return out; }
  out.dynamic = true;
  out.least = std::clamp<std::int64_t>(int_in(*dynamic, "minExecutors").value_or(0), 0, 10'000);
  out.most = std::clamp<std::int64_t>(int_in(*dynamic, "maxExecutors").value_or(10'000),
                                      std::max<std::int64_t>(1, out.least), 10'000);
  out.initial = std::clamp<std::int64_t>(int_in(*dynamic, "initialExecutors").value_or(out.least),
                                         std::max<std::int64_t>(1, out.least), out.most);
  return out;
}

int spark_ui_port(const Resource& application) {
  const int given =
      std::atoi(std::string(string_in(conf_of(application), "spark.ui.port")).c_str());
  return given > 0 && given < 65'536 ? given : kSparkUiPort;
}

Resource spark_service(const Resource& application, const SparkNames& names) {
  return service_of(application, names.service, names.prefix, "driver",
                    {{"driver", kSparkDriverPort},
                     {"blockmanager", kSparkBlockPort},
                     {"ui", spark_ui_port(application)}});
}

Resource spark_group(const Resource& application, const SparkNames& names) {
  auto out = make_pod_group(names.group, application.metadata.name_space,
                            static_cast<int>(1 + spark_size(application).initial));
  out.metadata.owner = owner_ref_to(application);
  return out;
}

Resource spark_driver(const Resource& application, const SparkNames& names) {
  const auto& spec = application.spec();
  const auto main_file = string_in(spec, "mainApplicationFile");
  JsonObject start{{"role", "driver"},
                   {"type", string_in(spec, "type", "Python")},
                   {"app", names.prefix},
                   {"memory", string_in(role_of(application, "driver"), "memory", "1g")},
                   {"java_options", string_in(role_of(application, "driver"), "javaOptions")},
                   {"conf", properties_of(application, names)}};
  if (const auto main_class = string_in(spec, "mainClass"); !main_class.empty()) {
    start["main_class"] = main_class;
  }
  auto out = pod_of(application, names, "driver", names.driver, start);
  auto& container = container_of(out);
  for (const auto& [name, number] :
       {std::pair("driver", kSparkDriverPort), std::pair("ui", spark_ui_port(application))}) {
    container["ports"].get_array().push_back(JsonObject{{"name", name}, {"containerPort", number}});
  }
  std::vector<int> ports{kSparkDriverPort};
  if (spark_size(application).dynamic) { ports.push_back(kSparkWishesPort); }
  need_ports(out, application, ports);
  auto arguments = texts_in(spec, "arguments");
  if (main_file == kScript) {
    container["command"] = JsonArray{"mlrun"};
    container["args"] = std::move(arguments);
    return out;
  }
  JsonArray words{"-m", "metier_runner.spark", "driver", literal(local_path(main_file))};
  words.insert(words.end(), arguments.begin(), arguments.end());
  container["command"] = JsonArray{"$(METIER_PYTHON)"};
  container["args"] = std::move(words);
  return out;
}

Resource spark_executor(const Resource& application, const SparkNames& names, std::int64_t id) {
  const auto& body = role_of(application, "executor");
  const auto& conf = conf_of(application);
  const JsonObject start{
      {"role", "executor"},
      {"app", names.prefix},
      {"id", std::to_string(id)},
      {"cores", std::max<std::int64_t>(1, int_in(body, "cores").value_or(1))},
      {"memory", string_in(body, "memory", "1g")},
      {"java_options",
       string_in(body, "javaOptions", string_in(conf, "spark.executor.extraJavaOptions"))},
      {"class_path", string_in(conf, "spark.executor.extraClassPath")}};
  auto out = pod_of(application, names, "executor", names.executor(id), start);
  out.metadata.labels[std::string(kSparkExecutorLabel)] = std::to_string(id);
  auto& container = container_of(out);
  container["command"] = JsonArray{"$(METIER_PYTHON)"};
  container["args"] = JsonArray{"-m", "metier_runner.spark", "executor"};
  return out;
}

Resource spark_archiver(const Resource& application, const SparkNames& names) {
  auto out = pod_of(application, names, "executor", names.archiver, {});
  out.metadata.labels = {{std::string(kSparkAppLabel), names.prefix},
                         {std::string(kSparkRoleLabel), "archiver"}};
  auto& container = container_of(out);
  container["name"] = "spark-archiver";
  container["command"] = JsonArray{"$(METIER_PYTHON)"};
  container["args"] = JsonArray{"-m", "metier_runner.spark_archive"};
  JsonArray env;
  put_env(env, "METIER_SPARK_ARCHIVES", names.archives);
  container["env"] = std::move(env);
  for (const auto* key : {"envFrom", "ports", "resources"}) { container.erase(key); }
  drop_secrets(out.body["spec"].get_object());
  return out;
}

std::string pod_end_text(const PodStatus& status) {
  if (!status.message.empty()) { return status.message; }
  for (const auto& container : status.containers) {
    if (!container.message.empty()) { return container.message; }
    if (container.signal != 0) { return fmt::format("killed by signal {}", container.signal); }
    if (container.exit_code != 0) { return fmt::format("exit code {}", container.exit_code); }
  }
  return status.reason.empty() ? "it failed" : status.reason;
}

std::string part_end_text(std::string_view who, const PodStatus& status) {
  const std::string_view reason = status.reason;
  if (reason == "OOMKilled") {
    return fmt::format("{} was killed: it used more memory than its limit", who);
  }
  if (reason.starts_with("Killed(") && reason.ends_with(')')) {
    return fmt::format("{} was killed by {}", who, reason.substr(7, reason.size() - 8));
  }
  if (end_is_unseen(reason)) { return fmt::format("{} was lost: {}", who, status.message); }
  return pod_end_text(status);
}

std::string spark_connect_name(const Resource& connect, std::int64_t incarnation) {
  return incarnation > 1 ? fmt::format("{}-server-{}", connect.metadata.name, incarnation)
                         : connect.metadata.name + "-server";
}

int spark_connect_ui_port(const Resource& connect) {
  return spark_ui_port(application_of(connect));
}

Resource spark_connect_service(const Resource& connect) {
  return service_of(connect, connect.metadata.name, connect.metadata.name, "connect",
                    {{"connect", kSparkConnectPort}, {"ui", spark_connect_ui_port(connect)}});
}

Resource spark_connect_group(const Resource& connect) {
  auto out = make_pod_group(connect.metadata.name, connect.metadata.name_space, 2);
  out.metadata.labels = connect.metadata.labels;
  out.metadata.owner = owner_ref_to(connect);
  return out;
}

Resource spark_connect_pod(const Resource& connect, std::int64_t incarnation,
                           const std::string& archives) {
  const Resource application = in_one(application_of(connect));
  SparkNames names(application, 1);
  names.prefix = names.group = names.service = connect.metadata.name;
  names.attempt = incarnation;
  names.archives = archives;
  const auto executors = spark_size(application).initial;
  const auto& executor = role_of(application, "executor");
  const auto cores = executors * std::max<std::int64_t>(1, int_in(executor, "cores").value_or(1));
  const auto heap = heap_of(application, "driver") + executors * heap_of(application, "executor");
  auto conf = properties_of(application, names);
  for (const auto* key :
       {"spark.driver.port", "spark.driver.blockManager.port", "spark.blockManager.port",
        "spark.executor.memory", "spark.executor.cores", "spark.executor.instances"}) {
    conf.erase(key);
  }
  const auto memory = fmt::format("{}m", heap / kMebi);
  conf["spark.driver.memory"] = memory;
  const JsonObject start{{"role", "connect"},
                         {"app", connect.metadata.name},
                         {"cores", cores},
                         {"memory", memory},
                         {"idle", int_in(connect.spec(), "idle").value_or(600)},
                         {"java_options", string_in(role_of(application, "driver"), "javaOptions")},
                         {"conf", std::move(conf)}};
  auto out = pod_of(application, names, "driver", spark_connect_name(connect, incarnation), start);
  out.metadata.labels[std::string(kSparkRoleLabel)] = "connect";
  auto& container = container_of(out);
  container["name"] = "spark-connect";
  container["command"] = JsonArray{"$(METIER_PYTHON)"};
  container["args"] = JsonArray{"-m", "metier_runner.spark", "connect"};
  JsonArray ports;
  for (const auto& [name, number] :
       {std::pair("connect", kSparkConnectPort), std::pair("ui", spark_ui_port(application))}) {
    ports.push_back(JsonObject{{"name", name}, {"containerPort", number}});
  }
  container["ports"] = std::move(ports);
  need_ports(out, application, {kSparkConnectPort});
  const auto bytes = (heap + overhead_of(application, "driver", heap) + kMebi - 1) / kMebi;
  const auto cpu = [&](std::string_view field) {
    const auto driver = milli_of(application, "driver", field);
    const auto each = milli_of(application, "executor", field);
    return driver == 0 || each == 0 ? std::int64_t{0} : driver + executors * each;
  };
  JsonObject requests{{"memory", fmt::format("{}Mi", bytes)}};
  JsonObject limits = requests;
  if (const auto milli = cpu("coreRequest"); milli > 0) {
    requests["cpu"] = fmt::format("{}m", milli);
  }
  if (const auto milli = cpu("coreLimit"); milli > 0) { limits["cpu"] = fmt::format("{}m", milli); }
  add_devices(application, executors, limits);
  container["resources"] = JsonObject{{"requests", requests}, {"limits", limits}};
  ensure_array(container, "env")
      .push_back(JsonObject{
          {"name", "SPARK_CONNECT_AUTHENTICATE_TOKEN"},
          {"valueFrom",
           JsonObject{{"secretKeyRef", JsonObject{{"name", string_in(connect.spec(), "token")},
                                                  {"key", "token"}}}}}});
  return out;
}

}  // namespace metier
