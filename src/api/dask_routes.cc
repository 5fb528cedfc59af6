// Clusters of kind dask, as MLRun's client asks for them (fn.client).
#include "api/engine_api.h"
#include "engine/dask_clusters.h"

namespace metier::api {
namespace {

// A run's token reaches its own project.
bool outside(const Call& call, std::string_view project) {
  return !call.caller.run_project.empty() && project != call.caller.run_project;
}

Async<net::Response> start(DaskClusters& clusters, Call& call) {
  METIER_API_TRY(body, call.object());
  std::string url;
  for (const char* key : {"functionUrl", "function_url"}) {
    if (const auto given = string_in(body, key); !given.empty()) { url = given; }
  }
  if (url.empty()) {
    co_return error_response(invalid("functionUrl", "the request names no function",
                                     "send {\"functionUrl\": \"PROJECT/NAME\"}"));
  }
  const std::size_t scheme = url.find("://");
  const std::string path = scheme == std::string::npos ? url : url.substr(scheme + 3);
  if (outside(call, path.substr(0, path.find('/')))) {
    co_return error_response(Error{.kind = ErrorKind::denied,
                                   .message = "a run reaches its own project only",
                                   .field = "functionUrl"});
  }
  METIER_API_TRY(task, co_await clusters.start(path, call.caller));
  co_return ok_json(task);
}

Async<net::Response> status(DaskClusters& clusters, Call& call) {
  METIER_API_TRY(body, call.object());
  std::string project(string_in(body, "project"));
  std::string name(string_in(body, "name"));
  std::string tag;
  if (const JsonArray* selector = array_in(body, "selector")) {
    for (const Json& one : *selector) {
      const std::string text(one.is_string() ? std::string_view(one.get_string()) : "");
      const std::size_t equals = text.find('=');
      if (equals == std::string::npos) { continue; }
      const std::string key = text.substr(0, equals);
      if (key == "mlrun/project" && project.empty()) { project = text.substr(equals + 1); }
      if (key == "mlrun/function") { name = text.substr(equals + 1); }
      if (key == "mlrun/tag") { tag = text.substr(equals + 1); }
    }
  }
  if (project.empty()) { project = "default"; }
  if (name.empty()) { co_return error_response(invalid("name", "the request names no function")); }
  if (outside(call, project)) {
    co_return error_response(Error{.kind = ErrorKind::denied,
                                   .message = "a run reaches its own project only",
                                   .field = "project"});
  }
  METIER_API_TRY(phase, co_await clusters.status(project, name, tag));
  co_return ok_json(JsonObject{{"data", phase.empty() ? Json(nullptr) : Json(phase)}});
}

// ?address=tls://127.64.0.1:8786: whose scheduler that is decides.
Async<net::Response> identity(DaskClusters& clusters, IdentityOf identity_of, Call& call) {
  const std::string address(call.request.query_value("address"));
  METIER_API_TRY(found, co_await clusters.at(address));
  if (!found || outside(call, found->first)) {
    co_return error_response(
        Error{.kind = ErrorKind::not_found,
              .message = "no Dask cluster of this server is at " + quote(address),
              .field = "address"});
  }
  METIER_API_TRY(made, identity_of(found->first, found->second));
  co_return ok_json(JsonObject{{"certificate", made.certificate}, {"key", made.key}});
}

}  // namespace

void add_dask_routes(Router& router, DaskClusters& clusters, IdentityOf identity_of) {
  router.add(Api::v1, "POST", "/start/function", "start the cluster of a function of kind dask",
             [&clusters](Call& call) { return start(clusters, call); });
  router.add(Api::v1, "POST", "/status/function", "state of the cluster of a function of kind dask",
             [&clusters](Call& call) { return status(clusters, call); });
  router.add(
      Api::metier, "GET", "/dask-identity",
      "certificate and key of the Dask cluster at an address, for its clients",
      [&clusters, identity_of](Call& call) { return identity(clusters, identity_of, call); });
}

}  // namespace metier::api
