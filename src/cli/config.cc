// `metier config`: what the settings are, where each comes from, and changing the user's or the folder's file.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>

#include "base/files.h"
#include "base/programs.h"
#include "cli/secrets.h"
#include "cli/verbs.h"

namespace metier::cli {
namespace {

namespace fs = std::filesystem;

struct Shown {
  std::string_view name;
  std::string value;  // a token by its last characters
  std::string origin;
};

// The last four of a token: enough to tell two apart, too few to use.
std::string masked(const std::string& token) {
  return token.empty()
             ? ""
             : "…" + token.substr(token.size() - std::min<std::size_t>(4, token.size() / 4));
}

Result<std::string> default_of(std::string_view name, const Environment& environment) {
  if (name == "project") { return std::string("default"); }
  if (name == "python") { return active_python(environment); }
  if (name == "token") { return std::string(); }
  METIER_TRY(places, find_places(environment, ::geteuid() == 0));
  if (name == "data") { return places.data; }
  METIER_TRY(endpoint, find_endpoint(environment, places));
  return endpoint.url.substr(0, endpoint.url.size() - 1);
}

Result<Shown> shown(Command& command, const Setting& setting) {
  const auto& environment = command.environment();
  const auto variable_name = std::string(setting.variable);
  Shown out{.name = setting.name, .value = variable(environment, variable_name)};
  if (setting.name == "project" && command.arguments.has("--project")) {
    return Shown{.name = setting.name, .value = command.project, .origin = "-P"};
  }
  if (!out.value.empty()) {
    const auto file = command.session.settings().origin(setting.variable);
    out.origin = file.empty() ? variable_name : file;
  } else {
    METIER_TRY(fallback, default_of(setting.name, environment));
    out.value = std::move(fallback);
    out.origin = out.value.empty() ? "not set" : "default";
  }
  if (setting.name == "token") { out.value = masked(out.value); }
  return out;
}

Result<int> view(Command& command) {
  JsonArray rows;
  Table table{.columns = {{"SETTING"}, {"VALUE"}, {"FROM", 1}}};
  for (const auto& setting : all_settings()) {
    METIER_TRY(row, shown(command, setting));
    rows.push_back(JsonObject{{"name", row.name},
                              {"value", row.value},
                              {"from", row.origin},
                              {"variable", setting.variable}});
    table.rows.push_back({{.text = std::string(row.name), .role = Role::name},
                          {.text = row.value.empty() ? "-" : row.value},
                          {.text = row.origin, .role = Role::aside}});
  }
  JsonArray files;
  for (const auto& file : command.session.settings().files()) {
    JsonObject entry{{"path", file.path},
                     {"of", file.owner == FileOf::user ? "user" : "project"},
                     {"read", file.present && file.ignored.empty()}};
    if (!file.ignored.empty()) {
      entry["ignored"] = file.ignored;
      command.screen.say(fmt::format("{}{} is not read: {}", command.screen.paint(Role::care, "! "),
                                     printable(file.path), file.ignored));
    }
    files.push_back(std::move(entry));
  }
  const JsonObject document{{"settings", std::move(rows)}, {"files", std::move(files)}};
  if (command.output == "json") {
    command.screen.json(document);
  } else if (command.output == "yaml") {
    command.screen.yaml(document);
  } else {
    command.screen.table(table, !command.arguments.has("--no-headers"));
  }
  return 0;
}

Result<int> get_one(Command& command, const Setting& setting) {
  METIER_TRY(row, shown(command, setting));
  if (command.output == "json") {
    command.screen.json(JsonObject{{"name", row.name}, {"value", row.value}, {"from", row.origin}});
    return 0;
  }
  const auto origin = command.arguments.has("--show-origin") ? row.origin + "\t" : std::string();
  command.screen.out(origin + row.value + "\n");
  return 0;
}

// Written beside and renamed, so that it is never half there; a link keeps pointing to it.
Result<void> replace_file(const std::string& path, std::string_view text, mode_t mode) {
  std::error_code ec;
  const auto target = fs::exists(path, ec) ? fs::canonical(path, ec).string() : path;
  const auto beside = fmt::format("{}.{}", target, ::getpid());
  ::unlink(beside.c_str());
  auto written = write_file(beside, text, mode);
  if (written && ::chmod(beside.c_str(), mode) != 0) { written = fail(errno_error(beside, errno)); }
  if (written && ::rename(beside.c_str(), target.c_str()) != 0) {
    written = fail(errno_error(target, errno));
  }
  if (!written) { ::unlink(beside.c_str()); }
  return written;
}

Result<void> change(const SettingsFile& file, const Setting& setting,
                    const std::optional<std::string>& value) {
  const auto folder = fs::path(file.path).parent_path();
  if (file.owner == FileOf::user) { METIER_CHECK(make_folders(folder, 0700)); }
  // Two commands at once: the second one reads what the first one wrote.
  const Fd lock(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!lock || ::flock(lock.get(), LOCK_EX) != 0) {
    return fail(errno_error(folder.string(), errno));
  }
  std::string text;
  mode_t mode = file.owner == FileOf::user ? 0600 : 0644;
  struct stat about{};
  if (::stat(file.path.c_str(), &about) == 0) {
    METIER_TRY(known, read_file(file.path, 64U << 10U));
    text = std::move(known);
    mode = setting.name == "token" && value ? 0600 : about.st_mode & 0777U;
  }
  METIER_TRY(values, parse_settings(file.path, text, file.owner));
  if (!value && !values.contains(std::string(setting.name))) {
    return fail(Error{.kind = ErrorKind::not_found,
                      .message = fmt::format("{} is not set in {}", setting.name, file.path),
                      .fix = "where it comes from: metier config"});
  }
  return replace_file(file.path, edit_settings(text, setting.name, value), mode);
}

// `--local`: the file of this folder, made when there is none; not one of a folder above.
Result<SettingsFile> file_to_change(Command& command, const Setting& setting) {
  if (command.arguments.has("--local")) {
    if (!setting.in_project) {
      return fail(invalid("--local",
                          fmt::format("{} is not a setting of a folder: whoever sends you one "
                                      "could choose it",
                                      setting.name),
                          "without --local it is yours; of a folder: project"));
    }
    std::error_code ec;
    return SettingsFile{.owner = FileOf::project,
                        .path = (fs::current_path(ec) / "metier.toml").string()};
  }
  const auto path = Settings::user_file(command.environment(), ::geteuid() == 0);
  if (path.empty()) {
    return fail(invalid("config", "HOME is not set, there is no file of yours",
                        "export METIER_CONFIG=FILE"));
  }
  return SettingsFile{.owner = FileOf::user, .path = path};
}

Result<std::string> value_to_set(Command& command, const Setting& setting) {
  const auto& words = command.arguments.words();
  if (setting.name == "token") {
    if (words.size() > 2) {
      return fail(invalid("token",
                          "a value on the command line is seen by everyone on this machine",
                          "leave it out: it is asked for, or give --from-file FILE"));
    }
    return secret_value(command, "token");
  }
  if (words.size() < 3) {
    return fail(
        invalid(setting.name, "no value is given",
                fmt::format("metier config set {} VALUE; {}", setting.name, setting.accepted)));
  }
  auto value = words[2];
  if (setting.name == "data" && !value.empty() && !value.starts_with('/')) {
    std::error_code ec;
    return fail(
        invalid("data", quote(value) + " is not an absolute path",
                "metier config set data " + fs::absolute(value, ec).lexically_normal().string()));
  }
  if (setting.name == "python") {  // the server's PATH may be another one
    auto found = value.empty() ? std::string()
                               : find_program(variable(command.environment(), "PATH"), value);
    if (found.empty()) {
      return fail(invalid("python", quote(value) + " is not a program here",
                          "an absolute path, or a name on the PATH"));
    }
    std::error_code ec;
    return fs::absolute(found, ec).lexically_normal().string();
  }
  return value;
}

Result<int> set_or_unset(Command& command, const Setting& setting, bool set) {
  std::optional<std::string> value;
  if (set) {
    METIER_TRY(given, value_to_set(command, setting));
    METIER_CHECK(check_setting(setting, given));
    value = std::move(given);
  }
  METIER_TRY(file, file_to_change(command, setting));
  METIER_CHECK(change(file, setting, value));
  auto& screen = command.screen;
  if (screen.style().quiet) { return 0; }
  screen.say(fmt::format("{} {} is {} in {}", screen.glyph(Role::good), setting.name,
                         set ? "set" : "removed", printable(file.path)));
  // A file that comes first hides what was just said.
  METIER_TRY(now, Settings::load(Environment(command.session.given_environment()), ::geteuid() == 0,
                                 fs::current_path()));
  const auto counts = now.origin(setting.variable);
  const bool by_variable =
      !variable(command.session.given_environment(), std::string(setting.variable)).empty();
  if (set && (by_variable || !counts.starts_with(file.path + ":"))) {
    screen.say(fmt::format("{}{} still comes from {}", screen.paint(Role::care, "! "), setting.name,
                           by_variable ? std::string(setting.variable) : counts));
  }
  return 0;
}

}  // namespace

Result<int> config_main(Command& command) {
  const auto& words = command.arguments.words();
  const std::string what = words.empty() ? "view" : words[0];
  if (what == "view" || what == "list") {
    if (words.size() > 1) {
      return fail(invalid("config", what + " takes no word behind it", "metier config get NAME"));
    }
    return view(command);
  }
  if (what != "get" && what != "set" && what != "unset") {
    return fail(invalid("config", quote(what) + " is unknown", "view, get, set or unset"));
  }
  if (words.size() < 2) {
    std::string names;
    for (const auto& setting : all_settings()) {
      names += (names.empty() ? "" : ", ") + std::string(setting.name);
    }
    return fail(invalid("config", what + " has no name behind it", "settings: " + names));
  }
  METIER_TRY(setting, find_setting(words[1]));
  if (what != "set" && words.size() > 2) {
    return fail(invalid("config", quote(words[2]) + " is one word too many",
                        fmt::format("metier config {} {}", what, setting->name)));
  }
  if (what == "get") { return get_one(command, *setting); }
  return set_or_unset(command, *setting, what == "set");
}

}  // namespace metier::cli
