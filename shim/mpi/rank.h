// `rank`: stands for one rank under mpirun. The rank itself is forked by the shim of its pod.
#pragma once

#include <string>
#include <vector>

namespace metier::mpi {

// rank POD -- COMMAND…      rank --spread -- COMMAND… (the pod by rank number: METIER_MPI_HOSTS, METIER_MPI_SLOTS)
// Ends as the rank ends, by the same signal too. 127: it could not be started, said on stderr.
int rank_main(const std::vector<std::string>& words);

// Connects to the gang socket of a pod; -1 with errno.
int connect_pod(const std::string& gang, const std::string& pod);

// Where supervisor and ranks meet, in the gang's own `tmp`.
inline constexpr const char* kBaseEnvironment = "/tmp/environment";
inline constexpr const char* kEnds = "/tmp/ends";  // a line per ended rank: number pod code signal

}  // namespace metier::mpi
