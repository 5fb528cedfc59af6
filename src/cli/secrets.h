// What secrets a project has. Values never come back.
#pragma once

#include <map>

#include "cli/verbs.h"

namespace metier::cli {

// A value that is not seen on the screen, in the history or in the list of processes: --from-file, standard input, or
// asked for on the terminal. Errors: invalid when it is empty, too_large.
Result<std::string> secret_value(Command& command, const std::string& name);
// Names of project secrets (`secret set NAME`).
Result<std::vector<std::string>> project_secrets(Command& command);
// Secrets with keys (`secret set NAME:KEY`, `apply`): secret → its keys.
Result<std::map<std::string, std::vector<std::string>>> secret_keys(Command& command);

}  // namespace metier::cli
