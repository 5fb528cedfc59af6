#include "api/paging.h"
#include "engine/records/records.h"

namespace metier::api {
namespace {

// A list keeps its texts short when asked to.
void minimal(JsonObject& function) {
  if (auto* spec = object_in(function, "spec")) {
    JsonObject kept;
    for (const auto* key : {"description", "image", "default_handler", "default_class", "graph",
                            "preemption_mode", "node_selector", "priority_class_name"}) {
      if (const auto* value = spec->if_contains(key)) { kept[key] = *value; }
    }
    *spec = std::move(kept);
  }
}

}  // namespace

void add_function_routes(Router& router, const RecordsApi& api) {
  router.add(Api::v1, "POST", "/projects/{project}/functions/{name}", "store a function",
             [api](Call& call) -> Async<net::Response> {
               METIER_API_TRY(body, call.object());
               METIER_API_TRY(versioned, call.flag("versioned", false));
               const auto now = api.clock.now();
               if (api.deployed_status) {
                 // A client saves its own copy after a deploy: what is observed is newer.
                 std::string tag = call.query("tag");
                 if (tag.empty()) { tag = string_at(Json(body), "metadata.tag"); }
                 if (auto status = api.deployed_status(call.at("project"), call.at("name"), tag)) {
                   body["status"] = std::move(*status);
                 }
               }
               METIER_API_TRY(hash, co_await api.store.write([&](Records& tx) {
                 return records::store_function(tx, call.at("project"), call.at("name"),
                                                call.query("tag"), versioned, Json(body), now);
               }));
               co_return ok_json(JsonObject{{"hash_key", hash}});
             });

  router.add(Api::v1, "GET", "/projects/{project}/functions/{name}", "one function",
             [api](Call& call) -> Async<net::Response> {
               METIER_API_TRY(
                   function,
                   records::read_function(api.store.records(), call.at("project"), call.at("name"),
                                          call.query("tag"), call.query("hash_key")));
               co_return ok_json(JsonObject{{"func", std::move(function)}});
             });

  router.add(Api::v1, "GET", "/projects/{project}/functions", "functions",
             [api](Call& call) -> Async<net::Response> {
               METIER_API_TRY(page, page_of(call, api));
               Call asked{page.request, call.path, call.caller, call.request_id};
               FunctionFilter filter{.name = asked.query("name"),
                                     .tag = asked.query("tag"),
                                     .hash = asked.query("hash_key"),
                                     .kind = asked.query("kind")};
               if (call.at("project") != "*") { filter.project = call.at("project"); }
               filter.labels = asked.query_all("label");
               filter.states = asked.query_all("state");
               METIER_API_TRY(since, asked.time("since"));
               METIER_API_TRY(until, asked.time("until"));
               filter.since = since;
               filter.until = until;
               filter.offset = page.offset();
               filter.limit = page.limit();
               METIER_API_TRY(rows, api.store.records().functions(filter));
               JsonArray items;
               for (const auto& row : rows) {
                 auto function = records::function_of_row(row);
                 if (row.tag.empty()) { function.as_object()["status"] = nullptr; }
                 if (asked.query("format") == "minimal") { minimal(function.as_object()); }
                 items.push_back(std::move(function));
               }
               JsonObject answer;
               METIER_API_CHECK(
                   co_await finish_page(api, std::move(page), std::move(items), "funcs", answer));
               co_return ok_json(Json(std::move(answer)));
             });

  for (const Api version : {Api::v1, Api::v2}) {
    router.add(
        version, "DELETE", "/projects/{project}/functions/{name}", "delete a function",
        [api](Call& call) -> Async<net::Response> {
          if (api.remove_function) {
            METIER_API_CHECK(co_await api.remove_function(call.at("project"), call.at("name")));
          } else {
            METIER_API_CHECK(co_await api.store.write_any([&](Records& tx) {
              return tx.delete_function(call.at("project"), call.at("name"));
            }));
          }
          co_return ok_text("", 204);
        });
  }
}

}  // namespace metier::api
