#include "engine/mask.h"

#include <algorithm>

namespace metier {
namespace {
constexpr std::size_t kShortest = 4;
}

Masker::Masker(std::vector<std::string> values) {
  for (std::string& value : values) {
    if (value.find('\n') != std::string::npos) {
      std::size_t from = 0;
      while (from <= value.size()) {
        const std::size_t to = std::min(value.find('\n', from), value.size());
        if (to - from >= kShortest) { values_.push_back(value.substr(from, to - from)); }
        from = to + 1;
      }
    }
    if (value.size() >= kShortest) { values_.push_back(std::move(value)); }
  }
  std::ranges::sort(values_, [](const std::string& a, const std::string& b) {
    return a.size() != b.size() ? a.size() > b.size() : a < b;
  });
  values_.erase(std::ranges::unique(values_).begin(), values_.end());
  if (!values_.empty()) { longest_ = values_.front().size(); }
}

void Masker::mask(std::string& text) const {
  // Matches are found in the text as it was: a mask never makes or hides another match.
  std::vector<std::pair<std::size_t, std::size_t>> found;
  for (const std::string& value : values_) {
    for (std::size_t at = text.find(value); at != std::string::npos;
         at = text.find(value, at + 1)) {
      found.emplace_back(at, value.size());
    }
  }
  for (const auto& [at, size] : found) {
    std::fill_n(text.begin() + static_cast<std::ptrdiff_t>(at), size, '*');
  }
}

void Masker::mask(Json& value) const {
  if (empty()) { return; }
  if (value.is_string()) {
    std::string text(value.get_string());
    mask(text);
    if (text != value.get_string()) { value = text; }
  } else if (value.is_array()) {
    for (Json& item : value.get_array()) { mask(item); }
  } else if (value.is_object()) {
    for (auto&& member : value.get_object()) { mask(member.value()); }
  }
}

std::size_t Masker::undecided(std::string_view text) const {
  std::size_t most = 0;
  for (const std::string& value : values_) {
    for (std::size_t n = std::min(value.size() - 1, text.size()); n > most; --n) {
      if (text.ends_with(std::string_view(value).substr(0, n))) {
        most = n;
        break;
      }
    }
  }
  return most;
}

}  // namespace metier
