// Deploy: merge, validate, lower, admit, store in one transaction, answer, apply. Removal and recovery.
#include "engine/deployments.h"

#include <algorithm>
#include <set>

#include "base/failpoint.h"
#include "engine/deployments_impl.h"
#include "engine/engine_impl.h"
#include "engine/offload.h"
#include "engine/pods_of.h"

namespace metier {
namespace {

constexpr auto kRemovalWait = std::chrono::seconds(30);  // for the removal before a deploy
constexpr auto kForgetRetry = std::chrono::seconds(1);

Json condition_json(const Condition& condition) {
  return JsonObject{{"type", condition.type},
                    {"status", condition.status},
                    {"reason", condition.reason.empty() ? condition.type : condition.reason},
                    {"message", condition.message}};
}

std::string tag_of(const Function& function) {
  const std::string tag = function.tag();
  return tag == "latest" ? std::string() : tag;
}

Result<void> put_function_record(Records& tx, const Function& function, const std::string& hash,
                                 const std::string& tag, const Json& status, Time now) {
  Function stored = function;
  stored.metadata()["hash"] = hash;
  stored.metadata()["updated"] = to_iso(now);
  stored.document()["status"] = status;
  stored.set_tag("");
  FunctionRow row;
  row.project = function.project();
  row.name = function.name();
  row.uid = hash;
  row.kind = function.kind();
  row.updated = now;
  row.body = dump_json(Json(stored.document()));
  return tx.put_function(row, tag.empty() ? "latest" : tag);
}

}  // namespace

Deployments::Deployments(const Ground& ground, Engine& engine)
    : ground_(ground), engine_(engine), scope_(ground.loop) {}
Deployments::~Deployments() = default;

Result<std::vector<Resource>> Deployments::lower(const Function& function,
                                                 const DeploymentPlan& plan) const {
  METIER_TRY(kind, ground_.kinds.find(function.kind()));
  METIER_TRY(resources, kind->lower(Subject{function, nullptr, plan.generation},
                                    engine_.site_of(plan.project)));
  const std::string environment =
      plan.environment.is_object() ? dump_json(plan.environment) : std::string();
  const std::string label = deployment_label(plan.name, plan.tag);
  for (Resource& resource : resources) {
    if (is_shared(resource.metadata.labels)) {
      Plan of_run;  // its name says what its pods run in: a run has to find it again
      of_run.project = plan.project;
      of_run.environment = plan.environment;
      of_run.run_as = plan.run_as;
      METIER_TRY(shared, engine_.lower_shared(function, of_run));
      ensure_object(shared.body, "spec")["openedBy"] = "deploy-" + std::to_string(plan.generation);
      resource = std::move(shared);
      continue;
    }
    resource.metadata.name_space = plan.project;
    resource.metadata.labels.insert_or_assign(std::string(kDeploymentLabel), label);
    resource.metadata.labels.try_emplace("mlrun/project", plan.project);
    resource.metadata.annotations.insert_or_assign(std::string(kGenerationAnnotation),
                                                   std::to_string(plan.generation));
    resource.metadata.labels.insert_or_assign(std::string(kGenerationAnnotation),
                                              std::to_string(plan.generation));
    if (resource.kind == "NuclioFunction") {
      // It says what its Pods run, not how they look: its controller puts these on them.
      Labels& annotations = resource.metadata.annotations;
      if (!environment.empty()) { annotations["metier.dev/environment"] = environment; }
      if (!plan.context.empty()) { annotations["metier.dev/context"] = plan.context; }
      if (plan.run_as > 0) { annotations["metier.dev/run-as"] = std::to_string(plan.run_as); }
      continue;
    }
    for_each_pod(resource,
                 [&](PodPart& pod) { set_place(pod, environment, plan.context, plan.run_as); });
    if (resource.kind == "Pod") { METIER_CHECK(pod_from(resource)); }
  }
  return resources;
}

Result<Deployments::Prepared> Deployments::prepare(const DeployRequest& request,
                                                   const std::string& context,
                                                   const DeploymentPlan* before) {
  Prepared out;
  METIER_TRY(function, Function::from_json(request.function));
  if (function.project().empty()) { function.set_project("default"); }
  const std::string project = function.project();
  METIER_TRY(project_body, ground_.store.records().project(project));
  if (!project_body) {
    return fail(Error{.kind = ErrorKind::not_found,
                      .message = "no project " + quote(project),
                      .field = "metadata.project",
                      .fix = "create it: metier apply -f FILE with kind: Project, or "
                             "mlrun.get_or_create_project; or use project default"});
  }
  METIER_TRY(project_document, parse_json(*project_body));
  if (function.name().empty()) {
    return fail(invalid("metadata.name", "the function has no name", "give it one"));
  }
  function.set_name(function.name());
  METIER_TRY(kind, ground_.kinds.find(function.kind()));
  const KindTraits& traits = kind->traits();
  if (!traits.available) {
    return fail(Error{.kind = ErrorKind::unsupported,
                      .message = std::string(traits.unavailable),
                      .field = "kind",
                      .fix = "see: metier kinds",
                      .code = "EngineMissing"});
  }
  if (!traits.deploys) {
    return fail(invalid("kind", "kind " + std::string(traits.name) + " is run, not deployed",
                        "run it: metier run"));
  }
  SubmitDefaults defaults;
  defaults.project = std::move(project_document);
  defaults.default_image = "mlrun/mlrun";
  defaults.default_resources = ground_.options.default_resources;
  fill_function(function, defaults);
  METIER_CHECK(kind->validate(Subject{function, nullptr}));

  DeploymentPlan plan;
  plan.project = project;
  plan.name = function.name();
  plan.tag = tag_of(function);
  plan.kind = traits.name;
  plan.hash = function.compute_hash();
  plan.context = context;
  if (request.caller.over_unix_socket && request.caller.uid > 0 &&
      request.caller.uid != ground_.options.server_uid) {
    plan.run_as = request.caller.uid;
  }
  METIER_TRY(environment, engine_.environment_of(function, Run(), request.caller));
  plan.environment = std::move(environment);
  plan.generation = before == nullptr ? 1 : before->generation;
  METIER_TRY(resources, lower(function, plan));
  if (before != nullptr && (before->state() != "ready" || !same_as_stored(resources, *before))) {
    plan.generation = before->generation + 1;
    METIER_TRY(anew, lower(function, plan));
    resources = std::move(anew);
  } else if (before != nullptr) {
    plan.was_ready = before->was_ready;
  }
  for (const Resource& resource : resources) {
    if (is_shared(resource.metadata.labels)) {
      plan.shared.push_back(resource.metadata.name);
    } else {
      plan.objects.push_back(key_of(resource));
    }
  }
  plan.function = Json(function.document());
  JsonObject status;
  if (before != nullptr && before->status.is_object()) { status = before->status.get_object(); }
  if (before == nullptr || plan.generation != before->generation) {
    for (const char* gone : {"reason", "message", "conditions"}) { status.erase(gone); }
    status["state"] = "deploying";
  }
  plan.status = std::move(status);
  out.function = std::move(function);
  out.plan = std::move(plan);
  out.kind = kind;
  out.resources = std::move(resources);
  return out;
}

bool Deployments::same_as_stored(const std::vector<Resource>& resources,
                                 const DeploymentPlan& before) const {
  if (resources.size() != before.objects.size() + before.shared.size()) { return false; }
  return std::ranges::all_of(resources, [this](const Resource& resource) {
    const auto stored = ground_.store.objects().get(key_of(resource));
    if (!stored || !is_shared(resource.metadata.labels)) {
      return stored && same_content(*stored, resource);
    }
    Resource alike = resource;  // who opened it last may have been a run
    for (const char* field : {"openedBy", "handler"}) {
      ensure_object(alike.body, "spec").erase(field);
      if (const Json* known = stored->spec().if_contains(field)) {
        ensure_object(alike.body, "spec")[field] = *known;
      }
    }
    return alike.body == stored->body;
  });
}

Result<std::vector<Resource>> Deployments::render(DeployRequest request) {
  METIER_TRY(prepared, prepare(request, "", nullptr));
  return std::move(prepared.resources);
}

Async<Result<Json>> Deployments::deploy(DeployRequest request) {
  METIER_FAILPOINT("deploy/read");
  if (stopping_) { co_return fail(ErrorKind::unavailable, "the server is stopping"); }
  auto parsed = Function::from_json(request.function);
  if (!parsed) { co_return fail(std::move(parsed.error())); }
  const std::string project = parsed->project().empty() ? "default" : parsed->project();
  const std::string key = deployment_key(project, normalize_name(parsed->name()), tag_of(*parsed));
  // A removal that is on its way ends first.
  const auto patience = std::chrono::steady_clock::now() + kRemovalWait;
  while (std::chrono::steady_clock::now() < patience) {
    const auto found = live_.find(key);
    if (found == live_.end() || !found->second->plan.removing) { break; }
    const LivePtr live = found->second;
    co_await live->changed.wait(
        live->changed.generation(),
        std::min(patience, std::chrono::steady_clock::now() + std::chrono::milliseconds(500)));
  }
  std::optional<Condition> no_context;
  std::string context;
  if (!request.context.empty() && request.caller.over_unix_socket) {
    const std::int64_t reader = request.caller.uid == 0 ? -1 : request.caller.uid;
    auto snapshot =
        co_await offload(ground_.loop, [snapshots = engine_.snapshots_, folder = request.context,
                                        reader] { return snapshots->take(folder, reader); });
    if (snapshot) {
      context = *snapshot;
    } else {
      no_context = without_context(snapshot.error());
    }
  }
  for (int attempt = 0;; ++attempt) {
    const auto found = live_.find(key);
    const LivePtr before = found == live_.end() ? nullptr : found->second;
    if (before && before->plan.removing) {
      co_return fail(Error{.kind = ErrorKind::conflict,
                           .message = "function " + quote(before->plan.name) +
                                      " is being deleted and its pods have not ended yet",
                           .fix = "try again in a moment"});
    }
    const std::uint64_t epoch = before ? before->epoch : 0;
    auto prepared = prepare(request, context, before ? &before->plan : nullptr);
    if (!prepared) { co_return fail(std::move(prepared.error())); }
    auto admission = co_await ground_.cluster.admit(prepared->resources);
    if (!admission) { co_return fail(std::move(admission.error()).in("admission")); }
    if (admission->verdict != Admission::Verdict::ok) {
      const bool never = admission->verdict == Admission::Verdict::never_fits;
      co_return fail(Error{.kind = never ? ErrorKind::exhausted : ErrorKind::unsupported,
                           .message = admission->reason,
                           .fix = admission->fix,
                           .code = admission->code.empty() ? "NeverFits" : admission->code});
    }
    JsonArray notes;
    for (const Condition& warning : admission->warnings) {
      notes.push_back(condition_json(warning));
    }
    if (no_context) { notes.push_back(condition_json(*no_context)); }
    for (const std::string& warning :
         prepared->kind->ignored(Subject{prepared->function, nullptr}, engine_.site_of(project))) {
      notes.push_back(condition_json(ignored_field(warning)));
    }
    prepared->plan.notes = std::move(notes);
    const auto still = live_.find(key);
    if ((still == live_.end() ? nullptr : still->second) != before ||
        (before && before->epoch != epoch)) {
      continue;  // another deploy or a removal came first
    }
    // From here on the deployment counts: whoever comes meanwhile sees it.
    const LivePtr live = before ? before : adopt(prepared->plan, prepared->function);
    auto stored = co_await store(*prepared, before ? live->plan.generation : 0);
    if (!stored) {
      if (!before) { drop(live); }
      // A controller wrote a status between reading and writing.
      if (stored.error().kind == ErrorKind::conflict && attempt < 8) { continue; }
      co_return fail(std::move(stored.error()));
    }
    std::vector<ResourceKey> old;
    if (before) {
      for (const ResourceKey& object : live->plan.objects) {
        if (std::ranges::find(prepared->plan.objects, object) == prepared->plan.objects.end()) {
          old.push_back(object);
        }
      }
    }
    live->plan = prepared->plan;
    live->function = prepared->function;
    live->failures = 0;
    live->applying = true;
    ++live->epoch;
    live->revision = ++revision_;
    live->changed.notify();
    METIER_FAILPOINT("deploy/committed");
    Function answer = prepared->function;
    answer.metadata()["hash"] = live->plan.hash;
    answer.document()["status"] = live->plan.status;
    scope_.spawn("deploy " + key, apply(live, std::move(prepared->resources), std::move(old)));
    METIER_FAILPOINT("deploy/answer");
    co_return Json(answer.document());
  }
}

Async<Result<void>> Deployments::store(const Prepared& prepared, std::int64_t before) {
  const bool in_one = ground_.cluster.name() == "embedded";
  // Objects that exist keep what the cluster itself added; a changed Pod is replaced later (Pods never change).
  std::vector<Resource> puts;
  if (in_one) {
    for (const Resource& resource : prepared.resources) {
      auto known = ground_.store.objects().get(key_of(resource));
      if (known && (resource.kind == "Pod" || same_content(*known, resource))) { continue; }
      Resource next = resource;
      if (known) {
        next.metadata.uid = known->metadata.uid;
        next.metadata.other = known->metadata.other;
        next.status = known->status;
        next.version = known->version;
      } else {
        next.metadata.uid = new_uid(ground_.random);
        next.metadata.other["creationTimestamp"] = to_iso(ground_.clock.now());
      }
      puts.push_back(std::move(next));
    }
  }
  const DeploymentPlan plan = prepared.plan;
  const Function function = prepared.function;
  auto done =
      co_await ground_.store.write([&, now = ground_.clock.now()](Records& tx) -> Result<void> {
        METIER_FAILPOINT_RETURN("deploy/commit");
        METIER_TRY(known, read_deployment(tx, deployment_key(plan.project, plan.name, plan.tag)));
        if (known ? known->removing || known->generation != before : before != 0) {
          return fail(ErrorKind::conflict, "the function was deployed or deleted meanwhile");
        }
        METIER_CHECK(put_function_record(tx, function, plan.hash, plan.tag, plan.status, now));
        METIER_CHECK(write_deployment(tx, plan));
        for (const Resource& object : puts) { METIER_CHECK(tx.put_object(object, object.version)); }
        return {};
      });
  co_return done;
}

Async<Result<void>> Deployments::remove(std::string project, std::string name) {
  const std::string form = normalize_name(name);
  std::vector<LivePtr> mine;
  for (const auto& [key, live] : live_) {
    if (live->plan.project == project && (live->plan.name == form || live->plan.name == name)) {
      mine.push_back(live);
    }
  }
  auto stored = co_await ground_.store.write([&](Records& tx) -> Result<void> {
    METIER_CHECK(tx.delete_function(project, name));
    if (form != name) { METIER_CHECK(tx.delete_function(project, form)); }
    for (const LivePtr& live : mine) {
      METIER_TRY(plan, read_deployment(tx, live->key()));
      if (!plan) { continue; }
      plan->removing = true;
      METIER_CHECK(write_deployment(tx, *plan));
    }
    return {};
  });
  if (!stored) { co_return fail(std::move(stored.error())); }
  METIER_FAILPOINT("deploy/removal_committed");
  for (const LivePtr& live : mine) {
    if (std::exchange(live->plan.removing, true)) { continue; }
    ++live->epoch;
    live->revision = ++revision_;
    live->changed.notify();
    scope_.spawn("remove " + live->key(), tear_down(live));
  }
  co_return Result<void>{};
}

// What the function shares with its runs, of earlier generations too.
Async<std::vector<Selector>> Deployments::shared_by(const DeploymentPlan& plan) const {
  std::vector<Selector> out;
  if (plan.shared.empty()) { co_return out; }
  auto listed = co_await ground_.cluster.list(
      {.name_space = plan.project,
       .labels = {{"mlrun/class", plan.kind},
                  {"mlrun/function", plan.name},
                  {"mlrun/tag", plan.tag.empty() ? "latest" : plan.tag}}});
  std::set<std::string> names(plan.shared.begin(), plan.shared.end());
  for (const ResourceStatus& status : listed ? *listed : std::vector<ResourceStatus>{}) {
    if (const auto name = status.labels.find(kSharedLabel); name != status.labels.end()) {
      names.insert(name->second);
    }
  }
  for (const std::string& name : names) {
    out.push_back({.name_space = plan.project, .labels = {{std::string(kSharedLabel), name}}});
  }
  co_return out;
}

Async<void> Deployments::tear_down(LivePtr live) {
  std::vector<Selector> all = co_await shared_by(live->plan);
  all.push_back({.name_space = live->plan.project,
                 .labels = {{std::string(kDeploymentLabel),
                             deployment_label(live->plan.name, live->plan.tag)}}});
  auto pause = std::chrono::milliseconds(100);
  while (!stopping_) {
    bool gone = true;
    for (const Selector& one : all) {
      auto removed = co_await ground_.cluster.remove(one, {.reason = "FunctionDeleted"});
      auto left = co_await ground_.cluster.list(one);
      gone = gone && removed && left && left->empty();
    }
    if (gone) { break; }
    const std::uint64_t seen = live->changed.generation();
    co_await live->changed.wait(seen, std::chrono::steady_clock::now() + pause);
    pause = std::min(pause * 2, std::chrono::milliseconds(2000));
  }
  if (stopping_) { co_return; }
  const DeploymentPlan plan = live->plan;
  while (!stopping_) {
    auto forgotten =
        co_await ground_.store.write([plan](Records& tx) { return forget_deployment(tx, plan); });
    if (forgotten) {
      drop(live);
      break;
    }
    ground_.log.warn("removed deployment not forgotten, it is tried again",
                     {{"function", Json(live->key())}, {"error", Json(forgotten.error().text())}});
    co_await sleep_for(ground_.loop, kForgetRetry);
  }
}

void Deployments::drop(const LivePtr& live) {
  live->done = true;
  keys_.erase(live->plan.project + "/" + deployment_label(live->plan.name, live->plan.tag));
  live_.erase(live->key());
  live->changed.notify();
}

Async<Result<void>> Deployments::start() {
  METIER_FAILPOINT("deploy/recover");
  auto plans = all_deployments(ground_.store.records());
  if (!plans) { co_return fail(std::move(plans.error()).in("deployments")); }
  std::vector<LivePtr> found;
  for (DeploymentPlan& plan : *plans) {
    auto function = Function::from_json(plan.function);
    if (!function) {
      ground_.log.error("a stored deployment is damaged",
                        {{"function", Json(plan.name)}, {"error", Json(function.error().text())}});
      continue;
    }
    found.push_back(adopt(std::move(plan), std::move(*function)));
  }
  auto watch =
      ground_.cluster.watch(Selector{}, [this](const ResourceStatus& status) { heard(status); });
  if (!watch) { co_return fail(std::move(watch.error())); }
  watch_ = std::move(*watch);
  for (const LivePtr& live : found) {
    if (live->plan.removing) {
      scope_.spawn("remove " + live->key(), tear_down(live));
      continue;
    }
    std::vector<Resource> resources;
    for (const ResourceKey& key : live->plan.objects) {
      auto object = ground_.store.objects().get(key);
      const auto at = object ? object->metadata.annotations.find(kGenerationAnnotation)
                             : Labels::const_iterator{};
      if (object && at != object->metadata.annotations.end() &&
          at->second == std::to_string(live->plan.generation)) {
        resources.push_back(std::move(*object));
      }
    }
    // What is shared goes its own way once it has been opened.
    const bool unopened = !live->plan.shared.empty() && live->plan.state() == "deploying";
    if (resources.size() != live->plan.objects.size() || unopened) {
      // What the cluster lacks, or has of the generation before, is lowered again.
      auto lowered = lower(live->function, live->plan);
      if (!lowered) {
        auto said = co_await set_status(
            live, JsonObject{{"state", "error"}, {"message", lowered.error().text()}}, false);
        if (!said) { co_return fail(std::move(said.error())); }
        continue;
      }
      resources = std::move(*lowered);
      if (!unopened) {
        std::erase_if(resources,
                      [](const Resource& one) { return is_shared(one.metadata.labels); });
      }
    }
    live->applying = true;
    scope_.spawn("deploy " + live->key(), apply(live, std::move(resources), {}));
  }
  co_return Result<void>{};
}

Async<void> Deployments::stop() {
  stopping_ = true;
  watch_.reset();
  for (const auto& [key, live] : live_) { live->changed.notify(); }
  auto closed = co_await scope_.close(std::chrono::seconds(5));
  if (!closed) {
    ground_.log.warn("deployments did not stop in time", {{"error", Json(closed.error().text())}});
  }
}

}  // namespace metier
