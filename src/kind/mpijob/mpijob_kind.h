// mpijob: MPI ranks over several pods (function-kinds reference 2.4). Lowers to MLRun's MPIJob (kubeflow.org/v1), or to
// v2beta1 for the newer operator (Site::mpi_api).
#pragma once

#include <memory>

#include "kind/kind.h"

namespace metier {

// Annotations of a v1 MPIJob for what only v2beta1 has fields for.
inline constexpr std::string_view kLauncherAsWorker = "metier.dev/run-launcher-as-worker";
inline constexpr std::string_view kLauncherCreation = "metier.dev/launcher-creation-policy";
inline constexpr std::string_view kImplementation = "metier.dev/mpi-implementation";

std::unique_ptr<Kind> make_mpijob_kind();

}  // namespace metier
