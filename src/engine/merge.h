// Merging of a submit: overrides on a stored function, defaults of project and site (function-kinds reference
// 3.3 and 1.12), and what is filled into the run. Pure.
#pragma once

#include <string>

#include "model/function.h"
#include "model/run.h"

namespace metier {

// model/merge.h's rules, and annotations.
Result<void> overlay_function(Function& function, const JsonObject& override_document);

struct SubmitDefaults {
  std::string output_path;  // template of the site
  Json project;             // the project's document, may be null
  std::string default_image;
  Json default_resources;  // may be null
};
// Fills what the run leaves open: name, labels, output path (with its templates), thresholds of the function.
void fill_run(Run& run, const Function& function, const SubmitDefaults& defaults,
              std::string_view user);
void fill_function(Function& function, const SubmitDefaults& defaults);

// {{run.uid}}, {{project}}, {{run.project}}, {{run.user}}; unknown ones stay.
std::string expand_path(std::string_view text, std::string_view project, std::string_view uid,
                        std::string_view user);

}  // namespace metier
