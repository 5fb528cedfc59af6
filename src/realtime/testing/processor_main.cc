// The processor alone, without the rest of the program: for tests and benchmarks. `metier_processor --config FILE`.
#include <cstdio>
#include <string_view>

#include "realtime/processor.h"

int main(int argc, char** argv) {
  if (argc != 3 || std::string_view(argv[1]) != "--config") {
    std::fputs("usage: metier_processor --config FILE\n", stderr);
    return 2;
  }
  return metier::realtime::processor_main(argv[2], {});
}
