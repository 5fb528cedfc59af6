// A project: MLRun's document {kind: project, metadata, spec, status} behind typed access.
#pragma once

#include <string>

#include "base/json.h"

namespace metier {

class Project {
 public:
  explicit Project(std::string_view name = {});
  // Unknown fields are kept; the status a client sends is not authoritative and becomes "online".
  // Errors: invalid with the field's path; the name must be a DNS-1123 label.
  static Result<Project> from_json(Json document);

  std::string name() const;
  std::string artifact_path() const;
  std::string default_image() const;
  const JsonObject& node_selector() const;  // default_function_node_selector

  JsonObject& metadata();
  JsonObject& spec();
  const JsonObject& metadata() const;
  const JsonObject& spec() const;
  const JsonObject& document() const { return document_; }
  JsonObject& document() { return document_; }

 private:
  JsonObject document_;
};

}  // namespace metier
