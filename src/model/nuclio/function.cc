#include "model/nuclio/function.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/clock.h"
#include "base/files.h"
#include "model/attributes.h"
#include "model/create.h"
#include "model/kinds.h"

namespace metier::nuclio {
namespace {

namespace fs = std::filesystem;

Result<void> of_nuclio(const Function& function, std::string_view method) {
  if (is_nuclio_kind(function.kind())) { return {}; }
  return fail(invalid("kind",
                      fmt::format("{} is a method of nuclio functions, this one is of kind {}",
                                  method, function.kind().empty() ? "local" : function.kind()),
                      "make the function with kind nuclio"));
}

std::string module_file(std::string_view handler, std::string_view runtime) {
  const std::size_t colon = handler.rfind(':');
  std::string module(colon == std::string_view::npos ? std::string_view()
                                                     : handler.substr(0, colon));
  if (module.empty()) { module = "main"; }
  if (runtime_name(runtime) != "python") { return module; }
  std::ranges::replace(module, '.', '/');
  return module + ".py";
}

// The file that holds the code: build.path, else the handler's module, beside the document.
Result<fs::path> code_beside(const JsonObject& spec, const fs::path& file) {
  const std::string runtime(string_in(spec, "runtime", "python"));
  const std::string handler(string_in(spec, "handler"));
  const std::string module = module_file(handler, runtime);
  fs::path folder = fs::absolute(file).lexically_normal().parent_path();
  const JsonObject* build = object_in(spec, "build");
  const std::string path(build == nullptr ? std::string_view() : string_in(*build, "path"));
  if (path.find("://") != std::string::npos) {
    return fail(Error{.kind = ErrorKind::unsupported,
                      .message = quote(path) + " is not fetched: the code must be a file here",
                      .field = "spec.build.path",
                      .fix = "fetch it, and deploy the file"});
  }
  std::error_code error;
  fs::path named = path.empty()                   ? folder
                   : fs::path(path).is_absolute() ? fs::path(path)
                                                  : folder / path;
  if (fs::is_directory(named, error)) { named /= module; }
  if (fs::is_regular_file(named, error)) { return named; }
  return fail(Error{.kind = ErrorKind::not_found,
                    .message = named.string() + ": no such file, and it should hold the code",
                    .field = path.empty() ? "spec.handler" : "spec.build.path",
                    .fix = "name it in spec.handler (module:function) or in spec.build.path"});
}

}  // namespace

bool is_nuclio_document(const JsonObject& document) {
  if (string_in(document, "apiVersion").starts_with("nuclio.io/")) { return true; }
  if (string_in(document, "kind") == "NuclioFunction") { return true; }
  if (document.contains("kind")) { return false; }
  const JsonObject* spec = object_in(document, "spec");
  return spec != nullptr &&
         (spec->contains("handler") || spec->contains("runtime") || spec->contains("triggers"));
}

Result<Function> function_from_document(const JsonObject& document, const fs::path& file) {
  METIER_CHECK(review_document(document).verdict(true));
  const JsonObject* metadata = object_in(document, "metadata");
  if (metadata == nullptr) { metadata = object_in(document, "meta"); }
  const JsonObject none;
  if (metadata == nullptr) { metadata = &none; }
  const JsonObject* given = object_in(document, "spec");
  if (given == nullptr) { return fail(invalid("spec", "the document has no spec")); }
  JsonObject spec = *given;
  std::string name(string_in(*metadata, "name"));
  if (name.empty()) {
    name = file.stem() == "function" ? fs::absolute(file).parent_path().filename().string()
                                     : file.stem().string();
  }
  METIER_TRY(function, new_function({.name = normalize_name(name),
                                     .kind = "nuclio",
                                     .command = "",
                                     .image = std::string(string_in(spec, "image"))},
                                    system_random()));
  JsonObject& own = function.spec();
  // What the document does not say has Nuclio's defaults, not MLRun's.
  for (const char* field : {"min_replicas", "max_replicas"}) { own.erase(field); }
  if (string_in(spec, "serviceType").empty()) { own["service_type"] = "ClusterIP"; }
  const JsonObject* build = object_in(spec, "build");
  std::string encoded(build == nullptr ? std::string_view()
                                       : string_in(*build, "functionSourceCode"));
  if (encoded.empty()) {
    METIER_TRY(code, code_beside(spec, file));
    METIER_CHECK(with_code(function, code, std::nullopt, false));
    ensure_object(own, "build")["origin_filename"] = code.filename().string();
  } else {
    ensure_object(own, "build")["functionSourceCode"] = encoded;
  }
  if (string_in(spec, "handler").empty()) {
    // Nuclio's default: the source's own name.
    const std::string origin(string_in(*object_in(own, "build"), "origin_filename"));
    const std::string stem = origin.empty() ? "main" : fs::path(origin).stem().string();
    spec["handler"] = stem + ":handler";
  }
  if (build != nullptr) {
    for (const char* key : {"commands", "requirements"}) {
      const JsonArray* list = array_in(*build, key);
      if (list != nullptr && !list->empty()) { ensure_object(own, "build")[key] = *list; }
    }
    JsonObject kept = *build;
    for (const char* key : {"functionSourceCode", "path", "commands", "requirements"}) {
      kept.erase(key);
    }
    spec["build"] = std::move(kept);
  }
  // What MLRun's function has fields for is said there, once.
  for (const auto& [from, to] : {std::pair{"env", "env"}, std::pair{"resources", "resources"},
                                 std::pair{"securityContext", "security_context"},
                                 std::pair{"serviceAccount", "service_account"},
                                 std::pair{"priorityClassName", "priority_class_name"}}) {
    if (const Json* value = spec.if_contains(from); value != nullptr && !value->is_null()) {
      own[to] = *value;
      spec.erase(from);
    }
  }
  JsonObject base{{"apiVersion", "nuclio.io/v1beta1"}, {"kind", "NuclioFunction"}};
  JsonObject kept_metadata;
  for (const char* key : {"labels", "annotations"}) {
    if (const JsonObject* map = object_in(*metadata, key)) { kept_metadata[key] = *map; }
  }
  if (!kept_metadata.empty()) { base["metadata"] = std::move(kept_metadata); }
  base["spec"] = std::move(spec);
  own["base_spec"] = std::move(base);
  return function;
}

Result<void> set_config(Function& function, std::string_view key, const Json& value) {
  METIER_CHECK(of_nuclio(function, "set_config"));
  if ((!key.starts_with("spec.") && !key.starts_with("metadata.")) || key.ends_with('.') ||
      key.find("..") != std::string_view::npos) {
    return fail(invalid("key", quote(key) + " is no path of Nuclio's document",
                        "begin it with spec. or metadata., such as spec.eventTimeout"));
  }
  ensure_object(function.spec(), "config")[key] = value;
  return {};
}

Result<void> add_trigger(Function& function, std::string_view name, const JsonObject& trigger) {
  METIER_CHECK(of_nuclio(function, "add_trigger"));
  if (name.empty() || name.find('.') != std::string_view::npos) {
    return fail(invalid("name", quote(name) + " is no name of a trigger", "letters, digits and -"));
  }
  const JsonObject spec{{"triggers", JsonObject{{name, trigger}}}};
  METIER_CHECK(review_spec(spec).verdict(true));
  return set_config(function, fmt::format("spec.triggers.{}", name), trigger);
}

Result<void> with_http(Function& function, const HttpArguments& arguments) {
  METIER_CHECK(of_nuclio(function, "with_http"));
  JsonObject trigger{{"kind", "http"}, {"name", arguments.trigger_name}};
  trigger["numWorkers"] = arguments.workers.value_or(0);
  JsonObject attributes = arguments.extra_attributes;
  if (arguments.port != 0) { attributes["port"] = arguments.port; }
  JsonObject annotations = arguments.annotations;
  if (arguments.worker_timeout) {
    const std::int64_t gateway = arguments.gateway_timeout.value_or(*arguments.worker_timeout + 60);
    if (gateway <= *arguments.worker_timeout) {
      return fail(invalid("gateway_timeout",
                          fmt::format("{} s is not more than worker_timeout {} s", gateway,
                                      *arguments.worker_timeout),
                          "give more, or leave it out"));
    }
    trigger["workerAvailabilityTimeoutMilliseconds"] = *arguments.worker_timeout * 1000;
  }
  if (!arguments.host.empty() || !arguments.paths.empty()) {
    JsonArray paths(arguments.paths.begin(), arguments.paths.end());
    if (paths.empty()) { paths.push_back("/"); }
    attributes["ingresses"] =
        JsonObject{{"0", JsonObject{{"host", arguments.host}, {"paths", std::move(paths)}}}};
  }
  if (arguments.async_max_connections) {
    trigger["mode"] = "async";
    trigger["async"] = JsonObject{{"maxConnectionsNumber", *arguments.async_max_connections}};
  }
  if (!annotations.empty()) { trigger["annotations"] = std::move(annotations); }
  if (!attributes.empty()) { trigger["attributes"] = std::move(attributes); }
  return add_trigger(function, arguments.trigger_name, trigger);
}

Result<void> with_cron(Function& function, const CronArguments& arguments) {
  JsonObject attributes;
  if (!arguments.interval.empty()) { attributes["interval"] = arguments.interval; }
  if (!arguments.schedule.empty()) { attributes["schedule"] = arguments.schedule; }
  JsonObject event;
  if (!arguments.body.is_null()) { event["body"] = arguments.body; }
  if (!arguments.headers.empty()) { event["headers"] = arguments.headers; }
  if (!event.empty()) { attributes["event"] = std::move(event); }
  if (!arguments.concurrency_policy.empty()) {
    attributes["concurrencyPolicy"] = arguments.concurrency_policy;
  }
  return add_trigger(
      function, arguments.name,
      JsonObject{
          {"kind", "cron"}, {"name", arguments.name}, {"attributes", std::move(attributes)}});
}

Result<void> with_kafka(Function& function, const KafkaArguments& arguments) {
  for (const auto& [field, list] :
       {std::pair{"brokers", &arguments.brokers}, std::pair{"topics", &arguments.topics}}) {
    if (list->empty()) { return fail(invalid(field, "is empty", "give at least one")); }
  }
  if (arguments.consumer_group.empty()) {
    return fail(invalid("consumer_group", "is empty", "name the group that commits offsets"));
  }
  JsonObject attributes = arguments.extra_attributes;
  attributes["brokers"] = JsonArray(arguments.brokers.begin(), arguments.brokers.end());
  attributes["topics"] = JsonArray(arguments.topics.begin(), arguments.topics.end());
  attributes["consumerGroup"] = arguments.consumer_group;
  if (!arguments.initial_offset.empty()) { attributes["initialOffset"] = arguments.initial_offset; }
  JsonObject trigger{
      {"kind", "kafka-cluster"}, {"name", arguments.name}, {"numWorkers", arguments.workers}};
  if (!arguments.explicit_ack_mode.empty()) {
    trigger["explicitAckMode"] = arguments.explicit_ack_mode;
    if (arguments.explicit_ack_mode != "disable") { attributes["workerAllocationMode"] = "static"; }
  }
  trigger["attributes"] = std::move(attributes);
  return add_trigger(function, arguments.name, trigger);
}

Result<void> with_replicas(Function& function, std::optional<std::int64_t> least,
                           std::optional<std::int64_t> most) {
  METIER_CHECK(of_nuclio(function, "with_replicas"));
  for (const auto& [field, value] :
       {std::pair{"min_replicas", least}, std::pair{"max_replicas", most}}) {
    if (value && *value < 0) {
      return fail(
          invalid(field, fmt::format("{} is not a number of replicas", *value), "0 or more"));
    }
  }
  if (least && most && *least > *most) {
    return fail(invalid("min_replicas",
                        fmt::format("{} is more than max_replicas {}", *least, *most),
                        "give at most max_replicas"));
  }
  if (least) { function.spec()["min_replicas"] = *least; }
  if (most) { function.spec()["max_replicas"] = *most; }
  return {};
}

Result<void> with_service_type(Function& function, std::string_view type) {
  METIER_CHECK(of_nuclio(function, "with_service_type"));
  if (type != "ClusterIP" && type != "NodePort" && type != "LoadBalancer") {
    return fail(invalid("service_type", quote(type) + " is not one of its values",
                        "give one of: ClusterIP, NodePort, LoadBalancer"));
  }
  function.spec()["service_type"] = type;
  return {};
}

Result<void> disable_default_http_trigger(Function& function, bool disabled) {
  METIER_CHECK(of_nuclio(function, "disable_default_http_trigger"));
  function.spec()["disable_default_http_trigger"] = disabled;
  return {};
}

}  // namespace metier::nuclio
