// What MLRun's API has not: why, timeline, lease, events, kinds, render, admit, pods, environments, objects, local
// runs, health and metrics.
#include <fmt/format.h>
#include <unistd.h>

#include "api/engine_api.h"
#include "resource/labels.h"

namespace metier::api {
namespace {

std::string project_of(const Call& call) {
  return call.caller.run_project.empty() ? call.query("project", "default")
                                         : call.caller.run_project;
}

Async<net::Response> why(EngineApi& api, Call& call) {
  const std::string project = project_of(call);
  METIER_API_TRY(uid, api.describe.find_run(project, call.at("uid")));
  METIER_API_TRY(cause, co_await api.describe.why(project, uid));
  co_return ok_json(to_json(cause));
}

// What the engine of a live run's kind says of its work ({jobs, stages, tasks, executors} of Spark), or null.
Json progress_of(EngineApi& api, const std::string& project, const std::string& uid) {
  for (const ResourceStatus& status : api.engine.resources_of(project, uid)) {
    const Json* progress = find_path(status.status, "progress");
    if (progress != nullptr && !status.labels.contains(std::string(kSharedLabel))) {
      return *progress;
    }
  }
  return nullptr;
}

Async<net::Response> parts(EngineApi& api, Call& call) {
  const std::string project = project_of(call);
  METIER_API_TRY(uid, api.describe.find_run(project, call.at("uid")));
  METIER_API_TRY(all, api.engine.parts(project, uid));
  Json out = JsonObject{{"uid", uid},
                        {"project", project},
                        {"parts", std::move(all)},
                        {"progress", progress_of(api, project, uid)}};
  api.engine.masker_of(project, uid).mask(out);
  co_return ok_json(std::move(out));
}

Async<net::Response> timeline(EngineApi& api, Call& call) {
  const std::string project = project_of(call);
  METIER_API_TRY(uid, api.describe.find_run(project, call.at("uid")));
  METIER_API_TRY(out, api.describe.timeline(project, uid));
  co_return ok_json(out);
}

Async<net::Response> lease(EngineApi& api, Call& call) {
  METIER_API_CHECK(co_await api.engine.renew_lease(project_of(call), call.at("uid")));
  co_return ok_json(JsonObject{{"seconds", std::chrono::duration_cast<std::chrono::seconds>(
                                               api.engine.ground().options.lease)
                                               .count()}});
}

Async<void> stream_events(EngineApi& api, std::string project, std::uint64_t seen,
                          net::BodyWriter& writer) {
  EventHub& hub = api.engine.events();
  bool open = co_await writer.write(": events of metier\n\n");
  while (open) {
    const std::uint64_t generation = hub.grew().generation();
    bool lost = false;
    std::string text;
    if (seen > hub.last()) { seen = 0; }  // of an earlier life of this server
    for (const EngineEvent& event : hub.after(seen, lost)) {
      seen = event.id;
      if (!project.empty() && project != "*" && event.project != project) { continue; }
      text +=
          fmt::format("id: {}\nevent: {}\ndata: {}\n\n", event.id, event.type, event_json(event));
    }
    if (lost) { text.insert(0, "event: dev.metier.lost\ndata: {}\n\n"); }
    if (!text.empty()) {
      open = co_await writer.write(std::move(text));
      continue;
    }
    const bool told = co_await hub.grew().wait(
        generation, std::chrono::steady_clock::now() + std::chrono::seconds(15));
    if (!told) { open = co_await writer.write(": still here\n\n"); }
  }
}

// ?form=json: for clients that cannot read a stream: waits (at most as long as a log) for events after `since`.
Async<net::Response> events_now(EngineApi& api, const Call& call, std::uint64_t seen) {
  EventHub& hub = api.engine.events();
  const std::string project =
      call.caller.run_project.empty() ? call.query("project", "*") : call.caller.run_project;
  const auto until = std::chrono::steady_clock::now() + api.engine.ground().options.log_wait;
  if (seen > hub.last()) { seen = 0; }
  JsonArray found;
  bool lost = false;
  auto wait = call.flag("wait", true);
  if (!wait) { co_return error_response(wait.error()); }
  for (bool told = true; told && found.empty() && !lost;) {
    const std::uint64_t generation = hub.grew().generation();
    for (const EngineEvent& event : hub.after(seen, lost)) {
      seen = event.id;
      if (!project.empty() && project != "*" && event.project != project) { continue; }
      if (auto document = parse_json(event_json(event))) { found.push_back(std::move(*document)); }
    }
    if (!*wait) { break; }
    if (found.empty() && !lost) { told = co_await hub.grew().wait(generation, until); }
  }
  co_return ok_json(JsonObject{{"events", std::move(found)}, {"last", seen}, {"lost", lost}});
}

Async<net::Response> events(EngineApi& api, Call& call) {
  std::string last(net::header(call.request.headers, "last-event-id"));
  if (last.empty()) { last = call.query("since"); }
  const std::uint64_t seen =
      last.empty() ? api.engine.events().last() : std::strtoull(last.c_str(), nullptr, 10);
  if (call.query("form") == "json") { co_return co_await events_now(api, call, seen); }
  net::Response response;
  response.headers = {{"content-type", "text/event-stream"}, {"cache-control", "no-store"}};
  const std::string project =
      call.caller.run_project.empty() ? call.query("project", "*") : call.caller.run_project;
  response.stream = [&api, project, seen](net::BodyWriter& writer) {
    return stream_events(api, project, seen, writer);
  };
  co_return response;
}

Async<net::Response> kinds(EngineApi& api, Call&) {
  METIER_API_TRY(out, co_await api.describe.kinds());
  co_return ok_json(out);
}

Result<SubmitRequest> subject_of(Call& call) {
  METIER_TRY(body, call.object());
  SubmitRequest request;
  if (const Json* task = body.if_contains("task")) { request.task = *task; }
  if (request.task.is_null()) { request.task = JsonObject{}; }
  if (const Json* function = body.if_contains("function")) { request.function = *function; }
  request.mpi_api = string_in(body, "api");
  if (!request.mpi_api.empty() && request.mpi_api != "v1" && request.mpi_api != "v2beta1") {
    return fail(
        invalid("api", quote(request.mpi_api) + " is no version of MPIJob", "v1 or v2beta1"));
  }
  request.function_url = string_in(body, "functionUrl");
  if (const Json* environment = body.if_contains("env");
      environment != nullptr && environment->is_object()) {
    request.environment = *environment;
  }
  request.working_dir = string_in(body, "cwd");
  request.caller = call.caller;
  if (const auto python = string_in(body, "python");
      !python.empty() && call.caller.over_unix_socket) {
    request.caller.python = python;
  }
  request.context = net::header(call.request.headers, "x-metier-context");
  return request;
}

Async<net::Response> render(EngineApi& api, Call& call) {
  METIER_API_TRY(request, subject_of(call));
  if (request.function.is_object() && string_at(request.function, "kind") == "local" &&
      request.environment.is_null()) {
    request.environment = JsonObject{};
  }
  METIER_API_TRY(resources, api.engine.render(std::move(request)));
  JsonArray items;
  for (Resource& resource : resources) {
    resource.metadata.uid.clear();
    items.push_back(to_json(resource));
  }
  co_return ok_json(JsonObject{{"items", std::move(items)}});
}

Async<net::Response> admit(EngineApi& api, Call& call) {
  METIER_API_TRY(request, subject_of(call));
  METIER_API_TRY(trial, co_await api.engine.admit(std::move(request)));
  const Admission& admission = trial.admission;
  JsonArray objects;
  for (const ResourceKey& key : trial.objects) {
    objects.push_back(JsonObject{{"kind", key.kind}, {"name", key.name}});
  }
  JsonArray warnings;
  for (const Condition& condition : admission.warnings) {
    warnings.push_back(JsonObject{{"type", condition.type}, {"message", condition.message}});
  }
  const char* verdict = admission.verdict == Admission::Verdict::ok           ? "ok"
                        : admission.verdict == Admission::Verdict::never_fits ? "never_fits"
                                                                              : "unsupported";
  co_return ok_json(JsonObject{{"verdict", verdict},
                               {"reason", admission.reason},
                               {"fix", admission.fix},
                               {"code", admission.code},
                               {"warnings", std::move(warnings)},
                               {"objects", std::move(objects)},
                               {"environment", trial.environment},
                               {"function", trial.function},
                               {"run", trial.run}});
}

Async<net::Response> pods(EngineApi& api, Call& call) {
  METIER_API_TRY(
      out,
      co_await api.describe.pods(
          call.caller.run_project.empty() ? call.query("project", "*") : call.caller.run_project,
          call.query("run"),
          call.query("format") == "full" ? Describe::Detail::full : Describe::Detail::brief));
  co_return ok_json(out);
}

Async<net::Response> environments(EngineApi& api, Call&) {
  co_return ok_json(
      JsonObject{{"environments", api.environments ? api.environments() : Json(JsonArray{})}});
}

Async<net::Response> queue(EngineApi& api, Call&) {
  if (!api.queue) {
    co_return error_response(Error{.kind = ErrorKind::unsupported,
                                   .message = "this cluster's queue is its own",
                                   .fix = "ask the cluster"});
  }
  co_return ok_json(api.queue());
}

Async<net::Response> pause_queue(EngineApi& api, Call& call) {
  METIER_API_TRY(body, call.object());
  if (!call.caller.run_project.empty()) {
    co_return error_response(
        Error{.kind = ErrorKind::denied, .message = "a run may not pause or resume the queue"});
  }
  const Json* paused = body.if_contains("paused");
  if (paused == nullptr || !paused->is_bool()) {
    co_return error_response(
        invalid("paused", "is no boolean", R"(write {"paused": true, "reason": "why"})"));
  }
  if (!api.pause_queue) { co_return co_await queue(api, call); }
  constexpr std::size_t kMostReason = 256;
  const std::string reason(string_in(body, "reason"));
  if (reason.size() > kMostReason) {
    co_return error_response(invalid("reason", fmt::format("has {} bytes", reason.size()),
                                     fmt::format("at most {}", kMostReason)));
  }
  METIER_API_CHECK(api.pause_queue(paused->get_bool(), reason));
  co_return ok_json(api.queue());
}

Async<net::Response> apply_objects(EngineApi& api, Call& call) {
  METIER_API_TRY(body, call.json());
  const std::string project = project_of(call);
  if (!call.caller.run_project.empty()) {
    co_return error_response(
        Error{.kind = ErrorKind::denied, .message = "a run may not change its project's objects"});
  }
  JsonArray all;
  if (body.is_array()) { all = body.get_array(); }
  if (body.is_object()) {
    if (const JsonArray* items = array_in(body.get_object(), "items")) {
      all = *items;
    } else {
      all.push_back(body);
    }
  }
  if (all.empty()) {
    co_return error_response(
        invalid("body", "no object to apply", "send one object, a list, or {\"items\": […]}"));
  }
  JsonArray out;
  for (Json& one : all) {
    METIER_API_TRY(applied, co_await api.objects.apply(project, std::move(one)));
    if (api.secrets_changed) {
      api.secrets_changed(project, std::string(string_at(applied, "metadata.name")));
    }
    out.push_back(std::move(applied));
  }
  co_return ok_json(JsonObject{{"items", std::move(out)}});
}

Async<net::Response> patch_object(EngineApi& api, Call& call) {
  METIER_API_TRY(body, call.json());
  if (!call.caller.run_project.empty()) {
    co_return error_response(
        Error{.kind = ErrorKind::denied, .message = "a run may not change its project's objects"});
  }
  if (call.at("kind") != "Secret") {
    co_return error_response(invalid("kind", quote(call.at("kind")) + " cannot be patched",
                                     "apply it whole: POST objects"));
  }
  const std::string project = project_of(call);
  METIER_API_TRY(patched, co_await api.objects.patch_secret(project, call.at("name"), body));
  if (api.secrets_changed) { api.secrets_changed(project, call.at("name")); }
  co_return ok_json(patched);
}

Async<net::Response> list_objects(EngineApi& api, Call& call) {
  METIER_API_TRY(all, api.objects.list(project_of(call), call.query("kind")));
  JsonArray out;
  for (Json& one : all) { out.push_back(std::move(one)); }
  co_return ok_json(JsonObject{{"items", std::move(out)}});
}

Async<net::Response> remove_object(EngineApi& api, Call& call) {
  if (!call.caller.run_project.empty()) {
    co_return error_response(
        Error{.kind = ErrorKind::denied, .message = "a run may not change its project's objects"});
  }
  METIER_API_CHECK(co_await api.objects.remove(project_of(call), call.at("kind"), call.at("name")));
  co_return ok_json(JsonObject{});
}

Async<net::Response> local(EngineApi& api, Call& call) {
  const std::int64_t own = static_cast<std::int64_t>(::geteuid());
  if (!call.caller.over_unix_socket || (own != 0 && call.caller.uid != own)) {
    co_return submit_error(
        Error{.kind = ErrorKind::denied,
              .message = "a local run starts on the server's own machine, by its unix socket",
              .fix = "choose --kind job, or call the server of your own user"});
  }
  auto request = subject_of(call);
  if (!request) { co_return submit_error(request.error()); }
  if (!request->environment.is_object()) { request->environment = JsonObject{}; }
  auto run = co_await api.engine.submit(std::move(*request));
  if (!run) { co_return submit_error(run.error()); }
  co_return ok_json(JsonObject{{"data", std::move(*run)}});
}

Async<net::Response> health(EngineApi&, Call&) {
  co_return ok_json(JsonObject{{"version", version()}, {"status", "ok"}});
}

Async<net::Response> about(EngineApi& api, Call&) {
  co_return ok_json(JsonObject{{"version", version()},
                               {"pid", ::getpid()},
                               {"cluster", api.engine.ground().cluster.name()},
                               {"data", api.engine.ground().options.data},
                               {"runner", api.runner},
                               {"started", to_iso(api.started)}});
}

Async<net::Response> ready(EngineApi& api, Call&) {
  auto health = co_await api.engine.ground().cluster.probe();
  const bool ok = health && health->usable;
  co_return ok_json(JsonObject{{"status", ok ? "ok" : "not ready"},
                               {"reason", !health ? health.error().text() : health->reason}},
                    ok ? 200 : 503);
}

Async<net::Response> metrics(EngineApi& api, Call&) {
  const Time now = api.engine.ground().clock.now();
  std::string out;
  out +=
      "# HELP metier_runs_live Runs that have not ended and whose processes are the cluster's.\n# "
      "TYPE metier_runs_live gauge\n";
  out += fmt::format("metier_runs_live {}\n", api.engine.live_runs());
  out +=
      "# HELP metier_events_total State changes since the start.\n# TYPE metier_events_total "
      "counter\n";
  out += fmt::format("metier_events_total {}\n", api.engine.events().last());
  out +=
      "# HELP metier_uptime_seconds Since the server started.\n# TYPE metier_uptime_seconds "
      "gauge\n";
  out += fmt::format("metier_uptime_seconds {:.3f}\n",
                     std::chrono::duration<double>(now - api.started).count());
  auto health = co_await api.engine.ground().cluster.probe();
  if (health) {
    out +=
        "# HELP metier_node_free Resources of the node that nothing holds.\n# TYPE "
        "metier_node_free gauge\n";
    for (const auto& [name, amount] : health->free) {
      out += fmt::format("metier_node_free{{resource=\"{}\"}} {}\n", name,
                         static_cast<double>(amount.milli()) / 1000.0);
    }
    out +=
        "# HELP metier_node_allocatable Resources of the node.\n# TYPE metier_node_allocatable "
        "gauge\n";
    for (const auto& [name, amount] : health->allocatable) {
      out += fmt::format("metier_node_allocatable{{resource=\"{}\"}} {}\n", name,
                         static_cast<double>(amount.milli()) / 1000.0);
    }
  }
  net::Response response = ok_text(std::move(out));
  response.headers = {{"content-type", "text/plain; version=0.0.4; charset=utf-8"}};
  co_return response;
}

Async<net::Response> openapi(EngineApi& api, Call&) { co_return ok_json(api.router->openapi()); }

}  // namespace

void add_metier_routes(Router& router, EngineApi& api) {
  const auto bind = [&api](Async<net::Response> (*handler)(EngineApi&, Call&)) {
    return [&api, handler](Call& call) { return handler(api, call); };
  };
  router.add(Api::metier, "GET", "/runs/{uid}/why", "why a run is pending, stuck or failed",
             bind(why));
  router.add(Api::metier, "GET", "/runs/{uid}/parts",
             "the pods and ranks of a run that has several", bind(parts));
  router.add(Api::metier, "GET", "/runs/{uid}/timeline", "a run's phases and events",
             bind(timeline));
  router.add(Api::metier, "POST", "/runs/{uid}/lease",
             "renew the lease of a run that the client holds", bind(lease));
  router.add(Api::metier, "GET", "/events", "state changes as server-sent events", bind(events));
  router.add(Api::metier, "GET", "/kinds", "kinds, and which are usable here", bind(kinds));
  router.add(Api::metier, "POST", "/render", "the objects that a submit would make", bind(render));
  router.add(Api::metier, "POST", "/admit", "whether a submit would be accepted", bind(admit));
  router.add(Api::metier, "GET", "/pods", "pods of a project; format=full: with their spec",
             bind(pods));
  router.add(Api::metier, "GET", "/environments", "environments", bind(environments));
  router.add(Api::metier, "GET", "/queue", "whether the queue is paused, and how many pods wait",
             bind(queue));
  router.add(Api::metier, "PUT", "/queue", "pause or resume the queue", bind(pause_queue));
  router.add(Api::metier, "POST", "/objects", "apply Secret, ConfigMap, PersistentVolumeClaim",
             bind(apply_objects));
  router.add(Api::metier, "GET", "/objects", "objects of a project", bind(list_objects));
  router.add(Api::metier, "PATCH", "/objects/{kind}/{name}",
             "add, replace or (null) remove keys of a Secret", bind(patch_object));
  router.add(Api::metier, "DELETE", "/objects/{kind}/{name}", "remove an object",
             bind(remove_object));
  router.add(Api::metier, "POST", "/local", "run a program on this machine, in the caller's folder",
             bind(local));
  router.add(Api::metier, "GET", "/version", "this server", bind(about));
  router.add(Api::root, "GET", "/healthz", "alive", bind(health));
  router.add(Api::root, "GET", "/readyz", "ready for work", bind(ready));
  router.add(Api::root, "GET", "/metrics", "Prometheus metrics", bind(metrics));
  router.add(Api::root, "GET", "/openapi.json", "this API", bind(openapi));
}

}  // namespace metier::api
