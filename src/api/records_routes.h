// MLRun's routes over the records: projects, functions, runs, artifacts, tags, secrets, background tasks, and
// the answers for what is not there. Submit, logs, abort and our own additions are in other files.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "api/router.h"
#include "base/clock.h"
#include "store/store.h"

namespace metier::api {

struct RecordsApi {
  Store& store;
  const Clock& clock;
  std::string artifact_path;             // template for client-spec
  std::function<std::string()> api_url;  // of this server, for client-spec
  std::function<bool(const std::string& project, const std::string& uid)>
      held;  // the engine decides the state
  std::function<void(const std::string& project, const std::string& uid, const std::string& name,
                     const std::string& state)>
      run_changed;
  std::function<Async<Result<void>>(std::string project, std::string uid)>
      forget_run;  // its resources and logs
  std::function<Async<Result<std::string>>(std::string project, std::string uid, std::string text)>
      abort_run;  // old clients' PATCH
  std::function<void(const std::string& project)> secrets_changed;
  // Of functions that are deployed: the record goes with its pods, and its status is what is observed.
  std::function<Async<Result<void>>(std::string project, std::string name)> remove_function;
  std::function<std::optional<Json>(const std::string& project, const std::string& name,
                                    const std::string& tag)>
      deployed_status;
};

void add_service_routes(Router& router, const RecordsApi& api);  // client-spec, healthz
void add_project_routes(Router& router, const RecordsApi& api);
void add_function_routes(Router& router, const RecordsApi& api);
void add_run_routes(Router& router, const RecordsApi& api);
void add_artifact_routes(Router& router, const RecordsApi& api);
void add_secret_routes(Router& router, const RecordsApi& api);
void add_missing_routes(Router& router);                        // 501 with what is missing
void add_record_routes(Router& router, const RecordsApi& api);  // all of the above

}  // namespace metier::api
