#include "main/bundle.h"

#include <sys/stat.h>
#include <unistd.h>

#include <charconv>
#include <cstdlib>
#include <filesystem>

#include "base/digest.h"
#include "base/files.h"

extern "C" {
extern const unsigned char metier_bundle[];
extern const unsigned long metier_bundle_size;
}

namespace metier {
namespace fs = std::filesystem;

std::string_view bundle() {
  return {reinterpret_cast<const char*>(metier_bundle), metier_bundle_size};
}

Result<std::string> cache_folder() {
  if (const char* cache = std::getenv("XDG_CACHE_HOME"); cache != nullptr && *cache == '/') {
    return std::string(cache) + "/metier";
  }
  if (const char* home = std::getenv("HOME"); home != nullptr && *home == '/') {
    return std::string(home) + "/.cache/metier";
  }
  return fail(invalid("HOME", "is not set",
                      "export HOME, or name the unpacked bundle in the configuration's lib"));
}

Result<std::string> unpack_bundle(const std::string& data, std::string_view bundle) {
  const std::string lib = data + "/lib";
  const std::string id = sha256_hex(bundle).substr(0, 16);
  const std::string target = lib + "/" + id;
  std::error_code error;
  if (!fs::exists(target, error)) {
    // Pods of other users read it: the data folder itself is what keeps others out.
    const std::string temporary = target + ".tmp." + std::to_string(::getpid());
    METIER_CHECK(make_folders(temporary, 0755));
    std::string_view rest = bundle;
    while (!rest.empty()) {
      const std::size_t line_end = rest.find('\n');
      if (line_end == std::string_view::npos) {
        return fail(ErrorKind::internal, "the bundle is damaged");
      }
      const std::string_view line = rest.substr(0, line_end);
      unsigned mode = 0;
      std::size_t size = 0;
      const std::size_t first = line.find(' ');
      const std::size_t second = line.find(' ', first + 1);
      std::from_chars(line.data(), line.data() + first, mode, 8);
      std::from_chars(line.data() + first + 1, line.data() + second, size);
      rest.remove_prefix(line_end + 1);
      if (second == std::string_view::npos || size > rest.size()) {
        return fail(ErrorKind::internal, "the bundle is damaged");
      }
      const fs::path path = fs::path(temporary) / line.substr(second + 1);
      METIER_CHECK(make_folders(path.parent_path(), 0755));
      METIER_CHECK(write_file(path, rest.substr(0, size), mode));
      rest.remove_prefix(size);
    }
    // Whatever the umask: pods of other users execute and read these.
    ::chmod(lib.c_str(), 0755);
    ::chmod(temporary.c_str(), 0755);
    for (const auto& entry : fs::recursive_directory_iterator(temporary, error)) {
      const bool open = entry.is_directory(error) || (entry.status(error).permissions() &
                                                      fs::perms::owner_exec) != fs::perms::none;
      ::chmod(entry.path().c_str(), open ? 0755 : 0644);
    }
    if (::rename(temporary.c_str(), target.c_str()) != 0) {
      const int why = errno;
      fs::remove_all(temporary, error);
      if (!fs::exists(target, error)) { return fail(errno_error(target, why)); }
    }
  }
  const std::string link = lib + "/current.tmp." + std::to_string(::getpid());
  fs::remove(link, error);
  fs::create_symlink(id, link, error);
  if (error) { return fail(errno_error(link, error.value())); }
  if (::rename(link.c_str(), (lib + "/current").c_str()) != 0) {
    return fail(errno_error(lib + "/current", errno));
  }
  return target;
}

}  // namespace metier
