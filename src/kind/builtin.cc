#include "kind/builtin.h"

#include "kind/dask/dask_kind.h"
#include "kind/handler/handler_kind.h"
#include "kind/job/job_kind.h"
#include "kind/local/local_kind.h"
#include "kind/nuclio/nuclio_kind.h"
#include "kind/unavailable/unavailable_kind.h"

namespace metier {

KindRegistry builtin_kinds() {
  KindRegistry kinds;
  kinds.add(make_handler_kind());
  kinds.add(make_local_kind());
  kinds.add(make_job_kind());
  kinds.add(make_dask_kind());
  kinds.add(make_nuclio_kind());
  for (auto& kind : make_unavailable_kinds()) { kinds.add(std::move(kind)); }
  return kinds;
}

}  // namespace metier
