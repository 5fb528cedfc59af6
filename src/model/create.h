// Making functions: from arguments, from code, from a file; and writing them to a file.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "base/digest.h"
#include "model/function.h"

namespace metier {

struct NewFunction {
  std::string name;     // default: the command's base name, else mlrun-<6 hex>
  std::string project;  // default: "default"
  std::string tag;
  std::string
      kind;  // "" with a command: local; "" without: handler; a command that is a URL: remote
  std::string command;
  std::string image;
  std::vector<std::string> args;
  Json runtime;      // a function document to start from, may be null
  std::string mode;  // "" or "pass"
  std::string handler;
  std::string source;
  std::vector<std::string> requirements;
  std::optional<std::filesystem::path> requirements_file;
};
// Errors: invalid (unknown kind with the nearest, name, image of a local kind, handler of serving, mode).
Result<Function> new_function(const NewFunction& arguments, Random& random);

struct CodeToFunction {
  std::string name;  // default for a notebook or file: its stem
  std::string project;
  std::string tag;
  std::filesystem::path filename;  // .py, .ipynb, else taken as it is
  std::string handler;
  std::string kind;  // required
  std::string image;
  std::filesystem::path
      code_output;         // notebooks: also write the Python text there ("." = <name>.py)
  bool embed_code = true;  // false: the file is named as command, not embedded
  std::string description;
  std::vector<std::string> requirements;
  std::optional<std::filesystem::path> requirements_file;
  std::vector<std::string> categories;
  JsonObject labels;
  bool with_doc = true;
  std::vector<std::string> ignored_tags;
};
// Errors: not_found (the file), invalid (kind, name, notebook), too_large.
Result<Function> code_to_function(const CodeToFunction& arguments);

// From function.yaml, function.json or a .py file (kind job). A relative code file beside the yaml
// (build.code_origin or command without code) is read in. Nuclio's function.yaml and an MPIJob document are read too;
// `warnings` (may be null) hears of fields that have no effect. Errors name the file.
Result<Function> import_function(const std::filesystem::path& file, std::string_view project = {},
                                 std::string_view new_name = {},
                                 std::vector<std::string>* warnings = nullptr);
// The text of such a file, without looking at other files.
Result<Function> parse_function(std::string_view text,
                                std::string_view format);  // "yaml" or "json"

enum class Strip { yes, no };
// YAML, or JSON when `format` is ".json". Errors: invalid for a handler function, which exists only in its process.
Result<std::string> export_text(const Function& function, std::string_view format = ".yaml",
                                Strip strip = Strip::yes);
Result<void> export_function(const Function& function, const std::filesystem::path& target,
                             std::string_view format = ".yaml", Strip strip = Strip::yes);

// What is wrong with a function before it is stored or run: name, project, tag, mode, env, labels, thresholds, quantities,
// replicas. Unknown fields are not errors; they are named in `warnings` (may be null) with the nearest known one.
Result<void> validate_function(const Function& function,
                               std::vector<std::string>* warnings = nullptr);

}  // namespace metier
