// The folder of the function's file, copied once per content to <data>/snapshots/<sha256>, so that `import helpers`
// works in a pod and a later edit does not change a queued run. `.gitignore` files are respected; .git,
// __pycache__, virtual environments and the server's own data folder are left out.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "resource/pod.h"

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
  // `data`: the server's data folder. `limit` is in bytes.
  Snapshots(std::string data, std::int64_t limit) : data_(std::move(data)), limit_(limit) {}

  // The snapshot's folder. Thread-safe: it reads and copies files, so callers run it beside the loop. `reader` ≥ 0: only files
  // that this uid owns or everyone may read. Errors: not_found, invalid (not absolute, the data folder itself), too_large past
  // the limit, naming the largest folder inside and the way out.
  Result<std::string> take(const std::string& source, std::int64_t reader);
  // Removes snapshots that nobody took for `age` and whose names (sha256) are not in `used`, and what a dead server began.
  // Thread-safe; how many went.
  std::size_t forget(const std::set<std::string>& used, std::chrono::seconds age);

 private:
  std::string data_;
  std::int64_t limit_;
  std::mutex mutex_;
  std::map<std::string, std::pair<std::string, std::string>>
      known_;  // source → (signature, snapshot)
};

// The names of the snapshots that a document speaks of.
void find_snapshots(std::string_view document, std::set<std::string>& names);
// What is told of a run or function that goes on without its folder.
Condition without_context(const Error& why);

}  // namespace metier
