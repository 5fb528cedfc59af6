#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "base/digest.h"
#include "engine/records/records.h"
#include "resource/resource.h"

namespace metier::records {
namespace {

bool is_key(std::string_view text) {
  const auto alphanumeric = [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
  };
  if (text.empty() || text.size() > 1024 || !alphanumeric(text.front()) ||
      !alphanumeric(text.back())) {
    return false;
  }
  // db_keys may carry slashes; parts that climb may not.
  if (text.find("..") != std::string_view::npos || text.find("//") != std::string_view::npos) {
    return false;
  }
  return std::ranges::all_of(text, [&](char c) {
    return alphanumeric(c) || c == '-' || c == '_' || c == '.' || c == '/';
  });
}

Error wrong_type(std::string_view field, std::string_view expected, const Json& value) {
  return invalid(field, fmt::format("expected {}, got {}", expected, type_name(value)));
}

// MLRun's schema of an artifact: kinds of fields that must be right, nulls dropped, unknown top-level keys dropped.
Result<void> check(JsonObject& body, const std::string& project) {
  for (const auto* key : {"metadata", "spec"}) {
    if (object_in(body, key) == nullptr) {
      const auto* value = body.if_contains(key);
      return fail(value == nullptr
                      ? invalid(key, "is missing", "an artifact has kind, metadata, spec, status")
                      : wrong_type(key, "an object", *value));
    }
  }
  if (const auto* kind = body.if_contains("kind");
      kind != nullptr && !kind->is_string() && !kind->is_null()) {
    return fail(wrong_type("kind", "text", *kind));
  }
  auto& metadata = body["metadata"].get_object();
  auto& spec = body["spec"].get_object();
  const auto key = string_in(metadata, "key");
  if (!is_key(key)) {
    return fail(
        invalid("metadata.key", fmt::format("{} is not an artifact key", quote(key)),
                "letters, digits, '-', '_', '.', beginning and ending with a letter or digit"));
  }
  if (string_in(metadata, "project").empty()) { metadata["project"] = project; }
  for (const auto* name : {"iter"}) {
    if (const auto* value = metadata.if_contains(name);
        value != nullptr && !value->is_int64() && !value->is_null()) {
      return fail(wrong_type(std::string("metadata.") + name, "a whole number", *value));
    }
  }
  if (const auto* size = spec.if_contains("size");
      size != nullptr && !size->is_int64() && !size->is_null()) {
    return fail(wrong_type("spec.size", "a whole number", *size));
  }
  for (auto* part : {&metadata, &spec}) {
    for (auto it = part->begin(); it != part->end();) {
      it = it->value().is_null() ? part->stable_erase(it) : it + 1;
    }
  }
  if (object_in(body, "status") == nullptr) { body["status"] = JsonObject{}; }
  if (string_in(body["status"].get_object(), "state").empty()) {
    body["status"].get_object()["state"] = "created";
  }
  for (auto it = body.begin(); it != body.end();) {
    const std::string_view name(it->key());
    const bool known = name == "kind" || name == "metadata" || name == "spec" || name == "status" ||
                       name == "project";
    it = known ? it + 1 : body.stable_erase(it);
  }
  return {};
}

Result<Json> mark_link(Records& tx, const ArtifactWrite& target, const JsonObject& body,
                       const std::string& tree) {
  const auto* spec = object_in(body, "spec");
  const auto iteration = int_in(*spec, "link_iteration").value_or(0);
  const std::string key(string_in(*spec, "link_key", target.key));
  const std::string producer(string_in(*spec, "link_tree", tree));
  ArtifactQuery query{
      .project = target.project, .key = key, .tree = producer, .iteration = iteration};
  METIER_TRY(rows, find_artifacts(tx, query));
  if (rows.empty()) {
    return fail(ErrorKind::not_found, fmt::format("link to iteration {} of {}, which is not stored",
                                                  iteration, quote(key)));
  }
  METIER_CHECK(tx.mark_best(target.project, key, producer, iteration));
  return artifact_of_row(rows.front());
}

}  // namespace

std::string artifact_uid(const JsonObject& artifact, std::int64_t iteration,
                         const std::string& tree) {
  JsonObject copy = artifact;
  auto& metadata = ensure_object(copy, "metadata");
  auto& spec = ensure_object(copy, "spec");
  metadata.erase("labels");
  for (const auto* key : {"db_key", "extra_data"}) { spec.erase(key); }
  static constexpr std::array<std::string_view, 2> kTable{"header", "schema"};
  static constexpr std::array<std::string_view, 8> kDataset{
      "schema",   "header",         "length",        "column_metadata",
      "features", "partition_keys", "timestamp_key", "label_column"};
  static constexpr std::array<std::string_view, 7> kModel{
      "metrics",        "parameters",      "inputs",       "outputs",
      "feature_vector", "feature_weights", "feature_stats"};
  const auto drop = [&](const auto& keys) {
    for (const auto key : keys) { spec.erase(key); }
  };
  const auto kind = string_in(copy, "kind");
  if (kind == "table") { drop(kTable); }
  if (kind == "dataset") { drop(kDataset); }
  if (kind == "model") { drop(kModel); }
  metadata["iter"] = iteration;
  metadata["tree"] = tree;
  metadata["tag"] = "";
  metadata["uid"] = "";
  metadata["updated"] = nullptr;
  metadata.erase("created");
  copy["status"] = nullptr;
  return sha1_hex(dump_python_json(Json(std::move(copy))));
}

std::string artifact_uri(const ArtifactRow& row) {
  const auto* folder = row.kind == "model"     ? "models"
                       : row.kind == "dataset" ? "datasets"
                                               : "artifacts";
  auto uri = fmt::format("store://{}/{}/{}#{}", folder, row.project, row.key, row.iteration);
  if (!row.tag.empty()) { uri += ":" + row.tag; }
  return row.tree.empty() ? uri : uri + "@" + row.tree;
}

Json artifact_of_row(const ArtifactRow& row) {
  auto document = parse_json(row.body);
  if (!document || !document->is_object()) { return Json(JsonObject{}); }
  auto& metadata = ensure_object(document->get_object(), "metadata");
  metadata["uid"] = row.uid;
  if (row.tag.empty()) {
    metadata.erase("tag");
  } else {
    metadata["tag"] = row.tag;
  }
  return std::move(*document);
}

std::string artifact_text(const ArtifactRow& row) {
  // Stored bodies have their uid and no tag (store_artifact).
  std::string text = row.body;
  if (row.tag.empty() || text.find("\"tag\":") != std::string::npos ||
      !add_member_text(text, "metadata", "\"tag\":" + dump_json(Json(row.tag)))) {
    return dump_json(artifact_of_row(row));
  }
  return text;
}

Result<Json> store_artifact(Records& tx, const ArtifactWrite& target, JsonObject body, Time now) {
  METIER_CHECK(require_project(tx, target.project));
  METIER_CHECK(check(body, target.project));
  if (!is_key(target.key)) {
    return fail(invalid("key", fmt::format("{} is not an artifact key", quote(target.key)),
                        "letters, digits, '-', '_', '.' and '/', without '..'"));
  }
  if (!target.tag.empty() && !is_label_value(target.tag)) {
    return fail(invalid("tag", fmt::format("{} is not a tag", quote(target.tag)),
                        "a Kubernetes label value: at most 63 of letters, digits, '-', '_', '.'"));
  }
  auto& metadata = body["metadata"].get_object();
  auto& spec = body["spec"].get_object();
  const auto iteration =
      target.iteration ? *target.iteration : int_in(metadata, "iter").value_or(0);
  std::string tree = target.tree.empty() ? std::string(string_in(metadata, "tree")) : target.tree;
  const std::string kind(string_in(body, "kind"));
  if (kind == "link") { return mark_link(tx, target, body, tree); }
  if (spec.find("db_key") == spec.end()) { spec["db_key"] = target.key; }
  metadata["iter"] = iteration;
  metadata["tree"] = tree;
  const auto uid = artifact_uid(body, iteration, tree);
  if (!target.object_uid.empty() && target.object_uid != uid) {
    return fail(
        invalid("object-uid",
                fmt::format("{} is not the uid of this content, {}", quote(target.object_uid), uid),
                "leave it away"));
  }
  metadata["uid"] = uid;
  metadata["updated"] = to_iso(now);
  if (string_in(metadata, "created").empty()) { metadata["created"] = to_iso(now); }
  metadata.erase("tag");
  ArtifactRow row{.project = target.project,
                  .key = target.key,
                  .uid = uid,
                  .tree = tree,
                  .iteration = iteration,
                  .kind = kind};
  row.name = string_in(metadata, "key");
  row.updated = now;
  METIER_TRY(same, find_artifacts(tx, {.project = target.project,
                                       .key = target.key,
                                       .tree = tree,
                                       .object_uid = uid,
                                       .iteration = iteration}));
  if (!same.empty() && target.must_be_new) {
    return fail(ErrorKind::conflict,
                fmt::format("artifact {} with uid {} already exists", quote(target.key), uid));
  }
  row.best_iteration = same.empty() ? iteration == 0 : same.front().best_iteration;
  if (const auto* labels = object_in(metadata, "labels")) {
    for (const auto& [key, value] : *labels) {
      if (value.is_string()) { row.labels.emplace(key, value.get_string()); }
    }
  }
  row.body = dump_object(body);
  METIER_CHECK(tx.put_artifact(row));
  const std::string tag = target.tag.empty() ? "latest" : target.tag;
  METIER_CHECK(tx.tag_artifact(row, tag));
  if (same.empty() && tag != "latest") { METIER_CHECK(tx.tag_artifact(row, "latest")); }
  row.tag = tag;
  return artifact_of_row(row);
}

Result<std::vector<ArtifactRow>> find_artifacts(const Records& records,
                                                const ArtifactQuery& query) {
  ArtifactFilter filter{.project = query.project, .tree = query.tree, .key = query.key};
  filter.iteration = query.iteration;
  // An implied "latest" is only looked up for display when the artifact is named otherwise.
  const bool strict = query.tag != "latest" || (query.object_uid.empty() && query.tree.empty());
  if (strict) { filter.tag = query.tag; }
  METIER_TRY(rows, records.artifacts(filter));
  if (!query.object_uid.empty()) {
    std::erase_if(rows, [&](const ArtifactRow& row) { return row.uid != query.object_uid; });
  }
  // One row per artifact: under the tag that was asked for, when it has it.
  std::vector<ArtifactRow> out;
  for (const bool tagged : {true, false}) {
    for (auto& row : rows) {
      if ((row.tag == query.tag) != tagged) { continue; }
      const bool known = std::ranges::any_of(out, [&](const ArtifactRow& o) {
        return o.uid == row.uid && o.tree == row.tree && o.iteration == row.iteration;
      });
      if (!known) { out.push_back(row); }
    }
  }
  return out;
}

Result<Json> read_artifact(const Records& records, const ArtifactQuery& query) {
  METIER_TRY(rows, find_artifacts(records, query));
  std::vector<std::int64_t> iterations;  // that logged it, when none of them is the best
  if (rows.empty() && query.iteration && *query.iteration == 0) {
    // Iteration 0 of a hyper-parameter run stands for its best one.
    auto any = query;
    any.iteration.reset();
    METIER_TRY(others, find_artifacts(records, any));
    for (const auto& row : others) { iterations.push_back(row.iteration); }
    std::erase_if(others, [](const ArtifactRow& row) { return !row.best_iteration; });
    rows = std::move(others);
  }
  if (rows.empty() && !iterations.empty()) {  // MLRun's answer is 404 too
    const auto first = *std::ranges::min_element(iterations);
    return fail(Error{
        .kind = ErrorKind::not_found,
        .message =
            fmt::format("artifact {} of project {} was logged by {} of a run that has no best one",
                        quote(query.key), quote(query.project),
                        iterations.size() == 1 ? fmt::format("iteration {}", first)
                                               : fmt::format("{} iterations", iterations.size())),
        .fix = fmt::format("name one: {}#{}; or run it again with --selector max.RESULT", query.key,
                           first)});
  }
  if (rows.empty()) {
    return fail(
        Error{.kind = ErrorKind::not_found,
              .message = fmt::format("artifact {} does not exist in project {}",
                                     quote(query.key + (query.tag.empty() ? "" : ":" + query.tag)),
                                     quote(query.project)),
              .fix = "see: metier get artifacts -P " + query.project});
  }
  // Several iterations of one producer may share a tag: the best one speaks for them.
  const auto best =
      std::ranges::find_if(rows, [](const ArtifactRow& row) { return row.best_iteration; });
  auto row = best == rows.end() ? rows.front() : *best;
  if (!query.tag.empty()) { row.tag = query.tag; }
  return artifact_of_row(row);
}

}  // namespace metier::records
