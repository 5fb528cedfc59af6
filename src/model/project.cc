#include "model/project.h"

#include "model/names.h"

namespace metier {
namespace {

const JsonObject& section(const JsonObject& document, std::string_view name) {
  static const JsonObject kNone;
  const JsonObject* found = object_in(document, name);
  return found == nullptr ? kNone : *found;
}

}  // namespace

Project::Project(std::string_view name)
    : document_{
          {"kind", "project"},
          {"metadata",
           JsonObject{{"name", name}, {"labels", JsonObject{}}, {"annotations", JsonObject{}}}},
          {"spec", JsonObject{{"description", ""}, {"desired_state", "online"}}},
          {"status", JsonObject{{"state", "online"}}}} {}

Result<Project> Project::from_json(Json document) {
  if (!document.is_object()) {
    return fail(
        invalid("", "expected a project object, got a " + std::string(type_name(document))));
  }
  JsonObject& given = document.get_object();
  for (const std::string_view name : {"metadata", "spec", "status"}) {
    const Json* value = given.if_contains(name);
    if (value != nullptr && !value->is_null() && !value->is_object()) {
      return fail(invalid(name, "expected an object, got a " + std::string(type_name(*value))));
    }
  }
  Project project;
  project.document_ = std::move(given);
  project.document_["kind"] = "project";
  METIER_CHECK(check_project_name(project.name(), "metadata.name"));
  ensure_object(project.document_, "spec");
  ensure_object(project.document_, "status")["state"] = "online";
  return project;
}

std::string Project::name() const { return std::string(string_in(metadata(), "name")); }
std::string Project::artifact_path() const {
  return std::string(string_in(spec(), "artifact_path"));
}
std::string Project::default_image() const {
  return std::string(string_in(spec(), "default_image"));
}
const JsonObject& Project::node_selector() const {
  return section(spec(), "default_function_node_selector");
}
JsonObject& Project::metadata() { return ensure_object(document_, "metadata"); }
JsonObject& Project::spec() { return ensure_object(document_, "spec"); }
const JsonObject& Project::metadata() const { return section(document_, "metadata"); }
const JsonObject& Project::spec() const { return section(document_, "spec"); }

}  // namespace metier
