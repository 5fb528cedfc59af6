#include "engine/snapshot.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <map>

#include "base/digest.h"
#include "base/files.h"
#include "base/quantity.h"

namespace metier {
namespace {
namespace fs = std::filesystem;
constexpr std::size_t kMostFiles = 20'000;
constexpr int kDeepest = 32;

struct File {
  std::string path;  // relative
  std::int64_t size = 0;
  std::int64_t mtime = 0;
  std::uint64_t inode = 0;
  bool executable = false;
};

bool class_matches(std::string_view pattern, std::size_t& at, char c) {
  // `at` is behind '['. Leaves it behind ']'; a class without an end matches nothing.
  bool negated = false;
  bool hit = false;
  if (at < pattern.size() && (pattern[at] == '!' || pattern[at] == '^')) {
    negated = true;
    ++at;
  }
  for (bool first = true; at < pattern.size() && (first || pattern[at] != ']'); first = false) {
    const char low = pattern[at++];
    char high = low;
    if (at + 1 < pattern.size() && pattern[at] == '-' && pattern[at + 1] != ']') {
      high = pattern[at + 1];
      at += 2;
    }
    hit = hit || (low <= c && c <= high);
  }
  if (at >= pattern.size()) { return false; }
  ++at;
  return hit != negated && c != '/';
}

}  // namespace

bool glob_matches(std::string_view pattern, std::string_view text) {
  std::size_t p = 0;
  std::size_t t = 0;
  while (p < pattern.size()) {
    if (pattern[p] == '*') {
      const bool across = p + 1 < pattern.size() && pattern[p + 1] == '*';
      std::size_t rest = p + (across ? 2 : 1);
      if (across && rest < pattern.size() && pattern[rest] == '/' &&
          glob_matches(pattern.substr(rest + 1), text.substr(t))) {
        return true;
      }
      for (std::size_t n = t;; ++n) {
        if (glob_matches(pattern.substr(rest), text.substr(n))) { return true; }
        if (n >= text.size() || (!across && text[n] == '/')) { return false; }
      }
    }
    if (t >= text.size()) { return false; }
    if (pattern[p] == '?') {
      if (text[t] == '/') { return false; }
      ++p;
    } else if (pattern[p] == '[') {
      std::size_t at = p + 1;
      if (!class_matches(pattern, at, text[t])) { return false; }
      p = at;
    } else {
      if (pattern[p] == '\\' && p + 1 < pattern.size()) { ++p; }
      if (pattern[p] != text[t]) { return false; }
      ++p;
    }
    ++t;
  }
  return t == text.size();
}

IgnoreRules::IgnoreRules(std::string_view text) {
  std::size_t at = 0;
  while (at < text.size() && rules_.size() < 1000) {
    const std::size_t end = std::min(text.find('\n', at), text.size());
    std::string_view line = text.substr(at, end - at);
    at = end + 1;
    while (!line.empty() && (line.back() == '\r' || line.back() == ' ')) { line.remove_suffix(1); }
    if (line.empty() || line.front() == '#' || line.size() > 500) { continue; }
    Rule rule;
    if (line.front() == '!') {
      rule.keep = true;
      line.remove_prefix(1);
    }
    if (!line.empty() && line.back() == '/') {
      rule.only_folders = true;
      line.remove_suffix(1);
    }
    rule.anchored = line.find('/') != std::string_view::npos;
    if (!line.empty() && line.front() == '/') { line.remove_prefix(1); }
    // Many stars in one pattern would make matching slow: no real file has them.
    if (line.empty() || std::ranges::count(line, '*') > 8) { continue; }
    rule.pattern = line;
    rules_.push_back(std::move(rule));
  }
}

IgnoreRules::Says IgnoreRules::says(std::string_view relative_path, bool folder) const {
  const std::size_t slash = relative_path.rfind('/');
  const std::string_view name =
      slash == std::string_view::npos ? relative_path : relative_path.substr(slash + 1);
  Says says = Says::nothing;
  for (const Rule& rule : rules_) {
    if (rule.only_folders && !folder) { continue; }
    if (glob_matches(rule.pattern, rule.anchored ? relative_path : name)) {
      says = rule.keep ? Says::kept : Says::ignored;
    }
  }
  return says;
}

namespace {

struct Walk {
  std::string root;
  std::int64_t limit = 0;
  std::int64_t reader = -1;
  // The server's own folder: secrets, databases, and the snapshots themselves.
  std::pair<dev_t, ino_t> data{};
  std::vector<File> files;
  std::int64_t bytes = 0;
  std::map<std::string, std::int64_t> by_top;
  std::vector<std::pair<std::string, IgnoreRules>> rules;  // folder (relative, with '/'), its rules

  bool ignored(const std::string& path, bool folder) const {
    bool out = false;
    for (const auto& [base, rule] : rules) {
      if (!path.starts_with(base)) { continue; }
      const auto says = rule.says(std::string_view(path).substr(base.size()), folder);
      if (says != IgnoreRules::Says::nothing) { out = says == IgnoreRules::Says::ignored; }
    }
    return out;
  }

  Error too_large() const {
    const auto top =
        std::ranges::max_element(by_top, {}, [](const auto& entry) { return entry.second; });
    Error error{.kind = ErrorKind::too_large,
                .message = "the folder " + root + " is larger than " + human_bytes(limit)};
    if (top != by_top.end()) {
      error.message += ": " + top->first + " alone has " + human_bytes(top->second);
    }
    error.field = "--context";
    error.fix = "name what is not code in .gitignore, or run with --no-context";
    error.code = "ContextTooLarge";
    return error;
  }

  Result<void> folder(const std::string& relative, int depth) {
    const std::string here = relative.empty() ? root : root + "/" + relative;
    if (auto text = read_file(here + "/.gitignore", 1U << 20U)) {
      rules.emplace_back(relative.empty() ? "" : relative + "/", IgnoreRules(*text));
    }
    std::error_code error;
    std::vector<std::string> names;
    for (fs::directory_iterator entry(here, error), end; !error && entry != end;
         entry.increment(error)) {
      names.push_back(entry->path().filename().string());
      if (names.size() > kMostFiles) { return fail(too_large()); }
    }
    std::ranges::sort(names);
    for (const std::string& name : names) {
      if (name == ".git" || name == "__pycache__" || name == ".gitignore") { continue; }
      const std::string path = relative.empty() ? name : relative + "/" + name;
      struct stat facts{};
      if (::lstat((root + "/" + path).c_str(), &facts) != 0) { continue; }
      const bool is_folder = S_ISDIR(facts.st_mode);
      if ((!is_folder && !S_ISREG(facts.st_mode)) || ignored(path, is_folder)) { continue; }
      if (reader >= 0 && facts.st_uid != static_cast<uid_t>(reader) &&
          (facts.st_mode & (is_folder ? 0005U : 0004U)) == 0) {
        continue;
      }
      if (is_folder) {
        if (data == std::pair(facts.st_dev, facts.st_ino)) { continue; }
        if (depth >= kDeepest || fs::exists(root + "/" + path + "/pyvenv.cfg", error)) { continue; }
        METIER_CHECK(folder(path, depth + 1));
        continue;
      }
      files.push_back({path, facts.st_size,
                       facts.st_mtim.tv_sec * 1'000'000'000LL + facts.st_mtim.tv_nsec, facts.st_ino,
                       (facts.st_mode & 0111U) != 0});
      bytes += facts.st_size;
      by_top[path.substr(0, path.find('/'))] += facts.st_size;
      if (bytes > limit || files.size() > kMostFiles) { return fail(too_large()); }
    }
    return {};
  }
};

// Is it there? It is in use from now on.
bool touch(const std::string& folder) {
  return ::utimensat(AT_FDCWD, folder.c_str(), nullptr, 0) == 0;
}

}  // namespace

Result<std::string> Snapshots::take(const std::string& source, std::int64_t reader) {
  const std::scoped_lock lock(mutex_);
  if (!source.starts_with('/')) {
    return fail(invalid("--context", quote(source) + " is not an absolute path",
                        "give the folder's full path"));
  }
  std::error_code error;
  if (!fs::is_directory(source, error)) {
    return fail(Error{.kind = ErrorKind::not_found,
                      .message = "no folder " + quote(source),
                      .field = "--context",
                      .fix = "name an existing folder, or run with --no-context"});
  }
  Walk walk;
  walk.root = source;
  walk.limit = limit_;
  walk.reader = reader;
  struct stat facts{};
  if (::stat(data_.c_str(), &facts) == 0) { walk.data = {facts.st_dev, facts.st_ino}; }
  if (::stat(source.c_str(), &facts) == 0 && walk.data == std::pair(facts.st_dev, facts.st_ino)) {
    return fail(invalid("--context", quote(source) + " is the server's data folder",
                        "keep code in a folder of its own, or run with --no-context"));
  }
  METIER_CHECK(walk.folder("", 0));

  std::string signature = std::to_string(reader) + "\n";
  for (const File& file : walk.files) {
    signature += file.path + '\0' + std::to_string(file.size) + ' ' + std::to_string(file.mtime) +
                 ' ' + std::to_string(file.inode) + '\n';
  }
  const auto known = known_.find(source);
  if (known != known_.end() && known->second.first == signature && touch(known->second.second)) {
    return known->second.second;
  }

  std::string manifest;
  std::vector<std::pair<const File*, std::string>> contents;
  for (const File& file : walk.files) {
    auto text = read_file(source + "/" + file.path, static_cast<std::size_t>(limit_));
    if (!text && text.error().kind == ErrorKind::not_found) { continue; }  // it went meanwhile
    if (!text) { return fail(std::move(text.error()).in("snapshot")); }
    manifest += file.path + '\0' + (file.executable ? "x" : "-") + sha256_hex(*text) + '\n';
    contents.emplace_back(&file, std::move(*text));
  }
  const std::string target = data_ + "/snapshots/" + sha256_hex(manifest);
  if (!touch(target)) {
    const std::string temporary = target + ".tmp." + std::to_string(::getpid());
    fs::remove_all(temporary, error);
    METIER_CHECK(make_folders(temporary, 0755));
    for (const auto& [file, text] : contents) {
      const fs::path path = fs::path(temporary) / file->path;
      fs::create_directories(path.parent_path(), error);
      METIER_CHECK(write_file(path, text, file->executable ? 0755 : 0644));
    }
    if (::rename(temporary.c_str(), target.c_str()) != 0) {
      const int why = errno;
      fs::remove_all(temporary, error);
      if (!fs::exists(target, error)) { return fail(errno_error(target, why)); }
    }
  }
  if (known_.size() > 256) { known_.clear(); }
  known_[source] = {signature, target};
  return target;
}

std::size_t Snapshots::forget(const std::set<std::string>& used, std::chrono::seconds age) {
  const std::scoped_lock lock(mutex_);
  std::vector<fs::path> old;
  std::error_code error;
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  for (fs::directory_iterator entry(data_ + "/snapshots", error), end; !error && entry != end;
       entry.increment(error)) {
    struct stat facts{};
    if (::lstat(entry->path().c_str(), &facts) != 0 || !S_ISDIR(facts.st_mode) ||
        std::chrono::seconds(facts.st_mtim.tv_sec) + age > now ||
        used.contains(entry->path().filename().string())) {
      continue;
    }
    old.push_back(entry->path());
  }
  for (const fs::path& path : old) {
    // In one step: half a snapshot would be taken for a whole one.
    const fs::path gone = path.string() + ".gone";
    if (::rename(path.c_str(), gone.c_str()) == 0) { fs::remove_all(gone, error); }
  }
  return old.size();
}

void find_snapshots(std::string_view document, std::set<std::string>& names) {
  static constexpr std::string_view kBefore = "/snapshots/";
  constexpr std::size_t kName = 64;  // hexadecimal digits of a sha256
  for (std::size_t at = document.find(kBefore); at != std::string_view::npos;
       at = document.find(kBefore, at + 1)) {
    const auto name = document.substr(at + kBefore.size(), kName);
    if (name.size() == kName) { names.emplace(name); }
  }
}

Condition without_context(const Error& why) {
  const std::string code = why.code.empty() ? "FieldIgnored" : why.code;
  return {.type = code,
          .status = true,
          .reason = code,
          .message = why.message + ", so it was not put on the path; " + why.fix,
          .since = {}};
}

}  // namespace metier
