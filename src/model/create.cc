#include "model/create.h"

#include "base/files.h"
#include "base/text.h"
#include "base/yaml.h"
#include "model/attributes.h"
#include "model/entry_points.h"
#include "model/kinds.h"
#include "model/notebook.h"
#include "model/nuclio/inline.h"
#include "model/nuclio/schema.h"

namespace metier {
namespace {

constexpr std::size_t kMostCode = 8U << 20U;

JsonArray texts(const std::vector<std::string>& words) {
  JsonArray out;
  for (const std::string& word : words) { out.emplace_back(word); }
  return out;
}

void fill_defaults(Function& function, const KindName& kind) {
  for (auto& field : default_spec(kind.kind)) {
    if (!function.spec().contains(field.key())) {
      function.spec()[field.key()] = std::move(field.value());
    }
  }
  if (!kind.function_kind.empty()) { function.spec()["function_kind"] = kind.function_kind; }
}

Result<void> set_handler(Function& function, const std::string& kind, const std::string& handler) {
  if (handler.empty()) { return {}; }
  if (kind == "serving") {
    return fail(
        invalid("handler", "kind 'serving' takes no handler", "use set_topology and add_model"));
  }
  function.spec()[is_nuclio_kind(kind) ? "function_handler" : "default_handler"] = handler;
  return {};
}

Result<void> check_mode(std::string_view mode) {
  if (mode.empty() || mode == "pass") { return {}; }
  return fail(invalid("spec.mode", quote(mode) + " is unknown", "leave it empty or write pass"));
}

struct Source {
  std::string code;
  NotebookCode notebook;
  bool is_notebook = false;
};

Result<Source> read_source(const CodeToFunction& arguments) {
  Source source;
  source.is_notebook = arguments.filename.extension() == ".ipynb";
  METIER_TRY(text, read_file(arguments.filename, source.is_notebook ? 64U << 20U : kMostCode));
  if (source.is_notebook) {
    auto read = read_notebook(text, arguments.name, arguments.ignored_tags);
    if (!read) { return fail(std::move(read.error()).in(arguments.filename.string())); }
    source.notebook = std::move(*read);
    source.code = source.notebook.code;
  } else {
    source.code = std::move(text);
  }
  return source;
}

void apply_notebook(Function& function, const NotebookCode& notebook) {
  JsonObject& build = ensure_object(function.spec(), "build");
  if (!notebook.commands.empty()) { build["commands"] = texts(notebook.commands); }
  for (const auto& [name, value] : notebook.env) {
    static_cast<void>(set_env(function, name, Json(value)));
  }
  for (const auto& entry : notebook.config) {
    const std::string_view key = entry.key();
    if (key == "spec.build.baseImage") {
      build["base_image"] = entry.value();
    } else if (key == "spec.image") {
      function.spec()["image"] = entry.value();
    } else if (is_nuclio_kind(function.kind())) {
      ensure_object(function.spec(), "config")[key] = entry.value();
    }
  }
}

// nuclio names the module after the file: "<stem>-nuclio:handler".
std::string nuclio_handler(const CodeToFunction& arguments, std::string_view function_kind) {
  const std::string stem = arguments.filename.stem().string() + "-nuclio:";
  if (arguments.handler.contains(':')) { return arguments.handler; }
  return stem +
         (arguments.handler.empty() || !function_kind.empty() ? "handler" : arguments.handler);
}

// What the source says of its own function: refused here by name, applied when the function is deployed.
Result<void> check_inline(Function& function, const CodeToFunction& arguments,
                          std::string_view code) {
  auto document = nuclio::inline_document(code);
  if (!document) { return fail(std::move(document.error()).in(arguments.filename.string())); }
  if (!*document) { return {}; }
  if (auto read = nuclio::review_document(**document).verdict(true); !read) {
    return fail(std::move(read.error()).in(arguments.filename.string()));
  }
  const JsonObject* spec = object_in(**document, "spec");
  const std::string handler(spec == nullptr ? std::string_view() : string_in(*spec, "handler"));
  if (arguments.handler.empty() && !handler.empty()) {
    function.spec()["function_handler"] =
        arguments.filename.stem().string() + "-nuclio:" + handler.substr(handler.rfind(':') + 1);
  }
  return {};
}

Result<void> write_code_output(const CodeToFunction& arguments, const std::string& name,
                               const Source& source) {
  if (arguments.code_output.empty()) { return {}; }
  if (!source.is_notebook) {
    return fail(invalid("code_output", "it is only for notebooks", "leave it out"));
  }
  const std::filesystem::path target =
      arguments.code_output == "." ? std::filesystem::path(name + ".py") : arguments.code_output;
  return write_file(target, source.code, 0644);
}

}  // namespace

Result<Function> new_function(const NewFunction& arguments, Random& random) {
  Function function;
  std::string kind = arguments.kind;
  if (!arguments.runtime.is_null()) {
    METIER_TRY(given, Function::from_json(arguments.runtime));
    function = std::move(given);
    kind = kind.empty() ? function.kind() : kind;
  }
  const std::string command =
      arguments.command.empty() ? function.text("command") : arguments.command;
  const bool url = command.starts_with("http://") || command.starts_with("https://");
  if (kind.empty()) {
    kind = url ? "remote" : command.empty() ? "handler" : "local";
  } else if (kind == "handler" && arguments.runtime.is_null() && command.empty() &&
             arguments.handler.empty()) {
    kind = "handler";
  }
  METIER_TRY(resolved, resolve_kind(kind));
  METIER_CHECK(check_mode(arguments.mode));
  if (!arguments.image.empty() && is_local_kind(resolved.kind)) {
    return fail(invalid("image",
                        "kind " + quote(canonical_kind(resolved.kind)) + " runs without an image",
                        "leave it out, or use kind job"));
  }
  function.document()["kind"] = resolved.kind;
  fill_defaults(function, resolved);
  std::string name = arguments.name.empty() ? function.name() : arguments.name;
  if (name.empty()) {
    name = command.empty() || url ? "mlrun-" + random.hex(3)
                                  : std::filesystem::path(command).stem().string();
  }
  function.set_name(name);
  METIER_CHECK(check_name(function.name(), "metadata.name", "function name"));
  if (function.project().empty()) {
    function.set_project(arguments.project.empty() ? "default" : arguments.project);
  }
  METIER_CHECK(check_project_name(function.project()));
  if (!arguments.tag.empty()) {
    METIER_CHECK(check_label_value(arguments.tag, "metadata.tag"));
    function.set_tag(arguments.tag);
  }
  JsonObject& spec = function.spec();
  spec["command"] = command;
  if (!arguments.image.empty()) { spec["image"] = arguments.image; }
  if (!arguments.args.empty()) { spec["args"] = texts(arguments.args); }
  if (!arguments.mode.empty()) { spec["mode"] = arguments.mode; }
  if (!arguments.source.empty()) { ensure_object(spec, "build")["source"] = arguments.source; }
  METIER_CHECK(set_handler(function, resolved.kind, arguments.handler));
  if (kind == "remote" && arguments.kind != "nuclio") {
    spec["function_kind"] = "mlrun";  // MLRun's `remote` is called by runs over HTTP
  }
  if (!arguments.requirements.empty() || arguments.requirements_file) {
    METIER_CHECK(with_requirements(function, arguments.requirements, arguments.requirements_file));
  }
  prepare_image_for_deploy(function);
  return function;
}

Result<Function> code_to_function(const CodeToFunction& arguments) {
  if (arguments.kind.empty()) {
    return fail(invalid("kind", "the kind is missing", "one of " + join(kind_names())));
  }
  METIER_TRY(kind, resolve_kind(arguments.kind));
  if (kind.kind == "handler") {
    return fail(invalid("kind", "a handler function is a callable of this process, not a file",
                        "use kind local or job"));
  }
  if (arguments.filename.empty()) {
    return fail(invalid("filename", "the code file is missing", "give a .py file or a notebook"));
  }
  METIER_TRY(source, read_source(arguments));
  if (!arguments.embed_code && source.is_notebook && arguments.code_output.empty()) {
    return fail(invalid("embed_code", "a notebook cannot be run without embedding its code",
                        "set code_output"));
  }
  Function function;
  function.document()["kind"] = kind.kind;
  fill_defaults(function, kind);
  function.set_name(arguments.name.empty() ? arguments.filename.stem().string() : arguments.name);
  METIER_CHECK(check_name(function.name(), "metadata.name", "function name"));
  function.set_project(arguments.project.empty() ? "default" : arguments.project);
  METIER_CHECK(check_project_name(function.project()));
  METIER_CHECK(check_label_value(arguments.tag, "metadata.tag"));
  function.set_tag(arguments.tag);
  METIER_CHECK(write_code_output(arguments, function.name(), source));

  JsonObject& spec = function.spec();
  JsonObject& build = ensure_object(spec, "build");
  if (arguments.embed_code) {
    build["functionSourceCode"] = base64_encode(source.code);
  } else if (is_nuclio_kind(kind.kind)) {
    spec["source"] = arguments.filename.string();
  } else {
    spec["command"] = arguments.code_output.empty() ? arguments.filename.string()
                                                    : arguments.code_output.string();
  }
  build["origin_filename"] = arguments.filename.string();
  build["code_origin"] = arguments.filename.string();
  if (source.is_notebook) { apply_notebook(function, source.notebook); }
  if (!arguments.image.empty()) { function.spec()["image"] = arguments.image; }
  function.spec()["description"] = arguments.description;
  if (has_pod_spec(kind.kind)) { function.spec()["filename"] = arguments.filename.string(); }
  if (!arguments.categories.empty()) {
    function.metadata()["categories"] = texts(arguments.categories);
  }
  if (!arguments.labels.empty()) { function.metadata()["labels"] = arguments.labels; }
  if (!arguments.requirements.empty() || arguments.requirements_file) {
    METIER_CHECK(with_requirements(function, arguments.requirements, arguments.requirements_file));
  }
  if (is_nuclio_kind(kind.kind)) {
    function.spec()["function_handler"] = nuclio_handler(arguments, kind.function_kind);
    METIER_CHECK(check_inline(function, arguments, source.code));
    function.spec()["default_handler"] =
        kind.function_kind == "mlrun" ? arguments.handler : std::string();
    METIER_CHECK(set_env(function, "MLRUN_HTTPDB__NUCLIO__EXPLICIT_ACK", "enabled"));
    return function;
  }
  prepare_image_for_deploy(function);
  if (arguments.with_doc && (source.is_notebook || arguments.filename.extension() == ".py")) {
    if (JsonObject found = find_entry_points(source.code); !found.empty()) {
      function.spec()["entry_points"] = std::move(found);
    }
  }
  const std::string& handler =
      arguments.handler.empty() ? source.notebook.handler : arguments.handler;
  function.spec()["default_handler"] = handler;
  return function;
}

}  // namespace metier
