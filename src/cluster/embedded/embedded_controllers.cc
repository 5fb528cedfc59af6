// Drives controllers: gathers, asks for a decision, writes the status, then acts on it. One reconciliation
// of a resource at a time; what happens meanwhile makes one more.
#include <fmt/format.h>

#include "cluster/controllers/pod_group.h"
#include "cluster/embedded/embedded_cluster.h"
#include "cluster/embedded/entry.h"
#include "resource/pod.h"

namespace metier {

Controller* EmbeddedCluster::controller_of(std::string_view kind) const {
  for (const auto& controller : options_.controllers) {
    if (controller->kind() == kind) { return controller.get(); }
  }
  return nullptr;
}

void EmbeddedCluster::reconcile_owner_of(const Resource& object) {
  if (!object.metadata.owner || recovering_) { return; }
  const auto owner = owners_.find(object.metadata.owner->uid);
  if (owner != owners_.end()) { reconcile_soon(owner->second.first); }
}

void EmbeddedCluster::reconcile_soon(const ResourceKey& key) {
  if (controller_of(key.kind) == nullptr) { return; }
  auto& state = reconciling_[key];
  if (state.running) {
    state.again = true;
    return;
  }
  state.running = true;
  if (!spawn("reconcile", reconcile(key))) { state.running = false; }
}

Async<void> EmbeddedCluster::reconcile(ResourceKey key) {
  auto* controller = controller_of(key.kind);
  while (true) {
    reconciling_[key].again = false;
    alarms_.cancel(reconciling_[key].alarm);
    const auto resource = store_.get(key);
    if (!resource || resource->metadata.other.contains("deletionTimestamp")) { break; }
    if (resource->metadata.uid.empty()) {
      co_await give_uid(key);  // comes back as a changed object
      break;
    }
    Facts facts;
    auto gathered = co_await controller->gather(*resource);
    if (gathered) { facts = std::move(*gathered); }
    Snapshot snapshot;
    for (auto& object : store_.list({.name_space = {},
                                     .kind = {},
                                     .name = {},
                                     .labels = {},
                                     .owner_uid = resource->metadata.uid})) {
      if (object.kind == "Pod") {
        snapshot.pods.push_back(std::move(object));
      } else if (object.kind == "Service") {
        snapshot.services.push_back(std::move(object));
      } else if (object.kind == "PodGroup") {
        snapshot.groups.push_back(std::move(object));
      }
    }
    snapshot.room_wanted =
        controller->gives_room() && scheduler_.others_want_room_of(resource->metadata.uid);
    if (const std::string opener(string_in(resource->spec(), "openedBy")); !opener.empty()) {
      const auto pod = store_.get({.name_space = key.name_space, .kind = "Pod", .name = opener});
      snapshot.opener_over = pod && is_terminal(pod_status_from_json(pod->status).phase);
      snapshot.opener_lives =
          pod && !snapshot.opener_over && !pod->metadata.other.contains("deletionTimestamp");
      for (auto& other :
           store_.list({.name_space = key.name_space,
                        .kind = "Pod",
                        .name = {},
                        .labels = {{std::string(kPodGroupLabel), resource->metadata.name}},
                        .owner_uid = {}})) {
        const bool own =
            other.metadata.owner && other.metadata.owner->uid == resource->metadata.uid;
        if (own || other.metadata.other.contains("deletionTimestamp") ||
            is_terminal(pod_status_from_json(other.status).phase)) {
          continue;
        }
        snapshot.clients.push_back(std::move(other));
      }
    }
    auto decision = controller->reconcile(*resource, snapshot, facts, clock_.now());
    const auto requeue = decision.requeue;
    auto done = co_await carry_out(*resource, std::move(decision));
    auto delay = requeue;
    if (!done && done.error().kind == ErrorKind::conflict) {
      reconciling_[key].again = true;  // it changed under us: look again
    } else if (!done) {
      note(key, true, "ReconcileFailed", done.error().text());
      options_.log.warn("reconcile failed",
                        {{"object", Json(key.text())}, {"error", Json(done.error().text())}});
      delay = std::chrono::seconds(1);
    }
    if (reconciling_[key].again) { continue; }
    if (delay && open_) {
      reconciling_[key].alarm = alarms_.after(*delay, [this, key] { reconcile_soon(key); });
    }
    break;
  }
  auto& state = reconciling_[key];
  state.running = false;
  if (std::exchange(state.again, false)) { reconcile_soon(key); }
  if (!store_.get(key)) { reconciling_.erase(key); }
}

Async<Result<void>> EmbeddedCluster::carry_out(Resource resource, Decision decision) {
  if (decision.status && *decision.status != resource.status) {
    auto next = resource;
    next.status = std::move(*decision.status);
    auto put = co_await store_.put_if_version(std::move(next), resource.version);
    if (!put) { co_return fail(std::move(put.error())); }
  }
  const bool stopped = resource.metadata.annotations.contains(std::string(kStoppedAnnotation));
  std::vector<Resource> wanted = std::move(decision.follow);
  for (auto& object : decision.create) {
    if (!stopped || object.kind != "Pod") { wanted.push_back(std::move(object)); }
  }
  for (auto& object : wanted) {
    if (object.metadata.name_space.empty()) {
      object.metadata.name_space = resource.metadata.name_space;
    }
    if (!object.metadata.owner) { object.metadata.owner = owner_ref_to(resource); }
    if (object.metadata.uid.empty()) { object.metadata.uid = new_uid(*options_.random); }
    if (object.kind == "Pod" && object.status.is_null()) { object.status = to_json(PodStatus{}); }
    const auto key = key_of(object);
    if (const auto stored = store_.get(key)) {
      if (stored->metadata.owner && stored->metadata.owner->uid == resource.metadata.uid) {
        continue;
      }
      co_return fail(
          Error{.kind = ErrorKind::invalid,
                .message = fmt::format("{} exists and belongs to something else", key.text()),
                .field = {},
                .fix = "remove it",
                .code = {}});
    }
    auto put = co_await store_.put_if_version(std::move(object), 0);
    if (!put && put.error().kind != ErrorKind::conflict) { co_return fail(std::move(put.error())); }
  }
  for (const auto& key : decision.stop) {
    auto ended = co_await stop({.name_space = key.name_space,
                                .kind = key.kind,
                                .name = key.name,
                                .labels = {},
                                .owner_uid = {}},
                               {.reason = decision.stop_reason});
    if (!ended) { co_return fail(std::move(ended.error())); }
  }
  for (const auto& key : decision.remove) {
    auto removed = co_await remove({.name_space = key.name_space,
                                    .kind = key.kind,
                                    .name = key.name,
                                    .labels = {},
                                    .owner_uid = {}},
                                   {});
    if (!removed) { co_return fail(std::move(removed.error())); }
  }
  co_return Result<void>{};
}

}  // namespace metier
