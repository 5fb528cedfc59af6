// Volumes and mounts of functions.
#include "model/attributes.h"
#include "model/kinds.h"

namespace metier {
namespace {

std::string_view mount_path_of(const JsonObject& mount) {
  const std::string_view path = string_in(mount, "mountPath");
  return path.empty() ? string_in(mount, "mount_path") : path;
}

void put_by(JsonArray& list, const Json& item, auto key) {
  for (Json& old : list) {
    if (old.is_object() && key(old.get_object()) == key(item.get_object())) {
      old = item;
      return;
    }
  }
  list.push_back(item);
}

Result<void> mount(Function& function, std::string_view volume_name, std::string_view mount_path,
                   std::string_view source, JsonObject details) {
  return add_volume(function, JsonObject{{"name", volume_name}, {source, std::move(details)}},
                    JsonObject{{"mountPath", mount_path}, {"name", volume_name}});
}

void set_s3(Function& function, const S3Arguments& arguments, std::string_view name,
            std::string_view value) {
  if (!value.empty()) {
    static_cast<void>(set_env(function, arguments.prefix + std::string(name), Json(value)));
  }
}

}  // namespace

Result<void> add_volume(Function& function, const Json& volume, const Json& mount) {
  if (!has_pod_spec(function.kind())) {
    return fail(Error{
        .kind = ErrorKind::unsupported,
        .message = "kind " + quote(canonical_kind(function.kind())) + " has no pods, so no volumes",
        .field = "spec.volumes",
        .fix = "use kind job, or open the path itself"});
  }
  if (!volume.is_null() &&
      (!volume.is_object() || string_in(volume.get_object(), "name").empty())) {
    return fail(invalid("spec.volumes", "a volume without a name",
                        "write {name: NAME, hostPath: {path: …}}"));
  }
  if (!mount.is_null() && (!mount.is_object() || mount_path_of(mount.get_object()).empty())) {
    return fail(invalid("spec.volume_mounts", "a mount without mountPath",
                        "write {name: VOLUME, mountPath: /path}"));
  }
  if (!volume.is_null()) {
    put_by(ensure_array(function.spec(), "volumes"), volume,
           [](const JsonObject& item) { return string_in(item, "name"); });
  }
  if (!mount.is_null()) {
    put_by(ensure_array(function.spec(), "volume_mounts"), mount,
           [](const JsonObject& item) { return mount_path_of(item); });
  }
  return {};
}

Result<void> mount_pvc(Function& function, std::string_view pvc_name, std::string_view volume_name,
                       std::string_view mount_path, std::string_view fallback) {
  if (pvc_name.empty() && !fallback.empty()) {
    const std::size_t colon = fallback.find(':');
    if (colon == std::string_view::npos || colon == 0 || colon + 1 == fallback.size()) {
      return fail(invalid("MLRUN_PVC_MOUNT", quote(fallback) + " is not a claim and a path",
                          "write NAME:/path"));
    }
    pvc_name = fallback.substr(0, colon);
    mount_path = fallback.substr(colon + 1);
  }
  if (pvc_name.empty()) {
    return fail(invalid("pvc_name", "no name of a claim",
                        "give pvc_name, or set MLRUN_PVC_MOUNT=NAME:/path"));
  }
  METIER_CHECK(mount(function, volume_name, mount_path, "persistentVolumeClaim",
                     JsonObject{{"claimName", pvc_name}}));
  function.spec()["disable_auto_mount"] = true;
  return {};
}

Result<void> mount_secret(Function& function, std::string_view secret_name,
                          std::string_view mount_path, std::string_view volume_name,
                          const Json& items) {
  JsonObject source{{"secretName", secret_name}};
  if (!items.is_null()) { source["items"] = items; }
  return mount(function, volume_name, mount_path, "secret", std::move(source));
}

Result<void> mount_configmap(Function& function, std::string_view name, std::string_view mount_path,
                             std::string_view volume_name, const Json& items) {
  JsonObject source{{"name", name}};
  if (!items.is_null()) { source["items"] = items; }
  return mount(function, volume_name, mount_path, "configMap", std::move(source));
}

Result<void> mount_hostpath(Function& function, std::string_view host_path,
                            std::string_view mount_path, std::string_view volume_name) {
  return mount(function, volume_name, mount_path, "hostPath",
               JsonObject{{"path", host_path}, {"type", ""}});
}

Result<void> mount_s3(Function& function, const S3Arguments& arguments) {
  if (!arguments.secret_name.empty() &&
      (!arguments.access_key.empty() || !arguments.secret_key.empty())) {
    return fail(
        invalid("secret_name", "a secret and literal keys are both given", "give one of both"));
  }
  set_s3(function, arguments, "AWS_ENDPOINT_URL_S3", arguments.endpoint_url);
  set_s3(function, arguments, "AWS_REGION", arguments.region);
  set_s3(function, arguments, "S3_NON_ANONYMOUS", arguments.non_anonymous ? "true" : "");
  if (!arguments.secret_name.empty()) {
    for (const std::string name : {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}) {
      METIER_CHECK(
          set_env_from_secret(function, arguments.prefix + name, arguments.secret_name, name));
    }
  }
  set_s3(function, arguments, "AWS_ACCESS_KEY_ID", arguments.access_key);
  set_s3(function, arguments, "AWS_SECRET_ACCESS_KEY", arguments.secret_key);
  function.spec()["disable_auto_mount"] = true;
  return {};
}

}  // namespace metier
