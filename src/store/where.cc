#include "store/sqlite_records.h"

namespace metier {
namespace {

// LIKE with the wildcards of the text escaped: a "contains" that nobody can widen.
std::string contains(std::string_view text) {
  std::string out = "%";
  for (const char c : text) {
    if (c == '%' || c == '_' || c == '\\') { out += '\\'; }
    out += c;
  }
  return out + "%";
}

}  // namespace

void Where::name(const std::string& column, const std::string& value) {
  if (value.starts_with('~')) {
    add(column + " LIKE ? ESCAPE '\\'", contains(std::string_view(value).substr(1)));
  } else {
    add(column + " = ?", value);
  }
}

void Where::label(const std::string& id, const std::string& table, const std::string& owner_column,
                  const std::string& condition, Lookup lookup) {
  const auto equals = condition.find('=');
  const auto key = condition.substr(0, equals);
  std::string inner =
      lookup == Lookup::in
          ? id + " IN (SELECT " + owner_column + " FROM " + table + " WHERE "
          : "EXISTS (SELECT 1 FROM " + table + " WHERE " + owner_column + " = " + id + " AND ";
  std::vector<std::string> bound;
  auto part = [&](const std::string& column, const std::string& value) {
    if (value.starts_with('~')) {
      inner += column + " LIKE ? ESCAPE '\\'";
      bound.push_back(contains(std::string_view(value).substr(1)));
    } else {
      inner += column + " = ?";
      bound.push_back(value);
    }
  };
  part("name", key);
  if (equals != std::string::npos) {
    inner += " AND ";
    part("value", condition.substr(equals + 1));
  }
  add(inner + ")");
  for (auto& value : bound) { also(std::move(value)); }
}

void Where::append(const Where& other) {
  if (other.text_.empty()) { return; }
  text_ += text_.empty() ? other.text_
                         : " AND " + other.text_.substr(std::string_view(" WHERE ").size());
  values_.insert(values_.end(), other.values_.begin(), other.values_.end());
}

void Where::any_of(const std::string& column, const std::vector<std::string>& values) {
  if (values.empty()) { return; }
  std::string marks = "?";
  for (std::size_t i = 1; i < values.size(); ++i) { marks += ",?"; }
  add(column + " IN (" + marks + ")");
  for (const auto& value : values) { also(value); }
}

void Where::bind(Query& query) const {
  for (const auto& value : values_) {
    if (const auto* text = std::get_if<std::string>(&value)) {
      query.bind(*text);
    } else {
      query.bind(std::get<std::int64_t>(value));
    }
  }
}

}  // namespace metier
