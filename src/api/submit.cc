// Submit and what follows from it: abort, background tasks, build, runtime resources.
#include <fmt/format.h>

#include "api/engine_api.h"

namespace metier::api {

net::Response submit_error(const Error& error) {
  net::Response response = error_response(error);
  if (response.status >= 400 && response.status != 401) { response.status = 400; }
  return response;
}

namespace {

Result<SubmitRequest> request_of(Call& call) {
  METIER_TRY(body, call.object());
  SubmitRequest request;
  if (const Json* task = body.if_contains("task")) { request.task = *task; }
  if (const Json* function = body.if_contains("function")) {
    // {function, task}: a function's address in place of its document is accepted too.
    if (function->is_string()) {
      request.function_url = function->get_string();
    } else {
      request.function = *function;
    }
  }
  for (const char* key : {"functionUrl", "function_url"}) {
    if (const auto url = string_in(body, key); !url.empty()) { request.function_url = url; }
  }
  if (const Json* schedule = body.if_contains("schedule")) { request.schedule = *schedule; }
  request.caller = call.caller;
  request.context = net::header(call.request.headers, "x-metier-context");
  if (!call.caller.run_project.empty() && request.task.is_object() &&
      string_at(request.task, "metadata.project", "default") != call.caller.run_project) {
    return fail(Error{.kind = ErrorKind::not_found,
                      .message = "no project " + quote(string_at(request.task, "metadata.project")),
                      .fix = "a run reaches its own project only"});
  }
  return request;
}

Async<net::Response> submit(EngineApi& api, Call& call) {
  auto request = request_of(call);
  if (!request) { co_return submit_error(request.error()); }
  const bool is_sdk = !request->caller.client_version.empty();
  auto run = co_await api.engine.submit(std::move(*request));
  // To any status but 400 MLRun's SDK looks the run up, and its 404 hides the reason.
  if (!run && !is_sdk && run.error().code == "NotBuilt") { co_return error_response(run.error()); }
  if (!run) { co_return submit_error(run.error()); }
  co_return ok_json(JsonObject{{"data", std::move(*run)}});
}

Async<net::Response> abort(EngineApi& api, Call& call) {
  METIER_API_TRY(body, call.json());
  std::string text;
  if (body.is_object()) { text = string_in(body.get_object(), "status.status_text"); }
  METIER_API_TRY(task, co_await api.engine.abort(call.at("project"), call.at("uid"), text));
  METIER_API_TRY(document, api.engine.tasks().get(task));
  co_return ok_json(document.value_or(Json(JsonObject{})), 202);
}

Async<net::Response> get_task(EngineApi& api, Call& call) {
  METIER_API_TRY(document, api.engine.tasks().get(call.at("name")));
  const std::string project = call.path.contains("project") ? call.at("project") : std::string();
  if (!document || (!project.empty() && string_at(*document, "metadata.project") != project)) {
    co_return error_response(Error{.kind = ErrorKind::not_found,
                                   .message = "no background task " + quote(call.at("name"))});
  }
  co_return ok_json(*document);
}

Async<net::Response> list_tasks(EngineApi& api, Call& call) {
  METIER_API_TRY(tasks, api.engine.tasks().list(call.path.contains("project") ? call.at("project")
                                                                              : std::string()));
  const std::string state = call.query("state");
  JsonArray out;
  for (Json& task : tasks) {
    if (state.empty() || string_at(task, "status.state") == state) {
      out.push_back(std::move(task));
    }
  }
  co_return ok_json(JsonObject{{"background_tasks", std::move(out)}});
}

// A run that has ended has its notifications sent. Runs with notifications are refused at submit, those of a client's own
// cannot be sent: what is left has nothing to send, and the task that MLRun makes of it has succeeded at once.
Async<net::Response> push_notifications(EngineApi& api, Call& call) {
  const std::string project = call.at("project");
  METIER_API_TRY(row, api.engine.ground().store.records().run(project, call.at("uid"), 0));
  if (!row) {
    co_return error_response(
        Error{.kind = ErrorKind::not_found, .message = "no run " + quote(call.at("uid"))});
  }
  METIER_API_TRY(document, parse_json(row->body));
  const Json* notifications = find_path(document, "spec.notifications");
  if (notifications != nullptr && notifications->is_array() &&
      !notifications->get_array().empty()) {
    co_return error_response(Error{.kind = ErrorKind::unsupported,
                                   .message = "notifications are not sent by this server yet",
                                   .field = "spec.notifications",
                                   .fix = "send them from the client",
                                   .code = "NotBuilt"});
  }
  const auto task = api.engine.tasks().begin(project, "run.push_notifications");
  METIER_API_CHECK(co_await api.engine.ground().store.write(
      [&](Records& tx) { return BackgroundTasks::store(tx, task, project); }));
  METIER_API_CHECK(co_await api.engine.tasks().end(task.name, project, ""));
  METIER_API_TRY(shown, api.engine.tasks().get(task.name));
  co_return ok_json(shown.value_or(Json(JsonObject{})), 202);
}

Result<ResourceQuery> resource_query(const Call& call) {
  ResourceQuery query;
  query.project = call.at("project");
  query.kind = call.query("kind");
  query.object_id = call.query("object-id");
  query.label_selector = call.query("label-selector");
  query.group_by = call.query("group-by");
  METIER_TRY(force, call.flag("force", false));
  query.force = force;
  METIER_TRY(grace, call.number("grace-period", query.grace_s, 0, 1'000'000'000));
  query.grace_s = grace;
  return query;
}

Async<net::Response> list_resources(EngineApi& api, Call& call) {
  METIER_API_TRY(query, resource_query(call));
  METIER_API_TRY(found, co_await api.resources.list(std::move(query)));
  co_return ok_json(found);
}

Async<net::Response> delete_resources(EngineApi& api, Call& call) {
  METIER_API_TRY(query, resource_query(call));
  METIER_API_TRY(removed, co_await api.resources.remove(std::move(query)));
  co_return ok_json(removed);
}

Async<net::Response> build_function(EngineApi& api, Call& call) {
  METIER_API_TRY(body, call.object());
  const Json* function = body.if_contains("function");
  if (function == nullptr || !function->is_object()) {
    co_return error_response(
        invalid("function", "the build names no function", "send {\"function\": {…}}"));
  }
  METIER_API_TRY(answer, co_await api.builds.begin(*function, bool_in(body, "skip_deployed"),
                                                   bool_in(body, "force_build")));
  co_return ok_json(answer);
}

Async<net::Response> build_status(EngineApi& api, Call& call) {
  METIER_API_TRY(offset, call.number("offset", 0, 0, INT64_MAX));
  METIER_API_TRY(logs, call.flag("logs", true));
  METIER_API_TRY(status,
                 api.builds.status(call.query("project", "default"), call.query("name"),
                                   call.query("tag"), static_cast<std::size_t>(offset), logs));
  net::Response response = ok_text(std::move(status.log));
  response.headers.emplace_back("x-mlrun-function-status", status.state);
  response.headers.emplace_back("function_status", status.state);
  response.headers.emplace_back("function_image", status.image);
  response.headers.emplace_back("builder_pod", "");
  response.headers.emplace_back("deploy_status_text_kind", "logs");
  co_return response;
}

}  // namespace

void add_submit_routes(Router& router, EngineApi& api) {
  const auto bind = [&api](Async<net::Response> (*handler)(EngineApi&, Call&)) {
    return [&api, handler](Call& call) { return handler(api, call); };
  };
  for (const char* path : {"/submit_job", "/submit"}) {
    router.add(Api::v1, "POST", path, "submit a run", bind(submit));
  }
  router.add(Api::v1, "POST", "/projects/{project}/runs/{uid}/abort", "abort a run", bind(abort));
  router.add(Api::v1, "POST", "/projects/{project}/runs/{uid}/push-notifications",
             "send a run's notifications", bind(push_notifications));
  router.add(Api::v1, "GET", "/projects/{project}/background-tasks/{name}", "a background task",
             bind(get_task));
  router.add(Api::v1, "GET", "/projects/{project}/background-tasks",
             "background tasks of a project", bind(list_tasks));
  router.add(Api::v1, "GET", "/background-tasks/{name}", "a background task", bind(get_task));
  router.add(Api::v1, "GET", "/background-tasks", "background tasks", bind(list_tasks));
  router.add(Api::v1, "GET", "/projects/{project}/runtime-resources",
             "pods and custom resources of runs", bind(list_resources));
  router.add(Api::v1, "DELETE", "/projects/{project}/runtime-resources", "remove resources of runs",
             bind(delete_resources));
  router.add(Api::v1, "POST", "/build/function", "build a function's environment",
             bind(build_function));
  router.add(Api::v1, "GET", "/build/status", "state and log of a build", bind(build_status));
}

}  // namespace metier::api
