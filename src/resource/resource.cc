#include "resource/resource.h"

#include <fmt/format.h>

#include "base/digest.h"

namespace metier {
namespace {

bool is_lower_alnum(char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); }
bool is_alnum(char c) { return is_lower_alnum(c) || (c >= 'A' && c <= 'Z'); }

Error wrong_type(std::string_view field, const Json& value, std::string_view expected) {
  return invalid(field, fmt::format("expected {}, got {}", expected, type_name(value)));
}

Result<std::string> text_of(const JsonObject& object, std::string_view key,
                            std::string_view field) {
  const auto* value = object.if_contains(key);
  if (value == nullptr || value->is_null()) { return std::string(); }
  if (!value->is_string()) { return fail(wrong_type(field, *value, "text")); }
  return std::string(value->as_string());
}

// The reference that names the managing owner, else the first.
Result<std::optional<OwnerRef>> owner_of(const Json& value, bool& exact) {
  exact = true;
  if (value.is_null()) { return std::optional<OwnerRef>(); }
  if (!value.is_array()) { return fail(wrong_type("metadata.ownerReferences", value, "list")); }
  std::optional<OwnerRef> owner;
  const auto& list = value.get_array();
  exact = list.size() <= 1;
  for (std::size_t i = 0; i < list.size(); ++i) {
    const auto field = fmt::format("metadata.ownerReferences[{}]", i);
    if (!list[i].is_object()) { return fail(wrong_type(field, list[i], "object")); }
    const auto& entry = list[i].get_object();
    const bool manages = bool_in(entry, "controller");
    if (owner && !manages) { continue; }
    OwnerRef ref;
    METIER_TRY(kind, text_of(entry, "kind", field + ".kind"));
    METIER_TRY(name, text_of(entry, "name", field + ".name"));
    METIER_TRY(uid, text_of(entry, "uid", field + ".uid"));
    METIER_TRY(api, text_of(entry, "apiVersion", field + ".apiVersion"));
    owner = OwnerRef{.kind = kind, .name = name, .uid = uid, .api_version = api};
    for (const auto& [key, unused] : entry) {
      if (key != "kind" && key != "name" && key != "uid" && key != "apiVersion") { exact = false; }
    }
  }
  return owner;
}

Result<ObjectMeta> metadata_from(const JsonObject& object) {
  ObjectMeta meta;
  for (const auto& [key, value] : object) {
    const auto field = fmt::format("metadata.{}", std::string_view(key));
    if (key == "name" || key == "namespace" || key == "uid") {
      METIER_TRY(text, text_of(object, key, field));
      (key == "name" ? meta.name : key == "namespace" ? meta.name_space : meta.uid) = text;
    } else if (key == "labels" || key == "annotations") {
      if (value.is_null()) { continue; }
      METIER_TRY(labels, labels_from_json(value, field));
      (key == "labels" ? meta.labels : meta.annotations) = std::move(labels);
    } else if (key == "ownerReferences") {
      bool exact = true;
      METIER_TRY(owner, owner_of(value, exact));
      meta.owner = std::move(owner);
      if (!exact) { meta.other[key] = value; }
    } else {
      meta.other[key] = value;
    }
  }
  return meta;
}

Json owner_json(const OwnerRef& owner) {
  JsonObject out;
  if (!owner.api_version.empty()) { out["apiVersion"] = owner.api_version; }
  out["kind"] = owner.kind;
  out["name"] = owner.name;
  out["uid"] = owner.uid;
  return out;
}

JsonObject metadata_json(const ObjectMeta& meta) {
  JsonObject out;
  if (!meta.name.empty()) { out["name"] = meta.name; }
  if (!meta.name_space.empty()) { out["namespace"] = meta.name_space; }
  if (!meta.uid.empty()) { out["uid"] = meta.uid; }
  if (!meta.labels.empty()) { out["labels"] = labels_json(meta.labels); }
  if (!meta.annotations.empty()) { out["annotations"] = labels_json(meta.annotations); }
  if (meta.owner && !meta.other.contains("ownerReferences")) {
    out["ownerReferences"] = JsonArray{owner_json(*meta.owner)};
  }
  for (const auto& [key, value] : meta.other) { out[key] = value; }
  return out;
}

// Keys that a cluster writes into metadata by itself.
bool cluster_writes(std::string_view key) {
  return key == "creationTimestamp" || key == "resourceVersion" || key == "generation" ||
         key == "managedFields" || key == "selfLink";
}

JsonObject without_cluster_fields(const JsonObject& other) {
  JsonObject out;
  for (const auto& [key, value] : other) {
    if (!cluster_writes(key)) { out[key] = value; }
  }
  return out;
}

constexpr std::string_view kLabelRule =
    "letters, digits, '-', '_' and '.', a letter or digit at both ends, at most 63 characters";

}  // namespace

const JsonObject& Resource::spec() const {
  static const JsonObject kEmpty;
  const auto* found = object_in(body, "spec");
  return found == nullptr ? kEmpty : *found;
}

std::string ResourceKey::text() const { return fmt::format("{}/{}/{}", name_space, kind, name); }

ResourceKey key_of(const Resource& resource) {
  return {.name_space = resource.metadata.name_space,
          .kind = resource.kind,
          .name = resource.metadata.name};
}

OwnerRef owner_ref_to(const Resource& resource) {
  return {.kind = resource.kind,
          .name = resource.metadata.name,
          .uid = resource.metadata.uid,
          .api_version = resource.api_version};
}

bool same_content(const Resource& a, const Resource& b) {
  return a.kind == b.kind && a.api_version == b.api_version && a.metadata.name == b.metadata.name &&
         a.metadata.name_space == b.metadata.name_space && a.metadata.labels == b.metadata.labels &&
         a.metadata.annotations == b.metadata.annotations && a.metadata.owner == b.metadata.owner &&
         a.body == b.body &&
         without_cluster_fields(a.metadata.other) == without_cluster_fields(b.metadata.other);
}

bool Selector::matches(const Resource& resource) const {
  const auto& meta = resource.metadata;
  if (name_space && *name_space != meta.name_space) { return false; }
  if (!kind.empty() && kind != resource.kind) { return false; }
  if (!name.empty() && name != meta.name) { return false; }
  if (!owner_uid.empty() && (!meta.owner || meta.owner->uid != owner_uid)) { return false; }
  return std::ranges::all_of(labels, [&](const auto& want) {
    const auto found = meta.labels.find(want.first);
    return found != meta.labels.end() && found->second == want.second;
  });
}

Result<Resource> resource_from_json(const Json& document) {
  if (!document.is_object()) { return fail(wrong_type("", document, "object")); }
  const auto& object = document.get_object();
  Resource out;
  METIER_TRY(api, text_of(object, "apiVersion", "apiVersion"));
  METIER_TRY(kind, text_of(object, "kind", "kind"));
  if (api.empty()) {
    return fail(invalid("apiVersion", "it is missing", "write e.g. apiVersion: v1"));
  }
  if (kind.empty()) { return fail(invalid("kind", "it is missing", "write e.g. kind: Pod")); }
  out.api_version = std::move(api);
  out.kind = std::move(kind);
  for (const auto& [key, value] : object) {
    if (key == "apiVersion" || key == "kind") { continue; }
    if (key == "metadata") {
      if (!value.is_object()) { return fail(wrong_type("metadata", value, "object")); }
      METIER_TRY(meta, metadata_from(value.get_object()));
      out.metadata = std::move(meta);
    } else if (key == "status") {
      out.status = value;
    } else {
      if (key == "spec" && !value.is_object() && !value.is_null()) {
        return fail(wrong_type("spec", value, "object"));
      }
      out.body[key] = value;
    }
  }
  if (out.metadata.name.empty()) {
    return fail(invalid("metadata.name", "it is missing", "give the object a name"));
  }
  return out;
}

Result<void> check_metadata(const ObjectMeta& metadata) {
  if (!is_dns_subdomain(metadata.name)) {
    return fail(
        invalid("metadata.name",
                fmt::format("{} is not a name that Kubernetes accepts", quote(metadata.name)),
                "use lower-case letters, digits, '-' and '.', a letter or digit at both ends, at "
                "most 253 characters"));
  }
  if (!metadata.name_space.empty() && !is_dns_label(metadata.name_space)) {
    return fail(invalid("metadata.namespace",
                        fmt::format("{} is not a namespace", quote(metadata.name_space)),
                        "use lower-case letters, digits and '-', a letter or digit at both ends, "
                        "at most 63 characters"));
  }
  for (const auto& [key, value] : metadata.labels) {
    if (!is_label_key(key)) {
      return fail(invalid("metadata.labels", fmt::format("{} is not a label key", quote(key)),
                          fmt::format("[prefix/]name, the name of {}", kLabelRule)));
    }
    if (!is_label_value(value)) {
      return fail(invalid(fmt::format("metadata.labels.{}", key),
                          fmt::format("{} is not a label value", quote(value)),
                          fmt::format("use {}, or nothing", kLabelRule)));
    }
  }
  std::size_t bytes = 0;
  for (const auto& [key, value] : metadata.annotations) {
    if (!is_label_key(key)) {
      return fail(invalid("metadata.annotations",
                          fmt::format("{} is not an annotation key", quote(key)),
                          fmt::format("[prefix/]name, the name of {}", kLabelRule)));
    }
    bytes += key.size() + value.size();
  }
  if (bytes > (256U << 10U)) {
    return fail(Error{.kind = ErrorKind::too_large,
                      .message = fmt::format("{} bytes of annotations", bytes),
                      .field = "metadata.annotations",
                      .fix = "at most 256 KiB together",
                      .code = {}});
  }
  return {};
}

Json to_json(const Resource& resource) {
  JsonObject out;
  out["apiVersion"] = resource.api_version;
  out["kind"] = resource.kind;
  out["metadata"] = metadata_json(resource.metadata);
  for (const auto& [key, value] : resource.body) { out[key] = value; }
  if (!resource.status.is_null()) { out["status"] = resource.status; }
  return out;
}

Json labels_json(const Labels& labels) {
  JsonObject out;
  for (const auto& [key, value] : labels) { out[key] = value; }
  return out;
}

Result<Labels> labels_from_json(const Json& value, std::string_view field) {
  if (!value.is_object()) { return fail(wrong_type(field, value, "object")); }
  Labels out;
  for (const auto& [key, text] : value.get_object()) {
    if (!text.is_string()) {
      return fail(wrong_type(fmt::format("{}.{}", field, std::string_view(key)), text, "text"));
    }
    out.emplace(std::string_view(key), std::string_view(text.get_string()));
  }
  return out;
}

bool is_dns_label(std::string_view text) {
  if (text.empty() || text.size() > 63 || !is_lower_alnum(text.front()) ||
      !is_lower_alnum(text.back())) {
    return false;
  }
  return std::ranges::all_of(text, [](char c) { return is_lower_alnum(c) || c == '-'; });
}

bool is_dns_subdomain(std::string_view text) {
  if (text.empty() || text.size() > 253) { return false; }
  // Unlike a label, a part of a subdomain has no limit of its own in Kubernetes.
  while (true) {
    const auto dot = text.find('.');
    const auto part = text.substr(0, dot);
    if (part.empty() || !is_lower_alnum(part.front()) || !is_lower_alnum(part.back())) {
      return false;
    }
    if (!std::ranges::all_of(part, [](char c) { return is_lower_alnum(c) || c == '-'; })) {
      return false;
    }
    if (dot == std::string_view::npos) { return true; }
    text.remove_prefix(dot + 1);
  }
}

bool is_label_value(std::string_view text) {
  if (text.empty()) { return true; }
  if (text.size() > 63 || !is_alnum(text.front()) || !is_alnum(text.back())) { return false; }
  return std::ranges::all_of(
      text, [](char c) { return is_alnum(c) || c == '-' || c == '_' || c == '.'; });
}

bool is_label_key(std::string_view text) {
  const auto slash = text.find('/');
  if (slash != std::string_view::npos) {
    if (!is_dns_subdomain(text.substr(0, slash))) { return false; }
    text.remove_prefix(slash + 1);
  }
  return !text.empty() && is_label_value(text);
}

std::string shorten_name(std::string_view text, std::size_t most) {
  if (text.size() <= most) { return std::string(text); }
  const auto hash = sha256_hex(text).substr(0, 8);
  if (most <= 9) { return hash.substr(0, most); }
  auto head = text.substr(0, most - 9);
  // "a-" + "-hash" reads badly and a dot before a dash is no DNS name.
  while (!head.empty() && !is_alnum(head.back())) { head.remove_suffix(1); }
  return head.empty() ? hash : fmt::format("{}-{}", head, hash);
}

}  // namespace metier
