// What is shown of a run: its results, artifacts and failure.
#pragma once

#include "base/clock.h"
#include "cli/verbs.h"

namespace metier::cli {

// `printable`, line by line.
std::string printable_lines(std::string_view text);
std::string short_uid(std::string_view uid);
// A value of a result in one line: 0.9733, [1,2], "text".
std::string value_text(const Json& value);
// RESULT of lists: the first results, the reason while waiting, the exception and line when failed.
Cell result_cell(const JsonObject& run);
Role role_of_state(std::string_view state);
// "4 min" since then; ISO in `full`.
Cell age_cell(std::string_view iso, Time now);
// Between start and end (or now while it runs); "–" before the start.
Cell took_cell(const JsonObject& run, Time now);

// The tables of results and artifacts, nothing when there are none.
void show_results(Command& command, const JsonObject& run);
// The screen of a failure: what, the user's line, the hint, what to do next.
void show_failure(Command& command, const JsonObject& run, std::string_view took);
// Lines around the failing one with a pointer and carets. `source` is "  19 code" a line, as the journal has it.
std::string excerpt(const Screen& screen, std::string_view source, std::int64_t line,
                    std::int64_t first_column, std::int64_t end_column);

}  // namespace metier::cli
