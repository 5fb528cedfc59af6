// One line at the bottom of a terminal that says what a run is doing while it says nothing itself. It is redrawn from a
// timer that interrupts the waiting request; on anything but a terminal it does nothing.
#pragma once

#include <signal.h>

#include <chrono>
#include <memory>
#include <string>

#include "cli/screen.h"

namespace metier::cli {

// "▕███░░░░░▏ 7/12 tasks · 2/5 stages · 2 executors" of what an engine says of its work; empty when it says no tasks.
std::string progress_text(const Json& progress, bool glyphs);

class LiveLine final {
 public:
  explicit LiveLine(const Screen& screen);
  ~LiveLine();
  LiveLine(const LiveLine&) = delete;
  LiveLine& operator=(const LiveLine&) = delete;

  // Something is written: the line goes, and comes again after a second of silence (`may_return`: the cursor stands at
  // the start of a line).
  void rest(bool may_return);
  // What to show; empty: nothing.
  void tell(std::string text) { text_ = std::move(text); }
  // Called when a signal ended a wait. True when it is time to ask what the run does.
  bool tick();

 private:
  void clear();

  const Screen& screen_;
  bool on_ = false;
  bool shown_ = false;
  bool may_show_ = true;
  int frame_ = 0;
  std::string text_;
  std::chrono::steady_clock::time_point began_;
  std::chrono::steady_clock::time_point quiet_since_;
  std::chrono::steady_clock::time_point asked_;
  struct sigaction before_{};
};

}  // namespace metier::cli
