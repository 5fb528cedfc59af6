// Small work on words, for messages.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace metier {

// The candidate that `word` is most likely a slip of ("mpi-job" → "mpijob", "cpus" → "cpu"), or "" when none is
// near. Case, dashes and underscores count little. Bounded: words past 64 bytes have no near one.
std::string nearest(std::string_view word, std::span<const std::string_view> candidates);
std::string nearest(std::string_view word, const std::vector<std::string>& candidates);

// "a, b, c"
std::string join(std::span<const std::string_view> words, std::string_view separator = ", ");
std::string join(const std::vector<std::string>& words, std::string_view separator = ", ");

std::vector<std::string> split_text(std::string_view text, char separator);
std::string_view trim(std::string_view text);
std::string lower_case(std::string_view text);

// The offset of the first byte that is no UTF-8 (RFC 3629: no overlong forms, no surrogates), npos when all is.
std::size_t invalid_utf8(std::string_view text);

}  // namespace metier
