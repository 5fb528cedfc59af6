// Kubernetes-shaped objects. A Resource is any object: the metadata is typed, the rest (spec, data, type…)
// stays the document it came as, so that nothing we do not know is lost. Typed views of single kinds are
// beside this file (pod.h, service.h…); they are read from a Resource and never stored.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/json.h"

namespace metier {

using Labels = std::map<std::string, std::string, std::less<>>;

struct OwnerRef {
  std::string kind;
  std::string name;
  std::string uid;
  std::string api_version;
  bool operator==(const OwnerRef&) const = default;
};

struct ObjectMeta {
  std::string name;
  std::string name_space;  // the project; "" = the cluster's own objects
  std::string uid;  // made by the cluster when empty; a new object of an old name has a new uid
  Labels labels;
  Labels annotations;
  std::optional<OwnerRef> owner;
  JsonObject
      other;  // metadata fields that are none of the above (finalizers, creationTimestamp…), kept
};

struct Resource {
  std::string api_version;  // "v1", "kubeflow.org/v1"
  std::string kind;         // "Pod", "MPIJob"
  ObjectMeta metadata;
  JsonObject body;            // every other top-level field: spec, data, stringData, type…
  Json status;                // null until somebody reports one
  std::uint64_t version = 0;  // of the store; 0 = not stored

  const JsonObject& spec() const;  // body["spec"], an empty object when absent
};

struct ResourceKey {
  std::string name_space;
  std::string kind;
  std::string name;
  auto operator<=>(const ResourceKey&) const = default;
  std::string text() const;  // "default/Pod/train-4f9a12c7"
};
ResourceKey key_of(const Resource& resource);
// A reference from an object to `resource`, as its owner.
OwnerRef owner_ref_to(const Resource& resource);
// Two objects that ask for the same: status, version, uid and what the cluster itself adds are not compared.
bool same_content(const Resource& a, const Resource& b);

// Which objects: all conditions must hold; an empty one holds always.
struct Selector {
  std::optional<std::string> name_space;
  std::string kind;
  std::string name;
  Labels labels;
  std::string owner_uid;
  bool matches(const Resource& resource) const;
};

// Errors: invalid with the field's path ("metadata.name") and both types.
Result<Resource> resource_from_json(const Json& document);
// The rules that Kubernetes has for every object: name, namespace, label and annotation keys and values.
Result<void> check_metadata(const ObjectMeta& metadata);
// Keys in the order a person writes them: apiVersion, kind, metadata, spec…, status.
Json to_json(const Resource& resource);
Json labels_json(const Labels& labels);
Result<Labels> labels_from_json(const Json& value, std::string_view field);

// DNS-1123 label (≤ 63), DNS-1123 subdomain (≤ 253), label values: the names that Kubernetes accepts.
bool is_dns_label(std::string_view text);
bool is_dns_subdomain(std::string_view text);
bool is_label_value(std::string_view text);
bool is_label_key(std::string_view text);
// Cut to `most` bytes so that a dash and 8 hex digits of the text's hash stay at the end; equal texts give
// equal names. Texts that fit are unchanged.
std::string shorten_name(std::string_view text, std::size_t most);

}  // namespace metier
