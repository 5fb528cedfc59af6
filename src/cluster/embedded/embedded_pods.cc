// The way of a pod through the embedded cluster: queue, placement, start, status, end.
#include <fmt/format.h>
#include <boost/asio/post.hpp>

#include <csignal>

#include "base/failpoint.h"
#include "cluster/embedded/embedded_cluster.h"
#include "cluster/embedded/entry.h"

namespace metier {
namespace {

constexpr std::chrono::seconds kAmbientRetry{1};
constexpr std::chrono::milliseconds kPlaceRetry{20};
constexpr std::chrono::seconds kBlockedRetry{5};

// The name of a folder, so without the slash of a gang's id; a project has no dot in it.
std::string share_group_of(std::string gang) {
  std::ranges::replace(gang, '/', '.');
  return gang;
}

std::string or_else(std::string text, std::string_view fallback) {
  return text.empty() ? std::string(fallback) : text;
}

}  // namespace

PodRequest EmbeddedCluster::request_of(const Entry& entry) const {
  PodRequest out{.id = entry.uid,
                 .name = entry.key.name,
                 .owner = entry.owner,
                 .gang = entry.gang,
                 .priority = entry.pod->priority,
                 .requests = pod_requests(*entry.pod)};
  if (const auto found = options_.priorities.find(entry.pod->priority_class);
      found != options_.priorities.end()) {
    out.priority = found->second;
  }
  return out;
}

void EmbeddedCluster::enqueue(const EntryPtr& entry) {
  if (entry->unwanted()) {
    fail_entry(entry,
               or_else(entry->stop      ? entry->stop->reason
                       : entry->removal ? entry->removal->reason
                                        : "Removed",
                       "Stopped"),
               {});
    return;
  }
  if (auto missing = missing_reference(*entry->pod, context())) {
    block(entry, std::move(*missing));
    return;
  }
  entry->stage = Entry::Stage::queued;
  scheduler_.add(request_of(*entry));
  fresh_waiting_.push_back(entry->uid);
  schedule_soon();
}

void EmbeddedCluster::block(const EntryPtr& entry, MissingReference missing) {
  entry->stage = Entry::Stage::blocked;
  entry->blocked_on = missing.object;
  blocked_[missing.object].insert(entry->uid);
  entry->status.phase = PodPhase::pending;
  entry->status.reason = missing.code;
  entry->status.message = missing.message;
  note(entry->key, true, missing.code, missing.message);
  touch(entry);
  // Objects tell us when they come; a path of the host or a store that could not answer does not.
  static constexpr std::string_view kTold[] = {"SecretMissing", "ConfigMapMissing"};
  if (std::ranges::find(kTold, missing.code) != std::end(kTold) ||
      missing.object.kind == "PersistentVolumeClaim") {
    return;
  }
  alarms_.after(kBlockedRetry, [this, object = std::move(missing.object)] { unblock(object); });
}

void EmbeddedCluster::unblock(const ResourceKey& object) {
  const auto found = blocked_.find(object);
  if (found == blocked_.end()) { return; }
  const auto ids = std::move(found->second);
  blocked_.erase(found);
  for (const auto& id : ids) {
    const auto entry = by_uid_.find(id);
    if (entry == by_uid_.end() || entry->second->stage != Entry::Stage::blocked) { continue; }
    const auto pod = entry->second;
    pod->status.reason.clear();
    pod->status.message.clear();
    enqueue(pod);  // may find the next thing that is missing
    if (pod->stage == Entry::Stage::queued) { touch(pod); }
  }
}

void EmbeddedCluster::secret_changed(const std::string& project, const std::string& name) {
  unblock({.name_space = project, .kind = "Secret", .name = name});
}

void EmbeddedCluster::pause_queue(bool paused, std::string why) {
  scheduler_.pause(paused, std::move(why));
  schedule_soon();
}

void EmbeddedCluster::schedule_soon() {
  if (schedule_posted_ || recovering_) { return; }
  schedule_posted_ = true;
  asio::post(executor_, [this, alive = alive_] {
    if (!*alive) { return; }
    schedule_posted_ = false;
    if (open_) { schedule(); }
  });
}

void EmbeddedCluster::schedule() {
  std::vector<EntryPtr> group;
  for (auto& placement : scheduler_.place()) {
    const auto entry = by_uid_.at(placement.id);
    entry->stage = Entry::Stage::placed;
    entry->devices = std::move(placement.devices);
    // Members of a gang come next to each other and start together.
    if (!group.empty() && (entry->gang.empty() || group.front()->gang != entry->gang)) {
      starts_.push_back(std::exchange(group, {}));
    }
    group.push_back(entry);
  }
  if (!group.empty()) { starts_.push_back(std::move(group)); }
  say_why_waiting();
  pump_starts();
}

void EmbeddedCluster::say_why_waiting() {
  bool room_wanted = false;
  for (const auto& id : std::exchange(fresh_waiting_, {})) {
    const auto found = by_uid_.find(id);
    if (found == by_uid_.end() || found->second->stage != Entry::Stage::queued) { continue; }
    const auto cause = scheduler_.cause(id);
    if (!cause) { continue; }
    room_wanted = true;
    const auto& entry = found->second;
    entry->status.phase = PodPhase::pending;
    entry->status.reason = cause->code;
    entry->status.message = cause->reason;
    set_condition(entry->status, {.type = "PodScheduled",
                                  .status = false,
                                  .reason = cause->code,
                                  .message = cause->reason,
                                  .since = clock_.now()});
    note(entry->key, true, "FailedScheduling", cause->reason);
    touch(entry);
  }
  if (room_wanted) { ask_for_room(); }
}

// Who may end early for others is asked at once, not at its next look.
void EmbeddedCluster::ask_for_room() {
  for (const auto& [uid, owner] : owners_) {
    const auto* controller = controller_of(owner.first.kind);
    if (controller != nullptr && controller->gives_room() && scheduler_.others_want_room_of(uid)) {
      reconcile_soon(owner.first);
    }
  }
}

// One of the places for starts, which others may have while its pod waits for its environment.
class EmbeddedCluster::StartPlace {
 public:
  explicit StartPlace(EmbeddedCluster& cluster) : cluster_(cluster) {}
  StartPlace(const StartPlace&) = delete;
  StartPlace& operator=(const StartPlace&) = delete;
  ~StartPlace() { take_again(); }
  bool given_back() const { return given_back_; }
  void give_back() {
    if (std::exchange(given_back_, true)) { return; }
    --cluster_.starting_;
    cluster_.pump_starts();
  }
  void take_again() { cluster_.starting_ += std::exchange(given_back_, false) ? 1 : 0; }

 private:
  EmbeddedCluster& cluster_;
  bool given_back_ = false;
};

void EmbeddedCluster::pump_starts() {
  // A start that ends at once comes back here from inside `spawn`: the loop below goes on with it.
  if (std::exchange(pumping_, true)) { return; }
  while (!starts_.empty() && starting_ < options_.most_starting && open_) {
    auto members = std::move(starts_.front());
    starts_.pop_front();
    starting_ += members.size();
    if (!spawn("launch", launch(std::move(members)))) { break; }
  }
  pumping_ = false;
}

Async<void> EmbeddedCluster::launch(std::vector<EntryPtr> members) {
  const bool gang = members.size() > 1;
  bool durable = gang;  // else the driver's folder is proof enough of the start
  std::string failed;
  for (const auto& entry : members) {
    if (!entry->pod) { continue; }
    auto address = addresses_.take(*entry->pod, entry->uid, !entry->gang.empty());
    if (address) {
      entry->address = *address;
    } else {
      failed = fmt::format("{}: {}", entry->key.name, address.error().text());
    }
    durable = durable || !entry->devices.empty();
    entry->status.reason.clear();
    entry->status.message.clear();
    entry->status.pod_ip = entry->address;
    set_condition(entry->status, {.type = "PodScheduled",
                                  .status = true,
                                  .reason = {},
                                  .message = {},
                                  .since = clock_.now()});
  }
  if (durable && failed.empty()) {
    for (const auto& entry : members) {
      auto saved = co_await save(entry);
      if (!saved && failed.empty()) {
        failed = fmt::format("{}: {}", entry->key.name, saved.error().text());
      }
    }
  }
  METIER_FAILPOINT("cluster/launch/placed");
  auto causes = std::make_shared<std::vector<std::string>>();
  if (failed.empty()) {
    if (!gang) {
      co_await start_one(members.front(), nullptr, causes);
    } else {
      auto left = std::make_shared<std::size_t>(members.size());
      for (const auto& entry : members) {
        if (!spawn("start", start_one(entry, left, causes))) { co_return; }
      }
      while (*left > 0) { (void)co_await settled_.wait(settled_.generation()); }
      if (!causes->empty()) { failed = causes->front(); }
    }
  }
  if (!failed.empty()) { co_await settle_gang(members, failed); }
  starting_ -= members.size();
  pump_starts();
}

// All or none: when one member could not start, the others end with its cause.
Async<void> EmbeddedCluster::settle_gang(std::vector<EntryPtr> members, std::string failed) {
  for (const auto& entry : members) {
    if (entry->ended()) { continue; }
    if (entry->driver_has) {
      (void)co_await driver_.stop(entry->uid, {.how = StopOptions::How::forced,
                                               .grace = {},
                                               .reason = "GangIncomplete",
                                               .message = failed});
    } else {
      fail_entry(entry, "GangIncomplete", failed);
    }
  }
}

Async<void> EmbeddedCluster::start_one(EntryPtr entry, std::shared_ptr<std::size_t> left,
                                       std::shared_ptr<std::vector<std::string>> failed) {
  auto started = co_await start_pod(entry);
  if (!started && !entry->ended()) {
    auto& error = started.error();
    const auto said = error.fix.empty() ? error.text() : error.text() + "; " + error.fix;
    if (left) { failed->push_back(fmt::format("{}: {}", entry->key.name, said)); }
    if (error.kind == ErrorKind::unavailable && error.code.ends_with("Missing") && !left) {
      // A secret went away between the queue and the start: wait for it without holding anything.
      scheduler_.remove(entry->uid);
      addresses_.release(entry->uid);
      entry->stage = Entry::Stage::queued;
      enqueue(entry);
      schedule_soon();
    } else {
      fail_entry(entry, or_else(error.code, "StartFailed"), said);
    }
  }
  if (left) {
    --*left;
    settled_.notify();
  }
}

Async<Result<void>> EmbeddedCluster::start_pod(EntryPtr entry) {
  const auto pod = entry->pod;
  const auto unwanted = [&] {
    return fail(Error{.kind = ErrorKind::cancelled,
                      .message = entry->stop ? entry->stop->message : std::string(),
                      .field = {},
                      .fix = {},
                      .code = or_else(entry->stop      ? entry->stop->reason
                                      : entry->removal ? entry->removal->reason
                                                       : std::string(),
                                      "Stopped")});
  };
  if (!pod || entry->ended()) { co_return Result<void>{}; }
  LaunchInput input{.ambient = {},
                    .devices = entry->devices,
                    .address = entry->address,
                    .hosts = {},
                    .share_group = share_group_of(entry->gang),
                    .service_env = {}};
  StartPlace place(*this);
  if (options_.ambient) {
    while (true) {
      if (entry->unwanted() || !open_) { co_return unwanted(); }
      auto object = store_.get(entry->key);
      if (!object) { co_return unwanted(); }
      if (!entry->address.empty()) {  // decided, though its status is not written yet
        if (!object->status.is_object()) { object->status = JsonObject{}; }
        object->status.get_object()["podIP"] = entry->address;
      }
      auto ambient = co_await options_.ambient(*object);
      if (ambient) {
        input.ambient = std::move(*ambient);
        if (const auto image = object->metadata.annotations.find("metier.dev/unknown-image");
            image != object->metadata.annotations.end()) {
          set_condition(entry->status, {.type = "RuntimeSubstituted",
                                        .status = true,
                                        .reason = "RuntimeSubstituted",
                                        .message = fmt::format(
                                            "image {} is not known here: {} runs in its place",
                                            quote(image->second),
                                            or_else(input.ambient.python, "what this machine has")),
                                        .since = clock_.now()});
        }
        break;
      }
      if (ambient.error().kind != ErrorKind::unavailable || ambient.error().code.empty()) {
        co_return fail(
            std::move(ambient.error()).coded(or_else(ambient.error().code, "EnvironmentFailed")));
      }
      if (entry->status.reason != ambient.error().code) {
        entry->status.reason = ambient.error().code;
        entry->status.message = ambient.error().text();
        touch(entry);
      }
      place.give_back();
      co_await sleep_for(executor_, kAmbientRetry);
    }
    while (place.given_back() && entry->gang.empty() && starting_ >= options_.most_starting &&
           open_) {
      co_await sleep_for(executor_, kPlaceRetry);
    }
    place.take_again();
    entry->status.reason.clear();
    entry->status.message.clear();
  }
  if (entry->unwanted()) { co_return unwanted(); }
  input.hosts = addresses_.hosts(*pod, entry->address);
  input.service_env = addresses_.service_env(entry->key.name_space);
  auto spec = make_launch(*pod, entry->uid, std::move(input), context());
  if (!spec) { co_return fail(std::move(spec.error())); }
  entry->stage = Entry::Stage::starting;
  METIER_FAILPOINT("cluster/start/before");
  auto handle = co_await driver_.start(std::move(*spec));
  METIER_FAILPOINT("cluster/start/after");
  if (!handle && handle.error().kind == ErrorKind::conflict) {
    // Started by a server before us, which could not say so any more.
    auto recovered = co_await driver_.recover(
        entry->uid, {.driver = std::string(driver_.name()), .version = 0, .payload = {}});
    if (!recovered) { co_return fail(std::move(recovered.error())); }
  } else if (!handle) {
    co_return fail(std::move(handle.error()));
  } else {
    entry->handle = std::move(*handle);
  }
  entry->driver_has = true;
  if (!entry->ended()) { entry->stage = Entry::Stage::live; }
  note(entry->key, false, "Started", {});
  auto status = co_await driver_.status(entry->uid);
  if (status) { on_status(entry, *status); }
  if (entry->ended()) {  // it told us of its end before its start had returned
    if (entry->unwanted() && !entry->writing && !entry->removing) {
      spawn("remove", finish_removal(entry));
    }
    co_return Result<void>{};
  }
  if (entry->unwanted()) {
    const auto options = entry->stop ? *entry->stop : entry->removal.value_or(StopOptions{});
    (void)co_await driver_.stop(entry->uid, options);
  }
  co_return Result<void>{};
}

Async<void> EmbeddedCluster::stop_pod(EntryPtr entry, StopOptions options) {
  switch (entry->stage) {
    case Entry::Stage::ended: co_return;
    case Entry::Stage::blocked:
    case Entry::Stage::queued:
      if (options.how == StopOptions::How::detach) { co_return; }
      fail_entry(entry, or_else(options.reason, "Stopped"), options.message);
      co_return;
    case Entry::Stage::placed:
    case Entry::Stage::starting:
      if (options.how != StopOptions::How::detach) { entry->stop = options; }
      co_return;
    case Entry::Stage::live: break;
  }
  if (const auto owner = owners_.find(entry->owner);
      owner != owners_.end() && options.how == StopOptions::How::graceful) {
    auto* controller = controller_of(owner->second.first.kind);
    const auto object = store_.get(entry->key);
    if (controller != nullptr && object) {
      auto prepared = co_await controller->before_stop(*object);
      if (!prepared) { note(entry->key, true, "BeforeStopFailed", prepared.error().text()); }
    }
  }
  if (options.how != StopOptions::How::detach) {
    note(entry->key, false, "Killing", options.message);
  }
  auto stopped = co_await driver_.stop(entry->uid, options);
  if (!stopped) {
    options_.log.warn("pod not stopped",
                      {{"pod", Json(entry->key.text())}, {"error", Json(stopped.error().text())}});
  }
}

void EmbeddedCluster::fail_entry(const EntryPtr& entry, std::string reason, std::string message) {
  if (entry->ended()) { return; }
  auto& status = entry->status;
  status.phase = PodPhase::failed;
  status.reason = std::move(reason);
  status.message = std::move(message);
  status.finished = clock_.now();
  set_condition(status, {.type = "Ready",
                         .status = false,
                         .reason = "PodFailed",
                         .message = {},
                         .since = clock_.now()});
  note(entry->key, true, "Failed", fmt::format("{}: {}", status.reason, status.message));
  after_end(entry);
  touch(entry);
}

void EmbeddedCluster::on_status(const EntryPtr& entry, const PodStatus& told) {
  if (entry->ended()) { return; }
  auto& status = entry->status;
  status.phase = told.phase;
  status.reason = told.reason;
  status.message = told.message;
  status.started = told.started;
  status.finished = told.finished;
  status.containers = told.containers;
  for (const auto& condition : told.conditions) { set_condition(status, condition); }
  if (status.phase == PodPhase::running && entry->pod) {
    set_deadline(entry);
    if (Prober::wanted(*entry->pod)) { prober_.start(*entry->pod, entry->uid, entry->address); }
  }
  set_ready(entry);
  if (is_terminal(status.phase)) { after_end(entry); }
  touch(entry);
}

void EmbeddedCluster::set_ready(const EntryPtr& entry) {
  auto& status = entry->status;
  bool ready = status.phase == PodPhase::running;
  for (auto& container : status.containers) {
    if (container.init || container.rank) { continue; }
    container.ready = container.state == ContainerStatus::State::running &&
                      prober_.ready(entry->uid, container.name);
    ready = ready && container.ready;
  }
  set_condition(status, {.type = "Ready",
                         .status = ready,
                         .reason = ready                                 ? ""
                                   : status.phase == PodPhase::succeeded ? "PodCompleted"
                                   : status.phase == PodPhase::failed    ? "PodFailed"
                                                                         : "NotReady",
                         .message = {},
                         .since = clock_.now()});
}

void EmbeddedCluster::on_verdict(const std::string& id, const Prober::Verdict& verdict) {
  const auto found = by_uid_.find(id);
  if (found == by_uid_.end() || found->second->ended()) { return; }
  const auto entry = found->second;
  if (!verdict.message.empty()) {
    note(entry->key, true, "Unhealthy", fmt::format("{}: {}", verdict.container, verdict.message));
  }
  set_ready(entry);
  touch(entry);
  if (!verdict.dead) { return; }
  prober_.stop(id);  // begins again with the container's next status
  const auto message = fmt::format("container {}: {}", verdict.container, verdict.message);
  // A signal reaches all containers of a pod, so only a pod of one container starts it anew.
  if (entry->pod && entry->pod->restart != RestartPolicy::never &&
      entry->pod->containers.size() == 1 && driver_.signals() != nullptr) {
    spawn("restart", restart_container(entry, message));
    return;
  }
  spawn("stop", stop_pod(entry, {.how = StopOptions::How::graceful,
                                 .grace = {},
                                 .reason = "Unhealthy",
                                 .message = message}));
}

Async<void> EmbeddedCluster::restart_container(EntryPtr entry, std::string message) {
  const auto restarts = [entry] {
    return entry->status.containers.empty() ? 0 : entry->status.containers.back().restarts;
  };
  const auto before = restarts();
  const auto grace = std::chrono::seconds(entry->pod->grace_s);
  note(entry->key, true, "Killing", message + "; it will be restarted");
  auto asked = co_await driver_.signals()->signal(entry->uid, SIGTERM);
  if (!asked) {
    options_.log.warn("container not restarted",
                      {{"pod", Json(entry->key.text())}, {"error", Json(asked.error().text())}});
  }
  alarms_.after(grace, [this, weak = std::weak_ptr<Entry>(entry), before] {
    const auto live = weak.lock();
    if (!live || live->ended() || live->status.containers.empty() ||
        live->status.containers.back().restarts != before) {
      return;
    }
    spawn("kill", kill_container(live));
  });
}

Async<void> EmbeddedCluster::kill_container(EntryPtr entry) {
  auto killed = co_await driver_.signals()->signal(entry->uid, SIGKILL);
  if (!killed) {
    options_.log.warn("container not killed",
                      {{"pod", Json(entry->key.text())}, {"error", Json(killed.error().text())}});
  }
}

void EmbeddedCluster::set_deadline(const EntryPtr& entry) {
  if (!entry->pod->deadline_s || entry->deadline != 0) { return; }
  const auto seconds = *entry->pod->deadline_s;
  const auto ran = std::max(clock_.now() - entry->status.started, Duration::zero());
  const auto left = std::chrono::seconds(seconds) - ran;
  entry->deadline =
      alarms_.at(clock_.steady() + left, [this, weak = std::weak_ptr<Entry>(entry), seconds] {
        const auto live = weak.lock();
        if (!live || live->ended()) { return; }
        spawn("deadline",
              stop_pod(live, {.how = StopOptions::How::graceful,
                              .grace = {},
                              .reason = "DeadlineExceeded",
                              .message = fmt::format(
                                  "it ran longer than its activeDeadlineSeconds, {}", seconds)}));
      });
}

void EmbeddedCluster::after_end(const EntryPtr& entry) {
  if (entry->stage == Entry::Stage::blocked) {
    if (const auto found = blocked_.find(entry->blocked_on); found != blocked_.end()) {
      found->second.erase(entry->uid);
      if (found->second.empty()) { blocked_.erase(found); }
    }
  }
  entry->stage = Entry::Stage::ended;
  entry->pod.reset();
  scheduler_.remove(entry->uid);
  addresses_.release(entry->uid);
  prober_.stop(entry->uid);
  alarms_.cancel(entry->deadline);
  entry->changed.notify();
  schedule_soon();
}

// --- status ------------------------------------------------------------------------------------------------

void EmbeddedCluster::touch(const EntryPtr& entry) {
  entry->dirty = true;
  entry->changed.notify();  // a log that is waited for may have come into being
  if (entry->writing) { return; }
  entry->writing = true;
  if (!spawn("status", write_status(entry))) { entry->writing = false; }
}

Async<Result<void>> EmbeddedCluster::save(EntryPtr entry) {
  while (true) {
    auto object = store_.get(entry->key);
    if (!object || object->metadata.uid != entry->uid) {
      co_return fail(ErrorKind::not_found, "the pod is no longer stored");
    }
    const auto version = object->version;
    object->status = status_document(entry->status, entry->handle, entry->devices);
    entry->dirty = false;
    METIER_FAILPOINT("cluster/status/before");
    auto stored = co_await store_.put_if_version(std::move(*object), version);
    if (stored) { co_return Result<void>{}; }
    if (stored.error().kind != ErrorKind::conflict) {
      entry->dirty = true;
      co_return fail(std::move(stored.error()));
    }
  }
}

// Changes that come while one is being written go with the next write.
Async<void> EmbeddedCluster::write_status(EntryPtr entry) {
  while (entry->dirty && !entry->gone) {
    auto saved = co_await save(entry);
    if (saved) { continue; }
    if (saved.error().kind == ErrorKind::not_found) { break; }  // its removal is on the way to us
    options_.log.error("status not written",
                       {{"pod", Json(entry->key.text())}, {"error", Json(saved.error().text())}});
    co_await sleep_for(executor_, kStoreRetry);
  }
  entry->writing = false;
  if (entry->ended() && (entry->removal || entry->gone) && !entry->removing) {
    co_await finish_removal(entry);
  }
}

Async<void> EmbeddedCluster::remove_again(EntryPtr entry) {
  co_await sleep_for(executor_, kStoreRetry);
  entry->removing = false;
  co_await finish_removal(entry);
}

// After the end: the driver's folder first, then the object, so that nothing stays without a name.
Async<void> EmbeddedCluster::finish_removal(EntryPtr entry) {
  if (entry->removing) { co_return; }
  entry->removing = true;
  if (entry->driver_has) {
    auto destroyed = co_await driver_.destroy(entry->uid);
    if (!destroyed && destroyed.error().kind != ErrorKind::not_found) {
      options_.log.warn("pod folder not removed", {{"pod", Json(entry->key.text())},
                                                   {"error", Json(destroyed.error().text())}});
    }
  }
  METIER_FAILPOINT("cluster/remove/destroyed");
  if (!entry->gone) {
    const auto object = store_.get(entry->key);
    if (object && object->metadata.uid == entry->uid) {
      auto removed = co_await store_.remove(entry->key);
      if (!removed) {
        options_.log.error(
            "pod not removed, it is tried again",
            {{"pod", Json(entry->key.text())}, {"error", Json(removed.error().text())}});
        spawn("remove", remove_again(entry));
        co_return;
      }
    }
    entry->gone = true;
  }
  forget(entry);
}

}  // namespace metier
