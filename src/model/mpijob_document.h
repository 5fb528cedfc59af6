// An MPIJob document (v1 or v2beta1) as a function of kind mpijob: `metier run -f mpijob.yaml`.
#pragma once

#include <string>
#include <vector>

#include "model/function.h"

namespace metier {

// By its kind alone: functions have no such kind, whatever the apiVersion.
bool is_mpijob(const Json& document);

// The launcher's `mpirun OPTIONS PROGRAM…` becomes mpi_args, command and args in mode pass. What the two pod templates say
// becomes one: variables, volumes and mounts are joined; of the rest the Worker's is taken, else the Launcher's.
// `warnings` (may be null) gets a sentence for each field that has no effect, with its path.
// Errors: invalid, all at once, with the path, for what would change the program and a function cannot say: suspend,
//         initContainers, a second container, privileged, another program than mpirun, two values of one variable.
Result<Function> function_from_mpijob(const Json& document,
                                      std::vector<std::string>* warnings = nullptr);

}  // namespace metier
