#include "engine/deployment_plan.h"

namespace metier {
namespace {
const std::string kScope = "deployment";
}

std::string deployment_key(std::string_view project, std::string_view name, std::string_view tag) {
  std::string key(project);
  key += '/';
  key += name;
  if (!tag.empty() && tag != "latest") {
    key += ':';
    key += tag;
  }
  return key;
}

std::string deployment_label(std::string_view name, std::string_view tag) {
  std::string label(name);
  if (!tag.empty() && tag != "latest") {
    label += '.';
    label += tag;
  }
  return shorten_name(label, 63);
}

Json to_json(const DeploymentPlan& plan) {
  JsonArray objects;
  for (const ResourceKey& key : plan.objects) {
    objects.push_back(JsonArray{key.name_space, key.kind, key.name});
  }
  JsonObject out{{"project", plan.project},
                 {"name", plan.name},
                 {"tag", plan.tag},
                 {"kind", plan.kind},
                 {"hash", plan.hash},
                 {"function", plan.function},
                 {"generation", plan.generation},
                 {"objects", std::move(objects)},
                 {"shared", JsonArray(plan.shared.begin(), plan.shared.end())},
                 {"environment", plan.environment},
                 {"context", plan.context},
                 {"run_as", plan.run_as},
                 {"was_ready", plan.was_ready},
                 {"removing", plan.removing},
                 {"status", plan.status},
                 {"notes", plan.notes}};
  return out;
}

Result<DeploymentPlan> deployment_plan_from_json(std::string_view text) {
  METIER_TRY(document, parse_json(text));
  if (!document.is_object()) {
    return fail(ErrorKind::internal, "a stored deployment is not an object");
  }
  const JsonObject& from = document.get_object();
  DeploymentPlan plan;
  plan.project = string_in(from, "project");
  plan.name = string_in(from, "name");
  plan.tag = string_in(from, "tag");
  plan.kind = string_in(from, "kind");
  plan.hash = string_in(from, "hash");
  plan.context = string_in(from, "context");
  plan.generation = int_in(from, "generation").value_or(1);
  plan.run_as = int_in(from, "run_as").value_or(-1);
  plan.was_ready = bool_in(from, "was_ready");
  plan.removing = bool_in(from, "removing");
  for (const auto& [key, into] :
       {std::pair{"function", &plan.function}, std::pair{"environment", &plan.environment},
        std::pair{"notes", &plan.notes}, std::pair{"status", &plan.status}}) {
    if (const Json* value = from.if_contains(key)) { *into = *value; }
  }
  if (const JsonArray* objects = array_in(from, "objects")) {
    for (const Json& object : *objects) {
      if (!object.is_array() || object.get_array().size() != 3) { continue; }
      const JsonArray& part = object.get_array();
      plan.objects.push_back({std::string(part[0].get_string()), std::string(part[1].get_string()),
                              std::string(part[2].get_string())});
    }
  }
  if (const JsonArray* shared = array_in(from, "shared")) {
    for (const Json& name : *shared) {
      if (name.is_string()) { plan.shared.emplace_back(name.get_string()); }
    }
  }
  if (plan.project.empty() || plan.name.empty()) {
    return fail(ErrorKind::internal, "a stored deployment has no name");
  }
  return plan;
}

Result<std::optional<DeploymentPlan>> read_deployment(const Records& records,
                                                      const std::string& key) {
  METIER_TRY(text, records.setting(kScope, key));
  if (!text) { return std::optional<DeploymentPlan>{}; }
  METIER_TRY(plan, deployment_plan_from_json(*text));
  return std::optional<DeploymentPlan>(std::move(plan));
}

Result<std::vector<DeploymentPlan>> all_deployments(const Records& records) {
  METIER_TRY(rows, records.settings(kScope));
  std::vector<DeploymentPlan> out;
  for (const auto& [key, text] : rows) {
    METIER_TRY(plan, deployment_plan_from_json(text));
    out.push_back(std::move(plan));
  }
  return out;
}

Result<void> write_deployment(Records& tx, const DeploymentPlan& plan) {
  return tx.put_setting(kScope, deployment_key(plan.project, plan.name, plan.tag),
                        dump_json(to_json(plan)), std::nullopt);
}

Result<void> forget_deployment(Records& tx, const DeploymentPlan& plan) {
  return tx.delete_setting(kScope, deployment_key(plan.project, plan.name, plan.tag));
}

}  // namespace metier
