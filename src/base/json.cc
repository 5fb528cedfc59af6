#include "base/json.h"

#include <fmt/format.h>
#include <yyjson.h>
#include <boost/json.hpp>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <unordered_set>
#include <vector>

#include "base/json_ordered.h"

namespace metier {
namespace {

class Converter {
 public:
  Converter(const JsonLimits& limits, bool last_of_twice)
      : limits_(limits), last_of_twice_(last_of_twice) {}

  Result<Json> convert(yyjson_val* value, std::size_t depth) {
    if (depth >= limits_.depth && yyjson_is_ctn(value)) {
      return fail(ErrorKind::invalid,
                  fmt::format("JSON is nested deeper than {} levels", limits_.depth));
    }
    if (++nodes_ > limits_.nodes) {
      return fail(Error{.kind = ErrorKind::too_large,
                        .message = fmt::format("JSON has more than {} values", limits_.nodes)});
    }
    switch (yyjson_get_type(value)) {
      case YYJSON_TYPE_NULL: return Json(nullptr);
      case YYJSON_TYPE_BOOL: return Json(yyjson_get_bool(value));
      case YYJSON_TYPE_STR:
        return Json(std::string_view(yyjson_get_str(value), yyjson_get_len(value)));
      case YYJSON_TYPE_NUM: return number(value);
      case YYJSON_TYPE_ARR: return array(value, depth);
      case YYJSON_TYPE_OBJ: return object(value, depth);
      default: return fail(ErrorKind::invalid, "JSON has a value of unknown type");
    }
  }

 private:
  static Result<Json> number(yyjson_val* value) {
    if (yyjson_is_sint(value)) { return Json(static_cast<std::int64_t>(yyjson_get_sint(value))); }
    if (yyjson_is_uint(value)) {
      const auto u = yyjson_get_uint(value);
      if (u <= static_cast<std::uint64_t>(INT64_MAX)) { return Json(static_cast<std::int64_t>(u)); }
      return Json(u);
    }
    return Json(yyjson_get_real(value));
  }

  Result<Json> array(yyjson_val* value, std::size_t depth) {
    JsonArray out;
    out.reserve(yyjson_arr_size(value));
    std::size_t index = 0;
    std::size_t most = 0;
    yyjson_val* item = nullptr;
    yyjson_arr_foreach(value, index, most, item) {
      auto converted = convert(item, depth + 1);
      if (!converted) { return converted; }
      out.push_back(std::move(*converted));
    }
    return Json(std::move(out));
  }

  Result<Json> object(yyjson_val* value, std::size_t depth) {
    JsonObject out;
    out.reserve(yyjson_obj_size(value));
    std::size_t index = 0;
    std::size_t most = 0;
    yyjson_val* key = nullptr;
    yyjson_val* item = nullptr;
    yyjson_obj_foreach(value, index, most, key, item) {
      auto converted = convert(item, depth + 1);
      if (!converted) { return converted; }
      const std::string_view name(yyjson_get_str(key), yyjson_get_len(key));
      if (last_of_twice_) {
        out[name] = std::move(*converted);
      } else if (!out.emplace(name, std::move(*converted)).second) {
        return fail(Error{.kind = ErrorKind::invalid,
                          .message = fmt::format("key {} is given twice", quote(name)),
                          .fix = "give each key once"});
      }
    }
    return Json(std::move(out));
  }

  const JsonLimits& limits_;
  bool last_of_twice_;
  std::size_t nodes_ = 0;
};

// Depth before parsing, for large texts: a value of yyjson takes 16 bytes, a "[" one. (The converter counts again;
// yyjson itself does not recurse.)
constexpr std::size_t kScanned = 64U << 10U;
bool deeper_than(std::string_view text, std::size_t limit) {
  std::size_t depth = 0;
  bool in_string = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') {
        ++i;
      } else if (c == '"') {
        in_string = false;
      }
    } else if (c == '"') {
      in_string = true;
    } else if (c == '[' || c == '{') {
      if (++depth > limit) { return true; }
    } else if ((c == ']' || c == '}') && depth > 0) {
      --depth;
    }
  }
  return false;
}

void append_escaped(std::string& out, std::string_view text) {
  out += '"';
  std::size_t start = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto c = static_cast<unsigned char>(text[i]);
    if (c >= 0x20 && c != '"' && c != '\\') { continue; }
    out.append(text.substr(start, i - start));
    start = i + 1;
    switch (c) {
      case '"': out += "\\\""; break;
      case '\\': out += "\\\\"; break;
      case '\n': out += "\\n"; break;
      case '\r': out += "\\r"; break;
      case '\t': out += "\\t"; break;
      case '\b': out += "\\b"; break;
      case '\f': out += "\\f"; break;
      default: out += fmt::format("\\u{:04x}", c);
    }
  }
  out.append(text.substr(start));
  out += '"';
}

// repr: shortest digits; exponent form when the decimal exponent is < -4 or >= 16.
void append_float(std::string& out, double value) {
  std::array<char, 40> buffer;  // NOLINT: written by to_chars
  const double size = std::fabs(value);
  const bool fixed = value == 0 || (size >= 1e-4 && size < 1e16);
  const auto [end, error] =
      std::to_chars(buffer.data(), buffer.data() + buffer.size(), value,
                    fixed ? std::chars_format::fixed : std::chars_format::scientific);
  const std::string_view text(buffer.data(), static_cast<std::size_t>(end - buffer.data()));
  out += text;  // to_chars writes e-07 as Python does
  if (fixed && text.find('.') == std::string_view::npos) { out += ".0"; }
}

void append_double(std::string& out, double value) {
  if (!std::isfinite(value)) {
    out += "null";
  } else {
    append_float(out, value);
  }
}

template <class Integer>
void append_integer(std::string& out, Integer value) {
  std::array<char, 24> buffer;  // NOLINT: written by to_chars
  const auto [end, error] = std::to_chars(buffer.data(), buffer.data() + buffer.size(), value);
  out.append(buffer.data(), static_cast<std::size_t>(end - buffer.data()));
}

void append_newline(std::string& out, int indent) {
  out += '\n';
  out.append(static_cast<std::size_t>(indent) * 2, ' ');
}

void append(std::string& out, const Json& value, bool pretty, int indent);

void append(std::string& out, const JsonObject& object, bool pretty, int indent) {
  out += '{';
  bool first = true;
  for (const auto& [key, item] : object) {
    if (!first) { out += ','; }
    first = false;
    if (pretty) { append_newline(out, indent + 1); }
    append_escaped(out, key);
    out += pretty ? ": " : ":";
    append(out, item, pretty, indent + 1);
  }
  if (pretty && !object.empty()) { append_newline(out, indent); }
  out += '}';
}

void append(std::string& out, const Json& value, bool pretty, int indent) {
  switch (value.kind()) {
    case boost::json::kind::null: out += "null"; return;
    case boost::json::kind::bool_: out += value.get_bool() ? "true" : "false"; return;
    case boost::json::kind::int64: append_integer(out, value.get_int64()); return;
    case boost::json::kind::uint64: append_integer(out, value.get_uint64()); return;
    case boost::json::kind::double_: append_double(out, value.get_double()); return;
    case boost::json::kind::string: append_escaped(out, value.get_string()); return;
    case boost::json::kind::array: {
      const auto& items = value.get_array();
      out += '[';
      bool first = true;
      for (const auto& item : items) {
        if (!first) { out += ','; }
        first = false;
        if (pretty) { append_newline(out, indent + 1); }
        append(out, item, pretty, indent + 1);
      }
      if (pretty && !items.empty()) { append_newline(out, indent); }
      out += ']';
      return;
    }
    case boost::json::kind::object: append(out, value.get_object(), pretty, indent); return;
  }
}

// One code point of (valid or not) UTF-8; invalid bytes come back as U+FFFD, one by one.
std::uint32_t next_code_point(std::string_view text, std::size_t& i) {
  const auto at = [&](std::size_t k) { return static_cast<unsigned char>(text[k]); };
  const auto lead = at(i++);
  if (lead < 0x80) { return lead; }
  int more = lead >= 0xf0 ? 3 : lead >= 0xe0 ? 2 : lead >= 0xc2 ? 1 : 0;
  if (more == 0 || lead > 0xf4) { return 0xfffd; }
  std::uint32_t point = lead & (0x3fU >> more);
  const auto start = i;
  for (; more > 0; --more) {
    if (i >= text.size() || (at(i) & 0xc0U) != 0x80U) {
      i = start;
      return 0xfffd;
    }
    point = (point << 6U) | (at(i++) & 0x3fU);
  }
  return point;
}

void append_python_string(std::string& out, std::string_view text) {
  out += '"';
  for (std::size_t i = 0; i < text.size();) {
    const auto plain = [&](std::size_t at) {
      const char c = text[at];
      return c >= 0x20 && c < 0x7f && c != '"' && c != '\\';
    };
    std::size_t end = i;
    while (end < text.size() && plain(end)) { ++end; }
    out.append(text.substr(i, end - i));
    i = end;
    if (i == text.size()) { break; }
    const auto point = next_code_point(text, i);
    switch (point) {
      case '"': out += "\\\""; continue;
      case '\\': out += "\\\\"; continue;
      case '\n': out += "\\n"; continue;
      case '\r': out += "\\r"; continue;
      case '\t': out += "\\t"; continue;
      case '\b': out += "\\b"; continue;
      case '\f': out += "\\f"; continue;
      default: break;
    }
    if (point >= 0x20 && point < 0x7f) {
      out += static_cast<char>(point);
    } else if (point < 0x10000) {
      out += fmt::format("\\u{:04x}", point);
    } else {
      const auto rest = point - 0x10000;
      out += fmt::format("\\u{:04x}\\u{:04x}", 0xd800 + (rest >> 10U), 0xdc00 + (rest & 0x3ffU));
    }
  }
  out += '"';
}

void append_python(std::string& out, const Json& value, bool sorted) {
  switch (value.kind()) {
    case boost::json::kind::double_: {
      const double d = value.get_double();
      if (std::isnan(d)) {
        out += "NaN";
      } else if (std::isinf(d)) {
        out += d > 0 ? "Infinity" : "-Infinity";
      } else {
        append_float(out, d);
      }
      return;
    }
    case boost::json::kind::string: append_python_string(out, value.get_string()); return;
    case boost::json::kind::array: {
      out += '[';
      bool first = true;
      for (const auto& item : value.get_array()) {
        if (!first) { out += ", "; }
        first = false;
        append_python(out, item, sorted);
      }
      out += ']';
      return;
    }
    case boost::json::kind::object: {
      out += '{';
      bool first = true;
      const auto member = [&](const boost::json::key_value_pair& pair) {
        if (!first) { out += ", "; }
        first = false;
        append_python_string(out, pair.key());
        out += ": ";
        append_python(out, pair.value(), sorted);
      };
      if (sorted) {
        // UTF-8 byte order is code point order, which is how Python sorts text.
        std::vector<const boost::json::key_value_pair*> pairs;
        for (const auto& pair : value.get_object()) { pairs.push_back(&pair); }
        std::ranges::sort(pairs, {},
                          [](const auto* pair) { return std::string_view(pair->key()); });
        for (const auto* pair : pairs) { member(*pair); }
      } else {
        for (const auto& pair : value.get_object()) { member(pair); }
      }
      out += '}';
      return;
    }
    default: append(out, value, false, 0);
  }
}

constexpr std::size_t kReserved = 512;

Result<Json> parse(std::string_view text, const JsonLimits& limits, bool last_of_twice) {
  if (text.size() > limits.bytes) {
    return fail(Error{.kind = ErrorKind::too_large,
                      .message = fmt::format("{} bytes of JSON, at most {} are read", text.size(),
                                             limits.bytes)});
  }
  if (text.size() > kScanned && deeper_than(text, limits.depth)) {
    return fail(ErrorKind::invalid,
                fmt::format("JSON is nested deeper than {} levels", limits.depth));
  }
  yyjson_read_err error{};
  // yyjson copies the input when the in-situ flag is absent, so the const_cast never writes.
  yyjson_doc* doc = yyjson_read_opts(const_cast<char*>(text.data()), text.size(),
                                     YYJSON_READ_ALLOW_INF_AND_NAN, nullptr, &error);
  if (doc == nullptr) {
    return fail(ErrorKind::invalid, fmt::format("not JSON at byte {}: {}", error.pos,
                                                error.msg == nullptr ? "empty" : error.msg));
  }
  auto out = Converter(limits, last_of_twice).convert(yyjson_doc_get_root(doc), 0);
  yyjson_doc_free(doc);
  return out;
}

}  // namespace

Result<Json> parse_json(std::string_view text, const JsonLimits& limits) {
  return parse(text, limits, false);
}
Result<Json> parse_python_json(std::string_view text) { return parse(text, {}, true); }

std::string dump_json(const Json& value, JsonStyle style) {
  std::string out;
  if (value.is_structured()) { out.reserve(kReserved); }
  append(out, value, style == JsonStyle::pretty, 0);
  return out;
}

std::string dump_object(const JsonObject& object) {
  std::string out;
  out.reserve(kReserved);
  append(out, object, false, 0);
  return out;
}

bool add_member_text(std::string& object, std::string_view parent, std::string_view member) {
  const auto key = "\"" + std::string(parent) + "\":{";
  std::size_t depth = 0;
  bool inside = false;
  for (std::size_t i = 0; i < object.size(); ++i) {
    switch (object[i]) {
      case '"': {
        if (depth == 1 && !inside && object.compare(i, key.size(), key) == 0) {
          inside = true;  // what follows at depth 2 is the member's
          i += key.size() - 2;
          break;
        }
        for (++i; i < object.size() && object[i] != '"'; ++i) {
          if (object[i] == '\\') { ++i; }
        }
        break;
      }
      case '{':
      case '[': ++depth; break;
      case '}':
      case ']':
        if (inside && depth == 2) {
          object.insert(i, (object[i - 1] == '{' ? "" : ",") + std::string(member));
          return true;
        }
        if (depth == 0) { return false; }
        --depth;
        break;
      default: break;
    }
  }
  return false;
}

void dump_json_to(std::string& out, const Json& value) { append(out, value, false, 0); }

std::string dump_python_json(const Json& value) {
  std::string out;
  append_python(out, value, true);
  return out;
}

std::string dump_python_ordered(const Json& value) {
  std::string out;
  if (value.is_structured()) { out.reserve(kReserved); }
  append_python(out, value, false);
  return out;
}

std::string python_float(double value) {
  std::string out;
  append_float(out, value);
  return out;
}

const JsonObject* object_in(const JsonObject& object, std::string_view key) {
  const auto* value = object.if_contains(key);
  return value == nullptr ? nullptr : value->if_object();
}
JsonObject* object_in(JsonObject& object, std::string_view key) {
  auto* value = object.if_contains(key);
  return value == nullptr ? nullptr : value->if_object();
}
const JsonArray* array_in(const JsonObject& object, std::string_view key) {
  const auto* value = object.if_contains(key);
  return value == nullptr ? nullptr : value->if_array();
}
std::string_view string_in(const JsonObject& object, std::string_view key,
                           std::string_view fallback) {
  const auto* value = object.if_contains(key);
  const auto* text = value == nullptr ? nullptr : value->if_string();
  return text == nullptr ? fallback : std::string_view(*text);
}
std::optional<std::int64_t> int_in(const JsonObject& object, std::string_view key) {
  const auto* value = object.if_contains(key);
  if (value == nullptr || !value->is_int64()) { return std::nullopt; }
  return value->get_int64();
}
bool bool_in(const JsonObject& object, std::string_view key, bool fallback) {
  const auto* value = object.if_contains(key);
  return value != nullptr && value->is_bool() ? value->get_bool() : fallback;
}
JsonObject& ensure_object(JsonObject& object, std::string_view key) {
  auto& value = object[key];
  if (!value.is_object()) { value = JsonObject{}; }
  return value.get_object();
}
JsonArray& ensure_array(JsonObject& object, std::string_view key) {
  auto& value = object[key];
  if (!value.is_array()) { value = JsonArray{}; }
  return value.get_array();
}

const Json* find_path(const JsonObject& root, std::string_view dotted) {
  const auto dot = dotted.find('.');
  const auto* value = root.if_contains(dotted.substr(0, dot));
  if (value == nullptr || dot == std::string_view::npos) { return value; }
  return find_path(*value, dotted.substr(dot + 1));
}
const Json* find_path(const Json& root, std::string_view dotted) {
  const auto* object = root.if_object();
  return object == nullptr ? nullptr : find_path(*object, dotted);
}
std::string_view string_at(const Json& root, std::string_view dotted, std::string_view fallback) {
  const auto* value = find_path(root, dotted);
  const auto* text = value == nullptr ? nullptr : value->if_string();
  return text == nullptr ? fallback : std::string_view(*text);
}

namespace {

// Of nested lists and objects: 0 for a number. At most `most` are counted.
std::size_t depth_of(const Json& value, std::size_t most) {
  std::size_t deepest = 0;
  if (most == 0) { return 0; }
  if (const auto* array = value.if_array()) {
    for (const auto& one : *array) { deepest = std::max(deepest, depth_of(one, most - 1)); }
    return deepest + 1;
  }
  if (const auto* object = value.if_object()) {
    for (const auto& member : *object) {
      deepest = std::max(deepest, depth_of(member.value(), most - 1));
    }
    return deepest + 1;
  }
  return 0;
}

}  // namespace

Result<void> set_dotted(JsonObject& root, std::string_view path, Json value) {
  std::vector<std::string> parts(1);
  bool literal = false;
  for (const char c : path) {
    if (c == '\\') {
      literal = !literal;
    } else if (c == '.' && !literal) {
      parts.emplace_back();
    } else {
      parts.back() += c;
    }
  }
  const std::size_t most = JsonLimits{}.depth;
  if (parts.size() + depth_of(value, most) > most) {
    return fail(invalid(std::string(path.substr(0, 64)) + (path.size() > 64 ? "…" : ""),
                        fmt::format("makes a document of more than {} levels", most),
                        "send a path with fewer dots, or put a literal key between backslashes"));
  }
  auto* object = &root;
  for (std::size_t i = 0; i + 1 < parts.size(); ++i) { object = &ensure_object(*object, parts[i]); }
  (*object)[parts.back()] = std::move(value);
  return {};
}

std::string_view type_name(const Json& value) {
  switch (value.kind()) {
    case boost::json::kind::null: return "null";
    case boost::json::kind::bool_: return "boolean";
    case boost::json::kind::int64:
    case boost::json::kind::uint64: return "integer";
    case boost::json::kind::double_: return "number";
    case boost::json::kind::string: return "text";
    case boost::json::kind::array: return "list";
    case boost::json::kind::object: return "object";
  }
  return "value";
}

bool is_empty_value(const Json& value) {
  if (const auto* array = value.if_array()) { return array->empty(); }
  if (const auto* object = value.if_object()) { return object->empty(); }
  return value.is_null();
}

}  // namespace metier
