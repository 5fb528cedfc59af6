#include "model/function.h"

#include <array>

#include "base/digest.h"
#include "model/kinds.h"
#include "model/problems.h"

namespace metier {
namespace {

constexpr std::array<std::string_view, 8> kStrippedMetadata = {
    "hash", "uid", "namespace", "project", "labels", "annotations", "credentials", "updated"};

enum class Shape { text, list, object, env, texts };

struct FieldShape {
  std::string_view name;
  Shape shape;
};

// The types of the fields that we read. A null is always fine: it means "not set".
constexpr FieldShape kSpecShapes[] = {{"command", Shape::text},
                                      {"args", Shape::texts},
                                      {"image", Shape::text},
                                      {"mode", Shape::text},
                                      {"build", Shape::object},
                                      {"entry_points", Shape::object},
                                      {"description", Shape::text},
                                      {"workdir", Shape::text},
                                      {"default_handler", Shape::text},
                                      {"pythonpath", Shape::text},
                                      {"volumes", Shape::list},
                                      {"volume_mounts", Shape::list},
                                      {"env", Shape::env},
                                      {"resources", Shape::object},
                                      {"image_pull_policy", Shape::text},
                                      {"service_account", Shape::text},
                                      {"image_pull_secret", Shape::text},
                                      {"node_name", Shape::text},
                                      {"node_selector", Shape::object},
                                      {"affinity", Shape::object},
                                      {"priority_class_name", Shape::text},
                                      {"tolerations", Shape::list},
                                      {"preemption_mode", Shape::text},
                                      {"security_context", Shape::object},
                                      {"state_thresholds", Shape::object}};

void check_texts(const Json& value, const std::string& field, ProblemList& problems) {
  for (std::size_t i = 0; i < value.get_array().size(); ++i) {
    const Json& item = value.get_array()[i];
    if (item.is_object() || item.is_array() || item.is_null()) {
      problems.add(field + "[" + std::to_string(i) + "]", expected("text", item));
    }
  }
}

void check_env(const Json& value, const std::string& field, ProblemList& problems) {
  for (std::size_t i = 0; i < value.get_array().size(); ++i) {
    const Json& item = value.get_array()[i];
    const std::string path = field + "[" + std::to_string(i) + "]";
    if (!item.is_object()) {
      problems.add(path, expected("an object", item), "write {name: NAME, value: VALUE}");
    } else if (string_in(item.get_object(), "name").empty()) {
      problems.add(path + ".name", "name is missing", "write {name: NAME, value: VALUE}");
    }
  }
}

void check_shape(const Json& value, Shape shape, const std::string& field, ProblemList& problems) {
  if (value.is_null()) { return; }
  if (shape == Shape::text) {
    if (!value.is_string()) { problems.add(field, expected("text", value)); }
  } else if (shape == Shape::object) {
    if (!value.is_object()) { problems.add(field, expected("an object", value)); }
  } else if (!value.is_array()) {
    problems.add(field, expected("a list", value),
                 shape == Shape::env ? "write a list of {name: NAME, value: VALUE}" : "");
  } else if (shape == Shape::texts) {
    check_texts(value, field, problems);
  } else if (shape == Shape::env) {
    check_env(value, field, problems);
  }
}

void drop_empty(JsonObject& object, bool spec) {
  JsonObject kept;
  for (auto& member : object) {
    if (!is_empty_value(member.value()) || (spec && survives_empty(member.key()))) {
      kept[member.key()] = std::move(member.value());
    }
  }
  object = std::move(kept);
}

const JsonObject& section(const JsonObject& document, std::string_view name) {
  static const JsonObject kNone;
  const JsonObject* found = object_in(document, name);
  return found == nullptr ? kNone : *found;
}

void blank_v3io(JsonObject& spec) {
  if (JsonArray* env = spec.contains("env") ? spec["env"].if_array() : nullptr) {
    for (Json& entry : *env) {
      if (entry.is_object() && string_in(entry.get_object(), "name").starts_with("V3IO_")) {
        entry.get_object()["value"] = "";
      }
    }
  }
}

}  // namespace

Function::Function()
    : document_{
          {"kind", ""}, {"metadata", JsonObject{}}, {"spec", JsonObject{}}, {"verbose", false}} {}

Result<Function> Function::from_json(Json document) {
  if (!document.is_object()) {
    return fail(invalid("", expected("a function object", document),
                        "a function has kind, metadata and spec"));
  }
  Function function;
  JsonObject& given = document.get_object();
  ProblemList problems;
  for (const std::string_view name : {"metadata", "spec", "status"}) {
    const Json* value = given.if_contains(name);
    if (value != nullptr && !value->is_null() && !value->is_object()) {
      problems.add(name, expected("an object", *value));
    }
  }
  const auto text = [&](const JsonObject& in, std::string_view key, const std::string& field) {
    if (const Json* value = in.if_contains(key)) {
      check_shape(*value, Shape::text, field, problems);
    }
  };
  text(given, "kind", "kind");
  for (const std::string_view key : {"name", "project", "tag", "hash"}) {
    text(section(given, "metadata"), key, "metadata." + std::string(key));
  }
  for (const FieldShape& field : kSpecShapes) {
    if (const Json* value = section(given, "spec").if_contains(field.name)) {
      check_shape(*value, field.shape, "spec." + std::string(field.name), problems);
    }
  }
  METIER_CHECK(std::move(problems).result());
  function.document_ = std::move(given);
  ensure_object(function.document_, "metadata");
  ensure_object(function.document_, "spec");
  if (!function.document_.contains("verbose")) { function.document_["verbose"] = false; }
  if (const std::string kind = function.kind(); kind.starts_with("nuclio:")) {
    function.set_kind(kind);
  }
  return function;
}

std::string Function::kind() const { return std::string(string_in(document_, "kind")); }
std::string Function::name() const { return std::string(string_in(metadata(), "name")); }
std::string Function::project() const { return std::string(string_in(metadata(), "project")); }
std::string Function::tag() const { return std::string(string_in(metadata(), "tag")); }
std::string Function::hash() const { return std::string(string_in(metadata(), "hash")); }

void Function::set_kind(std::string_view kind) {
  const bool sub = kind.starts_with("nuclio:");
  document_["kind"] = sub || kind == "nuclio" ? std::string_view("remote") : kind;
  if (sub && kind.size() > 7) { spec()["function_kind"] = kind.substr(7); }
}

void Function::set_name(std::string_view name) { metadata()["name"] = normalize_name(name); }
void Function::set_project(std::string_view project) { metadata()["project"] = project; }
void Function::set_tag(std::string_view tag) { metadata()["tag"] = tag; }

JsonObject& Function::metadata() { return ensure_object(document_, "metadata"); }
JsonObject& Function::spec() { return ensure_object(document_, "spec"); }
JsonObject& Function::status() { return ensure_object(document_, "status"); }
const JsonObject& Function::metadata() const { return section(document_, "metadata"); }
const JsonObject& Function::spec() const { return section(document_, "spec"); }
const JsonObject& Function::status() const { return section(document_, "status"); }

std::string Function::text(std::string_view dotted) const {
  const Json* value = find(dotted);
  return value != nullptr && value->is_string() ? std::string(value->get_string()) : std::string();
}

Result<std::string> Function::code() const {
  auto decoded = base64_decode(text("build.functionSourceCode"));
  if (!decoded) { return fail(std::move(decoded.error()).at("spec.build.functionSourceCode")); }
  return decoded;
}

Json Function::to_dict() const {
  JsonObject out = document_;
  for (const std::string_view name : {"metadata", "spec", "status"}) {
    JsonObject* part = object_in(out, name);
    if (part == nullptr) {
      out.stable_erase(name);
      continue;
    }
    for (const std::string_view inner : {"build", "credentials"}) {
      if (JsonObject* object = object_in(*part, inner)) { drop_empty(*object, false); }
    }
    drop_empty(*part, name == "spec");
    if (part->empty()) { out.stable_erase(name); }
  }
  return out;
}

Json Function::to_export() const {
  Json exported = to_dict();
  JsonObject& out = exported.get_object();
  out.stable_erase("status");
  if (JsonObject* metadata = object_in(out, "metadata")) {
    for (const std::string_view name : kStrippedMetadata) { metadata->stable_erase(name); }
  }
  if (JsonObject* spec = object_in(out, "spec")) {
    for (const std::string_view name : stripped_spec_fields(kind())) { spec->stable_erase(name); }
    blank_v3io(*spec);
    if (spec->contains("disable_auto_mount")) {
      (*spec)["disable_auto_mount"] = false;  // the mounts it spoke of are gone
    }
  }
  return exported;
}

std::string Function::compute_hash() const {
  JsonObject cleared = document_;
  JsonObject& metadata = ensure_object(cleared, "metadata");
  metadata["tag"] = "";
  metadata["hash"] = "";
  metadata["updated"] = nullptr;
  metadata.stable_erase("created");
  cleared["status"] = nullptr;
  return sha1_hex(dump_python_json(cleared));
}

}  // namespace metier
