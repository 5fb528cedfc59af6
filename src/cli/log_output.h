// The log of a run as the terminal gets it: bytes as they come. With `holds`, what may be the traceback that a failing
// function ends with is kept back for a moment, so that its short form is shown once and not below the whole. Of ranks the
// words of mpirun about the end of the job are too: what they say is in the run's record, and better.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

#include "cli/screen.h"

namespace metier::cli {

class LogOutput final {
 public:
  enum class To { out, err };
  enum class Holds { no, yes, of_ranks };
  // What the record of the run says of its end.
  struct Told {
    bool failed = false;
    std::size_t traceback = 0;  // bytes that its runner wrote about the failure, 0: nothing
    std::int64_t rank = -1;     // whose failure it is; -1: no rank's
  };
  LogOutput(Screen& screen, To to, Holds holds) : screen_(screen), to_(to), holds_(holds) {}

  void add(std::string_view bytes);
  bool holding() const { return !held_.empty(); }
  // False when what is held has waited long enough: the program goes on.
  bool patient() const;
  void flush();
  // The run has ended. The traceback is left out when it is what is held; true then.
  bool end(const Told& told);
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
