#include "engine/objects.h"

#include <algorithm>

namespace metier {
namespace {

constexpr std::size_t kLargestValue = 1U << 20U;

bool reserved(std::string_view name) {
  return name.starts_with("mlrun-project-secrets-") || name.starts_with("metier-");
}

bool is_key(std::string_view key) {
  return !key.empty() && key.size() <= 253 && std::ranges::all_of(key, [](unsigned char c) {
    return std::isalnum(c) != 0 || c == '-' || c == '_' || c == '.';
  });
}

Result<std::map<std::string, std::string>> values_of(const JsonObject& body) {
  std::map<std::string, std::string> out;
  for (const char* part : {"data", "stringData"}) {
    const JsonObject* values = object_in(body, part);
    if (values == nullptr) { continue; }
    for (const auto& [key, value] : *values) {
      const std::string field = std::string(part) + "." + std::string(key);
      if (!is_key(key)) {
        return fail(invalid(field, quote(key) + " is not a key",
                            "letters, digits, '-', '_', '.'; at most 253"));
      }
      if (!value.is_string()) {
        return fail(invalid(field, "expected a text, got " + std::string(type_name(value))));
      }
      std::string text(value.get_string());
      if (std::string_view(part) == "data") {
        auto decoded = base64_decode(text);
        if (!decoded) {
          return fail(
              invalid(field, "the value is not base64", "write plain text under stringData"));
        }
        text = std::move(*decoded);
      }
      if (text.size() > kLargestValue) {
        return fail(Error{.kind = ErrorKind::too_large,
                          .message = "the value has more than 1 MiB",
                          .field = field});
      }
      out[std::string(key)] = std::move(text);
    }
  }
  return out;
}

Json shown(const Resource& resource) { return to_json(resource); }

}  // namespace

Async<Result<Json>> ProjectObjects::apply(std::string project, Json document) {
  auto resource = resource_from_json(document);
  if (!resource) { co_return fail(std::move(resource.error())); }
  auto known = ground_.store.records().project(project);
  if (!known) { co_return fail(std::move(known.error())); }
  if (!*known) {
    co_return fail(Error{.kind = ErrorKind::not_found,
                         .message = "no project " + quote(project),
                         .fix = "create it: metier apply -f FILE with kind: Project, or "
                                "mlrun.get_or_create_project; or use project default"});
  }
  std::string& name_space = resource->metadata.name_space;
  if (!name_space.empty() && name_space != project) {
    co_return fail(Error{.kind = ErrorKind::not_found,
                         .message = "no project " + quote(name_space),
                         .field = "metadata.namespace",
                         .fix = "leave it out, or apply with -P " + name_space});
  }
  name_space = project;
  if (resource->kind != "Secret" && resource->kind != "ConfigMap" &&
      resource->kind != "PersistentVolumeClaim") {
    co_return fail(invalid("kind", quote(resource->kind) + " cannot be applied",
                           "Secret, ConfigMap or PersistentVolumeClaim"));
  }
  const std::string name = resource->metadata.name;
  if (!is_dns_subdomain(name)) {
    co_return fail(invalid("metadata.name", quote(name) + " is not a name",
                           "lower case letters, digits, '-' and '.'; at most 253"));
  }
  if (reserved(name)) {
    co_return fail(Error{.kind = ErrorKind::denied,
                         .message = quote(name) + " is a name of the server's own",
                         .field = "metadata.name",
                         .fix = "choose another name"});
  }
  if (resource->kind == "Secret") {
    auto values = values_of(resource->body);
    if (!values) { co_return fail(std::move(values.error())); }
    auto stored = co_await ground_.store.write([&](Records& tx) -> Result<void> {
      METIER_CHECK(tx.delete_secret(project, name, ""));
      for (const auto& [key, value] : *values) {
        METIER_CHECK(tx.put_secret(project, name, key, value));
      }
      return {};
    });
    if (!stored) { co_return fail(std::move(stored.error())); }
    resource->body.erase("data");
    resource->body.erase("stringData");
    JsonArray keys;
    for (const auto& [key, value] : *values) { keys.emplace_back(key); }
    resource->metadata.annotations["metier.dev/keys"] = dump_json(keys);
    // An annotation that kubectl writes holds the whole object, values and all.
    resource->metadata.annotations.erase("kubectl.kubernetes.io/last-applied-configuration");
  } else if (resource->kind == "ConfigMap") {
    if (const JsonObject* data = object_in(resource->body, "data")) {
      for (const auto& [key, value] : *data) {
        if (!is_key(key) || !value.is_string()) {
          co_return fail(invalid("data." + std::string(key), "not a key with a text",
                                 "letters, digits, '-', '_', '.'"));
        }
      }
    }
  }
  std::vector<Resource> all{*resource};
  auto applied = co_await ground_.cluster.apply(std::move(all));
  if (!applied) { co_return fail(std::move(applied.error())); }
  co_return shown(*resource);
}

Async<Result<Json>> ProjectObjects::patch_secret(std::string project, std::string name,
                                                 Json patch) {
  if (!patch.is_object() || object_in(patch.get_object(), "stringData") == nullptr) {
    co_return fail(invalid("stringData", "the patch names no key",
                           "send {\"stringData\": {\"KEY\": \"VALUE\" or null}}"));
  }
  JsonObject given = *object_in(patch.get_object(), "stringData");
  std::vector<std::string> gone;
  for (const auto& [key, value] : given) {
    if (value.is_null()) { gone.emplace_back(key); }
  }
  for (const std::string& key : gone) { given.erase(key); }
  auto before = ground_.store.records().secret_keys(project, name);
  if (!before) { co_return fail(std::move(before.error())); }
  std::map<std::string, std::string> merged;
  for (const std::string& key : *before) {
    auto value = ground_.store.records().secret_value(project, name, key);
    if (!value) { co_return fail(std::move(value.error())); }
    if (*value) { merged[key] = std::move(**value); }
  }
  for (const std::string& key : gone) {
    if (merged.erase(key) == 0) {
      co_return fail(Error{.kind = ErrorKind::not_found,
                           .message = "secret " + quote(name) + " has no key " + quote(key),
                           .field = "stringData." + key,
                           .fix = "see: metier secret list -P " + project});
    }
  }
  for (const auto& [key, value] : given) {
    if (!value.is_string()) {
      co_return fail(invalid("stringData." + std::string(key),
                             "expected a text or null, got " + std::string(type_name(value))));
    }
    merged[std::string(key)] = std::string(value.get_string());
  }
  if (merged.empty()) {
    auto removed = co_await remove(project, "Secret", name);
    if (!removed) { co_return fail(std::move(removed.error())); }
    co_return Json(JsonObject{});
  }
  JsonObject data;
  for (const auto& [key, value] : merged) { data[key] = value; }
  co_return co_await apply(std::move(project), JsonObject{{"apiVersion", "v1"},
                                                          {"kind", "Secret"},
                                                          {"metadata", JsonObject{{"name", name}}},
                                                          {"stringData", std::move(data)}});
}

Result<std::vector<Json>> ProjectObjects::list(const std::string& project,
                                               const std::string& kind) const {
  std::vector<Json> out;
  for (const char* one : {"Secret", "ConfigMap", "PersistentVolumeClaim"}) {
    if (!kind.empty() && kind != one) { continue; }
    for (const Resource& object :
         ground_.store.objects().list(Selector{.name_space = project, .kind = one})) {
      if (!reserved(object.metadata.name)) { out.push_back(shown(object)); }
    }
  }
  return out;
}

Async<Result<void>> ProjectObjects::remove(std::string project, std::string kind,
                                           std::string name) {
  if (reserved(name)) {
    co_return fail(Error{.kind = ErrorKind::denied,
                         .message = quote(name) + " is a name of the server's own"});
  }
  if (kind != "Secret" && kind != "ConfigMap" && kind != "PersistentVolumeClaim") {
    co_return fail(invalid("kind", quote(kind) + " cannot be removed here"));
  }
  if (kind == "Secret") {
    auto stored = co_await ground_.store.write(
        [=](Records& tx) { return tx.delete_secret(project, name, ""); });
    if (!stored) { co_return fail(std::move(stored.error())); }
  }
  co_return co_await ground_.cluster.remove(
      Selector{.name_space = project, .kind = kind, .name = name}, {});
}

Result<std::optional<std::map<std::string, std::string>>> ProjectObjects::open_secret(
    const std::string& project, const std::string& name) const {
  using Values = std::optional<std::map<std::string, std::string>>;
  const Records& records = ground_.store.records();
  METIER_TRY(keys, records.secret_keys(project, name));
  if (keys.empty()) { return Values{}; }
  std::map<std::string, std::string> out;
  for (const std::string& key : keys) {
    METIER_TRY(value, records.secret_value(project, name, key));
    if (value) { out[key] = *value; }
  }
  return Values(std::move(out));
}

}  // namespace metier
