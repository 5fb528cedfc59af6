// How many replicas a function should have. Pure.
#pragma once

#include <chrono>
#include <deque>
#include <map>
#include <optional>
#include <string>

#include "cluster/controllers/nuclio/function_site.h"
#include "resource/resource.h"

namespace metier {

struct ScaleRange {
  std::int64_t least = 1;
  std::int64_t most = 1;
  std::chrono::milliseconds to_zero{600'000};  // without an event for that long, when least is 0
  bool fixed() const { return least == most; }
};
// From spec: replicas, minReplicas, maxReplicas, disable, scaleToZero. What is absent has Nuclio's default.
ScaleRange scale_range(const JsonObject& spec);

// What the samples of a function's processors say over time.
class LoadWindow final {
 public:
  using Clock = std::chrono::steady_clock;
  // Counters of all processors that answer now, by pod (one that starts anew begins at 0 again).
  void add(Clock::time_point now, const std::map<std::string, ProcessorSample>& pods);
  // Work of the last 10 s in replicas: 1.5 is what keeps all workers of one replica and half of those of another busy.
  // A sum, no share, so that it stays what it is when replicas come or go. nullopt before the time has passed.
  std::optional<double> busy(Clock::time_point now) const;
  // The most that it was in the last 60 s.
  std::optional<double> busiest(Clock::time_point now) const;
  // Time since the last event, an event in flight, or the first sample.
  std::chrono::milliseconds idle(Clock::time_point now) const;

 private:
  struct Point {
    Clock::time_point at;
    double seconds = 0;  // since the point before
    double busy = 0;     // replicas times seconds of it
    std::optional<double> over_10s;
  };
  struct Last {
    ProcessorSample sample;
    Clock::time_point at{};
  };
  std::deque<Point> points_;
  std::map<std::string, Last> last_;
  std::optional<Clock::time_point> begin_;
  Clock::time_point last_point_{};
  Clock::time_point last_use_{};
};

struct Load {
  std::optional<double> busy;     // replicas kept busy in the last 10 s
  std::optional<double> busiest;  // the most of the last 60 s
  std::chrono::milliseconds idle{0};
  bool waiting = false;    // a connection in the backlog
  double free_cpus = 1e9;  // of the node
};
// `now` replicas are ready. Up when workers are busy for more than 75 % over 10 s, never past the node's free
// processors; down to what would have been enough for each 10 s of the last 60 (a load that does not change makes no
// replicas come and go); to zero after the window without an event; from zero when a connection waits.
std::int64_t wanted_replicas(const ScaleRange& range, std::int64_t now, const Load& load);

}  // namespace metier
