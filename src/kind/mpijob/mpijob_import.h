// An MPIJob document (v1 or v2beta1) as a function of kind mpijob: `metier run -f mpijob.yaml`.
#pragma once

#include "model/function.h"

namespace metier {

bool is_mpijob(const Json& document);

// The launcher's `mpirun OPTIONS PROGRAM…` becomes mpi_args, command and args in mode pass; the worker's template gives image,
// variables, resources and volumes. Errors: invalid with the field, for what a function cannot say.
Result<Function> function_from_mpijob(const Json& document);

}  // namespace metier
