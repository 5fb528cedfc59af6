#include "base/clock.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cstdint>

namespace metier {
namespace {

class SystemClock final : public Clock {
 public:
  Time now() const override {
    return std::chrono::time_point_cast<std::chrono::microseconds>(
        std::chrono::system_clock::now());
  }
  std::chrono::steady_clock::time_point steady() const override {
    return std::chrono::steady_clock::now();
  }
};

// Reads exactly `digits` digits at `i`; -1 when there are none.
int digits_at(std::string_view text, std::size_t i, std::size_t digits) {
  if (i + digits > text.size()) { return -1; }
  int value = 0;
  for (std::size_t k = i; k < i + digits; ++k) {
    if (text[k] < '0' || text[k] > '9') { return -1; }
    value = value * 10 + (text[k] - '0');
  }
  return value;
}

}  // namespace

const Clock& system_clock() {
  static const SystemClock clock;
  return clock;
}

std::string to_iso(Time time) {
  using std::chrono::sys_days, std::chrono::year;
  // Four digits of a year: what lies outside is a damaged record's, and told as the nearest time.
  static constexpr Time kFirst = sys_days(year(0) / 1 / 1);
  static constexpr Time kLast = sys_days(year(10'000) / 1 / 1) - Time::duration(1);
  time = std::clamp(time, kFirst, kLast);
  const auto day = std::chrono::floor<std::chrono::days>(time);
  const std::chrono::year_month_day date(day);
  const std::chrono::hh_mm_ss clock(time - day);
  return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:06}+00:00",
                     static_cast<int>(date.year()), static_cast<unsigned>(date.month()),
                     static_cast<unsigned>(date.day()), clock.hours().count(),
                     clock.minutes().count(), clock.seconds().count(), clock.subseconds().count());
}

std::optional<Time> from_iso(std::string_view text) {
  const int year = digits_at(text, 0, 4);
  const int month = digits_at(text, 5, 2);
  const int day = digits_at(text, 8, 2);
  if (year < 0 || month < 1 || day < 1 || text[4] != '-' || text[7] != '-') { return std::nullopt; }
  const auto date = std::chrono::year(year) / std::chrono::month(static_cast<unsigned>(month)) /
                    std::chrono::day(static_cast<unsigned>(day));
  if (!date.ok()) { return std::nullopt; }
  Time time = std::chrono::sys_days(date);
  if (text.size() == 10) { return time; }
  if (text[10] != 'T' && text[10] != ' ') { return std::nullopt; }
  const int hour = digits_at(text, 11, 2);
  const int minute = digits_at(text, 14, 2);
  if (hour < 0 || hour > 23 || minute < 0 || minute > 59 || text[13] != ':') {
    return std::nullopt;
  }
  time += std::chrono::hours(hour) + std::chrono::minutes(minute);
  std::size_t i = 16;
  if (i < text.size() && text[i] == ':') {
    const int second = digits_at(text, 17, 2);
    if (second < 0 || second > 60) { return std::nullopt; }
    time += std::chrono::seconds(second);
    i = 19;
    if (i < text.size() && (text[i] == '.' || text[i] == ',')) {
      std::int64_t micro = 0;
      std::int64_t scale = 100'000;
      for (++i; i < text.size() && text[i] >= '0' && text[i] <= '9'; ++i) {
        micro += (text[i] - '0') * scale;
        scale /= 10;
      }
      time += std::chrono::microseconds(micro);
    }
  }
  if (i == text.size() || text.substr(i) == "Z") { return time; }
  const char sign = text[i];
  if (sign != '+' && sign != '-') { return std::nullopt; }
  const int offset_hours = digits_at(text, i + 1, 2);
  const std::size_t minutes_at = i + 3 < text.size() && text[i + 3] == ':' ? i + 4 : i + 3;
  const int offset_minutes = minutes_at < text.size() ? digits_at(text, minutes_at, 2) : 0;
  if (offset_hours < 0 || offset_minutes < 0 ||
      (minutes_at < text.size() && minutes_at + 2 != text.size())) {
    return std::nullopt;
  }
  const auto offset = std::chrono::hours(offset_hours) + std::chrono::minutes(offset_minutes);
  return sign == '+' ? time - offset : time + offset;
}

std::optional<Duration> parse_duration(std::string_view text) {
  if (text.empty()) { return std::nullopt; }
  double total = 0;
  while (!text.empty()) {
    double value = 0;
    const auto [end, error] =
        std::from_chars(text.data(), text.data() + text.size(), value, std::chars_format::fixed);
    if (error != std::errc{} || value < 0) { return std::nullopt; }
    text.remove_prefix(static_cast<std::size_t>(end - text.data()));
    while (text.starts_with(' ')) { text.remove_prefix(1); }
    std::size_t n = 0;
    while (n < text.size() && text[n] >= 'a' && text[n] <= 'z') { ++n; }
    const auto unit = text.substr(0, n);
    double seconds = 0;
    if (unit.empty() || unit == "s" || unit == "sec" || unit == "second" || unit == "seconds") {
      seconds = 1;
    } else if (unit == "ms") {
      seconds = 1e-3;
    } else if (unit == "m" || unit == "min" || unit == "minute" || unit == "minutes") {
      seconds = 60;
    } else if (unit == "h" || unit == "hour" || unit == "hours") {
      seconds = 3600;
    } else if (unit == "d" || unit == "day" || unit == "days") {
      seconds = 86400;
    } else {
      return std::nullopt;
    }
    if (unit.empty() && n != text.size()) { return std::nullopt; }
    total += value * seconds;
    text.remove_prefix(n);
    while (text.starts_with(' ')) { text.remove_prefix(1); }
  }
  if (total > 3.2e9) { return std::nullopt; }
  return Duration(static_cast<std::int64_t>(total * 1e6));
}

std::string human_duration(Duration duration) {
  const double seconds = static_cast<double>(duration.count()) / 1e6;
  if (seconds < 0.1) { return fmt::format("{:.0f} ms", seconds * 1e3); }
  if (seconds < 10) { return fmt::format("{:.2f} s", seconds); }
  if (seconds < 60) { return fmt::format("{:.1f} s", seconds); }
  const auto whole = static_cast<std::int64_t>(seconds);
  if (whole < 3600) { return fmt::format("{} min {} s", whole / 60, whole % 60); }
  if (whole < 86400) { return fmt::format("{} h {} min", whole / 3600, whole / 60 % 60); }
  return fmt::format("{} d {} h", whole / 86400, whole / 3600 % 24);
}

}  // namespace metier
