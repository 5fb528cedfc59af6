// The nine kinds as documents: names, aliases, default specs and which fields a stripped export leaves out.
// Values are those that MLRun 1.12 writes for `new_function(kind=…)`.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "base/json.h"

namespace metier {

struct KindName {
  std::string kind;           // as stored: "job", "remote" (MLRun's word for nuclio), "serving", …
  std::string function_kind;  // nuclio:<sub> → sub; "serving_v2" for serving; else empty
};

// handler local job dask mpijob spark remote-spark nuclio serving
std::span<const std::string_view> kind_names();
// What is said of a kind that is none of `kinds`: the nearest and the list; for a SparkApplication what to write instead.
Error unknown_kind(std::string_view text, std::string_view field,
                   std::span<const std::string_view> kinds);
// "nuclio" and "nuclio:<sub>" become "remote"; "" stays "".
// Errors: as `unknown_kind` says.
Result<KindName> resolve_kind(std::string_view text, std::string_view field = "kind");
// The kind's one name: "remote" → "nuclio", "" → "local".
std::string_view canonical_kind(std::string_view kind);

bool is_local_kind(std::string_view kind);   // "", local, handler
bool is_nuclio_kind(std::string_view kind);  // remote, nuclio, serving
bool has_pod_spec(std::string_view kind);    // volumes, env, resources … mean something

// The spec of a new function of that kind.
JsonObject default_spec(std::string_view kind);
// Environment-specific fields of the spec that a stripped export leaves out.
std::span<const std::string_view> stripped_spec_fields(std::string_view kind);
// Fields that to_dict keeps although they are null or empty.
bool survives_empty(std::string_view spec_field);
// Every field of the spec that we know for that kind, for "did you mean".
std::vector<std::string> known_spec_fields(std::string_view kind);

}  // namespace metier
