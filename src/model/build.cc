// Code, requirements, commands and sources of functions.
#include "base/digest.h"
#include "base/files.h"
#include "base/text.h"
#include "model/attributes.h"
#include "model/entry_points.h"
#include "model/kinds.h"

namespace metier {
namespace {

constexpr std::size_t kMostCode = 8U << 20U;  // a larger source belongs into an archive

std::string_view default_image(std::string_view kind) {
  const std::string_view canonical = canonical_kind(kind);
  if (canonical == "job" || canonical == "mpijob" || canonical == "serving" ||
      canonical == "nuclio") {
    return "mlrun/mlrun";
  }
  return canonical == "dask" ? "mlrun/ml-base" : "";
}

void append_new(JsonArray& list, const std::string& item) {
  for (const Json& old : list) {
    if (old.is_string() && std::string_view(old.get_string()) == item) { return; }
  }
  list.emplace_back(item);
}

std::string without_comment(std::string_view line) {
  line = trim(line);
  if (line.starts_with('#')) { return {}; }
  return std::string(trim(line.substr(0, line.find(" #"))));
}

Result<void> check_source(std::string_view source) {
  const std::string_view name =
      source.substr(source.rfind('/') == std::string_view::npos ? 0 : source.rfind('/') + 1);
  if (source == "." || source == "./" || source.starts_with("git://") ||
      name.find('.') != std::string_view::npos) {
    return {};
  }
  return fail(invalid("spec.build.source",
                      quote(source) + " is neither a git:// URL nor an archive",
                      "write git://host/path#branch, a .zip or .tar.gz, or \".\""));
}

}  // namespace

Result<void> with_code(Function& function, const std::optional<std::filesystem::path>& file,
                       std::optional<std::string_view> body, bool with_doc) {
  if (file.has_value() == body.has_value()) {
    return fail(
        invalid("with_code",
                std::string("must specify from_file or body, got ") + (file ? "both" : "neither"),
                "give exactly one of both"));
  }
  std::string code;
  if (file) {
    METIER_TRY(text, read_file(*file, kMostCode));
    code = std::move(text);
  } else {
    code = *body;
  }
  if (code.size() > kMostCode) {
    return fail(Error{.kind = ErrorKind::too_large,
                      .message = "the code is larger than 8 MiB",
                      .field = "spec.build.functionSourceCode",
                      .fix = "put it into an archive and use with_source_archive"});
  }
  JsonObject& build = ensure_object(function.spec(), "build");
  build["functionSourceCode"] = base64_encode(code);
  if (file) { build["origin_filename"] = file->filename().string(); }
  if (with_doc && (!file || file->extension() == ".py")) {
    if (JsonObject found = find_entry_points(code); !found.empty()) {
      function.spec()["entry_points"] = std::move(found);
    }
  }
  return {};
}

Result<void> with_requirements(Function& function, const std::vector<std::string>& requirements,
                               const std::optional<std::filesystem::path>& file, bool overwrite) {
  std::vector<std::string> lines;
  if (file) {
    auto text = read_file(*file, 1U << 20U);
    if (!text) { return fail(std::move(text.error()).at("requirements_file")); }
    lines = split_text(*text, '\n');
  }
  lines.insert(lines.end(), requirements.begin(), requirements.end());
  JsonArray& list = ensure_array(ensure_object(function.spec(), "build"), "requirements");
  if (overwrite) { list.clear(); }
  for (const std::string& line : lines) {
    if (const std::string requirement = without_comment(line); !requirement.empty()) {
      append_new(list, requirement);
    }
  }
  return {};
}

Result<void> with_commands(Function& function, const Json& commands, bool overwrite) {
  if (!commands.is_array()) {
    return fail(invalid("spec.build.commands",
                        "expected a list of text, got a " + std::string(type_name(commands)),
                        "write [\"apt-get install …\"]"));
  }
  for (std::size_t i = 0; i < commands.get_array().size(); ++i) {
    if (!commands.get_array()[i].is_string()) {
      return fail(
          invalid("spec.build.commands[" + std::to_string(i) + "]",
                  "expected text, got a " + std::string(type_name(commands.get_array()[i]))));
    }
  }
  JsonArray& list = ensure_array(ensure_object(function.spec(), "build"), "commands");
  if (overwrite) { list.clear(); }
  for (const Json& command : commands.get_array()) {
    append_new(list, std::string(command.get_string()));
  }
  return {};
}

Result<void> with_source_archive(Function& function, std::string_view source,
                                 std::string_view workdir, std::string_view handler,
                                 bool pull_at_runtime, std::string_view target_dir) {
  METIER_CHECK(check_source(source));
  const bool local = is_local_kind(function.kind());
  const bool relative =
      !source.contains("://") && !source.starts_with('/') && source != "." && source != "./";
  if (!pull_at_runtime && !local && relative) {
    return fail(invalid("spec.build.source",
                        quote(source) + " is a relative path, which a build cannot reach",
                        "give an absolute path in the image or a URL"));
  }
  JsonObject& build = ensure_object(function.spec(), "build");
  build["source"] = source;
  build["load_source_on_run"] = pull_at_runtime || local;
  if (!target_dir.empty()) { build["source_code_target_dir"] = target_dir; }
  if (!workdir.empty()) { function.spec()["workdir"] = workdir; }
  if (!handler.empty()) {
    function.spec()[is_nuclio_kind(function.kind()) ? "function_handler" : "default_handler"] =
        handler;
  }
  prepare_image_for_deploy(function);
  return {};
}

void load_source_on_run(Function& function) {
  JsonObject* build = object_in(function.spec(), "build");
  if (build == nullptr || string_in(*build, "source").empty() ||
      !string_in(*build, "functionSourceCode").empty()) {
    return;
  }
  (*build)["load_source_on_run"] = true;
}

bool loads_source(const Function& function) {
  const JsonObject* build = object_in(function.spec(), "build");
  return build != nullptr && bool_in(*build, "load_source_on_run") &&
         !function.text("build.source").empty();
}

bool requires_build(const Function& function) {
  const JsonObject* build = object_in(function.spec(), "build");
  if (build == nullptr) { return false; }
  const auto any = [&](std::string_view key) {
    const JsonArray* list = array_in(*build, key);
    return list != nullptr && !list->empty();
  };
  return any("commands") || any("requirements") ||
         (!string_in(*build, "source").empty() && !bool_in(*build, "load_source_on_run"));
}

void prepare_image_for_deploy(Function& function) {
  const std::string stored_kind = function.kind();
  const std::string_view kind = canonical_kind(stored_kind);
  if (is_local_kind(kind) || is_nuclio_kind(kind) || !requires_build(function)) { return; }
  std::string image = function.text("image");
  if (image.empty()) { image = default_image(kind); }
  JsonObject& build = ensure_object(function.spec(), "build");
  if (!image.empty() && string_in(build, "base_image").empty()) {
    build["base_image"] = image;
    function.spec()["image"] = "";
  }
}

}  // namespace metier
