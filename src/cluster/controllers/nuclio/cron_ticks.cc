#include "cluster/controllers/nuclio/cron_ticks.h"

#include <unistd.h>

#include <algorithm>

#include "base/failpoint.h"
#include "base/files.h"

namespace metier {
namespace {

using std::chrono::milliseconds;

// The wall clock may be set: nothing sleeps longer than this.
constexpr auto kLookEvery = std::chrono::seconds(20);
constexpr std::size_t kMostAtOnce = 1000;  // of Allow

Time time_of(const JsonObject& object, std::string_view key) {
  return Time{Duration(int_in(object, key).value_or(0))};
}

CronSchedule schedule_of(const JsonObject& attributes, Time anchor) {
  const Json* interval = attributes.if_contains("interval");
  Duration every(0);
  if (interval != nullptr && interval->is_int64()) {
    every = Duration(interval->get_int64() / 1000);  // Go's nanoseconds
  } else if (interval != nullptr && interval->is_string()) {
    every = parse_duration(std::string_view(interval->get_string())).value_or(Duration(0));
  }
  if (every.count() > 0) { return CronSchedule::every(every, anchor); }
  auto parsed = CronSchedule::parse(string_in(attributes, "schedule"));
  if (!parsed) { return CronSchedule::every(std::chrono::hours(24 * 366), anchor); }
  parsed->anchor(anchor);
  return *parsed;
}

}  // namespace

CronTicks::CronTicks(Executor executor, const Clock& clock, Random& random, std::string folder,
                     Calls calls, Logger log)
    : executor_(executor),
      clock_(clock),
      random_(random),
      folder_(std::move(folder)),
      calls_(std::move(calls)),
      log_(std::move(log)),
      scope_(executor),
      changed_(executor) {}

void CronTicks::set(const ResourceKey& function, std::map<std::string, JsonObject> triggers) {
  for (auto& [key, entry] : entries_) {
    if (key.first == function && !triggers.contains(key.second)) {
      entry->gone = true;
      ::unlink(entry->file.c_str());
    }
  }
  std::erase_if(entries_, [](const auto& known) { return known.second->gone; });
  for (const auto& [name, trigger] : triggers) {
    const JsonObject* attributes = object_in(trigger, "attributes");
    EntryRef& entry = entries_[{function, name}];
    if (!entry) {
      entry = entry_of(function, name, attributes == nullptr ? JsonObject{} : *attributes);
    } else if (attributes != nullptr && entry->spec != dump_json(*attributes)) {
      entry->spec = dump_json(*attributes);
      entry->policy = string_in(*attributes, "concurrencyPolicy");
      entry->anchor = entry->last = clock_.now();
      entry->schedule = schedule_of(*attributes, entry->anchor);
      save(*entry);
    }
  }
  changed_.notify();  // also: its processors may be others now
}

CronTicks::EntryRef CronTicks::entry_of(const ResourceKey& function, const std::string& trigger,
                                        const JsonObject& attributes) {
  auto entry = std::make_shared<Entry>();
  entry->function = function;
  entry->trigger = trigger;
  entry->spec = dump_json(attributes);
  entry->policy = string_in(attributes, "concurrencyPolicy");
  entry->file =
      folder_ + "/cron-" + sha256_hex(function.text() + "\n" + trigger).substr(0, 24) + ".json";
  entry->anchor = entry->last = clock_.now();
  const auto text = read_record(entry->file);
  const auto before = text ? parse_json(*text) : Result<Json>(Json());
  if (before && before->is_object()) {
    const JsonObject& object = before->get_object();
    if (string_in(object, "spec") == entry->spec) {
      entry->anchor = time_of(object, "anchor");
      entry->last = std::min(time_of(object, "last"), clock_.now());
      entry->behind = bool_in(object, "behind");
    }
    const JsonArray* ticks = array_in(object, "ticks");
    for (const Json& tick : ticks == nullptr ? JsonArray{} : *ticks) {
      std::string id(string_at(tick, "id"));
      entry->ticks[id] = {id, std::string(string_at(tick, "pod")), false};
    }
  } else if (!text && text.error().kind != ErrorKind::not_found) {
    log_.warn("the record of a cron trigger is damaged, its ticks begin anew",
              {{"trigger", Json(trigger)}, {"error", Json(text.error().text())}});
  }
  entry->schedule = schedule_of(attributes, entry->anchor);
  save(*entry);
  for (const auto& [id, tick] : entry->ticks) { scope_.spawn("tick", deliver(entry, id)); }
  return entry;
}

void CronTicks::save(const Entry& entry) {
  if (entry.gone) { return; }
  JsonArray ticks;
  for (const auto& [id, tick] : entry.ticks) {
    ticks.push_back(JsonObject{{"id", id}, {"pod", tick.pod}});
  }
  const JsonObject object{{"function", entry.function.text()},
                          {"trigger", entry.trigger},
                          {"spec", entry.spec},
                          {"anchor", entry.anchor.time_since_epoch().count()},
                          {"last", entry.last.time_since_epoch().count()},
                          {"behind", entry.behind},
                          {"ticks", std::move(ticks)}};
  METIER_FAILPOINT("cron/save");
  if (auto written = write_record(entry.file, dump_json(object)); !written) {
    log_.error("the record of a cron trigger cannot be written: a restart may repeat its ticks",
               {{"trigger", Json(entry.trigger)}, {"error", Json(written.error().text())}});
  }
}

bool CronTicks::waiting(const ResourceKey& function) const {
  const auto found = waits_.find(function);
  return found != waits_.end() && found->second > 0;
}

std::optional<Time> CronTicks::look() {
  std::optional<Time> soonest;
  const Time now = clock_.now();
  std::vector<EntryRef> entries;
  for (const auto& [key, entry] : entries_) { entries.push_back(entry); }
  for (const EntryRef& entry : entries) {
    auto next = entry->schedule.next(entry->last);
    if (next && *next <= now) {
      entry->last = now;  // whatever was missed is one tick
      due(entry);
      next = entry->schedule.next(now);
    }
    if (next && (!soonest || *next < *soonest)) { soonest = next; }
  }
  return soonest;
}

void CronTicks::due(const EntryRef& entry) {
  const bool beside = entry->policy == "Allow" || entry->policy == "Replace";
  if (entry->ticks.empty() || (beside && entry->ticks.size() < kMostAtOnce)) {
    return begin(entry, entry->policy == "Replace");
  }
  if (entry->policy.empty()) {
    if (entry->behind) { return; }
    entry->behind = true;
  } else {
    log_.info("a tick is skipped: the one before it still runs",
              {{"function", Json(entry->function.name)}, {"trigger", Json(entry->trigger)}});
  }
  save(*entry);
}

void CronTicks::begin(const EntryRef& entry, bool replace) {
  const std::string id = new_uid(random_);
  entry->ticks[id] = {id, {}, replace};
  entry->behind = false;
  const auto processors = calls_.processors(entry->function);
  std::vector<std::string> ready;
  for (const Processor& processor : processors) {
    if (processor.ready) { ready.push_back(processor.pod); }
  }
  if (!ready.empty()) { entry->ticks[id].pod = ready[turn_++ % ready.size()]; }
  save(*entry);
  METIER_FAILPOINT("cron/begun");
  if (!closing_) { scope_.spawn("tick", deliver(entry, id)); }
}

Async<void> CronTicks::deliver(EntryRef entry, std::string id) {
  milliseconds pause(50);
  Timer::time_point wake_at{};
  const auto there = [&] { return !entry->gone && !closing_ && entry->ticks.contains(id); };
  while (there()) {
    const std::uint64_t seen = changed_.generation();
    const auto processors = calls_.processors(entry->function);
    Tick& tick = entry->ticks[id];
    // A processor that has it keeps it while it lives, also when it takes nothing new.
    if (std::ranges::find(processors, tick.pod, &Processor::pod) == processors.end()) {
      const auto ready = std::ranges::find(processors, true, &Processor::ready);
      const std::string pod = ready == processors.end() ? "" : ready->pod;
      if (pod != tick.pod) {
        tick.pod = pod;
        save(*entry);
      }
    }
    if (tick.pod.empty()) {
      // Being woken makes the controller look, which ends this wait: so it is asked for once a second at most.
      const auto now = Timer::clock_type::now();
      ++waits_[entry->function];
      if (now >= wake_at) {
        wake_at = now + std::chrono::seconds(1);
        calls_.wake(entry->function);
      }
      co_await changed_.wait(seen, wake_at);
      --waits_[entry->function];
      continue;
    }
    const std::string pod = tick.pod;
    auto status =
        co_await calls_.fire(entry->function.name_space, pod, entry->trigger, id, tick.replaces);
    if (!there()) { co_return; }
    // 404: a processor of the generation before; 503: it drains or is full.
    if (status && *status != 503 && *status != 404) {
      METIER_FAILPOINT("cron/answered");
      entry->ticks.erase(id);
      if (entry->behind && entry->ticks.empty()) {
        begin(entry, false);
      } else {
        save(*entry);
      }
      co_return;
    }
    const bool alive = !status && status.error().kind == ErrorKind::timed_out;
    if (alive) { continue; }  // the handler takes its time: the same id is asked for again
    entry->ticks[id].pod.clear();
    co_await sleep_for(executor_, pause);
    pause = std::min(pause * 2, milliseconds(2000));
  }
}

Async<void> CronTicks::run() {
  while (!closing_) {
    const std::uint64_t seen = changed_.generation();
    const auto next = look();
    auto sleep = std::chrono::duration_cast<std::chrono::steady_clock::duration>(kLookEvery);
    if (next) {
      sleep = std::clamp<std::chrono::steady_clock::duration>(*next - clock_.now(), milliseconds(0),
                                                              sleep);
    }
    co_await changed_.wait(seen, Timer::clock_type::now() + sleep);
  }
}

void CronTicks::start() { scope_.spawn("cron", run()); }

Async<void> CronTicks::close() {
  closing_ = true;
  changed_.notify();
  auto closed = co_await scope_.close(std::chrono::seconds(1));
  static_cast<void>(closed);
}

}  // namespace metier
