// dask: a cluster per function (DaskCluster of metier.dev/v1, cluster/controllers/dask), found again by its name,
// and a Pod per run in which the handler runs beside it.
#pragma once

#include "kind/kind.h"

namespace metier {
std::unique_ptr<Kind> make_dask_kind();
}  // namespace metier
