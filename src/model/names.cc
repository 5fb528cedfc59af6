#include "model/names.h"

#include <algorithm>
#include <array>
#include <charconv>

#include "base/digest.h"
#include "base/text.h"
#include "resource/resource.h"

namespace metier {
namespace {

bool is_alnum(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}
bool is_name_char(char c) { return is_alnum(c) || c == '-' || c == '_' || c == '.'; }

bool is_name(std::string_view name) {
  return !name.empty() && std::ranges::all_of(name, is_name_char) && is_alnum(name.front()) &&
         is_alnum(name.back());
}

constexpr std::string_view kNameRule =
    "at most 63 letters, digits, '-', '_' or '.', with a letter or digit at both ends";

Result<std::int64_t> iteration_of(std::string_view text, std::string_view whole) {
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size() || value < 0) {
    return fail(invalid("", "iteration " + quote(text) + " of " + quote(whole) + " is not a number",
                        "write #0, #1, …"));
  }
  return value;
}

// Cuts `text` at the first `mark` and gives what follows it.
std::string cut_after(std::string_view& text, char mark) {
  const std::size_t at = text.find(mark);
  if (at == std::string_view::npos) { return {}; }
  std::string rest(text.substr(at + 1));
  text = text.substr(0, at);
  return rest;
}

}  // namespace

std::string normalize_name(std::string_view name) {
  std::string out = lower_case(name);
  std::ranges::replace(out, '_', '-');
  std::ranges::replace(out, ' ', '-');
  return out;
}

Result<void> check_name(std::string_view name, std::string_view field, std::string_view what) {
  if (name.empty()) {
    return fail(invalid(field, std::string(what) + " is missing", std::string(kNameRule)));
  }
  if (name.size() > 63) {
    return fail(invalid(field,
                        quote(name) + " is " + std::to_string(name.size()) + " characters long",
                        std::string(kNameRule)));
  }
  if (!is_name(name)) {
    return fail(
        invalid(field, quote(name) + " is not a " + std::string(what), std::string(kNameRule)));
  }
  return {};
}

Result<void> check_project_name(std::string_view name, std::string_view field) {
  if (!is_dns_label(name)) {
    return fail(invalid(
        field, quote(name) + " is not a project name",
        "at most 63 lower-case letters, digits or '-', with a letter or digit at both ends"));
  }
  return {};
}

Result<void> check_label_value(std::string_view value, std::string_view field) {
  if (!is_label_value(value)) {
    return fail(invalid(field, quote(value) + " is not a label value", std::string(kNameRule)));
  }
  return {};
}

Result<void> check_label_key(std::string_view key, std::string_view field) {
  const std::size_t slash = key.find('/');
  const std::string_view prefix =
      slash == std::string_view::npos ? std::string_view{} : key.substr(0, slash);
  if (prefix == "k8s.io" || prefix.ends_with(".k8s.io")) {
    return fail(
        invalid(field, quote(key) + " is reserved for Kubernetes", "use a prefix of your own"));
  }
  if (!is_label_key(key)) {
    return fail(
        invalid(field, quote(key) + " is not a label key",
                "[prefix/]name: the prefix a DNS name of at most 253 characters, the name " +
                    std::string(kNameRule)));
  }
  return {};
}

Result<void> check_artifact_key(std::string_view key, std::string_view field) {
  if (!is_name(key)) {
    return fail(invalid(field, quote(key) + " is not an artifact key",
                        "letters, digits, '-', '_' or '.', with a letter or digit at both ends"));
  }
  return {};
}

Result<FunctionUri> parse_function_uri(std::string_view text, std::string_view default_project) {
  constexpr std::string_view kFix = "write [project/]name[:tag] or [project/]name@hash";
  std::string_view rest = text;
  if (rest.starts_with("db://")) { rest.remove_prefix(5); }
  if (rest.contains("://")) {
    return fail(
        invalid("", quote(text) + " is not the URI of a stored function", std::string(kFix)));
  }
  FunctionUri uri;
  uri.hash = cut_after(rest, '@');
  uri.tag = cut_after(rest, ':');
  if (!uri.hash.empty() && uri.hash.contains(':')) {  // name@hash:tag is not a form of MLRun's
    return fail(invalid("", quote(text) + " has a tag behind the hash", std::string(kFix)));
  }
  const std::size_t slash = rest.find('/');
  uri.project =
      std::string(slash == std::string_view::npos ? default_project : rest.substr(0, slash));
  if (slash == 0) {
    return fail(invalid("", quote(text) + " has no project before the slash", std::string(kFix)));
  }
  uri.name = std::string(slash == std::string_view::npos ? rest : rest.substr(slash + 1));
  if (auto named = check_name(uri.name, "", "function name"); !named) {
    return fail(std::move(named.error()).in(quote(text)));
  }
  return uri;
}

std::string function_uri(const FunctionUri& uri) {
  std::string out = uri.project.empty() ? uri.name : uri.project + "/" + uri.name;
  if (!uri.hash.empty()) { return out + "@" + uri.hash; }
  return uri.tag.empty() ? out : out + ":" + uri.tag;
}

Result<RunUri> parse_run_uri(std::string_view text) {
  std::string_view rest = text;
  RunUri uri;
  std::string tail = cut_after(rest, '@');
  std::string_view after = tail;
  std::string iteration = cut_after(after, '#');
  if (iteration.empty()) {
    uri.tag = cut_after(after, ':');
  } else {
    std::string_view number = iteration;
    uri.tag = cut_after(number, ':');
    METIER_TRY(parsed, iteration_of(number, text));
    uri.iteration = parsed;
  }
  uri.project = std::string(rest);
  uri.uid = std::string(after);
  if (uri.project.empty() || uri.uid.empty()) {
    return fail(
        invalid("", quote(text) + " is not the URI of a run", "write project@uid#iteration[:tag]"));
  }
  return uri;
}

std::string run_uri(const RunUri& uri) {
  return uri.project + "@" + uri.uid + "#" + std::to_string(uri.iteration) +
         (uri.tag.empty() ? "" : ":" + uri.tag);
}

Result<StoreUri> parse_store_uri(std::string_view text, std::string_view default_project) {
  constexpr std::array<std::string_view, 8> kKinds = {
      "artifacts",       "models",          "datasets",  "feature-sets",
      "feature-vectors", "model-endpoints", "documents", "functions"};
  std::string_view rest = text;
  if (rest.starts_with("store://")) {
    rest.remove_prefix(8);
  } else {
    return fail(invalid("", quote(text) + " is not a store:// URI",
                        "write store://<kind>/<project>/<key>[#iteration][:tag][@tree]"));
  }
  StoreUri uri;
  uri.uid = cut_after(rest, '^');
  uri.tree = cut_after(rest, '@');
  uri.tag = cut_after(rest, ':');
  if (std::string iteration = cut_after(rest, '#'); !iteration.empty()) {
    METIER_TRY(parsed, iteration_of(iteration, text));
    uri.iteration = parsed;
    uri.has_iteration = true;
  }
  if (const std::size_t slash = rest.find('/'); slash != std::string_view::npos) {
    const std::string_view first = rest.substr(0, slash);
    if (std::ranges::find(kKinds, first) != kKinds.end()) {
      uri.kind = std::string(first);
      rest.remove_prefix(slash + 1);
    } else if (first.empty()) {
      rest.remove_prefix(1);
    }
  }
  const std::size_t slash = rest.find('/');
  uri.project =
      std::string(slash == std::string_view::npos ? default_project : rest.substr(0, slash));
  uri.key = std::string(slash == std::string_view::npos ? rest : rest.substr(slash + 1));
  if (uri.key.empty() || uri.project.empty()) {
    return fail(invalid("", quote(text) + " names no key",
                        "write store://<kind>/<project>/<key>[#iteration][:tag][@tree]"));
  }
  return uri;
}

std::string store_uri(const StoreUri& uri) {
  std::string out = "store://" + uri.kind + "/" + uri.project + "/" + uri.key;
  if (uri.has_iteration) { out += "#" + std::to_string(uri.iteration); }
  if (!uri.tag.empty()) { out += ":" + uri.tag; }
  if (!uri.tree.empty()) { out += "@" + uri.tree; }
  return uri.uid.empty() ? out : out + "^" + uri.uid;
}

std::string default_run_name(std::string_view function, std::string_view handler) {
  std::string_view shortened = handler;
  for (const std::string_view mark :
       {std::string_view("#"), std::string_view("::"), std::string_view(".")}) {
    if (const std::size_t at = shortened.rfind(mark); at != std::string_view::npos) {
      shortened = shortened.substr(at + mark.size());
      break;
    }
  }
  if (shortened.empty()) { return normalize_name(function); }
  return normalize_name(function.empty() ? std::string(shortened)
                                         : std::string(function) + "-" + std::string(shortened));
}

std::string resource_name(std::string_view run_name, std::string_view uid, std::int64_t iteration,
                          std::int64_t attempt) {
  // 63 − "-" − 8 hex − "-worker-" − five digits: the longest name derived from this one fits a DNS label.
  constexpr std::size_t kLongest = 63 - 1 - 8 - 8 - 5;
  std::string base;
  for (const char c : normalize_name(run_name).substr(0, kLongest)) {
    base += (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ? c : '-';
  }
  const std::size_t start = base.find_first_not_of('-');
  base = start == std::string::npos ? "run"
                                    : base.substr(start, base.find_last_not_of('-') - start + 1);
  const std::string seed =
      std::string(uid) + "/" + std::to_string(iteration) + "/" + std::to_string(attempt);
  return base + "-" + sha256_hex(seed).substr(0, 8);
}

}  // namespace metier
