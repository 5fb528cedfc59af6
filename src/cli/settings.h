// Settings of the command line and where each comes from: a flag, a variable of the environment, metier.toml of the
// folder (or one above it), the user's metier.toml, the default; the first that says something counts.
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace metier::cli {

using Environment = std::map<std::string, std::string>;

struct Setting {
  std::string_view name;      // in a file and for `metier config`
  std::string_view variable;  // of the environment
  std::string_view accepted;  // what a value is, for help and errors
  bool in_project =
      false;  // a project's file may say it: it cannot send a token elsewhere nor run a program
};
std::span<const Setting> all_settings();
// Errors: invalid with the known names, the nearest first.
Result<const Setting*> find_setting(std::string_view name);
// Errors: invalid with what is accepted.
Result<void> check_setting(const Setting& setting, const std::string& value);

struct FileValue {
  std::string value;
  std::size_t line = 0;  // from 1
};
// A settings file is TOML of one form, NAME = "VALUE" or NAME = 'VALUE' a line, with comments.
// Errors: invalid with file, line, rule and fix, also for a name that only the user's file may say.
enum class FileOf { user, project };
Result<std::map<std::string, FileValue>> parse_settings(const std::string& file,
                                                        std::string_view text, FileOf owner);
// The text with one value set, or removed (nullopt); every other line stays as it is.
std::string edit_settings(std::string_view text, std::string_view name,
                          const std::optional<std::string>& value);

struct SettingsFile {
  FileOf owner = FileOf::user;
  std::string path;
  bool present = false;
  std::string ignored;  // why it is not read, empty = it is
};

class Settings final {
 public:
  // The file of the user: METIER_CONFIG, as root /etc/metier/metier.toml, else $XDG_CONFIG_HOME/metier/metier.toml or
  // ~/.config/metier/metier.toml; empty when there is no home.
  static std::string user_file(const Environment& environment, bool root);
  // Reads both files. Errors: invalid for a file that cannot be understood, or shows a token to others.
  static Result<Settings> load(const Environment& environment, bool root,
                               const std::filesystem::path& folder);

  // Files' values as variables, where the environment has none.
  void fill(Environment& environment) const;
  // "FILE:LINE" that the value of a variable came from, "" when no file said it.
  std::string origin(std::string_view variable) const;
  const std::vector<SettingsFile>& files() const { return files_; }

 private:
  struct Known {
    std::string value;
    std::string origin;
  };
  std::vector<SettingsFile> files_;
  std::map<std::string, Known, std::less<>> known_;  // by variable; only what counts
};

}  // namespace metier::cli
