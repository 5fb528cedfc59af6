#include "base/log_times.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "base/files.h"

namespace metier {
namespace {

Time at(std::int64_t seconds) { return Time{std::chrono::seconds(1'700'000'000 + seconds)}; }

class LogTimes : public ::testing::Test {
 protected:
  LogTimes() {
    std::string pattern = ::testing::TempDir() + "log_times.XXXXXX";
    folder_ = ::mkdtemp(pattern.data());
    log_ = folder_ + "/log";
  }
  ~LogTimes() override { std::filesystem::remove_all(folder_); }

  // The log has `size` bytes, written last at `seconds`.
  void log_of(std::size_t size, std::int64_t seconds) {
    std::ofstream(log_, std::ios::binary) << std::string(size, 'x');
    const timespec changed{.tv_sec = 1'700'000'000 + seconds, .tv_nsec = 0};
    const timespec both[2] = {changed, changed};
    ASSERT_EQ(::utimensat(AT_FDCWD, log_.c_str(), both, 0), 0);
  }

  std::string folder_;
  std::string log_;
};

TEST_F(LogTimes, ALogWithoutEntriesWasWrittenWhenItsFileWasChanged) {
  EXPECT_TRUE(read_log_times(log_).empty());
  log_of(0, 5);
  EXPECT_TRUE(read_log_times(log_).empty());
  log_of(10, 5);
  EXPECT_EQ(read_log_times(log_), (std::vector<LogMark>{{10, at(5)}}));
}

TEST_F(LogTimes, WhatIsPastTheLastEntryHasTheTimeOfTheFile) {
  log_of(30, 9);
  ASSERT_TRUE(append_log_time(log_, {10, at(1)}));
  ASSERT_TRUE(append_log_time(log_, {20, at(4)}));
  EXPECT_EQ(read_log_times(log_), (std::vector<LogMark>{{10, at(1)}, {20, at(4)}, {30, at(9)}}));
}

TEST_F(LogTimes, ALogThatWasMadeShorterBeginsAgainThere) {
  log_of(15, 9);
  ASSERT_TRUE(append_log_time(log_, {10, at(1)}));
  ASSERT_TRUE(append_log_time(log_, {40, at(2)}));
  ASSERT_TRUE(append_log_time(log_, {12, at(3)}));
  EXPECT_EQ(read_log_times(log_), (std::vector<LogMark>{{10, at(1)}, {12, at(3)}, {15, at(9)}}));
}

TEST_F(LogTimes, AClockThatWentBackAndAHalfEntryDoNoHarm) {
  log_of(20, 9);
  ASSERT_TRUE(append_log_time(log_, {10, at(7)}));
  ASSERT_TRUE(append_log_time(log_, {20, at(3)}));
  std::ofstream(log_times_path(log_), std::ios::binary | std::ios::app) << "half";
  EXPECT_EQ(read_log_times(log_), (std::vector<LogMark>{{10, at(7)}, {20, at(7)}}));
}

TEST_F(LogTimes, TheFirstByteSinceATime) {
  const std::vector<LogMark> marks{{10, at(1)}, {20, at(4)}, {30, at(9)}};
  EXPECT_EQ(log_offset_at(marks, at(0)), 0U);
  EXPECT_EQ(log_offset_at(marks, at(1)), 0U);
  EXPECT_EQ(log_offset_at(marks, at(2)), 10U);
  EXPECT_EQ(log_offset_at(marks, at(9)), 20U);
  EXPECT_EQ(log_offset_at(marks, at(10)), 30U);
  EXPECT_EQ(log_offset_at({}, at(10)), 0U);
}

}  // namespace
}  // namespace metier
