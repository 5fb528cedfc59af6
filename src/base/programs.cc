#include "base/programs.h"

#include <unistd.h>

#include <algorithm>
#include <filesystem>

namespace metier {

std::string find_program(std::string_view path, std::string_view name) {
  const auto runs = [](const std::string& file) { return ::access(file.c_str(), X_OK) == 0; };
  if (name.find('/') != std::string_view::npos) {
    return runs(std::string(name)) ? std::string(name) : std::string();
  }
  while (!path.empty()) {
    const auto end = std::min(path.find(':'), path.size());
    auto candidate = std::string(path.substr(0, end)) + "/" + std::string(name);
    if (end > 0 && runs(candidate)) { return candidate; }
    path.remove_prefix(std::min(end + 1, path.size()));
  }
  return {};
}

std::string find_interpreter(std::string_view path, std::string_view name) {
  namespace fs = std::filesystem;
  const std::string found = find_program(path, name);
  const fs::path folder = fs::path(found).parent_path();
  if (folder.filename() != "shims") { return found; }
  // A version manager's own program of that name: it ends with an error unless that version is chosen.
  std::string newest;
  std::error_code error;
  for (fs::directory_iterator one(folder.parent_path() / "versions", error), end;
       !error && one != end; one.increment(error)) {
    const std::string candidate = (one->path() / "bin" / name).string();
    if (::access(candidate.c_str(), X_OK) == 0 && candidate > newest) { newest = candidate; }
  }
  if (!newest.empty()) { return newest; }
  const std::size_t rest = path.find(folder.string()) + folder.string().size();
  return find_interpreter(path.substr(std::min(rest + 1, path.size())), name);
}

std::string find_uv(std::string_view given, std::string_view path) {
  if (!given.empty()) { return std::string(given); }
  if (auto found = find_program(path, "uv"); !found.empty()) { return found; }
  std::error_code error;
  const auto folder = std::filesystem::read_symlink("/proc/self/exe", error).parent_path().string();
  return error ? std::string() : find_program(folder + ":" + folder + "/../tools/bin", "uv");
}

}  // namespace metier
