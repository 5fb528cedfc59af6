#include "cli/log_output.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

namespace metier::cli {
namespace {

constexpr std::string_view kTrace =
    "Traceback (most recent call last):\n  File \"f.py\", line 1, in f\nValueError: no\n";

// What came out on a file in memory.
struct Captured {
  int fd = ::memfd_create("out", MFD_CLOEXEC);
  Screen screen{Style{}, fd, fd};
  ~Captured() { ::close(fd); }
  Captured() = default;
  Captured(const Captured&) = delete;
  Captured& operator=(const Captured&) = delete;
  std::string text() const {
    std::string out(4096, '\0');
    const auto n = ::pread(fd, out.data(), out.size(), 0);
    out.resize(n < 0 ? 0 : static_cast<std::size_t>(n));
    return out;
  }
};

TEST(LogOutput, LeavesOutTheTracebackThatTheRunEndsWith) {
  Captured captured;
  LogOutput log(captured.screen, LogOutput::To::out, LogOutput::Holds::yes);
  log.add("one\nTrace");
  EXPECT_EQ(captured.text(), "one\n");
  log.add(kTrace.substr(5));
  EXPECT_TRUE(log.holding());
  EXPECT_TRUE(log.end({.failed = true, .traceback = kTrace.size()}));
  EXPECT_EQ(captured.text(), "one\n");
}

TEST(LogOutput, KeepsWhatThePersonPrintedBeforeAndAfter) {
  Captured captured;
  LogOutput log(captured.screen, LogOutput::To::out, LogOutput::Holds::yes);
  const auto own = "Traceback (most recent call last):\nKeyError: mine\n";
  log.add(std::string(own) + std::string(kTrace) + "bye\n");
  EXPECT_TRUE(log.end({.failed = true, .traceback = kTrace.size()}));
  EXPECT_EQ(captured.text(), std::string(own) + "bye\n");
}

TEST(LogOutput, PrintsAllWhenTheRunSaysNothingOfATraceback) {
  Captured captured;
  LogOutput log(captured.screen, LogOutput::To::out, LogOutput::Holds::yes);
  log.add(kTrace);
  EXPECT_FALSE(log.end({}));
  EXPECT_EQ(captured.text(), kTrace);
  log.add("error: mine\n");
  log.flush();
  EXPECT_EQ(captured.text(), std::string(kTrace) + "error: mine\n");
}

TEST(LogOutput, LeavesOutWhatMpirunSaysOfTheEndOfRanks) {
  const std::string rule = std::string(74, '-') + "\n";
  const std::string banner = rule +
                             "MPI_ABORT was invoked on rank 1 in communicator MPI_COMM_WORLD\n"
                             "[rank 2] between\n" +
                             rule;
  const std::string slots = rule + "There are not enough slots\n" + rule;
  const std::string ended = "metier: rank 1 in pod a-worker-1 ended with exit code 1\n";
  const std::string text =
      "[rank 1] Traceback (most recent call last):\n[rank 0] mine\n"
      "[rank 1]   File \"f.py\", line 1, in f\n[rank 1] ValueError: no\n[rank 1] bye\n" +
      banner + slots + ended;
  const auto shown = [&](LogOutput::Holds holds, LogOutput::Told told) {
    Captured captured;
    LogOutput log(captured.screen, LogOutput::To::out, holds);
    log.add("[rank 0] begun\n");
    log.add(text);
    EXPECT_EQ(log.holding(), holds == LogOutput::Holds::of_ranks);
    log.end(told);
    return captured.text();
  };
  using Holds = LogOutput::Holds;
  const LogOutput::Told told{.failed = true, .traceback = kTrace.size(), .rank = 1};
  EXPECT_EQ(shown(Holds::of_ranks, told),
            "[rank 0] begun\n[rank 0] mine\n[rank 1] bye\n[rank 2] between\n" + slots);
  EXPECT_EQ(shown(Holds::of_ranks, {}), "[rank 0] begun\n" + text) << "the run has not failed";
  EXPECT_EQ(shown(Holds::yes, told), "[rank 0] begun\n" + text) << "not a run of ranks";
}

TEST(LogOutput, HoldsNothingInTheMiddleOfALineOrUnasked) {
  Captured captured;
  LogOutput log(captured.screen, LogOutput::To::out, LogOutput::Holds::yes);
  log.add("see Traceback (most recent call last):\n");
  EXPECT_FALSE(log.holding());
  LogOutput plain(captured.screen, LogOutput::To::out, LogOutput::Holds::no);
  plain.add(kTrace);
  EXPECT_FALSE(plain.holding());
}

}  // namespace
}  // namespace metier::cli
