// Deployments: MLRun's deploy and its status for nuclio kinds, and what `metier` itself asks.
#include <fmt/format.h>

#include "api/engine_api.h"
#include "api/graph_steps.h"
#include "model/kinds.h"

namespace metier::api {
namespace {

constexpr auto kLongPoll = std::chrono::milliseconds(20'000);

bool has_ended(std::string_view state) {
  return state == "ready" || state == "error" || state == "unhealthy" || state == "scaledToZero";
}

// MLRun's client knows no function at zero as one that is deployed.
std::string state_for_client(const std::string& state) {
  return state == "scaledToZero" ? std::string("ready") : state;
}

DeployRequest request_of(Call& call, Json function) {
  return {.function = std::move(function),
          .caller = call.caller,
          .context = std::string(net::header(call.request.headers, "x-metier-context"))};
}

std::string joined(const Json& status, std::string_view key) {
  std::string out;
  if (const JsonArray* urls = status.is_object() ? array_in(status.get_object(), key) : nullptr) {
    for (const Json& url : *urls) {
      if (!url.is_string()) { continue; }
      if (!out.empty()) { out += ','; }
      out += std::string_view(url.get_string());
    }
  }
  return out;
}

// MLRun's GET …/deploy: text of the deployment's log, everything else in headers.
net::Response status_response(const DeploymentView& view, double last) {
  const double now = static_cast<double>(view.revision);
  std::string text;
  if (now > last) {
    text = "function " + view.name + ": " + view.state;
    if (const auto reason = string_at(view.status, "reason"); !reason.empty()) {
      text += " (" + std::string(reason) + ")";
    }
    if (const auto message = string_at(view.status, "message"); !message.empty()) {
      text += ": " + std::string(message);
    }
    text += "\n";
  }
  net::Response response = ok_text(std::move(text));
  const auto put = [&response](std::string name, std::string value) {
    response.headers.emplace_back(std::move(name), std::move(value));
  };
  put("x-mlrun-function-status", state_for_client(view.state));
  put("x-mlrun-last-timestamp", fmt::format("{:.1f}", now));
  put("x-mlrun-address", std::string(string_at(view.status, "address")));
  put("x-mlrun-internal-invocation-urls", joined(view.status, "internal_invocation_urls"));
  put("x-mlrun-external-invocation-urls", joined(view.status, "external_invocation_urls"));
  put("x-mlrun-container-image", std::string(string_at(view.status, "container_image")));
  put("x-mlrun-name", std::string(string_at(view.status, "nuclio_name", view.name)));
  return response;
}

Async<net::Response> mlrun_deploy(EngineApi& api, Call& call) {
  METIER_API_TRY(body, call.object());
  const Json* function = body.if_contains("function");
  if (function == nullptr || !function->is_object()) {
    co_return submit_error(
        invalid("function", "the deploy names no function", "send {\"function\": {…}}"));
  }
  Json document = *function;
  JsonObject& metadata = ensure_object(document.get_object(), "metadata");
  metadata["project"] = call.at("project");
  if (string_in(metadata, "name").empty()) { metadata["name"] = call.at("name"); }
  auto deployed = co_await api.deployments.deploy(request_of(call, std::move(document)));
  if (!deployed) { co_return submit_error(deployed.error()); }
  co_return ok_json(
      JsonObject{{"data", std::move(*deployed)},
                 {"background_tasks", JsonObject{{"background_tasks", JsonArray{}}}}});
}

Async<net::Response> mlrun_status(EngineApi& api, Call& call) {
  const std::string project = call.at("project");
  const std::string name = call.at("name");
  const std::string tag = call.query("tag");
  double last = 0;
  try {
    last = std::stod(call.query("last_log_timestamp", "0"));
  } catch (const std::exception&) { last = 0; }
  auto view = api.deployments.find(project, name, tag);
  if (!view) {
    METIER_API_TRY(
        row, api.engine.ground().store.records().function(project, normalize_name(name), tag, ""));
    if (row && !is_nuclio_kind(row->kind)) {
      co_return error_response(
          invalid("name", quote(name) + " is of kind " + row->kind + ", not a nuclio function"));
    }
    co_return error_response(Error{
        .kind = ErrorKind::not_found,
        .message = "function " + quote(name) + " is not deployed in project " + quote(project),
        .fix = "deploy it first: metier deploy"});
  }
  // The first ask of a wait is answered at once when there is something to say.
  if (!has_ended(view->state) && static_cast<double>(view->revision) <= last) {
    METIER_API_TRY(later,
                   co_await api.deployments.changed(project, name, tag, view->revision, kLongPoll));
    view = std::move(later);
  }
  co_return status_response(*view, last);
}

Json view_json(const DeploymentView& view) {
  JsonArray parts;
  for (const Part& part : view.parts) {
    parts.push_back(JsonObject{{"role", part.role}, {"index", part.index}, {"pod", part.pod}});
  }
  return JsonObject{{"project", view.project},   {"name", view.name},
                    {"tag", view.tag},           {"kind", view.kind},
                    {"state", view.state},       {"generation", view.generation},
                    {"revision", view.revision}, {"status", view.status},
                    {"function", view.function}, {"parts", std::move(parts)}};
}

std::string project_of(const Call& call) {
  return call.caller.run_project.empty() ? call.query("project", "default")
                                         : call.caller.run_project;
}

Async<net::Response> deploy(EngineApi& api, Call& call) {
  METIER_API_TRY(body, call.object());
  const Json* function = body.if_contains("function");
  if (function == nullptr || !function->is_object()) {
    co_return error_response(
        invalid("function", "the deploy names no function", "send {\"function\": {…}}"));
  }
  METIER_API_TRY(deployed, co_await api.deployments.deploy(request_of(call, *function)));
  co_return ok_json(JsonObject{{"data", std::move(deployed)}});
}

Async<net::Response> render(EngineApi& api, Call& call) {
  METIER_API_TRY(body, call.object());
  const Json* function = body.if_contains("function");
  METIER_API_TRY(resources, api.deployments.render(request_of(
                                call, function == nullptr ? Json(JsonObject{}) : *function)));
  JsonArray out;
  for (const Resource& resource : resources) { out.push_back(to_json(resource)); }
  co_return ok_json(JsonObject{{"items", std::move(out)}});
}

Async<net::Response> list(EngineApi& api, Call& call) {
  JsonArray out;
  for (const DeploymentView& view : api.deployments.list(project_of(call))) {
    out.push_back(view_json(view));
  }
  co_return ok_json(JsonObject{{"deployments", std::move(out)}});
}

Async<JsonArray> steps_of(EngineApi& api, const DeploymentView& view) {
  std::vector<std::string> texts;
  for (const ResourceStatus& pod :
       api.deployments.resources_of(view.project, view.name, view.tag)) {
    const std::string address(string_at(pod.status, "podIP"));
    if (pod.key.kind != "Pod" || address.empty()) { continue; }
    auto text = co_await api.processor_metrics(address);
    if (text) { texts.push_back(std::move(*text)); }
  }
  co_return graph_steps(texts);
}

// ?revision=R waits up to 20 s for a status after that revision. ?steps=yes: with what the steps of its graph have cost.
Async<net::Response> one(EngineApi& api, Call& call) {
  METIER_API_TRY(revision, call.number("revision", 0, 0, INT64_MAX));
  METIER_API_TRY(
      view, co_await api.deployments.changed(project_of(call), call.at("name"), call.query("tag"),
                                             static_cast<std::uint64_t>(revision), kLongPoll));
  METIER_API_TRY(steps, call.flag("steps", false));
  Json answer = view_json(view);
  if (steps && api.processor_metrics) {
    answer.as_object()["steps"] = co_await steps_of(api, view);
  }
  co_return ok_json(std::move(answer));
}

Async<net::Response> log(EngineApi& api, Call& call) {
  METIER_API_TRY(offset, call.number("offset", 0, 0, INT64_MAX));
  METIER_API_TRY(size, call.number("size", -1, -1, INT64_MAX));
  METIER_API_TRY(wait, call.flag("wait", false));
  METIER_API_TRY(slice, co_await api.deployments.log(
                            project_of(call), call.at("name"), call.query("tag"), call.query("pod"),
                            static_cast<std::uint64_t>(offset), size, wait));
  net::Response response = ok_text(std::move(slice.bytes));
  response.headers.emplace_back("x-metier-function-state", slice.state);
  response.headers.emplace_back("x-metier-log-size", std::to_string(slice.size));
  co_return response;
}

Async<net::Response> log_times(EngineApi& api, Call& call) {
  METIER_API_TRY(marks, co_await api.deployments.log_times(project_of(call), call.at("name"),
                                                           call.query("tag"), call.query("pod")));
  METIER_API_TRY(body, log_times_body(call, marks));
  co_return ok_json(std::move(body));
}

Async<net::Response> remove(EngineApi& api, Call& call) {
  const std::string project = project_of(call);
  if (!api.deployments.find(project, call.at("name"), call.query("tag"))) {
    METIER_API_TRY(row, api.engine.ground().store.records().function(
                            project, normalize_name(call.at("name")), "", ""));
    if (!row) {
      co_return error_response(Error{
          .kind = ErrorKind::not_found,
          .message = "no function " + quote(call.at("name")) + " in project " + quote(project),
          .fix = "see: metier get functions -P " + project});
    }
  }
  METIER_API_CHECK(co_await api.deployments.remove(project, call.at("name")));
  co_return ok_text("", 204);
}

}  // namespace

void add_deployment_routes(Router& router, EngineApi& api) {
  const auto bind = [&api](Async<net::Response> (*handler)(EngineApi&, Call&)) {
    return [&api, handler](Call& call) { return handler(api, call); };
  };
  router.add(Api::v1, "POST", "/projects/{project}/nuclio/{name}/deploy",
             "deploy a nuclio or serving function", bind(mlrun_deploy));
  router.add(Api::v1, "GET", "/projects/{project}/nuclio/{name}/deploy",
             "state of a deployed function, long poll", bind(mlrun_status));
  router.add(Api::metier, "POST", "/deployments", "deploy a function", bind(deploy));
  router.add(Api::metier, "POST", "/deployments/render", "the objects that a deploy would make",
             bind(render));
  router.add(Api::metier, "GET", "/deployments", "deployed functions of a project", bind(list));
  router.add(Api::metier, "GET", "/deployments/{name}", "a deployed function, long poll",
             bind(one));
  router.add(Api::metier, "GET", "/deployments/{name}/log", "bytes of a processor's log",
             bind(log));
  router.add(Api::metier, "GET", "/deployments/{name}/log-times",
             "when the bytes of a processor's log were written", bind(log_times));
  router.add(Api::metier, "DELETE", "/deployments/{name}", "delete a function and its pods",
             bind(remove));
}

}  // namespace metier::api
