// What a DaskCluster needs now. Pure: from its spec, status, pods and what the scheduler said.
#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <utility>

#include "cluster/controllers/dask/dask_cluster.h"
#include "cluster/controllers/pod_end.h"
#include "cluster/controllers/pod_group.h"
#include "resource/pod.h"

namespace metier {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr std::int64_t kLongestPause = 30;  // seconds
constexpr std::int64_t kMostBroken = 3;     // workers in a row that ended before they had joined
constexpr std::size_t kKeptEnded = 8;       // ended pods kept for their logs
constexpr seconds kLeaveGrace{30};          // for a retired worker to leave by itself
constexpr seconds kAskAgain{10};            // for the scheduler to give up a worker that it kept
constexpr seconds kFreshOpen{3};  // who opened it without a Pod, or with one to come, is waited for
constexpr seconds kFirstLooks{10};    // a client that comes and shuts down at once is seen
constexpr seconds kLongestOpen{600};  // as long as clients wait for a cluster that starts
constexpr std::string_view kIncarnation = "metier.dev/incarnation";
constexpr std::string_view kIndex = "metier.dev/index";
constexpr std::string_view kComponent = "dask.org/component";
constexpr std::string_view kClusterName = "dask.org/cluster-name";

std::string label(const Resource& resource, std::string_view name) {
  const auto found = resource.metadata.labels.find(std::string(name));
  return found == resource.metadata.labels.end() ? std::string() : found->second;
}

class Reconciliation {
 public:
  Reconciliation(const Resource& cluster, const Snapshot& snapshot, const Facts& facts, Time now)
      : cluster_(cluster), snapshot_(snapshot), facts_(facts), now_(now) {
    if (cluster.status.is_object()) { status_ = cluster.status.get_object(); }
    minimum_ = std::max<std::int64_t>(0, int_in(cluster.spec(), "minimum").value_or(0));
    maximum_ = std::max(minimum_, int_in(cluster.spec(), "maximum").value_or(1));
  }

  Decision decide() {
    const std::string opener(string_in(cluster_.spec(), "openedBy"));
    const std::string state = text("state");
    if (state.empty() || ((state == "Closed" || state == "Failed") && opener != text("openedBy"))) {
      open(opener);
    } else if (opener != text("openedBy")) {
      status_["openedBy"] = opener;
      status_["openedAt"] = to_iso(now_);
      status_["used"] = false;
      status_["opens"] = number("opens") + 1;
      if (facts_.is_object()) {
        status_["servedBefore"] = int_in(facts_.get_object(), "served").value_or(0);
      }
    }
    if (text("state") == "Closed" || text("state") == "Failed") {
      stop_all();
    } else {
      sort_pods();
      run();
    }
    Json status(std::move(status_));
    if (status != cluster_.status) { out_.status = std::move(status); }
    return std::move(out_);
  }

 private:
  std::string text(std::string_view field) const { return std::string(string_in(status_, field)); }
  std::int64_t number(std::string_view field) const { return int_in(status_, field).value_or(0); }
  std::int64_t first_workers() const { return std::max<std::int64_t>(1, minimum_); }

  void open(const std::string& opener) {
    const std::int64_t incarnation = number("incarnation") + 1;
    const std::int64_t next = number("next");
    status_ = JsonObject{{"state", "Starting"}, {"incarnation", incarnation},
                         {"openedBy", opener},  {"openedAt", to_iso(now_)},
                         {"used", false},       {"next", next},
                         {"first", next}};
  }

  // Kept for their logs, a few; what still runs ends.
  void stop_all() {
    std::vector<const Resource*> ended;
    for (const Resource& pod : snapshot_.pods) {
      if (is_terminal(pod_status_from_json(pod.status).phase)) {
        ended.push_back(&pod);
      } else {
        out_.remove.push_back(key_of(pod));
      }
    }
    keep_few(ended);
  }

  void keep_few(std::vector<const Resource*> ended) {
    if (ended.size() <= kKeptEnded) { return; }
    std::ranges::sort(ended, {}, [](const Resource* pod) { return pod->version; });
    for (std::size_t i = 0; i + kKeptEnded < ended.size(); ++i) {
      out_.remove.push_back(key_of(*ended[i]));
    }
  }

  void sort_pods() {
    const std::string incarnation = std::to_string(number("incarnation"));
    std::vector<const Resource*> ended;
    for (const Resource& pod : snapshot_.pods) {
      const PodStatus status = pod_status_from_json(pod.status);
      const bool over = is_terminal(status.phase);
      if (label(pod, kIncarnation) != incarnation) {
        old_live_ = old_live_ || !over;
        over ? ended.push_back(&pod) : out_.remove.push_back(key_of(pod));
        continue;
      }
      if (label(pod, kComponent) == "scheduler") {
        scheduler_ = &pod;
        continue;
      }
      indices_.insert(label(pod, kIndex));
      if (over) {
        ended.push_back(&pod);
      } else if (!pod.metadata.other.contains("deletionTimestamp")) {
        live_.push_back(&pod);
      }
    }
    for (const Resource* pod : ended) { note_end(*pod); }
    keep_few(std::move(ended));
  }

  bool registered(const Resource& pod) const {
    const JsonObject* names =
        facts_.is_object() ? object_in(facts_.get_object(), "names") : nullptr;
    return names != nullptr && names->contains(label(pod, kIndex));
  }

  bool has_joined(std::string_view pod) const {
    const JsonArray* joined = array_in(status_, "joined");
    return joined != nullptr && std::ranges::any_of(*joined, [pod](const Json& name) {
             return name.is_string() && std::string_view(name.get_string()) == pod;
           });
  }

  // Beside workers that work, the next one waits the longer the more ended before they had joined.
  bool waits_for_next() const {
    const auto since = from_iso(text("brokenAt"));
    const auto pause = std::chrono::seconds(
        std::min<std::int64_t>(kLongestPause, 1LL << std::min<std::int64_t>(number("broken"), 10)));
    return number("broken") > 0 && since && now_ - *since < pause;
  }

  // A worker's end is told once: `counted` holds the pods whose end is in the books.
  void note_end(const Resource& pod) {
    if (label(pod, kIncarnation) != std::to_string(number("incarnation"))) { return; }
    JsonObject& leaving = ensure_object(status_, "leaving");
    leaving.erase(pod.metadata.name);
    JsonArray& counted = ensure_array(status_, "counted");
    for (const Json& name : counted) {
      if (name.is_string() && std::string_view(name.get_string()) == pod.metadata.name) { return; }
    }
    counted.emplace_back(pod.metadata.name);
    if (counted.size() > 4 * kKeptEnded) { counted.erase(counted.begin()); }
    const PodStatus status = pod_status_from_json(pod.status);
    if (has_joined(pod.metadata.name) || status.phase != PodPhase::failed) { return; }
    status_["broken"] = number("broken") + 1;
    status_["brokenAt"] = to_iso(now_);
    status_["failed"] = pod.metadata.name;
    status_["reason"] = lacks_dask(status)                                  ? "EngineMissing"
                        : status.reason.empty() || status.reason == "Error" ? "WorkerFailed"
                                                                            : status.reason;
    status_["message"] = end_text(pod, status);
  }

  // Its program is not there: the shell's word for it.
  static bool lacks_dask(const PodStatus& status) {
    return std::ranges::any_of(status.containers, [](const ContainerStatus& container) {
      return container.state == ContainerStatus::State::terminated && container.exit_code == 127;
    });
  }

  static std::string end_text(const Resource& pod, const PodStatus& status) {
    for (const ContainerStatus& container : status.containers) {
      if (container.state != ContainerStatus::State::terminated) { continue; }
      if (container.exit_code == 127) {
        return fmt::format(
            "{}: the function's environment has no 'dask' program: metier run --requirements FILE, "
            "with dask and distributed as its lines",
            pod.metadata.name);
      }
      if (container.signal != 0) {
        return fmt::format("{} was killed by signal {}", pod.metadata.name, container.signal);
      }
      if (end_is_unseen(status.reason)) { break; }  // nobody knows how it ended
      const std::string code = fmt::format("exit code {}", container.exit_code);
      const bool more = !container.message.empty() && container.message != code;
      // Its own words are in its log: a run's log is its handler's.
      return fmt::format("{} ended with {}{}; its log: metier logs RUN --part {}",
                         pod.metadata.name, code, more ? ": " + container.message : "",
                         part_of(pod));
    }
    return fmt::format("{}{} {}", pod.metadata.name,
                       end_is_unseen(status.reason) ? " was lost:" : ":",
                       status.message.empty() ? "it failed" : status.message);
  }

  // As `describe` and `logs --part` name it.
  static std::string part_of(const Resource& pod) {
    const std::string component = label(pod, kComponent);
    if (component == "worker") { return component + "-" + label(pod, kIndex); }
    const std::string incarnation = label(pod, kIncarnation);
    return incarnation == "1" ? component : component + "-" + incarnation;
  }

  void fail_with(std::string reason, std::string message, const std::string& pod) {
    status_["state"] = "Failed";
    status_["reason"] = std::move(reason);
    status_["message"] = std::move(message);
    status_["failed"] = pod;
    status_["failedAt"] = to_iso(now_);
    status_.erase("ready");
    stop_all();
  }

  void run() {
    if (old_live_) {  // the address of the Service is still held
      out_.requeue = milliseconds(20);
      return;
    }
    if (!has_group()) { return; }
    // Until its scheduler has been seen: a server that dies in between has told its decision and not carried it out.
    if (text("scheduler").empty() && start()) { return; }
    if (scheduler_ == nullptr) {
      fail_with("SchedulerLost", "the pod of the scheduler was removed", "");
      return;
    }
    const PodStatus status = pod_status_from_json(scheduler_->status);
    if (is_terminal(status.phase)) {
      scheduler_ended(status);
      return;
    }
    const bool works = std::ranges::any_of(
        live_, [this](const Resource* pod) { return has_joined(pod->metadata.name); });
    if (number("broken") >= kMostBroken && !works) {
      fail_with(text("reason"), text("message"), text("failed"));
      return;
    }
    if (status.phase != PodPhase::running) {
      status_["scheduler"] = scheduler_->metadata.name;
      explain(status);
      return;
    }
    status_["scheduler"] = scheduler_->metadata.name;
    const std::string address = status.pod_ip.empty() ? "127.0.0.1" : status.pod_ip;
    status_["address"] = address;
    const bool tls = string_in(cluster_.spec(), "address").starts_with("tls://");
    status_["comm"] = fmt::format("{}://{}:8786", tls ? "tls" : "tcp", address);
    status_["dashboard"] = fmt::format("http://{}:8787", address);
    scale();
  }

  // Why the first gang is not there yet, for those who wait for it.
  void explain(const PodStatus& scheduler) {
    std::string reason = scheduler.reason;
    std::string message = scheduler.message;
    for (const Resource* pod : live_) {
      if (!reason.empty() && reason != "GangIncomplete") { break; }
      const PodStatus status = pod_status_from_json(pod->status);
      if (status.phase != PodPhase::pending) { continue; }
      reason = status.reason;
      message = status.message;
    }
    if (reason == "GangIncomplete") { return; }
    if (reason.empty()) {
      status_.erase("reason");
      status_.erase("message");
      return;
    }
    status_["reason"] = reason;
    status_["message"] = message;
  }

  // Who opened it has not connected yet, and still may: a handler that failed at its first import never does.
  bool opener_is_coming() const {
    if (bool_in(status_, "used") || snapshot_.opener_over) { return false; }
    const auto opened = from_iso(text("openedAt"));
    return opened && now_ - *opened < kLongestOpen;
  }

  // The one who opened it found a scheduler that had ended already, whatever was known of that then.
  bool opened_after(const PodStatus& scheduler) const {
    const auto opened = from_iso(text("openedAt"));
    return !bool_in(status_, "used") && opened && scheduler.finished != Time{} &&
           scheduler.finished < *opened;
  }

  // Whether a scheduler that ended by itself has left somebody waiting.
  bool is_awaited() const {
    if (bool_in(status_, "used") || snapshot_.opener_over) { return false; }
    const auto opened = from_iso(text("openedAt"));
    return snapshot_.opener_lives || (number("opens") > 0 && opened && now_ - *opened < kFreshOpen);
  }

  // For the same opener, who has waited since it asked: `openedAt` stays.
  void open_again() {
    const std::string opened = text("openedAt");
    open(text("openedBy"));
    status_["openedAt"] = opened;
    out_.requeue = milliseconds(1);
  }

  void scheduler_ended(const PodStatus& status) {
    if (opened_after(status) && !snapshot_.opener_over) { return open_again(); }
    if (status.phase == PodPhase::succeeded) {
      if (is_awaited()) { return open_again(); }
      close("Closed", "the scheduler has ended: idle for scheduler_timeout, or shut down");
      return;
    }
    std::string message = end_text(*scheduler_, status);
    if (status.reason == "PortTaken") {  // it never began
      fail_with(status.reason, std::move(message), scheduler_->metadata.name);
      return;
    }
    if (lacks_dask(status)) {
      fail_with("EngineMissing", std::move(message), scheduler_->metadata.name);
      return;
    }
    fail_with(status.reason == "OOMKilled" || end_is_unseen(status.reason) ? status.reason
                                                                           : "SchedulerLost",
              "the scheduler of the Dask cluster is gone: " + message, scheduler_->metadata.name);
  }

  void close(std::string_view reason, std::string_view message) {
    status_["state"] = "Closed";
    status_["reason"] = reason;
    status_["message"] = message;
    status_.erase("ready");
    stop_all();
  }

  // The gang's group, with the right number of members; pods come after it.
  bool has_group() {
    const int members =
        static_cast<int>(1 + first_workers() + (bool_in(cluster_.spec(), "handler") ? 1 : 0));
    if (scheduler_ != nullptr &&
        pod_status_from_json(scheduler_->status).phase != PodPhase::pending) {
      return true;
    }
    for (const Resource& group : snapshot_.groups) {
      const int has = static_cast<int>(int_in(group.spec(), "minMember").value_or(0));
      if (has == members || group.metadata.other.contains("deletionTimestamp")) { return true; }
      out_.remove.push_back(key_of(group));
      out_.requeue = milliseconds(20);
      return false;
    }
    auto group = make_pod_group(cluster_.metadata.name, cluster_.metadata.name_space, members);
    mark(group);
    out_.create.push_back(std::move(group));
    return true;
  }

  void mark(Resource& object) const {
    object.metadata.name_space = cluster_.metadata.name_space;
    for (const auto& [key, value] : cluster_.metadata.labels) {
      object.metadata.labels.try_emplace(key, value);
    }
    object.metadata.labels[std::string(kClusterName)] = cluster_.metadata.name;
    object.metadata.owner = owner_ref_to(cluster_);
  }

  // Makes what is missing of the first gang; false when nothing is.
  bool start() {
    if (snapshot_.services.empty()) { out_.create.insert(out_.create.begin(), service()); }
    bool made = scheduler_ == nullptr;
    if (made) {
      Resource scheduler = pod("scheduler", number("incarnation") > 1
                                                ? fmt::format("scheduler-{}", number("incarnation"))
                                                : "scheduler");
      scheduler.metadata.labels[std::string(kIndex)] = "0";
      out_.create.push_back(std::move(scheduler));
    }
    const std::int64_t first = number("first");
    for (std::int64_t index = first; index < first + first_workers(); ++index) {
      if (indices_.contains(std::to_string(index))) { continue; }
      made = true;
      add_worker(index);
    }
    return made;
  }

  Resource service() const {
    Resource out{.api_version = "v1",
                 .kind = "Service",
                 .metadata = {.name = cluster_.metadata.name, .name_space = {}}};
    mark(out);
    out.metadata.labels["app"] = "dask";
    out.metadata.labels["user"] = "metier";
    out.metadata.labels[std::string(kComponent)] = "scheduler";
    JsonObject dashboard{{"name", "dashboard"}, {"port", 8787}, {"targetPort", 8787}};
    JsonObject spec{{"selector", JsonObject{{kClusterName, cluster_.metadata.name},
                                            {kComponent, "scheduler"}}}};
    if (const JsonObject* asked = object_in(cluster_.spec(), "service")) {
      if (const auto type = string_in(*asked, "type"); !type.empty()) { spec["type"] = type; }
      if (const auto port = int_in(*asked, "nodePort")) { dashboard["nodePort"] = *port; }
    }
    spec["ports"] = JsonArray{JsonObject{{"name", "comm"}, {"port", 8786}, {"targetPort", 8786}},
                              std::move(dashboard)};
    out.body["spec"] = std::move(spec);
    return out;
  }

  Resource pod(std::string_view role, const std::string& suffix) const {
    Resource out{.api_version = "v1", .kind = "Pod"};
    if (const JsonObject* part = object_in(cluster_.spec(), role)) {
      if (const JsonObject* from = object_in(*part, "template")) {
        if (const JsonObject* metadata = object_in(*from, "metadata")) {
          for (const auto& [field, into] : {std::pair("labels", &out.metadata.labels),
                                            std::pair("annotations", &out.metadata.annotations)}) {
            if (const Json* given = metadata->if_contains(field); given != nullptr) {
              if (auto read = labels_from_json(*given, field)) { *into = std::move(*read); }
            }
          }
        }
        if (const JsonObject* spec = object_in(*from, "spec")) { out.body["spec"] = *spec; }
      }
    }
    mark(out);
    out.metadata.name = cluster_.metadata.name + "-" + suffix;
    out.metadata.labels[std::string(kIncarnation)] = std::to_string(number("incarnation"));
    out.metadata.labels[std::string(kPodGroupLabel)] = cluster_.metadata.name;
    return out;
  }

  void add_workers(std::int64_t count) {
    for (std::int64_t i = 0; i < count; ++i) { add_worker(number("next")); }
  }

  void add_worker(std::int64_t index) {
    status_["next"] = std::max(number("next"), index + 1);
    Resource worker = pod("worker", fmt::format("worker-{}", index));
    worker.metadata.labels[std::string(kIndex)] = std::to_string(index);
    if (JsonObject* spec = object_in(worker.body, "spec")) {
      if (JsonArray& containers = ensure_array(*spec, "containers");
          !containers.empty() && containers.front().is_object()) {
        JsonObject& container = containers.front().get_object();
        JsonArray& args = ensure_array(container, "args");
        args.emplace_back("--name");
        args.emplace_back(std::to_string(index));
        ensure_array(container, "env")
            .push_back(JsonObject{{"name", "DASK_SCHEDULER_ADDRESS"},
                                  {"value", string_in(cluster_.spec(), "address")}});
      }
    }
    out_.create.push_back(std::move(worker));
  }

  void scale() {
    const bool ready = facts_.is_object() && bool_in(facts_.get_object(), "ready");
    if (!ready) {
      out_.requeue = milliseconds(bool_in(status_, "ready") ? 1000 : 50);
      return;
    }
    const JsonObject& facts = facts_.get_object();
    status_["ready"] = true;
    status_["state"] = "Running";
    if (!bool_in(status_, "used") &&
        (int_in(facts, "clients").value_or(0) > 0 ||
         int_in(facts, "served").value_or(0) > number("servedBefore"))) {
      status_["used"] = true;
    }
    if (snapshot_.room_wanted && !opener_is_coming() && int_in(facts, "clients").value_or(1) == 0 &&
        int_in(facts, "desired").value_or(1) == 0) {
      close("GaveRoom", "it was idle, and others waited for its room");
      return;
    }
    const bool somebody_came = remember_joined();
    find_orphaned(facts);
    follow_leaving(facts);
    retire_orphaned();
    std::vector<const Resource*> staying;
    std::int64_t joined = 0;
    for (const Resource* pod : live_) {
      if (leaves(*pod) || (orphaned_.contains(label(*pod, kIndex)) && was_kept(*pod))) { continue; }
      staying.push_back(pod);
      joined += registered(*pod) ? 1 : 0;
    }
    const auto have = static_cast<std::int64_t>(staying.size());
    const std::int64_t desired =
        std::clamp(int_in(facts, "desired").value_or(0), minimum_, maximum_);
    // Until it has been used the first workers stay: a handler is on its way.
    const std::int64_t floor = bool_in(status_, "used") ? minimum_ : first_workers();
    std::int64_t wanted = std::max(desired, floor);
    if (wanted > have) {
      if (joined == 0 || !waits_for_next()) { add_workers(wanted - have); }
    } else if (wanted < have) {
      const std::int64_t calm = std::clamp(int_in(facts, "calm").value_or(have), floor, maximum_);
      const std::int64_t surplus = have - std::max(calm, wanted);
      if (have > maximum_ || surplus > 0) { shrink(staying, std::max(surplus, have - maximum_)); }
      wanted = std::max(wanted, std::max(calm, wanted));
    }
    if (somebody_came || (joined > 0 && joined == have && wanted <= have)) {
      status_.erase("broken");
      status_.erase("brokenAt");
      status_.erase("reason");
      status_.erase("message");
      status_.erase("failed");
    }
    status_["workers"] = JsonObject{{"wanted", wanted}, {"ready", joined}};
    if (joined >= minimum_) { status_["whole"] = true; }
    out_.requeue = milliseconds(joined < have || awaits_first_client() ? 50 : 1000);
  }

  // A client is seen before it can shut the scheduler down: Client.shutdown waits 100 ms first.
  bool awaits_first_client() const {
    if (bool_in(status_, "used") || snapshot_.opener_over) { return false; }
    const auto opened = from_iso(text("openedAt"));
    const Time began = pod_status_from_json(scheduler_->status).started;
    return opened && now_ - std::max(*opened, began) < kFirstLooks;
  }

  void find_orphaned(const JsonObject& facts) {
    if (const JsonArray* orphans = array_in(facts, "orphans")) {
      for (const Json& name : *orphans) {
        if (name.is_string()) { orphaned_.emplace(name.get_string()); }
      }
    }
    for (const Resource* pod : live_) {
      takers_ += registered(*pod) && !leaves(*pod) && !orphaned_.contains(label(*pod, kIndex));
    }
  }

  bool leaves(const Resource& pod) const {
    const JsonObject* leaving = object_in(status_, "leaving");
    return leaving != nullptr && leaving->contains(pod.metadata.name);
  }

  // The scheduler would not give it up when it was asked last.
  bool was_kept(const Resource& pod) const {
    const JsonObject* kept = object_in(status_, "kept");
    return kept != nullptr && kept->contains(pod.metadata.name);
  }

  // One that was kept is asked for again when there are more workers that could take what it holds, or after a while.
  bool may_be_asked_for(const Resource& pod) const {
    if (!registered(pod) || leaves(pod)) { return false; }
    if (!was_kept(pod)) { return true; }
    const JsonObject& kept = status_.at("kept").at(pod.metadata.name).get_object();
    const auto at = from_iso(string_in(kept, "at"));
    return takers_ > int_in(kept, "takers").value_or(0) || !at || now_ - *at > kAskAgain;
  }

  // One round at a time, of workers chosen here: told to the scheduler again, it means the same.
  void retire(const std::vector<const Resource*>& pods, bool stuck) {
    if (pods.empty() || status_.contains("retire")) { return; }
    JsonObject workers;
    for (const Resource* pod : pods) {
      const std::string index = label(*pod, kIndex);
      workers[index] = string_in(*object_in(facts_.get_object(), "names"), index);
    }
    status_["retire"] = JsonObject{{"workers", std::move(workers)}, {"stuck", stuck}};
  }

  // Workers in a call that nobody wants any more. One that is kept for what it holds is no use to others: it gets its
  // successor beside it, and goes when that one can take over.
  void retire_orphaned() {
    std::vector<const Resource*> asked;
    for (const Resource* pod : live_) {
      if (orphaned_.contains(label(*pod, kIndex)) && may_be_asked_for(*pod)) {
        asked.push_back(pod);
      }
    }
    retire(asked, true);
  }

  // Whether one joined that had not before.
  bool remember_joined() {
    JsonArray names;
    bool somebody_came = false;
    for (const Resource* pod : live_) {
      const bool was = has_joined(pod->metadata.name);
      if (was || registered(*pod)) { names.emplace_back(pod->metadata.name); }
      somebody_came = somebody_came || (!was && registered(*pod));
    }
    status_["joined"] = std::move(names);
    return somebody_came;
  }

  const Resource* live_worker(const Json& index) const {
    const auto found = std::ranges::find_if(live_, [&](const Resource* pod) {
      return index.is_string() && label(*pod, kIndex) == std::string_view(index.get_string());
    });
    return found == live_.end() ? nullptr : *found;
  }

  void note_retired(const JsonObject& answer) {
    const bool stuck = bool_in(status_.at("retire").get_object(), "stuck");
    status_.erase("retire");
    const JsonArray none;
    const JsonArray* gone = array_in(answer, "gone");
    for (const Json& name : gone == nullptr ? none : *gone) {
      const Resource* pod = live_worker(name);
      if (pod == nullptr) { continue; }
      ensure_object(status_, "leaving")[pod->metadata.name] = to_iso(now_);
      if (stuck) {
        out_.remove.push_back(key_of(*pod));
      }  // it would not leave before its call ends
    }
    const JsonArray* kept = array_in(answer, "kept");
    for (const Json& name : kept == nullptr ? none : *kept) {
      const Resource* pod = live_worker(name);
      if (pod == nullptr) { continue; }
      ensure_object(status_, "kept")[pod->metadata.name] =
          JsonObject{{"at", to_iso(now_)}, {"takers", takers_}};
    }
  }

  // Those that the scheduler gave up leave by themselves; who stays too long is stopped.
  void follow_leaving(const JsonObject& facts) {
    const JsonObject* answer = object_in(facts, "retired");
    if (answer != nullptr && status_.contains("retire")) { note_retired(*answer); }
    JsonObject& leaving = ensure_object(status_, "leaving");
    for (const Resource* pod : live_) {
      const Json* since = leaving.if_contains(pod->metadata.name);
      if (since == nullptr || !since->is_string()) { continue; }
      const auto from = from_iso(std::string_view(since->get_string()));
      if (!from || now_ - *from > kLeaveGrace) { out_.remove.push_back(key_of(*pod)); }
    }
    forget_ended("leaving");
    forget_ended("kept");
  }

  void forget_ended(std::string_view field) {
    if (!status_.contains(field)) { return; }
    JsonObject& workers = ensure_object(status_, field);
    std::vector<std::string> gone;
    for (const auto& entry : workers) {
      const bool lives = std::ranges::any_of(live_, [&](const Resource* pod) {
        return pod->metadata.name == std::string_view(entry.key());
      });
      if (!lives) { gone.emplace_back(entry.key()); }
    }
    for (const std::string& name : gone) { workers.erase(name); }
  }

  // First those that have not joined, newest first; then those that it costs the scheduler least to lose.
  void shrink(const std::vector<const Resource*>& staying, std::int64_t count) {
    for (auto pod = staying.rbegin(); pod != staying.rend() && count > 0; ++pod) {
      if (pod_status_from_json((*pod)->status).phase != PodPhase::pending) { continue; }
      out_.remove.push_back(key_of(**pod));
      --count;
    }
    std::vector<const Resource*> order;
    if (const JsonArray* closable = array_in(facts_.get_object(), "closable")) {
      for (const Json& name : *closable) {
        const Resource* pod = live_worker(name);
        if (std::ranges::find(staying, pod) != staying.end()) { order.push_back(pod); }
      }
    } else {  // a scheduler without our page
      order.assign(staying.rbegin(), staying.rend());
    }
    std::vector<const Resource*> chosen;
    for (const Resource* pod : order) {
      if (std::cmp_less(chosen.size(), count) && may_be_asked_for(*pod)) { chosen.push_back(pod); }
    }
    retire(chosen, false);
  }

  const Resource& cluster_;
  const Snapshot& snapshot_;
  const Facts& facts_;
  Time now_;
  JsonObject status_;
  Decision out_;
  std::int64_t minimum_ = 0;
  std::int64_t maximum_ = 1;
  bool old_live_ = false;
  const Resource* scheduler_ = nullptr;
  std::vector<const Resource*> live_;  // workers of this incarnation that have not ended
  std::set<std::string> indices_;
  std::set<std::string> orphaned_;  // indices of workers in a call that nobody wants
  std::int64_t takers_ = 0;         // workers that can take what others hold
};

}  // namespace

Decision DaskClusterController::reconcile(const Resource& resource, const Snapshot& snapshot,
                                          const Facts& facts, Time now) const {
  Decision out = Reconciliation(resource, snapshot, facts, now).decide();
  if (out.requeue && *out.requeue == milliseconds(0)) { out.requeue = milliseconds(1); }
  return out;
}

}  // namespace metier
