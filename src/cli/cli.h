// The command line: verbs, flags, tables, exit codes (docs: `metier help`). Speaks the REST API and nothing else; starts a
// private server when none is set up.
#pragma once

#include <string>

#include "base/result.h"
#include "cli/server_options.h"

namespace metier::cli {

// What `main` wires in.
struct Program {
  ServerMain server;  // `metier server`
  // What the binary carries, unpacked below a data folder: the folder of it.
  Result<std::string> (*unpack)(const std::string& data) = nullptr;
  std::string version = "0.1.0";
};

// Returns the exit code (docs/reference: `metier help exit-codes`).
int cli_main(int argc, char** argv, const Program& program);

}  // namespace metier::cli
