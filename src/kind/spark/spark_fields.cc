#include "kind/spark/spark_fields.h"

#include <algorithm>
#include <span>

#include "base/text.h"
#include "model/attributes.h"
#include "model/python_text.h"
#include "model/spark.h"

namespace metier {
namespace {

struct OtherField {
  std::string_view name;
  std::string_view message;
  std::string_view fix;
};
constexpr OtherField kOthers[] = {
    {"resources", "kind 'spark' has two roles, each with its own resources",
     "driver_resources and executor_resources: with_driver_requests, with_executor_requests, "
     "with_driver_limits, with_executor_limits"},
    {"affinity", "kind 'spark' has two roles, each with its own affinity",
     "driver_affinity and executor_affinity: with_driver_node_selection, "
     "with_executor_node_selection"},
    {"tolerations", "kind 'spark' has two roles, each with its own tolerations",
     "driver_tolerations and executor_tolerations: with_driver_node_selection, "
     "with_executor_node_selection"},
    {"node_name", "kind 'spark' cannot be pinned to a node by name",
     "driver_node_selector and executor_node_selector: with_node_selection(node_selector=…)"},
    {"security_context",
     "kind 'spark' takes no security context: driver and executors run as the run's user",
     "leave it out"},
};

enum class Shape { text, truth, object, list, texts, values };

struct Field {
  std::string_view name;
  Shape shape;
};
constexpr Field kFields[] = {
    {"job_type", Shape::text},
    {"python_version", Shape::text},
    {"spark_version", Shape::text},
    {"main_class", Shape::text},
    {"use_default_image", Shape::truth},
    {"driver_resources", Shape::object},
    {"executor_resources", Shape::object},
    {"restart_policy", Shape::object},
    {"deps", Shape::object},
    {"spark_conf", Shape::values},
    {"hadoop_conf", Shape::values},
    {"monitoring", Shape::object},
    {"dynamic_allocation", Shape::object},
    {"driver_node_selector", Shape::object},
    {"executor_node_selector", Shape::object},
    {"driver_tolerations", Shape::list},
    {"executor_tolerations", Shape::list},
    {"driver_affinity", Shape::object},
    {"executor_affinity", Shape::object},
    {"driver_preemption_mode", Shape::text},
    {"executor_preemption_mode", Shape::text},
    {"driver_volume_mounts", Shape::list},
    {"executor_volume_mounts", Shape::list},
    {"driver_java_options", Shape::text},
    {"executor_java_options", Shape::text},
};
constexpr Field kDeps[] = {
    {"jars", Shape::texts},         {"files", Shape::texts},    {"pyFiles", Shape::texts},
    {"archives", Shape::texts},     {"packages", Shape::texts}, {"excludePackages", Shape::texts},
    {"repositories", Shape::texts},
};
// Numbers are checked where they are compared.
constexpr std::string_view kAllocation[] = {"enabled", "initialExecutors", "minExecutors",
                                            "maxExecutors"};
constexpr std::string_view kRestart[] = {"type", "retries", "retry_interval", "submission_retries",
                                         "submission_retry_interval"};
constexpr std::string_view kModes[] = {"preemption_mode", "driver_preemption_mode",
                                       "executor_preemption_mode"};
constexpr std::string_view kParts[] = {"requests", "limits"};
constexpr std::string_view kAmounts[] = {"cpu", "memory"};

void check_items(const Json& value, const std::string& path, ProblemList& problems) {
  for (std::size_t i = 0; i < value.get_array().size(); ++i) {
    const Json& item = value.get_array()[i];
    if (!item.is_string()) {
      problems.add(path + "[" + std::to_string(i) + "]", expected("text", item));
    }
  }
}

void check_values(const Json& value, const std::string& path, ProblemList& problems) {
  for (const auto& member : value.get_object()) {
    if (member.value().is_object() || member.value().is_array()) {
      problems.add(path + "." + std::string(member.key()),
                   expected("text, a number or true or false", member.value()));
    }
  }
}

void check_shape(const Json& value, Shape shape, const std::string& path, ProblemList& problems) {
  if (is_falsy(value) && !value.is_bool()) { return; }
  switch (shape) {
    case Shape::text:
      if (!value.is_string()) {
        problems.add(path, expected("text", value),
                     value.is_number() ? "write it in quotes: \"" + python_text(value) + "\"" : "");
      }
      return;
    case Shape::truth:
      if (!value.is_bool()) { problems.add(path, expected("true or false", value)); }
      return;
    case Shape::object:
      if (!value.is_object()) { problems.add(path, expected("an object", value)); }
      return;
    case Shape::values:
      if (value.is_object()) { return check_values(value, path, problems); }
      problems.add(path, expected("an object", value),
                   "write each property as its key and its value");
      return;
    case Shape::list:
    case Shape::texts:
      if (!value.is_array()) {
        problems.add(path, expected("a list", value), "write [ ] around it");
      } else if (shape == Shape::texts) {
        check_items(value, path, problems);
      }
      return;
  }
}

void check_keys(const JsonObject& object, std::span<const std::string_view> known,
                const std::string& path, ProblemList& problems) {
  for (const auto& member : object) {
    if (std::ranges::find(known, std::string_view(member.key())) != known.end()) { continue; }
    problems.add(path + "." + std::string(member.key()),
                 unknown_name(member.key(), nearest(member.key(), known)), "one of " + join(known));
  }
}

void check_deps(const JsonObject& deps, const std::string& path, ProblemList& problems) {
  std::vector<std::string_view> known;
  for (const Field& field : kDeps) {
    known.push_back(field.name);
    if (const Json* value = deps.if_contains(field.name)) {
      check_shape(*value, field.shape, path + "." + std::string(field.name), problems);
    }
  }
  check_keys(deps, known, path, problems);
}

void check_resources(const JsonObject& resources, const std::string& path, ProblemList& problems) {
  check_keys(resources, kParts, path, problems);
  for (const std::string_view part : kParts) {
    const std::string inner = path + "." + std::string(part);
    if (const Json* value = resources.if_contains(part)) {
      check_shape(*value, Shape::object, inner, problems);
    }
  }
  // Of limits another key is a type of GPU; a GPU among the requests is dropped, as MLRun does.
  const JsonObject* requests = object_in(resources, "requests");
  JsonObject plain = requests == nullptr ? JsonObject{} : *requests;
  for (const auto& member : requests == nullptr ? JsonObject{} : *requests) {
    if (member.key().contains('/')) { plain.stable_erase(member.key()); }
  }
  check_keys(plain, kAmounts, path + ".requests", problems);
}

void check_mode(const Function& function, std::string_view name, ProblemList& problems) {
  const Json* mode = function.spec().if_contains(name);
  if (mode == nullptr || !mode->is_string() || mode->get_string().empty()) { return; }
  if (auto checked = check_preemption_mode(name, mode->get_string()); !checked) {
    problems.add(std::move(checked.error()));
  }
}

// {} and {"requests": {}} say nothing.
bool says_nothing(const Json& value) {
  if (!value.is_object()) { return is_falsy(value); }
  for (const auto& member : value.get_object()) {
    if (!says_nothing(member.value())) { return false; }
  }
  return true;
}

}  // namespace

void check_common_fields(const Function& function, ProblemList& problems) {
  for (const OtherField& field : kOthers) {
    const Json* value = function.spec().if_contains(field.name);
    if (value == nullptr || says_nothing(*value)) { continue; }
    problems.add("function.spec." + std::string(field.name), std::string(field.message),
                 std::string(field.fix));
  }
}

bool is_for_iguazio(const Function& function) {
  const JsonObject* deps = object_in(function.spec(), "deps");
  for (const std::string_view part : {"jars", "files"}) {
    const JsonArray* items = deps == nullptr ? nullptr : array_in(*deps, part);
    for (const Json& item : items == nullptr ? JsonArray{} : *items) {
      if (!item.is_string()) { continue; }
      const std::string_view path = item.get_string();
      if (path.starts_with("local:///spark/v3io-libs/") || path.starts_with("local:///igz/")) {
        return true;
      }
    }
  }
  return false;
}

void check_own_fields(const Function& function, ProblemList& problems) {
  const std::string prefix = "function.spec.";
  for (const Field& field : kFields) {
    if (const Json* value = function.spec().if_contains(field.name)) {
      check_shape(*value, field.shape, prefix + std::string(field.name), problems);
    }
  }
  const auto with = [&](std::string_view name, auto&& check) {
    if (const JsonObject* object = object_in(function.spec(), name)) {
      check(*object, prefix + std::string(name), problems);
    }
  };
  for (const std::string_view role : {"driver", "executor"}) {
    // Kubernetes' objects: what has another form would be passed over by whoever places the pods.
    NodeSelection selection;
    if (const JsonObject* affinity = object_in(function.spec(), std::string(role) + "_affinity")) {
      selection.affinity = *affinity;
    }
    if (const JsonArray* list = array_in(function.spec(), std::string(role) + "_tolerations")) {
      selection.tolerations = *list;
    }
    if (auto checked = check_selection(selection, prefix + std::string(role) + "_"); !checked) {
      problems.add(std::move(checked.error()));
    }
  }
  for (const std::string_view name : kModes) { check_mode(function, name, problems); }
  with("driver_resources", check_resources);
  with("executor_resources", check_resources);
  with("restart_policy", [](const JsonObject& policy, const std::string& path, ProblemList& all) {
    check_keys(policy, kRestart, path, all);
  });
  with("deps", check_deps);
  with("dynamic_allocation",
       [](const JsonObject& dynamic, const std::string& path, ProblemList& all) {
         if (const Json* enabled = dynamic.if_contains("enabled")) {
           check_shape(*enabled, Shape::truth, path + ".enabled", all);
         }
         check_keys(dynamic, kAllocation, path, all);
       });
}

std::vector<std::string> ignored_fields(const Function& function) {
  std::vector<std::string> out;
  const auto add = [&](std::string_view name, std::string_view why) {
    out.push_back("spec." + std::string(name) +
                  " has no effect on the embedded cluster: " + std::string(why));
  };
  for (const auto& [name, why] :
       {std::pair("spark_version", "Spark is that of the environment's pyspark (--requirements)"),
        std::pair("python_version", "Python is the environment's (--python)"),
        std::pair("use_default_image", "images are environments here")}) {
    const Json* value = function.spec().if_contains(name);
    if (value != nullptr && !is_falsy(*value)) { add(name, why); }
  }
  constexpr std::string_view kProcessors =
      "the driver's processors are driver_resources.requests.cpu (with_driver_requests)";
  if (int_in(function.spec(), "driver_cores").value_or(1) > 1) { add("driver_cores", kProcessors); }
  const Json* cores = find_path(function.spec(), "spark_conf");
  cores = cores == nullptr || !cores->is_object()
              ? nullptr
              : cores->get_object().if_contains("spark.driver.cores");
  if (cores != nullptr && !is_falsy(*cores) && python_text(*cores) != "1") {
    add("spark_conf.spark.driver.cores", kProcessors);
  }
  // disable_monitoring() asks for what is so here.
  if (const JsonObject* monitoring = object_in(function.spec(), "monitoring")) {
    const bool off = monitoring->contains("enabled") && is_falsy(monitoring->at("enabled"));
    if (!monitoring->empty() && !off) {
      add("monitoring", "Spark's page shows the run (metier ui)");
    }
  }
  if (const JsonObject* policy = object_in(function.spec(), "restart_policy")) {
    const RestartArguments defaults;
    for (const auto& [name, value] :
         {std::pair("submission_retries", &defaults.submission_retries),
          std::pair("submission_retry_interval", &defaults.submission_retry_interval)}) {
      const Json* own = policy->if_contains(name);
      if (own != nullptr && !own->is_null() && *own != *value) {
        add("restart_policy." + std::string(name), "nothing that could fail is submitted");
      }
    }
  }
  for (const std::string_view name : kModes) {
    const std::string mode = function.text(name);
    if (mode == "allow" || mode == "constrain") { add(name, "no node is preemptible"); }
  }
  return out;
}

}  // namespace metier
