// Candidates for a shell's completion: answered in milliseconds, or not at all.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "cli/session.h"

namespace metier::cli {

// `words` are those behind "metier"; the last one is being typed. Names of runs are asked from a server that already listens.
std::vector<std::string> complete(std::span<const std::string> words,
                                  const Environment& environment);

}  // namespace metier::cli
