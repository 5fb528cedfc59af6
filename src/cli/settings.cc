#include "cli/settings.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>

#include "base/files.h"
#include "base/json.h"
#include "base/text.h"
#include "net/url.h"

namespace metier::cli {
namespace {

namespace fs = std::filesystem;
constexpr std::size_t kFileBytes = 64U << 10U;
constexpr std::string_view kFileName = "metier.toml";

constexpr std::array kSettings{
    Setting{"server", "METIER_SERVER",
            "http://HOST:PORT, https://HOST:PORT or the path of a unix socket"},
    Setting{"token", "METIER_TOKEN",
            "a server's token: metier env prints it on the server's machine"},
    Setting{"data", "METIER_DATA", "an absolute path: the folder of records"},
    Setting{"project", "METIER_PROJECT",
            "small letters, digits and '-', at most 63, '-' not at the ends", true},
    Setting{"python", "METIER_PYTHON",
            "an absolute path: the interpreter of the default environment"},
};

std::string variable_of(const Environment& environment, std::string_view name) {
  const auto it = environment.find(std::string(name));
  return it == environment.end() ? std::string() : it->second;
}

Error at_line(const std::string& file, std::size_t line, std::string message, std::string fix) {
  return invalid(fmt::format("{}:{}", file, line), std::move(message), std::move(fix));
}

// The string at the front of `text`, and what stands behind it; nullopt when there is none.
struct Quoted {
  std::string value;
  std::string_view rest;
};
std::optional<Quoted> quoted_string(std::string_view text) {
  if (text.starts_with('\'')) {
    const auto end = text.find('\'', 1);
    if (end == std::string_view::npos) { return std::nullopt; }
    return Quoted{std::string(text.substr(1, end - 1)), text.substr(end + 1)};
  }
  if (!text.starts_with('"')) { return std::nullopt; }
  std::size_t end = 1;
  while (end < text.size() && text[end] != '"') { end += text[end] == '\\' ? 2 : 1; }
  if (end >= text.size()) { return std::nullopt; }
  auto value = parse_json(text.substr(0, end + 1));  // TOML's basic strings are JSON's
  if (!value || !value->is_string()) { return std::nullopt; }
  return Quoted{std::string(value->as_string()), text.substr(end + 1)};
}

std::string_view key_of_line(std::string_view line) {
  const auto equals = line.find('=');
  return equals == std::string_view::npos ? std::string_view() : trim(line.substr(0, equals));
}

// One line; nullopt for a blank one or a comment.
struct Assignment {
  const Setting* setting = nullptr;
  std::string value;
};
Result<std::optional<Assignment>> read_line(const std::string& file, std::size_t number,
                                            std::string_view line, FileOf owner) {
  line = trim(line);
  if (line.empty() || line.starts_with('#')) { return std::optional<Assignment>(); }
  const auto name = key_of_line(line);
  if (name.empty()) {
    return fail(at_line(file, number, quote(line) + " is not a setting", "write NAME = \"VALUE\""));
  }
  auto setting = find_setting(name);
  if (!setting) {
    auto error = std::move(setting).error();
    error.field = fmt::format("{}:{}", file, number);
    return fail(std::move(error));
  }
  const auto value = quoted_string(trim(line.substr(line.find('=') + 1)));
  const auto behind = value ? trim(value->rest) : std::string_view();
  if (!value || (!behind.empty() && !behind.starts_with('#'))) {
    return fail(at_line(file, number, fmt::format("the value of {} is not one quoted text", name),
                        fmt::format("write {} = \"VALUE\"", name)));
  }
  if (owner == FileOf::project && !(*setting)->in_project) {
    return fail(
        at_line(file, number,
                fmt::format("{} is not a setting of a folder: whoever sends you one could "
                            "choose it",
                            name),
                fmt::format("take the line out; for yourself: metier config set {}", name)));
  }
  if (auto fits = check_setting(**setting, value->value); !fits) {
    auto error = std::move(fits).error();
    error.message = error.field + ": " + error.message;
    error.field = fmt::format("{}:{}", file, number);
    return fail(std::move(error));
  }
  return std::optional(Assignment{*setting, value->value});
}

// The nearest metier.toml at or above a folder, that is not the user's own.
SettingsFile project_file(const fs::path& folder, const std::string& user) {
  SettingsFile out{.owner = FileOf::project, .path = (folder / kFileName).string()};
  std::error_code ec;
  for (fs::path at = folder; !at.empty(); at = at.parent_path()) {
    const auto file = at / kFileName;
    struct stat about{};
    if (::stat(file.c_str(), &about) == 0 && S_ISREG(about.st_mode) &&
        !fs::equivalent(file, user, ec)) {
      out.path = file.string();
      out.present = true;
      if (about.st_uid != ::geteuid() && about.st_uid != 0) {
        out.ignored = "it belongs to another user";
      }
      break;
    }
    if (at == at.root_path()) { break; }
  }
  return out;
}

Result<void> check_hidden(const std::string& file, const FileValue& token) {
  struct stat about{};
  if (::stat(file.c_str(), &about) == 0 && (about.st_mode & 077U) != 0) {
    return fail(
        at_line(file, token.line, "a token that other users can read", "chmod 600 " + file));
  }
  return {};
}

}  // namespace

std::span<const Setting> all_settings() { return kSettings; }

Result<const Setting*> find_setting(std::string_view name) {
  std::vector<std::string> names;
  for (const auto& setting : kSettings) {
    if (setting.name == name) { return &setting; }
    names.emplace_back(setting.name);
  }
  const auto close = nearest(name, names);
  return fail(invalid("config",
                      quote(name) + " is not a setting" +
                          (close.empty() ? "" : fmt::format(", did you mean {}?", close)),
                      "settings: " + join(names)));
}

Result<void> check_setting(const Setting& setting, const std::string& value) {
  const auto refuse = [&](std::string_view why) {
    // A token is not shown, not even a wrong one.
    const auto shown = setting.name == "token" ? std::string("the value") : quote(value);
    return fail(
        invalid(setting.name, fmt::format("{} {}", shown, why), std::string(setting.accepted)));
  };
  if (value.empty()) { return refuse("is empty"); }
  if (!std::ranges::all_of(value, [](unsigned char c) { return c >= 0x20 && c != 0x7f; })) {
    return refuse("holds a control character");
  }
  if (setting.name == "server") {
    const auto url = net::parse_url(value.starts_with('/') ? "unix://" + value : value);
    if (!url) { return refuse("is not an address"); }
  } else if (setting.name == "token") {
    if (!std::ranges::all_of(value, [](unsigned char c) { return c > 0x20 && c < 0x7f; })) {
      return refuse("holds a character that no token has");
    }
  } else if (setting.name == "data") {
    if (!value.starts_with('/')) { return refuse("is not an absolute path"); }
  } else if (setting.name == "project") {
    const auto inner = [](char c) {
      return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-';
    };
    if (value.size() > 63 || !std::ranges::all_of(value, inner) || value.front() == '-' ||
        value.back() == '-') {
      return refuse("is not the name of a project");
    }
  } else if (setting.name == "python") {
    if (!value.starts_with('/')) { return refuse("is not an absolute path"); }
  }
  return {};
}

Result<std::map<std::string, FileValue>> parse_settings(const std::string& file,
                                                        std::string_view text, FileOf owner) {
  std::map<std::string, FileValue> out;
  std::size_t number = 0;
  for (const auto& line : split_text(text, '\n')) {
    ++number;
    METIER_TRY(found, read_line(file, number, line, owner));
    if (!found) { continue; }
    const auto [it, added] =
        out.emplace(found->setting->name, FileValue{std::move(found->value), number});
    if (!added) {
      return fail(at_line(
          file, number,
          fmt::format("{} is set a second time, first in line {}", it->first, it->second.line),
          "take one of them out"));
    }
  }
  return out;
}

std::string edit_settings(std::string_view text, std::string_view name,
                          const std::optional<std::string>& value) {
  const auto line_of = [&] {
    return fmt::format("{} = {}", name, dump_json(Json(boost::json::string(*value))));
  };
  std::string out;
  bool done = false;
  while (!text.empty()) {
    const auto end = std::min(text.find('\n'), text.size());
    const auto line = text.substr(0, end);
    const auto at = trim(line);
    if (!at.starts_with('#') && key_of_line(at) == name) {
      if (value) { out += line_of() + "\n"; }
      done = true;
    } else {
      out += std::string(line) + "\n";
    }
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  if (value && !done) { out += line_of() + "\n"; }
  return out;
}

std::string Settings::user_file(const Environment& environment, bool root) {
  if (const auto named = variable_of(environment, "METIER_CONFIG"); !named.empty()) {
    std::error_code ec;
    return fs::absolute(named, ec).lexically_normal().string();
  }
  if (root) { return "/etc/metier/" + std::string(kFileName); }
  const auto base = variable_of(environment, "XDG_CONFIG_HOME");
  if (base.starts_with('/')) { return base + "/metier/" + std::string(kFileName); }
  const auto home = variable_of(environment, "HOME");
  return home.empty() ? std::string() : home + "/.config/metier/" + std::string(kFileName);
}

Result<Settings> Settings::load(const Environment& environment, bool root, const fs::path& folder) {
  Settings out;
  const auto user = user_file(environment, root);
  out.files_.push_back(project_file(folder, user));
  if (!user.empty()) {
    std::error_code ec;
    out.files_.push_back({.owner = FileOf::user,
                          .path = user,
                          .present = user != "/dev/null" && fs::exists(user, ec)});
  }
  for (const auto& file : out.files_) {
    if (!file.present || !file.ignored.empty()) { continue; }
    METIER_TRY(text, read_file(file.path, kFileBytes));
    METIER_TRY(values, parse_settings(file.path, text, file.owner));
    if (const auto token = values.find("token"); token != values.end()) {
      METIER_CHECK(check_hidden(file.path, token->second));
    }
    for (const auto& setting : kSettings) {
      const auto it = values.find(std::string(setting.name));
      if (it == values.end() || !variable_of(environment, setting.variable).empty()) { continue; }
      out.known_.try_emplace(std::string(setting.variable), it->second.value,
                             fmt::format("{}:{}", file.path, it->second.line));
    }
  }
  return out;
}

void Settings::fill(Environment& environment) const {
  for (const auto& [name, known] : known_) { environment[name] = known.value; }
}

std::string Settings::origin(std::string_view variable) const {
  const auto it = known_.find(variable);
  return it == known_.end() ? std::string() : it->second.origin;
}

}  // namespace metier::cli
