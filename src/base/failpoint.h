// Failpoints: named places where a test makes the program die, stop or fail. Compiled only with
// METIER_FAILPOINTS (dev, asan, tsan); a release binary has neither the names nor the code.
//
//   METIER_FAILPOINT("store/commit/before");                     // kill, delay, exit, pause
//   METIER_FAILPOINT_RETURN("store/commit");                     // …or return an error from here
//
// METIER_FAILPOINTS="store/commit/before=2*off->kill;api/answer=delay(50)" in the environment arms them.
// Terms: off | kill | exit(n) | delay(ms) | error(text); "N*term" uses a term N times, "->" goes on to
// the next. METIER_FAILPOINTS_LOG=FILE appends the name of each point the first time it is reached.
#pragma once

#include <optional>
#include <string_view>

#include "base/result.h"

#ifdef METIER_FAILPOINTS_ENABLED
namespace metier {
std::optional<Error> reach_failpoint(std::string_view name);
}
#define METIER_FAILPOINT(name) static_cast<void>(::metier::reach_failpoint(name))
#define METIER_FAILPOINT_RETURN(name)                           \
  if (auto failpoint_error = ::metier::reach_failpoint(name)) { \
    return ::metier::fail(std::move(*failpoint_error));         \
  }
#else
#define METIER_FAILPOINT(name) static_cast<void>(0)
#define METIER_FAILPOINT_RETURN(name)
#endif
