// Reads typed fields of a document and collects every problem with its path. Private to the room.
#pragma once

#include <fmt/format.h>

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/result.h"

namespace metier {

class Problems final {
 public:
  static constexpr std::size_t kMost = 20;
  void add(Error error) {
    if (list_.size() < kMost) { list_.push_back(std::move(error)); }
  }
  void add(std::string_view field, std::string message, std::string fix = {}) {
    add(invalid(field, std::move(message), std::move(fix)));
  }
  bool empty() const { return list_.empty(); }
  std::vector<Error>& list() { return list_; }

 private:
  std::vector<Error> list_;
};

// One object of the document and the path to it. An absent field and a null one are the same, as in Kubernetes.
class Reader final {
 public:
  Reader(const JsonObject& object, std::string path, Problems& problems)
      : object_(object), path_(std::move(path)), problems_(problems) {}

  std::string at(std::string_view key) const {
    return path_.empty() ? std::string(key) : fmt::format("{}.{}", path_, key);
  }
  std::string at(std::string_view key, std::size_t index) const {
    return fmt::format("{}[{}]", at(key), index);
  }
  const std::string& path() const { return path_; }
  const JsonObject& object() const { return object_; }
  Problems& problems() const { return problems_; }
  bool has(std::string_view key) const { return find(key) != nullptr; }
  const Json* find(std::string_view key) const;

  std::string text(std::string_view key) const;
  std::optional<std::int64_t> integer(std::string_view key, std::int64_t least,
                                      std::int64_t most) const;
  bool boolean(std::string_view key) const;
  std::vector<std::string> texts(std::string_view key) const;
  std::optional<Reader> object_at(std::string_view key) const;
  std::vector<Reader> objects_at(std::string_view key) const;

  void wrong_type(std::string_view field, const Json& value, std::string_view expected) const;

 private:
  const JsonObject& object_;
  std::string path_;
  Problems& problems_;
};

}  // namespace metier
