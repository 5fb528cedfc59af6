#include "cluster/controllers/nuclio/processor_pod.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "resource/labels.h"

namespace metier {
namespace {

std::string runtime_of(const JsonObject& spec) {
  std::string runtime(string_in(spec, "runtime", "python"));
  return runtime.substr(0, runtime.find(':'));
}

// The least level of the function's own sinks, as Nuclio's logger has it.
std::string log_level(const JsonObject& spec) {
  static constexpr std::string_view kLevels[] = {"debug", "info", "warn", "error"};
  const JsonArray* sinks = array_in(spec, "loggerSinks");
  std::size_t least = std::size(kLevels);
  for (const Json& sink : sinks == nullptr ? JsonArray{} : *sinks) {
    std::string level(string_at(sink, "level"));
    if (level == "warning") { level = "warn"; }
    const auto at = std::ranges::find(kLevels, level);
    least = std::min<std::size_t>(least, static_cast<std::size_t>(at - std::begin(kLevels)));
  }
  return std::string(least < std::size(kLevels) ? kLevels[least] : kLevels[0]);
}

std::string duration_text(const Json& value) {
  if (value.is_string()) { return std::string(std::string_view(value.get_string())); }
  // Go's JSON form of a duration is a number of nanoseconds.
  return fmt::format("{}ms", value.is_int64() ? value.get_int64() / 1'000'000 : 0);
}

JsonObject trigger_config(std::string_view name, const JsonObject& trigger,
                          const ProcessorPlace& place) {
  JsonObject out{{"name", name}, {"kind", string_in(trigger, "kind")}};
  for (const char* key :
       {"workerAvailabilityTimeoutMilliseconds", "workerAllocatorName", "mode", "explicitAckMode",
        "batch", "url", "username", "password", "secret", "paths", "annotations"}) {
    if (const Json* value = trigger.if_contains(key)) { out[key] = *value; }
  }
  for (const char* key : {"workerTerminationTimeout", "waitExplicitAckDuringRebalanceTimeout"}) {
    if (const Json* value = trigger.if_contains(key)) { out[key] = duration_text(*value); }
  }
  out["numWorkers"] = std::max<std::int64_t>(1, int_in(trigger, "numWorkers").value_or(1));
  if (const JsonObject* async = object_in(trigger, "async")) {
    if (const auto most = int_in(*async, "maxConnectionsNumber")) {
      out["async"] = JsonObject{{"maxConnectionsNumber", *most}};
    }
  }
  JsonObject attributes = object_in(trigger, "attributes") == nullptr
                              ? JsonObject{}
                              : *object_in(trigger, "attributes");
  if (string_in(trigger, "kind") == "http") {
    // Whose socket it is, and who may call from where, is the Service's matter.
    for (const char* key : {"port", "serviceType", "ingresses", "disablePortPublishing"}) {
      attributes.erase(key);
    }
    out["listen"] = place.gate.empty() ? JsonObject{{"address", place.address}}
                                       : JsonObject{{"gate", place.gate}, {"name", place.socket}};
  }
  if (!attributes.empty()) { out["attributes"] = std::move(attributes); }
  return out;
}

JsonObject texts(const Labels& labels) {
  JsonObject out;
  for (const auto& [key, value] : labels) { out[key] = value; }
  return out;
}

}  // namespace

std::string nuclio_service_name(const Resource& function) {
  return shorten_name("nuclio-" + function.metadata.name, 63);
}

const JsonObject* http_trigger(const JsonObject& spec) {
  const JsonObject* triggers = object_in(spec, "triggers");
  if (triggers == nullptr) { return nullptr; }
  for (const auto& member : *triggers) {
    if (!member.value().is_object()) { continue; }
    const JsonObject& trigger = member.value().get_object();
    if (string_in(trigger, "kind") == "http" && !bool_in(trigger, "disabled")) { return &trigger; }
  }
  return nullptr;
}

int node_port(const JsonObject& spec) {
  const JsonObject* http = http_trigger(spec);
  const JsonObject* attributes = http == nullptr ? nullptr : object_in(*http, "attributes");
  if (attributes == nullptr || string_in(*attributes, "serviceType") == "ClusterIP" ||
      bool_in(*attributes, "disablePortPublishing")) {
    return -1;
  }
  return static_cast<int>(int_in(*attributes, "port").value_or(0));
}

std::int64_t function_generation(const Resource& function) {
  const auto text = function.metadata.annotations.find("metier.dev/generation");
  std::int64_t generation = 1;
  if (text != function.metadata.annotations.end()) {
    std::from_chars(text->second.data(), text->second.data() + text->second.size(), generation);
  }
  return generation;
}

std::string processor_pod_name(const Resource& function, std::int64_t generation,
                               std::int64_t index) {
  const auto suffix = fmt::format("-{}-{}", generation, index);
  return shorten_name("nuclio-" + function.metadata.name, 63 - suffix.size()) + suffix;
}

Resource nuclio_service(const Resource& function) {
  Resource out{.api_version = "v1", .kind = "Service"};
  out.metadata.name = nuclio_service_name(function);
  out.metadata.name_space = function.metadata.name_space;
  out.metadata.labels = function.metadata.labels;
  out.metadata.annotations["metier.dev/held-socket"] = "true";
  JsonObject port{{"name", "http"}, {"port", 8080}, {"targetPort", 8080}};
  const int outside = node_port(function.spec());
  if (outside > 0) { port["nodePort"] = outside; }
  out.body["spec"] = JsonObject{
      {"type", outside < 0 ? "ClusterIP" : "NodePort"},
      {"selector",
       JsonObject{{"nuclio.io/function-name", shorten_name(function.metadata.name, 63)}}},
      {"ports", JsonArray{std::move(port)}}};
  return out;
}

Resource processor_pod(const Resource& function, std::int64_t generation, std::int64_t index) {
  const JsonObject& spec = function.spec();
  Resource out{.api_version = "v1", .kind = "Pod"};
  out.metadata.name = processor_pod_name(function, generation, index);
  out.metadata.name_space = function.metadata.name_space;
  out.metadata.labels = function.metadata.labels;
  out.metadata.labels["nuclio.io/function-name"] = shorten_name(function.metadata.name, 63);
  out.metadata.labels["metier.dev/generation"] = std::to_string(generation);
  out.metadata.labels["metier.dev/index"] = std::to_string(index);
  out.metadata.annotations[std::string(kFunctionAnnotation)] = function.metadata.name;
  if (runtime_of(spec) == "python") {
    out.metadata.annotations[std::string(kForkedTemplateAnnotation)] = "true";
  }
  for (const char* key : {"metier.dev/environment", "metier.dev/context"}) {
    if (const auto found = function.metadata.annotations.find(std::string_view(key));
        found != function.metadata.annotations.end()) {
      out.metadata.annotations[key] = found->second;
    }
  }
  out.metadata.owner = owner_ref_to(function);

  JsonObject container{
      {"name", "nuclio"},
      {"command",
       JsonArray{"$(METIER_PROGRAM)", "processor", "--config", "$(METIER_PROCESSOR_CONFIG)"}},
      {"ports", JsonArray{JsonObject{{"name", "health"}, {"containerPort", kHealthPort}},
                          JsonObject{{"name", "metrics"}, {"containerPort", kMetricsPort}}}},
      {"readinessProbe",
       JsonObject{{"httpGet", JsonObject{{"path", "/ready"}, {"port", kHealthPort}}},
                  {"periodSeconds", 2},
                  {"failureThreshold", 2}}}};
  for (const char* key : {"image", "env", "envFrom", "resources", "imagePullPolicy"}) {
    if (const Json* value = spec.if_contains(key)) { container[key] = *value; }
  }
  if (const JsonArray* pairs = array_in(spec, "volumes")) {
    JsonArray mounts;
    for (const Json& pair : *pairs) {
      if (const Json* mount =
              pair.is_object() ? pair.get_object().if_contains("volumeMount") : nullptr) {
        mounts.push_back(*mount);
      }
    }
    container["volumeMounts"] = std::move(mounts);
  }
  JsonObject pod{{"restartPolicy", "Always"},
                 {"terminationGracePeriodSeconds", 30},
                 {"containers", JsonArray{std::move(container)}}};
  if (const JsonArray* pairs = array_in(spec, "volumes")) {
    JsonArray volumes;
    for (const Json& pair : *pairs) {
      const Json* volume = pair.is_object() ? pair.get_object().if_contains("volume") : nullptr;
      if (volume != nullptr && std::ranges::find(volumes, *volume) == volumes.end()) {
        volumes.push_back(*volume);
      }
    }
    pod["volumes"] = std::move(volumes);
  }
  for (const char* key : {"securityContext", "priorityClassName"}) {
    if (const Json* value = spec.if_contains(key)) { pod[key] = *value; }
  }
  if (const auto user = function.metadata.annotations.find("metier.dev/run-as");
      user != function.metadata.annotations.end()) {
    JsonObject& security = ensure_object(pod, "securityContext");
    if (!security.contains("runAsUser")) {
      const auto uid = std::strtoll(user->second.c_str(), nullptr, 10);
      security["runAsUser"] = uid;
      security["runAsGroup"] = uid;
    }
  }
  out.body["spec"] = std::move(pod);
  return out;
}

std::string code_file(const JsonObject& spec) {
  const std::string handler(string_in(spec, "handler"));
  const std::size_t colon = handler.rfind(':');
  std::string module = colon == std::string::npos ? "main" : handler.substr(0, colon);
  if (module.empty()) { module = "main"; }
  if (runtime_of(spec) != "python") { return module; }
  std::ranges::replace(module, '.', '/');
  return module + ".py";
}

JsonObject processor_config(const Resource& function, const ProcessorPlace& place) {
  const JsonObject& spec = function.spec();
  const auto project = function.metadata.labels.find("nuclio.io/project-name");
  JsonObject out{
      {"v", 1},
      {"name", function.metadata.name},
      {"namespace", function.metadata.name_space},
      {"project",
       project == function.metadata.labels.end() ? function.metadata.name_space : project->second},
      {"labels", texts(function.metadata.labels)},
      {"handler", string_in(spec, "handler")},
      {"runtime", string_in(spec, "runtime", "python")},
      {"path", place.path},
      {"lib", place.lib},
      {"logLevel", log_level(spec)},
      {"instance", place.pod},
      {"health", JsonObject{{"address", fmt::format("{}:{}", place.pod_ip, kHealthPort)}}},
      {"metrics", JsonObject{{"address", fmt::format("{}:{}", place.pod_ip, kMetricsPort)}}},
      {"admin", JsonObject{{"address", fmt::format("{}:{}", place.pod_ip, kAdminPort)}}}};
  if (!place.python.empty()) { out["python"] = place.python; }
  if (const auto text = string_in(spec, "description"); !text.empty()) {
    out["description"] = text;
  }
  if (const JsonObject* attributes = object_in(spec, "runtimeAttributes")) {
    out["runtimeAttributes"] = *attributes;
  }
  if (const Json* timeout = spec.if_contains("eventTimeout")) {
    out["eventTimeout"] = duration_text(*timeout);
  }
  JsonArray triggers;
  const JsonObject* given = object_in(spec, "triggers");
  for (const auto& member : given == nullptr ? JsonObject{} : *given) {
    if (!member.value().is_object()) { continue; }
    const JsonObject& trigger = member.value().get_object();
    if (bool_in(trigger, "disabled")) { continue; }
    JsonObject inside = trigger_config(member.key(), trigger, place);
    if (!place.external_socket.empty() && string_in(trigger, "kind") == "http") {
      // The same workers behind a second socket: the one that other machines reach.
      if (string_in(inside, "workerAllocatorName").empty()) {
        inside["workerAllocatorName"] = member.key();
      }
      JsonObject outside = inside;
      outside["name"] = std::string(member.key()) + "-external";
      outside["listen"] = JsonObject{{"gate", place.gate}, {"name", place.external_socket}};
      triggers.push_back(std::move(outside));
    }
    triggers.push_back(std::move(inside));
  }
  out["triggers"] = std::move(triggers);
  return out;
}

}  // namespace metier
