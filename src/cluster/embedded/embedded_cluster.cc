#include "cluster/embedded/embedded_cluster.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>
#include <boost/asio/post.hpp>

#include "base/files.h"
#include "cluster/controllers/pod_group.h"
#include "cluster/embedded/entry.h"
#include "cluster/object_watch.h"

namespace metier {
namespace {

constexpr std::size_t kMostEvents = 10'000;
constexpr std::size_t kMostLogBytes = 4U << 20U;  // a call

NodeCapacity capacity_of(const EmbeddedOptions& options) {
  NodeCapacity out;
  out.allocatable["cpu"] = Quantity::from_milli(
      std::max<std::int64_t>(options.host.cpu_milli - options.reserve.cpu_milli, 1));
  out.allocatable["memory"] =
      Quantity::from_units(options.host.memory - reserved_memory(options.host, options.reserve));
  out.allocatable["pods"] = Quantity::from_units(options.most_pods);
  out.devices = options.host.devices;
  return out;
}

Error no_pod(const std::string& name_space, const std::string& pod) {
  return Error{.kind = ErrorKind::not_found,
               .message = fmt::format("no pod {} in {}", quote(pod), quote(name_space)),
               .field = {},
               .fix = {},
               .code = {}};
}

}  // namespace

Json status_document(const PodStatus& status, const PodHandle& handle, const Devices& devices) {
  auto out = to_json(status);
  if (handle.driver.empty() && devices.empty()) { return out; }
  JsonObject own;
  if (!handle.driver.empty()) {
    own["handle"] = JsonObject{
        {"driver", handle.driver}, {"version", handle.version}, {"payload", handle.payload}};
  }
  if (!devices.empty()) {
    JsonObject given;
    for (const auto& [resource, numbers] : devices) {
      given[resource] = JsonArray(numbers.begin(), numbers.end());
    }
    own["devices"] = std::move(given);
  }
  out.get_object()["metier"] = std::move(own);
  return out;
}

void read_status_document(const Json& document, PodStatus& status, PodHandle& handle,
                          Devices& devices) {
  status = pod_status_from_json(document);
  if (!document.is_object()) { return; }
  const auto* own = object_in(document.get_object(), "metier");
  if (own == nullptr) { return; }
  if (const auto* stored = object_in(*own, "handle")) {
    handle = {.driver = std::string(string_in(*stored, "driver")),
              .version = static_cast<int>(int_in(*stored, "version").value_or(0)),
              .payload = std::string(string_in(*stored, "payload"))};
  }
  if (const auto* given = object_in(*own, "devices")) {
    for (const auto& [resource, numbers] : *given) {
      if (!numbers.is_array()) { continue; }
      for (const auto& number : numbers.get_array()) {
        if (number.is_int64()) {
          devices[std::string(std::string_view(resource))].push_back(
              static_cast<int>(number.get_int64()));
        }
      }
    }
  }
}

EmbeddedCluster::EmbeddedCluster(Executor executor, ObjectStore& store, PodDriver& driver,
                                 EmbeddedOptions options)
    : executor_(executor),
      store_(store),
      driver_(driver),
      options_(std::move(options)),
      clock_(*options_.clock),
      capacity_(capacity_of(options_)),
      scheduler_(capacity_),
      network_(options_.data),
      addresses_(network_.number()),
      alarms_(executor, clock_),
      files_(executor),
      scope_(executor),
      prober_(driver, options_.probe_client, alarms_, scope_,
              [this](const std::string& id, const Prober::Verdict& verdict) {
                on_verdict(id, verdict);
              }),
      settled_(executor) {
  driver_.on_change([this, alive = alive_](const std::string& id, const PodStatus& status) {
    if (!*alive) { return; }
    const auto found = by_uid_.find(id);
    // What recovery has not adopted yet is read by it.
    if (found == by_uid_.end() || found->second->stage < Entry::Stage::starting) { return; }
    const auto entry = found->second;
    entry->driver_has = true;
    on_status(entry, status);
  });
}

EmbeddedCluster::~EmbeddedCluster() {
  *alive_ = false;
  driver_.on_change(nullptr);
}

Async<Result<void>> EmbeddedCluster::open() {
  recovering_ = true;
  watch_ = store_.watch({}, [this](const ObjectEvent& event) { on_event(event); });
  for (const auto& object : store_.list({})) {
    if (object.kind != "Pod") { on_object(object, false); }
  }
  auto recovered = co_await recover_pods();
  recovering_ = false;
  open_ = true;
  if (!recovered) { co_return fail(std::move(recovered.error())); }
  for (const auto& controller : options_.controllers) {
    for (const auto& object : store_.list({.name_space = {},
                                           .kind = std::string(controller->kind()),
                                           .name = {},
                                           .labels = {},
                                           .owner_uid = {}})) {
      reconcile_soon(key_of(object));
    }
  }
  schedule_soon();
  co_return Result<void>{};
}

Async<Result<void>> EmbeddedCluster::close() {
  open_ = false;
  watch_.reset();
  alarms_.clear();
  starts_.clear();
  for (const auto& [uid, entry] : by_uid_) { entry->changed.notify(); }
  co_return co_await scope_.close(std::chrono::seconds(5));
}

LaunchContext EmbeddedCluster::context() const {
  return {.objects = store_,
          .secrets = options_.secrets,
          .data = options_.data,
          .node = options_.host.name,
          .capacity = capacity_};
}

void EmbeddedCluster::on_event(const ObjectEvent& event) {
  const bool removed = event.type == ObjectEvent::Type::removed;
  if (event.object.kind == "Pod") {
    // By uid: a new pod of an old name may be here before the old one's folder is gone.
    const auto found = by_uid_.find(event.object.metadata.uid);
    const bool known = found != by_uid_.end();
    if (removed) {
      if (known) {
        const auto entry = found->second;
        entry->gone = true;
        if (entry->ended()) {
          if (!entry->writing && !entry->removing) { spawn("remove", finish_removal(entry)); }
        } else if (!entry->removal) {  // its object was taken away while it lives: it must not
          spawn("stop", stop_pod(entry, {.how = StopOptions::How::graceful,
                                         .grace = {},
                                         .reason = "Removed",
                                         .message = {}}));
        }
      }
    } else if (!known && !recovering_) {
      track(event.object, false);
    } else if (known) {
      found->second->labels = event.object.metadata.labels;
    }
  } else {
    on_object(event.object, removed);
  }
  reconcile_owner_of(event.object);
}

void EmbeddedCluster::on_object(const Resource& object, bool removed) {
  const auto key = key_of(object);
  if (object.kind == "PodGroup") {
    const auto least = int_in(object.spec(), "minMember").value_or(1);
    scheduler_.set_gang(
        key.name_space + "/" + key.name,
        removed ? 0 : static_cast<int>(std::clamp<std::int64_t>(least, 1, 1'000'000)));
    schedule_soon();
  } else if (object.kind == "Service") {
    if (removed) {
      addresses_.remove_service(key);
    } else {
      const auto before = std::string(string_at(object.status, "address"));
      const auto address = addresses_.put_service(object, before);
      if (!address.empty() && address != before) { spawn("service", store_address(key, address)); }
    }
  } else if (object.kind == "Secret" || object.kind == "ConfigMap" ||
             object.kind == "PersistentVolumeClaim") {
    if (!removed) { unblock(key); }
  } else if (controller_of(object.kind) != nullptr) {
    if (removed) {
      owners_.erase(object.metadata.uid);
      if (const auto found = reconciling_.find(key); found != reconciling_.end()) {
        alarms_.cancel(found->second.alarm);
      }
    } else {
      const bool leaving = object.metadata.other.contains("deletionTimestamp");
      owners_[object.metadata.uid] = {key, leaving};
      if (!recovering_) { reconcile_soon(key); }
    }
  }
}

// A Service keeps its address over restarts: pods that run have it in their hosts files.
Async<void> EmbeddedCluster::store_address(ResourceKey key, std::string address) {
  while (true) {
    auto object = store_.get(key);
    if (!object || string_at(object->status, "address") == address) { co_return; }
    const auto version = object->version;
    if (!object->status.is_object()) { object->status = JsonObject(); }
    object->status.get_object()["address"] = address;
    auto stored = co_await store_.put_if_version(std::move(*object), version);
    if (stored || stored.error().kind != ErrorKind::conflict) { co_return; }
  }
}

EmbeddedCluster::EntryPtr EmbeddedCluster::find(const std::string& name_space,
                                                const std::string& pod) const {
  const auto found = by_key_.find({.name_space = name_space, .kind = "Pod", .name = pod});
  return found == by_key_.end() ? nullptr : found->second;
}

EmbeddedCluster::EntryPtr EmbeddedCluster::track(const Resource& object, bool recovering) {
  if (object.metadata.uid.empty()) {
    spawn("uid", give_uid(key_of(object)));  // comes back as a changed object
    return nullptr;
  }
  auto entry = std::make_shared<Entry>(executor_);
  entry->key = key_of(object);
  entry->uid = object.metadata.uid;
  entry->labels = object.metadata.labels;
  if (object.metadata.owner) { entry->owner = object.metadata.owner->uid; }
  if (const auto group = object.metadata.labels.find(kPodGroupLabel);
      group != object.metadata.labels.end()) {
    entry->gang = entry->key.name_space + "/" + group->second;
  }
  read_status_document(object.status, entry->status, entry->handle, entry->devices);
  entry->address = entry->status.pod_ip;
  entry->status.host = options_.host.name;
  by_uid_[entry->uid] = entry;
  by_key_[entry->key] = entry;
  if (!entry->owner.empty()) { by_owner_[entry->owner].insert(entry->uid); }
  if (object.metadata.other.contains("deletionTimestamp")) {
    entry->removal = StopOptions{
        .how = StopOptions::How::graceful, .grace = {}, .reason = "Removed", .message = {}};
  }
  auto pod = pod_from(object, options_.rules);
  if (pod) {
    for (const auto* containers : {&pod->containers, &pod->init_containers}) {
      for (const auto& container : *containers) { entry->containers.push_back(container.name); }
    }
  }
  if (is_terminal(entry->status.phase)) {
    entry->stage = Entry::Stage::ended;
    return entry;
  }
  if (!pod) {
    fail_entry(entry, "InvalidPod", pod.error().text());
    return entry;
  }
  Admission admission;
  warn_ignored(object, *pod, admission);
  if (!admission.warnings.empty()) {
    auto ignored = admission.warnings.front();
    for (std::size_t i = 1; i < admission.warnings.size(); ++i) {
      ignored.message += "; " + admission.warnings[i].message;
    }
    ignored.since = clock_.now();
    set_condition(entry->status, std::move(ignored));
  }
  for (const auto& condition : entry->status.conditions) {
    if (condition.type == "PodScheduled" && condition.status) { entry->scheduled_before = true; }
  }
  entry->pod = std::make_shared<const Pod>(std::move(*pod));
  if (!recovering) { enqueue(entry); }
  return entry;
}

Async<void> EmbeddedCluster::give_uid(ResourceKey key) {
  auto object = store_.get(key);
  if (!object || !object->metadata.uid.empty()) { co_return; }
  const auto version = object->version;
  object->metadata.uid = new_uid(*options_.random);
  auto stored = co_await store_.put_if_version(std::move(*object), version);
  if (!stored) {
    options_.log.warn("uid not written",
                      {{"object", Json(key.text())}, {"error", Json(stored.error().text())}});
  }
}

void EmbeddedCluster::forget(const EntryPtr& entry) {
  by_uid_.erase(entry->uid);
  if (const auto found = by_key_.find(entry->key);
      found != by_key_.end() && found->second == entry) {
    by_key_.erase(found);
  }
  if (const auto owned = by_owner_.find(entry->owner); owned != by_owner_.end()) {
    owned->second.erase(entry->uid);
    if (owned->second.empty()) { by_owner_.erase(owned); }
  }
  entry->changed.notify();
  settled_.notify();
}

void EmbeddedCluster::note(const ResourceKey& key, bool warning, std::string reason,
                           std::string message) {
  if (events_.size() >= kMostEvents) { events_.pop_front(); }
  events_.push_back({.at = clock_.now(),
                     .object = key,
                     .warning = warning,
                     .reason = std::move(reason),
                     .message = std::move(message)});
}

// --- reading ------------------------------------------------------------------------------------------------

Async<Result<Health>> EmbeddedCluster::probe() {
  Health out;
  out.capacity["cpu"] = Quantity::from_milli(options_.host.cpu_milli);
  out.capacity["memory"] = Quantity::from_units(options_.host.memory);
  for (const auto& [resource, numbers] : options_.host.devices) {
    out.capacity[resource] = Quantity::from_units(static_cast<std::int64_t>(numbers.size()));
  }
  out.allocatable = scheduler_.allocatable();
  out.free = scheduler_.free();
  out.kinds = options_.kinds;
  if (options_.engines) {
    for (auto& engine : options_.engines()) { out.kinds.push_back(std::move(engine)); }
  }
  out.conditions = driver_.limits_of_host();
  if (const auto broken = scope_.error()) {
    out.usable = false;
    try {
      std::rethrow_exception(broken);
    } catch (const std::exception& error) {
      out.reason = fmt::format("a task of the cluster failed: {}", error.what());
    }
  }
  co_return out;
}

Async<Result<std::vector<ResourceStatus>>> EmbeddedCluster::list(Selector selector) {
  std::vector<ResourceStatus> out;
  for (const auto& object : store_.list(selector)) {
    out.push_back(status_of(object, object.version));
  }
  co_return out;
}

Result<std::shared_ptr<void>> EmbeddedCluster::watch(
    Selector selector, std::function<void(const ResourceStatus&)> watcher) {
  return watch_objects(store_, executor_, std::move(selector), std::move(watcher));
}

Async<Result<LogChunk>> EmbeddedCluster::logs(ContainerRef container, std::uint64_t offset,
                                              std::size_t limit, std::chrono::milliseconds wait) {
  const auto deadline = std::chrono::steady_clock::now() +
                        std::min<std::chrono::milliseconds>(wait, std::chrono::hours(1));
  limit = std::min(limit, kMostLogBytes);
  std::shared_ptr<void> growth;
  while (true) {
    const auto entry = find(container.name_space, container.pod);
    if (!entry) { co_return fail(no_pod(container.name_space, container.pod)); }
    if (container.container.empty() && !entry->containers.empty()) {
      container.container = entry->containers.front();
    }
    const bool rank = std::ranges::any_of(
        entry->status.containers,
        [&](const ContainerStatus& one) { return one.rank && one.name == container.container; });
    if (!container.container.empty() && !rank &&
        std::ranges::find(entry->containers, container.container) == entry->containers.end()) {
      co_return fail(Error{.kind = ErrorKind::not_found,
                           .message = fmt::format("pod {} has no container {}",
                                                  quote(container.pod), quote(container.container)),
                           .field = {},
                           .fix = fmt::format("one of {}", fmt::join(entry->containers, ", ")),
                           .code = {}});
    }
    const auto generation = entry->changed.generation();
    const bool over = entry->ended();
    LogChunk out{.bytes = {}, .offset = offset, .size = 0, .ended = false};
    if (const auto path = driver_.log_path(entry->uid, container.container, container.attempt)) {
      if (!growth && !over && wait.count() > 0) {
        auto watched = files_.watch(*path, [weak = std::weak_ptr<Entry>(entry)] {
          if (const auto live = weak.lock()) { live->changed.notify(); }
        });
        if (watched) { growth = std::move(*watched); }
      }
      const Fd file(::open(path->c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
      struct stat found{};
      if (file && ::fstat(file.get(), &found) == 0) {
        out.size = static_cast<std::uint64_t>(found.st_size);
        if (offset < out.size) {
          out.bytes.resize(std::min<std::uint64_t>(limit, out.size - offset));
          const auto n =
              ::pread(file.get(), out.bytes.data(), out.bytes.size(), static_cast<off_t>(offset));
          if (n < 0) { co_return fail(errno_error(*path, errno)); }
          out.bytes.resize(static_cast<std::size_t>(n));
        }
      }
    }
    out.ended = over && offset + out.bytes.size() >= out.size;
    if (!out.bytes.empty() || out.ended || limit == 0 || !open_ ||
        std::chrono::steady_clock::now() >= deadline) {
      co_return out;
    }
    (void)co_await entry->changed.wait(generation, deadline);
  }
}

Async<Result<ExecResult>> EmbeddedCluster::exec(ContainerRef container, ExecSpec spec) {
  const auto entry = find(container.name_space, container.pod);
  if (!entry) { co_return fail(no_pod(container.name_space, container.pod)); }
  if (entry->stage != Entry::Stage::live) {
    co_return fail(ErrorKind::conflict,
                   fmt::format("pod {} does not run ({})", quote(container.pod),
                               to_string(entry->status.phase)));
  }
  if (container.container.empty() && !entry->containers.empty()) {
    container.container = entry->containers.front();
  }
  co_return co_await driver_.exec(entry->uid, container.container, std::move(spec));
}

Async<Result<Usage>> EmbeddedCluster::usage(std::string name_space, std::string pod) {
  const auto entry = find(name_space, pod);
  if (!entry) { co_return fail(no_pod(name_space, pod)); }
  if (!entry->driver_has) { co_return Usage{}; }
  co_return co_await driver_.usage(entry->uid);
}

Async<Result<std::vector<ClusterEvent>>> EmbeddedCluster::events(Selector selector, Time since) {
  std::vector<ClusterEvent> out;
  for (const auto& event : events_) {
    const auto& key = event.object;
    if (event.at < since || (selector.name_space && *selector.name_space != key.name_space) ||
        (!selector.kind.empty() && selector.kind != key.kind) ||
        (!selector.name.empty() && selector.name != key.name)) {
      continue;
    }
    if (!selector.labels.empty() || !selector.owner_uid.empty()) {
      const auto object = store_.get(key);
      if (!object || !selector.matches(*object)) { continue; }
    }
    out.push_back(event);
  }
  co_return out;
}

std::optional<QueuePosition> EmbeddedCluster::queue_position(const std::string& name_space,
                                                             const std::string& pod) const {
  const auto entry = find(name_space, pod);
  if (!entry) { return std::nullopt; }
  const auto queued = scheduler_.position(entry->uid);
  if (!queued) { return std::nullopt; }
  QueuePosition out{.position = queued->position,
                    .length = queued->length,
                    .code = queued->cause.code,
                    .reason = queued->cause.reason,
                    .held_by = {}};
  if (const auto resource = Scheduler::resource_of(out.code); !resource.empty()) {
    for (const auto& [name, amount] : scheduler_.holders(resource, 10)) {
      out.held_by.emplace_back(
          name, resource == "memory" ? human_bytes(amount.units()) : amount.cpu_text());
    }
  }
  return out;
}

Async<Result<std::string>> EmbeddedCluster::reach(std::string name_space, std::string service,
                                                  std::string port) {
  co_return addresses_.reach(name_space, service, port);
}

std::optional<std::string> EmbeddedCluster::work_folder(const std::string& name_space,
                                                        const std::string& pod) const {
  const auto entry = find(name_space, pod);
  if (!entry) { return std::nullopt; }
  auto folder = driver_.work_folder(entry->uid);
  return folder ? std::optional(std::move(*folder)) : std::nullopt;
}

}  // namespace metier
