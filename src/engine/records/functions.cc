#include <fmt/format.h>

#include "engine/records/records.h"
#include "model/function.h"

namespace metier::records {

Result<std::string> store_function(Records& tx, const std::string& project,
                                   const std::string& given_name, const std::string& given_tag,
                                   bool versioned, Json body, Time now) {
  METIER_CHECK(require_project(tx, project));
  METIER_TRY(function, Function::from_json(std::move(body)));
  const auto name = normalize_name(given_name);
  if (!function.name().empty() && normalize_name(function.name()) != name) {
    return fail(
        invalid("metadata.name",
                fmt::format("{} is not the {} of the address", quote(function.name()), quote(name)),
                "give the same name in both"));
  }
  function.set_name(name);
  function.set_project(project);
  std::string tag = given_tag.empty() ? function.tag() : given_tag;
  if (tag.empty()) { tag = "latest"; }
  const auto hash = function.compute_hash();
  function.metadata()["tag"] = "";
  function.metadata()["hash"] = hash;
  function.metadata()["updated"] = to_iso(now);
  FunctionRow row{.project = project,
                  .name = name,
                  .uid = versioned ? hash : "unversioned-" + tag,
                  .kind = function.kind(),
                  .body = dump_object(function.document()),
                  .updated = now};
  METIER_CHECK(tx.put_function(row, tag));
  return hash;
}

Json function_of_row(const FunctionRow& row) {
  auto document = parse_json(row.body);
  if (!document || !document->is_object()) { return Json(JsonObject{}); }
  auto& object = document->get_object();
  auto& metadata = ensure_object(object, "metadata");
  metadata["tag"] = row.tag;
  if (string_in(metadata, "hash").empty() && !row.uid.starts_with("unversioned-")) {
    metadata["hash"] = row.uid;
  }
  return std::move(*document);
}

Result<Json> read_function(const Records& records, const std::string& project,
                           const std::string& name, const std::string& tag,
                           const std::string& hash) {
  for (const auto& form : {normalize_name(name), name}) {
    METIER_TRY(row, records.function(project, form, tag, hash));
    if (row) { return function_of_row(*row); }
  }
  return fail(Error{
      .kind = ErrorKind::not_found,
      .message = fmt::format(
          "function {} does not exist in project {}",
          quote(name + (tag.empty() ? hash.empty() ? "" : "@" + hash : ":" + tag)), quote(project)),
      .fix = "see: metier get functions -P " + project});
}

}  // namespace metier::records
