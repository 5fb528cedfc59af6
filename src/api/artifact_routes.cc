#include <fmt/format.h>

#include "api/paging.h"
#include "engine/records/records.h"

namespace metier::api {
namespace {

Result<records::ArtifactQuery> query_of(const Call& call) {
  records::ArtifactQuery query{.project = call.at("project"),
                               .key = call.at("key"),
                               .tag = call.query("tag"),
                               .tree = call.query("tree"),
                               .object_uid = call.query("object-uid")};
  if (!call.query("iter").empty()) {
    METIER_TRY(iteration, call.number("iter", 0, 0, 10'000'000));
    query.iteration = iteration;
  }
  return query;
}

struct Identifier {
  std::string key;
  std::string uid;
  std::string tree;
  std::optional<std::int64_t> iteration;
};

Result<std::vector<Identifier>> identifiers_of(const JsonObject& body) {
  if (string_in(body, "kind", "artifact") != "artifact") {
    return fail(invalid("kind", "only artifacts are tagged this way", "artifact"));
  }
  const auto* list = array_in(body, "identifiers");
  if (list == nullptr) {
    return fail(invalid("identifiers", "is missing", "a list of {\"key\": …}"));
  }
  std::vector<Identifier> out;
  for (const auto& item : *list) {
    const auto* object = item.if_object();
    if (object == nullptr || string_in(*object, "key").empty()) {
      return fail(invalid("identifiers", "an entry has no key"));
    }
    out.push_back({std::string(string_in(*object, "key")), std::string(string_in(*object, "uid")),
                   std::string(string_in(*object, "producer_id")), int_in(*object, "iter")});
  }
  return out;
}

// Every artifact that an identifier means: by db_key, or by the key that users know.
Result<std::vector<ArtifactRow>> meant(const Records& records, const std::string& project,
                                       const Identifier& id) {
  METIER_TRY(rows,
             records.artifacts(
                 {.project = project, .tree = id.tree, .key = id.key, .iteration = id.iteration}));
  if (rows.empty()) {
    METIER_TRY(
        named,
        records.artifacts(
            {.project = project, .name = id.key, .tree = id.tree, .iteration = id.iteration}));
    rows = std::move(named);
  }
  if (!id.uid.empty()) {
    std::erase_if(rows, [&](const ArtifactRow& row) { return row.uid != id.uid; });
  }
  return rows;
}

enum class TagMode { replace, append, remove };

Async<net::Response> change_tags(RecordsApi api, Call& call, TagMode mode) {
  METIER_API_TRY(body, call.object());
  METIER_API_TRY(identifiers, identifiers_of(body));
  const auto project = call.at("project");
  const auto tag = call.at("tag");
  METIER_API_CHECK(co_await api.store.write_any([&](Records& tx) -> Result<void> {
    METIER_CHECK(records::require_project(tx, project));
    if (mode == TagMode::replace) {
      METIER_TRY(tagged, tx.artifacts({.project = project, .tag = tag}));
      for (const auto& row : tagged) { METIER_CHECK(tx.untag_artifact(row, tag)); }
    }
    for (const auto& id : identifiers) {
      METIER_TRY(rows, meant(tx, project, id));
      if (rows.empty()) {
        return fail(ErrorKind::not_found, fmt::format("artifact {} does not exist in project {}",
                                                      quote(id.key), quote(project)));
      }
      // One tag names one producer's artifact: the newest that is meant.
      for (const auto& row : rows) {
        METIER_CHECK(mode == TagMode::remove ? tx.untag_artifact(row, tag)
                                             : tx.tag_artifact(row, tag));
        if (mode != TagMode::remove) { break; }
      }
    }
    return {};
  }));
  if (mode == TagMode::remove) { co_return ok_text("", 204); }
  co_return ok_json(JsonObject{{"name", tag}, {"project", project}});
}

Async<net::Response> put_artifact(RecordsApi api, Call& call) {
  METIER_API_TRY(body, call.object());
  METIER_API_TRY(query, query_of(call));
  const auto now = api.clock.now();
  records::ArtifactWrite target{query.project, query.key,       query.tag,
                                query.tree,    query.iteration, query.object_uid};
  METIER_API_TRY(stored, co_await api.store.write([&](Records& tx) {
    return records::store_artifact(tx, target, std::move(body), now);
  }));
  co_return ok_json(stored);
}

}  // namespace

void add_artifact_routes(Router& router, const RecordsApi& api) {
  router.add(Api::v2, "PUT", "/projects/{project}/artifacts/{key*}", "store an artifact",
             [api](Call& call) { return put_artifact(api, call); });

  router.add(Api::v2, "POST", "/projects/{project}/artifacts", "create an artifact",
             [api](Call& call) -> Async<net::Response> {
               METIER_API_TRY(body, call.object());
               const auto* metadata = object_in(body, "metadata");
               const auto* spec = object_in(body, "spec");
               std::string key(metadata == nullptr ? "" : string_in(*metadata, "key"));
               if (spec != nullptr) { key = string_in(*spec, "db_key", key); }
               records::ArtifactWrite target{
                   .project = call.at("project"),
                   .key = key,
                   .tag = std::string(metadata == nullptr ? "" : string_in(*metadata, "tag")),
                   .must_be_new = true};
               const auto now = api.clock.now();
               METIER_API_TRY(stored, co_await api.store.write([&](Records& tx) {
                 return records::store_artifact(tx, target, std::move(body), now);
               }));
               co_return ok_json(stored, 201);
             });

  router.add(Api::v2, "GET", "/projects/{project}/artifacts/{key*}", "one artifact",
             [api](Call& call) -> Async<net::Response> {
               METIER_API_TRY(query, query_of(call));
               METIER_API_TRY(artifact, records::read_artifact(api.store.records(), query));
               co_return ok_json(artifact);
             });

  router.add(Api::v2, "GET", "/projects/{project}/artifacts", "artifacts",
             [api](Call& call) -> Async<net::Response> {
               METIER_API_TRY(page, page_of(call, api));
               Call asked{page.request, call.path, call.caller, call.request_id};
               ArtifactFilter filter{.name = asked.query("name"),
                                     .tag = asked.query("tag"),
                                     .kind = asked.query("kind"),
                                     .category = asked.query("category"),
                                     .tree = asked.query("tree"),
                                     .producer_uri = asked.query("producer_uri"),
                                     .parent = asked.query("parent")};
               if (call.at("project") != "*") { filter.project = call.at("project"); }
               filter.labels = asked.query_all("label");
               METIER_API_TRY(best, asked.flag("best-iteration", false));
               filter.best_iteration = best;
               if (!asked.query("iter").empty()) {
                 METIER_API_TRY(iteration, asked.number("iter", 0, 0, 10'000'000));
                 filter.iteration = iteration;
               }
               if (best && filter.iteration && *filter.iteration != 0) {
                 co_return error_response(invalid("best-iteration", "cannot be combined with iter",
                                                  "ask for one of them"));
               }
               if (best) { filter.iteration.reset(); }
               METIER_API_TRY(since, asked.time("since"));
               METIER_API_TRY(until, asked.time("until"));
               METIER_API_TRY(limit, asked.number("limit", -1, 1, 1'000'000));
               filter.since = since;
               filter.until = until;
               filter.offset = page.offset();
               filter.limit = page.number > 0 ? page.limit() : limit;
               METIER_API_TRY(rows, api.store.records().artifacts(filter));
               JsonArray items;
               for (const auto& row : rows) { items.push_back(records::artifact_of_row(row)); }
               JsonObject answer;
               METIER_API_CHECK(co_await finish_page(api, std::move(page), std::move(items),
                                                     "artifacts", answer));
               co_return ok_json(Json(std::move(answer)));
             });

  const auto remove = [api](Call& call) -> Async<net::Response> {
    METIER_API_TRY(query, query_of(call));
    METIER_API_TRY(rows, records::find_artifacts(api.store.records(), query));
    METIER_API_CHECK(co_await api.store.write_any([&](Records& tx) -> Result<void> {
      for (const auto& row : rows) { METIER_CHECK(tx.delete_artifact(row)); }
      return {};
    }));
    co_return ok_text("", 204);
  };
  router.add(Api::v2, "DELETE", "/projects/{project}/artifacts/{key*}",
             "delete an artifact's record", remove);

  router.add(Api::v2, "DELETE", "/projects/{project}/artifacts", "delete artifacts' records",
             [api](Call& call) -> Async<net::Response> {
               ArtifactFilter filter{.project = call.at("project"),
                                     .name = call.query("name"),
                                     .tag = call.query("tag"),
                                     .tree = call.query("tree")};
               filter.labels = call.query_all("label");
               METIER_API_TRY(days, call.number("days_ago", 0, 0, 36'500));
               if (days > 0) { filter.until = api.clock.now() - std::chrono::days(days); }
               METIER_API_CHECK(co_await api.store.write_any([&](Records& tx) -> Result<void> {
                 METIER_TRY(rows, tx.artifacts(filter));
                 for (const auto& row : rows) { METIER_CHECK(tx.delete_artifact(row)); }
                 return {};
               }));
               co_return ok_text("", 204);
             });

  router.add(
      Api::v1, "GET", "/projects/{project}/artifact-tags", "tags in use",
      [api](Call& call) -> Async<net::Response> {
        METIER_API_TRY(
            tags, api.store.records().artifact_tags(call.at("project"), call.query("category")));
        JsonArray out;
        for (const auto& tag : tags) { out.emplace_back(tag); }
        co_return ok_json(JsonObject{{"project", call.at("project")}, {"tags", std::move(out)}});
      });

  router.add(Api::v1, "POST", "/projects/{project}/tags/{tag}", "a tag names exactly these",
             [api](Call& call) { return change_tags(api, call, TagMode::replace); });
  router.add(Api::v1, "PUT", "/projects/{project}/tags/{tag}", "a tag names these too",
             [api](Call& call) { return change_tags(api, call, TagMode::append); });
  router.add(Api::v1, "DELETE", "/projects/{project}/tags/{tag}", "a tag does not name these",
             [api](Call& call) { return change_tags(api, call, TagMode::remove); });
}

}  // namespace metier::api
