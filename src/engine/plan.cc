#include "engine/plan.h"

namespace metier {
namespace {
constexpr std::string_view kScope = "plan";
}

Condition ignored_field(std::string message) {
  return {.type = "FieldIgnored",
          .status = true,
          .reason = "FieldIgnored",
          .message = std::move(message),
          .since = {}};
}

std::string plan_key(std::string_view project, std::string_view uid) {
  std::string key(project);
  key += '/';
  key += uid;
  return key;
}

Json to_json(const Plan& plan) {
  JsonArray names;
  for (const std::string& name : plan.names) { names.emplace_back(name); }
  JsonArray objects;
  for (const ResourceKey& key : plan.objects) {
    objects.push_back(JsonArray{key.name_space, key.kind, key.name});
  }
  JsonObject out{{"project", plan.project},    {"uid", plan.uid},
                 {"kind", plan.kind},          {"function_name", plan.function_name},
                 {"hash", plan.function_hash}, {"attempt", plan.attempt},
                 {"names", std::move(names)},  {"objects", std::move(objects)}};
  if (!plan.function.is_null()) { out["function"] = plan.function; }
  if (!plan.failure.is_null()) { out["failure"] = plan.failure; }
  const auto text = [&out](std::string_view key, const std::string& value) {
    if (!value.empty()) { out[key] = value; }
  };
  if (!plan.environment.is_null()) { out["environment"] = plan.environment; }
  text("context", plan.context);
  text("working_dir", plan.working_dir);
  text("claimed", plan.claimed);
  text("environment_secret", plan.environment_secret);
  text("stop_reason", plan.stop_reason);
  text("stop_text", plan.stop_text);
  text("abort_task", plan.abort_task);
  text("ended_at", plan.ended_at);
  if (!plan.told.empty()) { out["told"] = plan.told; }
  if (plan.run_as > 0) { out["run_as"] = plan.run_as; }
  if (!plan.shared.empty()) {
    JsonArray shared;
    for (const std::string& name : plan.shared) { shared.emplace_back(name); }
    out["shared"] = std::move(shared);
  }
  if (plan.ended) { out["ended"] = true; }
  if (plan.pods_stay) { out["pods_stay"] = true; }
  if (plan.clean) { out["clean"] = true; }
  return out;
}

Result<Plan> plan_from_json(std::string_view text) {
  METIER_TRY(document, parse_json(text));
  if (!document.is_object()) { return fail(ErrorKind::internal, "a stored plan is not an object"); }
  const JsonObject& from = document.get_object();
  Plan plan;
  plan.project = string_in(from, "project");
  plan.uid = string_in(from, "uid");
  plan.kind = string_in(from, "kind");
  plan.function_name = string_in(from, "function_name");
  plan.function_hash = string_in(from, "hash");
  plan.attempt = int_in(from, "attempt").value_or(1);
  if (const JsonArray* names = array_in(from, "names")) {
    for (const Json& name : *names) {
      if (name.is_string()) { plan.names.emplace_back(name.get_string()); }
    }
  }
  if (const JsonArray* objects = array_in(from, "objects")) {
    for (const Json& object : *objects) {
      if (!object.is_array() || object.get_array().size() != 3) { continue; }
      const JsonArray& part = object.get_array();
      plan.objects.push_back({std::string(part[0].get_string()), std::string(part[1].get_string()),
                              std::string(part[2].get_string())});
    }
  }
  if (plan.names.empty()) { return fail(ErrorKind::internal, "a stored plan has no name"); }
  if (const JsonArray* shared = array_in(from, "shared")) {
    for (const Json& name : *shared) {
      if (name.is_string()) { plan.shared.emplace_back(name.get_string()); }
    }
  }
  if (const Json* function = from.if_contains("function")) { plan.function = *function; }
  if (const Json* failure = from.if_contains("failure")) { plan.failure = *failure; }
  if (const Json* environment = from.if_contains("environment")) {
    plan.environment = *environment;
  }
  if (const JsonArray* told = array_in(from, "told")) { plan.told = *told; }
  plan.context = string_in(from, "context");
  plan.working_dir = string_in(from, "working_dir");
  plan.claimed = string_in(from, "claimed");
  plan.environment_secret = string_in(from, "environment_secret");
  plan.stop_reason = string_in(from, "stop_reason");
  plan.stop_text = string_in(from, "stop_text");
  plan.abort_task = string_in(from, "abort_task");
  plan.ended_at = string_in(from, "ended_at");
  plan.run_as = int_in(from, "run_as").value_or(-1);
  plan.ended = bool_in(from, "ended");
  plan.pods_stay = bool_in(from, "pods_stay");
  plan.clean = bool_in(from, "clean");
  return plan;
}

Result<std::optional<Plan>> read_plan(const Records& records, const std::string& project,
                                      const std::string& uid) {
  METIER_TRY(text, records.setting(std::string(kScope), plan_key(project, uid)));
  if (!text) { return std::optional<Plan>{}; }
  METIER_TRY(plan, plan_from_json(*text));
  return std::optional<Plan>(std::move(plan));
}

Result<void> write_plan(Records& tx, const Plan& plan) {
  return tx.put_setting(std::string(kScope), plan_key(plan.project, plan.uid),
                        dump_json(to_json(plan)), std::nullopt);
}

Result<void> forget_plan(Records& tx, const std::string& project, const std::string& uid) {
  return tx.delete_setting(std::string(kScope), plan_key(project, uid));
}

}  // namespace metier
