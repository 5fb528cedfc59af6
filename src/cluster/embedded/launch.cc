#include "cluster/embedded/launch.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/digest.h"
#include "base/files.h"

namespace metier {
namespace {

using Values = std::map<std::string, std::string>;

// Variables in order; a later one of the same name takes the earlier one's place.
class Variables final {
 public:
  void set(const std::string& name, std::string value) {
    if (const auto found = index_.find(name); found != index_.end()) {
      list_[found->second].second = std::move(value);
      return;
    }
    index_.emplace(name, list_.size());
    list_.emplace_back(name, std::move(value));
  }
  const std::string* get(std::string_view name) const {
    const auto found = index_.find(name);
    return found == index_.end() ? nullptr : &list_[found->second].second;
  }
  std::vector<std::pair<std::string, std::string>> take() { return std::move(list_); }

 private:
  std::vector<std::pair<std::string, std::string>> list_;
  std::map<std::string, std::size_t, std::less<>> index_;
};

void add_texts(const JsonObject& body, std::string_view key, Values& out) {
  if (const auto* data = object_in(body, key)) {
    for (const auto& [name, value] : *data) {
      if (value.is_string()) { out[std::string(std::string_view(name))] = value.get_string(); }
    }
  }
}

void add_base64(const JsonObject& body, std::string_view key, Values& out) {
  if (const auto* data = object_in(body, key)) {
    for (const auto& [name, value] : *data) {
      if (!value.is_string()) { continue; }
      if (auto bytes = base64_decode(value.get_string())) {
        out[std::string(std::string_view(name))] = std::move(*bytes);
      }
    }
  }
}

// Opens each secret and config map once per launch.
class References final {
 public:
  References(const std::string& project, const LaunchContext& context)
      : project_(project), context_(context) {}

  Result<const Values*> open(bool secret, const std::string& name) {
    const auto key = (secret ? "s/" : "c/") + name;
    if (const auto found = opened_.find(key); found != opened_.end()) {
      return found->second ? &*found->second : nullptr;
    }
    std::optional<Values> values;
    if (secret && context_.secrets) {
      METIER_TRY(opened, context_.secrets(project_, name));
      values = std::move(opened);
    }
    if (!values) {
      if (const auto object = context_.objects.get(
              {.name_space = project_, .kind = secret ? "Secret" : "ConfigMap", .name = name})) {
        values.emplace();
        if (secret) {
          add_base64(object->body, "data", *values);
          add_texts(object->body, "stringData", *values);
        } else {
          add_texts(object->body, "data", *values);
          add_base64(object->body, "binaryData", *values);
        }
      }
    }
    auto& stored = opened_[key] = std::move(values);
    return stored ? &*stored : nullptr;
  }

 private:
  const std::string& project_;
  const LaunchContext& context_;
  std::map<std::string, std::optional<Values>> opened_;
};

Error missing(bool secret, const std::string& name, const std::string& key = {}) {
  const auto* what = secret ? "secret" : "config map";
  return Error{
      .kind = ErrorKind::unavailable,
      .message = key.empty() ? fmt::format("{} {} does not exist", what, quote(name))
                             : fmt::format("{} {} has no key {}", what, quote(name), quote(key)),
      .field = {},
      .fix = secret ? fmt::format("metier secret set {}{}", name, key.empty() ? "" : ":" + key)
                    : "metier apply -f FILE",
      .code = secret ? "SecretMissing" : "ConfigMapMissing"};
}

Result<std::optional<std::string>> value_of(const KeyRef& ref, bool secret,
                                            References& references) {
  METIER_TRY(values, references.open(secret, ref.name));
  if (values == nullptr) {
    if (ref.optional) { return std::optional<std::string>(); }
    return fail(missing(secret, ref.name));
  }
  const auto found = values->find(ref.key);
  if (found != values->end()) { return std::optional(found->second); }
  if (ref.optional) { return std::optional<std::string>(); }
  return fail(missing(secret, ref.name, ref.key));
}

std::string in_brackets(const Labels& labels, std::string_view path) {
  const auto start = path.find("['") + 2;
  const auto found = labels.find(path.substr(start, path.size() - start - 2));
  return found == labels.end() ? std::string() : found->second;
}

std::string field_of(const Pod& pod, const std::string& id, std::string_view path,
                     const LaunchInput& input, const LaunchContext& context) {
  if (path == "metadata.name") { return pod.metadata.name; }
  if (path == "metadata.namespace") { return pod.metadata.name_space; }
  if (path == "metadata.uid") { return id; }
  if (path == "spec.nodeName") { return context.node; }
  if (path == "spec.serviceAccountName") {
    return pod.service_account.empty() ? "default" : pod.service_account;
  }
  if (path.starts_with("status.podIP")) {
    return input.address.empty() ? "127.0.0.1" : input.address;
  }
  if (path.starts_with("status.hostIP")) { return "127.0.0.1"; }
  if (path.starts_with("metadata.labels[")) { return in_brackets(pod.metadata.labels, path); }
  return path.starts_with("metadata.annotations[") ? in_brackets(pod.metadata.annotations, path)
                                                   : std::string();
}

std::string joined(const std::vector<int>& numbers) {
  return fmt::format("{}", fmt::join(numbers, ","));
}

// The devices of one container: containers take theirs from the pod's in order.
void add_devices(const Container& container, Devices& left, const LaunchContext& context,
                 Variables& out) {
  for (const auto& [resource, all] : context.capacity.devices) {
    std::vector<int> mine;
    const auto limit = container.resources.limits.find(resource);
    auto& pool = left[resource];
    for (std::int64_t i = 0;
         limit != container.resources.limits.end() && i < limit->second.units() && !pool.empty();
         ++i) {
      mine.push_back(pool.front());
      pool.erase(pool.begin());
    }
    // A container that asked for none sees none: libraries take every device they find.
    if (resource == "nvidia.com/gpu") {
      out.set("NVIDIA_VISIBLE_DEVICES", mine.empty() ? "void" : joined(mine));
      out.set("CUDA_VISIBLE_DEVICES", joined(mine));
      if (!mine.empty()) { out.set("CUDA_DEVICE_ORDER", "PCI_BUS_ID"); }
    } else if (resource == "amd.com/gpu") {
      out.set("ROCR_VISIBLE_DEVICES", joined(mine));
    }
  }
}

Result<void> add_env(const Pod& pod, const std::string& id, const Container& container,
                     const LaunchInput& input, const LaunchContext& context, References& references,
                     Variables& out) {
  for (const auto& [name, value] : input.ambient.env) { out.set(name, value); }
  out.set("METIER_POD_NAME", pod.metadata.name);
  if (!input.address.empty()) { out.set("METIER_POD_IP", input.address); }
  for (const auto& [name, value] : input.service_env) { out.set(name, value); }
  for (const auto& from : container.env_from) {
    const bool secret = !from.secret.empty();
    METIER_TRY(values, references.open(secret, secret ? from.secret : from.config_map));
    if (values == nullptr) {
      if (from.optional) { continue; }
      return fail(missing(secret, secret ? from.secret : from.config_map));
    }
    for (const auto& [key, value] : *values) { out.set(from.prefix + key, value); }
  }
  // The interpreter is the one that was resolved for this pod, whatever the variables of a caller say.
  for (const auto& [name, value] : input.ambient.env) {
    if (name == "METIER_PYTHON") { out.set(name, value); }
  }
  const auto known = [&](std::string_view name) { return out.get(name); };
  for (const auto& variable : container.env) {
    if (variable.secret || variable.config_map) {
      METIER_TRY(value, value_of(variable.secret ? *variable.secret : *variable.config_map,
                                 variable.secret.has_value(), references));
      if (value) { out.set(variable.name, std::move(*value)); }
    } else if (!variable.field_path.empty()) {
      out.set(variable.name, field_of(pod, id, variable.field_path, input, context));
    } else {
      out.set(variable.name, expand_variables(variable.value, known));
    }
  }
  return {};
}

Error no_volume(std::string message, std::string fix) {
  return Error{.kind = ErrorKind::unavailable,
               .message = std::move(message),
               .field = {},
               .fix = std::move(fix),
               .code = "VolumeMissing"};
}

Result<void> check_host_path(const Volume& volume, bool make) {
  struct stat found{};
  const bool exists = ::stat(volume.source.c_str(), &found) == 0;
  const auto& type = volume.host_path_type;
  if (!exists) {
    if (type != "DirectoryOrCreate" && type != "FileOrCreate") {
      return fail(no_volume(fmt::format("volume {}: '{}' does not exist on this machine",
                                        quote(volume.name), volume.source),
                            "create it, or set type: DirectoryOrCreate"));
    }
    if (!make) { return {}; }
    if (type == "DirectoryOrCreate") { return make_folders(volume.source, 0755); }
    METIER_CHECK(make_folders(std::filesystem::path(volume.source).parent_path(), 0755));
    return write_file(volume.source, "", 0644);
  }
  const bool wrong =
      ((type == "Directory" || type == "DirectoryOrCreate") && !S_ISDIR(found.st_mode)) ||
      ((type == "File" || type == "FileOrCreate") && !S_ISREG(found.st_mode)) ||
      (type == "Socket" && !S_ISSOCK(found.st_mode)) ||
      (type == "CharDevice" && !S_ISCHR(found.st_mode)) ||
      (type == "BlockDevice" && !S_ISBLK(found.st_mode));
  if (wrong) {
    return fail(no_volume(
        fmt::format("volume {}: {} is no {}", quote(volume.name), quote(volume.source), type),
        "correct the type"));
  }
  return {};
}

std::string claim_folder(const Pod& pod, const std::string& claim, const LaunchContext& context) {
  return fmt::format("{}/volumes/{}/{}", context.data,
                     pod.metadata.name_space.empty() ? "default" : pod.metadata.name_space, claim);
}

Result<void> check_claim(const Pod& pod, const Volume& volume, const LaunchContext& context) {
  if (context.objects.get({.name_space = pod.metadata.name_space,
                           .kind = "PersistentVolumeClaim",
                           .name = volume.source})) {
    return {};
  }
  return fail(no_volume(fmt::format("volume {}: no PersistentVolumeClaim {}", quote(volume.name),
                                    quote(volume.source)),
                        "metier apply -f FILE"));
}

Result<void> add_files(const Volume& volume, References& references, LaunchVolume& out) {
  const bool secret = volume.kind == Volume::Kind::secret;
  METIER_TRY(values, references.open(secret, volume.source));
  if (values == nullptr) {
    if (volume.optional) { return {}; }
    return fail(missing(secret, volume.source));
  }
  if (volume.items.empty()) {
    out.files.assign(values->begin(), values->end());
    return {};
  }
  for (const auto& [key, path] : volume.items) {
    const auto found = values->find(key);
    if (found != values->end()) {
      out.files.emplace_back(path, found->second);
    } else if (!volume.optional) {
      return fail(missing(secret, volume.source, key));
    }
  }
  return {};
}

Result<LaunchVolume> launch_volume(const Pod& pod, const Volume& volume, References& references,
                                   const LaunchContext& context) {
  LaunchVolume out{.name = volume.name,
                   .path = {},
                   .files = {},
                   .read_only = volume.read_only,
                   .temporary = false,
                   .memory = volume.memory};
  switch (volume.kind) {
    case Volume::Kind::host_path:
      METIER_CHECK(check_host_path(volume, true));
      out.path = volume.source;
      break;
    case Volume::Kind::empty_dir: out.temporary = true; break;
    case Volume::Kind::secret:
    case Volume::Kind::config_map: METIER_CHECK(add_files(volume, references, out)); break;
    case Volume::Kind::claim:
      METIER_CHECK(check_claim(pod, volume, context));
      out.path = claim_folder(pod, volume.source, context);
      METIER_CHECK(make_folders(out.path, 0755));
      // Pods of one project may have different users; the claim is theirs together.
      if (pod.run_as_user && ::chmod(out.path.c_str(), 01777) != 0) {
        return fail(errno_error(out.path, errno));
      }
      break;
    case Volume::Kind::other:
      return fail(Error{
          .kind = ErrorKind::unsupported,
          .message = fmt::format("volumes of type {} are not supported on the embedded cluster",
                                 quote(volume.source)),
          .field = "spec.volumes",
          .fix = "hostPath, emptyDir, secret, configMap or persistentVolumeClaim",
          .code = {}});
  }
  if (out.path.empty() || volume.read_only) { return out; }
  for (const auto* containers : {&pod.init_containers, &pod.containers}) {
    for (const auto& container : *containers) {
      for (const auto& mount : container.mounts) {
        if (mount.name == volume.name && !mount.sub_path.empty()) {
          METIER_CHECK(make_beneath(out.path, mount.sub_path));
        }
      }
    }
  }
  return out;
}

}  // namespace

std::string expand_variables(std::string_view text,
                             const std::function<const std::string*(std::string_view)>& value_of) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '$' || i + 1 == text.size()) {
      out += text[i];
      continue;
    }
    if (text[i + 1] == '$') {
      out += '$';
      ++i;
      continue;
    }
    const auto end = text[i + 1] == '(' ? text.find(')', i + 2) : std::string_view::npos;
    if (end == std::string_view::npos) {
      out += '$';
      continue;
    }
    const auto name = text.substr(i + 2, end - i - 2);
    if (const auto* value = value_of(name)) {
      out += *value;
    } else {
      out += text.substr(i, end - i + 1);
    }
    i = end;
  }
  return out;
}

Result<void> make_beneath(const std::string& folder, const std::string& relative) {
  Fd at(::open(folder.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!at) { return fail(errno_error(folder, errno)); }
  std::vector<std::string> parts;
  for (const auto& part : std::filesystem::path(relative)) {
    if (part == ".." || part.is_absolute()) {
      return fail(invalid("subPath", fmt::format("{} leaves the volume", quote(relative))));
    }
    if (!part.empty() && part != ".") { parts.push_back(part.string()); }
  }
  for (std::size_t i = 0; i < parts.size(); ++i) {
    if (i + 1 == parts.size() &&
        ::faccessat(at.get(), parts[i].c_str(), F_OK, AT_SYMLINK_NOFOLLOW) == 0) {
      struct stat found{};
      if (::fstatat(at.get(), parts[i].c_str(), &found, AT_SYMLINK_NOFOLLOW) == 0 &&
          S_ISREG(found.st_mode)) {
        return {};
      }  // a file may be mounted
    }
    if (::mkdirat(at.get(), parts[i].c_str(), 0755) != 0 && errno != EEXIST) {
      return fail(errno_error(folder + "/" + relative, errno));
    }
    Fd next(::openat(at.get(), parts[i].c_str(), O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (!next) {
      return fail(invalid(
          "subPath", fmt::format("{} leads out of the volume or is no folder", quote(relative)),
          "links are not followed in a subPath"));
    }
    at = std::move(next);
  }
  return {};
}

std::optional<MissingReference> missing_reference(const Pod& pod, const LaunchContext& context) {
  References references(pod.metadata.name_space, context);
  const auto cause = [&](Error error, bool secret, const std::string& name,
                         std::string_view kind = {}) {
    return MissingReference{
        .code = error.code.empty() ? "Internal" : error.code,
        .object = {.name_space = pod.metadata.name_space,
                   .kind = kind.empty() ? (secret ? "Secret" : "ConfigMap") : std::string(kind),
                   .name = name},
        .message = error.text()};
  };
  for (const auto* containers : {&pod.init_containers, &pod.containers}) {
    for (const auto& container : *containers) {
      for (const auto& variable : container.env) {
        if (!variable.secret && !variable.config_map) { continue; }
        const bool secret = variable.secret.has_value();
        const auto& ref = secret ? *variable.secret : *variable.config_map;
        if (auto value = value_of(ref, secret, references); !value) {
          return cause(std::move(value.error()), secret, ref.name);
        }
      }
      for (const auto& from : container.env_from) {
        const bool secret = !from.secret.empty();
        const auto& name = secret ? from.secret : from.config_map;
        const auto values = references.open(secret, name);
        if (!values) { return cause(values.error(), secret, name); }
        if (*values == nullptr && !from.optional) {
          return cause(missing(secret, name), secret, name);
        }
      }
    }
  }
  for (const auto& volume : pod.volumes) {
    if (volume.kind == Volume::Kind::secret || volume.kind == Volume::Kind::config_map) {
      LaunchVolume ignored;
      if (auto files = add_files(volume, references, ignored); !files) {
        return cause(std::move(files.error()), volume.kind == Volume::Kind::secret, volume.source);
      }
    } else if (volume.kind == Volume::Kind::claim) {
      if (auto claim = check_claim(pod, volume, context); !claim) {
        return cause(std::move(claim.error()), false, volume.source, "PersistentVolumeClaim");
      }
    } else if (volume.kind == Volume::Kind::host_path) {
      if (auto path = check_host_path(volume, false); !path) {
        return cause(std::move(path.error()), false, volume.source, "Path");
      }
    }
  }
  return std::nullopt;
}

Result<LaunchSpec> make_launch(const Pod& pod, const std::string& id, LaunchInput input,
                               const LaunchContext& context) {
  LaunchSpec out;
  out.pod = pod;
  out.id = id;
  References references(pod.metadata.name_space, context);
  auto devices = input.devices;
  for (auto* containers : {&out.pod.init_containers, &out.pod.containers}) {
    for (auto& container : *containers) {
      Variables variables;
      METIER_CHECK(add_env(pod, id, container, input, context, references, variables));
      // Init containers run before the others and may use what these will have.
      auto pool = containers == &out.pod.init_containers ? input.devices : Devices();
      add_devices(container, containers == &out.pod.init_containers ? pool : devices, context,
                  variables);
      const auto known = [&](std::string_view name) { return variables.get(name); };
      for (auto* words : {&container.command, &container.args}) {
        for (auto& word : *words) { word = expand_variables(word, known); }
      }
      out.env[container.name] = variables.take();
    }
  }
  for (const auto& volume : pod.volumes) {
    METIER_TRY(made, launch_volume(pod, volume, references, context));
    out.volumes.push_back(std::move(made));
  }
  out.pod_ip = std::move(input.address);
  out.hosts = std::move(input.hosts);
  out.share_group = std::move(input.share_group);
  out.python = std::move(input.ambient.python);
  out.environment = std::move(input.ambient.environment);
  out.path_suffix = std::move(input.ambient.path_suffix);
  const auto host = pod.metadata.annotations.find("metier.dev/host-process");
  out.host_process = host != pod.metadata.annotations.end() && host->second == "true";
  return out;
}

}  // namespace metier
