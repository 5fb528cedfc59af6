// `stacks`: where each rank of this pod is, a line per rank. Runs in the pod, asked by `metier why`.
#pragma once

namespace metier::mpi {

int stacks_main();

}  // namespace metier::mpi
