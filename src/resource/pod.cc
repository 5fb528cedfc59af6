#include "resource/pod.h"

#include <filesystem>
#include <set>

#include "resource/pod_reader.h"

namespace metier {
namespace {

constexpr std::int64_t kMostInt = INT32_MAX;
constexpr std::string_view kLabelFix =
    "use lower-case letters, digits and '-', a letter or digit at both ends, at most 63 characters";

struct Context {
  const PodRules& rules;
  Problems& problems;

  void denied(std::string field, std::string message, std::string_view option) const {
    problems.add(Error{.kind = ErrorKind::denied,
                       .message = std::move(message),
                       .field = std::move(field),
                       .fix = fmt::format("leave it away, or start the server with {}", option),
                       .code = {}});
  }
  void unsupported(std::string field, std::string message, std::string fix) const {
    problems.add(Error{.kind = ErrorKind::unsupported,
                       .message = std::move(message),
                       .field = std::move(field),
                       .fix = std::move(fix),
                       .code = {}});
  }
};

bool leaves_folder(std::string_view path) {
  for (const auto& part : std::filesystem::path(path)) {
    if (part == "..") { return true; }
  }
  return false;
}

bool is_env_name(std::string_view name) {
  return !name.empty() &&
         std::ranges::all_of(name, [](char c) { return c > 0x20 && c < 0x7f && c != '='; });
}

void check_label(const Reader& reader, std::string_view key, const std::string& value) {
  if (!is_dns_label(value)) {
    reader.problems().add(reader.at(key), fmt::format("{} is not a name", quote(value)),
                          std::string(kLabelFix));
  }
}

// --- resources ---------------------------------------------------------------------------------------------

bool is_native_resource(std::string_view name) {
  return name == "cpu" || name == "memory" || name == "ephemeral-storage" ||
         name.starts_with("hugepages-");
}

bool is_extended_resource(std::string_view name) {
  const auto slash = name.find('/');
  return slash != std::string_view::npos && is_dns_subdomain(name.substr(0, slash)) &&
         is_label_key(name) && !name.starts_with("kubernetes.io/");
}

void read_quantities(const Reader& resources, std::string_view key,
                     std::map<std::string, Quantity, std::less<>>& out) {
  const auto reader = resources.object_at(key);
  if (!reader) { return; }
  for (const auto& [name, value] : reader->object()) {
    const std::string_view resource = name;
    const auto field = reader->at(resource);
    if (value.is_null()) { continue; }
    if (!is_native_resource(resource) && !is_extended_resource(resource)) {
      resources.problems().add(field, fmt::format("{} is not a resource", quote(resource)),
                               "cpu, memory, ephemeral-storage, hugepages-<size>, or one with a "
                               "domain (nvidia.com/gpu)");
      continue;
    }
    std::string text;
    if (value.is_string()) {
      text = value.get_string();
    } else if (value.is_number()) {
      text = dump_json(value);
    } else {
      reader->wrong_type(field, value, "quantity");
      continue;
    }
    auto quantity = Quantity::parse(text);
    if (!quantity) {
      resources.problems().add(std::move(quantity).error().at(field));
      continue;
    }
    if (quantity->milli() < 0) {
      resources.problems().add(field, fmt::format("{} is negative", quote(text)), "0 or more");
      continue;
    }
    if (is_extended_resource(resource) && quantity->milli() % 1000 != 0) {
      resources.problems().add(field, fmt::format("{} is not a whole number", quote(text)),
                               "devices are counted: 0, 1, 2, …");
      continue;
    }
    out.emplace(resource, *quantity);
  }
}

Resources read_resources(const Reader& container) {
  Resources out;
  const auto reader = container.object_at("resources");
  if (!reader) { return out; }
  read_quantities(*reader, "requests", out.requests);
  read_quantities(*reader, "limits", out.limits);
  for (const auto& [name, request] : out.requests) {
    const auto limit = out.limits.find(name);
    const auto field = fmt::format("{}.requests.{}", reader->path(), name);
    if (limit == out.limits.end()) {
      if (is_extended_resource(name)) {
        container.problems().add(field, fmt::format("{} has a request but no limit", name),
                                 "set the limit; the request follows it");
      }
      continue;
    }
    if (request > limit->second) {
      const bool cpu = name == "cpu";
      container.problems().add(
          field,
          fmt::format("the request {} is above the limit {}",
                      cpu ? request.cpu_text() : request.bytes_text(),
                      cpu ? limit->second.cpu_text() : limit->second.bytes_text()),
          "ask for at most the limit, or raise it");
    } else if (is_extended_resource(name) && request != limit->second) {
      container.problems().add(field, fmt::format("request and limit of {} differ", name),
                               "devices cannot be shared out: set only the limit");
    }
  }
  return out;
}

// --- environment -------------------------------------------------------------------------------------------

std::optional<KeyRef> read_key_ref(const Reader& source, std::string_view key) {
  const auto reader = source.object_at(key);
  if (!reader) { return std::nullopt; }
  KeyRef out{.name = reader->text("name"),
             .key = reader->text("key"),
             .optional = reader->boolean("optional")};
  if (out.name.empty()) {
    source.problems().add(reader->at("name"), "it is missing",
                          "name the object that holds the key");
  }
  if (out.key.empty()) {
    source.problems().add(reader->at("key"), "it is missing", "name the key");
  }
  return out;
}

bool is_field_path(std::string_view path) {
  static constexpr std::string_view kPlain[] = {"metadata.name",
                                                "metadata.namespace",
                                                "metadata.uid",
                                                "spec.nodeName",
                                                "spec.serviceAccountName",
                                                "status.hostIP",
                                                "status.hostIPs",
                                                "status.podIP",
                                                "status.podIPs"};
  if (std::ranges::find(kPlain, path) != std::end(kPlain)) { return true; }
  return (path.starts_with("metadata.labels['") || path.starts_with("metadata.annotations['")) &&
         path.ends_with("']");
}

void read_value_from(const Reader& source, EnvVar& variable, const Context& context) {
  std::vector<std::string_view> sources;
  for (const std::string_view key :
       {"secretKeyRef", "configMapKeyRef", "fieldRef", "resourceFieldRef", "fileKeyRef"}) {
    if (source.has(key)) { sources.push_back(key); }
  }
  const auto here = source.path();
  if (sources.empty()) {
    context.problems.add(here, "it names no source",
                         "one of secretKeyRef, configMapKeyRef, fieldRef");
    return;
  }
  if (sources.size() > 1) {
    context.problems.add(here, fmt::format("two sources: {} and {}", sources[0], sources[1]),
                         "keep one of them");
    return;
  }
  variable.secret = read_key_ref(source, "secretKeyRef");
  variable.config_map = read_key_ref(source, "configMapKeyRef");
  if (const auto field = source.object_at("fieldRef")) {
    variable.field_path = field->text("fieldPath");
    if (!is_field_path(variable.field_path)) {
      context.problems.add(
          field->at("fieldPath"),
          fmt::format("{} is not a field of a pod that can be read", quote(variable.field_path)),
          "metadata.name|namespace|uid|labels['…']|annotations['…'], spec.nodeName, "
          "spec.serviceAccountName, status.podIP, status.hostIP");
    }
  }
  if (sources[0] == "resourceFieldRef" || sources[0] == "fileKeyRef") {
    context.unsupported(source.at(sources[0]), fmt::format("{} is not supported", sources[0]),
                        "write the value itself");
  }
}

void read_env(const Reader& reader, Container& container, const Context& context) {
  for (const auto& entry : reader.objects_at("env")) {
    EnvVar variable{.name = entry.text("name"),
                    .value = entry.text("value"),
                    .secret = {},
                    .config_map = {},
                    .field_path = {}};
    if (!is_env_name(variable.name)) {
      context.problems.add(entry.at("name"),
                           variable.name.empty() ? "it is missing"
                                                 : fmt::format("{} is not the name of a variable",
                                                               quote(variable.name)),
                           "printable characters without '=' and spaces");
    }
    if (const auto source = entry.object_at("valueFrom")) {
      if (!variable.value.empty()) {
        context.problems.add(entry.at("valueFrom"), "the variable has a value as well",
                             "keep value or valueFrom");
      }
      read_value_from(*source, variable, context);
    }
    container.env.push_back(std::move(variable));
  }
  for (const auto& entry : reader.objects_at("envFrom")) {
    EnvFrom from{.prefix = entry.text("prefix"), .secret = {}, .config_map = {}, .optional = false};
    const auto secret = entry.object_at("secretRef");
    const auto config_map = entry.object_at("configMapRef");
    const auto here = entry.path();
    if (secret.has_value() == config_map.has_value()) {
      context.problems.add(
          here, secret ? "two sources: secretRef and configMapRef" : "it names no source",
          "one of secretRef, configMapRef");
      continue;
    }
    const auto& source = secret ? *secret : *config_map;
    (secret ? from.secret : from.config_map) = source.text("name");
    from.optional = source.boolean("optional");
    if (from.secret.empty() && from.config_map.empty()) {
      context.problems.add(source.at("name"), "it is missing", "name the object");
    }
    container.env_from.push_back(std::move(from));
  }
}

// --- ports and probes --------------------------------------------------------------------------------------

void read_ports(const Reader& reader, Container& container, const Context& context) {
  std::set<std::string> names;
  for (const auto& entry : reader.objects_at("ports")) {
    ContainerPort port{.name = entry.text("name"), .port = 0, .protocol = entry.text("protocol")};
    if (!entry.has("containerPort")) {
      context.problems.add(entry.at("containerPort"), "it is missing", "from 1 to 65535");
    }
    port.port = static_cast<int>(entry.integer("containerPort", 1, 65535).value_or(0));
    if (port.protocol.empty()) { port.protocol = "TCP"; }
    if (port.protocol != "TCP" && port.protocol != "UDP" && port.protocol != "SCTP") {
      context.problems.add(entry.at("protocol"),
                           fmt::format("{} is not a protocol", quote(port.protocol)),
                           "TCP, UDP or SCTP");
    }
    if (!port.name.empty() && !names.insert(port.name).second) {
      context.problems.add(entry.at("name"),
                           fmt::format("two ports are named {}", quote(port.name)),
                           "give each a name of its own");
    }
    container.ports.push_back(std::move(port));
  }
}

int read_probe_port(const Reader& action, const Container& container, const Context& context) {
  const auto* value = action.find("port");
  if (value != nullptr && value->is_string()) {
    const auto name = action.text("port");
    for (const auto& port : container.ports) {
      if (port.name == name) { return port.port; }
    }
    context.problems.add(action.at("port"), fmt::format("no port is named {}", quote(name)),
                         "name one of the container's ports, or a number");
    return 0;
  }
  if (value == nullptr) {
    context.problems.add(action.at("port"), "it is missing", "from 1 to 65535");
  }
  return static_cast<int>(action.integer("port", 1, 65535).value_or(0));
}

std::optional<Probe> read_probe(const Reader& reader, std::string_view key,
                                const Container& container, const Context& context) {
  const auto probe = reader.object_at(key);
  if (!probe) { return std::nullopt; }
  Probe out;
  int actions = 0;
  if (const auto exec = probe->object_at("exec")) {
    ++actions;
    out.exec = exec->texts("command");
    if (out.exec.empty()) {
      context.problems.add(exec->at("command"), "it is empty", "give the command to run");
    }
  }
  if (const auto http = probe->object_at("httpGet")) {
    ++actions;
    out.http_path = http->text("path");
    if (out.http_path.empty()) { out.http_path = "/"; }
    out.port = read_probe_port(*http, container, context);
    if (const auto scheme = http->text("scheme"); !scheme.empty()) { out.scheme = scheme; }
    if (out.scheme != "HTTP" && out.scheme != "HTTPS") {
      context.problems.add(http->at("scheme"), fmt::format("{} is not a scheme", quote(out.scheme)),
                           "HTTP or HTTPS");
    }
  }
  if (const auto tcp = probe->object_at("tcpSocket")) {
    ++actions;
    out.tcp = true;
    out.port = read_probe_port(*tcp, container, context);
  }
  if (probe->has("grpc")) {
    ++actions;
    context.unsupported(probe->at("grpc"), "probes over gRPC are not supported",
                        "use exec, httpGet or tcpSocket");
  }
  if (actions != 1) {
    context.problems.add(
        reader.at(key),
        actions == 0 ? "it says nothing to do" : "it says more than one thing to do",
        "one of exec, httpGet, tcpSocket");
  }
  out.initial_delay_s =
      static_cast<int>(probe->integer("initialDelaySeconds", 0, kMostInt).value_or(0));
  out.period_s = static_cast<int>(probe->integer("periodSeconds", 1, kMostInt).value_or(10));
  out.timeout_s = static_cast<int>(probe->integer("timeoutSeconds", 1, kMostInt).value_or(1));
  out.success_threshold =
      static_cast<int>(probe->integer("successThreshold", 1, kMostInt).value_or(1));
  out.failure_threshold =
      static_cast<int>(probe->integer("failureThreshold", 1, kMostInt).value_or(3));
  if (key != "readinessProbe" && out.success_threshold != 1) {
    context.problems.add(probe->at("successThreshold"),
                         fmt::format("{} is not allowed here", out.success_threshold),
                         "it must be 1");
  }
  return out;
}

// --- volumes -----------------------------------------------------------------------------------------------

void read_items(const Reader& source, Volume& volume, const Context& context) {
  for (const auto& item : source.objects_at("items")) {
    auto key = item.text("key");
    auto path = item.text("path");
    if (key.empty()) { context.problems.add(item.at("key"), "it is missing", "name the key"); }
    if (path.empty() || path.starts_with('/') || leaves_folder(path)) {
      context.problems.add(item.at("path"),
                           fmt::format("{} is not a path inside the volume", quote(path)),
                           "a relative path without '..'");
    }
    volume.items.emplace_back(std::move(key), std::move(path));
  }
}

Volume read_volume(const Reader& reader, const Context& context) {
  Volume out;
  out.name = reader.text("name");
  check_label(reader, "name", out.name);
  std::vector<std::string> sources;
  for (const auto& [key, value] : reader.object()) {
    if (key != "name" && !value.is_null()) { sources.emplace_back(std::string_view(key)); }
  }
  const auto here = reader.path();
  if (sources.empty()) {
    context.problems.add(here, "the volume has no source",
                         "one of hostPath, emptyDir, secret, configMap, persistentVolumeClaim");
    return out;
  }
  if (sources.size() > 1) {
    context.problems.add(
        here, fmt::format("the volume has two sources: {} and {}", sources[0], sources[1]),
        "keep one of them");
    return out;
  }
  out.source = sources[0];
  const auto source = reader.object_at(sources[0]);
  if (!source) { return out; }
  if (sources[0] == "hostPath") {
    out.kind = Volume::Kind::host_path;
    out.source = source->text("path");
    out.host_path_type = source->text("type");
    const auto plain = std::filesystem::path(out.source).lexically_normal();
    if (!out.source.starts_with('/') || leaves_folder(out.source)) {
      context.problems.add(source->at("path"),
                           fmt::format("{} is not an absolute path", quote(out.source)),
                           "an absolute path without '..'");
    } else if (plain == "/" && !context.rules.allow_host_root) {
      context.denied(source->at("path"), "the whole file system of the host cannot be mounted",
                     "--allow-host-root");
    }
    static constexpr std::string_view kTypes[] = {
        "",       "DirectoryOrCreate", "Directory",  "FileOrCreate", "File",
        "Socket", "CharDevice",        "BlockDevice"};
    if (std::ranges::find(kTypes, out.host_path_type) == std::end(kTypes)) {
      context.problems.add(source->at("type"),
                           fmt::format("{} is not a type of path", quote(out.host_path_type)),
                           "DirectoryOrCreate, Directory, FileOrCreate, File, Socket, CharDevice, "
                           "BlockDevice, or nothing");
    }
  } else if (sources[0] == "emptyDir") {
    out.kind = Volume::Kind::empty_dir;
    out.source.clear();
    const auto medium = source->text("medium");
    out.memory = medium == "Memory";
    if (!medium.empty() && medium != "Memory") {
      context.problems.add(source->at("medium"), fmt::format("{} is not a medium", quote(medium)),
                           "Memory, or nothing");
    }
  } else if (sources[0] == "secret" || sources[0] == "configMap") {
    const bool secret = sources[0] == "secret";
    const std::string_view key = secret ? "secretName" : "name";
    out.kind = secret ? Volume::Kind::secret : Volume::Kind::config_map;
    out.source = source->text(key);
    out.optional = source->boolean("optional");
    out.read_only = true;
    if (out.source.empty()) {
      context.problems.add(source->at(key), "it is missing", "name the object");
    }
    read_items(*source, out, context);
  } else if (sources[0] == "persistentVolumeClaim") {
    out.kind = Volume::Kind::claim;
    out.source = source->text("claimName");
    out.read_only = source->boolean("readOnly");
    if (!is_dns_subdomain(out.source)) {
      context.problems.add(
          source->at("claimName"),
          out.source.empty() ? "it is missing" : fmt::format("{} is not a name", quote(out.source)),
          "name a PersistentVolumeClaim");
    }
  }
  return out;
}

void read_mounts(const Reader& reader, Container& container, const std::vector<Volume>& volumes,
                 const Context& context) {
  std::map<std::string, std::string> paths;  // normalised path → volume
  for (const auto& entry : reader.objects_at("volumeMounts")) {
    VolumeMount mount{.name = entry.text("name"),
                      .mount_path = entry.text("mountPath"),
                      .sub_path = entry.text("subPath"),
                      .read_only = entry.boolean("readOnly")};
    if (std::ranges::none_of(volumes,
                             [&](const Volume& volume) { return volume.name == mount.name; })) {
      context.problems.add(entry.at("name"),
                           fmt::format("no volume is named {}", quote(mount.name)),
                           "add it to spec.volumes, or correct the name");
    }
    if (!mount.mount_path.starts_with('/') || leaves_folder(mount.mount_path) ||
        mount.mount_path.find(':') != std::string::npos) {
      context.problems.add(entry.at("mountPath"),
                           fmt::format("{} is not a path to mount at", quote(mount.mount_path)),
                           "an absolute path without '..' and ':'");
    } else {
      auto plain = std::filesystem::path(mount.mount_path).lexically_normal().string();
      if (plain.size() > 1 && plain.ends_with('/')) { plain.pop_back(); }
      if (plain == "/") {
        context.problems.add(entry.at("mountPath"), "nothing can be mounted over '/'",
                             "choose a folder");
      }
      const auto [other, fresh] = paths.emplace(plain, mount.name);
      if (!fresh) {
        context.problems.add(
            entry.at("mountPath"),
            fmt::format("{} is taken by volume {}", quote(plain), quote(other->second)),
            "choose another path");
      }
    }
    if (mount.sub_path.starts_with('/') || leaves_folder(mount.sub_path)) {
      context.problems.add(entry.at("subPath"),
                           fmt::format("{} leaves the volume", quote(mount.sub_path)),
                           "a relative path without '..'");
    }
    if (entry.has("subPathExpr")) {
      context.unsupported(entry.at("subPathExpr"), "subPathExpr is not supported",
                          "write the path as subPath");
    }
    container.mounts.push_back(std::move(mount));
  }
}

// --- security ----------------------------------------------------------------------------------------------

struct User {
  std::optional<std::int64_t> user;
  std::optional<std::int64_t> group;
};

// MLRun writes the container's form at the pod's level, so both levels read both forms.
User read_security(const Reader& reader, const Context& context,
                   std::vector<std::int64_t>* groups) {
  User out;
  const auto security = reader.object_at("securityContext");
  if (!security) { return out; }
  out.user = security->integer("runAsUser", 0, kMostInt);
  out.group = security->integer("runAsGroup", 0, kMostInt);
  if (out.user == 0 && !context.rules.allow_root_user) {
    context.denied(security->at("runAsUser"), "pods may not run as user 0", "--allow-root-pods");
  }
  if (security->boolean("runAsNonRoot") && out.user == 0) {
    context.problems.add(security->at("runAsUser"), "runAsNonRoot forbids user 0",
                         "name another user");
  }
  if (security->boolean("privileged") && !context.rules.allow_privileged) {
    context.denied(security->at("privileged"), "privileged containers are refused",
                   "--allow-privileged-pods");
  }
  if (const auto capabilities = security->object_at("capabilities")) {
    if (!capabilities->texts("add").empty() && !context.rules.allow_privileged) {
      context.denied(capabilities->at("add"), "added capabilities are refused",
                     "--allow-privileged-pods");
    }
  }
  if (groups == nullptr) { return out; }
  if (const auto* list = security->find("supplementalGroups")) {
    if (!list->is_array()) {
      security->wrong_type(security->at("supplementalGroups"), *list, "list");
    } else {
      for (std::size_t i = 0; i < list->get_array().size(); ++i) {
        const auto& value = list->get_array()[i];
        if (value.is_int64() && value.get_int64() >= 0 && value.get_int64() <= kMostInt) {
          groups->push_back(value.get_int64());
        } else {
          context.problems.add(security->at("supplementalGroups", i),
                               "it is not the number of a group", "0 or more");
        }
      }
    }
  }
  if (const auto group = security->integer("fsGroup", 0, kMostInt)) { groups->push_back(*group); }
  return out;
}

// --- the pod -----------------------------------------------------------------------------------------------

Container read_container(const Reader& reader, const std::vector<Volume>& volumes,
                         const Context& context, bool init, User& user) {
  Container out;
  out.name = reader.text("name");
  check_label(reader, "name", out.name);
  out.image = reader.text("image");
  if (out.image.find_first_of(" \t\n") != std::string::npos) {
    context.problems.add(reader.at("image"), fmt::format("{} is not an image", quote(out.image)),
                         "[registry/]name[:tag], without spaces");
  }
  out.command = reader.texts("command");
  out.args = reader.texts("args");
  out.working_dir = reader.text("workingDir");
  if (!out.working_dir.empty() && !out.working_dir.starts_with('/')) {
    context.problems.add(reader.at("workingDir"),
                         fmt::format("{} is not an absolute path", quote(out.working_dir)),
                         "start it with '/'");
  }
  read_ports(reader, out, context);
  read_env(reader, out, context);
  read_mounts(reader, out, volumes, context);
  out.resources = read_resources(reader);
  for (const auto& [key, member] : {std::pair{"readinessProbe", &Container::readiness},
                                    std::pair{"livenessProbe", &Container::liveness},
                                    std::pair{"startupProbe", &Container::startup}}) {
    out.*member = read_probe(reader, key, out, context);
    if (init && out.*member) {
      context.problems.add(reader.at(key), "init containers have no probes", "leave it away");
    }
  }
  out.image_pull_policy = reader.text("imagePullPolicy");
  if (!out.image_pull_policy.empty() && out.image_pull_policy != "Always" &&
      out.image_pull_policy != "IfNotPresent" && out.image_pull_policy != "Never") {
    context.problems.add(reader.at("imagePullPolicy"),
                         fmt::format("{} is not a policy", quote(out.image_pull_policy)),
                         "Always, IfNotPresent or Never");
  }
  if (const auto hooks = reader.object_at("lifecycle");
      hooks && (hooks->has("postStart") || hooks->has("preStop"))) {
    context.unsupported(reader.at("lifecycle"), "hooks of a container's life are not supported",
                        "do the work in the command, and on SIGTERM");
  }
  if (init && reader.text("restartPolicy") == "Always") {
    context.unsupported(reader.at("restartPolicy"), "sidecar init containers are not supported",
                        "make it a container");
  }
  user = read_security(reader, context, nullptr);
  return out;
}

void read_containers(const Reader& spec, Pod& pod, const Context& context) {
  std::set<std::string> names;
  std::vector<User> users;
  for (const bool init : {true, false}) {
    const std::string_view key = init ? "initContainers" : "containers";
    for (const auto& reader : spec.objects_at(key)) {
      User user;
      auto container = read_container(reader, pod.volumes, context, init, user);
      if (!names.insert(container.name).second) {
        context.problems.add(reader.at("name"),
                             fmt::format("two containers are named {}", quote(container.name)),
                             "give each a name of its own");
      }
      users.push_back(user);
      (init ? pod.init_containers : pod.containers).push_back(std::move(container));
    }
  }
  if (pod.containers.empty() && context.problems.empty()) {
    context.problems.add("spec.containers", "the pod has no container", "name at least one");
  }
  // A container's user is the pod's when all agree; processes of one pod share its folder and cannot differ.
  for (const auto& user : users) {
    const auto effective = user.user ? user.user : pod.run_as_user;
    const auto first = users.front().user ? users.front().user : pod.run_as_user;
    if (effective != first) {
      context.unsupported("spec.containers", "containers of one pod cannot have different users",
                          "set spec.securityContext.runAsUser once");
      return;
    }
  }
  if (!users.empty()) {
    if (users.front().user) { pod.run_as_user = users.front().user; }
    if (users.front().group) { pod.run_as_group = users.front().group; }
  }
}

void read_spec(const Reader& spec, Pod& pod, const Context& context) {
  pod.run_as_user.reset();
  const auto user = read_security(spec, context, &pod.groups);
  pod.run_as_user = user.user;
  pod.run_as_group = user.group;
  std::set<std::string> names;
  for (const auto& reader : spec.objects_at("volumes")) {
    auto volume = read_volume(reader, context);
    if (!names.insert(volume.name).second) {
      context.problems.add(reader.at("name"),
                           fmt::format("two volumes are named {}", quote(volume.name)),
                           "give each a name of its own");
    }
    pod.volumes.push_back(std::move(volume));
  }
  read_containers(spec, pod, context);
  const auto restart = spec.text("restartPolicy");
  if (restart == "Never") {
    pod.restart = RestartPolicy::never;
  } else if (restart == "OnFailure") {
    pod.restart = RestartPolicy::on_failure;
  } else if (!restart.empty() && restart != "Always") {
    context.problems.add("spec.restartPolicy", fmt::format("{} is not a policy", quote(restart)),
                         "Always, OnFailure or Never");
  }
  pod.grace_s =
      static_cast<int>(spec.integer("terminationGracePeriodSeconds", 0, kMostInt).value_or(30));
  pod.deadline_s = spec.integer("activeDeadlineSeconds", 1, kMostInt);
  pod.hostname = spec.text("hostname");
  pod.subdomain = spec.text("subdomain");
  for (const auto& [key, value] :
       {std::pair{"hostname", &pod.hostname}, std::pair{"subdomain", &pod.subdomain}}) {
    if (!value->empty()) { check_label(spec, key, *value); }
  }
  pod.node_name = spec.text("nodeName");
  pod.service_account = spec.text("serviceAccountName");
  if (pod.service_account.empty()) { pod.service_account = spec.text("serviceAccount"); }
  if (!pod.service_account.empty() && !is_dns_subdomain(pod.service_account)) {
    context.problems.add("spec.serviceAccountName",
                         fmt::format("{} is not a name", quote(pod.service_account)),
                         "lower-case letters, digits, '-' and '.'");
  }
  pod.priority_class = spec.text("priorityClassName");
  pod.priority = spec.integer("priority", INT32_MIN, kMostInt).value_or(0);
  for (const std::string_view key : {"hostNetwork", "hostPID", "hostIPC"}) {
    if (spec.boolean(key) && !context.rules.allow_host_namespaces) {
      context.denied(spec.at(key), "the host's namespaces are not for pods",
                     "--allow-host-namespaces");
    }
  }
  // What has no typed view is still checked for its form, so that the mistake is named before it is ignored.
  if (const auto selector = spec.object_at("nodeSelector")) {
    for (const auto& [key, value] : selector->object()) {
      if (!value.is_string()) { selector->wrong_type(selector->at(key), value, "text"); }
    }
  }
  (void)spec.objects_at("tolerations");
  (void)spec.object_at("affinity");
  (void)spec.objects_at("imagePullSecrets");
}

Pod read_pod(const Resource& resource, const PodRules& rules, Problems& problems) {
  Pod pod;
  const Context context{.rules = rules, .problems = problems};
  if (resource.kind != "Pod" || resource.api_version != "v1") {
    problems.add("kind", fmt::format("{} {} is not a Pod", resource.api_version, resource.kind),
                 "apiVersion: v1, kind: Pod");
    return pod;
  }
  pod.metadata = resource.metadata;
  if (auto checked = check_metadata(resource.metadata); !checked) {
    problems.add(std::move(checked).error());
  }
  const auto* spec = resource.body.if_contains("spec");
  if (spec == nullptr || !spec->is_object()) {
    problems.add("spec",
                 spec == nullptr ? "it is missing"
                                 : fmt::format("expected object, got {}", type_name(*spec)),
                 "a Pod needs spec.containers");
    return pod;
  }
  read_spec(Reader(spec->get_object(), "spec", problems), pod, context);
  return pod;
}

using Sums = std::map<std::string, Quantity, std::less<>>;

void add(Sums& sums, const std::string& name, Quantity amount) {
  auto& sum = sums[name];
  std::int64_t total = 0;
  if (__builtin_add_overflow(sum.milli(), amount.milli(), &total)) { total = INT64_MAX; }
  sum = Quantity::from_milli(total);
}

Sums requests_of(const Container& container) {
  auto out = container.resources.requests;
  out.insert(container.resources.limits.begin(), container.resources.limits.end());
  return out;
}

Sums sum_of(const Pod& pod, Sums (*part)(const Container&)) {
  Sums out;
  for (const auto& container : pod.containers) {
    for (const auto& [name, amount] : part(container)) { add(out, name, amount); }
  }
  for (const auto& container : pod.init_containers) {
    for (const auto& [name, amount] : part(container)) { out[name] = std::max(out[name], amount); }
  }
  return out;
}

}  // namespace

Result<Pod> pod_from(const Resource& resource, const PodRules& rules) {
  Problems problems;
  auto pod = read_pod(resource, rules, problems);
  if (problems.empty()) { return pod; }
  auto first = std::move(problems.list().front());
  if (problems.list().size() > 1) {
    first.fix += fmt::format("{}({} more problems)", first.fix.empty() ? "" : " ",
                             problems.list().size() - 1);
  }
  return fail(std::move(first));
}

std::vector<Error> pod_problems(const Resource& resource, const PodRules& rules) {
  Problems problems;
  (void)read_pod(resource, rules, problems);
  return std::move(problems.list());
}

Sums pod_requests(const Pod& pod) { return sum_of(pod, requests_of); }

Sums pod_limits(const Pod& pod) {
  return sum_of(pod, [](const Container& container) { return container.resources.limits; });
}

}  // namespace metier
