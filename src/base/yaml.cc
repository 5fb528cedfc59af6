#include "base/yaml.h"

#include <fmt/format.h>
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <optional>
#include <set>
#include <sstream>

#include "base/text.h"

namespace metier {
namespace {

bool one_of(std::string_view text, std::initializer_list<std::string_view> words) {
  for (const auto word : words) {
    if (text == word) { return true; }
  }
  return false;
}

std::optional<Json> yaml_int(std::string_view text) {
  std::string digits;
  for (const char c : text) {
    if (c != '_') { digits += c; }
  }
  std::string_view rest = digits;
  const bool negative = rest.starts_with('-');
  if (negative || rest.starts_with('+')) { rest.remove_prefix(1); }
  int base = 10;
  if (rest.starts_with("0x")) {
    base = 16;
    rest.remove_prefix(2);
  } else if (rest.starts_with("0b")) {
    base = 2;
    rest.remove_prefix(2);
  } else if (rest.size() > 1 && rest.front() == '0') {
    base = 8;
    rest.remove_prefix(1);
  }
  if (rest.empty()) { return std::nullopt; }
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(rest.data(), rest.data() + rest.size(), value, base);
  if (end != rest.data() + rest.size() || error == std::errc::invalid_argument) {
    return std::nullopt;
  }
  if (error == std::errc::result_out_of_range) {
    return Json(std::strtod(digits.c_str(), nullptr));
  }
  if (negative) {
    if (value > (1ULL << 63U)) { return Json(-static_cast<double>(value)); }
    return Json(static_cast<std::int64_t>(0 - value));
  }
  if (value <= static_cast<std::uint64_t>(INT64_MAX)) {
    return Json(static_cast<std::int64_t>(value));
  }
  return Json(value);
}

std::optional<Json> yaml_float(std::string_view text) {
  if (one_of(text, {".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"})) {
    return Json(std::numeric_limits<double>::infinity());
  }
  if (one_of(text, {"-.inf", "-.Inf", "-.INF"})) {
    return Json(-std::numeric_limits<double>::infinity());
  }
  if (one_of(text, {".nan", ".NaN", ".NAN"})) {
    return Json(std::numeric_limits<double>::quiet_NaN());
  }
  // YAML 1.1 floats carry a dot; an exponent carries its sign ("1e3" is text, as PyYAML reads it).
  if (text.find('.') == std::string_view::npos) { return std::nullopt; }
  const auto e = text.find_first_of("eE");
  if (e != std::string_view::npos &&
      (e + 1 >= text.size() || (text[e + 1] != '+' && text[e + 1] != '-'))) {
    return std::nullopt;
  }
  std::string_view rest = text;
  if (rest.starts_with('+')) { rest.remove_prefix(1); }
  double value = 0;
  const auto [end, error] = std::from_chars(rest.data(), rest.data() + rest.size(), value);
  if (error != std::errc{} || end != rest.data() + rest.size()) { return std::nullopt; }
  return Json(value);
}

// True when a plain scalar of this text would be read as something else than text.
std::optional<Json> plain(std::string_view text) {
  if (text.empty() || one_of(text, {"~", "null", "Null", "NULL"})) { return Json(nullptr); }
  if (one_of(text, {"true", "True", "TRUE", "yes", "Yes", "YES", "on", "On", "ON"})) {
    return Json(true);
  }
  if (one_of(text, {"false", "False", "FALSE", "no", "No", "NO", "off", "Off", "OFF"})) {
    return Json(false);
  }
  const char c = text.front();
  if ((c >= '0' && c <= '9') || c == '-' || c == '+' || c == '.') {
    if (auto value = yaml_int(text)) { return value; }
    if (auto value = yaml_float(text)) { return value; }
  }
  return std::nullopt;
}

class Converter {
 public:
  explicit Converter(const YamlLimits& limits) : limits_(limits) {}

  Result<Json> convert(const YAML::Node& node, std::size_t depth) {
    if (depth > limits_.depth) {
      return problem(node,
                     fmt::format("nested deeper than {} levels (or an alias of its own ancestor)",
                                 limits_.depth));
    }
    if (++nodes_ > limits_.nodes) {
      return problem(node,
                     fmt::format("more than {} values after aliases are expanded", limits_.nodes));
    }
    const auto& tag = node.Tag();
    if (!tag.empty() && tag != "?" && tag != "!" && !tag.starts_with("tag:yaml.org,2002:")) {
      return problem(node, fmt::format("tag {} is not read", quote(tag)));
    }
    if (tag.find("python") != std::string::npos || tag.ends_with(":binary")) {
      return problem(node, fmt::format("tag {} is not read", quote(tag)));
    }
    switch (node.Type()) {
      case YAML::NodeType::Undefined:
      case YAML::NodeType::Null: return Json(nullptr);
      case YAML::NodeType::Scalar: {
        const auto& text = node.Scalar();
        if (tag == "!" || tag.ends_with(":str")) { return Json(std::string_view(text)); }
        auto value = plain(text);
        return value ? std::move(*value) : Json(std::string_view(text));
      }
      case YAML::NodeType::Sequence: {
        JsonArray out;
        for (const auto& item : node) {
          auto value = convert(item, depth + 1);
          if (!value) { return value; }
          out.push_back(std::move(*value));
        }
        return Json(std::move(out));
      }
      case YAML::NodeType::Map: return map(node, depth);
    }
    return problem(node, "value of unknown type");
  }

 private:
  Result<Json> map(const YAML::Node& node, std::size_t depth) {
    JsonObject out;
    JsonObject merged;
    for (const auto& pair : node) {
      if (!pair.first.IsScalar() && !pair.first.IsNull()) {
        return problem(pair.first, "a key that is not text");
      }
      const auto& key = pair.first.Scalar();
      auto value = convert(pair.second, depth + 1);
      if (!value) { return value; }
      if (key == "<<" && pair.first.Tag() != "!") {
        auto take = [&](const Json& source) {
          if (const auto* object = source.if_object()) {
            for (const auto& [k, v] : *object) { merged.emplace(k, v); }
          }
        };
        if (const auto* list = value->if_array()) {
          for (const auto& item : *list) { take(item); }
        } else {
          take(*value);
        }
        continue;
      }
      if (!out.emplace(key, std::move(*value)).second) {
        return problem(pair.first, fmt::format("key {} is given twice", quote(key)));
      }
    }
    for (const auto& [k, v] : merged) { out.emplace(k, v); }
    return Json(std::move(out));
  }

  static std::unexpected<Error> problem(const YAML::Node& node, std::string what) {
    const auto mark = node.Mark();
    return fail(ErrorKind::invalid, fmt::format("{}:{}: {}", mark.line + 1, mark.column + 1, what));
  }

  const YamlLimits& limits_;
  std::size_t nodes_ = 0;
};

bool needs_quotes(std::string_view text) {
  if (text.empty() || plain(text)) { return true; }
  if (text.front() == ' ' || text.back() == ' ' || text.back() == ':') { return true; }
  if (std::string_view("-?:,[]{}#&*!|>'\"%@`=").find(text.front()) != std::string_view::npos) {
    const bool dash_word = text.size() > 1 &&
                           (text.front() == '-' || text.front() == ':' || text.front() == '?') &&
                           text[1] != ' ';
    if (!dash_word) { return true; }
  }
  if (text.find(": ") != std::string_view::npos || text.find(" #") != std::string_view::npos) {
    return true;
  }
  // Dates and base-60 numbers are read as such by YAML 1.1.
  if (text.front() >= '0' && text.front() <= '9' &&
      text.find_first_not_of("0123456789-:. TZ+_") == std::string_view::npos) {
    return true;
  }
  for (const char c : text) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) { return true; }
  }
  return false;
}

void emit_scalar(std::string& out, const Json& value) {
  if (const auto* text = value.if_string()) {
    out += needs_quotes(*text) ? dump_json(value) : std::string(*text);
  } else if (value.is_double() && !std::isfinite(value.get_double())) {
    out += std::isnan(value.get_double()) ? ".nan" : value.get_double() > 0 ? ".inf" : "-.inf";
  } else if (value.is_double()) {
    auto text = python_float(value.get_double());
    const auto e = text.find('e');
    if (e != std::string::npos && text.find('.') == std::string::npos) { text.insert(e, ".0"); }
    out += text;
  } else {
    out += dump_json(value);
  }
}

void emit(std::string& out, const Json& value, int indent, bool after_key);

// YAML 1.2, 7.4: a key without "? " before it has 1024 characters at most.
constexpr std::size_t kLongestImplicitKey = 1024;

void emit_entries(std::string& out, const JsonObject& object, int indent, bool first_in_line) {
  bool first = true;
  for (const auto& [key, item] : object) {
    if (!first || !first_in_line) { out.append(static_cast<std::size_t>(indent), ' '); }
    first = false;
    std::string name;
    emit_scalar(name, Json(key));
    if (name.size() > kLongestImplicitKey) {
      out += "? " + name + "\n";
      out.append(static_cast<std::size_t>(indent), ' ');
    } else {
      out += name;
    }
    out += ':';
    emit(out, item, indent, true);
  }
}

void emit(std::string& out, const Json& value, int indent, bool after_key) {
  if (const auto* object = value.if_object(); object != nullptr && !object->empty()) {
    if (after_key) { out += '\n'; }
    emit_entries(out, *object, after_key ? indent + 2 : indent, false);
    return;
  }
  if (const auto* array = value.if_array(); array != nullptr && !array->empty()) {
    if (after_key) { out += '\n'; }
    for (const auto& item : *array) {
      out.append(static_cast<std::size_t>(indent), ' ');
      out += "- ";
      if (const auto* inner = item.if_object(); inner != nullptr && !inner->empty()) {
        emit_entries(out, *inner, indent + 2, true);
      } else if (const auto* list = item.if_array(); list != nullptr && !list->empty()) {
        out += '\n';
        emit(out, item, indent + 2, false);
      } else {
        emit_scalar(out, item);
        out += '\n';
      }
    }
    return;
  }
  if (after_key) { out += ' '; }
  emit_scalar(out, value);
  out += '\n';
}

// Reads the text once without keeping anything. yaml-cpp builds whole documents before anybody can count, and there are
// texts (",\n" behind a document) at which it makes documents without end.
class Bounds final : public YAML::EventHandler {
 public:
  Bounds(std::string_view text, const YamlLimits& limits)
      : limits_(limits),
        most_documents_(2 + static_cast<std::size_t>(std::ranges::count(text, '\n'))) {}

  void OnDocumentStart(const YAML::Mark& mark) override {
    if (++documents_ > most_documents_) {
      throw YAML::ParserException(mark, "text that belongs to no document");
    }
  }
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark& mark, YAML::anchor_t /*anchor*/) override { count(mark); }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t /*anchor*/) override { count(mark); }
  void OnScalar(const YAML::Mark& mark, const std::string& /*tag*/, YAML::anchor_t /*anchor*/,
                const std::string& /*value*/) override {
    count(mark);
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string& /*tag*/,
                       YAML::anchor_t /*anchor*/, YAML::EmitterStyle::value /*style*/) override {
    enter(mark);
  }
  void OnSequenceEnd() override { --depth_; }
  void OnMapStart(const YAML::Mark& mark, const std::string& /*tag*/, YAML::anchor_t /*anchor*/,
                  YAML::EmitterStyle::value /*style*/) override {
    enter(mark);
  }
  void OnMapEnd() override { --depth_; }

 private:
  void count(const YAML::Mark& mark) {
    // Keys are counted too here, and not by the converter.
    if (++nodes_ > limits_.nodes * 2) {
      throw YAML::ParserException(mark, fmt::format("more than {} values", limits_.nodes));
    }
  }
  void enter(const YAML::Mark& mark) {
    count(mark);
    if (++depth_ > limits_.depth + 1) {
      throw YAML::ParserException(mark, fmt::format("nested deeper than {} levels", limits_.depth));
    }
  }

  const YamlLimits& limits_;
  std::size_t most_documents_;
  std::size_t documents_ = 0;
  std::size_t nodes_ = 0;
  std::size_t depth_ = 0;
};

}  // namespace

Result<std::vector<Json>> parse_yaml_all(std::string_view text, const YamlLimits& limits) {
  if (text.size() > limits.bytes) {
    return fail(ErrorKind::too_large,
                fmt::format("{} bytes of YAML, at most {} are read", text.size(), limits.bytes));
  }
  if (const auto offset = invalid_utf8(text); offset != std::string_view::npos) {
    return fail(Error{.kind = ErrorKind::invalid,
                      .message = fmt::format("byte {} (0x{:02x}) is no UTF-8", offset,
                                             static_cast<unsigned char>(text[offset])),
                      .fix = "save the YAML as UTF-8"});
  }
  // YAML has no such character, and the library would take the text for UTF-16 or UTF-32.
  if (const auto offset = text.find('\0'); offset != std::string_view::npos) {
    return fail(Error{.kind = ErrorKind::invalid,
                      .message = fmt::format("byte {} is a zero, which YAML does not have", offset),
                      .fix = "save the YAML as UTF-8"});
  }
  try {
    const std::string whole(text);
    std::istringstream stream(whole);
    YAML::Parser parser(stream);
    Bounds bounds(text, limits);
    while (parser.HandleNextDocument(bounds)) {}
    std::vector<Json> out;
    for (const auto& node : YAML::LoadAll(whole)) {
      auto value = Converter(limits).convert(node, 0);
      if (!value) { return fail(std::move(value.error())); }
      out.push_back(std::move(*value));
    }
    return out;
  } catch (const YAML::Exception& error) {
    return fail(ErrorKind::invalid,
                fmt::format("{}:{}: {}", error.mark.line + 1, error.mark.column + 1, error.msg));
  }
}

Result<Json> parse_yaml(std::string_view text, const YamlLimits& limits) {
  METIER_TRY(documents, parse_yaml_all(text, limits));
  if (documents.size() != 1) {
    return fail(
        Error{.kind = ErrorKind::invalid,
              .message = fmt::format("{} YAML documents where one is expected", documents.size()),
              .fix = "put each document into a file of its own"});
  }
  return std::move(documents.front());
}

std::string dump_yaml(const Json& value) {
  std::string out;
  emit(out, value, 0, false);
  return out;
}

}  // namespace metier
