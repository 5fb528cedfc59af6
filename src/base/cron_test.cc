#include "base/cron.h"

#include <gtest/gtest.h>

namespace metier {
namespace {

Time at(std::string_view text) { return *from_iso(text); }

// The next times of a schedule, without date and offset where they are the day's.
std::string nexts(std::string_view schedule, std::string_view from, int count = 1) {
  auto parsed = CronSchedule::parse(schedule);
  if (!parsed) { return parsed.error().text(); }
  std::string out;
  Time now = at(from);
  for (int i = 0; i < count; ++i) {
    const auto next = parsed->next(now);
    if (!next) { return out + " never"; }
    now = *next;
    out += (out.empty() ? "" : " ") + to_iso(now).substr(0, 19);
  }
  return out;
}

std::string wrong(std::string_view schedule) {
  auto parsed = CronSchedule::parse(schedule);
  return parsed ? "" : parsed.error().text();
}

TEST(Cron, FiveFieldsAreMinutes) {
  EXPECT_EQ(nexts("* * * * *", "2026-01-01T00:00:00", 2),
            "2026-01-01T00:01:00 2026-01-01T00:02:00");
  EXPECT_EQ(nexts("*/15 9-17 * * MON-FRI", "2026-11-27T17:45:00"), "2026-11-30T09:00:00");
  EXPECT_EQ(nexts("0,30 6 1 jan ?", "2026-01-01T06:00:00", 2),
            "2026-01-01T06:30:00 2027-01-01T06:00:00");
  EXPECT_EQ(nexts("5/20 * * * *", "2026-01-01T00:00:00", 4),
            "2026-01-01T00:05:00 2026-01-01T00:25:00 2026-01-01T00:45:00 2026-01-01T01:05:00");
}

TEST(Cron, SixFieldsHaveTheSecondFirst) {
  EXPECT_EQ(nexts("*/10 * * * * *", "2026-01-01T00:00:05", 2),
            "2026-01-01T00:00:10 2026-01-01T00:00:20");
  // As Nuclio: a lone star is second 0.
  EXPECT_EQ(nexts("* * * * * *", "2026-01-01T00:00:05", 2),
            "2026-01-01T00:01:00 2026-01-01T00:02:00");
}

TEST(Cron, NamedSchedules) {
  EXPECT_EQ(nexts("@hourly", "2026-02-28T23:30:00", 2), "2026-03-01T00:00:00 2026-03-01T01:00:00");
  EXPECT_EQ(nexts("@daily", "2026-02-28T23:30:00"), "2026-03-01T00:00:00");
  EXPECT_EQ(nexts("@weekly", "2026-11-29T00:00:00"), "2026-12-06T00:00:00");
  EXPECT_EQ(nexts("@monthly", "2026-11-29T00:00:00"), "2026-12-01T00:00:00");
  EXPECT_EQ(nexts("@yearly", "2026-11-29T00:00:00"), "2027-01-01T00:00:00");
  EXPECT_EQ(nexts("@every 1h30m", "1970-01-01T00:00:00", 2),
            "1970-01-01T01:30:00 1970-01-01T03:00:00");
}

TEST(Cron, DayAndWeekdayAreAlternativesUnlessOneIsAStar) {
  EXPECT_EQ(nexts("0 0 13 * FRI", "2026-11-01T00:00:00", 3),
            "2026-11-06T00:00:00 2026-11-13T00:00:00 2026-11-20T00:00:00");
  EXPECT_EQ(nexts("0 0 13 * *", "2026-11-01T00:00:00"), "2026-11-13T00:00:00");
  EXPECT_EQ(nexts("0 0 29 2 *", "2026-11-01T00:00:00"), "2028-02-29T00:00:00");
}

TEST(Cron, ZonesFollowTheirClocks) {
  EXPECT_EQ(nexts("CRON_TZ=Europe/Paris 0 6 * * *", "2026-06-30T12:00:00"), "2026-07-01T04:00:00");
  EXPECT_EQ(nexts("TZ=Europe/Paris 0 6 * * *", "2026-01-30T12:00:00"), "2026-01-31T05:00:00");
  // 02:30 does not exist on 29 March in Paris; 02:30 comes twice on 25 October.
  EXPECT_EQ(nexts("CRON_TZ=Europe/Paris 30 2 * * *", "2026-03-28T12:00:00"), "2026-03-30T00:30:00");
  EXPECT_EQ(nexts("CRON_TZ=Europe/Paris 30 2 * * *", "2026-10-24T12:00:00", 3),
            "2026-10-25T00:30:00 2026-10-25T01:30:00 2026-10-26T01:30:00");
  // Days of 23 and 25 hours: midnight stays midnight.
  EXPECT_EQ(nexts("CRON_TZ=America/New_York 0 0 * * MON", "2026-11-01T00:00:00"),
            "2026-11-02T05:00:00");
  EXPECT_EQ(nexts("CRON_TZ=Asia/Kolkata 0 0 * * *", "2026-11-01T00:00:00"), "2026-11-01T18:30:00");
}

TEST(Cron, IntervalsKeepTheirPhase) {
  const auto every = CronSchedule::every(std::chrono::milliseconds(250), at("2026-01-01T00:00:00"));
  EXPECT_EQ(*every.next(at("2026-01-01T00:00:00")), at("2026-01-01T00:00:00.250"));
  EXPECT_EQ(*every.next(at("2026-01-01T00:00:01.100")), at("2026-01-01T00:00:01.250"));
  EXPECT_EQ(*every.next(at("2025-12-31T23:59:59.900")), at("2026-01-01T00:00:00"));
}

TEST(Cron, WhatIsWrongIsNamed) {
  EXPECT_NE(wrong("61 * * * *").find("'61' is no minute: it goes from 0 to 59"), std::string::npos)
      << wrong("61 * * * *");
  EXPECT_NE(wrong("* * * * 7").find("0 is Sunday"), std::string::npos);
  EXPECT_NE(wrong("* * * *").find("has 4 fields"), std::string::npos);
  EXPECT_NE(wrong("9-5 * * * *").find("ends before it begins"), std::string::npos);
  EXPECT_NE(wrong("*/0 * * * *").find("step"), std::string::npos);
  EXPECT_NE(wrong("@sometimes").find("'@sometimes'"), std::string::npos);
  EXPECT_NE(wrong("@every often").find("'often' is no interval"), std::string::npos);
  EXPECT_NE(wrong("@every 5").find("'5' is no interval"), std::string::npos);
  EXPECT_NE(wrong("0 0 30 2 *").find("never comes"), std::string::npos);
  EXPECT_NE(wrong("CRON_TZ=Mars/Olympus 0 0 * * *").find("'Mars/Olympus' is no time zone"),
            std::string::npos);
  EXPECT_NE(wrong("CRON_TZ=../../etc/passwd 0 0 * * *").find("is no time zone"), std::string::npos);
  EXPECT_NE(wrong("").find("has 0 fields"), std::string::npos);
}

}  // namespace
}  // namespace metier
