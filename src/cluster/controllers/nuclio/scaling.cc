#include "cluster/controllers/nuclio/scaling.h"

#include <algorithm>
#include <cmath>

#include "base/clock.h"

namespace metier {
namespace {

constexpr double kBusy = 0.75;
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
  if (!last_add_) { last_use_ = now; }
  Point point{.at = now};
  const double passed = last_add_ ? std::chrono::duration<double>(now - *last_add_).count() : 0;
  for (const auto& [name, sample] : pods) {
    if (sample.in_flight > 0) { last_use_ = now; }
    const auto before = last_.find(name);
    const bool known = before != last_.end() && before->second.events <= sample.events &&
                       before->second.busy_seconds <= sample.busy_seconds;
    if ((known && sample.events > before->second.events) || (!known && sample.events > 0)) {
      last_use_ = now;
    }
    if (!known || passed <= 0) { continue; }
    // A handler that runs for longer than a sample has not ended in it, and yet it is busy.
    const double ended = sample.busy_seconds - before->second.busy_seconds;
    const double running = passed * std::min(sample.busy_now, sample.workers);
    point.busy += ended < running / 100 ? running : ended;
    point.capacity += passed * sample.workers;
  }
  if (point.capacity > 0) { points_.push_back(point); }
  last_ = pods;
  last_add_ = now;
  while (!points_.empty() && now - points_.front().at > kKept) { points_.pop_front(); }
}

std::optional<double> LoadWindow::busy(Clock::time_point now,
                                       std::chrono::milliseconds span) const {
  double busy = 0;
  double capacity = 0;
  // The first point covers the time before it: the span is full when there is one at its beginning.
  bool full = false;
  for (const Point& point : points_) {
    if (now - point.at > span) {
      full = true;
      continue;
    }
    busy += point.busy;
    capacity += point.capacity;
  }
  if (!full || capacity <= 0) { return std::nullopt; }
  return busy / capacity;
}

std::chrono::milliseconds LoadWindow::idle(Clock::time_point now) const {
  if (!last_add_) { return std::chrono::milliseconds(0); }
  return std::chrono::duration_cast<std::chrono::milliseconds>(now - last_use_);
}

std::int64_t wanted_replicas(const ScaleRange& range, std::int64_t now, const Load& load) {
  if (range.most == 0) { return 0; }
  const std::int64_t floor = std::max<std::int64_t>(1, range.least);
  if (now == 0) { return load.waiting || range.least > 0 ? floor : 0; }
  if (range.least == 0 && !load.waiting && load.idle >= range.to_zero) { return 0; }
  std::int64_t wanted = now;
  if (load.over_10s && *load.over_10s > kBusy) {
    const auto by_load =
        static_cast<std::int64_t>(std::ceil(static_cast<double>(now) * *load.over_10s / kBusy));
    // One CPU of the node carries one replica's workers at least partly.
    const auto room = static_cast<std::int64_t>(std::floor(load.free_cpus + 0.5));
    wanted = now + std::clamp<std::int64_t>(by_load - now, 0, std::max<std::int64_t>(0, room));
  } else if (load.over_60s && load.over_10s) {
    const auto by_load =
        static_cast<std::int64_t>(std::ceil(static_cast<double>(now) * *load.over_60s / kBusy));
    wanted = std::min(now, std::max<std::int64_t>(1, by_load));
  }
  return std::clamp(wanted, floor, range.most);
}

}  // namespace metier
