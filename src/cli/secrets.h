// What secrets a project has. Values never come back.
#pragma once

#include <map>

#include "cli/verbs.h"

namespace metier::cli {

// Names of project secrets (`secret set NAME`).
Result<std::vector<std::string>> project_secrets(Command& command);
// Secrets with keys (`secret set NAME:KEY`, `apply`): secret → its keys.
Result<std::map<std::string, std::vector<std::string>>> secret_keys(Command& command);

}  // namespace metier::cli
