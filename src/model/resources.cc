// Limits, requests and GPUs of functions.
#include "model/attributes.h"
#include "model/kinds.h"
#include "model/python_text.h"

namespace metier {
namespace {

bool is_pipeline_parameter(std::string_view text) {
  return text.contains("{{pipelineparam:op=") && text.contains("}}");
}

Result<void> check_quantity(const Json& value, const std::string& field) {
  if (value.is_object() || value.is_array() || value.is_bool()) {
    return fail(invalid(field, "expected a quantity, got a " + std::string(type_name(value)),
                        "write text, like \"500m\" or \"2Gi\""));
  }
  const std::string text = python_text(value);
  if (is_mlrun_quantity(text) || is_pipeline_parameter(text)) { return {}; }
  return fail(invalid(field, quote(text) + " is not a quantity",
                      "write 2G (10^9 bytes), 2Gi (2^30 bytes), 500m or 2 (processors)"));
}

Result<void> put(JsonObject& map, std::string_view key, const Json& value,
                 const std::string& field) {
  if (is_falsy(value)) { return {}; }
  METIER_CHECK(check_quantity(value, field));
  map[key] = value;
  return {};
}

Result<void> change(Function& function, std::string_view field, std::string_view part,
                    const LimitArguments& arguments, bool gpu) {
  if (!has_pod_spec(function.kind())) {
    return fail(Error{.kind = ErrorKind::unsupported,
                      .message = "kind " + quote(canonical_kind(function.kind())) +
                                 " has no pods, so no " + std::string(part),
                      .field = "spec.resources",
                      .fix = "use kind job"});
  }
  const JsonObject* resources = object_in(std::as_const(function).spec(), field);
  const JsonObject* old = resources == nullptr ? nullptr : object_in(*resources, part);
  JsonObject map = arguments.patch && old != nullptr ? *old : JsonObject{};
  const std::string path = "function.spec." + std::string(field) + "." + std::string(part);
  METIER_CHECK(put(map, "memory", arguments.mem, path + ".memory"));
  METIER_CHECK(put(map, "cpu", arguments.cpu, path + ".cpu"));
  if (gpu) { METIER_CHECK(put(map, arguments.gpu_type, arguments.gpus, path + ".gpus")); }
  ensure_object(function.spec(), field)[part] = std::move(map);
  return {};
}

Result<void> refuse_roles(const Function& function, std::string_view method) {
  const std::string stored_kind = function.kind();
  const std::string_view kind = canonical_kind(stored_kind);
  if (kind != "spark" && kind != "dask") { return {}; }
  const std::string rest(method.substr(5));  // behind "with_"
  const std::string roles = kind == "spark" ? "with_driver_" + rest + " and with_executor_" + rest
                                            : "with_scheduler_" + rest + " and with_worker_" + rest;
  return fail(Error{.kind = ErrorKind::unsupported,
                    .message = std::string(method) + " has no meaning for kind " + quote(kind) +
                               ", which has two roles",
                    .field = "spec.resources",
                    .fix = "use " + roles});
}

}  // namespace

bool is_mlrun_quantity(std::string_view text) {
  // ^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$
  std::size_t at = !text.empty() && (text[0] == '+' || text[0] == '-') ? 1 : 0;
  const auto skip = [&](std::string_view set) {
    const std::size_t start = at;
    while (at < text.size() && set.find(text[at]) != std::string_view::npos) { ++at; }
    return at - start;
  };
  if (skip("0123456789.") == 0) { return false; }
  skip("eEinumkKMGTP");
  at += at < text.size() && (text[at] == '+' || text[at] == '-') ? 1 : 0;
  skip("0123456789");
  return at == text.size();
}

Result<void> with_limits(Function& function, const LimitArguments& arguments) {
  METIER_CHECK(refuse_roles(function, "with_limits"));
  return change(function, "resources", "limits", arguments, true);
}

Result<void> with_requests(Function& function, const LimitArguments& arguments) {
  METIER_CHECK(refuse_roles(function, "with_requests"));
  return change(function, "resources", "requests", arguments, false);
}

Result<void> with_role_limits(Function& function, std::string_view field,
                              const LimitArguments& arguments) {
  return change(function, field, "limits", arguments, true);
}

Result<void> with_role_requests(Function& function, std::string_view field,
                                const LimitArguments& arguments) {
  return change(function, field, "requests", arguments, false);
}

Result<void> gpus(Function& function, const Json& count, std::string_view gpu_type) {
  const std::string stored_kind = function.kind();
  const std::string_view kind = canonical_kind(stored_kind);
  if (kind == "spark") {
    return fail(Error{.kind = ErrorKind::unsupported,
                      .message = "gpus has no meaning for kind 'spark', which has two roles",
                      .field = "spec.resources",
                      .fix = "use with_driver_limits(gpus=…) and with_executor_limits(gpus=…)"});
  }
  LimitArguments arguments{
      .mem = {}, .cpu = {}, .gpus = count, .gpu_type = std::string(gpu_type), .patch = true};
  return change(function, kind == "dask" ? "worker_resources" : "resources", "limits", arguments,
                true);
}

}  // namespace metier
