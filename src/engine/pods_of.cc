#include "engine/pods_of.h"

namespace metier {
namespace {

// A pod whose metadata lies in `metadata`, a member of a custom resource.
template <class Metadata>
PodPart part_of(JsonObject& spec, Metadata metadata) {
  return {spec,
          [metadata](std::string_view key, std::string_view text) {
            ensure_object(metadata(), "annotations")[key] = text;
          },
          [metadata](std::string_view key, std::string_view text) {
            JsonObject& labels = ensure_object(metadata(), "labels");
            if (!labels.contains(key)) { labels[key] = text; }
          }};
}

void visit_templates(Json& value, const std::function<void(PodPart&)>& visit) {
  if (value.is_array()) {
    for (Json& item : value.get_array()) { visit_templates(item, visit); }
    return;
  }
  if (!value.is_object()) { return; }
  for (auto&& member : value.get_object()) {
    Json& inner = member.value();
    if (member.key() == "template" && inner.is_object()) {
      JsonObject* spec = object_in(inner.get_object(), "spec");
      if (spec != nullptr && spec->contains("containers")) {
        JsonObject& document = inner.get_object();
        PodPart part = part_of(
            *spec, [&document]() -> JsonObject& { return ensure_object(document, "metadata"); });
        visit(part);
        continue;
      }
    }
    visit_templates(inner, visit);
  }
}

}  // namespace

void for_each_pod(Resource& resource, const std::function<void(PodPart&)>& visit) {
  if (resource.kind == "Pod") {
    PodPart part{ensure_object(resource.body, "spec"),
                 [&resource](std::string_view key, std::string_view text) {
                   resource.metadata.annotations.insert_or_assign(std::string(key),
                                                                  std::string(text));
                 },
                 [&resource](std::string_view key, std::string_view text) {
                   resource.metadata.labels.try_emplace(std::string(key), std::string(text));
                 }};
    visit(part);
    return;
  }
  if (resource.kind == "SparkApplication" ||
      resource.kind == "SparkConnect") {  // their roles are not written as pod templates
    JsonObject& own = ensure_object(resource.body, "spec");
    JsonObject* application = object_in(own, "application");  // of a warm Spark
    JsonObject& spec = application == nullptr ? own : *application;
    for (const std::string_view role : {"driver", "executor"}) {
      if (JsonObject* body = object_in(spec, role)) {
        PodPart part = part_of(*body, [body]() -> JsonObject& { return *body; });
        visit(part);
      }
    }
    return;
  }
  if (Json* spec = resource.body.if_contains("spec")) { visit_templates(*spec, visit); }
}

void for_each_pod(std::vector<Resource>& resources, const std::function<void(PodPart&)>& visit) {
  for (Resource& resource : resources) { for_each_pod(resource, visit); }
}

void set_place(PodPart& pod, const std::string& environment, const std::string& context,
               std::int64_t run_as) {
  if (!environment.empty()) { pod.annotate("metier.dev/environment", environment); }
  if (!context.empty()) { pod.annotate("metier.dev/context", context); }
  if (run_as <= 0) { return; }
  JsonObject& security = ensure_object(pod.spec, "securityContext");
  if (security.contains("runAsUser")) { return; }
  security["runAsUser"] = run_as;
  security["runAsGroup"] = run_as;
}

}  // namespace metier
