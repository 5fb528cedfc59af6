#include "cli/live_line.h"

#include <fmt/format.h>
#include <sys/time.h>
#include <unistd.h>

#include <array>
#include <cstring>

#include "base/clock.h"

namespace metier::cli {
namespace {

using Clock = std::chrono::steady_clock;
constexpr auto kSilence = std::chrono::milliseconds(1000);
constexpr auto kAskEvery = std::chrono::milliseconds(2000);
constexpr suseconds_t kFrame = 150'000;  // microseconds
constexpr std::array<const char*, 10> kSpinner{"⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"};

void write_err(std::string_view bytes) {
  [[maybe_unused]] const auto n = ::write(STDERR_FILENO, bytes.data(), bytes.size());
}

void set_timer(suseconds_t every) {
  const itimerval timer{{0, every}, {0, every}};
  ::setitimer(ITIMER_REAL, &timer, nullptr);
}

}  // namespace

LiveLine::LiveLine(const Screen& screen)
    : screen_(screen),
      on_(screen.style().err_terminal && !screen.style().quiet),
      began_(Clock::now()),
      quiet_since_(began_),
      asked_(began_) {
  if (!on_) { return; }
  struct sigaction action{};
  action.sa_handler = [](int) {};
  ::sigemptyset(&action.sa_mask);  // without SA_RESTART: it ends the wait
  ::sigaction(SIGALRM, &action, &before_);
  set_timer(kFrame);
}

LiveLine::~LiveLine() {
  if (!on_) { return; }
  set_timer(0);
  ::sigaction(SIGALRM, &before_, nullptr);
  clear();
}

void LiveLine::clear() {
  if (!shown_) { return; }
  write_err("\r\x1b[K");
  shown_ = false;
}

void LiveLine::rest(bool may_return) {
  if (!on_) { return; }
  clear();
  may_show_ = may_return;
  quiet_since_ = Clock::now();
}

bool LiveLine::tick() {
  if (!on_) { return false; }
  const auto now = Clock::now();
  if (!may_show_ || now - quiet_since_ < kSilence) { return false; }
  if (text_.empty() || now - asked_ > kAskEvery) {
    asked_ = now;
    return true;
  }
  const auto took = std::chrono::duration_cast<Duration>(now - began_);
  const auto glyph =
      screen_.style().glyphs
          ? std::string(kSpinner[static_cast<std::size_t>(frame_++) % kSpinner.size()])
          : screen_.glyph(Role::live);
  const auto line = cut(fmt::format("{} {} {}", human_duration(took), screen_.dot(), text_),
                        std::max(10, screen_.style().width - 6));
  write_err(fmt::format("\r  {} {}\x1b[K", screen_.paint(Role::live, glyph), line));
  shown_ = true;
  return false;
}

}  // namespace metier::cli
