// Time. Every room gets a Clock through its constructor, so that tests make time pass.
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <string_view>

namespace metier {

using Time = std::chrono::sys_time<std::chrono::microseconds>;
using Duration = std::chrono::microseconds;

class Clock {
 public:
  virtual ~Clock() = default;
  virtual Time now() const = 0;  // wall clock: for records and people
  virtual std::chrono::steady_clock::time_point steady() const = 0;  // for deadlines and leases
};
const Clock& system_clock();

class ManualClock final : public Clock {
 public:
  explicit ManualClock(Time start = Time{std::chrono::seconds(1'700'000'000)}) : now_(start) {}
  Time now() const override { return now_; }
  std::chrono::steady_clock::time_point steady() const override { return steady_; }
  void advance(Duration by) {
    now_ += by;
    steady_ += by;
  }

 private:
  Time now_;
  std::chrono::steady_clock::time_point steady_{std::chrono::hours(1)};
};

// "2026-11-25T16:20:28.123456+00:00", as Python's isoformat of an aware time.
std::string to_iso(Time time);
// ISO-8601 with or without offset (then UTC), "T" or a space, optional fraction. nullopt when it is none.
std::optional<Time> from_iso(std::string_view text);
// "10s", "5m", "1h30m", "2d", "500ms"; a bare number is seconds. nullopt when it is none.
std::optional<Duration> parse_duration(std::string_view text);
// "0.21 s", "4 min 12 s", "3 h 5 min".
std::string human_duration(Duration duration);

}  // namespace metier
