#include <algorithm>

#include "api/records_routes.h"
#include "base/text.h"
#include "model/attributes.h"

namespace metier::api {
namespace {

// A version at least as high as the client's, so that it does not warn.
std::string spec_version(const std::string& client) {
  const bool parses = !client.empty() && client.size() < 40 && client.front() >= '0' &&
                      client.front() <= '9' && client.find('.') != std::string::npos;
  return parses ? client : "1.12.1";
}

}  // namespace

void add_service_routes(Router& router, const RecordsApi& api) {
  // Keys and their effects in the client: mlrun-rest-api reference 1.5.
  router.add(
      Api::v1, "GET", "/client-spec", "what a client configures itself with",
      [api](Call& call) -> Async<net::Response> {
        JsonObject spec{
            {"version", spec_version(call.caller.client_version)},
            {"namespace", "default"},
            {"kfp_url", "http://pipelines.invalid"},
            {"nuclio_version", "1.15.10"},
            {"mpijob_crd_version", "v1"},
            {"artifact_path", api.artifact_path},
            {"api_url", api.api_url ? api.api_url() : std::string()},
            {"docker_registry", "registry.invalid"},
            {"auto_mount_type", "none"},
            {"valid_function_priority_class_names", join(default_priority_classes(), ",")},
            {"force_run_local", nullptr},
            {"function", nullptr},
            {"packagers", nullptr},
            {"authentication_mode", nullptr},
            {"ce", {{"mode", "lite"}, {"release", ""}}},
        };
        // Intervals of 0: this server answers logs and deploys by long polls.
        spec["logs"] = JsonObject{
            {"decode", {{"errors", "replace"}}},
            {"pipelines",
             {{"pull_state",
               {{"mode", "disabled"}, {"pull_logs_interval", 30}, {"pull_state_interval", 5}}}}},
            {"nuclio", {{"pull_deploy_status_default_interval", 0}}},
            {"pull_logs_default_interval", 0},
            {"pull_logs_backoff_no_logs_default_interval", 0},
            {"pull_logs_default_size_limit", 1 << 20}};
        co_return ok_json(Json(std::move(spec)));
      });
  // Who has a token may do what its scope allows; a run's was held against the project by then.
  router.add(Api::v1, "POST", "/authorization/verifications", "whether the caller may do something",
             [](Call& call) -> Async<net::Response> {
               METIER_API_TRY(body, call.object());
               const auto resource = string_in(body, "resource");
               if (resource.empty()) {
                 co_return error_response(
                     invalid("resource", "is missing",
                             "{\"resource\": \"/projects/NAME\", \"action\": \"read\"}"));
               }
               const auto& own = call.caller.run_project;
               const auto inside = "/projects/" + own;
               if (!own.empty() && resource != inside && !resource.starts_with(inside + "/")) {
                 co_return error_response(Error{.kind = ErrorKind::denied,
                                                .message = "a run reaches its own project only",
                                                .field = "resource"});
               }
               co_return net::json_response(200, "{}");
             });
  const auto healthz = [](Call&) -> Async<net::Response> {
    co_return ok_json(JsonObject{{"version", version()}, {"status", "ok"}});
  };
  for (const auto version_of : {Api::v1, Api::v2, Api::root}) {
    router.add(version_of, "GET", "/healthz", "alive", healthz);
  }
}

void add_record_routes(Router& router, const RecordsApi& api) {
  add_service_routes(router, api);
  add_project_routes(router, api);
  add_function_routes(router, api);
  add_run_routes(router, api);
  add_artifact_routes(router, api);
  add_secret_routes(router, api);
  add_missing_routes(router);
}

}  // namespace metier::api
