#include "cli/screen.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>

#include "base/yaml.h"

namespace metier::cli {
namespace {

constexpr int kBrokenPipe = 141;  // what a shell shows for a program that SIGPIPE ended

std::string_view code_of(Role role) {
  switch (role) {
    case Role::good: return "32";
    case Role::bad: return "1;31";
    case Role::care: return "33";
    case Role::live: return "36";
    case Role::name: return "1";
    case Role::aside: return "2";
    case Role::plain: return "";
  }
  return "";
}

// The length of the UTF-8 sequence at the front, 0 when it is not valid; the code point in `point`.
std::size_t utf8_at(std::string_view text, char32_t& point) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char first = byte(0);
  const std::size_t size = first < 0x80                    ? 1
                           : first >= 0xC2 && first < 0xE0 ? 2
                           : first >= 0xE0 && first < 0xF0 ? 3
                           : first >= 0xF0 && first < 0xF5 ? 4
                                                           : 0;
  if (size == 0 || size > text.size()) { return 0; }
  point = size == 1 ? first : first & (0xFFU >> (size + 1));
  for (std::size_t i = 1; i < size; ++i) {
    if ((byte(i) & 0xC0) != 0x80) { return 0; }
    point = (point << 6) | (byte(i) & 0x3F);
  }
  const bool overlong = (size == 3 && point < 0x800) || (size == 4 && point < 0x10000);
  return overlong || point > 0x10FFFF || (point >= 0xD800 && point < 0xE000) ? 0 : size;
}

int columns_of(char32_t point) {
  const bool wide = (point >= 0x1100 && point <= 0x115F) || (point >= 0x2E80 && point <= 0xA4CF) ||
                    (point >= 0xAC00 && point <= 0xD7A3) || (point >= 0xF900 && point <= 0xFAFF) ||
                    (point >= 0xFE30 && point <= 0xFE6F) || (point >= 0xFF00 && point <= 0xFF60) ||
                    (point >= 0x1F300 && point <= 0x1FAFF);
  const bool none = (point >= 0x300 && point <= 0x36F) || point == 0x200B || point == 0xFE0F;
  return none ? 0 : wide ? 2 : 1;
}

std::string value_of(const std::map<std::string, std::string>& environment,
                     const std::string& name) {
  const auto it = environment.find(name);
  return it == environment.end() ? std::string() : it->second;
}

bool speaks_utf8(const std::map<std::string, std::string>& environment) {
  for (const char* name : {"LC_ALL", "LC_CTYPE", "LANG"}) {
    auto value = value_of(environment, name);
    if (value.empty()) { continue; }
    std::ranges::transform(value, value.begin(),
                           [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    return value.find("utf-8") != std::string::npos || value.find("utf8") != std::string::npos;
  }
  return false;
}

int write_all(int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    const auto n = ::write(fd, bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) { continue; }
    if (n < 0) { return errno; }
    bytes.remove_prefix(static_cast<std::size_t>(n));
  }
  return 0;
}

std::string padded(std::string_view text, int width, bool right) {
  const std::string space(static_cast<std::size_t>(std::max(width - display_width(text), 0)), ' ');
  return right ? space + std::string(text) : std::string(text) + space;
}

}  // namespace

Style detect_style(std::string_view mode, const std::map<std::string, std::string>& environment) {
  Style style;
  style.out_terminal = ::isatty(STDOUT_FILENO) != 0;
  style.err_terminal = ::isatty(STDERR_FILENO) != 0;
  const bool dumb = value_of(environment, "TERM") == "dumb";
  const bool accessible = !value_of(environment, "METIER_ACCESSIBLE").empty();
  const bool refused = !value_of(environment, "NO_COLOR").empty() || dumb;
  const auto force = value_of(environment, "CLICOLOR_FORCE");
  const bool forced = mode == "always" || (mode != "never" && !force.empty() && force != "0" &&
                                           value_of(environment, "NO_COLOR").empty());
  style.out_colour = forced || (mode != "never" && style.out_terminal && !refused);
  style.err_colour = forced || (mode != "never" && style.err_terminal && !refused);
  style.glyphs = speaks_utf8(environment) && !accessible;
  if (dumb) { style.err_terminal = false; }  // no redraws, no hints
  winsize size{};
  if (::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) {
    style.width = size.ws_col;
  }
  const auto columns = value_of(environment, "COLUMNS");
  int wanted = 0;
  if (std::from_chars(columns.data(), columns.data() + columns.size(), wanted).ec == std::errc{} &&
      wanted > 0) {
    style.width = wanted;
  }
  style.width = std::max(style.width, 20);
  return style;
}

int display_width(std::string_view text) {
  int width = 0;
  while (!text.empty()) {
    char32_t point = 0;
    const auto n = utf8_at(text, point);
    width += n == 0 ? 1 : columns_of(point);
    text.remove_prefix(std::max<std::size_t>(n, 1));
  }
  return width;
}

std::string printable(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    char32_t point = 0;
    const auto n = utf8_at(text, point);
    const bool control =
        n != 0 && (point < 0x20 || (point >= 0x7F && point < 0xA0) ||
                   (point >= 0x202A && point <= 0x202E) || (point >= 0x2066 && point <= 0x2069));
    if (n == 0 || (control && point < 0x100)) {
      out += fmt::format(
          "\\x{:02x}", n == 0 ? static_cast<unsigned char>(text[0]) : static_cast<unsigned>(point));
    } else if (control) {
      out += fmt::format("\\u{:04x}", static_cast<unsigned>(point));
    } else {
      out += text.substr(0, n);
    }
    text.remove_prefix(std::max<std::size_t>(n, 1));
  }
  return out;
}

std::string cut(std::string_view text, int width) {
  if (display_width(text) <= width) { return std::string(text); }
  std::string out;
  int used = 0;
  while (!text.empty()) {
    char32_t point = 0;
    const auto n = std::max<std::size_t>(utf8_at(text, point), 1);
    const int more = columns_of(point);
    if (used + more > width - 1) { break; }
    used += more;
    out += text.substr(0, n);
    text.remove_prefix(n);
  }
  return out + "…";
}

std::string Screen::paint(Role role, std::string_view text, bool colour) {
  const auto code = code_of(role);
  if (!colour || code.empty() || text.empty()) { return std::string(text); }
  return fmt::format("\x1b[{}m{}\x1b[0m", code, text);
}

std::string Screen::glyph(Role role) const {
  switch (role) {
    case Role::good: return style_.glyphs ? "✓" : "ok";
    case Role::bad: return style_.glyphs ? "✗" : "x";
    case Role::care: return "!";
    case Role::live: return style_.glyphs ? "▸" : ">";
    default: return dot();
  }
}

void Screen::out(std::string_view bytes) {
  if (out_error_ != 0) { return; }
  out_error_ = write_all(out_, bytes);
  if (out_error_ == EPIPE) { ::_exit(kBrokenPipe); }
}

void Screen::say(std::string_view line) {
  [[maybe_unused]] const int ignored = write_all(err_, std::string(line) + "\n");
}

void Screen::warn(std::string_view line) { say(paint(Role::care, "! ") + std::string(line)); }

void Screen::error(const Error& error) {
  std::string text = paint(Role::bad, "error:") + " " + printable(error.text());
  if (!error.fix.empty()) {
    std::string_view fix = error.fix;
    while (!fix.empty()) {
      const auto end = std::min(fix.find('\n'), fix.size());
      text += "\n       " + printable(fix.substr(0, end));
      fix.remove_prefix(std::min(end + 1, fix.size()));
    }
  }
  if (!error.code.empty()) {
    text +=
        "\n" + paint(Role::aside, fmt::format("reason {0} {1} metier help {0}", error.code, dot()));
  }
  say(text);
}

void Screen::next(const std::vector<std::string>& commands) {
  if (!style_.err_terminal || style_.quiet || commands.empty()) { return; }
  std::string line = "next: ";
  for (std::size_t i = 0; i < commands.size() && i < 3; ++i) {
    line += (i == 0 ? "" : " " + dot() + " ") + commands[i];
  }
  say(paint(Role::aside, line));
}

void Screen::table(const Table& table, bool headers) {
  std::string text;
  if (!style_.out_terminal) {  // tabs, full values, no header
    for (const auto& row : table.rows) {
      for (std::size_t i = 0; i < row.size(); ++i) {
        text += (i == 0 ? "" : "\t") + printable(row[i].full.empty() ? row[i].text : row[i].full);
      }
      text += "\n";
    }
    out(text);
    return;
  }
  std::vector<int> widths(table.columns.size());
  for (std::size_t i = 0; i < table.columns.size(); ++i) {
    widths[i] = headers ? display_width(table.columns[i].title) : 0;
    for (const auto& row : table.rows) {
      widths[i] = std::max(widths[i], display_width(printable(row[i].text)));
    }
  }
  std::vector<bool> shown(table.columns.size(), true);
  const auto total = [&] {
    int sum = 0;
    for (std::size_t i = 0; i < widths.size(); ++i) { sum += shown[i] ? widths[i] + 3 : 0; }
    return sum - 3;
  };
  while (total() > style_.width) {  // drop the least important, then cut the widest
    std::size_t worst = table.columns.size();
    for (std::size_t i = 0; i < table.columns.size(); ++i) {
      if (shown[i] && table.columns[i].priority > 0 &&
          (worst == table.columns.size() ||
           table.columns[i].priority > table.columns[worst].priority)) {
        worst = i;
      }
    }
    if (worst < table.columns.size()) {
      shown[worst] = false;
      continue;
    }
    const auto widest = static_cast<std::size_t>(std::ranges::max_element(widths) - widths.begin());
    const int least = 8;
    if (widths[widest] <= least) { break; }
    widths[widest] = std::max(widths[widest] - (total() - style_.width), least);
  }
  const auto add_row = [&](const auto& cell_of) {
    std::string line;
    for (std::size_t i = 0; i < table.columns.size(); ++i) {
      if (!shown[i]) { continue; }
      const auto [cell, role] = cell_of(i);
      line += (line.empty() ? "" : "   ") +
              paint_out(role, padded(cut(cell, widths[i]), widths[i], table.columns[i].right));
    }
    while (line.ends_with(' ')) { line.pop_back(); }
    text += line + "\n";
  };
  if (headers) {
    add_row([&](std::size_t i) { return std::pair{table.columns[i].title, Role::name}; });
  }
  for (const auto& row : table.rows) {
    add_row([&](std::size_t i) { return std::pair{printable(row[i].text), row[i].role}; });
  }
  out(text);
}

void Screen::json(const Json& value) { out(dump_json(value, JsonStyle::pretty) + "\n"); }
void Screen::yaml(const Json& value) { out(dump_yaml(value)); }

Result<void> Screen::finish() const {
  if (out_error_ == 0) { return {}; }
  return fail(invalid("standard output", std::string(std::strerror(out_error_)),
                      "what this command did is not undone"));
}

}  // namespace metier::cli
