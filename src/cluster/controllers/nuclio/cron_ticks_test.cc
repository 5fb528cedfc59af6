#include "cluster/controllers/nuclio/cron_ticks.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>

namespace metier {
namespace {

using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;

// Processors that answer when the test says so; a server that is started again on the same folder.
class CronTicksTest : public testing::Test {
 protected:
  struct Fired {
    std::string pod, id;
    bool replace;
  };
  CronTicksTest() {
    std::string name = (std::filesystem::temp_directory_path() / "metier-cron-XXXXXX").string();
    folder_ = ::mkdtemp(name.data());
    restart();
  }
  ~CronTicksTest() override {
    stop();
    std::filesystem::remove_all(folder_);
  }
  void restart() {
    stop();
    loop_.restart();
    answer_ = std::make_unique<Signal>(loop_.get_executor());
    ticks_ = std::make_unique<CronTicks>(
        loop_.get_executor(), clock_, system_random(), folder_,
        CronTicks::Calls{
            .processors = [this](const ResourceKey&) { return processors_; },
            .fire = [this](const std::string&, const std::string& pod, const std::string&,
                           const std::string& id,
                           bool replace) -> Async<Result<int>> { return fire(pod, id, replace); },
            .wake = [this](const ResourceKey&) { ++woken_; }},
        Logger());
    set();
  }
  void stop() {
    if (!ticks_) { return; }
    loop_.restart();
    asio::co_spawn(loop_, ticks_->close(), [](const std::exception_ptr&) {});
    loop_.run();
    ticks_.reset();
  }
  Async<Result<int>> fire(std::string pod, std::string id, bool replace) {
    fired_.push_back({pod, id, replace});
    const std::uint64_t seen = answer_->generation();
    while (holding_ && !lost_) {
      co_await answer_->wait(seen);
      break;
    }
    if (lost_) { co_return fail(ErrorKind::unavailable, "gone"); }
    co_return status_;
  }
  void set() {
    ticks_->set(key_,
                {{"tick", JsonObject{{"kind", "cron"}, {"attributes", *parse_json(attributes_)}}}});
    settle();
  }
  void settle() {
    loop_.restart();
    while (loop_.poll_one() > 0) {}
  }
  // Time passes; the timer would look then.
  void pass(Duration time) {
    clock_.advance(time);
    ticks_->look();
    settle();
  }
  void answer() {
    answer_->notify();
    settle();
  }

  ResourceKey key_{"p", "NuclioFunction", "f"};
  std::string attributes_ = R"({"schedule":"* * * * *"})";
  std::string folder_;
  ManualClock clock_{*from_iso("2026-01-01T00:00:30")};
  asio::io_context loop_;
  std::unique_ptr<Signal> answer_;
  std::vector<CronTicks::Processor> processors_{{"f-0", true}, {"f-1", true}};
  std::vector<Fired> fired_;
  bool holding_ = false, lost_ = false;
  int status_ = 200, woken_ = 0;
  std::unique_ptr<CronTicks> ticks_;
};

TEST_F(CronTicksTest, OneTickWhateverTheReplicas) {
  pass(seconds(29));
  EXPECT_EQ(fired_.size(), 0U);
  pass(seconds(1));
  ASSERT_EQ(fired_.size(), 1U);
  pass(seconds(60));
  ASSERT_EQ(fired_.size(), 2U);
  EXPECT_NE(fired_[0].pod, fired_[1].pod);  // in turn
  EXPECT_NE(fired_[0].id, fired_[1].id);
}

TEST_F(CronTicksTest, AFunctionAtZeroIsWoken) {
  processors_.clear();
  pass(seconds(30));
  EXPECT_EQ(fired_.size(), 0U);
  EXPECT_GE(woken_, 1);
  EXPECT_TRUE(ticks_->waiting(key_));
  processors_ = {{"f-0", true}};
  set();
  EXPECT_EQ(fired_.size(), 1U);
  EXPECT_FALSE(ticks_->waiting(key_));
}

TEST_F(CronTicksTest, MissedTicksAreOne) {
  pass(minutes(45));
  EXPECT_EQ(fired_.size(), 1U);
  restart();
  clock_.advance(minutes(90));
  ticks_->look();
  settle();
  EXPECT_EQ(fired_.size(), 2U);  // the server was away for 90 of them
}

TEST_F(CronTicksTest, ARestartBetweenTicksNeitherLosesNorDoubles) {
  pass(seconds(30));
  ASSERT_EQ(fired_.size(), 1U);
  restart();
  pass(seconds(59));
  EXPECT_EQ(fired_.size(), 1U);
  pass(seconds(1));
  EXPECT_EQ(fired_.size(), 2U);
}

TEST_F(CronTicksTest, ARunningTickIsAskedForAgainAtItsProcessor) {
  holding_ = true;
  pass(seconds(30));
  ASSERT_EQ(fired_.size(), 1U);
  restart();  // its answer was never seen
  ASSERT_EQ(fired_.size(), 2U);
  EXPECT_EQ(fired_[1].id, fired_[0].id);
  EXPECT_EQ(fired_[1].pod, fired_[0].pod);
  holding_ = false;
  answer();
  restart();
  EXPECT_EQ(fired_.size(), 2U);
}

TEST_F(CronTicksTest, ATickWhoseProcessorDiedGoesToAnother) {
  lost_ = true;
  pass(seconds(30));
  ASSERT_EQ(fired_.size(), 1U);
  lost_ = false;
  std::erase_if(processors_, [&](const auto& p) { return p.pod == fired_[0].pod; });
  set();
  for (int i = 0; i < 6000 && fired_.size() < 2; ++i) {  // after a pause
    loop_.restart();
    loop_.run_for(milliseconds(10));
  }
  ASSERT_EQ(fired_.size(), 2U);
  EXPECT_EQ(fired_[1].id, fired_[0].id);
  EXPECT_NE(fired_[1].pod, fired_[0].pod);
}

TEST_F(CronTicksTest, WithoutAPolicyTheNextOneFollows) {
  holding_ = true;
  pass(seconds(30));
  pass(seconds(60));
  pass(seconds(60));
  EXPECT_EQ(fired_.size(), 1U);
  answer();
  EXPECT_EQ(fired_.size(), 2U);  // both missed ones
  answer();
  EXPECT_EQ(fired_.size(), 2U);
}

TEST_F(CronTicksTest, ForbidSkips) {
  attributes_ = R"({"schedule":"* * * * *","concurrencyPolicy":"Forbid"})";
  set();
  holding_ = true;
  pass(seconds(30));
  pass(seconds(60));
  answer();
  EXPECT_EQ(fired_.size(), 1U);
  pass(seconds(60));
  EXPECT_EQ(fired_.size(), 2U);
}

TEST_F(CronTicksTest, AllowRunsBesideAndReplaceInstead) {
  attributes_ = R"({"schedule":"* * * * *","concurrencyPolicy":"Allow"})";
  set();
  holding_ = true;
  pass(seconds(30));
  pass(seconds(60));
  ASSERT_EQ(fired_.size(), 2U);
  EXPECT_FALSE(fired_[1].replace);
  attributes_ = R"({"schedule":"* * * * *","concurrencyPolicy":"Replace"})";
  set();
  pass(seconds(60));
  ASSERT_EQ(fired_.size(), 3U);
  EXPECT_TRUE(fired_[2].replace);
}

TEST_F(CronTicksTest, IntervalsOfLessThanASecond) {
  attributes_ = R"({"interval":"250ms"})";
  set();
  for (int i = 0; i < 8; ++i) { pass(milliseconds(125)); }
  EXPECT_EQ(fired_.size(), 4U);
  pass(seconds(10));
  EXPECT_EQ(fired_.size(), 5U);
}

TEST_F(CronTicksTest, ARemovedTriggerLeavesNothing) {
  pass(seconds(30));
  ticks_->set(key_, {});
  pass(minutes(10));
  EXPECT_EQ(fired_.size(), 1U);
  EXPECT_TRUE(std::filesystem::is_empty(folder_));
}

}  // namespace
}  // namespace metier
