// The Python code of a notebook, by the tags of MLRun and nuclio.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/json.h"

namespace metier {

struct NotebookCode {
  std::string code;
  std::vector<std::string> commands;                     // %nuclio cmd
  std::vector<std::pair<std::string, std::string>> env;  // %nuclio env A=1
  JsonObject config;    // %nuclio config spec.build.baseImage = "x": dotted key → value
  std::string handler;  // %nuclio handler NAME
};

// Keeps code cells between "# mlrun: start-code [name]" and "end-code [name]" (all cells without such marks); leaves
// out cells with "# mlrun: ignore" (or nuclio:) or a tag of `ignored_tags`; drops shell and magic lines.
// Errors: invalid (no notebook, two start-code in a row, unknown %nuclio command).
Result<NotebookCode> read_notebook(std::string_view text, std::string_view function_name = {},
                                   const std::vector<std::string>& ignored_tags = {});

}  // namespace metier
