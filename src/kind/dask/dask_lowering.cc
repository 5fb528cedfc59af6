#include "kind/dask/dask_lowering.h"

#include <algorithm>
#include <array>
#include <cctype>

#include "base/digest.h"
#include "base/text.h"
#include "kind/lowering.h"
#include "model/names.h"
#include "model/python_text.h"
#include "resource/labels.h"

namespace metier {
namespace {

// `mlrun-` + this + `-` + 10 digits leaves room for `-scheduler-99999` in 63.
constexpr std::size_t kLongestFunction = 30;
// What our controller asks of the scheduler, beside what Dask serves by itself.
constexpr std::string_view kRoutes =
    R"("distributed.http.scheduler.prometheus","distributed.http.scheduler.info","distributed.http.scheduler.json",)"
    R"("distributed.http.health","distributed.http.proxy","distributed.http.statics","distributed.http.scheduler.api")";
// On this machine the runner is on the path of every pod: all that the controller asks in one answer.
constexpr std::string_view kOwnRoute = R"(,"metier_runner.dask_http")";

// How often a process looks whether its event loop still turns; Dask's 20 ms are more than half of what an idle scheduler uses,
// and its warning comes after 3 s.
constexpr std::string_view kTick = "DASK_DISTRIBUTED__ADMIN__TICK__INTERVAL";
constexpr std::string_view kOurTick = "100ms";
// What a nanny gives its worker (distributed.nanny.pre-spawn-environ): threads come from nthreads, and freed memory goes back.
constexpr std::array<std::pair<std::string_view, std::string_view>, 4> kNannyVariables{{
    {"MALLOC_TRIM_THRESHOLD_", "65536"},
    {"OMP_NUM_THREADS", "1"},
    {"MKL_NUM_THREADS", "1"},
    {"OPENBLAS_NUM_THREADS", "1"},
}};

std::string name_of(const Json& entry) {
  return entry.is_object() ? std::string(string_in(entry.get_object(), "name")) : std::string();
}

void set_default(JsonArray& env, std::string_view name, std::string_view value) {
  const bool given =
      std::ranges::any_of(env, [&](const Json& entry) { return name_of(entry) == name; });
  if (!given) { env.push_back(JsonObject{{"name", name}, {"value", value}}); }
}

// Runtime variables win; of the function's own, a repeated name has its last value at its first place.
JsonArray cluster_env(const Subject& subject, const Site& site) {
  Function bare = subject.function;
  bare.spec().erase("env");
  if (JsonObject* build = object_in(bare.spec(), "build")) { build->erase("functionSourceCode"); }
  Site without_secrets = site;
  without_secrets.project_secret_keys.clear();
  JsonArray env = container_env(Subject{bare, nullptr}, without_secrets);
  const std::size_t fixed = env.size();
  if (const JsonArray* own = array_in(subject.function.spec(), "env")) {
    bare.spec()["env"] = *own;
  }
  const JsonArray all = container_env(Subject{bare, nullptr}, site);
  for (std::size_t i = fixed; i < all.size(); ++i) {
    const std::string name = name_of(all[i]);
    const auto known =
        std::ranges::find_if(env, [&](const Json& entry) { return name_of(entry) == name; });
    if (known == env.end()) {
      env.push_back(all[i]);
    } else if (known - env.begin() >= static_cast<std::ptrdiff_t>(fixed)) {
      *known = all[i];
    }
  }
  return env;
}

// As dask-kubernetes places the pods of a role: nodes kept for it (taint) may have them, nodes meant for it (label) are preferred.
void add_dask_nodes(JsonObject& spec, std::string_view component) {
  JsonArray& tolerations = ensure_array(spec, "tolerations");
  for (const std::string_view key : {"k8s.dask.org/dedicated", "k8s.dask.org_dedicated"}) {
    tolerations.push_back(JsonObject{
        {"key", key}, {"operator", "Equal"}, {"value", component}, {"effect", "NoSchedule"}});
  }
  const JsonObject meant{
      {"key", "k8s.dask.org/node-purpose"}, {"operator", "In"}, {"values", JsonArray{component}}};
  ensure_array(ensure_object(ensure_object(spec, "affinity"), "nodeAffinity"),
               "preferredDuringSchedulingIgnoredDuringExecution")
      .push_back(JsonObject{{"weight", 100},
                            {"preference", JsonObject{{"matchExpressions", JsonArray{meant}}}}});
}

Json role_template(const Subject& subject, const Site& site, std::string_view component,
                   PodRole role) {
  JsonObject labels{{"app", "dask"}, {kDaskComponentLabel, component}, {"user", "metier"}};
  JsonObject metadata{{"labels", std::move(labels)}};
  JsonObject spec = role_spec(subject, site, std::move(role));
  if (site.embedded) {
    metadata["annotations"] = JsonObject{{kPreloadAnnotation, "dask"}};
    // Who is stopped has been retired or has nothing to lose; a worker in a long call would use up any grace.
    spec["terminationGracePeriodSeconds"] = 3;
  } else {
    add_dask_nodes(spec, component);
  }
  return JsonObject{{"metadata", std::move(metadata)}, {"spec", std::move(spec)}};
}

// What a role asks for. On this machine one that says nothing asks for a little, so that more than fits is refused.
JsonObject resources_of(const Function& function, std::string_view field, const Site& site) {
  JsonObject out = role_resources(function, field, site);
  const JsonObject* given = object_in(function.spec(), field);
  if (!site.embedded || (given != nullptr && given->empty())) { return out; }
  for (const auto& [name, amount] :
       {std::pair("cpu", kEmbeddedDaskCpu), std::pair("memory", kEmbeddedDaskMemory)}) {
    const JsonObject* limits = object_in(out, "limits");
    if (limits != nullptr && limits->contains(name)) { continue; }  // Kubernetes asks for it then
    ensure_object(out, "requests").emplace(name, amount);
  }
  return out;
}

void own_address(JsonArray& env) {
  env.push_back(JsonObject{
      {"name", "METIER_POD_ADDRESS"},
      {"valueFrom", JsonObject{{"fieldRef", JsonObject{{"fieldPath", "status.podIP"}}}}}});
}

Json scheduler_template(const Subject& subject, const Site& site) {
  PodRole role{.line = {.command = {}, .args = {"dask", "scheduler"}},
               .env = cluster_env(subject, site),
               .resources = resources_of(subject.function, "scheduler_resources", site),
               .working_dir = {}};
  if (site.embedded) {
    own_address(role.env);
    role.line.args.insert(role.line.args.end(),
                          {"--host", "$(METIER_POD_ADDRESS)", "--port", "8786", "--protocol", "tls",
                           "--dashboard-address", "$(METIER_POD_ADDRESS):8787"});
  }
  role.line.args.insert(role.line.args.end(),
                        {"--idle-timeout", dask_idle_timeout(subject.function)});
  set_default(role.env, "DASK_DISTRIBUTED__SCHEDULER__HTTP__ROUTES",
              "[" + std::string(kRoutes) + (site.embedded ? std::string(kOwnRoute) : "") + "]");
  if (site.embedded) { set_default(role.env, kTick, kOurTick); }
  Json out = role_template(subject, site, "scheduler", std::move(role));
  if (site.embedded) {
    out.at("metadata").at("annotations").get_object()[kPortsAnnotation] = "8786,8787";
  }
  return out;
}

Json worker_template(const Subject& subject, const Site& site) {
  const Function& function = subject.function;
  PodRole role{.line = {.command = {},
                        .args = {"dask", "worker", "--nthreads",
                                 std::to_string(int_in(function.spec(), "nthreads").value_or(1))}},
               .env = cluster_env(subject, site),
               .resources = resources_of(function, "worker_resources", site),
               .working_dir = {}};
  if (const JsonObject* limits = object_in(role.resources, "limits")) {
    if (const Json* memory = limits->if_contains("memory")) {
      role.line.args.insert(role.line.args.end(), {"--memory-limit", python_text(*memory)});
    }
  }
  if (site.embedded) {
    own_address(role.env);
    // Our controller replaces workers and the pod's cgroup limits memory: no nanny.
    role.line.args.insert(role.line.args.end(),
                          {"--host", "$(METIER_POD_ADDRESS)", "--no-dashboard", "--no-nanny"});
    for (const auto& [name, value] : kNannyVariables) { set_default(role.env, name, value); }
    set_default(role.env, kTick, kOurTick);
  }
  if (const JsonArray* args = array_in(function.spec(), "args")) {
    for (const Json& argument : *args) { role.line.args.push_back(python_text(argument)); }
  }
  return role_template(subject, site, "worker", std::move(role));
}

}  // namespace

Result<DaskScale> dask_scale(const Function& function) {
  DaskScale scale;
  const JsonObject& spec = function.spec();
  if (const auto replicas = int_in(spec, "replicas")) {
    if (*replicas < 1) {
      return fail(
          invalid("spec.replicas",
                  "a Dask cluster of " + std::to_string(*replicas) + " workers computes nothing",
                  "give at least 1, or leave it out and give min_replicas and max_replicas"));
    }
    return DaskScale{.minimum = *replicas, .maximum = *replicas};
  }
  scale.minimum = int_in(spec, "min_replicas").value_or(scale.minimum);
  scale.maximum = int_in(spec, "max_replicas").value_or(std::max(scale.maximum, scale.minimum));
  if (scale.minimum < 0) {
    return fail(invalid("spec.min_replicas", std::to_string(scale.minimum) + " is less than 0"));
  }
  if (scale.maximum < 1) {
    return fail(invalid("spec.max_replicas",
                        std::to_string(scale.maximum) + " workers at most compute nothing",
                        "give at least 1"));
  }
  if (scale.minimum > scale.maximum) {
    return fail(invalid("spec.min_replicas",
                        std::to_string(scale.minimum) + " is more than max_replicas " +
                            std::to_string(scale.maximum),
                        "give a minimum that is not above the maximum"));
  }
  return scale;
}

std::string dask_idle_timeout(const Function& function) {
  const Json* given = function.find("scheduler_timeout");
  if (given == nullptr || given->is_null()) { return std::string(kDaskIdleTimeout); }
  std::string text = python_text(*given);
  return text.empty() ? std::string(kDaskIdleTimeout) : text;
}

bool dask_is_remote(const Function& function) { return bool_in(function.spec(), "remote", true); }

bool is_dask_time(std::string_view text) {
  constexpr std::array<std::string_view, 28> kUnits{
      "s",           "sec",         "second",       "seconds",
      "ms",          "millisecond", "milliseconds", "us",
      "ns",          "microsecond", "microseconds", "nanosecond",
      "nanoseconds", "m",           "min",          "minute",
      "minutes",     "h",           "hr",           "hour",
      "hours",       "d",           "day",          "days",
      "w",           "week",        "weeks",        ""};
  std::string compact;
  for (const char c : text) {
    if (c != ' ') { compact += static_cast<char>(std::tolower(static_cast<unsigned char>(c))); }
  }
  const std::size_t end = compact.find_first_not_of("0123456789.");
  if (end == 0 || compact.empty() || std::ranges::count(compact.substr(0, end), '.') > 1 ||
      compact.front() == '.') {
    return false;
  }
  const std::string_view unit =
      end == std::string::npos ? std::string_view() : std::string_view(compact).substr(end);
  return std::ranges::find(kUnits, unit) != kUnits.end();
}

void add_dask_identity(JsonArray& env, const std::string& cluster) {
  const auto from_secret = [&](std::string_view name, std::string_view key) {
    env.push_back(JsonObject{
        {"name", "DASK_DISTRIBUTED__COMM__TLS__" + std::string(name)},
        {"valueFrom",
         JsonObject{{"secretKeyRef",
                     JsonObject{{"name", cluster + std::string(kDaskIdentity)}, {"key", key}}}}}});
  };
  from_secret("CA_FILE", "tls.crt");
  for (const std::string_view role : {"SCHEDULER", "WORKER", "CLIENT"}) {
    from_secret(std::string(role) + "__CERT", "tls.crt");
    from_secret(std::string(role) + "__KEY", "tls.key");
  }
  env.push_back(
      JsonObject{{"name", "DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION"}, {"value", "True"}});
}

std::string dask_address(const Resource& cluster, const Site& site) {
  if (!site.embedded) {
    return "tcp://" + cluster.metadata.name + "." + cluster.metadata.name_space + ":8786";
  }
  std::string variable = "METIER_";
  for (const char c : cluster.metadata.name) {
    variable += c == '-' ? '_' : static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  }
  return "tls://$(" + variable + "_ADDR):8786";
}

Result<Resource> dask_cluster(const Subject& subject, const Site& site) {
  const Subject shared{subject.function, nullptr};
  METIER_TRY(scale, dask_scale(subject.function));
  Resource cluster{.api_version = "metier.dev/v1", .kind = "DaskCluster"};
  cluster.metadata.name_space = project_of(subject, site);
  cluster.metadata.labels = resource_labels(shared, site);
  cluster.metadata.labels["mlrun/project"] = cluster.metadata.name_space;
  JsonObject scheduler{{"template", scheduler_template(shared, site)}};
  JsonObject worker{{"template", worker_template(shared, site)}};
  const std::string identity = cluster.metadata.name_space + "\n" + subject.function.name() + "\n" +
                               cluster.metadata.labels["mlrun/tag"] + "\n" + site.environment +
                               "\n" + dump_json(Json(scheduler)) + dump_json(Json(worker));
  cluster.metadata.name = "mlrun-" +
                          shorten_name(normalize_name(subject.function.name()), kLongestFunction) +
                          "-" + sha256_hex(identity).substr(0, 10);
  cluster.metadata.labels[std::string(kSharedLabel)] = cluster.metadata.name;
  if (site.embedded) {  // after the name: it is in there
    for (JsonObject* role : {&scheduler, &worker}) {
      JsonObject& container = (*role)["template"].at("spec").at("containers").at(0).get_object();
      add_dask_identity(container["env"].get_array(), cluster.metadata.name);
    }
  }
  JsonObject spec{{"minimum", scale.minimum}, {"maximum", scale.maximum}};
  spec["address"] = dask_address(cluster, site);
  spec["handler"] = subject.run != nullptr;
  if (subject.run != nullptr) {
    spec["openedBy"] = resource_name(subject.run->name(), subject.run->uid(),
                                     subject.run->iteration(), subject.attempt);
  }
  JsonObject service;
  const auto node_port = int_in(subject.function.spec(), "node_port");
  if (const std::string type = node_port ? "NodePort" : subject.function.text("service_type");
      !type.empty()) {
    service["type"] = type;
  }
  if (node_port) { service["nodePort"] = *node_port; }
  spec["service"] = std::move(service);
  spec["scheduler"] = std::move(scheduler);
  spec["worker"] = std::move(worker);
  cluster.body["spec"] = std::move(spec);
  return cluster;
}

}  // namespace metier
