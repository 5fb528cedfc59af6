#include "engine/why.h"

#include <algorithm>
#include <array>

namespace metier {
namespace {

constexpr auto kCauses = std::to_array<CauseText>({
    {"InsufficientCpu", "it waits for processors",
     "ask for less (--cpu), or abort what holds them"},
    {"InsufficientMemory", "it waits for memory", "ask for less (--mem), or abort what holds it"},
    {"InsufficientGpu", "it waits for GPUs", "ask for fewer (--gpus), or abort what holds them"},
    {"InsufficientPods", "the node runs as many pods as it may", "abort or wait for other runs"},
    {"GangIncomplete", "its pods start together and not all of them fit now",
     "ask for fewer replicas, or wait"},
    {"QueuePaused", "the queue is paused", "let it go on: metier queue resume"},
    {"NeverFits", "it asks for more than this machine has", "ask for less"},
    {"QueueOrder", "it waits behind a run that has waited longer",
     "wait, or abort the one before it: metier get pods"},
    {"Queued", "it is waiting for its turn", "wait, or see who is before it: metier get pods"},
    {"Starting", "its pod is being started", "wait a moment"},
    {"EnvironmentBuilding", "its environment is being built", "wait: the next run finds it ready"},
    {"EnvironmentFailed", "its environment could not be built",
     "mend what the message names: --requirements, --python, or the interpreter itself"},
    {"PackageMissing", "a package that it imports is not in its environment",
     "add it to --requirements"},
    {"SecretMissing", "it refers to a secret that does not exist",
     "create it: metier secret set NAME:KEY"},
    {"ConfigMapMissing", "it refers to a config map that does not exist",
     "create it: metier apply -f FILE"},
    {"ProgramMissing", "the program that it should run is not there",
     "correct the command, or put the program where it is looked for"},
    {"StartFailed", "its processes could not be started", "see the message"},
    {"VolumeMissing", "a volume's source does not exist",
     "create it, or correct the volume; the run goes on by itself"},
    {"PortTaken", "a port that it needs is in use", "choose another port, or stop its holder"},
    {"EngineMissing", "the engine that this kind needs is not installed",
     "see what is missing: metier kinds --check"},
    {"ServiceUnavailable", "the service that it works with does not answer",
     "start the service, or correct its address"},
    {"NodeLost", "the node or the pod was lost", "run it again"},
    {"OOMKilled", "it was killed because it used more memory than its limit",
     "give it more: --mem"},
    {"DeadlineExceeded", "it ran longer than its activeDeadlineSeconds",
     "give it more: --set spec.active_deadline_seconds=N"},
    {"ThresholdExceeded", "it was longer in one state than its threshold allows",
     "raise spec.state_thresholds"},
    {"ClientLost", "the client that ran it is gone",
     "run it again, or as kind job so that no client is needed"},
    {"ShimLost", "the program that watched its processes was killed, so its exit status is unknown",
     "run it again"},
    {"HostRebooted", "the machine was restarted while it ran", "run it again"},
    {"RankFailed", "one of its ranks failed", "see that rank's log"},
    {"ExecutorsFailed", "more of its Spark executors failed than may",
     "see the executor's log: metier logs --part executor-N"},
    {"ServerLost", "the warm Spark that its session was in is gone", "run it again"},
    {"SchedulerLost", "the scheduler of its Dask cluster was lost",
     "run it again: that opens the cluster again"},
    {"ClusterBusy", "another run used its Dask cluster with other code",
     "run it again when that one has ended"},
    {"WorkerFailed", "the workers of its Dask cluster did not come up",
     "see the log of a worker that the message names"},
    {"ClusterClosed", "its Dask cluster was closed while it ran",
     "run it again: that opens the cluster again"},
    {"Silent", "it prints nothing and uses no processor", "look where its ranks wait, or abort it"},
    {"HandlerError", "the user's code raised", "see the traceback: metier logs"},
    {"HandlerMissing", "the file has no handler of that name",
     "name one that exists: FILE:HANDLER"},
    {"InvalidParameter", "a parameter does not fit the handler", "see the handler's parameters"},
    {"IterationsFailed", "some of its iterations failed",
     "see their errors: metier logs; their states: metier describe"},
    {"ExitCode", "its program ended with a non-zero exit code", "see its log: metier logs"},
    {"Killed", "its process was killed by a signal", "see its log: metier logs"},
    {"AbortedByUser", "somebody aborted it", "run it again"},
    {"Internal", "this is a fault of metier, not of your code",
     "please report it, with the server's log"},
    {"AwaitingRetry", "an attempt failed; the next one starts soon", "wait, or abort it"},
});

using Amounts = std::map<std::string, Quantity, std::less<>>;

std::string amount_text(std::string_view name, const Quantity& amount) {
  return name == "memory" ? human_bytes(amount.units())
         : name == "cpu"  ? amount.cpu_text()
                          : std::to_string(amount.units());
}

std::string fact(const Amounts& amounts) {
  std::string out;
  for (const auto& [name, amount] : amounts) {
    if (amount.milli() == 0 || name == "pods") { continue; }
    out += (out.empty() ? "" : " · ") + name + " " + amount_text(name, amount);
  }
  return out;
}

// "cpu 0 of 2 · memory 20 GiB of 23 GiB"
std::string free_text(const Amounts& free, const Amounts& all) {
  std::string out;
  for (const auto& [name, whole] : all) {
    if (whole.milli() == 0 || name == "pods") { continue; }
    const auto left = free.find(name);
    out += (out.empty() ? "" : " · ") + name + " " +
           amount_text(name, left == free.end() ? Quantity() : left->second) + " of " +
           amount_text(name, whole);
  }
  return out;
}

// The flag of `metier run` that asks for so much of a resource.
std::string flag_of(std::string_view resource, const Quantity& amount) {
  if (resource == "memory") { return "--mem " + amount.bytes_text(); }
  if (resource == "cpu") { return "--cpu " + amount.cpu_text(); }
  return "--gpus " + std::to_string(amount.units());
}

// "create it: metier secret set X" as a text and a command to copy.
Fix fix_of(std::string_view text) {
  const auto at = text.rfind(": metier ");
  if (at == std::string_view::npos) { return {std::string(text), ""}; }
  return {std::string(text.substr(0, at)), std::string(text.substr(at + 2))};
}

// The reference to the secret which the message names, as the command that makes it.
std::string secret_command(const WhyFacts& facts, std::string_view message) {
  for (const auto& [name, key] : facts.secret_refs) {
    if (message.contains(quote(name)) &&
        (!message.contains("has no key") || message.contains(quote(key)))) {
      return "metier secret set " + name + ":" + key;
    }
  }
  return "metier secret set NAME:KEY";
}

// Every command of another project than `default` has to say so.
void name_project(Why& out, const Run& run) {
  if (run.project().empty() || run.project() == "default") { return; }
  for (Fix& fix : out.fixes) {
    if (fix.command.starts_with("metier ") && !fix.command.starts_with("metier kinds") &&
        !fix.command.starts_with("metier queue") && !fix.command.contains(" -P ")) {
      fix.command += " -P " + run.project();
    }
  }
}

// What is lacking, by its name among what was asked; empty when the code is of something else.
std::string_view resource_of(std::string_view code, const Amounts& asked) {
  if (code == "InsufficientCpu") { return "cpu"; }
  if (code == "InsufficientMemory") { return "memory"; }
  if (code != "InsufficientGpu") { return {}; }
  const auto gpu = std::ranges::find_if(
      asked, [](const auto& one) { return one.first.ends_with("/gpu") && one.second.milli() > 0; });
  return gpu == asked.end() ? std::string_view() : std::string_view(gpu->first);
}

std::string subject(const Run& run) {
  std::string uid = run.uid().substr(0, 8);
  std::string kind = run.label("kind");
  return run.name() + " (" + (kind.empty() ? "" : kind + ", ") + uid + ")";
}

const ContainerStatus* worst_container(const PodStatus& pod) {
  const ContainerStatus* worst = nullptr;
  for (const ContainerStatus& container : pod.containers) {
    const bool failed = container.state == ContainerStatus::State::terminated &&
                        (container.exit_code != 0 || container.signal != 0);
    if (failed || (worst == nullptr && !container.reason.empty())) { worst = &container; }
  }
  return worst;
}

// The name of the part whose pod is the one that failed.
std::string failed_part(const Run& run) {
  const Json* pod = find_path(run.status(), "failure.pod");
  const JsonArray* parts = array_in(run.status(), "parts");
  for (std::size_t i = 0; pod != nullptr && parts != nullptr && i < parts->size(); ++i) {
    const JsonObject* part = (*parts)[i].if_object();
    if (part != nullptr && pod->is_string() && string_in(*part, "pod") == pod->get_string()) {
      return std::string(string_in(*part, "name"));
    }
  }
  return "executor";
}

void standard_fix(Why& out, const Run& run) {
  const std::string id = run.uid().substr(0, 8);
  if (const CauseText* text = find_cause(out.code); text != nullptr && out.fixes.empty()) {
    out.fixes.push_back(fix_of(text->fix));
  }
  for (Fix& fix : out.fixes) {
    if (fix.command == "metier logs") {
      fix.command += " " + id;
      return;
    }
    if (out.code == "ExecutorsFailed") {
      fix.command = "metier logs " + id + " --part " + failed_part(run);
    }
  }
  if (out.code != "AbortedByUser") { out.fixes.push_back({"read its log", "metier logs " + id}); }
}

Why pending(const WhyFacts& facts) {
  const Run& run = *facts.run;
  const std::string id = run.uid().substr(0, 8);
  Why out;
  std::string reason(string_in(run.status(), "reason"));
  std::string message(string_in(run.status(), "status_text"));
  bool scheduled = false;
  for (const auto& [name, pod] : facts.pods) {
    if (!pod.reason.empty()) {
      reason = pod.reason;
      message = pod.message;
    }
    for (const Condition& condition : pod.conditions) {
      if (condition.type == "PodScheduled" && condition.status) { scheduled = true; }
      if (condition.type == "EnvironmentReady" && !condition.status) {
        reason = condition.reason.empty() ? "EnvironmentBuilding" : condition.reason;
        message = condition.message;
      }
    }
    if (const ContainerStatus* container = worst_container(pod);
        container != nullptr && container->state == ContainerStatus::State::waiting &&
        reason.empty()) {
      reason = container->reason;
      message = container->message;
    }
  }
  if (facts.queue && !scheduled && !facts.queue->code.empty()) {
    reason = facts.queue->code;
    message = facts.queue->reason;
  }
  if (reason.empty() || reason == "ContainerCreating") {
    reason = scheduled            ? "Starting"
             : facts.queue        ? "Queued"
             : facts.pods.empty() ? "Queued"
                                  : "Starting";
  }
  if (run.state() == RunState::pending_retry) {
    reason = "AwaitingRetry";
    message = string_in(run.status(), "status_text");
  }
  out.code = reason;
  const CauseText* text = find_cause(reason);
  const auto since = from_iso(string_in(run.status(), "start_time"));
  out.sentence = subject(run) + " has been pending";
  if (since && facts.now > *since) { out.sentence += " for " + human_duration(facts.now - *since); }
  out.sentence += ": " + (text != nullptr   ? std::string(text->sentence)
                          : message.empty() ? reason
                                            : message);
  if (!facts.asked.empty()) { out.facts.emplace_back("asked", fact(facts.asked)); }
  if (!facts.health.allocatable.empty()) {
    out.facts.emplace_back("free now", free_text(facts.health.free, facts.health.allocatable));
  }
  if (facts.queue) {
    for (const Holder& holder : facts.holders) {
      out.facts.emplace_back(
          "held by",
          (holder.run.empty() ? holder.pod : holder.run + " (" + holder.uid.substr(0, 8) + ")") +
              "  " + holder.amount);
    }
    if (facts.queue->length > 0) {
      out.facts.emplace_back("position", std::to_string(facts.queue->position) + " of " +
                                             std::to_string(facts.queue->length));
    }
  }
  if (!message.empty()) { out.facts.emplace_back("the cluster says", message); }
  const std::string_view resource = resource_of(reason, facts.asked);
  if (!resource.empty()) {
    const auto free = facts.health.free.find(resource);
    if (resource == "memory" && facts.peak_memory > 0) {
      out.fixes.push_back(
          {"ask for less: its last runs peaked at " + human_bytes(facts.peak_memory),
           "--mem " +
               Quantity::from_units(facts.peak_memory + facts.peak_memory / 4).bytes_text()});
    } else if (free != facts.health.free.end() && free->second.milli() > 0) {
      out.fixes.push_back({"ask for less", flag_of(resource, free->second)});
    }
    const auto holder =
        std::ranges::find_if(facts.holders, [](const Holder& one) { return !one.uid.empty(); });
    if (holder != facts.holders.end()) {
      std::string command = "metier abort " + holder->uid.substr(0, 8);
      if (holder->project != run.project()) { command += " -P " + holder->project; }
      out.fixes.push_back({"make room", std::move(command)});
    }
  } else if (reason == "SecretMissing") {
    out.fixes.push_back({"create it; the run goes on by itself", secret_command(facts, message)});
  } else if (reason == "AwaitingRetry") {
    out.fixes.push_back({"wait, or abort it", "metier abort " + id});
  } else if (text != nullptr) {
    out.fixes.push_back(fix_of(text->fix));
  }
  out.fixes.push_back({"follow it", "metier logs -f " + id});
  return out;
}

Why ended(const WhyFacts& facts) {
  const Run& run = *facts.run;
  const std::string id = run.uid().substr(0, 8);
  Why out;
  std::string reason(string_in(run.status(), "reason"));
  const Json* failure = run.status().if_contains("failure");
  const std::string message(
      string_in(run.status(), "error", string_in(run.status(), "status_text")));
  if (run.state() == RunState::aborted && reason.empty()) { reason = "AbortedByUser"; }
  if (reason.empty() && failure != nullptr) { reason = string_at(*failure, "code"); }
  if (reason.empty()) { reason = "HandlerError"; }
  std::string signal;
  if (reason.starts_with("Killed(")) {
    signal = reason.substr(7, reason.size() - 8);
    reason = "Killed";
  }
  out.code = reason;
  const CauseText* text = find_cause(reason);
  const bool user = reason == "HandlerError" || reason == "HandlerMissing" ||
                    reason == "InvalidParameter" || reason == "PackageMissing" ||
                    reason == "ExitCode" || reason == "IterationsFailed";
  out.sentence = subject(run) +
                 (run.state() == RunState::aborted ? " was aborted: " : " failed: ") +
                 (text != nullptr ? std::string(text->sentence) : reason);
  if (!signal.empty()) { out.sentence += " (" + signal + ")"; }
  if (!message.empty()) {
    // A misuse is explained in several lines (what there is instead); of an exception the first one says it.
    std::string said = message;
    if (reason == "HandlerMissing" || reason == "InvalidParameter") {
      std::ranges::replace(said, '\n', ';');
    }
    out.facts.emplace_back(user ? "your code" : "the cluster says",
                           said.substr(0, said.find('\n')));
  }
  if (failure != nullptr && failure->is_object()) {
    const std::string file(string_at(*failure, "file"));
    if (const Json* line = find_path(*failure, "line");
        !file.empty() && line != nullptr && line->is_int64()) {
      out.facts.emplace_back("where", file + ":" + std::to_string(line->get_int64()));
    }
    if (const Json* code = find_path(*failure, "exit_code");
        code != nullptr && code->is_int64() && code->get_int64() != 0) {
      out.facts.emplace_back("exit code", std::to_string(code->get_int64()));
    }
    if (const std::string hint(string_at(*failure, "hint")); !hint.empty()) {
      out.fixes.push_back({hint, ""});
    }
  }
  std::int64_t peak = 0;
  for (const auto& [name, pod] : facts.pods) {
    for (const ContainerStatus& container : pod.containers) {
      peak = std::max(peak, container.peak_memory);
    }
  }
  bool killed_below = false;
  const JsonArray* conditions = array_in(run.status(), "conditions");
  for (const Json& condition : conditions == nullptr ? JsonArray{} : *conditions) {
    if (string_at(condition, "type") == "ContextTooLarge") {
      out.facts.emplace_back("not taken along", string_at(condition, "message"));
    }
    if (string_at(condition, "type") != "ProcessOOMKilled") { continue; }
    killed_below = true;
    out.facts.emplace_back("out of memory", string_at(condition, "message"));
  }
  if (reason == "OOMKilled" || killed_below) {
    const auto limit = facts.limits.find("memory");
    if (limit != facts.limits.end()) {
      out.facts.emplace_back("limit", human_bytes(limit->second.units()));
      out.fixes.push_back(
          {"give it more",
           "--mem " + Quantity::from_units(limit->second.units() * 2).bytes_text()});
    }
  }
  if (peak > 0) { out.facts.emplace_back("peak memory", human_bytes(peak)); }
  if (const JsonArray* retries = array_in(run.status(), "retries");
      retries != nullptr && !retries->empty()) {
    out.facts.emplace_back("attempts before", std::to_string(retries->size()));
  }
  standard_fix(out, run);
  return out;
}

}  // namespace

std::span<const CauseText> all_causes() { return kCauses; }

const CauseText* find_cause(std::string_view code) {
  const auto found = std::ranges::find(kCauses, code, &CauseText::code);
  return found == kCauses.end() ? nullptr : &*found;
}

Json to_json(const Why& why) {
  JsonArray facts;
  for (const auto& [name, value] : why.facts) { facts.push_back(JsonArray{name, value}); }
  JsonArray fixes;
  for (const Fix& fix : why.fixes) { fixes.push_back(JsonArray{fix.text, fix.command}); }
  return JsonObject{{"code", why.code},
                    {"sentence", why.sentence},
                    {"facts", std::move(facts)},
                    {"fixes", std::move(fixes)}};
}

namespace {

Why why_of(const WhyFacts& facts) {
  const Run& run = *facts.run;
  switch (run.state()) {
    case RunState::created:
    case RunState::pending:
    case RunState::pending_retry:
    case RunState::unknown: return pending(facts);
    case RunState::error:
    case RunState::aborted: return ended(facts);
    case RunState::aborting: {
      Why out;
      out.code = std::string(string_in(run.status(), "reason", "AbortedByUser"));
      out.sentence = subject(run) + " is being stopped: its processes have until their grace time";
      for (const auto& [name, pod] : facts.pods) {
        out.facts.emplace_back("pod", name + "  " + std::string(to_string(pod.phase)));
      }
      out.fixes.push_back({"wait: it is killed after its grace time", ""});
      return out;
    }
    case RunState::completed:
    case RunState::skipped: {
      Why out;
      out.code = "Completed";
      out.sentence =
          subject(run) + " has " + std::string(to_string(run.state())) + ": nothing is wrong";
      return out;
    }
    case RunState::running: break;
  }
  Why out;
  out.code = "Running";
  out.sentence = subject(run) + " is running, nothing holds it";
  for (const auto& [name, pod] : facts.pods) {
    for (const Condition& condition : pod.conditions) {
      if (condition.status && !condition.message.empty() && condition.type != "PodScheduled" &&
          condition.type != "Ready" && condition.type != "Initialized" &&
          condition.type != "ContainersReady" && condition.type != "EnvironmentReady") {
        // Pods of one run mostly have the same ones: told once.
        const std::pair<std::string, std::string> fact{condition.type, condition.message};
        if (std::ranges::find(out.facts, fact) == out.facts.end()) { out.facts.push_back(fact); }
      }
    }
  }
  for (const auto& rank : facts.ranks) { out.facts.push_back(rank); }
  if (facts.silent) {
    out.code = "Silent";
    out.sentence = subject(run) + " runs, but for " + human_duration(*facts.silent) +
                   " it has printed nothing and used no processor";
    out.fixes.push_back({"end it", "metier abort " + run.uid().substr(0, 8)});
  }
  out.fixes.push_back({"follow it", "metier logs -f " + run.uid().substr(0, 8)});
  return out;
}

}  // namespace

Why why(const WhyFacts& facts) {
  Why out = why_of(facts);
  name_project(out, *facts.run);
  return out;
}

}  // namespace metier
