#include "cli/screen.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <array>

#include "cli/live_line.h"
#include "cli/outcome.h"

namespace metier::cli {
namespace {

// What a table writes, on a terminal of `width` columns or piped (0).
std::string written(const Table& table, int width, bool colour = false) {
  std::array<int, 2> ends{};
  EXPECT_EQ(::pipe(ends.data()), 0);
  Style style;
  style.out_terminal = width > 0;
  style.out_colour = colour;
  style.width = width;
  style.glyphs = true;
  Screen screen(style, ends[1], ends[1]);
  screen.table(table);
  ::close(ends[1]);
  std::string out;
  std::array<char, 4096> piece{};
  for (ssize_t n = 0; (n = ::read(ends[0], piece.data(), piece.size())) > 0;) {
    out.append(piece.data(), static_cast<std::size_t>(n));
  }
  ::close(ends[0]);
  return out;
}

TEST(Progress, IsABarWithItsNumbers) {
  const auto progress = *parse_json(
      R"({"tasks":{"done":6,"total":12,"failed":1},"stages":{"done":2,"running":1},"executors":1})");
  EXPECT_EQ(progress_text(progress, false),
            "[##########..........] 6/12 tasks (1 failed) - 2/3 stages - 1 executor");
  EXPECT_EQ(progress_text(progress, true),
            "▕██████████░░░░░░░░░░▏ 6/12 tasks (1 failed) · 2/3 stages · 1 executor");
  EXPECT_EQ(progress_text(*parse_json(R"({"workers":{"ready":2}})"), true), "")
      << "another engine's";
  EXPECT_EQ(progress_text(Json(), true), "");
  EXPECT_EQ(progress_text(*parse_json(R"({"tasks":{"done":9,"total":4}})"), false),
            "[####################] 4/4 tasks");
}

const Table kTable{{{"NAME"}, {"AGE", 2}, {"RESULT", 1}},
                   {{{"train"}, {"4 min", "2026-01-01T00:00:00+00:00"}, {"accuracy=0.9"}},
                    {{"größe"}, {"1 h"}, {""}}}};

TEST(Table, AlignsByWhatIsSeen) {
  EXPECT_EQ(written(kTable, 80),
            "NAME    AGE     RESULT\ntrain   4 min   accuracy=0.9\ngröße   1 h\n");
}

TEST(Table, DropsColumnsByPriorityThenCuts) {
  EXPECT_EQ(written(kTable, 24), "NAME    RESULT\ntrain   accuracy=0.9\ngröße\n");
  EXPECT_EQ(written({{{"NAME"}}, {{{"abcdefghijklmnopqrstuvwxyz"}}}}, 20),
            "NAME\nabcdefghijklmnopqrs…\n");
}

TEST(Table, IsTabsAndFullValuesWhenPiped) {
  EXPECT_EQ(written(kTable, 0), "train\t2026-01-01T00:00:00+00:00\taccuracy=0.9\ngröße\t1 h\t\n");
}

TEST(Table, CannotMoveTheCursor) {
  EXPECT_EQ(written({{{"N"}}, {{{"a\x1b[2Jb\tc\xff"}}}}, 0), "a\\x1b[2Jb\\x09c\\xff\n");
}

TEST(Style, RespectsTheUsualVariables) {
  EXPECT_FALSE(detect_style("auto", {{"CLICOLOR_FORCE", "1"}, {"NO_COLOR", "1"}}).out_colour);
  EXPECT_TRUE(detect_style("auto", {{"CLICOLOR_FORCE", "1"}}).out_colour);
  EXPECT_TRUE(detect_style("always", {{"NO_COLOR", "1"}}).out_colour);
  EXPECT_FALSE(detect_style("never", {{"CLICOLOR_FORCE", "1"}}).out_colour);
  EXPECT_TRUE(detect_style("auto", {{"LANG", "en_US.UTF-8"}}).glyphs);
  EXPECT_FALSE(detect_style("auto", {{"LANG", "C"}}).glyphs);
  EXPECT_FALSE(detect_style("auto", {{"LC_ALL", "C"}, {"LANG", "en_US.UTF-8"}}).glyphs);
  EXPECT_EQ(detect_style("auto", {{"COLUMNS", "33"}}).width, 33);
}

TEST(Excerpt, PointsAtTheExpression) {
  Style style;
  style.glyphs = false;
  const Screen screen(style, 1, 2);
  EXPECT_EQ(excerpt(screen, "  20     for step in range(3):\n  21         weight -= rate * step",
                    21, 8, 21),
            "    20       for step in range(3):\n  > 21           weight -= rate * step\n          "
            "       ^^^^^^^^^^^^^\n");
}

TEST(Cells, SayAgesAndResults) {
  const Time now = *from_iso("2026-01-02T00:00:00+00:00");
  EXPECT_EQ(age_cell("2026-01-01T23:56:00+00:00", now).text, "4 min");
  EXPECT_EQ(age_cell("2026-01-01T23:56:00+00:00", now).full, "2026-01-01T23:56:00+00:00");
  EXPECT_EQ(age_cell("", now).text, "–");
  const auto run = parse_json(
      R"({"status":{"state":"completed","results":{"accuracy":0.97334,"n":3,"m":1},"start_time":"2026-01-01T00:00:00+00:00","end_time":"2026-01-01T00:00:04.8+00:00"}})");
  EXPECT_EQ(result_cell(run->as_object()).text, "accuracy=0.97334 n=3 +1");
  EXPECT_EQ(took_cell(run->as_object(), now).text, "4.80 s");
  const auto failed = parse_json(
      R"({"status":{"state":"error","error":"TypeError: x","failure":{"type":"TypeError","file":"train.py","line":21}}})");
  EXPECT_EQ(result_cell(failed->as_object()).text, "TypeError train.py:21");
}

}  // namespace
}  // namespace metier::cli
