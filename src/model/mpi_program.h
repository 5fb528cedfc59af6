// How the program of a rank is started. Plain C++ without other parts of metier: the launcher program (shim/mpi) is built
// from it too.
#pragma once

#include <string>
#include <vector>

namespace metier::mpi {

// The command of a rank, with metier_runner.rank put between the interpreter and what it runs. An exception in one rank
// must end that rank: Python's own way out waits in MPI_Finalize for the others, for ever. Knows the real `mlrun`, the
// interpreter with its options, and a file with a '/' whose first line names the interpreter. Everything else is started
// as it is: other programs, shells, `python -m mpi4py`, which does the same, and interpreters that do not find our
// packages (-I, -E) or read no file. `python` is what runs `mlrun`.
std::vector<std::string> guarded(std::vector<std::string> command, const std::string& python);

}  // namespace metier::mpi
