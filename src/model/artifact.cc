#include "model/artifact.h"

#include <array>
#include <span>

#include "base/digest.h"
#include "model/problems.h"

namespace metier {
namespace {

const JsonObject& section(const JsonObject& document, std::string_view name) {
  static const JsonObject kNone;
  const JsonObject* found = object_in(document, name);
  return found == nullptr ? kNone : *found;
}

std::span<const std::string_view> derived_fields(std::string_view kind) {
  static constexpr std::array<std::string_view, 2> kTable = {"schema", "header"};
  static constexpr std::array<std::string_view, 8> kDataset = {
      "schema",   "header",         "length",        "column_metadata",
      "features", "partition_keys", "timestamp_key", "label_column"};
  static constexpr std::array<std::string_view, 7> kModel = {
      "metrics",        "parameters",      "inputs",       "outputs",
      "feature_vector", "feature_weights", "feature_stats"};
  if (kind == "table") { return kTable; }
  if (kind == "dataset") { return kDataset; }
  return kind == "model" ? std::span<const std::string_view>(kModel)
                         : std::span<const std::string_view>{};
}

}  // namespace

Artifact::Artifact()
    : document_{{"kind", ""},
                {"metadata", JsonObject{}},
                {"spec", JsonObject{}},
                {"status", JsonObject{}}} {}

Result<Artifact> Artifact::from_json(Json document) {
  if (!document.is_object()) {
    return fail(
        invalid("", "expected an artifact object, got a " + std::string(type_name(document))));
  }
  JsonObject& given = document.get_object();
  ProblemList problems;
  for (const std::string_view name : {"metadata", "spec", "status"}) {
    const Json* value = given.if_contains(name);
    if (value != nullptr && !value->is_null() && !value->is_object()) {
      problems.add(name, "expected an object, got a " + std::string(type_name(*value)));
    }
  }
  const auto expect_int = [&](const JsonObject& in, std::string_view key,
                              const std::string& field) {
    const Json* value = in.if_contains(key);
    if (value != nullptr && !value->is_null() && !value->is_int64()) {
      problems.add(field, "expected an integer, got a " + std::string(type_name(*value)));
    }
  };
  expect_int(section(given, "metadata"), "iter", "metadata.iter");
  expect_int(section(given, "spec"), "size", "spec.size");
  if (string_in(section(given, "metadata"), "key").empty()) {
    problems.add("metadata.key", "key is missing");
  }
  METIER_CHECK(std::move(problems).result());
  Artifact artifact;
  artifact.document_ = std::move(given);
  ensure_object(artifact.document_, "metadata");
  ensure_object(artifact.document_, "spec");
  return artifact;
}

std::string Artifact::kind() const { return std::string(string_in(document_, "kind")); }
std::string Artifact::key() const { return std::string(string_in(metadata(), "key")); }
std::string Artifact::db_key() const {
  const std::string_view stored = string_in(spec(), "db_key");
  return stored.empty() ? key() : std::string(stored);
}
std::string Artifact::project() const {
  const std::string_view inner = string_in(metadata(), "project");
  return std::string(inner.empty() ? string_in(document_, "project") : inner);
}
std::int64_t Artifact::iteration() const { return int_in(metadata(), "iter").value_or(0); }
std::string Artifact::tree() const { return std::string(string_in(metadata(), "tree")); }
std::string Artifact::tag() const { return std::string(string_in(metadata(), "tag")); }
std::string Artifact::uid() const { return std::string(string_in(metadata(), "uid")); }

std::string_view Artifact::category() const {
  const std::string_view kind = string_in(document_, "kind");
  return kind == "model" || kind == "dataset" || kind == "document" ? kind
                                                                    : std::string_view("other");
}

JsonObject& Artifact::metadata() { return ensure_object(document_, "metadata"); }
JsonObject& Artifact::spec() { return ensure_object(document_, "spec"); }
const JsonObject& Artifact::metadata() const { return section(document_, "metadata"); }
const JsonObject& Artifact::spec() const { return section(document_, "spec"); }

std::string Artifact::compute_uid() const {
  JsonObject cleared = document_;
  JsonObject& metadata = ensure_object(cleared, "metadata");
  metadata.stable_erase("labels");
  metadata.stable_erase("created");
  JsonObject& spec = ensure_object(cleared, "spec");
  spec.stable_erase("db_key");
  spec.stable_erase("extra_data");
  for (const std::string_view field : derived_fields(kind())) { spec.stable_erase(field); }
  metadata["iter"] = iteration();
  metadata["tree"] = tree();
  metadata["tag"] = "";
  metadata["uid"] = "";
  metadata["updated"] = nullptr;
  cleared["status"] = nullptr;
  return sha1_hex(dump_python_json(cleared));
}

StoreUri Artifact::uri() const {
  const std::string_view group = category();
  return StoreUri{.kind = group == "model"      ? "models"
                          : group == "dataset"  ? "datasets"
                          : group == "document" ? "documents"
                                                : "artifacts",
                  .project = project(),
                  .key = db_key(),
                  .iteration = iteration(),
                  .has_iteration = true,
                  .tag = tag() == "latest" ? std::string() : tag(),
                  .tree = tree(),
                  .uid = uid()};
}

std::string run_db_key(std::string_view run_name, std::string_view key) {
  return run_name.empty() ? std::string(key) : std::string(run_name) + "_" + std::string(key);
}

std::string default_target_path(std::string_view artifact_path, std::string_view run_name,
                                std::int64_t iteration, std::string_view key,
                                std::string_view suffix) {
  std::string out(artifact_path);
  if (!out.empty() && out.back() != '/') { out += '/'; }
  if (!run_name.empty()) { out += std::string(run_name) + "/"; }
  return out + std::to_string(iteration) + "/" + std::string(key) + std::string(suffix);
}

std::string expand_artifact_path(std::string_view path, std::string_view project,
                                 std::string_view uid, std::string_view user) {
  const std::array<std::pair<std::string_view, std::string_view>, 5> marks = {
      {{"{{run.uid}}", uid},
       {"{{project}}", project},
       {"{{run.project}}", project},
       {"{{run.user}}", user},
       {"{{workflow.uid}}", uid}}};
  std::string out(path);
  for (const auto& [mark, value] : marks) {
    for (std::size_t at = out.find(mark); at != std::string::npos;
         at = out.find(mark, at + value.size())) {
      out.replace(at, mark.size(), value);
    }
  }
  return out;
}

}  // namespace metier
