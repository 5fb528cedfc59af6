// Schedules of cron triggers, as Nuclio's library (robfig/cron) reads them: five or six fields (seconds first),
// names, "@hourly" and the like, "@every 90s", a zone in front ("CRON_TZ=Europe/Paris 0 6 * * *"; UTC without, as in Nuclio's pods).
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>

#include "base/clock.h"
#include "base/result.h"

namespace metier {

// Offsets of a time zone, read from the machine's zone files.
class TimeZone {
 public:
  // Errors: invalid, no such zone.
  static Result<std::shared_ptr<const TimeZone>> load(std::string_view name);
  virtual ~TimeZone() = default;
  virtual std::int64_t offset_at(std::int64_t unix_seconds) const = 0;  // seconds east of UTC
};

class CronSchedule final {
 public:
  // Errors: invalid with the field that is wrong and its rule; also a schedule that never comes (30 February).
  static Result<CronSchedule> parse(std::string_view text);
  // Every `interval`, counted from `anchor`.
  static CronSchedule every(Duration interval, Time anchor = Time{});

  // The first time after `after`; nullopt when none comes within five years.
  std::optional<Time> next(Time after) const;
  bool is_interval() const { return interval_.count() > 0; }
  void anchor(Time at) { anchor_ = at; }

 private:
  enum Field { kSecond, kMinute, kHour, kDay, kMonth, kWeekday, kFields };
  static Result<std::uint64_t> parse_field(std::string_view text, Field field, bool& any);
  bool day_fits(int day, int weekday) const;

  std::array<std::uint64_t, kFields> allowed_{};  // a bit a value
  bool any_day_ = false, any_weekday_ = false;    // "*": the other one decides alone
  std::shared_ptr<const TimeZone> zone_;          // null: UTC
  Duration interval_{0};
  Time anchor_{};
};

}  // namespace metier
