// Just enough of Python's lexical rules to find definitions: strings, comments, brackets, logical lines.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

#include "base/json.h"

namespace metier {

// Where the string literal that starts at `at` (a quote, behind any prefix) ends: one past its last quote, or the
// end of the text.
std::size_t end_of_string(std::string_view text, std::size_t at);
// One past the bracket that closes the one at `at`, strings and comments skipped; npos when it is never closed.
std::size_t end_of_bracket(std::string_view text, std::size_t at);
// Finds `mark` outside of strings, comments and brackets, from `at`; npos when absent or when `stop` comes first.
std::size_t find_outside(std::string_view text, char mark, std::size_t at = 0, char stop = '\0');
// A literal (number, text, True, None, list, tuple, dict) as JSON; nullopt when it is an expression.
std::optional<Json> python_literal(std::string_view text);

}  // namespace metier
