#include "engine/merge.h"

#include "model/merge.h"

namespace metier {
namespace {

bool truthy(const Json* value) {
  if (value == nullptr || is_empty_value(*value)) { return false; }
  if (value->is_bool()) { return value->get_bool(); }
  if (value->is_string()) { return !value->get_string().empty(); }
  if (value->is_int64()) { return value->get_int64() != 0; }
  if (value->is_uint64()) { return value->get_uint64() != 0; }
  return true;
}

}  // namespace

Result<void> overlay_function(Function& function, const JsonObject& override_document) {
  METIER_CHECK(merge_override(function, override_document));
  if (const JsonObject* metadata = object_in(override_document, "metadata")) {
    if (const JsonObject* annotations = object_in(*metadata, "annotations")) {
      for (const auto& [key, value] : *annotations) {
        ensure_object(function.metadata(), "annotations")[key] = value;
      }
    }
  }
  return {};
}

std::string expand_path(std::string_view text, std::string_view project, std::string_view uid,
                        std::string_view user) {
  std::string out;
  std::size_t at = 0;
  while (at < text.size()) {
    const std::size_t open = text.find("{{", at);
    const std::size_t close = open == std::string_view::npos ? open : text.find("}}", open);
    if (close == std::string_view::npos) {
      out += text.substr(at);
      return out;
    }
    out += text.substr(at, open - at);
    std::string_view name = text.substr(open + 2, close - open - 2);
    while (!name.empty() && name.front() == ' ') { name.remove_prefix(1); }
    while (!name.empty() && name.back() == ' ') { name.remove_suffix(1); }
    if (name == "run.uid") {
      out += uid;
    } else if (name == "project" || name == "run.project") {
      out += project;
    } else if (name == "run.user") {
      out += user.empty() ? std::string_view("mlrun") : user;
    } else {
      out += text.substr(open, close + 2 - open);
    }
    at = close + 2;
  }
  return out;
}

void fill_function(Function& function, const SubmitDefaults& defaults) {
  JsonObject& spec = function.spec();
  if (string_in(spec, "image").empty()) {
    std::string_view image;
    if (const JsonObject* build = object_in(spec, "build")) { image = string_in(*build, "image"); }
    if (image.empty()) { image = string_at(defaults.project, "spec.default_image"); }
    if (image.empty()) { image = defaults.default_image; }
    if (!image.empty()) { spec["image"] = image; }
  }
  // Spark's two roles have resources of their own.
  if (!defaults.default_resources.is_object() || function.kind() == "spark") { return; }
  // An empty object says "no defaults"; an absent or null one takes all of them.
  const Json* have = spec.if_contains("resources");
  if (have != nullptr && have->is_object() && have->get_object().empty()) { return; }
  JsonObject& resources = ensure_object(spec, "resources");
  for (const auto& [part, values] : defaults.default_resources.get_object()) {
    if (!values.is_object()) { continue; }
    JsonObject& into = ensure_object(resources, part);
    for (const auto& [name, value] : values.get_object()) {
      if ((name == "cpu" || name == "memory") && truthy(&value) &&
          !truthy(into.if_contains(name))) {
        into[name] = value;
      }
    }
  }
}

void fill_run(Run& run, const Function& function, const SubmitDefaults& defaults,
              std::string_view user) {
  JsonObject& spec = run.spec();
  if (run.name().empty()) {
    run.set_name(default_run_name(function.name(), string_in(spec, "handler")));
  }
  run.set_name(normalize_name(run.name()));
  run.set_label("kind", function.kind());
  if (!user.empty() && run.label("owner").empty()) {
    run.set_label("owner", user);
    run.set_label("v3io_user", user);
  }
  std::string path(string_in(spec, "output_path"));
  if (path.empty()) { path = string_at(defaults.project, "spec.artifact_path"); }
  if (path.empty()) { path = defaults.output_path; }
  spec["output_path"] = expand_path(path, run.project(), run.uid(), run.label("owner"));
  const JsonObject* of_function = object_in(function.spec(), "state_thresholds");
  if (of_function != nullptr && !of_function->empty()) {
    JsonObject& thresholds = ensure_object(spec, "state_thresholds");
    for (const auto& [key, value] : *of_function) {
      if (!thresholds.contains(key)) { thresholds[key] = value; }
    }
  }
  if (const Json* selector = function.spec().if_contains("node_selector");
      truthy(selector) && selector->is_object()) {
    JsonObject& into = ensure_object(spec, "node_selector");
    for (const auto& [key, value] : selector->get_object()) {
      if (!into.contains(key)) { into[key] = value; }
    }
  }
}

}  // namespace metier
