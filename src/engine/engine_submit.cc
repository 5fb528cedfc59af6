// Submit: merge, validate, lower, admit, store in one transaction, answer, apply.
#include <algorithm>

#include "base/failpoint.h"
#include "engine/engine_impl.h"
#include "engine/offload.h"
#include "engine/pods_of.h"
#include "kind/lowering.h"
#include "model/attributes.h"
#include "model/kinds.h"
#include "model/mpijob_document.h"
#include "model/nuclio/inline.h"

namespace metier {
namespace {

constexpr auto kRemovalWait = std::chrono::seconds(30);  // for what has the name of what is applied

constexpr std::string_view kIdempotency = "idempotency";

bool is_uid(std::string_view text) {
  return !text.empty() && text.size() <= 128 && text.front() != '.' &&
         std::ranges::all_of(text, [](unsigned char c) {
           return std::isalnum(c) != 0 || c == '-' || c == '_' || c == '.';
         });
}

std::string annotation(const JsonObject& metadata, std::string_view key) {
  const JsonObject* annotations = object_in(metadata, "annotations");
  return annotations == nullptr ? std::string() : std::string(string_in(*annotations, key));
}

// What Kubernetes recommends for every object, beside MLRun's own. An object that several runs share is none of theirs.
Labels recommended_labels(const Function& function, const Plan& plan, bool shared) {
  Labels out{{"app.kubernetes.io/name", label_value(function.name())},
             {"app.kubernetes.io/part-of", label_value(plan.project)},
             {"app.kubernetes.io/managed-by", "metier"}};
  if (!shared) {
    out["app.kubernetes.io/instance"] = label_value(plan.uid);
    out["app.kubernetes.io/version"] =
        label_value(function.tag().empty() ? "latest" : function.tag());
  }
  std::erase_if(out, [](const auto& label) { return label.second.empty(); });
  return out;
}

}  // namespace

Site Engine::site_of(const std::string& project) const {
  Site site;
  site.name_space = project;
  site.api_url = ground_.options.pod_api_url;
  site.default_resources = ground_.options.default_resources;
  site.embedded = ground_.cluster.name() != "kubernetes";
  site.valid_priority_classes = default_priority_classes();
  if (auto keys =
          ground_.store.records().secret_keys(project, "mlrun-project-secrets-" + project)) {
    for (std::string& key : *keys) {
      if (!key.starts_with("mlrun.")) { site.project_secret_keys.push_back(std::move(key)); }
    }
  }
  return site;
}

Result<Function> Engine::function_of(const SubmitRequest& request, const std::string& project,
                                     std::vector<std::string>* warnings) const {
  std::string url = request.function_url;
  if (url.empty() && request.task.is_object()) { url = string_at(request.task, "spec.function"); }
  const bool has_document = request.function.is_object() && !request.function.get_object().empty();
  if (url.empty()) {
    if (!has_document) {
      return fail(invalid("function", "the submit names no function",
                          "set task.spec.function, function or functionUrl"));
    }
    if (is_mpijob(request.function)) { return function_from_mpijob(request.function, warnings); }
    METIER_TRY(function, Function::from_json(request.function));
    return function;
  }
  if (url.starts_with("hub://")) {
    return fail(
        Error{.kind = ErrorKind::unsupported,
              .message = "functions of the hub are not fetched by this server: " + quote(url),
              .field = "functionUrl",
              .fix = "download its function.yaml and import that file"});
  }
  if (url.find("://") != std::string::npos && !url.starts_with("db://")) {
    return fail(invalid("functionUrl", quote(url) + " is not in this server's store",
                        "store the function first and give its db:// address"));
  }
  METIER_TRY(uri, parse_function_uri(url, project));
  METIER_TRY(row, ground_.store.records().function(uri.project, uri.name, uri.tag, uri.hash));
  if (!row) {
    return fail(
        Error{.kind = ErrorKind::not_found,
              .message = "no function " + quote(function_uri(uri)),
              .field = "spec.function",
              .fix = "store it first (fn.save()), or see: metier get functions -P " + uri.project});
  }
  METIER_TRY(body, parse_json(row->body));
  METIER_TRY(function, Function::from_json(std::move(body)));
  if (!row->tag.empty()) { function.set_tag(row->tag); }
  if (has_document) { METIER_CHECK(overlay_function(function, request.function.get_object())); }
  return function;
}

Result<Json> Engine::environment_of(const Function& given, const Run& run,
                                    const Caller& caller) const {
  std::optional<Function> configured;
  if (is_nuclio_kind(given.kind())) {
    METIER_TRY(found, nuclio::with_inline(given));
    configured = std::move(found);
  }
  const Function& function = configured ? *configured : given;
  JsonObject environment;
  JsonArray requirements;
  JsonArray commands;
  const auto take = [&](const JsonObject& build) {
    for (const auto& [key, into] :
         {std::pair{"requirements", &requirements}, std::pair{"commands", &commands}}) {
      const Json* value = build.if_contains(key);
      if (value == nullptr) { continue; }
      if (value->is_string() && !value->get_string().empty()) { into->push_back(*value); }
      if (value->is_array()) {
        for (const Json& item : value->get_array()) { into->push_back(item); }
      }
    }
  };
  std::string python;
  const std::string image(string_in(function.spec(), "image"));
  if (!image.empty()) {
    METIER_TRY(known, ground_.store.records().setting("image", image));
    if (known) {
      METIER_TRY(built, parse_json(*known));
      if (built.is_object()) {
        take(built.get_object());
        python = string_in(built.get_object(), "python");
      }
    }
  }
  if (const JsonObject* build = object_in(function.spec(), "build")) {
    if (requirements.empty() && commands.empty()) { take(*build); }
    if (const auto version = string_in(*build, "python"); !version.empty()) { python = version; }
  }
  for (const JsonObject* metadata : {&function.metadata(), &run.metadata()}) {
    if (const std::string wish = annotation(*metadata, "metier.dev/python"); !wish.empty()) {
      python = wish;
    }
  }
  if (python.empty() && caller.over_unix_socket) { python = caller.python; }
  if (python.empty()) { python = ground_.options.default_python; }
  if (!python.empty()) { environment["python"] = python; }
  if (!requirements.empty()) { environment["requirements"] = std::move(requirements); }
  if (!commands.empty()) { environment["commands"] = std::move(commands); }
  return Json(std::move(environment));
}

// What the engine adds to what a kind lowers to: names, labels of the run, environment, user.
Result<void> Engine::mark(Resource& resource, const Function& function, const Plan& plan) const {
  const std::string environment =
      plan.environment.is_object() ? dump_json(plan.environment) : std::string();
  const bool shared = is_shared(resource.metadata.labels);
  // An image that no build of this server made: the pod says what runs in its place.
  std::string unknown_image = function.text("image");
  if (ground_.cluster.name() != "embedded" || unknown_image == "python" ||
      unknown_image.starts_with("mlrun/")) {
    unknown_image.clear();
  }
  if (!unknown_image.empty()) {
    METIER_TRY(built, ground_.store.records().setting("image", unknown_image));
    if (built) { unknown_image.clear(); }
  }
  resource.metadata.name_space = plan.project;
  if (resource.metadata.name.empty()) { resource.metadata.name = plan.name(); }
  if (resource.metadata.uid.empty()) { resource.metadata.uid = new_uid(ground_.random); }
  if (!shared) { resource.metadata.labels.try_emplace("mlrun/uid", plan.uid); }
  resource.metadata.labels.try_emplace("mlrun/project", plan.project);
  const Labels recommended = recommended_labels(function, plan, shared);
  for (const auto& [key, value] : recommended) { resource.metadata.labels.try_emplace(key, value); }
  for_each_pod(resource, [&](PodPart& pod) {
    for (const auto& [key, value] : recommended) { pod.label(key, value); }
    if (!unknown_image.empty()) { pod.annotate("metier.dev/unknown-image", unknown_image); }
    set_place(pod, environment, shared ? std::string() : plan.context, plan.run_as);
    if (plan.environment_secret.empty()) { return; }
    pod.annotate("metier.dev/host-process", "true");
    if (Json* containers = pod.spec.if_contains("containers");
        containers != nullptr && containers->is_array()) {
      for (Json& container : containers->get_array()) {
        JsonObject& into = container.get_object();
        ensure_array(into, "envFrom")
            .insert(ensure_array(into, "envFrom").begin(),
                    JsonObject{{"secretRef", JsonObject{{"name", plan.environment_secret}}}});
        if (!plan.working_dir.empty() && string_in(into, "workingDir").empty()) {
          into["workingDir"] = plan.working_dir;
        }
      }
    }
  });
  if (resource.kind == "Pod") { METIER_CHECK(pod_from(resource)); }
  return {};
}

Site Engine::site_of(const Plan& plan) const {
  Site site = site_of(plan.project);
  if (plan.environment.is_object()) { site.environment = dump_json(plan.environment); }
  if (plan.run_as > 0) { site.environment += " as " + std::to_string(plan.run_as); }
  return site;
}

Result<std::vector<Resource>> Engine::lower(const Function& function, const Run& run,
                                            const Plan& plan, const std::string& mpi_api) const {
  METIER_TRY(kind, ground_.kinds.find(function.kind()));
  Site site = site_of(plan);
  if (!mpi_api.empty()) { site.mpi_api = mpi_api; }
  METIER_TRY(resources, kind->lower(Subject{function, &run, plan.attempt}, site));
  for (Resource& resource : resources) { METIER_CHECK(mark(resource, function, plan)); }
  return resources;
}

Result<Resource> Engine::lower_shared(const Function& function, const Plan& plan) const {
  METIER_TRY(kind, ground_.kinds.find(function.kind()));
  METIER_TRY(resources, kind->lower(Subject{function, nullptr}, site_of(plan)));
  for (Resource& resource : resources) {
    if (!is_shared(resource.metadata.labels)) { continue; }
    METIER_CHECK(mark(resource, function, plan));
    return std::move(resource);
  }
  return fail(ErrorKind::internal, "kind " + function.kind() + " has nothing that is shared");
}

Result<Engine::Prepared> Engine::prepare(const SubmitRequest& request, const std::string& context) {
  Prepared out;
  if (!request.task.is_object()) {
    return fail(invalid("task", "expected an object, got " + std::string(type_name(request.task)),
                        "send {\"task\": {…}}"));
  }
  METIER_TRY(run, Run::from_json(request.task));
  if (run.project().empty()) { run.set_project("default"); }
  const std::string project = run.project();
  METIER_TRY(project_body, ground_.store.records().project(project));
  if (!project_body) {
    return fail(Error{.kind = ErrorKind::not_found,
                      .message = "no project " + quote(project),
                      .field = "metadata.project",
                      .fix = "create it: metier apply -f FILE with kind: Project, or "
                             "mlrun.get_or_create_project; or use project default"});
  }
  METIER_TRY(project_document, parse_json(*project_body));
  METIER_TRY(function, function_of(request, project, &out.warnings));
  if (function.project().empty()) { function.set_project(project); }
  if (function.name().empty()) { function.set_name(run.name().empty() ? "function" : run.name()); }
  METIER_TRY(kind, ground_.kinds.find(function.kind()));
  const KindTraits& traits = kind->traits();
  if (!traits.available) {
    return fail(Error{.kind = ErrorKind::unsupported,
                      .message = std::string(traits.unavailable),
                      .field = "kind",
                      .fix = "see: metier kinds",
                      .code = "EngineMissing"});
  }
  const bool host_process = request.environment.is_object();
  if (traits.executes == Executes::in_caller ||
      (traits.executes == Executes::on_host && !host_process)) {
    return fail(invalid(
        "kind",
        "kind " + std::string(traits.name) + " runs on the caller's side, not on the server",
        "run it there, or choose kind job"));
  }
  if (run.uid().empty()) { run.set_uid(new_uid(ground_.random)); }
  if (!is_uid(run.uid())) {
    return fail(invalid("metadata.uid", quote(run.uid()) + " is not a uid",
                        "letters, digits, '-', '_', '.'; at most 128"));
  }

  SubmitDefaults defaults;
  defaults.output_path = ground_.options.data + "/projects/{{project}}/artifacts/{{run.uid}}";
  defaults.project = std::move(project_document);
  defaults.default_image = "mlrun/mlrun";
  defaults.default_resources = ground_.options.default_resources;
  fill_function(function, defaults);
  if (ground_.cluster.name() == "embedded") { load_source_on_run(function); }
  fill_run(run, function, defaults, request.caller.user);
  if (!request.caller.client_version.empty()) {
    run.set_label("mlrun/client_version", request.caller.client_version);
  }
  if (!request.caller.python_version.empty()) {
    run.set_label("mlrun/client_python_version", request.caller.python_version);
  }
  if (const JsonArray* notifications = array_in(run.spec(), "notifications");
      notifications != nullptr && !notifications->empty()) {
    return fail(Error{.kind = ErrorKind::unsupported,
                      .message = "notifications are not sent by this server yet",
                      .field = "spec.notifications",
                      .fix = "submit without notifications",
                      .code = "NotBuilt"});
  }
  const std::string hash = function.compute_hash();
  run.spec()["function"] =
      function_uri({.project = function.project(), .name = function.name(), .hash = hash});
  METIER_CHECK(validate_run(run));
  METIER_CHECK(kind->validate(Subject{function, &run}));

  Plan plan;
  plan.project = project;
  plan.uid = run.uid();
  plan.kind = traits.name;
  plan.function_name = function.name();
  plan.function_hash = hash;
  if (!traits.stores_function) { plan.function = Json(function.document()); }
  plan.names = {resource_name(run.name(), run.uid(), 0, 1)};
  if (host_process) {
    plan.environment_secret = "metier-env-" + run.uid();
    plan.working_dir = request.working_dir;
  }
  // A pod that a user of the socket submitted to root's server runs as that user.
  if (request.caller.over_unix_socket && request.caller.uid > 0 &&
      request.caller.uid != ground_.options.server_uid) {
    plan.run_as = request.caller.uid;
  }
  METIER_TRY(environment, environment_of(function, run, request.caller));
  plan.environment = std::move(environment);
  plan.context = context;
  METIER_FAILPOINT_RETURN("run/S05_lower");
  METIER_TRY(resources, lower(function, run, plan, request.mpi_api));
  name_objects(plan, resources);
  for (std::string& sentence : kind->ignored(Subject{function, &run}, site_of(plan))) {
    out.warnings.push_back(std::move(sentence));
  }
  out.function = std::move(function);
  out.run = std::move(run);
  out.plan = std::move(plan);
  out.kind = kind;
  out.resources = std::move(resources);
  return out;
}

Async<Result<Json>> Engine::repeated(std::string project, std::string uid) {
  const std::string key = plan_key(project, uid);
  for (auto live = live_.find(key); live != live_.end() && !live->second->committed && !stopping_;
       live = live_.find(key)) {
    auto signal = events_.of_run(key);
    co_await signal->wait(signal->generation());
  }
  auto run = read_run(ground_.store.records(), project, uid);
  if (!run) { co_return fail(std::move(run.error())); }
  if (!*run) { co_return fail(ErrorKind::not_found, "no run " + quote(uid)); }
  co_return Json((*run)->document());
}

Async<Result<Json>> Engine::submit(SubmitRequest request) {
  METIER_FAILPOINT("run/S01_read");
  if (!request.schedule.is_null()) {
    co_return fail(Error{.kind = ErrorKind::unsupported,
                         .message = "schedules are not built yet",
                         .field = "schedule",
                         .fix = "submit without a schedule",
                         .code = "NotBuilt"});
  }
  if (stopping_) { co_return fail(ErrorKind::unavailable, "the server is stopping"); }
  const Records& records = ground_.store.records();
  if (request.task.is_object()) {
    const std::string project(string_at(request.task, "metadata.project", "default"));
    std::string uid(string_at(request.task, "metadata.uid"));
    if (uid.empty() && !request.caller.idempotency_key.empty()) {
      auto known = records.setting(std::string(kIdempotency),
                                   plan_key(project, request.caller.idempotency_key));
      if (!known) { co_return fail(std::move(known.error())); }
      if (*known) { uid = **known; }
    }
    if (!uid.empty()) {
      auto plan = read_plan(records, project, uid);
      if (!plan) { co_return fail(std::move(plan.error())); }
      if (*plan || live_.contains(plan_key(project, uid))) {
        co_return co_await repeated(project, uid);
      }
    }
  }
  std::string context;
  std::optional<Condition> no_context;
  if (!request.context.empty() && !request.environment.is_object() &&
      request.caller.over_unix_socket) {
    const std::int64_t reader = request.caller.uid == 0 ? -1 : request.caller.uid;
    auto snapshot =
        co_await offload(ground_.loop, [snapshots = snapshots_, folder = request.context, reader] {
          return snapshots->take(folder, reader);
        });
    if (snapshot) {
      context = *snapshot;
    } else {
      no_context = without_context(snapshot.error());
    }
  }
  auto prepared = prepare(request, context);
  if (!prepared) { co_return fail(std::move(prepared.error())); }
  METIER_FAILPOINT("run/S04_admit");
  auto admission = co_await ground_.cluster.admit(prepared->resources);
  if (!admission) { co_return fail(std::move(admission.error()).in("admission")); }
  if (admission->verdict != Admission::Verdict::ok) {
    co_return fail(Error{
        .kind = admission->verdict == Admission::Verdict::never_fits ? ErrorKind::exhausted
                                                                     : ErrorKind::unsupported,
        .message = admission->reason,
        .fix = admission->fix,
        .code = admission->code.empty() && admission->verdict == Admission::Verdict::never_fits
                    ? std::string("NeverFits")
                    : admission->code});
  }
  if (no_context) { admission->warnings.push_back(*std::move(no_context)); }
  for (const std::string& warning : prepared->warnings) {
    admission->warnings.push_back(ignored_field(warning));
  }
  for (const Condition& warning : admission->warnings) {
    prepared->plan.told.push_back(JsonObject{{"type", warning.type}, {"message", warning.message}});
  }
  const std::string key = plan_key(prepared->plan.project, prepared->plan.uid);
  if (live_.contains(key)) {
    co_return co_await repeated(prepared->plan.project, prepared->plan.uid);
  }

  const Time now = ground_.clock.now();
  Run& run = prepared->run;
  run.set_state(RunState::pending);
  JsonObject& status = run.status();
  status["status_text"] = "Job is running in the background, pod: " + prepared->plan.name();
  status["last_update"] = to_iso(now);
  status["start_time"] = to_iso(now);
  if (!prepared->plan.told.empty()) { status["conditions"] = prepared->plan.told; }
  LivePtr live = adopt(prepared->plan, prepared->function, run);

  FunctionRow function_row;
  function_row.project = prepared->function.project();
  function_row.name = prepared->function.name();
  function_row.uid = prepared->plan.function_hash;
  function_row.kind = prepared->function.kind();
  function_row.updated = now;
  {
    Function stored = prepared->function;
    stored.metadata()["hash"] = prepared->plan.function_hash;
    stored.metadata()["updated"] = to_iso(now);
    stored.set_tag("");
    function_row.body = dump_object(stored.document());
  }
  std::string tag = prepared->function.tag();
  if (tag.empty()) { tag = "latest"; }
  const bool stores_function = prepared->kind->traits().stores_function;
  const bool in_one = ground_.cluster.name() == "embedded";
  auto stored = co_await ground_.store.write([&,
                                              plan = prepared->plan](Records& tx) -> Result<bool> {
    METIER_TRY(known, read_plan(tx, plan.project, plan.uid));
    if (known) { return false; }
    METIER_FAILPOINT_RETURN("run/S02_commit");
    if (stores_function) {
      METIER_TRY(have, tx.function(function_row.project, function_row.name, "", function_row.uid));
      if (!have) { METIER_CHECK(tx.put_function(function_row, tag)); }
    }
    METIER_TRY(before, tx.run(plan.project, plan.uid, 0));
    METIER_CHECK(tx.put_run(row_of(run, now, before ? &*before : nullptr)));
    METIER_CHECK(write_plan(tx, plan));
    if (!request.caller.idempotency_key.empty()) {
      METIER_CHECK(tx.put_setting(std::string(kIdempotency),
                                  plan_key(plan.project, request.caller.idempotency_key), plan.uid,
                                  now + std::chrono::hours(24)));
    }
    if (!plan.environment_secret.empty()) {
      for (const auto& [name, value] : request.environment.get_object()) {
        if (value.is_string()) {
          METIER_CHECK(tx.put_secret(plan.project, plan.environment_secret, name,
                                     std::string(value.get_string())));
        }
      }
    }
    METIER_CHECK(note(tx, plan.project, plan.uid, 1, now, "accepted",
                      JsonObject{{"name", run.name()}, {"kind", plan.kind}, {"pod", plan.name()}}));
    for (const Condition& warning : admission->warnings) {
      METIER_CHECK(note(tx, plan.project, plan.uid, 1, now, "event",
                        JsonObject{{"reason", warning.type}, {"message", warning.message}}));
    }
    if (in_one) {
      for (const Resource& resource : prepared->resources) {
        if (is_shared(resource.metadata.labels)) { continue; }  // may exist: `apply` puts it
        METIER_CHECK(tx.put_object(resource, 0));
      }
    }
    return true;
  });
  if (!stored || !*stored) {
    live->done = true;
    live_.erase(key);
    events_.wake(key);
    if (!stored) { co_return fail(std::move(stored.error())); }
    co_return co_await repeated(prepared->plan.project, prepared->plan.uid);
  }
  live->committed = true;
  events_.publish({.type = "dev.metier.run.state",
                   .project = live->plan.project,
                   .uid = live->plan.uid,
                   .name = run.name(),
                   .state = "pending",
                   .at = now});
  scope_.spawn("apply " + key, apply(live, std::move(prepared->resources)));
  METIER_FAILPOINT("run/S03_answer");
  co_return Json(run.document());
}

void name_objects(Plan& plan, std::span<const Resource> resources) {
  plan.objects.clear();
  plan.shared.clear();
  for (const Resource& resource : resources) {
    if (is_shared(resource.metadata.labels)) {
      plan.shared.push_back(resource.metadata.labels.at(std::string(kSharedLabel)));
    } else {
      plan.objects.push_back(key_of(resource));
    }
  }
}

// What runs already share with this one.
Async<void> Engine::hear_shared(LivePtr live) {
  for (const std::string& name : live->plan.shared) {
    Selector selector;
    selector.name_space = live->plan.project;
    selector.labels[std::string(kSharedLabel)] = name;
    auto listed = co_await ground_.cluster.list(selector);
    for (const ResourceStatus& status : listed ? *listed : std::vector<ResourceStatus>{}) {
      if (!status.removed) { live->resources.try_emplace(status.key, status); }
    }
  }
}

Async<void> Engine::apply(LivePtr live, std::vector<Resource> resources) {
  METIER_FAILPOINT("run/apply");
  const auto patience = ground_.clock.steady() + kRemovalWait;
  auto pause = std::chrono::milliseconds(20);
  Result<void> applied;
  while (true) {
    applied = co_await ground_.cluster.apply(resources);
    if (applied) {
      co_await hear_shared(live);
      poke(live);
      co_return;
    }
    if (live->done || live->state == RunState::aborting) { co_return; }
    const ErrorKind kind = applied.error().kind;
    // What it shares is on its way out, and what comes after it is the run's.
    const bool goes = kind == ErrorKind::conflict && ground_.clock.steady() < patience;
    if (kind != ErrorKind::unavailable && kind != ErrorKind::cancelled && !goes && !stopping_) {
      break;
    }
    if (!goes) {
      ground_.log.warn("apply did not go through, it is tried again",
                       {{"run", Json(live->key())}, {"error", Json(applied.error().text())}});
    }
    if (stopping_) { co_return; }  // the next start applies it again
    co_await sleep_for(ground_.loop, pause);
    if (stopping_ || live->done || live->state == RunState::aborting) { co_return; }
    pause = std::min(pause * 2, std::chrono::milliseconds(5000));
  }
  Observation seen;
  seen.state = RunState::error;
  seen.reason = applied.error().code.empty() ? std::string("Internal") : applied.error().code;
  seen.message = applied.error().text();
  auto ended = co_await finish(live, std::move(seen));
  if (!ended) {
    ground_.log.error("a run that could not be applied is not marked",
                      {{"run", Json(live->key())}, {"error", Json(ended.error().text())}});
  }
}

Result<std::vector<Resource>> Engine::render(SubmitRequest request) {
  // The same input gives the same objects.
  if (request.task.is_object() && string_at(request.task, "metadata.uid").empty()) {
    const std::string text =
        dump_json(request.task) + dump_json(request.function) + request.function_url;
    ensure_object(request.task.get_object(), "metadata")["uid"] = sha256_hex(text).substr(0, 32);
  }
  METIER_TRY(prepared, prepare(request, ""));
  return std::move(prepared.resources);
}

Async<Result<Trial>> Engine::admit(SubmitRequest request) {
  auto prepared = prepare(request, "");
  if (!prepared) { co_return fail(std::move(prepared.error())); }
  const std::vector<Resource> resources = std::move(prepared->resources);
  auto admission = co_await ground_.cluster.admit(resources);
  if (!admission) { co_return fail(std::move(admission.error())); }
  for (const std::string& warning : prepared->warnings) {
    admission->warnings.push_back(ignored_field(warning));
  }
  co_return Trial{.admission = std::move(*admission),
                  .function = Json(prepared->function.document()),
                  .run = Json(prepared->run.document()),
                  .environment = prepared->plan.environment,
                  .objects = prepared->plan.objects};
}

}  // namespace metier
