// Nuclio's function document (NuclioFunction, nuclio.io/v1beta1), read whole: which fields there are, of which type,
// and what becomes of each here. Source: nuclio-processor reference 1.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"

namespace metier::nuclio {

struct Remark {  // a field that is accepted and has no effect here
  std::string field;
  std::string message;
};

// What is wrong with a document, and what of it has no effect. null, "", {} and [] are absent.
struct Review {
  std::vector<Error> wrong;     // type, range, contradiction: nobody could deploy it
  std::vector<Error> refused;   // right, but it asks for what this build cannot do
  std::vector<Error> unknown;   // fields that Nuclio does not have
  std::vector<Remark> ignored;  // no effect here, behaviour is the same

  // Files: wrong, refused and unknown are all errors. REST: unknown ones are remarks.
  Result<void> verdict(bool file) const;
};

// `spec` of a function: every field by name, triggers included. `at` is the path in messages ("spec").
Review review_spec(const JsonObject& spec, std::string_view at = "spec");
// apiVersion, kind, metadata (or meta), spec, status.
Review review_document(const JsonObject& document);

// Kinds of trigger that this build serves, in the order in which messages list them.
const std::vector<std::string_view>& trigger_kinds();
bool is_stream_trigger(std::string_view kind);
// "python:3.9" → "python"; "golang" → "golang".
std::string_view runtime_name(std::string_view runtime);

}  // namespace metier::nuclio
