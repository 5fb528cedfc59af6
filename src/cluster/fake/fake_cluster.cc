#include "cluster/fake/fake_cluster.h"

#include <fmt/format.h>

#include "cluster/object_watch.h"
#include "cluster/testing/pod_script.h"

namespace metier {
namespace {

ResourceKey pod_key(const std::string& name_space, const std::string& pod) {
  return {.name_space = name_space, .kind = "Pod", .name = pod};
}
std::string path_of(const std::string& name_space, const std::string& pod) {
  return name_space + "/" + pod;
}

Error no_pod(const std::string& name_space, const std::string& pod) {
  return Error{.kind = ErrorKind::not_found,
               .message = fmt::format("no pod {} in {}", quote(pod), quote(name_space)),
               .field = {},
               .fix = {},
               .code = {}};
}

std::string first_container(const Resource& pod) {
  const auto* containers = array_in(pod.spec(), "containers");
  if (containers == nullptr || containers->empty() || !containers->front().is_object()) {
    return "base";
  }
  return std::string(string_in(containers->front().get_object(), "name", "base"));
}

}  // namespace

FakeCluster::FakeCluster(Executor executor, const Clock& clock)
    : executor_(executor), clock_(clock), store_(executor), changed_(executor) {}

void FakeCluster::fail_next(Op op, Error error, int times) {
  for (int i = 0; i < times; ++i) { failures_[op].push_back(error); }
}

void FakeCluster::release(Op op) {
  held_.erase(op);
  changed_.notify();
}

int FakeCluster::calls(Op op) const {
  const auto found = calls_.find(op);
  return found == calls_.end() ? 0 : found->second;
}

Async<Result<void>> FakeCluster::enter(Op op) {
  ++calls_[op];
  while (held_.contains(op)) { co_await changed_.wait(changed_.generation()); }
  auto& failures = failures_[op];
  if (failures.empty()) { co_return Result<void>{}; }
  auto error = std::move(failures.front());
  failures.erase(failures.begin());
  co_return fail(std::move(error));
}

PodStatus FakeCluster::status_of_pod(const ResourceKey& key) const {
  const auto object = store_.get(key);
  return object ? pod_status_from_json(object->status) : PodStatus{};
}

void FakeCluster::put_status(const ResourceKey& key, const PodStatus& status) {
  set_status(key, to_json(status));
}

void FakeCluster::set_status(const ResourceKey& key, Json status) {
  auto object = store_.get(key);
  if (!object) { return; }
  object->status = std::move(status);
  store_.put(std::move(*object));
  changed_.notify();
}

void FakeCluster::set_pod(const std::string& name_space, const std::string& pod, PodStatus status) {
  put_status(pod_key(name_space, pod), status);
}

void FakeCluster::wait_for(const std::string& name_space, const std::string& pod,
                           std::string reason, std::string message) {
  auto status = status_of_pod(pod_key(name_space, pod));
  status.phase = PodPhase::pending;
  status.reason = std::move(reason);
  status.message = std::move(message);
  put_status(pod_key(name_space, pod), status);
}

void FakeCluster::run(const std::string& name_space, const std::string& pod) {
  const auto key = pod_key(name_space, pod);
  const auto object = store_.get(key);
  if (!object) { return; }
  PodStatus status;
  status.phase = PodPhase::running;
  status.started = clock_.now();
  status.host = "fake";
  status.containers = {{.name = first_container(*object),
                        .state = ContainerStatus::State::running,
                        .ready = true,
                        .started = clock_.now()}};
  set_condition(
      status,
      {.type = "PodScheduled", .status = true, .reason = {}, .message = {}, .since = clock_.now()});
  set_condition(
      status,
      {.type = "Ready", .status = true, .reason = {}, .message = {}, .since = clock_.now()});
  put_status(key, status);
}

void FakeCluster::succeed(const std::string& name_space, const std::string& pod) {
  fail_pod(name_space, pod, 0, "Completed");
}

void FakeCluster::fail_pod(const std::string& name_space, const std::string& pod, int exit_code,
                           std::string reason, std::string message) {
  const auto key = pod_key(name_space, pod);
  const auto object = store_.get(key);
  auto status = status_of_pod(key);
  if (!object || is_terminal(status.phase)) { return; }
  const bool ok = exit_code == 0;
  status.phase = ok ? PodPhase::succeeded : PodPhase::failed;
  status.finished = clock_.now();
  if (status.containers.empty()) { status.containers = {{.name = first_container(*object)}}; }
  auto& container = status.containers.front();
  container.state = ContainerStatus::State::terminated;
  container.exit_code = exit_code;
  container.ready = false;
  container.reason = reason;
  container.message = message;
  container.finished = clock_.now();
  status.reason = ok || reason == "Error" ? "" : std::move(reason);
  status.message = std::move(message);
  set_condition(status, {.type = "Ready",
                         .status = false,
                         .reason = ok ? "PodCompleted" : "PodFailed",
                         .message = {},
                         .since = clock_.now()});
  put_status(key, status);
}

void FakeCluster::vanish(const std::string& name_space, const std::string& pod) {
  store_.erase(pod_key(name_space, pod));
  changed_.notify();
}

void FakeCluster::append_log(const std::string& name_space, const std::string& pod,
                             std::string_view text, const std::string& container) {
  const auto object = store_.get(pod_key(name_space, pod));
  if (!object) { return; }
  logs_[path_of(name_space, pod) + "/" +
        (container.empty() ? first_container(*object) : container)] += text;
  changed_.notify();
}

void FakeCluster::play(const Resource& pod) {
  const auto script = pod_script_of(pod.metadata);
  const auto& [name_space, kind, name] = key_of(pod);
  if (script.start_fails) {
    fail_pod(name_space, name, 128, "StartFailed", "the script says that it cannot start");
    return;
  }
  run(name_space, name);
  append_log(name_space, name, script.log);
  if (script.run == PodScript::Run::at_once) {
    fail_pod(name_space, name, script.exit_code, script.exit_code == 0 ? "Completed" : "Error");
  }
}

void FakeCluster::stop_pod(const Resource& pod, const StopOptions& options) {
  if (options.how == StopOptions::How::detach) { return; }
  const auto key = key_of(pod);
  fail_pod(key.name_space, key.name, options.how == StopOptions::How::forced ? 137 : 143,
           options.reason.empty() ? "Stopped" : options.reason, options.message);
}

Async<Result<Health>> FakeCluster::probe() {
  auto entered = co_await enter(Op::probe);
  if (!entered) { co_return fail(std::move(entered.error())); }
  co_return health;
}

Async<Result<Admission>> FakeCluster::admit(std::span<const Resource> resources) {
  auto entered = co_await enter(Op::admit);
  if (!entered) { co_return fail(std::move(entered.error())); }
  co_return on_admit ? on_admit(resources) : admission;
}

Async<Result<void>> FakeCluster::apply(std::vector<Resource> resources) {
  auto entered = co_await enter(Op::apply);
  if (!entered) { co_return fail(std::move(entered.error())); }
  for (auto& resource : resources) {
    const auto key = key_of(resource);
    auto stored = store_.get(key);
    if (stored && same_content(*stored, resource)) { continue; }
    if (stored && resource.kind == "Pod") {
      co_return fail(ErrorKind::conflict,
                     fmt::format("{} exists with another content: pods never change", key.text()));
    }
    if (stored) {
      resource.metadata.uid = stored->metadata.uid;
      resource.status = stored->status;
    } else if (resource.metadata.uid.empty()) {
      resource.metadata.uid = fmt::format("fake-{:08}", ++uids_);
    }
    if (resource.kind == "Pod") { resource.status = to_json(PodStatus{}); }
    store_.put(resource);
    if (resource.kind == "Pod" && plays_) { play(resource); }
  }
  co_return Result<void>{};
}

Async<Result<void>> FakeCluster::remove(Selector selector, StopOptions options) {
  auto entered = co_await enter(Op::remove);
  if (!entered) { co_return fail(std::move(entered.error())); }
  for (const auto& object : store_.list(selector)) {
    const auto key = key_of(object);
    if (object.kind == "Pod") { stop_pod(object, options); }
    store_.erase(key);
    std::erase_if(logs_, [&](const auto& entry) {
      return entry.first.starts_with(path_of(key.name_space, key.name) + "/");
    });
  }
  changed_.notify();
  co_return Result<void>{};
}

Async<Result<void>> FakeCluster::stop(Selector selector, StopOptions options) {
  auto entered = co_await enter(Op::stop);
  if (!entered) { co_return fail(std::move(entered.error())); }
  stops_.emplace_back(selector, options);
  selector.kind = "Pod";
  for (const auto& object : store_.list(selector)) {
    const bool ignores = plays_ && pod_script_of(object.metadata).run == PodScript::Run::stubborn &&
                         options.how == StopOptions::How::graceful && !options.grace;
    if (!ignores) { stop_pod(object, options); }
  }
  co_return Result<void>{};
}

Async<Result<std::vector<ResourceStatus>>> FakeCluster::list(Selector selector) {
  auto entered = co_await enter(Op::list);
  if (!entered) { co_return fail(std::move(entered.error())); }
  std::vector<ResourceStatus> out;
  for (const auto& object : store_.list(selector)) {
    out.push_back(status_of(object, object.version));
  }
  co_return out;
}

Result<std::shared_ptr<void>> FakeCluster::watch(
    Selector selector, std::function<void(const ResourceStatus&)> watcher) {
  return watch_objects(store_, executor_, std::move(selector), std::move(watcher));
}

Async<Result<LogChunk>> FakeCluster::logs(ContainerRef container, std::uint64_t offset,
                                          std::size_t limit, std::chrono::milliseconds wait) {
  auto entered = co_await enter(Op::logs);
  if (!entered) { co_return fail(std::move(entered.error())); }
  const auto deadline = std::chrono::steady_clock::now() + wait;
  while (true) {
    const auto generation = changed_.generation();
    const auto object = store_.get(pod_key(container.name_space, container.pod));
    if (!object) { co_return fail(no_pod(container.name_space, container.pod)); }
    const auto name = container.container.empty() ? first_container(*object) : container.container;
    const auto& text = logs_[path_of(container.name_space, container.pod) + "/" + name];
    const bool over = is_terminal(pod_status_from_json(object->status).phase);
    LogChunk out{.bytes = offset < text.size() ? text.substr(offset, limit) : std::string(),
                 .offset = offset,
                 .size = text.size(),
                 .ended = false};
    out.ended = over && offset + out.bytes.size() >= text.size();
    if (!out.bytes.empty() || out.ended || std::chrono::steady_clock::now() >= deadline) {
      co_return out;
    }
    co_await changed_.wait(generation, deadline);
  }
}

Async<Result<ExecResult>> FakeCluster::exec(ContainerRef container, ExecSpec spec) {
  auto entered = co_await enter(Op::exec);
  if (!entered) { co_return fail(std::move(entered.error())); }
  const auto object = store_.get(pod_key(container.name_space, container.pod));
  if (!object) { co_return fail(no_pod(container.name_space, container.pod)); }
  if (pod_status_from_json(object->status).phase != PodPhase::running) {
    co_return fail(ErrorKind::conflict, fmt::format("pod {} does not run", quote(container.pod)));
  }
  co_return on_exec ? on_exec(container, spec) : ExecResult{};
}

Async<Result<Usage>> FakeCluster::usage(std::string name_space, std::string pod) {
  auto entered = co_await enter(Op::usage);
  if (!entered) { co_return fail(std::move(entered.error())); }
  if (!store_.get(pod_key(name_space, pod))) { co_return fail(no_pod(name_space, pod)); }
  co_return usages[path_of(name_space, pod)];
}

Async<Result<std::vector<ClusterEvent>>> FakeCluster::events(Selector selector, Time since) {
  std::vector<ClusterEvent> out;
  for (const auto& event : events_) {
    const bool fits = (!selector.name_space || *selector.name_space == event.object.name_space) &&
                      (selector.kind.empty() || selector.kind == event.object.kind) &&
                      (selector.name.empty() || selector.name == event.object.name);
    if (fits && event.at >= since) { out.push_back(event); }
  }
  co_return out;
}

std::optional<QueuePosition> FakeCluster::queue_position(const std::string& name_space,
                                                         const std::string& pod) const {
  const auto found = positions.find(path_of(name_space, pod));
  return found == positions.end() ? std::nullopt : std::optional(found->second);
}

Async<Result<std::string>> FakeCluster::reach(std::string name_space, std::string service,
                                              std::string port) {
  const auto found = addresses.find(fmt::format("{}/{}/{}", name_space, service, port));
  if (found == addresses.end()) {
    co_return fail(ErrorKind::not_found,
                   fmt::format("no service {} with port {} in {}", quote(service), quote(port),
                               quote(name_space)));
  }
  co_return found->second;
}

std::optional<std::string> FakeCluster::work_folder(const std::string& name_space,
                                                    const std::string& pod) const {
  const auto found = work_folders.find(path_of(name_space, pod));
  return found == work_folders.end() ? std::nullopt : std::optional(found->second);
}

}  // namespace metier
