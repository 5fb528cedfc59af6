#include "base/cron.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cctype>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "base/files.h"
#include "base/text.h"

namespace metier {
namespace {

using namespace std::chrono;

struct Range {
  std::string_view name;
  int least, most;
};
constexpr Range kRanges[] = {{"second", 0, 59}, {"minute", 0, 59},
                             {"hour", 0, 23},   {"day of the month", 1, 31},
                             {"month", 1, 12},  {"day of the week", 0, 6}};
constexpr std::string_view kMonths[] = {"jan", "feb", "mar", "apr", "may", "jun",
                                        "jul", "aug", "sep", "oct", "nov", "dec"};
constexpr std::string_view kDays[] = {"sun", "mon", "tue", "wed", "thu", "fri", "sat"};
constexpr std::pair<std::string_view, std::string_view> kDescriptors[] = {
    {"@yearly", "0 0 0 1 1 *"}, {"@annually", "0 0 0 1 1 *"}, {"@monthly", "0 0 0 1 * *"},
    {"@weekly", "0 0 0 * * 0"}, {"@daily", "0 0 0 * * *"},    {"@midnight", "0 0 0 * * *"},
    {"@hourly", "0 0 * * * *"}};
constexpr int kYears = 5;

std::vector<std::string_view> split(std::string_view text, char at) {
  std::vector<std::string_view> out;
  while (true) {
    const std::size_t end = text.find(at);
    out.push_back(text.substr(0, end));
    if (end == std::string_view::npos) { return out; }
    text.remove_prefix(end + 1);
  }
}

// A number, or a name of the field; -1 when it is none.
int value_of(std::string_view text, std::span<const std::string_view> names, int first) {
  const std::string word = lower_case(text);
  if (const auto found = std::ranges::find(names, word); found != names.end()) {
    return static_cast<int>(found - names.begin()) + first;
  }
  int value = -1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc{} && end == text.data() + text.size() ? value : -1;
}

// A zone file (RFC 8536): the transitions of its 64-bit block.
class ZoneFile final : public TimeZone {
 public:
  static std::shared_ptr<const TimeZone> read(std::string_view bytes) {
    const auto whole = [](std::string_view from, std::size_t size) {
      std::uint64_t value = 0;
      for (std::size_t i = 0; i < size; ++i) {
        value = value << 8U | static_cast<unsigned char>(from[i]);
      }
      return value;
    };
    if (bytes.size() < 44 || !bytes.starts_with("TZif") || bytes[4] < '2') { return nullptr; }
    const auto count = [&](int i) {
      return whole(bytes.substr(20 + static_cast<std::size_t>(i) * 4, 4), 4);
    };
    // The first block is of 32 bits: skipped.
    const std::uint64_t skip =
        44 + count(3) * 5 + count(4) * 6 + count(5) + count(2) * 8 + count(1) + count(0);
    if (skip + 44 > bytes.size()) { return nullptr; }
    bytes.remove_prefix(skip);
    const std::uint64_t times = count(3), types = count(4);
    const std::uint64_t need = 44 + times * 9 + types * 6;
    if (types == 0 || bytes.size() < need) { return nullptr; }
    auto zone = std::make_shared<ZoneFile>();
    const std::string_view table = bytes.substr(44 + times * 9);
    const auto offset_of = [&](std::size_t type) {
      return static_cast<std::int64_t>(std::bit_cast<std::int32_t>(
          static_cast<std::uint32_t>(whole(table.substr(type * 6), 4))));
    };
    zone->first_ = offset_of(0);
    for (std::size_t i = 0; i < times; ++i) {
      const auto type = static_cast<unsigned char>(bytes[44 + times * 8 + i]);
      if (type >= types) { return nullptr; }
      zone->changes_.push_back(
          {std::bit_cast<std::int64_t>(whole(bytes.substr(44 + i * 8), 8)), offset_of(type)});
    }
    return zone;
  }
  std::int64_t offset_at(std::int64_t at) const override {
    const auto after = std::ranges::upper_bound(changes_, at, {}, &Change::at);
    return after == changes_.begin() ? first_ : std::prev(after)->offset;
  }

 private:
  struct Change {
    std::int64_t at, offset;
  };
  std::vector<Change> changes_;
  std::int64_t first_ = 0;
};

}  // namespace

Result<std::shared_ptr<const TimeZone>> TimeZone::load(std::string_view name) {
  const auto none = [&] {
    return fail(invalid("schedule", quote(name) + " is no time zone of this machine",
                        "give a name such as Europe/Paris, or leave it out for UTC"));
  };
  if (name.empty() || name.front() == '/' || name.find("..") != std::string_view::npos ||
      name.find('\0') != std::string_view::npos) {
    return none();
  }
  const char* folder = std::getenv("TZDIR");
  const auto bytes = read_file(
      std::string(folder == nullptr ? "/usr/share/zoneinfo" : folder) + "/" + std::string(name),
      1U << 20U);
  auto zone = bytes ? ZoneFile::read(*bytes) : nullptr;
  if (!zone) { return none(); }
  return zone;
}

Result<std::uint64_t> CronSchedule::parse_field(std::string_view text, Field field, bool& any) {
  const Range& range = kRanges[field];
  const auto wrong = [&](std::string_view why) {
    return fail(
        invalid("schedule", fmt::format("{} is no {}: {}", quote(text), range.name, why),
                fmt::format("give *, {}-{}, lists, ranges and steps", range.least, range.most)));
  };
  const std::span<const std::string_view> names =
      field == kMonth     ? std::span<const std::string_view>(kMonths)
      : field == kWeekday ? std::span<const std::string_view>(kDays)
                          : std::span<const std::string_view>();
  std::uint64_t bits = 0;
  for (const std::string_view part : split(text, ',')) {
    const auto steps = split(part, '/');
    const auto ends = split(steps[0], '-');
    if (steps.size() > 2 || ends.size() > 2) { return wrong("it has too many parts"); }
    int first = range.least, last = range.most, step = 1;
    if (steps[0] == "*" || steps[0] == "?") {
      any = any || steps.size() == 1;
    } else {
      first = value_of(ends[0], names, range.least);
      // "5/10" counts from 5 to the end.
      last = ends.size() == 2    ? value_of(ends[1], names, range.least)
             : steps.size() == 2 ? range.most
                                 : first;
      if (first < range.least || last > range.most || last < 0) {
        return wrong(fmt::format("it goes from {} to {}{}", range.least, range.most,
                                 field == kWeekday ? ", 0 is Sunday" : ""));
      }
      if (first > last) { return wrong("its range ends before it begins"); }
    }
    if (steps.size() == 2 && (step = value_of(steps[1], {}, 0)) <= 0) {
      return wrong("its step is no number above 0");
    }
    for (int value = first; value <= last; value += step) { bits |= std::uint64_t{1} << value; }
  }
  return bits;
}

CronSchedule CronSchedule::every(Duration interval, Time anchor) {
  CronSchedule out;
  out.interval_ = std::max(interval, Duration(1));
  out.anchor_ = anchor;
  return out;
}

Result<CronSchedule> CronSchedule::parse(std::string_view text) {
  CronSchedule out;
  text = trim(text);
  for (const std::string_view prefix : {"CRON_TZ=", "TZ="}) {
    if (!text.starts_with(prefix)) { continue; }
    const std::size_t end = std::min(text.find(' '), text.size());
    METIER_TRY(zone, TimeZone::load(text.substr(prefix.size(), end - prefix.size())));
    out.zone_ = std::move(zone);
    text = trim(text.substr(end));
    break;
  }
  if (text.starts_with("@every ")) {
    const std::string_view given = trim(text.substr(7));
    const auto interval = parse_duration(given);
    if (!interval || interval->count() <= 0 ||
        std::isdigit(static_cast<unsigned char>(given.back()))) {
      return fail(invalid("schedule", quote(given) + " is no interval", "write @every 1h30m"));
    }
    return every(*interval);
  }
  if (text.starts_with('@')) {
    const auto* known = std::ranges::find(kDescriptors, lower_case(text),
                                          &std::pair<std::string_view, std::string_view>::first);
    if (known == std::end(kDescriptors)) {
      return fail(invalid("schedule", quote(text) + " is no schedule that has a name",
                          "@yearly, @monthly, @weekly, @daily, @hourly or @every DURATION"));
    }
    text = known->second;
  }
  std::vector<std::string_view> fields;
  for (const std::string_view field : split(text, ' ')) {
    if (!trim(field).empty()) { fields.push_back(trim(field)); }
  }
  if (fields.size() != 5 && fields.size() != 6) {
    return fail(invalid("schedule", fmt::format("{} has {} fields", quote(text), fields.size()),
                        "give five (minute, hour, day, month, day of the week), or six with the "
                        "second first"));
  }
  const bool seconds = fields.size() == 6;
  if (!seconds) { fields.insert(fields.begin(), "0"); }
  // As Nuclio: "every second" of six fields is the minute's beginning.
  if (fields[0] == "*") { fields[0] = "0"; }
  bool ignored = false;
  for (int i = 0; i < kFields; ++i) {
    bool& any = i == kDay ? out.any_day_ : i == kWeekday ? out.any_weekday_ : ignored;
    METIER_TRY(bits, parse_field(fields[static_cast<std::size_t>(i)], static_cast<Field>(i), any));
    out.allowed_[static_cast<std::size_t>(i)] = bits;
  }
  // Five years from here hold a leap day.
  if (!out.next(Time{sys_days{year{2023} / 12 / 31}})) {
    return fail(invalid("schedule", quote(text) + " never comes", "give a day that its month has"));
  }
  return out;
}

bool CronSchedule::day_fits(int day, int weekday) const {
  const bool by_day = (allowed_[kDay] >> day & 1U) != 0;
  const bool by_weekday = (allowed_[kWeekday] >> weekday & 1U) != 0;
  return any_day_ || any_weekday_ ? by_day && by_weekday : by_day || by_weekday;
}

std::optional<Time> CronSchedule::next(Time after) const {
  if (interval_.count() > 0) {
    const auto passed = (after - anchor_).count();
    const auto whole =
        passed >= 0 ? passed / interval_.count() + 1 : -(-passed / interval_.count());
    Time at = anchor_ + interval_ * whole;
    if (at <= after) { at += interval_; }
    return at;
  }
  const auto offset = [this](std::int64_t at) { return zone_ ? zone_->offset_at(at) : 0; };
  const auto fits = [this](Field field, std::int64_t value) {
    return (allowed_[field] >> value & 1U) != 0;
  };
  std::int64_t at = floor<seconds>(after).time_since_epoch().count() + 1;
  const std::int64_t end = at + kYears * 366LL * 86400;
  // Walks in real time and looks at the zone's clock: an hour that a zone skips never comes, one that it repeats comes twice.
  while (at < end) {
    const std::int64_t local = at + offset(at);
    const sys_seconds clock{seconds(local)};
    const auto date = floor<days>(clock);
    const year_month_day day(date);
    const std::int64_t in_day = (clock - date).count();
    const auto next_day = [&] {
      std::int64_t then = at + 86400 - in_day;
      // Clocks changed in between: the local midnight is a little earlier or later.
      const std::int64_t moved = offset(then) - offset(at);
      const std::int64_t exact = then - moved;
      if (floor<days>(sys_seconds{seconds(exact + offset(exact))}) > date) { then = exact; }
      return then;
    };
    if (!fits(kMonth, unsigned{day.month()}) ||
        !day_fits(static_cast<int>(unsigned{day.day()}),
                  static_cast<int>(weekday(date).c_encoding()))) {
      at = next_day();
    } else if (!fits(kHour, in_day / 3600)) {
      at += 3600 - in_day % 3600;
    } else if (!fits(kMinute, in_day / 60 % 60)) {
      at += 60 - in_day % 60;
    } else if (!fits(kSecond, in_day % 60)) {
      at += 1;
    } else {
      return Time{seconds(at)};
    }
  }
  return std::nullopt;
}

}  // namespace metier
