#include "model/nuclio/inline.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/text.h"
#include "base/yaml.h"

namespace metier::nuclio {
namespace {

constexpr std::string_view kMark = "@nuclio.configure";
constexpr std::string_view kFile = "function.yaml";

// The text behind '#', or nullopt for a line that is no comment.
std::optional<std::string_view> comment(std::string_view line) {
  const std::size_t begin = line.find_first_not_of(" \t");
  if (begin == std::string_view::npos || line[begin] != '#') { return std::nullopt; }
  std::string_view text = line.substr(begin + 1);
  while (text.ends_with('\r') || text.ends_with(' ')) { text.remove_suffix(1); }
  return text;
}

// What `above` does not say is taken from `below`; lists are not merged.
void fill_from(JsonObject& above, const JsonObject& below) {
  for (const auto& member : below) {
    Json* own = above.if_contains(member.key());
    if (own == nullptr || own->is_null()) {
      above[member.key()] = member.value();
    } else if (own->is_object() && member.value().is_object()) {
      fill_from(own->get_object(), member.value().get_object());
    }
  }
}

Error wrong(std::size_t line, std::string message, std::string fix) {
  return invalid(std::string(kMark), fmt::format("line {}: {}", line, message), std::move(fix));
}

}  // namespace

Result<std::optional<JsonObject>> inline_document(std::string_view code) {
  std::optional<JsonObject> out;
  if (code.find(kMark) == std::string_view::npos) { return out; }
  std::string block;
  std::size_t begun = 0;  // the line of the mark, 0 outside a block
  std::size_t number = 0;
  const auto finish = [&]() -> Result<void> {
    if (begun == 0) { return {}; }
    const std::size_t at = std::exchange(begun, 0);
    auto parsed = parse_yaml(block);
    if (!parsed) {
      return fail(wrong(at, "the block is no YAML: " + parsed.error().text(),
                        "write function.yaml: and the document below it, each line behind a #"));
    }
    const JsonObject* document =
        parsed->is_object() ? object_in(parsed->get_object(), kFile) : nullptr;
    if (document == nullptr) {
      return fail(wrong(at, "the block has no function.yaml",
                        "write function.yaml: and the document below it, each line behind a #"));
    }
    for (const auto& member : parsed->get_object()) {
      if (std::string_view(member.key()) != kFile) {
        return fail(wrong(at, quote(member.key()) + " is no part of the block",
                          "it holds function.yaml only"));
      }
    }
    if (out) { return fail(wrong(at, "a source has one such block at most", "put both into one")); }
    out = *document;
    return {};
  };
  for (const std::string& line : split_text(code, '\n')) {
    ++number;
    const auto text = comment(line);
    const bool mark = text && trim(*text) == kMark;
    if (begun != 0 && (!text || mark)) { METIER_CHECK(finish()); }
    if (mark) {
      begun = number;
      block.clear();
    } else if (begun != 0) {
      block.append(*text).append("\n");
    }
  }
  METIER_CHECK(finish());
  return out;
}

Result<std::optional<Function>> with_inline(const Function& function) {
  std::optional<Function> out;
  if (function.text("build.functionSourceCode").empty()) { return out; }
  METIER_TRY(code, function.code());
  METIER_TRY(document, inline_document(code));
  if (!document) { return out; }
  out = function;
  JsonObject& spec = out->spec();
  fill_from(ensure_object(spec, "base_spec"), *document);
  // Environments are made of the function's own build.
  const JsonObject* inside = object_in(*document, "spec");
  const JsonObject* build = inside == nullptr ? nullptr : object_in(*inside, "build");
  for (const char* key : {"commands", "requirements"}) {
    const JsonArray* list = build == nullptr ? nullptr : array_in(*build, key);
    if (list == nullptr) { continue; }
    JsonArray& own = ensure_array(ensure_object(spec, "build"), key);
    for (const Json& item : *list) {
      if (std::ranges::find(own, item) == own.end()) { own.push_back(item); }
    }
  }
  return out;
}

}  // namespace metier::nuclio
