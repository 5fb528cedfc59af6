// An artifact: MLRun's v2 document {kind, project, metadata, spec, status} behind typed access.
#pragma once

#include <cstdint>
#include <string>

#include "base/json.h"
#include "model/names.h"

namespace metier {

class Artifact {
 public:
  Artifact();
  // Errors: invalid with the field's path (metadata.key and project are required; iter and size are integers).
  static Result<Artifact> from_json(Json document);

  std::string kind() const;    // "", artifact, dataset, model, plot, table, dir, link, …
  std::string key() const;     // metadata.key
  std::string db_key() const;  // spec.db_key, else the key
  std::string project() const;
  std::int64_t iteration() const;
  std::string tree() const;
  std::string tag() const;
  std::string uid() const;
  std::string_view category() const;  // "model", "dataset", "document", "other"

  JsonObject& metadata();
  JsonObject& spec();
  const JsonObject& metadata() const;
  const JsonObject& spec() const;
  const JsonObject& document() const { return document_; }
  JsonObject& document() { return document_; }

  // The SHA-1 that names this version: over the document without labels, times, and what a kind derives from content.
  std::string compute_uid() const;
  // "store://models/p/db_key#0:tag@tree^uid"
  StoreUri uri() const;

 private:
  JsonObject document_;
};

// The db_key of something that a run produced: "<run name>_<key>".
std::string run_db_key(std::string_view run_name, std::string_view key);
// "{artifact_path}/{run name}/{iteration}/{key}{suffix}"
std::string default_target_path(std::string_view artifact_path, std::string_view run_name,
                                std::int64_t iteration, std::string_view key,
                                std::string_view suffix);
// {{run.uid}}, {{project}}, {{run.project}}, {{run.user}} of an artifact path.
std::string expand_artifact_path(std::string_view path, std::string_view project,
                                 std::string_view uid, std::string_view user);

}  // namespace metier
