// `metier_graph_processor --config FILE`: the processor with its graph hosts alone, for tests that need not build the whole program.
#include <cstdio>
#include <string_view>

#include "realtime/processor.h"
#include "serving/host/graph_host.h"

int main(int argc, char** argv) {
  if (argc != 3 || std::string_view(argv[1]) != "--config") {
    std::fputs("usage: metier_graph_processor --config FILE\n", stderr);
    return 2;
  }
  metier::realtime::ProcessorProgram program;
  program.hosts = {{"graph", metier::serving::make_graph_host},
                   {"python", metier::serving::make_segment_host}};
  return metier::realtime::processor_main(argv[2], program);
}
