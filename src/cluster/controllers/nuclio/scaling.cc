#include "cluster/controllers/nuclio/scaling.h"

#include <algorithm>
#include <cmath>

#include "base/clock.h"

namespace metier {
namespace {

constexpr double kBusy = 0.75;
constexpr auto kUp = std::chrono::seconds(10);
constexpr auto kDown = std::chrono::seconds(60);
constexpr auto kKept = std::chrono::seconds(70);

}  // namespace

ScaleRange scale_range(const JsonObject& spec) {
  ScaleRange range;
  if (bool_in(spec, "disable")) { return {.least = 0, .most = 0}; }
  if (const auto replicas = int_in(spec, "replicas")) {
    range.least = range.most = std::max<std::int64_t>(0, *replicas);
    return range;
  }
  const auto least = int_in(spec, "minReplicas");
  const auto most = int_in(spec, "maxReplicas");
  range.least = std::max<std::int64_t>(0, least.value_or(most.value_or(1)));
  range.most = std::max({most.value_or(range.least), range.least, std::int64_t{1}});
  const JsonObject* zero = object_in(spec, "scaleToZero");
  const JsonArray* resources = zero == nullptr ? nullptr : array_in(*zero, "scaleResources");
  std::optional<Duration> window;
  for (const Json& resource : resources == nullptr ? JsonArray{} : *resources) {
    if (!resource.is_object()) { continue; }
    const auto given = parse_duration(string_in(resource.get_object(), "windowSize"));
    if (given && (!window || *given > *window)) { window = given; }
  }
  if (window) {
    range.to_zero = std::max(std::chrono::duration_cast<std::chrono::milliseconds>(*window),
                             std::chrono::milliseconds(1000));
  }
  return range;
}

void LoadWindow::add(Clock::time_point now, const std::map<std::string, ProcessorSample>& pods) {
  if (!begin_) { begin_ = last_point_ = last_use_ = now; }
  Point point{.at = now, .seconds = std::chrono::duration<double>(now - last_point_).count()};
  for (const auto& [name, sample] : pods) {
    Last& before = last_[name];
    const bool anew =
        before.sample.events > sample.events || before.sample.busy_seconds > sample.busy_seconds;
    if (anew) { before.sample = {}; }
    if (sample.in_flight > 0 || sample.events > before.sample.events) { last_use_ = now; }
    // Of a processor not seen before only what can be of the time since the last look counts.
    const auto since = before.at == Clock::time_point{} ? last_point_ : before.at;
    const double passed = std::chrono::duration<double>(now - since).count();
    // A handler that runs for longer than a sample has not ended in it, and yet it is busy.
    const double ended = sample.busy_seconds - before.sample.busy_seconds;
    const double running = passed * sample.busy_now;
    if (sample.workers > 0) {
      const double work = ended < running / 100 ? running : ended;
      point.busy += std::min(work / sample.workers, passed);
    }
    before = {.sample = sample, .at = now};
  }
  std::erase_if(last_, [now](const auto& one) { return now - one.second.at > kKept; });
  if (pods.empty() || point.seconds <= 0) { return; }
  last_point_ = now;
  points_.push_back(point);
  points_.back().over_10s = busy(now);
  while (now - points_.front().at > kKept) { points_.pop_front(); }
}

std::optional<double> LoadWindow::busy(Clock::time_point now) const {
  double busy = 0;
  double seconds = 0;
  if (!begin_ || now - *begin_ < kUp) { return std::nullopt; }
  for (const Point& point : points_) {
    if (now - point.at >= kUp) { continue; }
    busy += point.busy;
    seconds += point.seconds;
  }
  return seconds > 0 ? std::optional(busy / seconds) : std::nullopt;
}

std::optional<double> LoadWindow::busiest(Clock::time_point now) const {
  if (!begin_ || now - *begin_ < kDown) { return std::nullopt; }
  std::optional<double> most;
  for (const Point& point : points_) {
    if (now - point.at < kDown && point.over_10s) {
      most = std::max(most.value_or(0), *point.over_10s);
    }
  }
  return most;
}

std::chrono::milliseconds LoadWindow::idle(Clock::time_point now) const {
  if (!begin_) { return std::chrono::milliseconds(0); }
  return std::chrono::duration_cast<std::chrono::milliseconds>(now - last_use_);
}

std::int64_t wanted_replicas(const ScaleRange& range, std::int64_t now, const Load& load) {
  if (range.most == 0) { return 0; }
  const std::int64_t floor = std::max<std::int64_t>(1, range.least);
  if (now == 0) { return load.waiting || range.least > 0 ? floor : 0; }
  if (range.least == 0 && !load.waiting && load.idle >= range.to_zero) { return 0; }
  std::int64_t wanted = now;
  const auto enough_for = [](double busy) {
    return static_cast<std::int64_t>(std::ceil(busy / kBusy));
  };
  if (load.busy && *load.busy > kBusy * static_cast<double>(now)) {
    // One CPU of the node carries one replica's workers at least partly.
    const auto room = static_cast<std::int64_t>(std::floor(load.free_cpus + 0.5));
    wanted = now + std::clamp<std::int64_t>(enough_for(*load.busy) - now, 0,
                                            std::max<std::int64_t>(0, room));
  } else if (load.busiest) {
    wanted = std::min(now, std::max<std::int64_t>(1, enough_for(*load.busiest)));
  }
  return std::clamp(wanted, floor, range.most);
}

}  // namespace metier
