#include "base/text.h"

#include <algorithm>
#include <array>
#include <cctype>

namespace metier {
namespace {

constexpr std::size_t kLongest = 64;

std::string folded(std::string_view word) {
  std::string out;
  for (const char c : word) {
    if (c != '-' && c != '_' && c != ' ') {
      out += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    }
  }
  return out;
}

// Edits (insert, remove, replace, swap of neighbours) from a to b.
std::size_t distance(std::string_view a, std::string_view b) {
  std::array<std::array<std::size_t, kLongest + 1>, kLongest + 1> cost{};
  for (std::size_t i = 0; i <= a.size(); ++i) {
    for (std::size_t j = 0; j <= b.size(); ++j) {
      if (i == 0 || j == 0) {
        cost[i][j] = i + j;
        continue;
      }
      const std::size_t change = a[i - 1] == b[j - 1] ? 0 : 1;
      cost[i][j] = std::min({cost[i - 1][j] + 1, cost[i][j - 1] + 1, cost[i - 1][j - 1] + change});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
        cost[i][j] = std::min(cost[i][j], cost[i - 2][j - 2] + 1);
      }
    }
  }
  return cost[a.size()][b.size()];
}

template <class Words>
std::string nearest_of(std::string_view word, const Words& candidates) {
  const std::string wanted = folded(word);
  if (wanted.empty() || wanted.size() > kLongest) { return {}; }
  std::string best;
  std::size_t least = std::max<std::size_t>(1, wanted.size() / 3) + 1;
  for (const auto& candidate : candidates) {
    const std::string other = folded(candidate);
    if (other.empty() || other.size() > kLongest) { continue; }
    const std::size_t edits = distance(wanted, other);
    if (edits < least) {
      least = edits;
      best = std::string(candidate);
    }
  }
  return best;
}

template <class Words>
std::string join_of(const Words& words, std::string_view separator) {
  std::string out;
  for (const auto& word : words) {
    if (!out.empty()) { out += separator; }
    out += word;
  }
  return out;
}

}  // namespace

std::string nearest(std::string_view word, std::span<const std::string_view> candidates) {
  return nearest_of(word, candidates);
}
std::string nearest(std::string_view word, const std::vector<std::string>& candidates) {
  return nearest_of(word, candidates);
}
std::string join(std::span<const std::string_view> words, std::string_view separator) {
  return join_of(words, separator);
}
std::string join(const std::vector<std::string>& words, std::string_view separator) {
  return join_of(words, separator);
}

std::vector<std::string> split_text(std::string_view text, char separator) {
  std::vector<std::string> out;
  for (std::size_t start = 0;;) {
    const std::size_t end = text.find(separator, start);
    out.emplace_back(text.substr(start, end == std::string_view::npos ? end : end - start));
    if (end == std::string_view::npos) { return out; }
    start = end + 1;
  }
}

std::string_view trim(std::string_view text) {
  constexpr std::string_view kBlank = " \t\r\n\f\v";
  const std::size_t start = text.find_first_not_of(kBlank);
  if (start == std::string_view::npos) { return {}; }
  return text.substr(start, text.find_last_not_of(kBlank) - start + 1);
}

std::string lower_case(std::string_view text) {
  std::string out(text);
  std::ranges::transform(out, out.begin(),
                         [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return out;
}

std::size_t invalid_utf8(std::string_view text) {
  const auto at = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  for (std::size_t i = 0; i < text.size();) {
    const auto lead = at(i);
    if (lead < 0x80) {
      ++i;
      continue;
    }
    const std::size_t length = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
    if (lead < 0xc2 || lead > 0xf4 || text.size() - i < length) { return i; }
    // The second byte's range excludes overlong forms, surrogates and what is past U+10FFFF.
    const unsigned low = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;
    const unsigned high = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;
    if (at(i + 1) < low || at(i + 1) > high) { return i; }
    for (std::size_t k = 2; k < length; ++k) {
      if ((at(i + k) & 0xc0U) != 0x80U) { return i; }
    }
    i += length;
  }
  return std::string_view::npos;
}

}  // namespace metier
