// Annotations, image pulling, thresholds, placement.
#include <algorithm>
#include <array>

#include "base/text.h"
#include "model/attributes.h"
#include "model/kinds.h"
#include "model/problems.h"
#include "model/python_text.h"
#include "model/run.h"

namespace metier {
namespace {

Result<void> need_pods(const Function& function, std::string_view what) {
  if (has_pod_spec(function.kind())) { return {}; }
  return fail(Error{.kind = ErrorKind::unsupported,
                    .message = "kind " + quote(canonical_kind(function.kind())) +
                               " has no pods, so no " + std::string(what),
                    .field = "kind",
                    .fix = "use kind job"});
}

Result<void> one_of(std::string_view value, std::span<const std::string_view> allowed,
                    std::string_view field) {
  if (std::ranges::find(allowed, value) != allowed.end()) { return {}; }
  return fail(
      invalid(field, unknown_name(value, nearest(value, allowed)), "one of " + join(allowed)));
}

// Kubernetes' objects are camelCase; a snake_case key is Python's form and would be ignored.
Result<void> check_camel_case(const Json& value, const std::string& field) {
  if (value.is_array()) {
    for (std::size_t i = 0; i < value.get_array().size(); ++i) {
      METIER_CHECK(check_camel_case(value.get_array()[i], field + "[" + std::to_string(i) + "]"));
    }
  } else if (value.is_object()) {
    for (const auto& member : value.get_object()) {
      const std::string_view key = member.key();
      if (key.contains('_') && !key.contains('/') && !key.contains('.')) {
        return fail(invalid(field + "." + std::string(key),
                            quote(key) + " is not Kubernetes' form of the name",
                            "write it in camelCase"));
      }
      if (key != "matchLabels") {  // its keys are the user's
        METIER_CHECK(check_camel_case(member.value(), field + "." + std::string(key)));
      }
    }
  }
  return {};
}

Result<void> expect_object(const Json& value, std::string_view field) {
  if (value.is_object()) { return {}; }
  return fail(invalid(field, "expected an object, got a " + std::string(type_name(value))));
}

void warn_of_selector(const JsonObject& selector, const std::string& field,
                      std::vector<std::string>* warnings) {
  for (const auto& pair : selector) {
    auto key = check_label_key(pair.key(), field);
    auto value = pair.value().is_string()
                     ? check_label_value(std::string_view(pair.value().get_string()),
                                         field + "." + std::string(pair.key()))
                     : Result<void>(fail(invalid(field, "expected text values")));
    if (warnings != nullptr && (!key || !value)) {
      warnings->push_back((!key ? key.error() : value.error()).text());
    }
  }
}

}  // namespace

Result<void> with_annotations(Function& function, const JsonObject& annotations) {
  JsonObject& stored = ensure_object(function.metadata(), "annotations");
  for (const auto& annotation : annotations) {
    stored[annotation.key()] = python_text(annotation.value());
  }
  return {};
}

Result<void> set_image_pull_configuration(Function& function, std::string_view policy,
                                          std::string_view secret_name) {
  constexpr std::array<std::string_view, 3> kPolicies = {"Always", "IfNotPresent", "Never"};
  METIER_CHECK(need_pods(function, "image pull policy"));
  if (!policy.empty()) {
    METIER_CHECK(one_of(policy, kPolicies, "spec.image_pull_policy"));
    function.spec()["image_pull_policy"] = policy;
  }
  if (!secret_name.empty()) { function.spec()["image_pull_secret"] = secret_name; }
  return {};
}

Result<void> set_state_thresholds(Function& function, const JsonObject& thresholds, bool patch) {
  const std::string stored_kind = function.kind();
  const std::string_view kind = canonical_kind(stored_kind);
  METIER_CHECK(need_pods(function, "state thresholds"));
  if (kind == "dask" || is_nuclio_kind(kind)) {
    return fail(Error{
        .kind = ErrorKind::unsupported,
        .message = "kind " + quote(kind) + " has no state thresholds: " +
                   (kind == "dask" ? "its cluster ends when it has been idle for scheduler_timeout"
                                   : "nothing of it ends by itself"),
        .field = "spec.state_thresholds",
        .fix = kind == "dask" ? "set spec.scheduler_timeout, such as 10 minutes" : ""});
  }
  METIER_CHECK(check_state_thresholds(thresholds, "spec.state_thresholds"));
  JsonObject& stored = ensure_object(function.spec(), "state_thresholds");
  if (!patch) { stored.clear(); }
  for (const auto& threshold : thresholds) { stored[threshold.key()] = threshold.value(); }
  return {};
}

Result<void> check_selection(const NodeSelection& selection, const std::string& prefix,
                             std::vector<std::string>* warnings) {
  if (!selection.node_selector.is_null()) {
    METIER_CHECK(expect_object(selection.node_selector, prefix + "node_selector"));
    warn_of_selector(selection.node_selector.get_object(), prefix + "node_selector", warnings);
  }
  if (!selection.affinity.is_null()) {
    METIER_CHECK(expect_object(selection.affinity, prefix + "affinity"));
    METIER_CHECK(check_camel_case(selection.affinity, prefix + "affinity"));
  }
  if (!selection.tolerations.is_null()) {
    if (!selection.tolerations.is_array()) {
      return fail(
          invalid(prefix + "tolerations",
                  "expected a list, got a " + std::string(type_name(selection.tolerations))));
    }
    METIER_CHECK(check_camel_case(selection.tolerations, prefix + "tolerations"));
  }
  return {};
}

Result<void> with_node_selection(Function& function, const NodeSelection& selection,
                                 std::vector<std::string>* warnings) {
  METIER_CHECK(need_pods(function, "node selection"));
  const std::string stored_kind = function.kind();
  const std::string_view kind = canonical_kind(stored_kind);
  if (kind == "spark" && !selection.node_name.empty()) {
    return fail(Error{.kind = ErrorKind::unsupported,
                      .message = "kind 'spark' cannot be pinned to a node by name",
                      .field = "spec.node_name",
                      .fix = "use a node selector"});
  }
  if (kind == "spark" && !selection.affinity.is_null()) {
    return fail(Error{.kind = ErrorKind::unsupported,
                      .message = "kind 'spark' has two roles, each with its own affinity",
                      .field = "spec.affinity",
                      .fix = "use with_driver_node_selection and with_executor_node_selection"});
  }
  if (kind == "spark" && !selection.tolerations.is_null()) {
    return fail(invalid("spec.tolerations",
                        "kind 'spark' has two roles, each with its own tolerations",
                        "use with_driver_node_selection and with_executor_node_selection"));
  }
  METIER_CHECK(check_selection(selection, "spec.", warnings));
  JsonObject& spec = function.spec();
  if (!selection.node_name.empty()) { spec["node_name"] = selection.node_name; }
  if (!selection.node_selector.is_null()) {
    if (kind == "spark") {
      spec["driver_node_selector"] = selection.node_selector;
      spec["executor_node_selector"] = selection.node_selector;
    } else {
      spec["node_selector"] = selection.node_selector;
    }
  }
  if (!selection.affinity.is_null()) { spec["affinity"] = selection.affinity; }
  if (!selection.tolerations.is_null()) { spec["tolerations"] = selection.tolerations; }
  return {};
}

std::vector<std::string> default_priority_classes() {
  return {"igz-workload-low", "igz-workload-medium", "igz-workload-high"};
}

Result<void> with_priority_class(Function& function, std::string_view name,
                                 const std::vector<std::string>& valid) {
  METIER_CHECK(need_pods(function, "priority class"));
  if (std::ranges::find(valid, name) == valid.end()) {
    return fail(invalid("spec.priority_class_name",
                        quote(name) + " is not a priority class of this site",
                        valid.empty() ? "the site allows none" : "one of " + join(valid)));
  }
  function.spec()["priority_class_name"] = name;
  return {};
}

Result<void> with_preemption_mode(Function& function, std::string_view mode) {
  constexpr std::array<std::string_view, 4> kModes = {"allow", "constrain", "prevent", "none"};
  METIER_CHECK(need_pods(function, "preemption mode"));
  if (canonical_kind(function.kind()) == "spark") {
    return fail(invalid("spec.preemption_mode",
                        "kind 'spark' has two roles, each with its own mode",
                        "use with_driver_preemption_mode and with_executor_preemption_mode"));
  }
  METIER_CHECK(one_of(mode, kModes, "spec.preemption_mode"));
  function.spec()["preemption_mode"] = mode;
  return {};
}

Result<void> with_security_context(Function& function, const Json& context) {
  METIER_CHECK(need_pods(function, "security context"));
  const std::string stored_kind = function.kind();
  const std::string_view kind = canonical_kind(stored_kind);
  if (kind == "spark" || kind == "remote-spark") {
    return fail(invalid("spec.security_context",
                        "kind " + quote(kind) + " takes no security context",
                        "leave it out: its pods run as the run's user"));
  }
  METIER_CHECK(expect_object(context, "spec.security_context"));
  METIER_CHECK(check_camel_case(context, "spec.security_context"));
  function.spec()["security_context"] = context;
  return {};
}

}  // namespace metier
