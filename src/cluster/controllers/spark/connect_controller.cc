#include "cluster/controllers/spark/connect_controller.h"

#include <fmt/format.h>

#include <algorithm>

#include "cluster/controllers/pod_group.h"
#include "cluster/controllers/spark/spark_pods.h"
#include "cluster/controllers/spark/spark_rest.h"
#include "resource/pod.h"

namespace metier {
namespace {

using std::chrono::milliseconds;

// A client that has just asked for the server, or begun, may not be connected yet when its idle limit is over.
constexpr auto kFreshOpen = std::chrono::seconds(15);
constexpr std::size_t kKeptEnded = 2;  // pods of earlier incarnations, for their logs

std::int64_t incarnation_of(const Resource& pod) {
  const auto found = pod.metadata.labels.find(std::string(kSparkAttemptLabel));
  return found == pod.metadata.labels.end() ? 0 : std::atoll(found->second.c_str());
}

void open(JsonObject& status, std::string_view opener, Time now) {
  const auto incarnation = int_in(status, "incarnation").value_or(0) + 1;
  status = JsonObject{{"state", "Starting"},
                      {"incarnation", incarnation},
                      {"openedBy", opener},
                      {"openedAt", to_iso(now)}};
}

// Whether a server that ended for want of clients has left one waiting. One that has run for longer was connected, and is no more.
bool is_awaited(const PodStatus& server, const Snapshot& snapshot, const JsonObject& status,
                Time now) {
  const auto opened = from_iso(string_in(status, "openedAt"));
  if (bool_in(status, "reopened") && opened && now - *opened < kFreshOpen) { return true; }
  const Time ended = server.finished == Time{} ? now : server.finished;
  return std::ranges::any_of(snapshot.clients, [&](const Resource& client) {
    const PodStatus one = pod_status_from_json(client.status);
    return one.phase == PodPhase::pending || one.started > ended - kFreshOpen;
  });
}

void server_ended(const PodStatus& pod, const std::string& name, const Snapshot& snapshot,
                  JsonObject& status, Time now, Decision& out) {
  if (pod.phase == PodPhase::succeeded) {
    if (is_awaited(pod, snapshot, status, now)) {
      const std::string opener(string_in(status, "openedBy"));
      open(status, opener, now);
      out.requeue = milliseconds(1);
      return;
    }
    status["state"] = "Closed";
    status["reason"] = "Closed";
    status["message"] = "the warm Spark has ended: nobody was connected for its idle limit";
    return;
  }
  status["state"] = "Failed";
  // What the runner says by its exit code (EXIT_CODES of metier_runner.spark).
  const auto ended_with = [&](int code) {
    return std::ranges::any_of(pod.containers, [&](const ContainerStatus& container) {
      return container.exit_code == code;
    });
  };
  const bool missing = ended_with(5);
  const bool taken = pod.reason == "PortTaken";
  status["reason"] = pod.reason == "OOMKilled" || taken ? pod.reason
                     : missing                          ? "EngineMissing"
                                                        : "ServerLost";
  status["failed"] = name;
  status["failedAt"] = to_iso(now);
  status["message"] =
      missing ? "the warm Spark could not start: its log names what the environment lacks "
                "(--part server)"
      : taken ? fmt::format("the warm Spark could not start: {}", pod_end_text(pod))
              : fmt::format("the warm Spark of this project is gone: {}",
                            part_end_text("pod " + name, pod));
}

void keep_few(std::vector<const Resource*> ended, Decision& out) {
  std::ranges::sort(ended, {}, [](const Resource* pod) { return incarnation_of(*pod); });
  for (std::size_t i = 0; i + kKeptEnded < ended.size(); ++i) {
    out.remove.push_back(key_of(*ended[i]));
  }
}

}  // namespace

Async<Result<Facts>> SparkConnectController::gather(const Resource& resource) {
  const auto state = string_at(resource.status, "state");
  const std::string address(string_at(resource.status, "address"));
  if (client_ == nullptr || address.empty() || (state != "Starting" && state != "Running")) {
    co_return Facts();
  }
  JsonObject facts;
  auto progress = co_await ask_spark(
      *client_, fmt::format("http://{}:{}", address, spark_connect_ui_port(resource)));
  if (progress && progress->is_object()) { facts["progress"] = std::move(*progress); }
  co_return Facts(std::move(facts));
}

Async<Result<void>> SparkConnectController::before_stop(const Resource& pod) {
  co_return Result<void>{};
}

Decision SparkConnectController::reconcile(const Resource& resource, const Snapshot& snapshot,
                                           const Facts& facts, Time now) const {
  Decision out;
  JsonObject status = resource.status.is_object() ? resource.status.get_object() : JsonObject{};
  const std::string opener(string_in(resource.spec(), "openedBy"));
  const auto over = [&] {
    const auto state = string_in(status, "state");
    return state == "Closed" || state == "Failed";
  };
  if (string_in(status, "state").empty() || (over() && opener != string_in(status, "openedBy"))) {
    open(status, opener, now);
  } else if (opener != string_in(status, "openedBy")) {
    status["openedBy"] = opener;
    status["openedAt"] = to_iso(now);
    status["reopened"] = true;
  }
  const auto incarnation = int_in(status, "incarnation").value_or(1);
  const Resource* server = nullptr;
  std::vector<const Resource*> ended;
  bool old_lives = false;
  for (const Resource& pod : snapshot.pods) {
    if (incarnation_of(pod) == incarnation) {
      server = &pod;
    } else if (is_terminal(pod_status_from_json(pod.status).phase)) {
      ended.push_back(&pod);
    } else {
      old_lives = true;
      out.remove.push_back(key_of(pod));
    }
  }
  keep_few(std::move(ended), out);
  if (old_lives) { out.requeue = milliseconds(20); }  // it holds the address of the Service
  if (!over() && !old_lives) {
    const auto server_name = spark_connect_name(resource, incarnation);
    if (server != nullptr) {
      const PodStatus pod = pod_status_from_json(server->status);
      status["server"] = server->metadata.name;
      if (is_terminal(pod.phase)) {
        server_ended(pod, server->metadata.name, snapshot, status, now, out);
      } else if (pod.phase == PodPhase::running) {
        if (!pod.pod_ip.empty()) { status["address"] = pod.pod_ip; }
        status["webUIPort"] = spark_connect_ui_port(resource);
        const Json* progress = find_path(facts, "progress");
        if (progress != nullptr) {
          status["state"] = "Running";
          status["progress"] = *progress;
        }
        out.requeue = milliseconds(1000);
      } else if (!pod.reason.empty()) {
        status["reason"] = pod.reason;
        status["message"] = pod.message;
      }
    } else if (string_in(status, "server") == server_name) {
      status["state"] = "Failed";
      status["reason"] = "NodeLost";
      status["message"] = "the pod of the warm Spark was removed before it ended";
      status["failedAt"] = to_iso(now);
    } else {
      if (snapshot.services.empty()) { out.create.push_back(spark_connect_service(resource)); }
      if (snapshot.groups.empty()) { out.create.push_back(spark_connect_group(resource)); }
      out.create.push_back(spark_connect_pod(resource, incarnation, archives_));
    }
  }
  Json next(std::move(status));
  if (next != resource.status) { out.status = std::move(next); }
  return out;
}

}  // namespace metier
