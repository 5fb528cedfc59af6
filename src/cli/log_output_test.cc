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
  EXPECT_TRUE(log.end(kTrace.size()));
  EXPECT_EQ(captured.text(), "one\n");
}

TEST(LogOutput, KeepsWhatThePersonPrintedBeforeAndAfter) {
  Captured captured;
  LogOutput log(captured.screen, LogOutput::To::out, LogOutput::Holds::yes);
  const auto own = "Traceback (most recent call last):\nKeyError: mine\n";
  log.add(std::string(own) + std::string(kTrace) + "bye\n");
  EXPECT_TRUE(log.end(kTrace.size()));
  EXPECT_EQ(captured.text(), std::string(own) + "bye\n");
}

TEST(LogOutput, PrintsAllWhenTheRunSaysNothingOfATraceback) {
  Captured captured;
  LogOutput log(captured.screen, LogOutput::To::out, LogOutput::Holds::yes);
  log.add(kTrace);
  EXPECT_FALSE(log.end(0));
  EXPECT_EQ(captured.text(), kTrace);
  log.add("error: mine\n");
  log.flush();
  EXPECT_EQ(captured.text(), std::string(kTrace) + "error: mine\n");
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
