#include "cluster/embedded/pod_record.h"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <limits>

#include <fmt/format.h>

#include "base/result.h"

namespace metier {
namespace {

constexpr std::int64_t kMost = std::numeric_limits<int>::max();

// A number of the record, held to what it can be: the file lies where a damaged disk or another program can reach it.
std::int64_t number_in(const JsonObject& object, std::string_view key, std::int64_t most) {
  return std::clamp<std::int64_t>(int_in(object, key).value_or(0), 0, most);
}

Time time_in(const JsonObject& object, std::string_view key) {
  return Time{Duration(int_in(object, key).value_or(0))};
}

// A program that is not there is told as such; of the rest the step and the kernel's words.
void read_failure(const JsonObject& object, ContainerStatus& out) {
  const auto step = string_in(object, "step");
  const auto detail = string_in(object, "detail");
  const auto error = int_in(object, "errno").value_or(0);
  const auto path = string_in(object, "path");
  out.reason = "StartFailed";
  if (step == "interpreter") {
    out.reason = "ProgramMissing";
    out.message =
        fmt::format("the interpreter that the first line of {} names is not there", quote(detail));
  } else if (step == "exec" && error == ENOENT) {
    out.reason = "ProgramMissing";
    out.message = fmt::format("program {} is not there", quote(detail));
    if (!path.empty()) { out.message += fmt::format(" (looked in PATH {})", path); }
  } else if (step == "exec" && error == EACCES) {
    out.message = fmt::format(
        "program {} may not be executed: chmod +x it, or name its interpreter", quote(detail));
  } else {
    out.message = fmt::format("{} {}: {}", step, detail, string_in(object, "error"));
  }
}

ContainerStatus read_container(const JsonObject& object) {
  ContainerStatus out;
  out.name = string_in(object, "name");
  out.init = bool_in(object, "init");
  const auto starts = static_cast<int>(number_in(object, "starts", kMost));
  out.restarts = starts > 0 ? starts - 1 : 0;
  out.started = time_in(object, "started_us");
  out.finished = time_in(object, "finished_us");
  out.cpu_us = int_in(object, "cpu_us").value_or(0);
  out.peak_memory = number_in(object, "max_rss_kib", std::int64_t{1} << 50) * 1024;
  const auto state = string_in(object, "state");
  if (state == "running") {
    out.state = ContainerStatus::State::running;
    out.ready = true;
    return out;
  }
  if (state != "terminated") {
    out.reason = "ContainerCreating";
    return out;
  }
  out.state = ContainerStatus::State::terminated;
  out.signal = static_cast<int>(number_in(object, "signal", 127));
  out.exit_code =
      out.signal != 0 ? 128 + out.signal : static_cast<int>(number_in(object, "code", 255));
  if (const auto lost = string_in(object, "lost"); !lost.empty()) {
    out.reason = lost;
    out.message = "its exit status is not known";
    out.exit_code = 255;
  } else if (!string_in(object, "step").empty()) {
    read_failure(object, out);
  } else if (bool_in(object, "oom")) {
    out.reason = "OOMKilled";
    out.message = "it used more memory than its limit";
  } else if (out.signal != 0) {
    out.reason = fmt::format("Killed({})", signal_name(out.signal));
    out.message = bool_in(object, "core") ? "core dumped" : "";
  } else {
    out.reason = out.exit_code == 0 ? "Completed" : "Error";
    if (out.exit_code != 0) { out.message = fmt::format("exit code {}", out.exit_code); }
  }
  if (bool_in(object, "waiting")) {
    out.state = ContainerStatus::State::waiting;
    out.message = fmt::format("back-off after: {} {}", out.reason, out.message);
    out.reason = "CrashLoopBackOff";
  }
  return out;
}

}  // namespace

std::string signal_name(int signal) {
  if (const char* name = ::sigabbrev_np(signal); name != nullptr) {
    return fmt::format("SIG{}", name);
  }
  if (signal >= SIGRTMIN && signal <= SIGRTMAX) {
    return fmt::format("SIGRTMIN+{}", signal - SIGRTMIN);
  }
  return fmt::format("signal {}", signal);
}

Result<PodRecord> read_pod_record(std::string_view json) {
  METIER_TRY(document, parse_json(json));
  const auto* object = document.if_object();
  if (object == nullptr || int_in(*object, "v") != 1) {
    return fail(ErrorKind::invalid, "is not a version 1 record of a pod");
  }
  const auto* containers = array_in(*object, "containers");
  if (containers == nullptr) { return fail(ErrorKind::invalid, "has no containers"); }
  PodRecord out;
  out.ended = string_in(*object, "t") == "exit";
  out.shim = static_cast<int>(number_in(*object, "shim", kMost));
  out.boot = string_in(*object, "boot");
  auto& status = out.status;
  status.started = time_in(*object, "started_us");
  bool started = false;
  const ContainerStatus* failed = nullptr;
  for (const auto& one : *containers) {
    if (!one.is_object()) { return fail(ErrorKind::invalid, "has a damaged container"); }
    status.containers.push_back(read_container(one.as_object()));
    const auto& container = status.containers.back();
    if (container.started != Time{} && !container.init) { started = true; }
    if (bool_in(one.as_object(), "oom_child")) {
      set_condition(status, {.type = "ProcessOOMKilled",
                             .reason = "ProcessOOMKilled",
                             .message = "a process below the main one was killed: together they "
                                        "used more memory than the limit"});
    }
    const int pid = static_cast<int>(number_in(one.as_object(), "pid", kMost));
    if (pid > 0 && container.state == ContainerStatus::State::running) {
      out.mains.push_back({pid, int_in(one.as_object(), "ticks").value_or(0)});
    }
  }
  if (const auto* ranks = array_in(*object, "ranks")) {
    for (const auto& one : *ranks) {
      if (!one.is_object()) { return fail(ErrorKind::invalid, "has a damaged rank"); }
      status.containers.push_back(read_container(one.as_object()));
      auto& rank = status.containers.back();
      rank.rank = true;
      const int pid = static_cast<int>(number_in(one.as_object(), "pid", kMost));
      if (pid > 0 && rank.state == ContainerStatus::State::running) {
        out.mains.push_back({pid, int_in(one.as_object(), "ticks").value_or(0)});
      }
    }
  }
  for (const auto& container : status.containers) {
    if (container.rank) { continue; }  // whoever asked for it judges its end
    const bool bad =
        container.state == ContainerStatus::State::terminated && container.exit_code != 0;
    if (bad && (failed == nullptr || container.finished < failed->finished)) {
      failed = &container;
    }
  }
  if (const auto orphans = string_in(*object, "orphans"); !orphans.empty()) {
    set_condition(status,
                  {.type = "OrphansKilled",
                   .reason = "OrphansKilled",
                   .message = "still running when the pod ended, killed: " + std::string(orphans)});
  }
  if (int_in(*object, "stuck").value_or(0) > 0) {
    set_condition(status, {.type = "ProcessStuck",
                           .reason = "ProcessStuck",
                           .message = "a process could not be killed (uninterruptible)"});
  }
  status.reason = string_in(*object, "reason");
  status.message = string_in(*object, "message");
  if (!out.ended) {
    status.phase = started ? PodPhase::running : PodPhase::pending;
    return out;
  }
  status.finished = time_in(*object, "finished_us");
  status.phase =
      failed != nullptr || !status.reason.empty() ? PodPhase::failed : PodPhase::succeeded;
  if (status.reason.empty()) {
    status.reason = failed != nullptr ? failed->reason : "Completed";
    if (failed != nullptr) { status.message = failed->message; }
  }
  return out;
}

std::string lost_record(std::string_view last_state, const std::string& id, std::string_view reason,
                        std::string_view message, Time now) {
  JsonObject record{{"v", 1}, {"id", id}, {"containers", JsonArray{}}};
  // What cannot be read back is not kept: the pod must have ended for whoever reads this one.
  if (read_pod_record(last_state)) { record = parse_json(last_state)->as_object(); }
  record["t"] = "exit";
  // A stop that was asked for keeps its reason beside the loss.
  record["reason"] = reason;
  record["message"] = message;
  record["finished_us"] = now.time_since_epoch().count();
  for (const std::string_view list : {"containers", "ranks"}) {
    auto* entries = record.if_contains(list);
    if (entries == nullptr || !entries->is_array()) { continue; }
    for (auto& one : entries->as_array()) {
      if (!one.is_object()) { continue; }
      auto& container = one.as_object();
      if (string_in(container, "state") == "terminated") { continue; }
      container["state"] = "terminated";
      container["lost"] = reason;
      container["finished_us"] = now.time_since_epoch().count();
    }
  }
  return dump_json(record);
}

}  // namespace metier
