// The folder of the function's file, copied once per content to <data>/snapshots/<sha256>, so that `import helpers`
// works in a pod and a later edit does not change a queued run. `.gitignore` files are respected; .git,
// __pycache__ and virtual environments are left out.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace metier {

// One .gitignore's rules, relative to its folder.
class IgnoreRules final {
 public:
  explicit IgnoreRules(std::string_view text);
  // nullopt: no rule speaks of it; else whether it is ignored (the last rule that matches wins).
  enum class Says { nothing, ignored, kept };
  Says says(std::string_view relative_path, bool folder) const;

 private:
  struct Rule {
    std::string pattern;
    bool keep = false;  // "!pattern"
    bool only_folders = false;
    bool anchored = false;  // has a slash before its end
  };
  std::vector<Rule> rules_;
};
// gitignore's globs: * and ? stop at '/', ** does not, [a-z] classes.
bool glob_matches(std::string_view pattern, std::string_view text);

class Snapshots final {
 public:
  Snapshots(std::string folder, std::int64_t limit) : folder_(std::move(folder)), limit_(limit) {}

  // Thread-safe: it reads and copies files, so callers run it beside the loop. The snapshot's folder. `reader` ≥ 0: only files that this uid owns or everyone may read. Errors: not_found,
  // invalid (not absolute), too_large past the limit, naming the largest folder inside and the way out.
  Result<std::string> take(const std::string& source, std::int64_t reader);

 private:
  std::string folder_;
  std::int64_t limit_;
  std::mutex mutex_;
  std::map<std::string, std::pair<std::string, std::string>>
      known_;  // source → (signature, snapshot)
};

}  // namespace metier
