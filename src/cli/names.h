// Names, unique uid prefixes and "@-1" to runs and functions.
#pragma once

#include "cli/verbs.h"

namespace metier::cli {

// Asked for nothing, MLRun's API lists the newest run of each name only; this asks for all.
inline constexpr std::string_view kAllRuns = "&start_time_from=1970-01-01T00:00:00";

// The run meant by a full uid, a prefix of at least 4 digits, a name (its latest run), or @-1 (the last run of all).
// Errors: not_found with the nearest names, or with the candidates when a prefix is not unique.
Result<JsonObject> resolve_run(Command& command, const std::string& word);
// The latest version of a function. Errors: not_found.
Result<JsonObject> resolve_function(Command& command, const std::string& word);
// Runs, newest first. `query` is appended ("&state=error").
Result<JsonArray> list_runs(Command& command, const std::string& query, std::int64_t limit);

}  // namespace metier::cli
