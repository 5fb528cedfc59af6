#include "realtime/loop.h"

#include <gtest/gtest.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <thread>
#include <vector>

#include "base/files.h"
#include "realtime/metrics.h"

namespace metier::realtime {
namespace {

using std::chrono::milliseconds;

TEST(Loop, TimersFireInTheirOrderAndCanBeTakenBack) {
  Loop loop;
  std::vector<int> fired;
  LoopTimer late(loop, [&] {
    fired.push_back(2);
    loop.stop();
  });
  LoopTimer early(loop, [&] { fired.push_back(1); });
  LoopTimer never(loop, [&] { fired.push_back(3); });
  late.after(milliseconds(20));
  early.after(milliseconds(5));
  never.after(milliseconds(1));
  never.cancel();
  loop.run();
  EXPECT_EQ(fired, (std::vector<int>{1, 2}));
  EXPECT_FALSE(late.armed());
}

TEST(Loop, PostsFromOtherThreadsAllArrive) {
  Loop loop;
  int got = 0;
  std::thread other([&] {
    for (int i = 0; i < 1000; ++i) {
      loop.post([&] {
        if (++got == 1000) { loop.stop(); }
      });
    }
  });
  loop.run();
  other.join();
  EXPECT_EQ(got, 1000);
}

struct Ready final : Watched {
  std::function<void()> call;
  void on_ready(std::uint32_t) noexcept override { call(); }
};

TEST(Loop, WhatIsForgottenInATurnIsNotCalledInIt) {
  Loop loop;
  Fd first(::eventfd(1, EFD_NONBLOCK));
  Fd second(::eventfd(1, EFD_NONBLOCK));
  Ready a;
  Ready b;
  int calls = 0;
  a.call = [&] {
    ++calls;
    loop.forget(first.get(), a);
    loop.forget(second.get(), b);
  };
  b.call = a.call;
  ASSERT_TRUE(loop.watch(first.get(), EPOLLIN, a));
  ASSERT_TRUE(loop.watch(second.get(), EPOLLIN, b));
  LoopTimer end(loop, [&] { loop.stop(); });
  end.after(milliseconds(10));
  loop.run();
  EXPECT_EQ(calls, 1);
}

TEST(Metrics, HistogramBucketsHoldWhatTheySay) {
  Histogram histogram;
  histogram.observe_ns(500);        // ≤ 1 µs
  histogram.observe_ns(1'000);      // ≤ 1 µs
  histogram.observe_ns(1'001'000);  // ≤ 1024 µs
  histogram.observe_ns(-5);         // a clock that went back counts as nothing
  EXPECT_EQ(histogram.count(), 4U);
  EXPECT_EQ(histogram.in_bucket(0), 3U);
  EXPECT_EQ(histogram.in_bucket(10), 1U);
  EXPECT_DOUBLE_EQ(Histogram::bound(10), 1024e-6);
}

TEST(Metrics, TextIsPrometheus) {
  MetricsWriter out(MetricsWriter::label("function", "a\"b"));
  out.counter("x_total", "Things", {{"result", "good"}}, 3);
  out.counter("x_total", "Things", {{"result", "bad"}}, 0);
  EXPECT_EQ(out.take(),
            "# HELP x_total Things\n# TYPE x_total "
            "counter\nx_total{function=\"a\\\"b\",result=\"good\"} 3\n"
            "x_total{function=\"a\\\"b\",result=\"bad\"} 0\n");
}

}  // namespace
}  // namespace metier::realtime
