// Starts a program that outlives the call: given descriptors from 3 on, everything else closed.
#pragma once

#include <sys/types.h>
#include <string>
#include <vector>

#include "base/result.h"

namespace metier {

struct Spawn {
  std::vector<std::string> arguments;  // arguments[0] is looked up on PATH when it has no slash
  std::vector<std::string> env;        // "NAME=value"
  std::vector<int> descriptors;        // become 3, 4, …
  std::string output;                  // stdout and stderr are appended here; empty: /dev/null
};

// Errors: not_found, unavailable. The caller waits for the pid.
Result<pid_t> spawn_program(const Spawn& spawn);

}  // namespace metier
