// Command line words against a verb's flags. One parser for all verbs, so that a flag means the same everywhere.
#pragma once

#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace metier::cli {

struct Flag {
  std::string_view name;   // "--kind"
  char letter = 0;         // 'P' for -P, 0 = none
  std::string_view value;  // what its value is called in the help; empty = a switch
  std::string_view help;
  bool repeats = false;
};

struct Verb {
  std::string_view name;
  std::string_view usage;  // behind "metier NAME "
  std::string_view summary;
  std::span<const Flag> flags;
  std::span<const std::string_view> examples;
  int least = 0;  // positional words
  int most = 0;
  bool takes_rest = false;  // words behind "--" belong to the user's program
};

class Arguments final {
 public:
  // Errors: invalid with the nearest flag; a flag without value, twice, or with a value it does not take.
  static Result<Arguments> parse(const Verb& verb, std::span<const std::string> words);

  const std::vector<std::string>& words() const { return words_; }  // positional
  const std::vector<std::string>& rest() const { return rest_; }    // behind "--"
  bool has(std::string_view flag) const { return values_.contains(flag); }
  std::string value(std::string_view flag, std::string_view fallback = {}) const;
  std::vector<std::string> values(std::string_view flag) const;
  bool wants_help() const { return help_; }

 private:
  std::vector<std::string> words_;
  std::vector<std::string> rest_;
  std::map<std::string, std::vector<std::string>, std::less<>> values_;
  bool help_ = false;
};

// "name=value" of a flag. Errors: invalid naming the flag when there is no "=", or no valid name before it.
struct Pair {
  std::string name;
  std::string value;
};
Result<Pair> parse_pair(std::string_view flag, std::string_view text);
// A whole number within bounds. Errors: invalid with the bounds.
Result<std::int64_t> parse_count(std::string_view flag, std::string_view text, std::int64_t least,
                                 std::int64_t most);

// The candidate nearest to a word (edit distance at most a third of its length, at least 1), if any.
std::optional<std::string> nearest(std::string_view word, std::span<const std::string> candidates);

}  // namespace metier::cli
