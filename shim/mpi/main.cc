// metier-mpi: what runs in the pods of an MPI job (shim/README.md).
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <string>
#include <vector>

#include "mpi/launch.h"
#include "mpi/rank.h"
#include "mpi/stacks.h"

namespace {

// A worker pod waits for ranks until it is told to leave.
int wait_main() {
  sigset_t ends;
  sigemptyset(&ends);
  sigaddset(&ends, SIGTERM);
  sigaddset(&ends, SIGINT);
  ::sigprocmask(SIG_BLOCK, &ends, nullptr);
  int got = 0;
  ::sigwait(&ends, &got);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> words(argv + (argc > 1 ? 2 : 1), argv + argc);
  const std::string verb = argc > 1 ? argv[1] : "";
  if (verb == "launch") { return metier::mpi::launch_main(words); }
  if (verb == "rank") { return metier::mpi::rank_main(words); }
  if (verb == "wait") { return wait_main(); }
  if (verb == "stacks") { return metier::mpi::stacks_main(); }
  std::fputs("usage: metier-mpi launch|rank|wait|stacks …, in the pods of an MPI job\n", stderr);
  return 2;
}
