// A function: MLRun's document {kind, metadata, spec, status, verbose} behind typed access. The document is
// the object: fields we do not know stay where they are. Defaults, merging, hashing, naming and validation are
// MLRun's (function-kinds reference 1-4). Common methods (set_env, with_limits, …) are in attributes.h.
#pragma once

#include <string>
#include <string_view>

#include "base/json.h"
#include "model/names.h"

namespace metier {

class Function {
 public:
  Function();  // no kind, no name, empty spec
  // Nothing is filled in and nothing unknown is lost. "nuclio:<sub>" is split into kind and spec.function_kind.
  // Errors: invalid with the field's path and both types ("spec: expected an object, got a list"), all problems at once.
  static Result<Function> from_json(Json document);

  std::string kind() const;  // as stored: "job", "remote" for nuclio, "" for a local one
  std::string name() const;
  std::string project() const;
  std::string tag() const;
  std::string hash() const;  // metadata.hash as stored, empty before
  void set_kind(std::string_view kind);
  void set_name(std::string_view name);  // normalised: lower case, "_" and spaces become "-"
  void set_project(std::string_view project);
  void set_tag(std::string_view tag);

  JsonObject& metadata();
  JsonObject& spec();
  JsonObject& status();
  const JsonObject& metadata() const;
  const JsonObject& spec() const;
  const JsonObject& status() const;

  // One value of the spec at a dotted path ("build.source"), null when absent.
  const Json* find(std::string_view dotted) const { return find_path(spec(), dotted); }
  std::string text(std::string_view dotted) const;  // "" when absent or not text
  // The source given with the function (spec.build.functionSourceCode), decoded. Errors: invalid (not base64).
  Result<std::string> code() const;

  // The whole document as it is.
  const JsonObject& document() const { return document_; }
  JsonObject& document() { return document_; }
  // MLRun's to_dict: without None, {} and [] (but affinity, tolerations and node_selector survive empty).
  Json to_dict() const;
  // MLRun's stripped export, what function.yaml holds: without hash, namespace, project, labels, annotations, credentials, updated, status…
  Json to_export() const;
  // SHA-1 over the sorted Python JSON with tag, hash, updated and status cleared.
  std::string compute_hash() const;

 private:
  JsonObject document_;
};

}  // namespace metier
