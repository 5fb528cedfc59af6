#include "engine/engine.h"

#include "engine/engine_impl.h"

namespace metier {

Engine::Engine(Ground ground)
    : ground_(std::move(ground)),
      scope_(ground_.loop),
      events_(ground_.loop),
      tasks_(ground_),
      snapshots_(std::make_shared<Snapshots>(ground_.options.data, ground_.options.snapshot_limit)),
      deadline_changed_(ground_.loop),
      journals_(make_journal_watch(ground_.loop)) {}

Engine::~Engine() = default;

Async<Result<void>> Engine::open_tokens() {
  auto tokens = co_await RunTokens::open(ground_.store, ground_.random);
  if (!tokens) { co_return fail(std::move(tokens.error())); }
  tokens_ = std::move(*tokens);
  co_return Result<void>{};
}

Async<Result<void>> Engine::start() {
  co_await recover();
  scope_.spawn("journals", journals_->run());
  scope_.spawn("deadlines", clock_loop());
  co_return Result<void>{};
}

Async<void> Engine::stop() {
  stopping_ = true;
  watch_.reset();
  auto closed = co_await scope_.close(std::chrono::seconds(5));
  if (!closed) {
    ground_.log.warn("engine did not stop in time", {{"error", Json(closed.error().text())}});
  }
}

bool Engine::holds(const std::string& project, const std::string& uid) const {
  if (live_.contains(plan_key(project, uid))) { return true; }
  auto plan = read_plan(ground_.store.records(), project, uid);
  return plan && *plan;
}

bool Engine::idle() const { return live_.empty() && waiting_.empty(); }

const Run* Engine::run_of_pod(std::string_view pod) const {
  for (const auto& [key, live] : live_) {
    if (!live->done && (live->plan.name() == pod || live->log_pod == pod)) { return &live->run; }
  }
  return nullptr;
}

std::vector<ResourceStatus> Engine::resources_of(const std::string& project,
                                                 const std::string& uid) const {
  std::vector<ResourceStatus> out;
  const auto live = live_.find(plan_key(project, uid));
  if (live == live_.end()) { return out; }
  for (const auto& [key, status] : live->second->resources) { out.push_back(status); }
  return out;
}

std::optional<TokenRun> Engine::check_token(std::string_view token) const {
  auto run = tokens_.check(token);
  if (!run) { return std::nullopt; }
  const auto state = run_state_from(state_of(run->project, run->uid));
  if (!state || is_terminal(*state)) { return std::nullopt; }
  return run;
}

void Engine::run_changed(const std::string& project, const std::string& uid,
                         const std::string& name, const std::string& state) {
  events_.publish({.type = "dev.metier.run.state",
                   .project = project,
                   .uid = uid,
                   .name = name,
                   .state = state,
                   .at = ground_.clock.now()});
}

Masker Engine::masker_of(const std::string& project, const std::string& uid) const {
  // The project's secrets and its Secret objects. Read once: they are asked for by every read of a log.
  const auto known = secret_values_.find(project);
  if (known == secret_values_.end()) {
    const Records& records = ground_.store.records();
    std::set<std::string> names{"mlrun-project-secrets-" + project};
    for (const auto& object :
         ground_.store.objects().list(Selector{.name_space = project, .kind = "Secret"})) {
      names.insert(object.metadata.name);
    }
    std::vector<std::string> found;
    for (const std::string& secret : names) {
      auto keys = records.secret_keys(project, secret);
      if (!keys) { continue; }
      for (const std::string& key : *keys) {
        auto value = records.secret_value(project, secret, key);
        if (value && *value) { found.push_back(**value); }
      }
    }
    if (secret_values_.size() > 1000) { secret_values_.clear(); }
    secret_values_[project] = std::move(found);
  }
  std::vector<std::string> values = secret_values_[project];
  if (!uid.empty()) { values.push_back(tokens_.token(project, uid)); }
  return Masker(std::move(values));
}

}  // namespace metier
