// Function files: reading and writing function.yaml, and checking what they say.
#include <algorithm>

#include "base/files.h"
#include "base/text.h"
#include "base/yaml.h"
#include "model/attributes.h"
#include "model/create.h"
#include "model/kinds.h"
#include "model/mpijob_document.h"
#include "model/nuclio/function.h"
#include "model/problems.h"
#include "model/python_text.h"
#include "model/run.h"

namespace metier {
namespace {

// A code file that the yaml names but does not hold is read from beside it.
Result<void> read_code_beside(Function& function, const std::filesystem::path& file) {
  if (!function.text("build.functionSourceCode").empty()) { return {}; }
  for (const std::string_view field :
       {std::string_view("build.code_origin"), std::string_view("command")}) {
    const std::filesystem::path named(function.text(field));
    if (named.empty() || named.is_absolute() || named.native().contains("://") ||
        named.native().contains("..")) {
      continue;
    }
    std::error_code error;
    const std::filesystem::path beside = file.parent_path() / named;
    if (std::filesystem::is_regular_file(beside, error)) {
      METIER_CHECK(with_code(function, beside, std::nullopt, false));
      ensure_object(function.spec(), "build")["origin_filename"] = named.string();
      return {};
    }
  }
  return {};
}

void check_map_of_text(const JsonObject* map, const std::string& field, bool keys,
                       ProblemList& problems) {
  if (map == nullptr) { return; }
  for (const auto& member : *map) {
    const std::string path = field + "." + std::string(member.key());
    if (keys) {
      if (auto checked = check_label_key(member.key(), field); !checked) {
        problems.add(std::move(checked.error()));
      }
    }
    if (!member.value().is_string()) {
      problems.add(path, "expected text, got a " + std::string(type_name(member.value())),
                   "put it into quotes");
    } else if (keys) {
      if (auto checked = check_label_value(std::string_view(member.value().get_string()), path);
          !checked) {
        problems.add(std::move(checked.error()));
      }
    }
  }
}

void check_quantities(const JsonObject& spec, std::string_view field, ProblemList& problems) {
  const JsonObject* resources = object_in(spec, field);
  for (const std::string_view part : {"requests", "limits"}) {
    const JsonObject* map = resources == nullptr ? nullptr : object_in(*resources, part);
    for (const auto& member : map == nullptr ? JsonObject{} : *map) {
      if (!is_mlrun_quantity(python_text(member.value()))) {
        problems.add("spec." + std::string(field) + "." + std::string(part) + "." +
                         std::string(member.key()),
                     quote(python_text(member.value())) + " is not a quantity",
                     "write 2G (10^9 bytes), 2Gi (2^30 bytes), 500m or 2 (processors)");
      }
    }
  }
}

void check_count(const JsonObject& spec, std::string_view field, ProblemList& problems) {
  const Json* value = spec.if_contains(field);
  if (value == nullptr || value->is_null()) { return; }
  if (!value->is_int64() || value->get_int64() < 0 || value->get_int64() > 100'000) {
    problems.add("spec." + std::string(field),
                 quote(dump_json(*value)) + " is not a number of replicas", "0 to 100000");
  }
}

}  // namespace

Result<Function> parse_function(std::string_view text, std::string_view format) {
  auto document = format == "json" ? parse_json(text) : parse_yaml(text);
  if (!document) { return fail(std::move(document.error())); }
  METIER_TRY(function, Function::from_json(std::move(*document)));
  METIER_TRY(kind, resolve_kind(function.kind()));
  if (!kind.kind.empty()) { function.set_kind(function.kind()); }
  return function;
}

Result<Function> import_function(const std::filesystem::path& file, std::string_view project,
                                 std::string_view new_name, std::vector<std::string>* warnings) {
  if (const std::string url = file.string(); url.contains("://")) {
    return fail(
        Error{.kind = ErrorKind::unsupported,
              .message = quote(url) + (url.starts_with("hub://")
                                           ? ": functions of the hub are not fetched"
                                           : ": functions are imported from files and db:// only"),
              .fix = "download it and give the file"});
  }
  if (file.extension() == ".py") {
    CodeToFunction arguments{.name = std::string(new_name),
                             .project = std::string(project),
                             .filename = file,
                             .kind = "job"};
    return code_to_function(arguments);
  }
  METIER_TRY(text, read_file(file, 16U << 20U));
  auto document = file.extension() == ".json" ? parse_json(text) : parse_yaml(text);
  const bool mpijob = document && is_mpijob(*document);
  if (mpijob ||
      (document && document->is_object() && nuclio::is_nuclio_document(document->get_object()))) {
    auto function = mpijob ? function_from_mpijob(*document, warnings)
                           : nuclio::function_from_document(document->get_object(), file);
    if (!function) { return fail(std::move(function.error()).in(file.string())); }
    if (function->name().empty()) { function->set_name(file.stem().string()); }
    if (!new_name.empty()) { function->set_name(new_name); }
    if (!project.empty()) { function->set_project(project); }
    return function;
  }
  auto parsed = parse_function(text, file.extension() == ".json" ? "json" : "yaml");
  if (!parsed) { return fail(std::move(parsed.error()).in(file.string())); }
  if (parsed->kind().empty() && parsed->text("command").empty()) { parsed->set_kind("job"); }
  METIER_CHECK(read_code_beside(*parsed, file));
  if (!new_name.empty()) { parsed->set_name(new_name); }
  if (!project.empty()) { parsed->set_project(project); }
  return parsed;
}

Result<std::string> export_text(const Function& function, std::string_view format, Strip strip) {
  if (function.kind() == "handler") {
    return fail(invalid("kind",
                        "a handler function exists only in its own process and cannot be exported",
                        "make one of its file: code_to_function"));
  }
  const Json document = strip == Strip::yes ? function.to_export() : function.to_dict();
  if (format == ".json" || format == "json") { return dump_json(document, JsonStyle::pretty); }
  if (format == ".yaml" || format == "yaml" || format.empty()) { return dump_yaml(document); }
  return fail(
      invalid("format", quote(format) + " is not a format of function files", ".yaml or .json"));
}

Result<void> export_function(const Function& function, const std::filesystem::path& target,
                             std::string_view format, Strip strip) {
  METIER_TRY(
      text, export_text(function,
                        target.extension() == ".json" ? std::string_view(".json") : format, strip));
  return write_file(target.empty() ? std::filesystem::path("function.yaml") : target, text, 0644);
}

Result<void> validate_function(const Function& function, std::vector<std::string>* warnings) {
  ProblemList problems;
  const auto check = [&](Result<void> result) {
    if (!result) { problems.add(std::move(result.error())); }
  };
  if (auto kind = resolve_kind(function.kind()); !kind) { problems.add(std::move(kind.error())); }
  check(check_name(function.name(), "metadata.name", "function name"));
  if (!function.project().empty()) { check(check_project_name(function.project())); }
  check(check_label_value(function.tag(), "metadata.tag"));
  const JsonObject& spec = function.spec();
  if (const std::string mode = function.text("mode"); !mode.empty() && mode != "pass") {
    problems.add("spec.mode", quote(mode) + " is unknown", "leave it empty or write pass");
  }
  check_map_of_text(object_in(function.metadata(), "labels"), "metadata.labels", false, problems);
  check_map_of_text(object_in(spec, "node_selector"), "spec.node_selector", true, problems);
  for (const std::string_view field : {"resources", "worker_resources", "scheduler_resources"}) {
    check_quantities(spec, field, problems);
  }
  for (const std::string_view field : {"replicas", "min_replicas", "max_replicas"}) {
    check_count(spec, field, problems);
  }
  if (const JsonObject* thresholds = object_in(spec, "state_thresholds")) {
    check(check_state_thresholds(*thresholds, "spec.state_thresholds"));
  }
  if (const std::string policy = function.text("image_pull_policy"); !policy.empty()) {
    Function probe = function;
    check(set_image_pull_configuration(probe, policy, ""));
  }
  if (warnings != nullptr) {
    const std::vector<std::string> known = known_spec_fields(function.kind());
    for (const auto& field : spec) {
      if (std::ranges::find(known, std::string_view(field.key())) == known.end()) {
        const std::string near = nearest(field.key(), known);
        warnings->push_back("spec." + std::string(field.key()) + ": unknown field" +
                            (near.empty() ? "" : ", did you mean " + near + "?"));
      }
    }
  }
  return std::move(problems).result();
}

}  // namespace metier
