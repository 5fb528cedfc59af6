#include <fmt/format.h>

#include <algorithm>

#include "api/records_routes.h"
#include "engine/records/records.h"

namespace metier::api {
namespace {

std::string secret_of(const std::string& project) { return "mlrun-project-secrets-" + project; }

Result<void> check_key(std::string_view key) {
  const bool fine =
      !key.empty() && key.size() <= 253 && std::ranges::all_of(key, [](unsigned char c) {
        return std::isalnum(c) != 0 || c == '-' || c == '_' || c == '.';
      });
  if (!fine) {
    return fail(invalid("secrets", quote(key) + " is not a secret's key",
                        "at most 253 letters, digits, '-', '_', '.'"));
  }
  if (key.starts_with("mlrun.")) {
    return fail(Error{.kind = ErrorKind::denied,
                      .message = quote(key) + " begins with 'mlrun.', which is reserved",
                      .field = "secrets",
                      .fix = "choose another key"});
  }
  return {};
}

Result<void> check_provider(const std::string& provider) {
  if (provider.empty() || provider == "kubernetes") { return {}; }
  return fail(invalid("provider", quote(provider) + " is not one of this server's", "kubernetes"));
}

}  // namespace

void add_secret_routes(Router& router, const RecordsApi& api) {
  router.add(
      Api::v1, "POST", "/projects/{project}/secrets", "set project secrets",
      [api](Call& call) -> Async<net::Response> {
        METIER_API_TRY(body, call.object());
        METIER_API_CHECK(check_provider(std::string(string_in(body, "provider"))));
        const auto* secrets = object_in(body, "secrets");
        if (secrets == nullptr) {
          co_return error_response(
              invalid("secrets", "is missing", "{\"secrets\": {\"KEY\": \"value\"}}"));
        }
        const auto project = call.at("project");
        METIER_API_CHECK(co_await api.store.write_any([&](Records& tx) -> Result<void> {
          METIER_CHECK(records::require_project(tx, project));
          for (const auto& [key, value] : *secrets) {
            METIER_CHECK(check_key(key));
            const auto* text = value.if_string();
            if (text == nullptr) {
              return fail(
                  invalid("secrets", fmt::format("the value of {} is not text", quote(key))));
            }
            if (text->size() > (1U << 20U)) {
              return fail(Error{.kind = ErrorKind::too_large,
                                .message = fmt::format("the value of {} is over 1 MiB", quote(key)),
                                .field = "secrets"});
            }
            METIER_CHECK(
                tx.put_secret(project, secret_of(project), std::string(key), std::string(*text)));
          }
          return {};
        }));
        if (api.secrets_changed) { api.secrets_changed(project); }
        co_return ok_text("", 201);
      });

  router.add(Api::v1, "DELETE", "/projects/{project}/secrets", "delete project secrets",
             [api](Call& call) -> Async<net::Response> {
               METIER_API_CHECK(check_provider(call.query("provider")));
               const auto project = call.at("project");
               auto keys = call.query_all("secret");
               METIER_API_CHECK(co_await api.store.write_any([&](Records& tx) -> Result<void> {
                 METIER_CHECK(records::require_project(tx, project));
                 if (keys.empty()) {
                   METIER_TRY(all, tx.secret_keys(project, secret_of(project)));
                   keys = std::move(all);
                   std::erase_if(keys,
                                 [](const std::string& key) { return key.starts_with("mlrun."); });
                 }
                 for (const auto& key : keys) {
                   METIER_CHECK(tx.delete_secret(project, secret_of(project), key));
                 }
                 return {};
               }));
               if (api.secrets_changed) { api.secrets_changed(project); }
               co_return ok_text("", 204);
             });

  router.add(
      Api::v1, "GET", "/projects/{project}/secret-keys", "keys of project secrets",
      [api](Call& call) -> Async<net::Response> {
        METIER_API_CHECK(check_provider(call.query("provider")));
        METIER_API_CHECK(records::require_project(api.store.records(), call.at("project")));
        METIER_API_TRY(keys, api.store.records().secret_keys(call.at("project"),
                                                             secret_of(call.at("project"))));
        JsonArray out;
        for (const auto& key : keys) {
          if (!key.starts_with("mlrun.")) { out.emplace_back(key); }
        }
        co_return ok_json(JsonObject{{"provider", "kubernetes"}, {"secret_keys", std::move(out)}});
      });

  router.add(Api::v1, "GET", "/projects/{project}/secrets", "values are never given out",
             [](Call&) -> Async<net::Response> {
               co_return error_response(
                   Error{.kind = ErrorKind::denied,
                         .message = "values of secrets are never given out",
                         .fix = "a run of the project sees them (context.get_secret)"});
             });
  router.add(Api::v1, "POST", "/user-secrets", "not here", [](Call&) -> Async<net::Response> {
    co_return error_response(
        invalid("provider", "secrets of users are not kept here", "set project secrets"));
  });
}

void add_missing_routes(Router& router) {
  struct Missing {
    std::string_view pattern;
    std::string_view what;
  };
  static constexpr Missing kMissing[] = {
      {"/projects/{project}/schedules", "schedules are not built yet"},
      {"/projects/{project}/schedules/{rest*}", "schedules are not built yet"},
      {"/hub/{rest*}", "the function hub is not built yet; import functions from files or URLs"},
      {"/projects/{project}/alerts", "alerts are not built yet"},
      {"/projects/{project}/alerts/{rest*}", "alerts are not built yet"},
      {"/alert-templates", "alerts are not built yet"},
      {"/projects/{project}/alert-activations", "alerts are not built yet"},
      {"/projects/{project}/events/{rest*}", "alerts are not built yet"},
      {"/projects/{project}/pipelines",
       "pipelines need Kubeflow Pipelines, which is not built yet; run workflows with the local "
       "engine"},
      {"/projects/{project}/pipelines/{rest*}",
       "pipelines need Kubeflow Pipelines, which is not built yet; run workflows with the local "
       "engine"},
      {"/pipelines",
       "pipelines need Kubeflow Pipelines, which is not built yet; run workflows with the local "
       "engine"},
      {"/pipelines/{rest*}",
       "pipelines need Kubeflow Pipelines, which is not built yet; run workflows with the local "
       "engine"},
      {"/projects/{project}/workflows/{rest*}",
       "remote workflows are not built yet; run them with the local engine"},
      {"/projects/{project}/api-gateways",
       "API gateways are not served: a function answers at its own address (fn.get_url(), metier "
       "describe NAME)"},
      {"/projects/{project}/api-gateways/{rest*}",
       "API gateways are not served: a function answers at its own address (fn.get_url(), metier "
       "describe NAME)"},
      {"/projects/{project}/feature-sets", "the feature store is not built yet"},
      {"/projects/{project}/feature-vectors", "the feature store is not built yet"},
      {"/projects/{project}/datastore-profiles", "datastore profiles are not built yet"},
      {"/projects/{project}/feature-sets/{rest*}", "the feature store is not built yet"},
      {"/projects/{project}/feature-vectors/{rest*}", "the feature store is not built yet"},
      {"/projects/{project}/model-endpoints", "model endpoints are not built yet"},
      {"/projects/{project}/model-endpoints/{rest*}", "model endpoints are not built yet"},
      {"/projects/{project}/model-monitoring/{rest*}", "model monitoring is not built yet"},
      {"/projects/{project}/datastore-profiles/{rest*}", "datastore profiles are not built yet"},
      {"/projects/{project}/runs/{uid}/notifications", "notifications of runs are not built yet"},
      {"/projects/{project}/load",
       "loading a project on the server is not built yet; load it in the client"},
  };
  for (const auto& missing : kMissing) {
    for (const auto* method : {"GET", "POST", "PUT", "PATCH", "DELETE"}) {
      router.add(
          Api::v1, method, std::string(missing.pattern), std::string(missing.what),
          [what = missing.what](Call&) -> Async<net::Response> {
            co_return error_response(Error{
                .kind = ErrorKind::unsupported, .message = std::string(what), .code = "NotBuilt"});
          });
    }
  }
}

}  // namespace metier::api
