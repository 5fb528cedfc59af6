// The program: command line and server in one binary.
#include <string_view>

#include "cli/cli.h"
#include "gate/gate.h"
#include "main/server.h"

int main(int argc, char** argv) {
  // The gate is started by servers: `metier gate --data FOLDER`.
  if (argc == 4 && std::string_view(argv[1]) == "gate" && std::string_view(argv[2]) == "--data") {
    return metier::gate_main(argv[3]);
  }
  metier::cli::Program program;
  program.server = metier::serve;
  return metier::cli::cli_main(argc, argv, program);
}
