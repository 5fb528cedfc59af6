// Environment variables of functions.
#include <algorithm>
#include <cctype>
#include <map>

#include "base/files.h"
#include "base/text.h"
#include "model/attributes.h"
#include "model/kinds.h"
#include "model/python_text.h"

namespace metier {
namespace {

JsonObject* find_env(JsonArray& env, std::string_view name) {
  for (Json& entry : env) {
    if (entry.is_object() && string_in(entry.get_object(), "name") == name) {
      return &entry.get_object();
    }
  }
  return nullptr;
}

void put_env(Function& function, JsonObject entry) {
  JsonArray& env = ensure_array(function.spec(), "env");
  if (JsonObject* old = find_env(env, string_in(entry, "name"))) {
    *old = std::move(entry);
  } else {
    env.push_back(std::move(entry));
  }
}

class DotenvReader {
 public:
  Result<std::vector<std::pair<std::string, std::string>>> read(std::string_view text) {
    text_ = text;
    while (at_ < text_.size()) { METIER_CHECK(line()); }
    return std::move(out_);
  }

 private:
  static constexpr std::size_t kMostValues = 100'000;

  char peek() const { return at_ < text_.size() ? text_[at_] : '\n'; }
  void skip_blanks() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\t')) { ++at_; }
  }
  void skip_line() {
    while (at_ < text_.size() && text_[at_] != '\n') { ++at_; }
    at_ += at_ < text_.size() ? 1 : 0;
    ++line_;
  }

  Result<void> line() {
    skip_blanks();
    if (peek() == '\n' || peek() == '\r' || peek() == '#') {
      skip_line();
      return {};
    }
    std::size_t start = at_;
    while (at_ < text_.size() && text_[at_] != '=' && text_[at_] != '\n') { ++at_; }
    std::string_view name = trim(text_.substr(start, at_ - start));
    if (name.starts_with("export ")) { name = trim(name.substr(7)); }
    if (peek() != '=' || name.empty()) {
      return fail(
          invalid("line " + std::to_string(line_), "a line without '='", "write NAME=value"));
    }
    ++at_;
    METIER_TRY(text, value());
    if (out_.size() >= kMostValues) {
      return fail(
          invalid("", "the file has more than " + std::to_string(kMostValues) + " variables"));
    }
    known_[std::string(name)] = text;
    out_.emplace_back(std::string(name), std::move(text));
    skip_line();
    return {};
  }

  Result<std::string> value() {
    skip_blanks();
    const char quote_mark = peek();
    if (quote_mark == '"' || quote_mark == '\'') { return quoted(quote_mark); }
    const std::size_t start = at_;
    std::size_t end = at_;
    while (end < text_.size() && text_[end] != '\n') {
      if (text_[end] == '#' && end > start && (text_[end - 1] == ' ' || text_[end - 1] == '\t')) {
        break;
      }
      ++end;
    }
    at_ = end;
    return expand(trim(text_.substr(start, end - start)));
  }

  Result<std::string> quoted(char mark) {
    const std::size_t began = line_;
    std::string text;
    for (++at_; at_ < text_.size(); ++at_) {
      const char c = text_[at_];
      if (c == mark) {
        ++at_;
        return mark == '"' ? expand(text) : text;
      }
      line_ += c == '\n' ? 1 : 0;
      if (c == '\\' && at_ + 1 < text_.size()) {
        text += unescaped(mark, text_[++at_]);
        continue;
      }
      text += c;
    }
    return fail(invalid("line " + std::to_string(began), "a quote is not closed"));
  }

  static std::string unescaped(char mark, char c) {
    if (c == '\\' || c == '\'' || c == '"') {
      return (mark == '\'' && c == '"') ? std::string("\\\"") : std::string(1, c);
    }
    if (mark == '"') {
      switch (c) {
        case 'n': return "\n";
        case 't': return "\t";
        case 'r': return "\r";
        default: break;
      }
    }
    return std::string("\\") + c;
  }

  // ${NAME} and ${NAME:-default} of earlier lines; the environment of the reader is not consulted.
  std::string expand(std::string_view text) const {
    std::string out;
    while (!text.empty()) {
      const std::size_t start = text.find("${");
      const std::size_t end = start == std::string_view::npos ? start : text.find('}', start);
      if (end == std::string_view::npos) { break; }
      out += text.substr(0, start);
      std::string_view name = text.substr(start + 2, end - start - 2);
      std::string_view fallback;
      if (const std::size_t at = name.find(":-"); at != std::string_view::npos) {
        fallback = name.substr(at + 2);
        name = name.substr(0, at);
      }
      const auto known = known_.find(name);
      out += known != known_.end() ? std::string_view(known->second) : fallback;
      text.remove_prefix(end + 1);
    }
    return out + std::string(text);
  }

  std::string_view text_;
  std::size_t at_ = 0;
  std::size_t line_ = 1;
  std::map<std::string, std::string, std::less<>> known_;
  std::vector<std::pair<std::string, std::string>> out_;
};

}  // namespace

Result<void> set_env(Function& function, std::string_view name, const Json& value,
                     const Json& value_from) {
  if (name.empty() || name.find('=') != std::string_view::npos ||
      name.find('\0') != std::string_view::npos) {
    return fail(
        invalid("spec.env", quote(name) + " is not a name of a variable", "a text without '='"));
  }
  JsonObject entry{{"name", name}};
  if (!value.is_null()) {
    entry["value"] = python_text(value);
  } else if (!value_from.is_null()) {
    if (!value_from.is_object()) {
      return fail(invalid("spec.env." + std::string(name) + ".valueFrom",
                          "expected an object, got a " + std::string(type_name(value_from)),
                          "write {secretKeyRef: {name: SECRET, key: KEY}}"));
    }
    entry["valueFrom"] = value_from;
  }
  put_env(function, std::move(entry));
  return {};
}

Result<void> set_envs(Function& function, const JsonObject* variables,
                      const std::optional<std::filesystem::path>& file) {
  if ((variables == nullptr) == !file.has_value()) {
    return fail(invalid(
        "set_envs",
        std::string("must specify env_vars or file_path, got ") + (file ? "both" : "neither"),
        "give exactly one of both"));
  }
  Function changed = function;
  if (variables != nullptr) {
    for (const auto& variable : *variables) {
      METIER_CHECK(set_env(changed, variable.key(), variable.value()));
    }
  } else {
    auto text = read_file(*file, 1U << 20U);
    if (!text) { return fail(std::move(text.error()).at("file_path")); }
    auto parsed = parse_dotenv(*text);
    if (!parsed) { return fail(std::move(parsed.error()).at(file->string())); }
    for (const auto& [name, value] : *parsed) { METIER_CHECK(set_env(changed, name, Json(value))); }
  }
  function = std::move(changed);
  return {};
}

Result<void> set_env_from_secret(Function& function, std::string_view name, std::string_view secret,
                                 std::string_view key) {
  const std::string_view used = key.empty() ? name : key;
  return set_env(function, name, nullptr,
                 JsonObject{{"secretKeyRef", JsonObject{{"name", secret}, {"key", used}}}});
}

Result<void> set_env_from_secret_ref(Function& function, std::string_view secret) {
  if (!has_pod_spec(function.kind())) {
    return fail(Error{
        .kind = ErrorKind::unsupported,
        .message = "kind " + quote(canonical_kind(function.kind())) + " takes no secret as a whole",
        .field = "spec.env_from",
        .fix = "name its keys: set_env_from_secret, or choose kind job"});
  }
  if (secret.empty()) {
    return fail(invalid("spec.env_from", "the secret has no name", "give the name of a secret"));
  }
  const Json entry(JsonObject{{"secretRef", JsonObject{{"name", secret}}}});
  JsonArray& list = ensure_array(function.spec(), "env_from");
  if (std::ranges::find(list, entry) == list.end()) { list.push_back(entry); }
  return {};
}

std::optional<Json> get_env(const Function& function, std::string_view name) {
  const JsonArray* env = array_in(function.spec(), "env");
  for (const Json& entry : env == nullptr ? JsonArray{} : *env) {
    if (entry.is_object() && string_in(entry.get_object(), "name") == name) {
      if (const Json* value = entry.get_object().if_contains("value")) { return *value; }
      const Json* source = entry.get_object().if_contains("valueFrom");
      return source == nullptr ? Json(nullptr) : *source;
    }
  }
  return std::nullopt;
}

Result<std::vector<std::pair<std::string, std::string>>> parse_dotenv(std::string_view text) {
  return DotenvReader().read(text);
}

}  // namespace metier
