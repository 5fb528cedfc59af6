// The log of a run as the terminal gets it: bytes as they come. With `holds`, what may be the traceback that a failing
// function ends with is kept back for a moment, so that its short form is shown once and not below the whole.
#pragma once

#include <chrono>
#include <string>
#include <string_view>

#include "cli/screen.h"

namespace metier::cli {

class LogOutput final {
 public:
  enum class To { out, err };
  enum class Holds { no, yes };
  LogOutput(Screen& screen, To to, Holds holds) : screen_(screen), to_(to), holds_(holds) {}

  void add(std::string_view bytes);
  bool holding() const { return !held_.empty(); }
  // False when what is held has waited long enough: the program goes on.
  bool patient() const;
  void flush();
  // The run has ended. `traceback` bytes are what its runner wrote about the failure, 0: nothing. They are left out
  // when they are what is held; true then.
  bool end(std::size_t traceback);
  // The cursor stands at the start of a line.
  bool at_line_start() const { return line_start_ && held_.empty(); }

 private:
  void print(std::string_view bytes);

  Screen& screen_;
  To to_;
  Holds holds_;
  bool line_start_ = true;
  std::string held_;
  std::chrono::steady_clock::time_point since_{};
};

}  // namespace metier::cli
