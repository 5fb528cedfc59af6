// Runs a helper program (uv, a build command) to its end without blocking the loop.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "base/async.h"

namespace metier {

struct Program {
  std::vector<std::string>
      arguments;  // arguments[0] is looked up on PATH of `env`'s parent process
  std::vector<std::pair<std::string, std::string>> env;  // set on top of this process's own
  std::vector<std::string> unset;                        // variables that it must not inherit
  std::string folder;                                    // working directory, empty = this one
  std::string log;  // stdout and stderr are appended to this file
  std::chrono::seconds deadline{1800};
};

// Gives the exit code; 128 + signal for a killed one, as a shell does. Past the deadline, or when the
// coroutine is cancelled, the program's whole session is killed (timed_out).
// Errors: not_found when there is no such program.
Async<Result<int>> run_program(Executor executor, Program program);

}  // namespace metier
