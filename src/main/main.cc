// The program: command line and server in one binary.
#include <string>
#include <string_view>
#include <vector>

#include "cli/cli.h"
#include "gate/gate.h"
#include "main/bundle.h"
#include "main/server.h"
#include "mpi/rank.h"
#include "realtime/processor.h"
#include "serving/host/graph_host.h"

int main(int argc, char** argv) {
  // The gate is started by servers: `metier gate --data FOLDER`.
  if (argc == 4 && std::string_view(argv[1]) == "gate" && std::string_view(argv[2]) == "--data") {
    return metier::gate_main(argv[3]);
  }
  // The processor of a real-time function, in its Pod: `metier processor --config FILE`.
  if (argc == 4 && std::string_view(argv[1]) == "processor" &&
      std::string_view(argv[2]) == "--config") {
    metier::realtime::ProcessorProgram program;
    program.hosts = {{"graph", metier::serving::make_graph_host},
                     {"python", metier::serving::make_segment_host}};
    program.lib = []() -> metier::Result<std::string> {
      METIER_TRY(folder, metier::cache_folder());
      return metier::unpack_bundle(folder, metier::bundle());
    };
    return metier::realtime::processor_main(argv[3], program);
  }
  // A rank of an MPI job, started in the shim of pod POD: `metier rank POD -- COMMAND`.
  if (argc > 2 && std::string_view(argv[1]) == "rank") {
    return metier::mpi::rank_main(std::vector<std::string>(argv + 2, argv + argc));
  }
  metier::cli::Program program;
  program.server = metier::serve;
  program.unpack = [](const std::string& data) {
    return metier::unpack_bundle(data, metier::bundle());
  };
  return metier::cli::cli_main(argc, argv, program);
}
