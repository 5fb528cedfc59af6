#include "cluster/testing/fake_pod_driver.h"

#include <fmt/format.h>
#include <boost/asio/post.hpp>
#include <fstream>

namespace metier {
namespace {

Error unknown(const std::string& id) {
  return Error{.kind = ErrorKind::not_found,
               .message = fmt::format("no pod {}", quote(id)),
               .field = {},
               .fix = {},
               .code = {}};
}

}  // namespace

FakePodDriver::FakePodDriver(Executor executor, std::filesystem::path folder, const Clock& clock)
    : executor_(executor), folder_(std::move(folder)), clock_(clock), changed_(executor) {
  std::filesystem::create_directories(folder_);
}

FakePodDriver::~FakePodDriver() {
  *alive_ = false;
  std::error_code ignored;
  std::filesystem::remove_all(folder_, ignored);
}

std::string FakePodDriver::id_of(const std::string& name) const {
  for (const auto& [id, live] : pods_) {
    if (live.spec.pod.metadata.name == name) { return id; }
  }
  return {};
}

bool FakePodDriver::knows(const std::string& name) const { return !id_of(name).empty(); }

FakePodDriver::Live* FakePodDriver::find(const std::string& id) {
  const auto found = pods_.find(id);
  return found == pods_.end() || !found->second.known ? nullptr : &found->second;
}

void FakePodDriver::hold_starts(bool hold) {
  held_ = hold;
  changed_.notify();
}

void FakePodDriver::hold_execs(bool hold) {
  execs_held_ = hold;
  changed_.notify();
}

void FakePodDriver::finish(const std::string& name, int exit_code) {
  end(id_of(name), exit_code, exit_code == 0 ? "Completed" : "Error");
}

void FakePodDriver::kill(const std::string& name, std::string reason) {
  end(id_of(name), 137, std::move(reason));
}

void FakePodDriver::append_log(const std::string& name, std::string_view text) {
  std::ofstream(folder_ / (id_of(name) + ".log"), std::ios::app) << text << std::flush;
}

void FakePodDriver::forget() {
  for (auto& [id, live] : pods_) { live.known = false; }
  listener_ = nullptr;
}

void FakePodDriver::tell(const std::string& id) {
  changed_.notify();
  if (quiet) { return; }
  asio::post(executor_, [this, alive = alive_, id] {
    if (!*alive || !listener_) { return; }
    if (auto* live = find(id)) { listener_(id, PodStatus(live->status)); }
  });
}

void FakePodDriver::end(const std::string& id, int exit_code, std::string reason,
                        std::string message) {
  const auto found = pods_.find(id);
  if (found == pods_.end() || is_terminal(found->second.status.phase)) { return; }
  auto& status = found->second.status;
  status.phase = exit_code == 0 ? PodPhase::succeeded : PodPhase::failed;
  status.finished = clock_.now();
  status.reason = exit_code == 0 || reason == "Error" ? "" : reason;
  status.message = std::move(message);
  for (auto& container : status.containers) {
    container.state = ContainerStatus::State::terminated;
    container.exit_code = exit_code;
    container.reason = reason;
    container.ready = false;
    container.finished = clock_.now();
  }
  tell(id);
}

Async<Result<PodHandle>> FakePodDriver::start(LaunchSpec spec) {
  const auto id = spec.id;
  while (held_) { co_await changed_.wait(changed_.generation()); }
  if (pods_.contains(id)) {
    co_return fail(ErrorKind::conflict, fmt::format("pod {} exists already", quote(id)));
  }
  const auto script = pod_script_of(spec.pod.metadata);
  if (fail_start) {
    if (auto error = fail_start(spec)) { co_return fail(std::move(*error)); }
  }
  if (script.start_fails) {
    co_return fail(Error{.kind = ErrorKind::internal,
                         .message = "the script says that it cannot start",
                         .field = {},
                         .fix = {},
                         .code = "StartFailed"});
  }
  starts.push_back(spec.pod.metadata.name);
  auto& live = pods_[id];
  live.spec = std::move(spec);
  live.status.phase = PodPhase::running;
  live.status.started = clock_.now();
  for (const auto& container : live.spec.pod.containers) {
    live.status.containers.push_back({.name = container.name,
                                      .state = ContainerStatus::State::running,
                                      .ready = true,
                                      .started = clock_.now()});
  }
  std::ofstream(folder_ / (id + ".log"), std::ios::app) << script.log << std::flush;
  tell(id);
  if (script.run == PodScript::Run::at_once) {
    end(id, script.exit_code, script.exit_code == 0 ? "Completed" : "Error");
  }
  co_return PodHandle{.driver = "fake", .version = 1, .payload = id};
}

Async<Result<void>> FakePodDriver::recover(std::string id, PodHandle handle) {
  const auto found = pods_.find(id);
  if (found == pods_.end()) { co_return fail(unknown(id)); }
  if (!found->second.known) { recovered.push_back(found->second.spec.pod.metadata.name); }
  found->second.known = true;
  co_return Result<void>{};
}

Async<Result<std::vector<std::string>>> FakePodDriver::found() {
  std::vector<std::string> out;
  for (const auto& [id, live] : pods_) { out.push_back(id); }
  co_return out;
}

Async<Result<PodStatus>> FakePodDriver::status(std::string id) {
  const auto* live = find(id);
  if (live == nullptr) { co_return fail(unknown(id)); }
  co_return live->status;
}

Async<Result<PodStatus>> FakePodDriver::wait(std::string id) {
  while (true) {
    const auto generation = changed_.generation();
    const auto* live = find(id);
    if (live == nullptr) { co_return fail(unknown(id)); }
    if (is_terminal(live->status.phase)) { co_return live->status; }
    co_await changed_.wait(generation);
  }
}

Async<Result<ExecResult>> FakePodDriver::exec(std::string id, std::string container,
                                              ExecSpec spec) {
  const auto* live = find(id);
  if (live == nullptr) { co_return fail(unknown(id)); }
  if (is_terminal(live->status.phase)) { co_return fail(ErrorKind::conflict, "the pod has ended"); }
  while (execs_held_) { (void)co_await changed_.wait(changed_.generation()); }
  co_return on_exec ? on_exec(container, spec) : ExecResult{};
}

Async<Result<void>> FakePodDriver::stop(std::string id, StopOptions options) {
  auto* live = find(id);
  if (live == nullptr) { co_return fail(unknown(id)); }
  stops.emplace_back(live->spec.pod.metadata.name, options);
  if (is_terminal(live->status.phase) || options.how == StopOptions::How::detach) {
    co_return Result<void>{};
  }
  const auto reason = options.reason.empty() ? std::string("Stopped") : options.reason;
  const bool ignores = pod_script_of(live->spec.pod.metadata).run == PodScript::Run::stubborn;
  if (options.how == StopOptions::How::graceful && ignores) {
    live->grace = std::make_unique<Timer>(
        executor_, options.grace.value_or(std::chrono::seconds(live->spec.pod.grace_s)));
    live->grace->async_wait([this, alive = alive_, id, reason,
                             message = options.message](boost::system::error_code ec) {
      if (!ec && *alive) { end(id, 137, reason, message); }
    });
    co_return Result<void>{};
  }
  end(id, options.how == StopOptions::How::forced ? 137 : 143, reason, options.message);
  co_return Result<void>{};
}

Async<Result<void>> FakePodDriver::signal(std::string id, int number) {
  auto* live = find(id);
  if (live == nullptr) { co_return fail(unknown(id)); }
  signalled.push_back(number);
  if (number != 9 && pod_script_of(live->spec.pod.metadata).run == PodScript::Run::stubborn) {
    co_return Result<void>{};
  }
  for (auto& container : live->status.containers) { ++container.restarts; }
  tell(id);
  co_return Result<void>{};
}

Async<Result<void>> FakePodDriver::destroy(std::string id) {
  auto* live = find(id);
  if (live == nullptr) { co_return fail(unknown(id)); }
  if (!is_terminal(live->status.phase)) { co_return fail(ErrorKind::conflict, "the pod lives"); }
  destroyed.push_back(id);
  pods_.erase(id);
  std::error_code ignored;
  std::filesystem::remove(folder_ / (id + ".log"), ignored);
  co_return Result<void>{};
}

Async<Result<Usage>> FakePodDriver::usage(std::string id) {
  if (find(id) == nullptr) { co_return fail(unknown(id)); }
  co_return Usage{.cpu_us = 1000, .memory = 1 << 20, .peak_memory = 1 << 20, .processes = 1};
}

Result<std::string> FakePodDriver::log_path(const std::string& id, const std::string& container,
                                            int attempt) const {
  if (!pods_.contains(id)) { return fail(unknown(id)); }
  return (folder_ / (id + ".log")).string();
}

Result<std::string> FakePodDriver::work_folder(const std::string& id) const {
  if (!pods_.contains(id)) { return fail(unknown(id)); }
  return (folder_ / (id + ".work")).string();
}

}  // namespace metier
