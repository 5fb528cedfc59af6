#include "serving/python_value.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>

namespace metier::serving {

std::string_view python_type(const Json& value) {
  switch (value.kind()) {
    case boost::json::kind::null: return "NoneType";
    case boost::json::kind::bool_: return "bool";
    case boost::json::kind::int64:
    case boost::json::kind::uint64: return "int";
    case boost::json::kind::double_: return "float";
    case boost::json::kind::string: return "str";
    case boost::json::kind::array: return "list";
    case boost::json::kind::object: return "dict";
  }
  return "object";
}

bool is_true(const Json& value) {
  switch (value.kind()) {
    case boost::json::kind::null: return false;
    case boost::json::kind::bool_: return value.get_bool();
    case boost::json::kind::int64: return value.get_int64() != 0;
    case boost::json::kind::uint64: return value.get_uint64() != 0;
    case boost::json::kind::double_: return value.get_double() != 0;
    case boost::json::kind::string: return !value.get_string().empty();
    case boost::json::kind::array: return !value.get_array().empty();
    case boost::json::kind::object: return !value.get_object().empty();
  }
  return true;
}

std::optional<std::int64_t> whole(const Json& value) {
  if (value.is_int64()) { return value.get_int64(); }
  if (value.is_bool()) { return value.get_bool() ? 1 : 0; }
  if (value.is_uint64() &&
      value.get_uint64() <= static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) {
    return static_cast<std::int64_t>(value.get_uint64());
  }
  return std::nullopt;
}

std::optional<double> real(const Json& value) {
  if (value.is_double()) { return value.get_double(); }
  if (value.is_uint64()) { return static_cast<double>(value.get_uint64()); }
  const auto number = whole(value);
  return number ? std::optional(static_cast<double>(*number)) : std::nullopt;
}

bool equal(const Json& a, const Json& b) {
  const auto x = whole(a), y = whole(b);
  if (x && y) { return *x == *y; }
  const auto p = real(a), q = real(b);
  if (p && q) { return *p == *q; }
  if (a.kind() != b.kind()) { return false; }
  if (a.is_array()) { return std::ranges::equal(a.get_array(), b.get_array(), equal); }
  if (a.is_object()) {
    const JsonObject& left = a.get_object();
    const JsonObject& right = b.get_object();
    return left.size() == right.size() && std::ranges::all_of(left, [&](const auto& member) {
             const Json* other = right.if_contains(member.key());
             return other != nullptr && equal(member.value(), *other);
           });
  }
  return a == b;
}

std::optional<std::partial_ordering> ordered(const Json& a, const Json& b) {
  const auto x = whole(a), y = whole(b);
  if (x && y) { return *x <=> *y; }
  const auto p = real(a), q = real(b);
  if (p && q) { return *p <=> *q; }
  // UTF-8's order of bytes is that of code points, which is Python's.
  if (a.is_string() && b.is_string()) {
    return std::string_view(a.get_string()) <=> std::string_view(b.get_string());
  }
  if (!a.is_array() || !b.is_array()) { return std::nullopt; }
  const JsonArray& left = a.get_array();
  const JsonArray& right = b.get_array();
  for (std::size_t i = 0; i < std::min(left.size(), right.size()); ++i) {
    if (!equal(left[i], right[i])) { return ordered(left[i], right[i]); }
  }
  return left.size() <=> right.size();
}

namespace {

void append_repr(std::string& out, const Json& value) {
  switch (value.kind()) {
    case boost::json::kind::null: out += "None"; return;
    case boost::json::kind::bool_: out += value.get_bool() ? "True" : "False"; return;
    case boost::json::kind::int64: out += std::to_string(value.get_int64()); return;
    case boost::json::kind::uint64: out += std::to_string(value.get_uint64()); return;
    case boost::json::kind::double_: {
      const double number = value.get_double();
      out += std::isnan(number)   ? "nan"
             : std::isinf(number) ? number > 0 ? "inf" : "-inf"
                                  : python_float(number);
      return;
    }
    case boost::json::kind::string: {
      const std::string_view text = value.get_string();
      const char mark = text.contains('\'') && !text.contains('"') ? '"' : '\'';
      out += mark;
      for (const char c : text) {
        const auto byte = static_cast<unsigned char>(c);
        if (c == mark || c == '\\') { out += '\\'; }
        if (c == '\n') {
          out += "\\n";
        } else if (c == '\t') {
          out += "\\t";
        } else if (c == '\r') {
          out += "\\r";
        } else if (byte < 0x20 || byte == 0x7f) {
          out += fmt::format("\\x{:02x}", byte);
        } else {
          out += c;
        }
      }
      out += mark;
      return;
    }
    case boost::json::kind::array: {
      out += '[';
      bool first = true;
      for (const Json& item : value.get_array()) {
        if (!std::exchange(first, false)) { out += ", "; }
        append_repr(out, item);
      }
      out += ']';
      return;
    }
    case boost::json::kind::object: {
      out += '{';
      bool first = true;
      for (const auto& member : value.get_object()) {
        if (!std::exchange(first, false)) { out += ", "; }
        append_repr(out, Json(member.key()));
        out += ": ";
        append_repr(out, member.value());
      }
      out += '}';
      return;
    }
  }
}

}  // namespace

std::string repr(const Json& value) {
  std::string out;
  append_repr(out, value);
  return out;
}

std::string str(const Json& value) {
  return value.is_string() ? std::string(value.get_string()) : repr(value);
}

std::string json_key(const Json& key) {
  if (key.is_string()) { return std::string(key.get_string()); }
  if (key.is_null()) { return "null"; }
  if (key.is_bool()) { return key.get_bool() ? "true" : "false"; }
  return repr(key);
}

std::vector<std::size_t> code_points(std::string_view text) {
  std::vector<std::size_t> out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if ((static_cast<unsigned char>(text[i]) & 0xc0U) != 0x80U) { out.push_back(i); }
  }
  out.push_back(text.size());
  return out;
}

std::string_view trimmed(std::string_view text) {
  constexpr std::string_view kSpace = " \t\n\r\f\v";
  const std::size_t first = text.find_first_not_of(kSpace);
  if (first == std::string_view::npos) { return {}; }
  return text.substr(first, text.find_last_not_of(kSpace) - first + 1);
}

std::optional<double> parsed_float(std::string_view text) {
  double out = 0;
  const std::string_view digits = text.starts_with('+') ? text.substr(1) : text;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), out);
  if (error == std::errc::result_out_of_range) { return std::nullopt; }
  if (error != std::errc() || end != digits.data() + digits.size()) { return std::nullopt; }
  return out;
}

}  // namespace metier::serving
