// YAML in and out, by way of Json. Plain scalars are resolved as PyYAML (YAML 1.1) resolves them, because
// MLRun's files are written and read by it; tags other than the standard scalar ones are refused and
// nothing is ever constructed from them.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"

namespace metier {

struct YamlLimits {
  std::size_t bytes = 16U << 20U;
  std::size_t depth = 64;
  std::size_t nodes = 1'000'000;  // after alias expansion
};

// All documents of the text (none for an empty one). Errors: invalid with line and column.
Result<std::vector<Json>> parse_yaml_all(std::string_view text, const YamlLimits& limits = {});
// Exactly one document.
Result<Json> parse_yaml(std::string_view text, const YamlLimits& limits = {});
std::string dump_yaml(const Json& value);

}  // namespace metier
