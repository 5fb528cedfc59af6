#include "resource/pod_reader.h"

namespace metier {

const Json* Reader::find(std::string_view key) const {
  const auto* value = object_.if_contains(key);
  return value == nullptr || value->is_null() ? nullptr : value;
}

void Reader::wrong_type(std::string_view field, const Json& value,
                        std::string_view expected) const {
  problems_.add(field, fmt::format("expected {}, got {}", expected, type_name(value)));
}

std::string Reader::text(std::string_view key) const {
  const auto* value = find(key);
  if (value == nullptr) { return {}; }
  if (!value->is_string()) {
    wrong_type(at(key), *value, "text");
    return {};
  }
  const std::string_view out = value->get_string();
  if (out.find('\0') != std::string_view::npos) {
    problems_.add(at(key), "it has a NUL character in it",
                  "leave it away: programs read text up to the first NUL");
  }
  return std::string(out);
}

std::optional<std::int64_t> Reader::integer(std::string_view key, std::int64_t least,
                                            std::int64_t most) const {
  const auto* value = find(key);
  if (value == nullptr) { return std::nullopt; }
  const auto number = int_in(object_, key);
  if (!number) {
    wrong_type(at(key), *value, "integer");
    return std::nullopt;
  }
  if (*number < least || *number > most) {
    problems_.add(at(key), fmt::format("{} is out of range", *number),
                  most == INT64_MAX || most == INT32_MAX
                      ? fmt::format("at least {}", least)
                      : fmt::format("from {} to {}", least, most));
    return std::nullopt;
  }
  return number;
}

bool Reader::boolean(std::string_view key) const {
  const auto* value = find(key);
  if (value == nullptr) { return false; }
  if (!value->is_bool()) {
    wrong_type(at(key), *value, "boolean");
    return false;
  }
  return value->get_bool();
}

std::vector<std::string> Reader::texts(std::string_view key) const {
  std::vector<std::string> out;
  const auto* value = find(key);
  if (value == nullptr) { return out; }
  if (!value->is_array()) {
    wrong_type(at(key), *value, "list");
    return out;
  }
  const auto& list = value->get_array();
  for (std::size_t i = 0; i < list.size(); ++i) {
    if (!list[i].is_string()) {
      wrong_type(at(key, i), list[i], "text");
      continue;
    }
    const std::string_view entry = list[i].get_string();
    if (entry.find('\0') != std::string_view::npos) {
      problems_.add(at(key, i), "it has a NUL character in it");
    }
    out.emplace_back(entry);
  }
  return out;
}

std::optional<Reader> Reader::object_at(std::string_view key) const {
  const auto* value = find(key);
  if (value == nullptr) { return std::nullopt; }
  if (!value->is_object()) {
    wrong_type(at(key), *value, "object");
    return std::nullopt;
  }
  return Reader(value->get_object(), at(key), problems_);
}

std::vector<Reader> Reader::objects_at(std::string_view key) const {
  std::vector<Reader> out;
  const auto* value = find(key);
  if (value == nullptr) { return out; }
  if (!value->is_array()) {
    wrong_type(at(key), *value, "list");
    return out;
  }
  const auto& list = value->get_array();
  for (std::size_t i = 0; i < list.size(); ++i) {
    if (list[i].is_object()) {
      out.emplace_back(list[i].get_object(), at(key, i), problems_);
    } else {
      wrong_type(at(key, i), list[i], "object");
    }
  }
  return out;
}

}  // namespace metier
