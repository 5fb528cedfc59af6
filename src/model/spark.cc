#include "model/spark.h"

#include <algorithm>
#include <array>
#include <cctype>

#include "base/quantity.h"
#include "base/text.h"
#include "model/kinds.h"
#include "model/python_text.h"

namespace metier {
namespace {

constexpr std::array<std::string_view, 4> kPreemptionModes{"allow", "constrain", "prevent", "none"};

Result<void> need_kind(const Function& function, std::string_view kind, std::string_view method) {
  if (canonical_kind(function.kind()) == kind) { return {}; }
  return fail(Error{.kind = ErrorKind::unsupported,
                    .message = std::string(method) + " has no meaning for kind " +
                               quote(canonical_kind(function.kind())),
                    .field = "kind",
                    .fix = "it is for kind " + std::string(kind),
                    .code = {}});
}

std::string field_of(SparkRole role, std::string_view name) {
  return std::string(to_string(role)) + "_" + std::string(name);
}

// Null, 0 and "" leave the bound out, as MLRun does.
Result<std::optional<std::int64_t>> count(const Json& value, std::string_view field,
                                          std::string_view of) {
  if (is_falsy(value)) { return std::optional<std::int64_t>(); }
  if (!value.is_int64() || value.get_int64() < 1) {
    return fail(invalid(field, python_text(value) + " is not a number of " + std::string(of),
                        "a whole number from 1 up"));
  }
  return std::optional<std::int64_t>(value.get_int64());
}

bool starts_as_scheme(std::string_view text, std::string_view scheme) {
  return text.starts_with(scheme) && text.size() > scheme.size();
}

}  // namespace

std::string_view to_string(SparkRole role) {
  return role == SparkRole::driver ? "driver" : "executor";
}

Result<void> check_spark_memory(std::string_view text, std::string_view field) {
  const auto digits = std::ranges::find_if_not(
      text, [](char c) { return std::isdigit(static_cast<unsigned char>(c)) != 0; });
  const std::string_view unit(digits, text.end());
  const bool known =
      unit == "k" || unit == "K" || unit == "m" || unit == "M" || unit == "g" || unit == "G";
  if (digits != text.begin() && known) { return {}; }
  std::string fix = "digits and k, m or g (powers of two), like 512m or 2g";
  const std::string number(text.begin(), digits);
  if (!number.empty() && (unit == "Ki" || unit == "Mi" || unit == "Gi")) {
    fix = "Spark's own form of it is " + number +
          std::string(1, static_cast<char>(std::tolower(static_cast<unsigned char>(unit[0]))));
  }
  return fail(invalid(field, quote(text) + " is not in Spark's form of memory", fix));
}

Result<void> with_spark_requests(Function& function, SparkRole role, const Json& mem,
                                 const Json& cpu, bool patch) {
  METIER_CHECK(need_kind(function, "spark", "with_" + std::string(to_string(role)) + "_requests"));
  const std::string field = field_of(role, "resources");
  if (!is_falsy(mem)) {
    METIER_CHECK(
        check_spark_memory(python_text(mem), "function.spec." + field + ".requests.memory"));
  }
  // Spark's form of memory is not Kubernetes': only the processors go through the common rule.
  Function changed = function;
  METIER_CHECK(
      with_role_requests(changed, field, {.mem = {}, .cpu = cpu, .gpus = {}, .patch = patch}));
  if (!is_falsy(mem)) {
    ensure_object(ensure_object(changed.spec(), field), "requests")["memory"] = mem;
  }
  function = std::move(changed);
  return {};
}

Result<void> with_spark_limits(Function& function, SparkRole role,
                               const LimitArguments& arguments) {
  METIER_CHECK(need_kind(function, "spark", "with_" + std::string(to_string(role)) + "_limits"));
  if (!is_falsy(arguments.mem)) {
    return fail(invalid("function.spec." + field_of(role, "resources") + ".limits.memory",
                        "Spark has no memory limit: it is the request and its overhead",
                        "use with_" + std::string(to_string(role)) + "_requests(mem=…)"));
  }
  return with_role_limits(function, field_of(role, "resources"), arguments);
}

Result<void> with_spark_cores(Function& function, const Json& executor_cores,
                              const Json& driver_cores) {
  METIER_CHECK(need_kind(function, "spark", "with_cores"));
  METIER_TRY(executor, count(executor_cores, "function.spec.executor_cores", "cores"));
  METIER_TRY(driver, count(driver_cores, "function.spec.driver_cores", "cores"));
  if (executor) { function.spec()["executor_cores"] = *executor; }
  if (driver) { function.spec()["driver_cores"] = *driver; }
  return {};
}

Result<void> with_restart_policy(Function& function, const RestartArguments& arguments) {
  METIER_CHECK(need_kind(function, "spark", "with_restart_policy"));
  function.spec()["restart_policy"] =
      JsonObject{{"type", arguments.type},
                 {"retries", arguments.retries},
                 {"retry_interval", arguments.retry_interval},
                 {"submission_retries", arguments.submission_retries},
                 {"submission_retry_interval", arguments.submission_retry_interval}};
  return {};
}

Result<void> with_dynamic_allocation(Function& function, const Json& min_executors,
                                     const Json& max_executors, const Json& initial_executors) {
  METIER_CHECK(need_kind(function, "spark", "with_dynamic_allocation"));
  JsonObject out{{"enabled", true}};
  const std::string path = "function.spec.dynamic_allocation.";
  for (const auto& [key, value] :
       {std::pair("minExecutors", &min_executors), std::pair("maxExecutors", &max_executors),
        std::pair("initialExecutors", &initial_executors)}) {
    METIER_TRY(number, count(*value, path + key, "executors"));
    if (number) { out[key] = *number; }
  }
  function.spec()["dynamic_allocation"] = std::move(out);
  return {};
}

Result<void> disable_monitoring(Function& function) {
  METIER_CHECK(need_kind(function, "spark", "disable_monitoring"));
  ensure_object(function.spec(), "monitoring")["enabled"] = false;
  return {};
}

Result<void> with_spark_node_selection(Function& function, SparkRole role,
                                       const NodeSelection& selection,
                                       std::vector<std::string>* warnings) {
  const std::string method = "with_" + std::string(to_string(role)) + "_node_selection";
  METIER_CHECK(need_kind(function, "spark", method));
  if (!selection.node_name.empty()) {
    return fail(Error{.kind = ErrorKind::unsupported,
                      .message = "Spark's roles take no node name",
                      .field = "node_name",
                      .fix = "use node_selector",
                      .code = {}});
  }
  METIER_CHECK(check_selection(selection, "spec." + field_of(role, {}), warnings));
  for (const auto& [key, value] : {std::pair("node_selector", &selection.node_selector),
                                   std::pair("affinity", &selection.affinity),
                                   std::pair("tolerations", &selection.tolerations)}) {
    if (!value->is_null()) { function.spec()[field_of(role, key)] = *value; }
  }
  return {};
}

Result<void> check_preemption_mode(std::string_view field, std::string_view mode) {
  if (std::ranges::find(kPreemptionModes, mode) != kPreemptionModes.end()) { return {}; }
  return fail(invalid("function.spec." + std::string(field), quote(mode) + " is unknown",
                      "one of " + join(kPreemptionModes)));
}

Result<void> with_spark_preemption_mode(Function& function, SparkRole role, std::string_view mode) {
  METIER_CHECK(
      need_kind(function, "spark", "with_" + std::string(to_string(role)) + "_preemption_mode"));
  const std::string field = field_of(role, "preemption_mode");
  METIER_CHECK(check_preemption_mode(field, mode));
  function.spec()[field] = mode;
  return {};
}

Result<void> with_spark_host_path(Function& function, SparkRole role, std::string_view host_path,
                                  std::string_view mount_path, std::string_view type,
                                  std::string_view volume_name) {
  METIER_CHECK(
      need_kind(function, "spark", "with_" + std::string(to_string(role)) + "_host_path_volume"));
  if (!host_path.starts_with('/') || !mount_path.starts_with('/')) {
    return fail(
        invalid(host_path.starts_with('/') ? "mount_path" : "host_path",
                quote(host_path.starts_with('/') ? mount_path : host_path) + " is no absolute path",
                "begin it with /"));
  }
  JsonArray& volumes = ensure_array(function.spec(), "volumes");
  JsonObject volume{{"name", volume_name},
                    {"hostPath", JsonObject{{"path", host_path}, {"type", type}}}};
  const auto same = std::ranges::find_if(volumes, [&](const Json& one) {
    return one.is_object() && string_in(one.get_object(), "name") == volume_name;
  });
  if (same != volumes.end()) {
    *same = std::move(volume);
  } else {
    volumes.push_back(std::move(volume));
  }
  JsonArray& mounts = ensure_array(function.spec(), field_of(role, "volume_mounts"));
  JsonObject mount{{"name", volume_name}, {"mountPath", mount_path}};
  const auto there = std::ranges::find_if(mounts, [&](const Json& one) {
    return one.is_object() && string_in(one.get_object(), "mountPath") == mount_path;
  });
  if (there != mounts.end()) {
    *there = std::move(mount);
  } else {
    mounts.push_back(std::move(mount));
  }
  return {};
}

Result<void> with_igz_spark(Function& function) {
  METIER_CHECK(need_kind(function, "spark", "with_igz_spark"));
  return fail(Error{.kind = ErrorKind::unsupported,
                    .message = "Iguazio's Spark runs on Iguazio's platform only: its jars and its "
                               "v3io mounts are not here",
                    .field = "function.spec.deps",
                    .fix = "leave with_igz_spark out; the function runs on open Spark",
                    .code = {}});
}

Result<void> spread_over_roles(JsonObject& spec) {
  const auto least = int_in(spec, "min_replicas");
  const auto most = int_in(spec, "max_replicas");
  if (least || most) {
    JsonObject dynamic{{"enabled", true}};
    if (least) { dynamic["minExecutors"] = *least; }
    if (most) { dynamic["maxExecutors"] = *most; }
    if (const auto initial = int_in(spec, "replicas")) { dynamic["initialExecutors"] = *initial; }
    spec["dynamic_allocation"] = std::move(dynamic);
    spec.stable_erase("min_replicas");
    spec.stable_erase("max_replicas");
  }
  const Json* given = spec.if_contains("resources");
  if (given == nullptr || !given->is_object()) { return {}; }
  const JsonObject resources = given->get_object();
  spec.stable_erase("resources");
  for (const SparkRole role : {SparkRole::driver, SparkRole::executor}) {
    JsonObject& own = ensure_object(spec, field_of(role, "resources"));
    for (const std::string_view part : {"requests", "limits"}) {
      const JsonObject* amounts = object_in(resources, part);
      JsonObject map;  // replaces the old one, as the methods do: defaults fill what is left out
      for (const auto& amount : amounts == nullptr ? JsonObject{} : *amounts) {
        const std::string_view key = amount.key();
        if (key == "memory") {
          if (part == "limits") { continue; }
          METIER_TRY(bytes, Quantity::parse(python_text(amount.value())));
          const std::int64_t mebi = (bytes.units() + (1 << 20) - 1) >> 20;
          map["memory"] = std::to_string(mebi) + "m";
        } else if (key == "cpu" || role == SparkRole::executor) {
          map[key] = amount.value();
        }
      }
      if (!map.empty()) { own[part] = std::move(map); }
    }
  }
  return {};
}

Result<void> with_spark_service(Function& function, std::string_view service,
                                std::string_view provider) {
  METIER_CHECK(need_kind(function, "remote-spark", "with_spark_service"));
  if (service.empty()) {
    return fail(invalid("spark_service", "no service is named",
                        "spark://HOST:PORT, sc://HOST:PORT or a name of the site's"));
  }
  if (service.starts_with("livy") || service.starts_with("http://") ||
      service.starts_with("https://")) {
    return fail(Error{.kind = ErrorKind::unsupported,
                      .message =
                          "Livy is not supported: its last release is for Spark 2 and cannot "
                          "drive Spark 3.5 or 4",
                      .field = "spark_service",
                      .fix = "use a Spark Connect server: sc://HOST:PORT",
                      .code = {}});
  }
  if (service.contains("://") && !starts_as_scheme(service, "spark://") &&
      !starts_as_scheme(service, "sc://")) {
    return fail(invalid("spark_service", quote(service) + " is no address of a Spark service",
                        "spark://HOST:PORT or sc://HOST:PORT"));
  }
  if (!provider.empty()) { function.spec()["provider"] = provider; }
  return set_env(function, "METIER_SPARK_SERVICE", Json(service));
}

}  // namespace metier
