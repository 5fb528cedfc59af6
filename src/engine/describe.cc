#include "engine/describe.h"

#include <algorithm>

#include "engine/phases.h"

namespace metier {
namespace {

Error no_run(const std::string& project, const std::string& text) {
  return Error{.kind = ErrorKind::not_found,
               .message = "no run " + quote(text) + " in project " + quote(project),
               .fix = "see: metier get runs -P " + project};
}

void add_amounts(std::map<std::string, Quantity, std::less<>>& into,
                 const std::map<std::string, Quantity, std::less<>>& more) {
  for (const auto& [name, amount] : more) {
    into[name] = Quantity::from_milli(into[name].milli() + amount.milli());
  }
}

void add_secret_refs(std::vector<std::pair<std::string, std::string>>& into, const Pod& pod) {
  for (const auto* containers : {&pod.init_containers, &pod.containers}) {
    for (const Container& container : *containers) {
      for (const auto& variable : container.env) {
        if (variable.secret) { into.emplace_back(variable.secret->name, variable.secret->key); }
      }
    }
  }
}

}  // namespace

Result<std::string> Describe::find_run(const std::string& project, const std::string& text) const {
  const Records& records = ground_.store.records();
  METIER_TRY(exact, records.run(project, text, 0));
  if (exact) { return text; }
  METIER_TRY(uids, records.uids_with_prefix(project, text));
  if (uids.size() == 1) { return uids.front(); }
  if (uids.size() > 1) {
    std::string some;
    for (std::size_t i = 0; i < std::min<std::size_t>(uids.size(), 3); ++i) {
      some += (i > 0 ? ", " : "") + uids[i].substr(0, 12);
    }
    return fail(
        Error{.kind = ErrorKind::conflict,
              .message = quote(text) + " fits " + std::to_string(uids.size()) + " runs: " + some,
              .fix = "give more of the uid"});
  }
  RunFilter filter;
  filter.project = project;
  filter.name = text;
  filter.only_parents = true;
  filter.limit = 1;
  METIER_TRY(rows, records.runs(filter));
  for (const RunRow& row : rows) {
    if (row.name == text) { return row.uid; }
  }
  return fail(no_run(project, text));
}

Async<Result<Why>> Describe::why(std::string project, std::string uid) {
  auto run = read_run(ground_.store.records(), project, uid);
  if (!run) { co_return fail(std::move(run.error())); }
  if (!*run) { co_return fail(no_run(project, uid)); }
  WhyFacts facts;
  facts.run = &**run;
  facts.now = ground_.clock.now();
  std::vector<ResourceStatus> statuses = engine_.resources_of(project, uid);
  if (statuses.empty()) {
    Selector selector;
    selector.name_space = project;
    selector.labels["mlrun/uid"] = uid;
    auto listed = co_await ground_.cluster.list(selector);
    if (listed) { statuses = std::move(*listed); }
  }
  for (const ResourceStatus& status : statuses) {
    if (status.key.kind != "Pod") { continue; }
    facts.pods.emplace_back(status.key.name, pod_status_from_json(status.status));
    if (!facts.queue) { facts.queue = ground_.cluster.queue_position(project, status.key.name); }
    if (auto object = ground_.store.objects().get(status.key)) {
      if (auto pod = pod_from(*object)) {
        add_amounts(facts.asked, pod_requests(*pod));
        add_amounts(facts.limits, pod_limits(*pod));
        add_secret_refs(facts.secret_refs, *pod);
      }
    }
  }
  for (const auto& [pod, amount] :
       facts.queue ? facts.queue->held_by : std::vector<std::pair<std::string, std::string>>{}) {
    Holder holder{.pod = pod, .amount = amount, .run = {}, .project = {}, .uid = {}};
    if (const Run* holding = engine_.run_of_pod(pod)) {
      holder.run = holding->name();
      holder.project = holding->project();
      holder.uid = holding->uid();
    }
    facts.holders.push_back(std::move(holder));
  }
  const Silence silence = engine_.silence_of(project, uid);
  facts.silent = silence.idle;
  if (silence.mute) { facts.ranks = co_await engine_.stacks(project, uid); }
  auto health = co_await ground_.cluster.probe();
  if (health) { facts.health = std::move(*health); }
  Why out = metier::why(facts);
  const Masker masker = engine_.masker_of(project, uid);
  masker.mask(out.sentence);
  for (auto& [name, value] : out.facts) { masker.mask(value); }
  co_return out;
}

Result<Json> Describe::timeline(const std::string& project, const std::string& uid) const {
  METIER_TRY(row, ground_.store.records().run(project, uid, 0));
  if (!row) { return fail(no_run(project, uid)); }
  METIER_TRY(rows, ground_.store.records().timeline(project, uid));
  std::int64_t last = 1;
  for (const TimelineRow& one : rows) { last = std::max(last, one.attempt); }
  JsonArray attempts;
  for (std::int64_t attempt = 1; attempt <= last; ++attempt) {
    const std::vector<Phase> phases = phases_of(rows, attempt, ground_.clock.now());
    if (phases.empty()) { continue; }
    attempts.push_back(JsonObject{
        {"attempt", attempt},
        {"phases", to_json(phases)},
        {"start", to_iso(phases.front().from)},
        {"seconds",
         std::chrono::duration<double>(phases.back().to - phases.front().from).count()}});
  }
  Json newest = attempts.empty() ? Json(JsonArray{}) : attempts.back().get_object()["phases"];
  JsonArray events;
  for (const TimelineRow& one : rows) {
    auto detail = parse_json(one.detail);
    events.push_back(JsonObject{{"at", to_iso(one.at)},
                                {"attempt", one.attempt},
                                {"what", one.what},
                                {"detail", detail ? std::move(*detail) : Json(nullptr)}});
  }
  JsonArray parts;  // when each pod and rank ran
  METIER_TRY(known, engine_.parts(project, uid));
  for (const Json& part : known) {
    JsonObject one;
    for (const char* key : {"name", "pod", "state", "start_time", "end_time"}) {
      if (const Json* value = part.get_object().if_contains(key)) { one[key] = *value; }
    }
    parts.push_back(std::move(one));
  }
  Json out = JsonObject{{"uid", uid},
                        {"project", project},
                        {"state", row->state},
                        {"parts", std::move(parts)},
                        {"phases", std::move(newest)},
                        {"attempts", std::move(attempts)},
                        {"events", std::move(events)}};
  engine_.masker_of(project, uid).mask(out);
  return out;
}

Async<Result<Json>> Describe::pods(std::string project, std::string uid, Detail detail) {
  Selector selector;
  selector.kind = "Pod";
  if (project != "*") { selector.name_space = project; }
  if (!uid.empty()) { selector.labels["mlrun/uid"] = uid; }
  auto all = co_await ground_.cluster.list(selector);
  if (!all) { co_return fail(std::move(all.error())); }
  JsonArray out;
  for (const ResourceStatus& status : *all) {
    const auto of = status.labels.find("mlrun/uid");
    const auto kind = status.labels.find("mlrun/class");
    Json shown = status.status.is_object() ? status.status : Json(JsonObject{});
    shown.get_object().erase("metier");
    out.push_back(JsonObject{{"name", status.key.name},
                             {"metadata", JsonObject{{"name", status.key.name},
                                                     {"namespace", status.key.name_space},
                                                     {"labels", labels_json(status.labels)}}},
                             {"project", status.key.name_space},
                             {"run", of == status.labels.end() ? "" : of->second},
                             {"kind", kind == status.labels.end() ? "" : kind->second},
                             {"status", std::move(shown)}});
    if (detail == Detail::brief) { continue; }
    if (const auto object = ground_.store.objects().get(status.key)) {
      Json spec(object->spec());
      engine_.masker_of(status.key.name_space, of == status.labels.end() ? "" : of->second)
          .mask(spec);
      out.back().get_object()["spec"] = std::move(spec);
    }
  }
  co_return Json(JsonObject{{"pods", std::move(out)}});
}

Async<Result<Json>> Describe::kinds() {
  auto health = co_await ground_.cluster.probe();
  JsonArray out;
  for (const Kind* kind : ground_.kinds.all()) {
    const KindTraits& traits = kind->traits();
    JsonObject one{{"kind", traits.name},        {"summary", traits.summary},
                   {"usable", traits.available}, {"with", ""},
                   {"note", traits.unavailable}, {"deploys", traits.deploys}};
    if (traits.available && traits.executes == Executes::in_caller) {
      one["with"] = "the caller's own process";
    }
    if (traits.available && traits.executes == Executes::on_host) {
      one["with"] = "a process in the caller's folder";
    }
    if (traits.available && traits.executes == Executes::in_pods) {
      one["with"] = std::string(ground_.cluster.name()) + " cluster";
      if (!health) {
        one["usable"] = false;
        one["note"] = health.error().text();
      } else {
        for (const KindHealth& known : health->kinds) {
          if (known.kind != traits.name) { continue; }
          one["usable"] = known.usable;
          if (!known.with.empty()) { one["with"] = known.with; }
          one["note"] = known.note;
        }
        if (!health->usable) {
          one["usable"] = false;
          one["note"] = health->reason;
        }
      }
    }
    out.push_back(std::move(one));
  }
  Json conditions = JsonArray{};
  if (health) {
    for (const Condition& condition : health->conditions) {
      conditions.get_array().push_back(JsonObject{
          {"type", condition.type}, {"reason", condition.reason}, {"message", condition.message}});
    }
  }
  co_return Json(JsonObject{{"kinds", std::move(out)}, {"conditions", std::move(conditions)}});
}

}  // namespace metier
