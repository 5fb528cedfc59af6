#include "cli/arguments.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

namespace metier::cli {
namespace {

constexpr Flag kHelp{"--help", 'h', "", "this text"};

const Flag* find_flag(const Verb& verb, std::string_view name) {
  if (name == kHelp.name) { return &kHelp; }
  for (const auto& flag : verb.flags) {
    if (flag.name == name) { return &flag; }
  }
  return nullptr;
}

const Flag* find_letter(const Verb& verb, char letter) {
  if (letter == kHelp.letter) { return &kHelp; }
  for (const auto& flag : verb.flags) {
    if (flag.letter == letter) { return &flag; }
  }
  return nullptr;
}

Error unknown_flag(const Verb& verb, std::string_view word) {
  std::vector<std::string> names;
  for (const auto& flag : verb.flags) { names.emplace_back(flag.name); }
  const auto close = nearest(word, names);
  auto text = fmt::format("{} is unknown{}", quote(word),
                          close ? fmt::format(", did you mean {}?", *close) : "");
  return invalid(verb.name, std::move(text),
                 fmt::format("flags of this verb: metier help {}", verb.name));
}

// Insertions, deletions, replacements, and two letters exchanged ("jbo", "trian") count one each.
std::size_t distance(std::string_view a, std::string_view b) {
  std::vector<std::vector<std::size_t>> d(a.size() + 1, std::vector<std::size_t>(b.size() + 1));
  for (std::size_t i = 0; i <= a.size(); ++i) {
    for (std::size_t j = 0; j <= b.size(); ++j) {
      if (i == 0 || j == 0) {
        d[i][j] = i + j;
        continue;
      }
      d[i][j] = std::min(
          {d[i - 1][j] + 1, d[i][j - 1] + 1, d[i - 1][j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1)});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
        d[i][j] = std::min(d[i][j], d[i - 2][j - 2] + 1);
      }
    }
  }
  return d[a.size()][b.size()];
}

}  // namespace

std::optional<std::string> nearest(std::string_view word, std::span<const std::string> candidates) {
  std::optional<std::string> best;
  std::size_t least = std::max<std::size_t>(word.size() / 3, 1) + 1;
  if (word.size() > 64) { return std::nullopt; }
  for (const auto& candidate : candidates) {
    if (candidate.size() > 128) { continue; }
    const auto d = distance(word, candidate);
    if (d < least && d < candidate.size()) {
      least = d;
      best = candidate;
    }
  }
  return best;
}

Result<Arguments> Arguments::parse(const Verb& verb, std::span<const std::string> words) {
  Arguments out;
  std::size_t i = 0;
  const auto store = [&](const Flag& flag, std::optional<std::string> attached,
                         std::string_view as_written) -> Result<void> {
    if (flag.name == kHelp.name) {
      out.help_ = true;
      return {};
    }
    auto& values = out.values_[std::string(flag.name)];
    if (flag.value.empty()) {
      if (attached) { return fail(invalid(as_written, "takes no value, got " + quote(*attached))); }
      values.emplace_back("true");
      return {};
    }
    if (!values.empty() && !flag.repeats) {
      return fail(invalid(as_written, "is given twice", fmt::format("give {} once", flag.name)));
    }
    if (!attached) {
      if (i >= words.size() || words[i] == "--" ||
          (words[i].starts_with("--") && find_flag(verb, words[i]) != nullptr)) {
        return fail(invalid(as_written, "has no value",
                            fmt::format("write {} {}", as_written, flag.value)));
      }
      attached = words[i++];
    }
    values.push_back(std::move(*attached));
    return {};
  };
  while (i < words.size()) {
    const auto& word = words[i++];
    if (word == "--") {
      if (!verb.takes_rest && i < words.size()) {
        return fail(invalid(verb.name, "takes nothing behind '--'"));
      }
      out.rest_.assign(words.begin() + static_cast<std::ptrdiff_t>(i), words.end());
      break;
    }
    if (word.starts_with("--")) {
      const auto equals = word.find('=');
      const auto name = word.substr(0, equals);
      const auto* flag = find_flag(verb, name);
      if (flag == nullptr) { return fail(unknown_flag(verb, name)); }
      std::optional<std::string> attached;
      if (equals != std::string::npos) { attached = word.substr(equals + 1); }
      METIER_CHECK(store(*flag, std::move(attached), name));
    } else if (word.size() > 1 && word[0] == '-' && !(word[1] >= '0' && word[1] <= '9')) {
      const auto* flag = find_letter(verb, word[1]);
      if (flag == nullptr) { return fail(unknown_flag(verb, word)); }
      std::optional<std::string> attached;
      if (word.size() > 2) { attached = word.substr(word[2] == '=' ? 3 : 2); }
      METIER_CHECK(store(*flag, std::move(attached), word.substr(0, 2)));
    } else {
      out.words_.push_back(word);
    }
  }
  if (out.help_) { return out; }
  const auto count = static_cast<int>(out.words_.size());
  if (count < verb.least) {
    return fail(invalid(verb.name, "something is missing",
                        fmt::format("metier {} {}", verb.name, verb.usage)));
  }
  if (count > verb.most) {
    return fail(invalid(verb.name,
                        fmt::format("{} is one word too many",
                                    quote(out.words_[static_cast<std::size_t>(verb.most)])),
                        fmt::format("metier {} {}", verb.name, verb.usage)));
  }
  return out;
}

std::string Arguments::value(std::string_view flag, std::string_view fallback) const {
  const auto it = values_.find(flag);
  return it == values_.end() || it->second.empty() ? std::string(fallback) : it->second.back();
}

std::vector<std::string> Arguments::values(std::string_view flag) const {
  const auto it = values_.find(flag);
  return it == values_.end() ? std::vector<std::string>{} : it->second;
}

Result<Pair> parse_pair(std::string_view flag, std::string_view text) {
  const auto equals = text.find('=');
  if (equals == std::string_view::npos) {
    return fail(
        invalid(flag, quote(text) + " has no '='", fmt::format("write {} NAME=VALUE", flag)));
  }
  const auto name = text.substr(0, equals);
  const auto letter = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
  };
  const auto inner = [&](char c) { return letter(c) || (c >= '0' && c <= '9'); };
  if (name.empty() || !letter(name[0]) || !std::ranges::all_of(name, inner)) {
    return fail(invalid(flag, quote(name) + " is not a name",
                        "names are letters, digits and '_', and do not start with a digit"));
  }
  return Pair{std::string(name), std::string(text.substr(equals + 1))};
}

Result<std::int64_t> parse_count(std::string_view flag, std::string_view text, std::int64_t least,
                                 std::int64_t most) {
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size() || value < least || value > most) {
    return fail(invalid(flag, quote(text) + " is not accepted",
                        fmt::format("a whole number from {} to {}", least, most)));
  }
  return value;
}

}  // namespace metier::cli
