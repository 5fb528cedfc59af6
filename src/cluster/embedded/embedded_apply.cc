// Admission and changes of objects in the embedded cluster.
#include <fmt/format.h>

#include "cluster/controllers/pod_group.h"
#include "cluster/embedded/embedded_cluster.h"
#include "cluster/embedded/entry.h"

namespace metier {
namespace {

bool is_known_kind(std::string_view kind) {
  static constexpr std::string_view kKinds[] = {
      "Pod", "Service", "Secret", "ConfigMap", "PersistentVolumeClaim", "PodGroup"};
  return std::ranges::find(kKinds, kind) != std::end(kKinds);
}

void ignored(Admission& admission, std::string_view field, std::string_view why) {
  for (const auto& warning : admission.warnings) {
    if (warning.message.starts_with(field)) { return; }
  }
  admission.warnings.push_back(
      {.type = "FieldIgnored",
       .status = true,
       .reason = "FieldIgnored",
       .message = fmt::format("{} has no effect on the embedded cluster: {}", field, why),
       .since = {}});
}

void unsupported(Admission& admission, std::string reason, std::string fix) {
  if (admission.verdict != Admission::Verdict::ok) { return; }
  admission.verdict = Admission::Verdict::unsupported;
  admission.reason = std::move(reason);
  admission.fix = std::move(fix);
  admission.code = "Unsupported";
}

// Without a mount namespace a volume can only be where its folder is.
std::optional<std::string> admit_mounts(const Pod& pod, const std::vector<Condition>& limits) {
  const bool no_mounts = std::ranges::any_of(limits, [](const Condition& limit) {
    return limit.type == "NoMountNamespace" && limit.status;
  });
  if (!no_mounts) { return std::nullopt; }
  for (const auto* containers : {&pod.init_containers, &pod.containers}) {
    for (const auto& container : *containers) {
      for (const auto& mount : container.mounts) {
        const auto volume = std::ranges::find(pod.volumes, mount.name, &Volume::name);
        const bool in_place = volume != pod.volumes.end() &&
                              volume->kind == Volume::Kind::host_path &&
                              volume->source == mount.mount_path && mount.sub_path.empty();
        if (!in_place) {
          return fmt::format("volume {} cannot be at {}: this host allows no mount namespace",
                             quote(mount.name), quote(mount.mount_path));
        }
      }
    }
  }
  return std::nullopt;
}

bool has_value(const JsonObject& object, std::string_view key) {
  const auto* value = object.if_contains(key);
  return value != nullptr && !is_empty_value(*value) && !value->is_null();
}

}  // namespace

void EmbeddedCluster::warn_ignored(const Resource& resource, const Pod& pod,
                                   Admission& admission) const {
  const auto& spec = resource.spec();
  if (has_value(spec, "nodeSelector")) {
    ignored(admission, "spec.nodeSelector", "there is one node");
  }
  if (has_value(spec, "affinity")) { ignored(admission, "spec.affinity", "there is one node"); }
  if (has_value(spec, "tolerations")) {
    ignored(admission, "spec.tolerations", "there is one node");
  }
  if (has_value(spec, "topologySpreadConstraints")) {
    ignored(admission, "spec.topologySpreadConstraints", "there is one node");
  }
  if (has_value(spec, "imagePullSecrets")) {
    ignored(admission, "spec.imagePullSecrets", "images are environments here");
  }
  if (!pod.node_name.empty() && pod.node_name != options_.host.name) {
    ignored(admission, "spec.nodeName",
            fmt::format("the one node is {}", quote(options_.host.name)));
  }
  if (!pod.service_account.empty() && pod.service_account != "default") {
    ignored(admission, "spec.serviceAccountName",
            fmt::format("there are no service accounts, {} neither", quote(pod.service_account)));
  }
  if (!pod.priority_class.empty() && !options_.priorities.contains(pod.priority_class)) {
    std::string classes;
    for (const auto& [name, rank] : options_.priorities) {
      classes += (classes.empty() ? ", which are " : ", ") + name;
    }
    ignored(admission, "spec.priorityClassName",
            fmt::format("{} is not one of the server's priority classes{}",
                        quote(pod.priority_class), classes));
  }
  for (const auto& container : pod.containers) {
    if (container.image_pull_policy == "Always") {
      ignored(admission, "imagePullPolicy", "images are environments here");
    }
  }
}

Result<void> EmbeddedCluster::admit_pod(const Resource& resource, Admission& admission) const {
  METIER_TRY(pod, pod_from(resource, options_.rules));
  for (const auto& volume : pod.volumes) {
    if (volume.kind == Volume::Kind::other) {
      unsupported(admission,
                  fmt::format("volume {}: type {} is not supported on the embedded cluster",
                              quote(volume.name), quote(volume.source)),
                  "use hostPath, emptyDir, secret, configMap or persistentVolumeClaim");
    }
  }
  if (auto refused = admit_mounts(pod, driver_.limits_of_host())) {
    unsupported(admission, std::move(*refused),
                "mount folders at their own path, or run the server as root or where user "
                "namespaces are allowed");
  }
  if (const auto never = scheduler_.never_fits(pod_requests(pod));
      never && admission.verdict == Admission::Verdict::ok) {
    admission.verdict = Admission::Verdict::never_fits;
    admission.code = never->code;
    admission.reason = fmt::format("{} {}", pod.metadata.name, never->reason);
    admission.fix = "ask for at most that, or run it where there is more";
  }
  warn_ignored(resource, pod, admission);
  return {};
}

Result<void> EmbeddedCluster::admit_all(std::span<const Resource> resources, Admission& admission,
                                        bool nested) const {
  struct Gang {
    int members = 0;
    int fitting = 0;  // so many of them would fit together
    Amounts sum;
  };
  std::map<std::string, Gang> gangs;  // by group
  std::map<std::string, int> least;
  for (const auto& resource : resources) {
    if (auto checked = check_metadata(resource.metadata); !checked) {
      return fail(std::move(checked.error()));
    }
    if (resource.kind == "PodGroup") {
      least[resource.metadata.name] =
          static_cast<int>(int_in(resource.spec(), "minMember").value_or(1));
    }
  }
  for (const auto& resource : resources) {
    const auto* controller = controller_of(resource.kind);
    if (resource.kind == "Pod") {
      METIER_CHECK(admit_pod(resource, admission));
      const auto group = resource.metadata.labels.find(kPodGroupLabel);
      if (group == resource.metadata.labels.end()) { continue; }
      Gang& gang = gangs[group->second];
      if (const auto wanted = least.find(group->second);
          wanted != least.end() && gang.members >= wanted->second) {
        continue;
      }
      ++gang.members;
      METIER_TRY(pod, pod_from(resource, options_.rules));
      for (const auto& [name, amount] : pod_requests(pod)) {
        gang.sum[name] = Quantity::from_milli(gang.sum[name].milli() + amount.milli());
      }
      if (!scheduler_.never_fits(gang.sum)) { gang.fitting = gang.members; }
    } else if (controller != nullptr && !nested) {
      // Its controller says what it would make of it.
      const auto made = controller->reconcile(resource, {}, Facts(), clock_.now());
      auto pods = made.create;
      for (auto& object : pods) {
        if (object.metadata.name_space.empty()) {
          object.metadata.name_space = resource.metadata.name_space;
        }
      }
      METIER_CHECK(admit_all(pods, admission, true));
    } else if (controller == nullptr && !is_known_kind(resource.kind)) {
      unsupported(admission,
                  fmt::format("the embedded cluster has no controller for {} ({})", resource.kind,
                              resource.api_version),
                  "use a Kubernetes cluster that has its operator");
    }
  }
  for (const auto& [group, gang] : gangs) {
    const auto never = scheduler_.never_fits(gang.sum);
    if (never && admission.verdict == Admission::Verdict::ok) {
      admission.verdict = Admission::Verdict::never_fits;
      admission.code = never->code;
      admission.reason =
          fmt::format("the gang {} of {} pods together {}", group, gang.members, never->reason);
      admission.fix = fmt::format(
          "{} of them fit together: ask for fewer (--replicas) or smaller ones (--cpu, --mem)",
          gang.fitting);
    }
  }
  return {};
}

Async<Result<Admission>> EmbeddedCluster::admit(std::span<const Resource> resources) {
  Admission out;
  auto admitted = admit_all(resources, out, false);
  if (!admitted) { co_return fail(std::move(admitted.error())); }
  co_return out;
}

Async<Result<void>> EmbeddedCluster::apply(std::vector<Resource> resources) {
  for (const auto& resource : resources) {
    auto checked = check_metadata(resource.metadata);
    if (checked && resource.kind == "Pod") {
      if (auto pod = pod_from(resource, options_.rules); !pod) {
        checked = fail(std::move(pod.error()));
      }
    }
    if (!checked) { co_return fail(std::move(checked.error()).in(key_of(resource).text())); }
    if (!is_known_kind(resource.kind) && controller_of(resource.kind) == nullptr) {
      co_return fail(Error{
          .kind = ErrorKind::unsupported,
          .message = fmt::format("the embedded cluster has no controller for {}", resource.kind),
          .field = "kind",
          .fix = "use a Kubernetes cluster that has its operator",
          .code = {}});
    }
  }
  for (auto& resource : resources) {
    auto applied = co_await apply_one(std::move(resource));
    if (!applied) { co_return fail(std::move(applied.error())); }
  }
  co_return Result<void>{};
}

Async<Result<void>> EmbeddedCluster::apply_one(Resource resource) {
  const auto key = key_of(resource);
  while (true) {
    const auto stored = store_.get(key);
    auto next = resource;
    if (stored) {
      if (stored->metadata.other.contains("deletionTimestamp")) {
        co_return fail(Error{.kind = ErrorKind::conflict,
                             .message = fmt::format("{} is being removed", key.text()),
                             .field = {},
                             .fix = "wait until it is gone",
                             .code = {}});
      }
      // What was stopped stays stopped when the same wish is applied again, as after a restart of the engine.
      if (const auto stopped = stored->metadata.annotations.find(kStoppedAnnotation);
          stopped != stored->metadata.annotations.end()) {
        next.metadata.annotations.insert(*stopped);
      }
      if (same_content(*stored, next)) { co_return Result<void>{}; }
      if (resource.kind == "Pod") {
        co_return fail(Error{.kind = ErrorKind::conflict,
                             .message = fmt::format("{} exists with another content", key.text()),
                             .field = {},
                             .fix = "pods never change: remove it first, or use another name",
                             .code = {}});
      }
      next.metadata.uid = stored->metadata.uid;
      next.status = stored->status;
    } else {
      if (next.metadata.uid.empty()) { next.metadata.uid = new_uid(*options_.random); }
      if (next.kind == "Pod") { next.status = to_json(PodStatus{}); }
      next.metadata.other["creationTimestamp"] = to_iso(clock_.now());
    }
    auto put = co_await store_.put_if_version(std::move(next), stored ? stored->version : 0);
    if (put) { co_return Result<void>{}; }
    if (put.error().kind != ErrorKind::conflict) { co_return fail(std::move(put.error())); }
  }
}

std::vector<EmbeddedCluster::EntryPtr> EmbeddedCluster::owned_by(const std::string& uid) const {
  std::vector<EntryPtr> out;
  const auto found = by_owner_.find(uid);
  if (uid.empty() || found == by_owner_.end()) { return out; }
  for (const auto& id : found->second) { out.push_back(by_uid_.at(id)); }
  return out;
}

// The wish to remove survives a crash.
Async<Result<void>> EmbeddedCluster::mark_for_removal(ResourceKey key) {
  while (true) {
    auto object = store_.get(key);
    if (!object || object->metadata.other.contains("deletionTimestamp")) {
      co_return Result<void>{};
    }
    const auto version = object->version;
    object->metadata.other["deletionTimestamp"] = to_iso(clock_.now());
    auto put = co_await store_.put_if_version(std::move(*object), version);
    if (put) { co_return Result<void>{}; }
    if (put.error().kind != ErrorKind::conflict) { co_return fail(std::move(put.error())); }
  }
}

// Owners first: a controller must not make new pods in place of those that are taken from it.
std::vector<Resource> EmbeddedCluster::owners_first(const Selector& selector) const {
  auto out = store_.list(selector);
  std::ranges::partition(
      out, [&](const Resource& object) { return controller_of(object.kind) != nullptr; });
  return out;
}

Async<Result<void>> EmbeddedCluster::remove(Selector selector, StopOptions options) {
  if (options.how == StopOptions::How::detach) {
    co_return fail(invalid("how", "a pod that is let go cannot be removed",
                           "stop with detach keeps it; remove ends it"));
  }
  if (options.reason.empty()) { options.reason = "Removed"; }
  for (const auto& object : owners_first(selector)) {
    auto removed = co_await remove_one(object, options);
    if (!removed) { co_return fail(std::move(removed.error())); }
  }
  co_return Result<void>{};
}

Async<Result<void>> EmbeddedCluster::remove_one(Resource object, StopOptions options) {
  const auto key = key_of(object);
  const bool is_pod = object.kind == "Pod";
  auto pods = is_pod ? std::vector<EntryPtr>() : owned_by(object.metadata.uid);
  if (const auto found = by_uid_.find(object.metadata.uid); is_pod && found != by_uid_.end()) {
    pods.push_back(found->second);
  }
  const bool lives =
      std::ranges::any_of(pods, [](const EntryPtr& entry) { return !entry->ended(); });
  if (lives) {
    auto marked = co_await mark_for_removal(key);
    if (!marked) { co_return fail(std::move(marked.error())); }
  }
  if (!is_pod && !pods.empty()) { owners_[object.metadata.uid] = {key, true}; }
  for (const auto& entry : pods) {
    const bool again = entry->removal.has_value();
    entry->removal = options;
    if (entry->ended()) {
      if (!entry->writing) { co_await finish_removal(entry); }
    } else if (!again || options.how == StopOptions::How::forced) {
      co_await stop_pod(entry, options);
    }
  }
  if (is_pod && !pods.empty()) { co_return Result<void>{}; }  // the end of its entry removes it
  if (lives) {
    spawn("remove owner", finish_owner_removal(key, object.metadata.uid));
    co_return Result<void>{};
  }
  co_return co_await store_.remove(key);
}

Async<void> EmbeddedCluster::finish_owner_removal(ResourceKey key, std::string uid) {
  while (true) {
    const auto generation = settled_.generation();
    if (!by_owner_.contains(uid)) { break; }
    (void)co_await settled_.wait(generation);
  }
  while (true) {
    const auto object = store_.get(key);
    if (!object || object->metadata.uid != uid) { co_return; }
    auto removed = co_await store_.remove(key);
    if (removed) { co_return; }
    options_.log.error("object not removed, it is tried again",
                       {{"object", Json(key.text())}, {"error", Json(removed.error().text())}});
    co_await sleep_for(executor_, kStoreRetry);
  }
}

Async<Result<void>> EmbeddedCluster::stop(Selector selector, StopOptions options) {
  std::set<std::string> asked;
  for (auto& object : owners_first(selector)) {
    std::vector<EntryPtr> pods;
    if (object.kind == "Pod") {
      const auto found = by_uid_.find(object.metadata.uid);
      if (found != by_uid_.end()) { pods.push_back(found->second); }
    } else if (controller_of(object.kind) != nullptr && options.how != StopOptions::How::detach) {
      auto marked = co_await mark_stopped(key_of(object),
                                          options.reason.empty() ? "Stopped" : options.reason);
      if (!marked) { co_return fail(std::move(marked.error())); }
      pods = owned_by(object.metadata.uid);
    }
    for (const auto& entry : pods) {
      if (asked.insert(entry->uid).second) { co_await stop_pod(entry, options); }
    }
  }
  co_return Result<void>{};
}

// The controller of a stopped resource makes no more pods.
Async<Result<void>> EmbeddedCluster::mark_stopped(ResourceKey key, std::string reason) {
  while (true) {
    auto object = store_.get(key);
    if (!object || object->metadata.annotations.contains(kStoppedAnnotation)) {
      co_return Result<void>{};
    }
    const auto version = object->version;
    object->metadata.annotations.emplace(kStoppedAnnotation, reason);
    auto put = co_await store_.put_if_version(std::move(*object), version);
    if (put) { co_return Result<void>{}; }
    if (put.error().kind != ErrorKind::conflict) { co_return fail(std::move(put.error())); }
  }
}

}  // namespace metier
