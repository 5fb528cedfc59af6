#include "model/merge.h"

#include <array>

#include "model/python_text.h"

namespace metier {
namespace {

constexpr std::array<std::string_view, 10> kReplaced = {
    "image",    "image_pull_policy",   "replicas",    "node_name",       "node_selector",
    "affinity", "priority_class_name", "tolerations", "preemption_mode", "security_context"};

void merge_by_name(JsonArray& stored, const JsonArray& added) {
  for (const Json& item : added) {
    const std::string_view name =
        item.is_object() ? string_in(item.get_object(), "name") : std::string_view{};
    bool replaced = false;
    for (Json& old : stored) {
      if (!name.empty() && old.is_object() && string_in(old.get_object(), "name") == name) {
        old = item;
        replaced = true;
        break;
      }
    }
    if (!replaced) { stored.push_back(item); }
  }
}

}  // namespace

Result<void> merge_override(Function& stored, const JsonObject& override_document) {
  auto checked = Function::from_json(override_document);
  if (!checked) { return fail(std::move(checked.error()).at("function")); }
  const JsonObject& given = std::as_const(*checked).spec();
  JsonObject& spec = stored.spec();
  for (const std::string_view field : {"env", "volumes"}) {
    if (const JsonArray* list = array_in(given, field); list != nullptr && !list->empty()) {
      merge_by_name(ensure_array(spec, field), *list);
    }
  }
  if (const JsonArray* mounts = array_in(given, "volume_mounts");
      mounts != nullptr && !mounts->empty()) {
    spec["volume_mounts"] = *mounts;
  }
  if (const JsonObject* resources = object_in(given, "resources")) {
    const JsonObject* requests = object_in(*resources, "requests");
    const JsonObject* limits = object_in(*resources, "limits");
    if ((requests != nullptr && !requests->empty()) || (limits != nullptr && !limits->empty())) {
      spec["resources"] = *resources;
    }
  }
  for (const std::string_view field : kReplaced) {
    if (const Json* value = given.if_contains(field); value != nullptr && !is_falsy(*value)) {
      spec[field] = *value;
    }
  }
  if (const JsonObject* credentials = object_in(std::as_const(*checked).metadata(), "credentials");
      credentials != nullptr && !credentials->empty()) {
    stored.metadata()["credentials"] = *credentials;
  }
  return {};
}

JsonObject merge_node_selectors(const JsonObject& general, const JsonObject& specific) {
  JsonObject out = general;
  for (const auto& label : specific) { out[label.key()] = label.value(); }
  return out;
}

}  // namespace metier
