#include "kind/builtin.h"

#include "kind/dask/dask_kind.h"
#include "kind/handler/handler_kind.h"
#include "kind/job/job_kind.h"
#include "kind/local/local_kind.h"
#include "kind/mpijob/mpijob_kind.h"
#include "kind/nuclio/nuclio_kind.h"
#include "kind/remote_spark/remote_spark_kind.h"
#include "kind/serving/serving_kind.h"
#include "kind/spark/spark_kind.h"
#include "model/kinds.h"

namespace metier {

KindRegistry builtin_kinds(FunctionCheck check) {
  std::vector<std::unique_ptr<Kind>> all;
  all.push_back(make_handler_kind());
  all.push_back(make_local_kind());
  all.push_back(make_job_kind());
  all.push_back(make_dask_kind());
  all.push_back(make_mpijob_kind());
  all.push_back(make_spark_kind());
  all.push_back(make_remote_spark_kind());
  all.push_back(make_nuclio_kind(check));
  all.push_back(make_serving_kind(std::move(check)));
  KindRegistry kinds;
  for (const std::string_view name : kind_names()) {
    for (auto& kind : all) {
      if (kind != nullptr && kind->traits().name == name) { kinds.add(std::move(kind)); }
    }
  }
  return kinds;
}

}  // namespace metier
