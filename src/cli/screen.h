// The terminal: what may be shown where. stdout is data, stderr is talk; colour and glyphs repeat what words say.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/result.h"

namespace metier::cli {

enum class Role { plain, good, bad, care, live, name, aside };

// How the two streams are to be used, decided once from the environment.
struct Style {
  bool out_terminal = false;
  bool err_terminal = false;
  bool out_colour = false;
  bool err_colour = false;
  bool glyphs = false;  // UTF-8 locale
  int width = 80;
  bool quiet = false;
};
// `mode` is the value of --color: auto, always, never.
Style detect_style(std::string_view mode, const std::map<std::string, std::string>& environment);

struct Column {
  std::string title;
  int priority = 0;  // the highest go first when the terminal is narrow; 0 never goes
  bool right = false;
};
struct Cell {
  std::string text;  // for a terminal
  std::string full;  // when piped; empty = the same
  Role role = Role::plain;
};
struct Table {
  std::vector<Column> columns;
  std::vector<std::vector<Cell>> rows;
};

class Screen final {
 public:
  Screen(Style style, int out, int err) : style_(style), out_(out), err_(err) {}
  const Style& style() const { return style_; }

  // stdout. A reader that has gone ends the program quietly (141); another failure is remembered for `finish`.
  void out(std::string_view bytes);
  // stderr, whole lines.
  void say(std::string_view line);
  // The same, marked as something to take care of.
  void warn(std::string_view line);
  void error(const Error& error);
  // Dim last line of commands to go on with: terminals only.
  void next(const std::vector<std::string>& commands);
  void table(const Table& table, bool headers = true);
  void json(const Json& value);
  void yaml(const Json& value);

  std::string paint(Role role, std::string_view text) const {
    return paint(role, text, style_.err_colour);
  }
  std::string paint_out(Role role, std::string_view text) const {
    return paint(role, text, style_.out_colour);
  }
  std::string glyph(Role role) const;  // "✓", or "ok" without UTF-8
  std::string dot() const { return style_.glyphs ? "·" : "-"; }
  // Nothing, or why stdout could not be written.
  Result<void> finish() const;

 private:
  static std::string paint(Role role, std::string_view text, bool colour);
  Style style_;
  int out_;
  int err_;
  int out_error_ = 0;
};

// Columns on a terminal: the number of code points (wide characters count two).
int display_width(std::string_view text);
// Control characters and broken UTF-8 escaped, so that a value cannot move the cursor.
std::string printable(std::string_view text);
std::string cut(std::string_view text, int width);

}  // namespace metier::cli
