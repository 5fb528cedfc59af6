// `launch`: the launcher pod's program. Finds the MPI, starts its mpirun with ranks in the worker pods, joins their
// logs on stdout, and ends as the first rank that failed.
#pragma once

#include <string>
#include <vector>

namespace metier::mpi {

// launch --hosts POD,POD… --slots N [--stay] -- mpirun OPTIONS PROGRAM…
// `--stay` leaves the worker pods running at the end (cleanPodPolicy None).
// 2: wrong options; 5: no usable MPI, or a worker pod that does not come up.
int launch_main(const std::vector<std::string>& words);

}  // namespace metier::mpi
