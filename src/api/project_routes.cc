#include <fmt/format.h>

#include "api/records_routes.h"
#include "engine/records/records.h"

namespace metier::api {
namespace {

Json task_document(const std::string& name, std::string_view kind, Time now) {
  return JsonObject{{"kind", "BackgroundTask"},
                    {"metadata",
                     {{"name", name},
                      {"kind", kind},
                      {"project", nullptr},
                      {"created", to_iso(now)},
                      {"updated", to_iso(now)},
                      {"timeout", 600}}},
                    {"spec", JsonObject{}},
                    {"status", {{"state", "succeeded"}, {"error", nullptr}}}};
}

net::Response runs_may_not(std::string_view what) {
  return error_response(Error{.kind = ErrorKind::denied,
                              .message = fmt::format("a run may not {}", what),
                              .fix = "do it with the server's token"});
}

// A run's token shows its own project only.
bool hidden(const Call& call, const std::string& project) {
  return !call.caller.run_project.empty() && call.caller.run_project != project;
}

// Deletes a project; `async` answers with a background task, as v2 does.
Async<net::Response> delete_project(RecordsApi api, Call& call, bool with_task) {
  if (!call.caller.run_project.empty()) { co_return runs_may_not("delete its project"); }
  const auto name = call.at("project");
  const std::string strategy(net::header(call.request.headers, "x-mlrun-deletion-strategy"));
  const auto& records = api.store.records();
  METIER_API_TRY(body, records.project(name));
  if (!body) { co_return ok_text("", 204); }
  if (name == "default") {
    co_return error_response(Error{.kind = ErrorKind::precondition,
                                   .message = "project 'default' is always there",
                                   .fix = "delete what is in it"});
  }
  METIER_API_TRY(empty, records.project_is_empty(name));
  const bool cascade = strategy.starts_with("cascad");
  if (!empty && !cascade) {
    co_return error_response(
        Error{.kind = ErrorKind::precondition,
              .message = fmt::format("project {} is not empty", quote(name)),
              .fix = "send x-mlrun-deletion-strategy: cascade to delete what is in it"});
  }
  if (strategy == "check") { co_return ok_text("", 204); }
  METIER_API_TRY(runs, records.runs({.project = name}));
  for (const auto& run : runs) {
    if (run.iteration == 0 &&
        (run.state == "running" || run.state == "pending" || run.state == "aborting")) {
      co_return error_response(Error{
          .kind = ErrorKind::precondition,
          .message = fmt::format("run {} ({}) of project {} is {}", quote(run.name),
                                 run.uid.substr(0, 8), quote(name), run.state),
          .fix = fmt::format("abort it first: metier abort {} -P {}", run.uid.substr(0, 8), name)});
    }
  }
  for (const auto& run : runs) {
    if (run.iteration == 0) { METIER_API_CHECK(co_await api.forget_run(name, run.uid)); }
  }
  const auto task = system_random().hex(16);
  const auto document = dump_json(task_document(task, "project.deletion." + name, api.clock.now()));
  METIER_API_CHECK(co_await api.store.write_any([&](Records& tx) -> Result<void> {
    METIER_CHECK(tx.delete_project(name));
    return with_task ? tx.put_background_task(task, "", document) : Result<void>{};
  }));
  if (!with_task) { co_return ok_text("", 204); }
  co_return net::json_response(202, document);
}

}  // namespace

void add_project_routes(Router& router, const RecordsApi& api) {
  router.add(Api::v1, "GET", "/projects", "projects", [api](Call& call) -> Async<net::Response> {
    const auto format = call.query("format", "full");
    const auto owner = call.query("owner");
    METIER_API_TRY(rows, api.store.records().projects());
    JsonArray out;
    for (auto& [name, body] : rows) {
      if (hidden(call, name)) { continue; }
      if (format == "name_only" && owner.empty()) {
        out.emplace_back(name);
        continue;
      }
      METIER_API_TRY(document, parse_json(body));
      if (!owner.empty() && string_at(document, "spec.owner") != owner) { continue; }
      if (format == "name_only") {
        out.emplace_back(name);
      } else {
        out.push_back(std::move(document));
      }
    }
    co_return ok_json(JsonObject{{"projects", std::move(out)}});
  });

  router.add(Api::v1, "POST", "/projects", "create a project",
             [api](Call& call) -> Async<net::Response> {
               if (!call.caller.run_project.empty()) { co_return runs_may_not("create projects"); }
               METIER_API_TRY(body, call.object());
               const auto now = api.clock.now();
               METIER_API_TRY(made, co_await api.store.write([&](Records& tx) {
                 return records::create_project(tx, body, now);
               }));
               co_return ok_json(made, 201);
             });

  router.add(Api::v1, "GET", "/projects/{project}", "one project",
             [api](Call& call) -> Async<net::Response> {
               METIER_API_TRY(project,
                              records::read_project(api.store.records(), call.at("project")));
               co_return ok_json(project);
             });

  router.add(Api::v1, "PUT", "/projects/{project}", "create or replace a project",
             [api](Call& call) -> Async<net::Response> {
               METIER_API_TRY(body, call.object());
               const auto now = api.clock.now();
               METIER_API_TRY(made, co_await api.store.write([&](Records& tx) {
                 return records::put_project(tx, call.at("project"), body, now);
               }));
               co_return ok_json(made);
             });

  router.add(Api::v1, "PATCH", "/projects/{project}", "change a project",
             [api](Call& call) -> Async<net::Response> {
               METIER_API_TRY(body, call.object());
               const bool additive =
                   net::header(call.request.headers, "x-mlrun-patch-mode") == "additive";
               const auto now = api.clock.now();
               METIER_API_TRY(made, co_await api.store.write([&](Records& tx) {
                 return records::patch_project(tx, call.at("project"), body, additive, now);
               }));
               co_return ok_json(made);
             });

  router.add(Api::v1, "DELETE", "/projects/{project}", "delete a project",
             [api](Call& call) { return delete_project(api, call, false); });
  router.add(Api::v2, "DELETE", "/projects/{project}", "delete a project, as a background task",
             [api](Call& call) { return delete_project(api, call, true); });

  const auto summary = [api](const std::string& name, const Records& records) -> Result<Json> {
    JsonObject out{{"name", name}};
    for (const auto& [key, state] : {std::pair{"runs_running_count", "running"},
                                     std::pair{"runs_failed_recent_count", "error"},
                                     std::pair{"runs_completed_recent_count", "completed"}}) {
      RunFilter filter{.project = name, .states = {state}, .only_parents = true};
      // "Recent" is the last day, as on MLRun's server.
      if (std::string_view(key).find("recent") != std::string_view::npos) {
        filter.start_from = api.clock.now() - std::chrono::hours(24);
      }
      METIER_TRY(count, records.count_runs(filter));
      out[key] = count;
    }
    return Json(std::move(out));
  };
  router.add(Api::v1, "GET", "/project-summaries", "counts of all projects",
             [api, summary](Call& call) -> Async<net::Response> {
               METIER_API_TRY(rows, api.store.records().projects());
               JsonArray out;
               for (const auto& [name, body] : rows) {
                 if (hidden(call, name)) { continue; }
                 METIER_API_TRY(one, summary(name, api.store.records()));
                 out.push_back(std::move(one));
               }
               co_return ok_json(JsonObject{{"project_summaries", std::move(out)}});
             });
  router.add(Api::v1, "GET", "/project-summaries/{project}", "counts of one project",
             [api, summary](Call& call) -> Async<net::Response> {
               METIER_API_CHECK(records::require_project(api.store.records(), call.at("project")));
               METIER_API_TRY(one, summary(call.at("project"), api.store.records()));
               co_return ok_json(one);
             });
}

}  // namespace metier::api
