// Runs of several parts: what each used, its log after its pod is gone.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <utility>

#include "base/files.h"
#include "base/log_times.h"
#include "base/text.h"
#include "engine/engine_impl.h"
#include "engine/pod_log.h"

namespace metier {

// CPU and memory of each part, now and then, for as long as the run lives.
Async<void> Engine::sample_usage(LivePtr live) {
  std::chrono::milliseconds
      pause{};  // the first look is what pods that others share had used before
  while (!live->done && !stopping_) {
    co_await sleep_for(ground_.loop, pause);
    pause = std::clamp<std::chrono::milliseconds>(pause * 2, std::chrono::milliseconds(500),
                                                  std::chrono::seconds(5));
    if ((co_await asio::this_coro::cancellation_state).cancelled() !=
        asio::cancellation_type::none) {
      break;
    }
    if (live->state != RunState::running) { continue; }
    const Time now = ground_.clock.now();
    const auto parts = live->parts;
    std::int64_t used = 0;
    Duration passed{};
    bool printed = false;
    for (const Part& part : parts) {
      const std::string name = part_name(part);
      auto chunk = co_await ground_.cluster.logs({live->plan.project, part.pod, part.container, 0},
                                                 0, 0, std::chrono::milliseconds(0));
      if (chunk && std::exchange(live->printed[name], chunk->size) != chunk->size) {
        printed = true;
      }
      if (!part.container.empty()) { continue; }
      auto usage = co_await ground_.cluster.usage(live->plan.project, part.pod);
      if (!usage || live->done) { continue; }
      auto& samples = live->usage[part.pod];
      if (!samples.empty()) {
        used += std::max<std::int64_t>(0, usage->cpu_us - samples.back().cpu_us);
        passed = std::max(passed, now - samples.back().at);
      }
      add_sample(samples, {.at = now, .cpu_us = usage->cpu_us, .memory = usage->memory});
    }
    const bool worked = passed > Duration{} && used * 50 > passed.count();  // 2 % of one processor
    if (printed || worked || live->quiet_since == Time{}) { live->quiet_since = now; }
    if (printed || live->printed_at == Time{}) { live->printed_at = now; }
  }
  live->sampling = false;
}

Silence Engine::silence_of(const std::string& project, const std::string& uid) const {
  Silence out;
  const auto live = live_.find(plan_key(project, uid));
  if (live == live_.end() || live->second->state != RunState::running ||
      live->second->quiet_since == Time{}) {
    return out;
  }
  const auto longer = [this](Time since) {
    const auto length = ground_.clock.now() - since;
    return length < ground_.options.silence ? std::nullopt : std::optional<Duration>(length);
  };
  out.idle = longer(live->second->quiet_since);
  out.mute = longer(live->second->printed_at);
  return out;
}

Async<std::vector<std::pair<std::string, std::string>>> Engine::stacks(std::string project,
                                                                       std::string uid) {
  std::vector<std::pair<std::string, std::string>> out;
  const auto live = live_.find(plan_key(project, uid));
  if (live == live_.end() || ground_.options.rank_tool.empty()) { co_return out; }
  std::set<std::string> pods;
  for (const Part& part : live->second->parts) {
    if (part.role == "rank") { pods.insert(part.pod); }
  }
  for (const std::string& pod : pods) {
    auto told = co_await ground_.cluster.exec(
        {project, pod, "", 0},
        {.command = {ground_.options.rank_tool, "stacks"}, .env = {}, .working_dir = {}});
    if (!told) { continue; }
    std::string_view rest = told->output;
    while (!rest.empty()) {
      const auto end = std::min(rest.find('\n'), rest.size());
      const auto line = rest.substr(0, end);
      if (const auto colon = line.find(": "); colon != std::string_view::npos) {
        out.emplace_back(line.substr(0, colon), line.substr(colon + 2));
      }
      rest.remove_prefix(std::min(end + 1, rest.size()));
    }
  }
  std::ranges::sort(out, {}, [](const auto& one) {
    return std::pair(one.first.size(), one.first);  // rank 2 before rank 10
  });
  co_return out;
}

namespace {

constexpr std::size_t kMostGone = 1000;
constexpr std::string_view kHeld = "@held";  // the second name of the log of a part that lives

}  // namespace

// The second names that a server before made for this run.
void Engine::read_held(Live& live) const {
  std::error_code none;
  for (const auto& entry :
       std::filesystem::directory_iterator(part_logs(live.plan.project, live.plan.uid), none)) {
    const std::string file = entry.path().filename().string();
    if (!file.ends_with(kHeld)) { continue; }
    const std::string name = file.substr(0, file.size() - kHeld.size());
    live.held.emplace(name, part_of_name(name));
  }
}

// The parts of a run as they are now. One that is no longer there (an executor that Spark let go, a pod in whose place
// came another) stays in the list, and its log stays: while its pod is there the log has a second name.
void Engine::note_parts(Live& live, std::vector<Part> now) {
  live.parts = std::move(now);
  if (live.parts.size() < 2 && live.held.empty()) { return; }
  const std::string folder = part_logs(live.plan.project, live.plan.uid);
  std::map<std::string, const Part*, std::less<>> present;
  for (const Part& part : live.parts) { present.emplace(part_name(part), &part); }
  for (auto held = live.held.begin(); held != live.held.end();) {
    const auto& [name, part] = *held;
    const std::string file = folder + "/" + name;
    const auto same = present.find(name);
    if (same != present.end() && (part.pod.empty() || part.pod == same->second->pod)) {
      ++held;
      continue;
    }
    const std::string second = file + std::string(kHeld);
    if (same != present.end() || live.gone.size() >= kMostGone) {
      ::unlink(second.c_str());
    } else if (::rename(second.c_str(), file.c_str()) == 0) {
      live.gone.push_back(part);
    }
    held = live.held.erase(held);
  }
  for (const auto& [name, part] : present) {
    if (!part->container.empty()) { continue; }
    const auto source =
        log_file_of_pod(ground_.cluster, {live.plan.project, part->pod, part->container, 0});
    if (!source) { continue; }
    const std::string file = folder + "/" + name;
    (void)::link(log_times_path(*source).c_str(), log_times_path(file).c_str());
    if (live.held.contains(name)) { continue; }
    struct stat facts{};
    if (::lstat(source->c_str(), &facts) != 0 ||
        !make_folders(std::filesystem::path(folder), 0700)) {
      continue;
    }
    const std::string second = file + std::string(kHeld);
    if (::link(source->c_str(), second.c_str()) == 0 || errno == EEXIST) {
      live.held.emplace(name, *part);
    }
  }
}

JsonArray Engine::parts_of(const Live& live) const {
  JsonArray out = parts_json(live.parts, live.resources, live.usage);
  for (const Part& part : live.gone) {
    if (find_part(out, part_name(part)) != nullptr) { continue; }
    out.push_back(removed_part_json(part, live.usage));
  }
  for (Json& part : out) {
    JsonObject& one = part.get_object();
    if (one.contains("container")) { continue; }
    const auto object =
        ground_.store.objects().get(ResourceKey{.name_space = live.plan.project,
                                                .kind = "Pod",
                                                .name = std::string(string_in(one, "pod"))});
    if (!object) { continue; }
    const auto pod = pod_from(*object);
    if (!pod) { continue; }
    JsonObject asks;
    for (const auto& [name, amount] : pod_requests(*pod)) {
      asks[name] = name == "memory" ? amount.bytes_text() : amount.cpu_text();
    }
    if (!asks.empty()) { one["requests"] = std::move(asks); }
  }
  return out;
}

void Engine::heard_of_rest(const ResourceStatus& status) {
  if (status.key.kind != "Pod" || resting_.empty()) { return; }
  std::vector<LivePtr> of;
  for (const auto& [key, live] : resting_) {
    if (live->plan.project == status.key.name_space &&
        std::ranges::find(live->parts, status.key.name, &Part::pod) != live->parts.end()) {
      of.push_back(live);
    }
  }
  for (const LivePtr& live : of) {
    live->resources[status.key] = status;
    poke_rest(live);
  }
}

void Engine::poke_rest(const LivePtr& live) {
  live->dirty = true;
  if (live->resting || stopping_) { return; }
  live->resting = true;
  if (!scope_.spawn("rest of " + live->key(), note_rest(live))) { live->resting = false; }
}

// An ended run whose record says that a part is alive: the server was gone when that one ended, or it lives still.
void Engine::rest_again(const Plan& plan) {
  const auto run = read_run(ground_.store.records(), plan.project, plan.uid);
  if (!run || !*run) { return; }
  const JsonArray* known = array_in((*run)->status(), "parts");
  if (known == nullptr || known->size() < 2 || std::ranges::all_of(*known, [](const Json& part) {
        return is_over(string_at(part, "state"));
      })) {
    return;
  }
  auto live = std::make_shared<Live>();
  live->plan = plan;
  live->state = (*run)->state();
  live->done = true;
  live->parts = stored_parts(plan.project, plan.uid);
  for (const Part& part : live->parts) {
    const ResourceKey key{.name_space = plan.project, .kind = "Pod", .name = part.pod};
    if (const auto pod = ground_.store.objects().get(key)) {
      live->resources[key] = {
          .key = key, .uid = {}, .labels = pod->metadata.labels, .status = pod->status};
    }
  }
  resting_[live->key()] = live;
}

Async<void> Engine::note_rest(LivePtr live) {
  while (std::exchange(live->dirty, false) && !stopping_) {
    auto over = co_await keep_rest(live);
    if (!over) {
      ground_.log.warn("end of a run's parts not noted",
                       {{"run", Json(live->key())}, {"error", Json(over.error().text())}});
      live->dirty = true;  // perhaps no pod of it says anything any more
      live->failures = std::min(live->failures + 1, 8);
      co_await sleep_for(ground_.loop, std::chrono::milliseconds(25) * (1 << live->failures));
      continue;
    }
    live->failures = 0;
    if (*over) { resting_.erase(live->key()); }
  }
  live->resting = false;
}

// What has become of the parts that the record says are alive; whether all have ended.
Async<Result<bool>> Engine::keep_rest(LivePtr live) {
  JsonArray now = parts_of(*live);
  bool over = true;
  for (Json& part : now) {
    JsonObject& one = part.get_object();
    const auto pod =
        live->resources.find({live->plan.project, "Pod", std::string(string_in(one, "pod"))});
    const auto state = string_in(one, "state");
    if (is_over(state)) { continue; }
    if (pod == live->resources.end() || pod->second.removed) {
      one["state"] = "removed";
    } else {
      over = false;
    }
  }
  auto stored = co_await ground_.store.write([&](Records& tx) -> Result<void> {
    METIER_TRY(before, tx.run(live->plan.project, live->plan.uid, 0));
    if (!before) { return {}; }
    METIER_TRY(body, parse_json(before->body));
    METIER_TRY(run, Run::from_json(std::move(body)));
    for (Json& kept : ensure_array(run.status(), "parts")) {
      JsonObject* part = kept.if_object();
      const JsonObject* ended =
          part == nullptr ? nullptr : find_part(now, string_in(*part, "name"));
      if (ended == nullptr || string_in(*part, "pod") != string_in(*ended, "pod") ||
          is_over(string_in(*part, "state"))) {
        continue;
      }
      for (const char* field : {"state", "reason", "message", "exit_code", "signal", "end_time",
                                "cpu_seconds", "peak_memory"}) {
        if (const Json* value = ended->if_contains(field)) { (*part)[field] = *value; }
      }
    }
    return tx.put_run(row_of(run, ground_.clock.now(), &*before));
  });
  if (!stored) { co_return fail(std::move(stored.error())); }
  co_return over;
}

std::string Engine::part_logs(const std::string& project, const std::string& uid) const {
  return ground_.options.data + "/logs/" + project + "/" + uid + ".parts";
}

Result<JsonArray> Engine::parts(const std::string& project, const std::string& uid) const {
  if (const auto live = live_.find(plan_key(project, uid)); live != live_.end()) {
    return parts_of(*live->second);
  }
  METIER_TRY(run, read_run(ground_.store.records(), project, uid));
  if (!run) {
    return fail(Error{.kind = ErrorKind::not_found,
                      .message = "no run " + quote(uid) + " in project " + quote(project),
                      .fix = "see: metier get runs -P " + project});
  }
  const JsonArray* known = array_in(run->status(), "parts");
  return known == nullptr ? JsonArray{} : *known;
}

std::vector<Part> Engine::stored_parts(const std::string& project, const std::string& uid) const {
  std::vector<Part> out;
  const auto known = parts(project, uid);
  for (std::size_t i = 0; known && i < known->size(); ++i) {
    const JsonObject* one = (*known)[i].if_object();
    if (one == nullptr) { continue; }
    out.push_back({.role = std::string(string_in(*one, "role")),
                   .index = static_cast<int>(int_in(*one, "index").value_or(0)),
                   .pod = std::string(string_in(*one, "pod")),
                   .container = std::string(string_in(*one, "container"))});
  }
  return out;
}

// A part by its name, with the file that keeps its log once its pod is gone.
Result<std::pair<ContainerRef, std::string>> Engine::part_of(const std::string& project,
                                                             const std::string& uid,
                                                             const std::string& name) const {
  METIER_TRY(all, parts(project, uid));
  const JsonObject* one = find_part(all, name);
  if (one == nullptr) {
    std::vector<std::string> names;
    for (const Json& each : all) { names.emplace_back(string_at(each, "name")); }
    const std::string near = nearest(name, names);
    return fail(Error{.kind = ErrorKind::not_found,
                      .message = "the run has no part " + quote(name) +
                                 (near.empty() ? "" : ", did you mean " + quote(near) + "?"),
                      .field = "part",
                      .fix = names.empty() ? "it has one log only: leave --part out"
                                           : "its parts: " + join(names)});
  }
  return std::pair(ContainerRef{project, std::string(string_in(*one, "pod")),
                                std::string(string_in(*one, "container")), 0},
                   part_logs(project, uid) + "/" + name);
}

Async<Result<void>> Engine::archive_log(const Plan& plan, std::int64_t attempt,
                                        const std::string& pod) {
  co_return co_await archive({plan.project, pod, "", 0}, log_file(plan.project, plan.uid, attempt));
}

Async<Result<void>> Engine::archive_parts(const Plan& plan) {
  const std::string project = plan.project;
  const std::string folder = part_logs(project, plan.uid);
  const auto parts = stored_parts(project, plan.uid);
  for (const Part& part : parts) {
    const ContainerRef from{project, part.pod, part.container, 0};
    const std::string file = folder + "/" + part_name(part);
    keep_log_of_gone(from, file);
    auto kept = co_await archive(from, file);
    if (!kept) { co_return fail(std::move(kept.error())); }
    ::unlink((file + std::string(kHeld)).c_str());
  }
  co_return Result<void>{};
}

// A pod that went after its run had ended has left its log under the second name.
void Engine::keep_log_of_gone(const ContainerRef& part, const std::string& file) const {
  struct stat facts{};
  if (::lstat(file.c_str(), &facts) == 0) { return; }
  const auto source = log_file_of_pod(ground_.cluster, part);
  if (source && ::lstat(source->c_str(), &facts) == 0) { return; }
  (void)::rename((file + std::string(kHeld)).c_str(), file.c_str());
}

Async<Result<void>> Engine::archive(ContainerRef from, std::string target) {
  struct stat facts{};
  if (::lstat(target.c_str(), &facts) == 0) { co_return Result<void>{}; }
  auto folders = make_folders(std::filesystem::path(target).parent_path(), 0700);
  if (!folders) { co_return fail(std::move(folders.error())); }
  if (const auto source = log_file_of_pod(ground_.cluster, from)) {
    // The pod's folder is on this disk: its log gets a second name and costs nothing.
    // The times first: a log that is there is complete.
    (void)::link(log_times_path(*source).c_str(), log_times_path(target).c_str());
    if (::link(source->c_str(), target.c_str()) == 0 || errno == EEXIST) {
      co_return Result<void>{};
    }
  }
  const std::string temporary = target + ".tmp";
  const Fd file(::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  if (!file) { co_return fail(errno_error(temporary, errno)); }
  for (std::uint64_t offset = 0;;) {
    auto chunk =
        co_await ground_.cluster.logs(from, offset, 1U << 20U, std::chrono::milliseconds(0));
    if (!chunk) {
      if (chunk.error().kind == ErrorKind::not_found) { break; }
      co_return fail(std::move(chunk.error()));
    }
    if (chunk->bytes.empty()) { break; }
    for (std::size_t done = 0; done < chunk->bytes.size();) {
      const ssize_t n = ::write(file.get(), chunk->bytes.data() + done, chunk->bytes.size() - done);
      if (n < 0 && errno == EINTR) { continue; }
      if (n < 0) { co_return fail(errno_error(temporary, errno)); }
      done += static_cast<std::size_t>(n);
    }
    offset += chunk->bytes.size();
  }
  ::fdatasync(file.get());
  if (::rename(temporary.c_str(), target.c_str()) != 0) {
    co_return fail(errno_error(target, errno));
  }
  co_return Result<void>{};
}

}  // namespace metier
