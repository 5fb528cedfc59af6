// Runs of several pods: the table of their parts, and the log of one.
#pragma once

#include "cli/log_reader.h"
#include "cli/outcome.h"

namespace metier::cli {

// The pods and ranks of a run, as a table; nothing for a run of one pod.
void show_parts(Command& command, const std::string& uid);
// When each part ran, counted from the submit; `timeline` as GET /api/metier/v1/runs/UID/timeline gives it.
void show_parts_in_time(Command& command, const JsonObject& timeline);

// `logs --part all`: each line with the name of its part in front.
Result<int> logs_of_parts(Command& command, const std::string& uid, const LogView& view);

}  // namespace metier::cli
