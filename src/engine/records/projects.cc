#include <fmt/format.h>

#include "engine/records/records.h"
#include "resource/resource.h"

namespace metier::records {
namespace {

Result<void> check_name(std::string_view name) {
  if (is_dns_label(name)) { return {}; }
  return fail(invalid("metadata.name", fmt::format("{} is not a project name", quote(name)),
                      "lower-case letters, digits and dashes, beginning and ending with a letter "
                      "or digit, at most 63"));
}

void complete(JsonObject& body, const std::string& name, Time now) {
  auto& metadata = ensure_object(body, "metadata");
  metadata["name"] = name;
  if (string_in(metadata, "created").empty()) { metadata["created"] = to_iso(now); }
  auto& spec = ensure_object(body, "spec");
  if (string_in(spec, "desired_state").empty()) { spec["desired_state"] = "online"; }
  // The body's status is not authoritative: there is no external leader to wait for.
  ensure_object(body, "status")["state"] =
      string_in(spec, "desired_state") == "archived" ? "archived" : "online";
  body["kind"] = "project";
}

// Deep merge; `additive` extends lists and leaves present values.
void merge(JsonObject& into, const JsonObject& from, bool additive) {
  for (const auto& [key, value] : from) {
    auto& target = into[key];
    if (target.is_object() && value.is_object()) {
      merge(target.get_object(), value.get_object(), additive);
    } else if (additive && target.is_array() && value.is_array()) {
      for (const auto& item : value.get_array()) { target.get_array().push_back(item); }
    } else {
      target = value;
    }
  }
}

}  // namespace

Result<void> require_project(const Records& records, const std::string& name) {
  METIER_TRY(body, records.project(name));
  if (body) { return {}; }
  return fail(
      Error{.kind = ErrorKind::not_found,
            .message = fmt::format("project {} does not exist", quote(name)),
            .field = "project",
            .fix = "create it: mlrun.get_or_create_project(\"NAME\"), or use project default"});
}

Result<Json> create_project(Records& tx, const JsonObject& body, Time now) {
  const auto* metadata = object_in(body, "metadata");
  const std::string name(metadata == nullptr ? "" : string_in(*metadata, "name"));
  METIER_TRY(known, tx.project(name));
  if (known) {
    return fail(ErrorKind::conflict, fmt::format("project {} already exists", quote(name)));
  }
  return put_project(tx, name, body, now);
}

Result<Json> put_project(Records& tx, const std::string& name, JsonObject body, Time now) {
  METIER_CHECK(check_name(name));
  const auto* metadata = object_in(body, "metadata");
  const auto given = metadata == nullptr ? std::string_view{} : string_in(*metadata, "name");
  if (!given.empty() && given != name) {
    return fail(invalid("metadata.name",
                        fmt::format("{} is not the {} of the address", quote(given), quote(name)),
                        "give the same name in both"));
  }
  METIER_TRY(before, tx.project(name));
  complete(body, name, now);
  if (before) {
    METIER_TRY(old, parse_json(*before));
    if (const auto created = string_at(old, "metadata.created"); !created.empty()) {
      ensure_object(body, "metadata")["created"] = created;
    }
  }
  Json out(std::move(body));
  METIER_CHECK(tx.put_project(name, dump_json(out)));
  return out;
}

Result<Json> patch_project(Records& tx, const std::string& name, const JsonObject& changes,
                           bool additive, Time now) {
  METIER_CHECK(require_project(tx, name));
  METIER_TRY(stored, tx.project(name));
  METIER_TRY(document, parse_json(*stored));
  merge(document.get_object(), changes, additive);
  return put_project(tx, name, std::move(document.get_object()), now);
}

Result<Json> read_project(const Records& records, const std::string& name) {
  METIER_CHECK(require_project(records, name));
  METIER_TRY(stored, records.project(name));
  return parse_json(*stored);
}

}  // namespace metier::records
