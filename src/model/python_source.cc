#include "model/python_source.h"

#include <charconv>

#include "base/text.h"

namespace metier {
namespace {

std::size_t end_of_line(std::string_view text, std::size_t at) {
  const std::size_t end = text.find('\n', at);
  return end == std::string_view::npos ? text.size() : end;
}

// Reads one literal; nothing nested deeper than kDepth.
class LiteralReader {
 public:
  explicit LiteralReader(std::string_view text) : text_(text) {}

  std::optional<Json> read_all() {
    auto value = read(0);
    skip();
    return value && at_ == text_.size() ? value : std::nullopt;
  }

 private:
  static constexpr int kDepth = 32;

  void skip() {
    while (at_ < text_.size() && std::string_view(" \t\r\n").contains(text_[at_])) { ++at_; }
  }
  bool take(char c) {
    skip();
    if (at_ < text_.size() && text_[at_] == c) {
      ++at_;
      return true;
    }
    return false;
  }

  std::optional<Json> read(int depth) {
    skip();
    if (depth > kDepth || at_ >= text_.size()) { return std::nullopt; }
    switch (text_[at_]) {
      case '"':
      case '\'': return text();
      case '[': ++at_; return sequence(']', depth, false);
      case '(': ++at_; return sequence(')', depth, true);
      case '{': ++at_; return mapping(depth);
      default: return word();
    }
  }

  std::optional<Json> text() {
    const std::size_t end = end_of_string(text_, at_);
    const std::size_t quotes =
        text_.substr(at_).starts_with(std::string(3, text_[at_])) && end - at_ >= 6 ? 3 : 1;
    std::string_view body = text_.substr(at_ + quotes, end - at_ - 2 * quotes);
    at_ = end;
    std::string out;
    for (std::size_t i = 0; i < body.size(); ++i) {
      if (body[i] != '\\' || i + 1 == body.size()) {
        out += body[i];
        continue;
      }
      switch (body[++i]) {
        case 'n': out += '\n'; break;
        case 't': out += '\t'; break;
        case 'r': out += '\r'; break;
        case '\n': break;
        case '\\':
        case '\'':
        case '"': out += body[i]; break;
        default: return std::nullopt;  // \x, \u, octal: shown as written
      }
    }
    return Json(out);
  }

  std::optional<Json> sequence(char close, int depth, bool tuple) {
    JsonArray out;
    bool comma = false;
    while (!take(close)) {
      if (!out.empty() && !comma) { return std::nullopt; }
      auto item = read(depth + 1);
      if (!item) { return std::nullopt; }
      out.push_back(std::move(*item));
      comma = take(',');
    }
    if (tuple && out.size() == 1 && !comma) {
      return out[0];  // (1) is 1
    }
    return Json(std::move(out));
  }

  std::optional<Json> mapping(int depth) {
    JsonObject out;
    bool comma = true;
    while (!take('}')) {
      auto key = comma ? read(depth + 1) : std::nullopt;
      if (!key || !key->is_string() || !take(':')) { return std::nullopt; }
      auto value = read(depth + 1);
      if (!value) { return std::nullopt; }
      out[key->get_string()] = std::move(*value);
      comma = take(',');
    }
    return Json(std::move(out));
  }

  std::optional<Json> word() {
    const std::size_t start = at_;
    while (at_ < text_.size() && !std::string_view(",)]}: \t\r\n").contains(text_[at_])) { ++at_; }
    std::string written(text_.substr(start, at_ - start));
    if (written == "None") { return Json(nullptr); }
    if (written == "True" || written == "False") { return Json(written == "True"); }
    std::erase(written, '_');
    const std::string_view digits =
        written.starts_with('+') ? std::string_view(written).substr(1) : std::string_view(written);
    std::int64_t integer = 0;
    const char* end = digits.data() + digits.size();
    if (const auto got = std::from_chars(digits.data(), end, integer);
        got.ec == std::errc{} && got.ptr == end) {
      return Json(integer);
    }
    double number = 0;
    if (digits.empty() || std::string_view("in").contains(digits[0])) {
      return std::nullopt;  // inf and nan are names
    }
    if (const auto got = std::from_chars(digits.data(), end, number);
        got.ec == std::errc{} && got.ptr == end) {
      return Json(number);
    }
    return std::nullopt;
  }

  std::string_view text_;
  std::size_t at_ = 0;
};

}  // namespace

std::size_t end_of_string(std::string_view text, std::size_t at) {
  const char mark = text[at];
  const bool triple = text.substr(at).starts_with(std::string(3, mark));
  for (std::size_t i = at + (triple ? 3 : 1); i < text.size(); ++i) {
    if (text[i] == '\\') {
      ++i;
    } else if (text[i] == mark && (!triple || text.substr(i).starts_with(std::string(3, mark)))) {
      return i + (triple ? 3 : 1);
    } else if (text[i] == '\n' && !triple) {
      return i;  // never closed
    }
  }
  return text.size();
}

std::size_t end_of_bracket(std::string_view text, std::size_t at) {
  std::size_t depth = 0;
  for (std::size_t i = at; i < text.size();) {
    const char c = text[i];
    if (c == '"' || c == '\'') {
      i = end_of_string(text, i);
      continue;
    }
    if (c == '#') {
      i = end_of_line(text, i);
      continue;
    }
    if (c == '(' || c == '[' || c == '{') {
      ++depth;
    } else if ((c == ')' || c == ']' || c == '}') && --depth == 0) {
      return i + 1;
    }
    ++i;
  }
  return std::string_view::npos;
}

std::size_t find_outside(std::string_view text, char mark, std::size_t at, char stop) {
  for (std::size_t i = at; i < text.size();) {
    const char c = text[i];
    if (c == mark) { return i; }
    if (c == stop) { return std::string_view::npos; }
    if (c == '"' || c == '\'') {
      i = end_of_string(text, i);
    } else if (c == '#') {
      i = end_of_line(text, i);
    } else if (c == '(' || c == '[' || c == '{') {
      const std::size_t end = end_of_bracket(text, i);
      i = end == std::string_view::npos ? text.size() : end;
    } else {
      ++i;
    }
  }
  return std::string_view::npos;
}

std::optional<Json> python_literal(std::string_view text) {
  return LiteralReader(trim(text)).read_all();
}

}  // namespace metier
