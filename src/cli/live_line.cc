#include "cli/live_line.h"

#include <fmt/format.h>
#include <sys/time.h>
#include <unistd.h>

#include <algorithm>
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

std::int64_t count(const Json& progress, const char* what, const char* which) {
  const Json* found = find_path(progress, fmt::format("{}.{}", what, which));
  return found != nullptr && found->is_int64() ? std::max<std::int64_t>(0, found->get_int64()) : 0;
}

}  // namespace

std::string progress_text(const Json& progress, bool glyphs) {
  const auto total = count(progress, "tasks", "total");
  if (total == 0) { return {}; }
  const auto done = std::min(count(progress, "tasks", "done"), total);
  constexpr std::int64_t kCells = 20;
  std::string bar(glyphs ? "▕" : "[");
  for (std::int64_t cell = 0; cell < kCells; ++cell) {
    const bool full = cell < done * kCells / total;
    bar += glyphs ? (full ? "█" : "░") : (full ? "#" : ".");
  }
  bar += glyphs ? "▏" : "]";
  const char* dot = glyphs ? "·" : "-";
  std::string out = fmt::format("{} {}/{} tasks", bar, done, total);
  if (const auto failed = count(progress, "tasks", "failed"); failed > 0) {
    out += fmt::format(" ({} failed)", failed);
  }
  const auto stages = count(progress, "stages", "done") + count(progress, "stages", "running");
  if (stages > 0) {
    out += fmt::format(" {} {}/{} stages", dot, count(progress, "stages", "done"), stages);
  }
  if (const Json* executors = find_path(progress, "executors");
      executors != nullptr && executors->is_int64()) {
    out += fmt::format(" {} {} executor{}", dot, executors->get_int64(),
                       executors->get_int64() == 1 ? "" : "s");
  }
  return out;
}

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
