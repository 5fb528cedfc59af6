#include "model/entry_points.h"

#include <algorithm>
#include <cctype>

#include "base/text.h"
#include "model/python_source.h"

namespace metier {
namespace {

constexpr std::size_t kMostFunctions = 10'000;
constexpr std::size_t kMostSignature =
    1U << 16U;  // bytes: what is longer is no signature, and looking must stay linear

bool is_word(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_' ||
         (static_cast<unsigned char>(c) & 0x80U) != 0;
}

struct Definition {
  std::string keyword;  // "def", "async def", "class"
  std::string name;
  std::size_t indent = 0;
  std::size_t line = 0;
  std::string parameters;  // between the brackets
  std::string returns;
  std::string docstring;
};

class Scanner {
 public:
  explicit Scanner(std::string_view code) : code_(code) {}

  std::vector<Definition> scan() {
    while (at_ < code_.size() && found_.size() < kMostFunctions) {
      const std::size_t start = at_;
      while (at_ < code_.size() && (code_[at_] == ' ' || code_[at_] == '\t')) { ++at_; }
      const std::size_t indent = at_ - start;
      if (code_.substr(at_).starts_with("# mlrun:handler") ||
          code_.substr(at_).starts_with("#mlrun:handler")) {
        markers_.push_back(line_);
      }
      definition(indent);
      logical_line();
    }
    return std::move(found_);
  }
  const std::vector<std::size_t>& markers() const { return markers_; }

 private:
  std::string_view word_at(std::size_t at) const {
    std::size_t end = at;
    while (end < code_.size() && is_word(code_[end])) { ++end; }
    return code_.substr(at, end - at);
  }
  std::size_t past_blanks(std::size_t at) const {
    while (at < code_.size() && (code_[at] == ' ' || code_[at] == '\t')) { ++at; }
    return at;
  }
  void move_to(std::size_t at) {
    line_ +=
        static_cast<std::size_t>(std::count(code_.begin() + static_cast<std::ptrdiff_t>(at_),
                                            code_.begin() + static_cast<std::ptrdiff_t>(at), '\n'));
    at_ = at;
  }

  // To the start of the next logical line.
  void logical_line() {
    std::size_t i = at_;
    while (i < code_.size() && code_[i] != '\n') {
      const char c = code_[i];
      if (c == '"' || c == '\'') {
        i = end_of_string(code_, i);
      } else if (c == '#') {
        i = code_.find('\n', i);
        i = i == std::string_view::npos ? code_.size() : i;
      } else if (c == '(' || c == '[' || c == '{') {
        const std::size_t end = end_of_bracket(code_, i);
        i = end == std::string_view::npos ? code_.size()
                                          : end;  // never closed: no Python from here on
      } else if (c == '\\' && i + 1 < code_.size()) {
        i += 2;
      } else {
        ++i;
      }
    }
    move_to(std::min(i + 1, code_.size()));
  }

  void definition(std::size_t indent) {
    std::size_t at = at_;
    std::string keyword(word_at(at));
    if (keyword == "async") {
      at = past_blanks(at + 5);
      if (word_at(at) != "def") { return; }
      keyword = "async def";
      at += 3;
    } else if (keyword == "def" || keyword == "class") {
      at += keyword.size();
    } else {
      return;
    }
    at = past_blanks(at);
    Definition found{
        .keyword = keyword, .name = std::string(word_at(at)), .indent = indent, .line = line_};
    if (found.name.empty()) { return; }
    at = past_blanks(at + found.name.size());
    if (at < code_.size() && code_[at] == '(') {
      const std::size_t end = end_of_bracket(code_.substr(0, at + kMostSignature), at);
      if (end == std::string_view::npos) { return; }
      found.parameters = code_.substr(at + 1, end - at - 2);
      at = end;
    }
    const std::size_t colon = find_outside(code_.substr(0, at + kMostSignature), ':', at, '\n');
    if (colon == std::string_view::npos) { return; }
    std::string_view between = trim(code_.substr(at, colon - at));
    if (between.starts_with("->")) { found.returns = trim(between.substr(2)); }
    move_to(colon + 1);
    found.docstring = docstring();
    found_.push_back(std::move(found));
  }

  // The text of a string that is the first statement of the body, with the common indentation removed.
  std::string docstring() const {
    std::size_t at = at_;
    for (;;) {
      while (at < code_.size() && std::string_view(" \t\r\n").contains(code_[at])) { ++at; }
      if (at < code_.size() && code_[at] == '#') {
        at = code_.find('\n', at);
        at = at == std::string_view::npos ? code_.size() : at;
        continue;
      }
      break;
    }
    const bool raw = at < code_.size() && (code_[at] == 'r' || code_[at] == 'R');
    at += raw ? 1 : 0;
    if (at >= code_.size() || (code_[at] != '"' && code_[at] != '\'')) { return {}; }
    const std::size_t end = end_of_string(code_, at);
    const std::string_view literal = code_.substr(at, end - at);
    if (raw) {
      const std::size_t quotes =
          literal.size() >= 6 && literal.starts_with(std::string(3, literal[0])) ? 3 : 1;
      return cleaned(literal.substr(quotes, literal.size() - 2 * quotes));
    }
    const auto text = python_literal(literal);
    return text && text->is_string() ? cleaned(text->get_string()) : std::string();
  }

  static std::string cleaned(std::string_view text) {
    std::vector<std::string> lines = split_text(text, '\n');
    std::size_t margin = std::string::npos;
    for (std::size_t i = 1; i < lines.size(); ++i) {
      if (const std::size_t start = lines[i].find_first_not_of(" \t\r");
          start != std::string::npos) {
        margin = std::min(margin, start);
      }
    }
    std::string out;
    for (std::size_t i = 0; i < lines.size(); ++i) {
      const std::string_view line = i == 0 ? trim(lines[0])
                                    : margin == std::string::npos || lines[i].size() < margin
                                        ? std::string_view{}
                                        : std::string_view(lines[i]).substr(margin);
      out += (i == 0 ? "" : "\n") + std::string(line);
    }
    return std::string(trim(out));
  }

  std::string_view code_;
  std::size_t at_ = 0;
  std::size_t line_ = 1;
  std::vector<Definition> found_;
  std::vector<std::size_t> markers_;
};

std::string one_space(std::string_view text) {
  std::string out;
  for (const char c : text) {
    const bool blank = std::isspace(static_cast<unsigned char>(c)) != 0;
    if (!blank || (!out.empty() && out.back() != ' ')) { out += blank ? ' ' : c; }
  }
  return std::string(trim(out));
}

// The type as MLRun writes it: text annotations have none, `a.B` is "B", `a.b.C` stays whole.
std::string type_text(std::string_view annotation) {
  std::string text = one_space(annotation);
  if (text.empty() || text == "None" || !is_word(text[0]) ||
      std::isdigit(static_cast<unsigned char>(text[0])) != 0 || text.contains('(') ||
      text.contains(" | ")) {
    return {};
  }
  const std::size_t dots = static_cast<std::size_t>(std::ranges::count(text, '.'));
  if (!text.contains('[') && dots == 1) { return text.substr(text.find('.') + 1); }
  return text;
}

std::string without_comments(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size();) {
    if (text[i] == '#') {
      const std::size_t end = text.find('\n', i);
      i = end == std::string_view::npos ? text.size() : end;
    } else if (text[i] == '"' || text[i] == '\'') {
      const std::size_t end = end_of_string(text, i);
      out += text.substr(i, end - i);
      i = end;
    } else {
      out += text[i++];
    }
  }
  return out;
}

struct Signature {
  std::vector<JsonObject> parameters;
  bool varargs = false;
  bool kwargs = false;
};

Signature signature_of(std::string_view raw) {
  const std::string text = without_comments(raw);
  Signature out;
  bool keyword_only = false;
  for (std::size_t start = 0; start <= text.size();) {
    std::size_t end = find_outside(text, ',', start);
    end = end == std::string::npos ? text.size() : end;
    const std::string_view part = trim(std::string_view(text).substr(start, end - start));
    start = end + 1;
    if (part.starts_with("**")) {
      out.kwargs = true;
    } else if (part.starts_with('*')) {
      out.varargs = out.varargs || part.size() > 1;
      keyword_only = true;
    } else if (part == "/") {
      out.parameters.clear();  // positional only: no run parameter reaches them
    } else if (!part.empty() && !keyword_only) {
      const std::size_t equals = find_outside(part, '=');
      const std::string_view left = part.substr(0, equals);
      const std::size_t colon = find_outside(left, ':');
      JsonObject parameter{{"name", trim(left.substr(0, colon))}};
      if (colon != std::string_view::npos) {
        if (const std::string type = type_text(left.substr(colon + 1)); !type.empty()) {
          parameter["type"] = type;
        }
      }
      if (equals != std::string_view::npos) {
        const std::string written = one_space(part.substr(equals + 1));
        auto literal = python_literal(part.substr(equals + 1));
        parameter["default"] = literal ? std::move(*literal) : Json(written);
      }
      out.parameters.push_back(std::move(parameter));
    }
  }
  return out;
}

// reStructuredText fields of a docstring: ":param name: text", ":returns: text", ":rtype: text", ":type name: text".
void merge_doc(std::string_view docstring, JsonObject& function, Signature& signature,
               JsonObject& returns) {
  std::string doc;
  std::string tag;
  std::string value;
  std::string text;
  const auto store = [&] {
    if (tag == "returns" || tag == "return") {
      returns["doc"] = text;
    } else if (tag == "rtype") {
      returns["type"] = text;
    }
    for (JsonObject& parameter : signature.parameters) {
      if (string_in(parameter, "name") == value && !text.empty() &&
          (tag == "param" || tag == "type")) {
        parameter[tag == "param" ? "doc" : "type"] = text;
      }
    }
    tag.clear();
  };
  bool fields = false;
  for (const std::string& line : split_text(docstring, '\n')) {
    if (line.starts_with(':') && line.find(':', 1) != std::string::npos) {
      store();
      fields = true;
      const std::size_t colon = line.find(':', 1);
      const std::string head(trim(std::string_view(line).substr(1, colon - 1)));
      const std::size_t blank = head.find_first_of(" \t");
      tag = head.substr(0, blank);
      value = blank == std::string::npos
                  ? std::string()
                  : std::string(trim(std::string_view(head).substr(head.find_last_of(" \t") + 1)));
      text = trim(std::string_view(line).substr(colon + 1));
    } else if (!fields) {
      doc += (doc.empty() ? "" : "\n") + line;
    } else if (!tag.empty() && (line.starts_with("   ") || line.starts_with("\t"))) {
      text += " " + std::string(trim(line));
    }
  }
  store();
  function["doc"] = trim(doc);
}

JsonObject entry_of(const Definition& definition) {
  Signature signature = signature_of(definition.parameters);
  JsonObject entry{{"name", definition.name}, {"doc", ""}};
  JsonObject returns;
  if (const std::string type = one_space(definition.returns); !type.empty()) {
    returns["type"] = type;
  }
  if (!trim(definition.docstring).empty()) {
    merge_doc(definition.docstring, entry, signature, returns);
  }
  JsonArray parameters;
  for (JsonObject& parameter : signature.parameters) { parameters.push_back(std::move(parameter)); }
  if (!parameters.empty()) { entry["parameters"] = std::move(parameters); }
  if (!returns.empty()) { entry["outputs"] = JsonArray{std::move(returns)}; }
  entry["lineno"] = static_cast<std::int64_t>(definition.line);
  entry["has_varargs"] = signature.varargs;
  entry["has_kwargs"] = signature.kwargs;
  return entry;
}

}  // namespace

JsonObject find_entry_points(std::string_view code) {
  Scanner scanner(code);
  JsonObject out;
  for (const Definition& definition : scanner.scan()) {
    const bool marked =
        std::ranges::find(scanner.markers(), definition.line - 1) != scanner.markers().end();
    const bool wanted = scanner.markers().empty() ? definition.name[0] != '_' : marked;
    if (definition.keyword == "def" && wanted) { out[definition.name] = entry_of(definition); }
  }
  return out;
}

std::vector<std::string> top_level_names(std::string_view code) {
  std::vector<std::string> out;
  for (const Definition& definition : Scanner(code).scan()) {
    if (definition.indent == 0 && std::ranges::find(out, definition.name) == out.end()) {
      out.push_back(definition.name);
    }
  }
  return out;
}

}  // namespace metier
