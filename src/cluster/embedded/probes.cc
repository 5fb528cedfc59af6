#include "cluster/embedded/probes.h"

#include <fmt/format.h>

namespace metier {

struct Prober::Watched {
  std::string container;
  bool has_readiness = false;
  bool has_startup = false;
  bool started = true;  // its startup probe succeeded, or it has none
  bool ready = true;    // its readiness probe succeeds, or it has none
  std::vector<CheckPtr> checks;
};

struct Prober::Check {
  enum class Kind { readiness, liveness, startup };
  Kind kind = Kind::readiness;
  Probe probe;
  std::string id;
  std::string address;
  std::weak_ptr<Watched> watched;
  int successes = 0;
  int failures = 0;
  Alarms::Id alarm = 0;
  bool stopped = false;
  bool running = false;
  int eager = 0;      // tries before the first success, in quick succession
  bool late = false;  // it has not answered within its limit
};

Prober::Prober(PodDriver& driver, ProbeClient* client, Alarms& alarms, Scope& scope,
               Listener listener)
    : driver_(driver),
      client_(client),
      alarms_(alarms),
      scope_(scope),
      listener_(std::move(listener)) {}

Prober::~Prober() = default;

bool Prober::wanted(const Pod& pod) {
  return std::ranges::any_of(pod.containers, [](const Container& container) {
    return container.readiness || container.liveness || container.startup;
  });
}

void Prober::start(const Pod& pod, const std::string& id, const std::string& address) {
  if (pods_.contains(id)) { return; }
  auto& all = pods_[id];
  for (const auto& container : pod.containers) {
    auto watched = std::make_shared<Watched>();
    watched->container = container.name;
    watched->has_readiness = container.readiness.has_value();
    watched->has_startup = container.startup.has_value();
    watched->started = !watched->has_startup;
    watched->ready = !watched->has_readiness;
    for (const auto& [kind, probe] : {std::pair(Check::Kind::startup, &container.startup),
                                      std::pair(Check::Kind::readiness, &container.readiness),
                                      std::pair(Check::Kind::liveness, &container.liveness)}) {
      if (!*probe) { continue; }
      auto check = std::make_shared<Check>();
      check->kind = kind;
      check->probe = **probe;
      check->id = id;
      check->address = address.empty() ? "127.0.0.1" : address;
      check->watched = watched;
      watched->checks.push_back(check);
      if (kind == Check::Kind::startup || watched->started) {
        plan(check, std::chrono::seconds(check->probe.initial_delay_s));
      }
    }
    all.push_back(std::move(watched));
  }
}

void Prober::stop(const std::string& id) {
  const auto found = pods_.find(id);
  if (found == pods_.end()) { return; }
  for (const auto& watched : found->second) {
    for (const auto& check : watched->checks) {
      check->stopped = true;
      alarms_.cancel(check->alarm);
    }
  }
  pods_.erase(found);
}

bool Prober::ready(const std::string& id, const std::string& container) const {
  const auto found = pods_.find(id);
  if (found == pods_.end()) { return true; }
  for (const auto& watched : found->second) {
    if (watched->container == container) { return watched->started && watched->ready; }
  }
  return true;
}

void Prober::plan(const CheckPtr& check, std::chrono::milliseconds delay) {
  check->alarm = alarms_.after(delay, [this, check] {
    check->alarm = 0;
    if (!check->stopped) { (void)scope_.spawn("probe", run(check)); }
  });
}

Async<void> Prober::run(CheckPtr check) {
  const auto& probe = check->probe;
  const auto watched = check->watched.lock();
  if (!watched) { co_return; }
  const auto timeout = std::chrono::seconds(probe.timeout_s);
  Result<void> outcome;
  check->running = true;
  check->late = false;
  if (!probe.exec.empty()) {
    // A driver has no deadline for commands, so the verdict does not wait for one that hangs.
    overdue(check, timeout);
    ExecSpec spec{.command = probe.exec, .env = {}, .working_dir = {}};
    auto ran = co_await driver_.exec(check->id, watched->container, std::move(spec));
    if (!ran) {
      outcome = fail(std::move(ran.error()));
    } else if (ran->exit_code != 0 || ran->signal != 0) {
      outcome = fail(ErrorKind::unavailable, fmt::format("the command ended with {}: {}",
                                                         ran->exit_code, quote(ran->output)));
    }
  } else if (client_ == nullptr) {
    outcome = fail(ErrorKind::unsupported, "this server has no client for probes over the network");
  } else if (probe.tcp) {
    outcome = co_await client_->tcp_connect(check->address, probe.port, timeout);
  } else {
    const auto url = fmt::format("{}://{}:{}{}", probe.scheme == "HTTPS" ? "https" : "http",
                                 check->address, probe.port, probe.http_path);
    auto status = co_await client_->http_get(url, timeout);
    if (!status) {
      outcome = fail(std::move(status.error()));
    } else if (*status < 200 || *status >= 400) {
      outcome = fail(ErrorKind::unavailable, fmt::format("GET {} answered {}", url, *status));
    }
  }
  check->running = false;
  if (check->stopped) { co_return; }
  alarms_.cancel(check->alarm);
  if (check->late) {  // it has been judged
    plan(check, std::chrono::seconds(probe.period_s));
  } else {
    judge(check, std::move(outcome));
  }
}

// A command that hangs fails again with every period, as one that is asked anew would.
void Prober::overdue(const CheckPtr& check, std::chrono::milliseconds delay) {
  check->alarm = alarms_.after(delay, [this, check] {
    check->alarm = 0;
    if (check->stopped) { return; }
    check->late = true;
    judge(check,
          fail(ErrorKind::timed_out, fmt::format("no answer within {} s", check->probe.timeout_s)));
    if (!check->stopped) { overdue(check, std::chrono::seconds(check->probe.period_s)); }
  });
}

void Prober::judge(const CheckPtr& check, Result<void> outcome) {
  const auto watched = check->watched.lock();
  if (!watched) { return; }
  Verdict verdict{.container = watched->container, .ready = false, .dead = false, .message = {}};
  bool changed = false;
  bool go_on = true;
  if (outcome) {
    check->failures = 0;
    ++check->successes;
    if (check->kind == Check::Kind::readiness && !watched->ready &&
        check->successes >= check->probe.success_threshold) {
      watched->ready = true;
      changed = true;
    } else if (check->kind == Check::Kind::startup) {
      watched->started = true;
      changed = true;
      go_on = false;
      for (const auto& other : watched->checks) {
        if (other->kind != Check::Kind::startup) {
          plan(other, std::chrono::seconds(other->probe.initial_delay_s));
        }
      }
    }
  } else {
    check->successes = 0;
    ++check->failures;
    if (check->failures >= check->probe.failure_threshold) {
      verdict.message = outcome.error().text();
      if (check->kind == Check::Kind::readiness) {
        changed = watched->ready || check->failures == check->probe.failure_threshold;
        watched->ready = false;
      } else {
        verdict.dead = true;
        verdict.message = fmt::format("{} probe failed {} times: {}",
                                      check->kind == Check::Kind::liveness ? "liveness" : "startup",
                                      check->failures, verdict.message);
        changed = true;
        go_on = false;
      }
    }
  }
  if (go_on && !check->running) {
    std::chrono::milliseconds delay = std::chrono::seconds(check->probe.period_s);
    // A program that starts is ready long before a period has passed: asked soon, then less and less often.
    if (check->kind == Check::Kind::readiness && !watched->ready && check->eager < 10) {
      delay = std::min(delay, std::chrono::milliseconds(10) * (1 << check->eager++));
    }
    if (outcome) { check->eager = 10; }
    plan(check, delay);
  }
  if (!changed) { return; }
  verdict.ready = watched->started && watched->ready;
  listener_(check->id, verdict);  // may stop this pod's probes
}

}  // namespace metier
