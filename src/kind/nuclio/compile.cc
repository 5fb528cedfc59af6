#include "kind/nuclio/compile.h"

#include <algorithm>
#include <filesystem>

#include "kind/lowering.h"
#include "model/nuclio/inline.h"
#include "model/python_text.h"

namespace metier::nuclio {
namespace {

bool absent(const Json& value) {
  return value.is_null() || (value.is_string() && value.get_string().empty()) ||
         (value.is_object() && value.get_object().empty()) ||
         (value.is_array() && value.get_array().empty());
}

// null and empty values mean "not given", at any depth of objects.
JsonObject without_absent(const JsonObject& object) {
  JsonObject out;
  for (const auto& member : object) {
    if (member.value().is_object()) {
      JsonObject inside = without_absent(member.value().get_object());
      if (!inside.empty()) { out[member.key()] = std::move(inside); }
    } else if (!absent(member.value())) {
      out[member.key()] = member.value();
    }
  }
  return out;
}

// A number of replicas may come as text from forms and templates.
void put_number(JsonObject& spec, std::string_view key, const Json* value) {
  if (value == nullptr || value->is_null() || spec.contains(key)) { return; }
  if (value->is_string()) {
    try {
      spec[key] = std::stoll(std::string(std::string_view(value->get_string())));
    } catch (const std::exception&) { spec[key] = *value; }
    return;
  }
  spec[key] = *value;
}

void copy(const Function& function, std::string_view from, JsonObject& spec, std::string_view to) {
  const Json* value = function.spec().if_contains(from);
  if (value != nullptr && !absent(*value)) { spec[to] = *value; }
}

Result<void> add_volumes(const Function& function, JsonObject& spec) {
  const JsonArray none;
  const JsonArray* volumes = array_in(function.spec(), "volumes");
  const JsonArray* mounts = array_in(function.spec(), "volume_mounts");
  if (volumes == nullptr) { volumes = &none; }
  if (mounts == nullptr) { mounts = &none; }
  const auto name_of = [](const Json& item) {
    return item.is_object() ? string_in(item.get_object(), "name") : std::string_view();
  };
  for (const Json& volume : *volumes) {
    if (std::ranges::none_of(*mounts,
                             [&](const Json& m) { return name_of(m) == name_of(volume); })) {
      return fail(invalid("spec.volume_mounts",
                          "volume " + quote(name_of(volume)) + " has no mount",
                          "mount it, or leave it out"));
    }
  }
  for (const Json& mount : *mounts) {
    const auto volume =
        std::ranges::find_if(*volumes, [&](const Json& v) { return name_of(v) == name_of(mount); });
    if (volume == volumes->end()) {
      return fail(invalid("spec.volumes", "mount " + quote(name_of(mount)) + " has no volume",
                          "add the volume, or leave the mount out"));
    }
    ensure_array(spec, "volumes")
        .push_back(JsonObject{{"volume", *volume}, {"volumeMount", mount}});
  }
  return {};
}

void add_environment(const Subject& subject, const Site& site, JsonObject& spec) {
  JsonArray env;
  const auto put = [&env](const Json& entry) {
    if (!entry.is_object()) { return; }
    const auto name = string_in(entry.get_object(), "name");
    const auto known = std::ranges::find_if(
        env, [&](const Json& e) { return string_in(e.get_object(), "name") == name; });
    if (known != env.end()) {
      *known = entry;
    } else {
      env.push_back(entry);
    }
  };
  if (const JsonArray* base = array_in(spec, "env")) {
    for (const Json& entry : *base) { put(entry); }
  }
  for (const Json& entry : container_env(subject, site)) {
    // The code is in spec.build; a copy in the environment would be one too many.
    if (string_in(entry.get_object(), "name") != "MLRUN_EXEC_CODE") { put(entry); }
  }
  put(JsonObject{{"name", "MLRUN_HTTPDB__NUCLIO__EXPLICIT_ACK"}, {"value", "enabled"}});
  spec["env"] = std::move(env);
  copy(subject.function, "env_from", spec, "envFrom");
}

void add_triggers(const Function& function, JsonObject& spec) {
  JsonObject& triggers = ensure_object(spec, "triggers");
  bool http = false;
  for (auto&& member : triggers) {
    if (!member.value().is_object()) { continue; }
    JsonObject& trigger = member.value().get_object();
    http = http || string_in(trigger, "kind") == "http";
    if (string_in(trigger, "name").empty()) { trigger["name"] = member.key(); }
    const auto most = int_in(trigger, "maxWorkers");
    if (most && *most > 0 && !trigger.contains("numWorkers")) { trigger["numWorkers"] = *most; }
    trigger.erase("maxWorkers");
    if (string_in(trigger, "kind") == "http" && int_in(trigger, "numWorkers").value_or(0) <= 0) {
      trigger["numWorkers"] = 1;
    }
    JsonObject* attributes = object_in(trigger, "attributes");
    if (attributes == nullptr) { continue; }
    // MLRun's queue triggers carry both spellings.
    if (const auto old = string_in(*attributes, "worker_allocation_mode");
        !old.empty() && !attributes->contains("workerAllocationMode")) {
      (*attributes)["workerAllocationMode"] = std::string(old);
    }
    attributes->erase("worker_allocation_mode");
  }
  const bool none = bool_in(spec, "disableDefaultHTTPTrigger") ||
                    bool_in(function.spec(), "disable_default_http_trigger");
  if (!http && !none) {
    triggers["default-http"] = JsonObject{{"kind", "http"},
                                          {"name", "default-http"},
                                          {"numWorkers", 1},
                                          {"workerAvailabilityTimeoutMilliseconds", 10'000}};
  }
}

void add_service_type(const Function& function, JsonObject& spec) {
  std::string type(string_in(spec, "serviceType"));
  if (type.empty()) { type = function.text("service_type"); }
  if (type.empty()) { type = "NodePort"; }  // MLRun's default
  spec.erase("serviceType");
  for (auto&& member : ensure_object(spec, "triggers")) {
    if (!member.value().is_object() || string_in(member.value().get_object(), "kind") != "http") {
      continue;
    }
    JsonObject& attributes = ensure_object(member.value().get_object(), "attributes");
    if (string_in(attributes, "serviceType").empty()) { attributes["serviceType"] = type; }
  }
}

void add_replicas(const Function& function, JsonObject& spec) {
  const JsonObject& own = function.spec();
  if (!spec.contains("replicas")) {
    put_number(spec, "replicas", own.if_contains("replicas"));
    const Json* replicas = spec.if_contains("replicas");
    if (replicas != nullptr && replicas->is_int64() && replicas->get_int64() == 0 &&
        (own.if_contains("replicas") == nullptr || is_falsy(*own.if_contains("replicas")))) {
      spec.erase("replicas");  // MLRun's 0 means "not given"
    }
  }
  if (spec.contains("replicas")) {
    spec.erase("minReplicas");
    spec.erase("maxReplicas");
    return;
  }
  put_number(spec, "minReplicas", own.if_contains("min_replicas"));
  put_number(spec, "maxReplicas", own.if_contains("max_replicas"));
  const auto least = int_in(spec, "minReplicas");
  const auto most = int_in(spec, "maxReplicas");
  if (!least && !most) {
    spec["minReplicas"] = 1;
    spec["maxReplicas"] = 1;
  } else if (!least) {
    spec["minReplicas"] = *most;
  } else if (!most && *least > 0) {
    spec["maxReplicas"] = *least;
  }
}

std::string default_handler(const Function& function, const JsonObject& spec) {
  if (std::string own = function.text("function_handler"); !own.empty()) { return own; }
  if (const auto given = string_in(spec, "handler"); !given.empty()) { return std::string(given); }
  const std::string entry = function.text("default_handler");
  std::string file = function.text("build.origin_filename");
  if (file.empty()) { file = function.text("command"); }
  const std::string stem = std::filesystem::path(file).stem().string();
  return (stem.empty() ? "main" : stem) + ":" + (entry.empty() ? "handler" : entry);
}

void add_build(const Function& function, JsonObject& spec) {
  JsonObject& build = ensure_object(spec, "build");
  const std::string code = function.text("build.functionSourceCode");
  if (!code.empty()) {
    build["functionSourceCode"] = code;
    build.erase("path");
  }
  JsonArray commands =
      array_in(build, "commands") == nullptr ? JsonArray{} : *array_in(build, "commands");
  if (const JsonObject* own = object_in(function.spec(), "build")) {
    const auto add = [&commands](const Json& text) {
      if (std::ranges::find(commands, text) == commands.end()) { commands.push_back(text); }
    };
    if (const JsonArray* list = array_in(*own, "commands")) {
      for (const Json& command : *list) { add(command); }
    }
    if (const JsonArray* list = array_in(*own, "requirements"); list != nullptr && !list->empty()) {
      std::string install = "python -m pip install";
      for (const Json& requirement : *list) { install += " " + quote(python_text(requirement)); }
      add(Json(install));
    }
    if (const auto base = string_in(*own, "base_image"); !base.empty()) {
      build["baseImage"] = base;
    }
  }
  if (!commands.empty()) { build["commands"] = std::move(commands); }
  if (build.empty()) { spec.erase("build"); }
}

}  // namespace

std::string module_of(std::string_view handler) {
  const std::size_t colon = handler.rfind(':');
  std::string module(colon == std::string_view::npos ? std::string_view()
                                                     : handler.substr(0, colon));
  return module.empty() ? "main" : module;
}

std::string entry_of(std::string_view handler) {
  const std::size_t colon = handler.rfind(':');
  std::string entry(colon == std::string_view::npos ? handler : handler.substr(colon + 1));
  return entry.empty() ? "handler" : entry;
}

std::string function_name(const Function& function, std::string_view project) {
  std::string name(project);
  name += '-';
  name += function.name();
  if (const std::string tag = function.tag(); !tag.empty() && tag != "latest") {
    name += '-';
    for (const char c : tag) {
      const auto u = static_cast<unsigned char>(c);
      name += std::isalnum(u) != 0 ? static_cast<char>(std::tolower(u)) : '-';
    }
  }
  return shorten_name(name, 63);
}

Result<Resource> compile(const Subject& given_subject, const Site& site) {
  METIER_TRY(configured, with_inline(given_subject.function));
  const Subject subject{configured ? *configured : given_subject.function, given_subject.run,
                        given_subject.attempt};
  const Function& function = subject.function;
  const std::string project = project_of(subject, site);
  JsonObject document;
  if (const JsonObject* base = object_in(function.spec(), "base_spec")) { document = *base; }
  if (const JsonObject* config = object_in(function.spec(), "config")) {
    for (const auto& member : *config) {
      const std::string_view key = member.key();
      if (!key.starts_with("spec.") && !key.starts_with("metadata.")) {
        return fail(invalid("spec.config." + std::string(key), "is no path of Nuclio's document",
                            "begin it with spec. or metadata."));
      }
      METIER_CHECK(set_dotted(document, key, member.value()));
    }
  }
  const JsonObject* given = object_in(document, "spec");
  JsonObject spec = given == nullptr ? JsonObject{} : without_absent(*given);
  // 0 and false say something here, and without_absent keeps them.
  spec["handler"] = default_handler(function, spec);
  std::string runtime = function.text("nuclio_runtime");
  if (runtime.empty()) { runtime = string_in(spec, "runtime"); }
  spec["runtime"] = runtime.empty() ? std::string("python") : runtime;
  if (const std::string text = function.text("description"); !text.empty()) {
    spec["description"] = text;
  }
  if (std::string image = image_of(subject, site); !image.empty()) { spec["image"] = image; }
  add_environment(subject, site, spec);
  if (JsonObject resources = role_resources(function, "resources", site); !resources.empty()) {
    spec["resources"] = std::move(resources);
  }
  METIER_CHECK(add_volumes(function, spec));
  copy(function, "security_context", spec, "securityContext");
  copy(function, "service_account", spec, "serviceAccount");
  copy(function, "priority_class_name", spec, "priorityClassName");
  copy(function, "node_name", spec, "nodeName");
  copy(function, "node_selector", spec, "nodeSelector");
  copy(function, "affinity", spec, "affinity");
  copy(function, "tolerations", spec, "tolerations");
  copy(function, "readiness_timeout", spec, "readinessTimeoutSeconds");
  copy(function, "readiness_timeout_before_failure", spec, "waitReadinessTimeoutBeforeFailure");
  copy(function, "custom_scaling_metric_specs", spec, "customScalingMetricSpecs");
  add_build(function, spec);
  add_triggers(function, spec);
  add_service_type(function, spec);
  add_replicas(function, spec);

  Resource out{.api_version = "nuclio.io/v1beta1", .kind = "NuclioFunction"};
  out.metadata.name = function_name(function, project);
  out.metadata.name_space = site.name_space;
  out.metadata.labels = resource_labels(subject, site);
  out.metadata.annotations = resource_annotations(subject);
  for (const char* key : {"metadata", "meta"}) {
    const JsonObject* metadata = object_in(document, key);
    if (metadata == nullptr) { continue; }
    for (const auto& [name, into] : {std::pair{"labels", &out.metadata.labels},
                                     std::pair{"annotations", &out.metadata.annotations}}) {
      const JsonObject* values = object_in(*metadata, name);
      for (const auto& member : values == nullptr ? JsonObject{} : *values) {
        into->insert_or_assign(std::string(member.key()), python_text(member.value()));
      }
    }
  }
  out.metadata.labels["nuclio.io/project-name"] = project;
  out.metadata.labels["nuclio.io/function-name"] = out.metadata.name;
  out.metadata.labels["nuclio.io/class"] = "function";
  out.metadata.labels["nuclio.io/app"] = "functionres";
  out.body["spec"] = std::move(spec);
  return out;
}

}  // namespace metier::nuclio
