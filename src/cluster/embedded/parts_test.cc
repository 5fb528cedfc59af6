// Alarms and FileWatch.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>

#include "cluster/embedded/alarms.h"
#include "cluster/embedded/file_watch.h"

namespace metier {
namespace {

using std::chrono::seconds;
using testing::ElementsAre;

TEST(Alarms, RingInOrderOfTheirTimeWhenTheClockMoves) {
  asio::io_context loop;
  ManualClock clock;
  Alarms alarms(loop.get_executor(), clock);
  std::vector<int> rung;
  alarms.after(seconds(2), [&] { rung.push_back(2); });
  alarms.after(seconds(1), [&] {
    rung.push_back(1);
    alarms.after(seconds(0), [&] { rung.push_back(10); });  // due at once, in the same waking
  });
  auto cancelled = alarms.after(seconds(1), [&] { rung.push_back(99); });
  alarms.cancel(cancelled);
  alarms.cancel(cancelled);
  EXPECT_EQ(cancelled, 0U);
  alarms.wake();
  EXPECT_THAT(rung, ElementsAre());
  clock.advance(seconds(1));
  alarms.wake();
  EXPECT_THAT(rung, ElementsAre(1, 10));
  clock.advance(seconds(1));
  alarms.wake();
  EXPECT_THAT(rung, ElementsAre(1, 10, 2));
}

TEST(Alarms, WakeByThemselvesAndLetAnIdleLoopEnd) {
  asio::io_context loop;
  bool rung = false;
  {
    Alarms alarms(loop.get_executor(), system_clock());
    alarms.after(std::chrono::milliseconds(1), [&] { rung = true; });
    auto far = alarms.after(std::chrono::hours(1), [] {});
    while (!rung) { loop.run_one(); }
    alarms.cancel(far);
    loop.run();  // returns: nothing is left to wait for
    alarms.after(std::chrono::hours(1), [] {});
  }
  loop.restart();
  loop.run();  // what is gone wakes nobody
  EXPECT_TRUE(rung);
}

TEST(FileWatch, TellsOfEveryGrowthUntilTheHandleDies) {
  asio::io_context loop;
  FileWatch files(loop.get_executor());
  const auto path =
      std::filesystem::temp_directory_path() / ("metier-watch-" + std::to_string(getpid()));
  EXPECT_EQ(files.watch(path.string(), [] {}).error().kind, ErrorKind::not_found);
  std::ofstream out(path, std::ios::app);
  int first = 0;
  int second = 0;
  auto one = files.watch(path.string(), [&] { ++first; });
  auto two = files.watch(path.string(), [&] { ++second; });
  ASSERT_TRUE(one && two);
  out << "a" << std::flush;
  while (first == 0 || second == 0) { loop.run_one(); }
  one->reset();
  const int before = first;
  out << "b" << std::flush;
  const int seen = second;
  while (second == seen) { loop.run_one(); }
  EXPECT_EQ(first, before);
  std::filesystem::remove(path);
}

}  // namespace
}  // namespace metier
