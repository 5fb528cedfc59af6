// After a restart of the server: what the store says and what the node has are brought together.
#include <fmt/format.h>

#include <set>

#include "cluster/embedded/embedded_cluster.h"
#include "cluster/embedded/entry.h"

namespace metier {
namespace {

constexpr std::size_t kMostRecovering = 64;

}  // namespace

Async<Result<void>> EmbeddedCluster::recover_pods() {
  auto found = co_await driver_.found();
  if (!found) { co_return fail(std::move(found.error()).in("pods of this node")); }
  std::set<std::string> on_node(found->begin(), found->end());
  auto left = std::make_shared<std::size_t>(0);
  std::vector<EntryPtr> waiting;
  for (const auto& object :
       store_.list({.name_space = {}, .kind = "Pod", .name = {}, .labels = {}, .owner_uid = {}})) {
    const auto entry = track(object, true);
    if (!entry) { continue; }
    const bool has = on_node.erase(entry->uid) > 0;
    if (!has && entry->ended()) {
      if (entry->removal && !entry->removing) { spawn("remove", finish_removal(entry)); }
      continue;
    }
    if (!has && entry->handle.driver.empty()) {
      waiting.push_back(entry);
      continue;
    }
    while (*left >= kMostRecovering) { (void)co_await settled_.wait(settled_.generation()); }
    ++*left;
    if (!spawn("recover", recover_one(entry, left))) {
      co_return fail(ErrorKind::cancelled, "closed while it opened");
    }
  }
  while (*left > 0) { (void)co_await settled_.wait(settled_.generation()); }
  // Never launched. What was placed before keeps its place; a gang of which some run is completed.
  for (const auto& entry : waiting) {
    if (entry->scheduled_before && !entry->unwanted() &&
        !missing_reference(*entry->pod, context())) {
      scheduler_.adopt(request_of(*entry), entry->devices);
      addresses_.adopt(*entry->pod, entry->uid, entry->address);
      entry->stage = Entry::Stage::placed;
      starts_.push_back({entry});
    } else {
      enqueue(entry);
    }
  }
  for (const auto& [uid, owner] : owners_) {
    if (owner.second) { spawn("remove", go_on_removing(owner.first)); }
  }
  for (const auto& id : on_node) { spawn("destroy", destroy_unknown(id)); }
  co_return Result<void>{};
}

Async<void> EmbeddedCluster::recover_one(EntryPtr entry, std::shared_ptr<std::size_t> left) {
  auto handle = entry->handle;
  if (handle.driver.empty()) { handle.driver = driver_.name(); }
  auto recovered = co_await driver_.recover(entry->uid, std::move(handle));
  if (recovered) {
    entry->driver_has = true;
    if (!entry->ended()) {
      // What happened while nobody looked, also an end, comes by the same way as always.
      scheduler_.adopt(request_of(*entry), entry->devices);
      addresses_.adopt(*entry->pod, entry->uid, entry->address);
      entry->stage = Entry::Stage::live;
      auto status = co_await driver_.status(entry->uid);
      if (status) {
        on_status(entry, *status);
      } else {
        fail_entry(entry, "ShimLost", status.error().text());
      }
      if (!entry->ended() && entry->removal) { spawn("stop", stop_pod(entry, *entry->removal)); }
    } else if (entry->removal && !entry->removing) {
      spawn("remove", finish_removal(entry));
    }
  } else if (!entry->ended()) {
    if (recovered.error().kind == ErrorKind::not_found &&
        entry->status.phase == PodPhase::pending) {
      enqueue(entry);
    } else {
      fail_entry(
          entry, recovered.error().code.empty() ? "ShimLost" : recovered.error().code,
          fmt::format("its processes could not be found again: {}", recovered.error().text()));
    }
  }
  --*left;
  settled_.notify();
}

// The server died while it removed a custom resource.
Async<void> EmbeddedCluster::go_on_removing(ResourceKey key) {
  auto removed = co_await remove({.name_space = key.name_space,
                                  .kind = key.kind,
                                  .name = key.name,
                                  .labels = {},
                                  .owner_uid = {}},
                                 {});
  if (!removed) {
    options_.log.error("object not removed",
                       {{"object", Json(key.text())}, {"error", Json(removed.error().text())}});
  }
}

// A folder whose pod is not in the store: its pod was removed while the server was down.
Async<void> EmbeddedCluster::destroy_unknown(std::string id) {
  auto recovered = co_await driver_.recover(
      id, {.driver = std::string(driver_.name()), .version = 0, .payload = {}});
  if (recovered) {
    (void)co_await driver_.stop(
        id, {.how = StopOptions::How::forced, .grace = {}, .reason = "Removed", .message = {}});
    (void)co_await driver_.wait(id);
  }
  auto destroyed = co_await driver_.destroy(id);
  if (!destroyed && destroyed.error().kind != ErrorKind::not_found) {
    options_.log.warn("unknown pod folder not removed",
                      {{"id", Json(id)}, {"error", Json(destroyed.error().text())}});
  }
}

}  // namespace metier
