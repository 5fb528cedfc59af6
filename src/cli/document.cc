#include "cli/document.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <filesystem>
#include <set>

#include "base/clock.h"
#include "base/digest.h"
#include "base/files.h"
#include "base/quantity.h"
#include "base/yaml.h"
#include "model/create.h"
#include "model/kinds.h"
#include "model/spark.h"

namespace metier::cli {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kMostReplicas = 10'000;

std::string comma(const std::vector<std::string>& names, std::string_view between) {
  std::string out;
  for (const auto& name : names) { out += (out.empty() ? "" : std::string(between)) + name; }
  return out;
}

bool in_pods(std::string_view kind) { return kind != "handler" && kind != "local"; }

// -- parameters, inputs ----------------------------------------------------------------------------------------------

Result<void> add_parameters(const Arguments& arguments, JsonObject& run_spec) {
  auto& parameters = ensure_object(run_spec, "parameters");
  for (const auto& text : arguments.values("--param")) {
    METIER_TRY(pair, parse_pair("-p", text));
    if (parameters.contains(pair.name)) {
      return fail(invalid("-p", quote(pair.name) + " is given twice", "give each parameter once"));
    }
    parameters[pair.name] = parameter_value(pair.value);
  }
  return {};
}

Result<void> add_inputs(const Arguments& arguments, const Caller& caller, JsonObject& run_spec) {
  auto& inputs = ensure_object(run_spec, "inputs");
  for (const auto& text : arguments.values("--input")) {
    METIER_TRY(pair, parse_pair("-i", text));
    if (inputs.contains(pair.name)) {
      return fail(invalid("-i", quote(pair.name) + " is given twice", "give each input once"));
    }
    if (pair.value.empty()) {
      return fail(invalid("-i", quote(pair.name) + " has no URL", "write -i NAME=FILE-OR-URL"));
    }
    auto url = pair.value;
    if (url.find("://") == std::string::npos) {
      url = (fs::path(caller.folder) / url).lexically_normal().string();
      std::error_code ec;
      if (caller.same_machine && !fs::exists(url, ec)) {
        return fail(Error{.kind = ErrorKind::not_found,
                          .message = pair.value + ": no such file",
                          .field = "-i " + pair.name});
      }
    }
    inputs[pair.name] = url;
  }
  return {};
}

// Message 4 of the reference: a parameter that nothing in the file can take is a mistake found before anything starts.
Result<void> check_parameters(const Target& target, const JsonObject& run_spec,
                              std::string_view kind) {
  if (target.kind != FileKind::python || target.handler.empty()) { return {}; }
  const auto found = std::ranges::find(target.scan.functions, target.handler, &Found::name);
  if (found == target.scan.functions.end() || found->any_keyword) { return {}; }
  for (const auto* given : {object_in(run_spec, "parameters"), object_in(run_spec, "inputs")}) {
    if (given == nullptr) { continue; }
    for (const auto& [key, value] : *given) {
      const std::string name(key);
      if (kind == "mpijob" && name == "slots_per_worker") { continue; }  // the kind's own
      if (std::ranges::find(found->parameters, name) != found->parameters.end() ||
          target.text.find(name) != std::string::npos) {
        continue;
      }
      const auto close = nearest(name, found->parameters);
      return fail(invalid(
          given == object_in(run_spec, "inputs") ? "-i " + name : "-p " + name,
          fmt::format("{}:{} {}({}) does not take it", fs::path(target.path).filename().string(),
                      found->line, found->name, comma(found->parameters, ", ")),
          close ? fmt::format("did you mean {}? To allow any: add **kwargs", *close)
                : "to allow any: add **kwargs"));
    }
  }
  return {};
}

Result<void> add_hyper(const Arguments& arguments, JsonObject& run_spec) {
  const auto lists = arguments.values("--hyper");
  for (const char* flag : {"--strategy", "--selector", "--stop"}) {
    if (lists.empty() && arguments.has(flag)) {
      return fail(invalid(flag, "needs hyper-parameters", "give -x NAME=JSON-LIST"));
    }
  }
  if (lists.empty()) { return {}; }
  auto& hyper = ensure_object(run_spec, "hyperparams");
  for (const auto& text : lists) {
    METIER_TRY(pair, parse_pair("-x", text));
    auto value = parse_json(pair.value);
    if (!value || !value->is_array() || value->as_array().empty()) {
      return fail(invalid("-x",
                          fmt::format("{} is not a list: {}", quote(pair.name), quote(pair.value)),
                          "write a JSON list: -x lr=[0.1,0.2]"));
    }
    if (hyper.contains(pair.name)) {
      return fail(invalid("-x", quote(pair.name) + " is given twice"));
    }
    hyper[pair.name] = std::move(*value);
  }
  auto& options = ensure_object(run_spec, "hyper_param_options");
  const auto strategy = arguments.value("--strategy", "grid");
  if (strategy != "grid" && strategy != "list" && strategy != "random") {
    return fail(invalid("--strategy", quote(strategy) + " is unknown", "grid, list or random"));
  }
  options["strategy"] = strategy;
  const auto selector = arguments.value("--selector");
  if (!selector.empty()) {
    const auto dot = selector.find('.');
    const auto how = selector.substr(0, dot);
    if (dot != std::string::npos && how != "max" && how != "min") {
      return fail(invalid("--selector", quote(selector) + " is not accepted",
                          "write max.RESULT or min.RESULT"));
    }
    options["selector"] = selector;
  }
  if (arguments.has("--stop")) { options["stop_condition"] = arguments.value("--stop"); }
  return {};
}

// -- resources, environment, volumes -----------------------------------------------------------------------------------

// Of each worker too, where a kind has its own field for them.
Result<void> add_resources(const Arguments& arguments, std::string_view kind, JsonObject& spec) {
  const auto set = [&](std::string_view name, std::string value, bool request) {
    for (const std::string_view field : {"resources", "worker_resources"}) {
      const bool workers = field == "worker_resources";
      if ((workers && kind != "dask") || (!workers && kind == "dask" && !request)) { continue; }
      auto& resources = ensure_object(spec, field);
      ensure_object(resources, "limits")[name] = value;
      if (request) { ensure_object(resources, "requests")[name] = value; }
    }
  };
  if (kind == "handler") {
    for (const char* flag : {"--cpu", "--mem", "--gpus"}) {
      if (arguments.has(flag)) {
        return fail(invalid(flag, "a handler runs in your own interpreter, which has no limits",
                            "leave it out, or choose --kind local or job"));
      }
    }
    return {};
  }
  if (arguments.has("--cpu")) {
    METIER_TRY(cpu, check_cpu(arguments.value("--cpu")));
    set("cpu", cpu, true);
  }
  if (arguments.has("--mem")) {
    METIER_TRY(memory, check_memory(arguments.value("--mem")));
    set("memory", memory, true);
  }
  if (arguments.has("--gpus")) {
    METIER_TRY(count, parse_count("--gpus", arguments.value("--gpus"), 0, 1024));
    if (count > 0) { set("nvidia.com/gpu", std::to_string(count), false); }
  }
  return {};
}

Result<void> add_replicas(const Arguments& arguments, std::string_view kind, JsonObject& spec,
                          std::vector<std::string>& warnings) {
  for (const auto& [flag, field] :
       {std::pair{"--replicas", "replicas"}, std::pair{"--min", "min_replicas"},
        std::pair{"--max", "max_replicas"}}) {
    if (!arguments.has(flag)) { continue; }
    METIER_TRY(count, parse_count(flag, arguments.value(flag),
                                  flag == std::string_view("--min") ? 0 : 1, kMostReplicas));
    if (count > 1 && (!in_pods(kind) || kind == "job")) {
      return fail(invalid(
          flag, fmt::format("kind {} runs in one {}", kind, in_pods(kind) ? "pod" : "process"),
          "choose a kind of several pods: mpijob, spark, dask"));
    }
    if (count > 1 && kind == "remote-spark") {
      warnings.push_back(
          fmt::format("{} {}: one pod runs here; how many executors its session has, the Spark "
                      "service decides",
                      flag, count));
    }
    spec[field] = count;
  }
  const auto least = int_in(spec, "min_replicas");
  const auto most = int_in(spec, "max_replicas");
  if (least && most && *least > *most) {
    return fail(invalid("--min", fmt::format("{} is more than --max {}", *least, *most),
                        fmt::format("give --max at least {}, or a smaller --min", *least)));
  }
  return {};
}

Result<void> check_variable(std::string_view name, std::string_view kind) {
  // The one that chooses a cluster for kind remote-spark is the user's.
  const bool service = name.starts_with("METIER_SPARK_SERVICE");
  if ((name.starts_with("METIER_") && !service) || name == "MLRUN_DBPATH" ||
      name == "MLRUN_EXEC_CONFIG" || name == "MLRUN_EXEC_CODE") {
    return fail(invalid("-e", quote(name) + " is reserved for metier", "choose another name"));
  }
  if (!in_pods(kind) && (name.starts_with("LD_") || name == "GCONV_PATH")) {
    return fail(
        invalid("-e", quote(name) + " changes how programs are loaded and is allowed in pods only",
                "choose --kind job"));
  }
  return {};
}

Result<void> add_environment(const Arguments& arguments, const Caller& caller,
                             std::string_view kind, JsonObject& spec) {
  std::set<std::string> seen;
  for (const auto& text : arguments.values("--env")) {
    METIER_TRY(pair, parse_pair("-e", text));
    METIER_CHECK(check_variable(pair.name, kind));
    if (!seen.insert(pair.name).second) {
      return fail(invalid("-e", quote(pair.name) + " is given twice"));
    }
    ensure_array(spec, "env").push_back(JsonObject{{"name", pair.name}, {"value", pair.value}});
  }
  for (const auto& text : arguments.values("--secret")) {
    if (kind == "handler") {
      return fail(invalid(
          "--secret", "a handler runs in your own interpreter, and secrets never leave the server",
          "set the variable yourself, or choose --kind local or job"));
    }
    const auto colon = text.find(':');
    const auto name = text.substr(0, colon);
    const auto key = colon == std::string::npos ? name : text.substr(colon + 1);
    const auto fits = [](char c) {
      return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '-' || c == '_' || c == '.';
    };
    if (name.empty() || key.empty() || !std::ranges::all_of(name, fits) ||
        !std::ranges::all_of(key, fits)) {
      return fail(invalid("--secret", quote(text) + " is not NAME or NAME:KEY",
                          "names are letters, digits, '-', '_' and '.'"));
    }
    std::string variable = key;  // the name in the environment: what a shell can say
    for (auto& c : variable) {
      if (c == '-' || c == '.') { c = '_'; }
    }
    if (!seen.insert(variable).second) {
      return fail(invalid("--secret", quote(variable) + " is given twice"));
    }
    // A name alone is a key of the project's own secret, as MLRun stores project secrets.
    JsonObject reference{
        {"name", colon == std::string::npos ? "mlrun-project-secrets-" + caller.project : name},
        {"key", key}};
    ensure_array(spec, "env")
        .push_back(JsonObject{{"name", variable},
                              {"valueFrom", JsonObject{{"secretKeyRef", std::move(reference)}}}});
  }
  return {};
}

bool below(std::string_view path, std::string_view folder) {
  return !folder.empty() &&
         (path == folder ||
          (path.starts_with(folder) && path.size() > folder.size() && path[folder.size()] == '/'));
}

Result<void> check_volume(const Caller& caller, const std::string& host, const std::string& path) {
  for (const auto& side : {host, path}) {
    if (!side.starts_with('/')) {
      return fail(invalid("-v", quote(side) + " is not an absolute path",
                          "write -v /HOST/FOLDER:/PATH[:ro]"));
    }
    const auto parts = fs::path(side);
    if (std::ranges::find(parts, "..") != parts.end()) {
      return fail(invalid("-v", quote(side) + " has a '..'", "write the path it means"));
    }
    for (const char* refused : {"/proc", "/sys", "/dev"}) {
      if (below(side, refused)) {
        return fail(invalid("-v", quote(side) + " is not allowed", "share a folder of your own"));
      }
    }
    if (side == "/") {
      return fail(invalid("-v", "the root folder is not allowed", "share a folder in it"));
    }
  }
  for (const auto& ours : {caller.data, fs::path(caller.socket).parent_path().string()}) {
    if (below(host, ours) || below(ours, host)) {
      return fail(invalid("-v", quote(host) + " holds metier's own records or socket",
                          "share another folder"));
    }
  }
  std::error_code ec;
  if (caller.same_machine && !fs::exists(host, ec)) {
    return fail(Error{
        .kind = ErrorKind::not_found, .message = host + ": no such file or folder", .field = "-v"});
  }
  return {};
}

Result<void> add_volumes(const Arguments& arguments, const Caller& caller, std::string_view kind,
                         JsonObject& spec) {
  int index = 0;
  for (const auto& text : arguments.values("--volume")) {
    if (!in_pods(kind)) {
      return fail(invalid("-v", fmt::format("kind {} sees this machine's files as they are", kind),
                          "leave -v out"));
    }
    const auto first = text.find(':');
    const auto second = first == std::string::npos ? first : text.find(':', first + 1);
    const auto mode = second == std::string::npos ? std::string() : text.substr(second + 1);
    if (first == std::string::npos ||
        (second != std::string::npos && mode != "ro" && mode != "rw")) {
      return fail(invalid("-v", quote(text) + " is not HOST:PATH or HOST:PATH:ro"));
    }
    auto host = text.substr(0, first);
    auto path = text.substr(first + 1, second == std::string::npos ? second : second - first - 1);
    while (host.size() > 1 && host.ends_with('/')) { host.pop_back(); }
    while (path.size() > 1 && path.ends_with('/')) { path.pop_back(); }
    METIER_CHECK(check_volume(caller, host, path));
    const auto name = fmt::format("volume-{}", index++);
    ensure_array(spec, "volumes")
        .push_back(JsonObject{{"name", name}, {"hostPath", JsonObject{{"path", host}}}});
    JsonObject mount{{"name", name}, {"mountPath", path}};
    if (mode == "ro") { mount["readOnly"] = true; }
    ensure_array(spec, "volume_mounts").push_back(std::move(mount));
  }
  return {};
}

// -- the environment it runs in, limits in time, everything else ----------------------------------------------------------

Result<void> add_requirements(const Arguments& arguments, JsonObject& spec) {
  const auto file = arguments.value("--requirements");
  if (!file.empty()) {
    auto text = read_file(file, 1U << 20U);
    if (!text) { return fail(std::move(text).error().at("--requirements")); }
    auto& list = ensure_array(ensure_object(spec, "build"), "requirements");
    std::string_view rest = *text;
    while (!rest.empty()) {
      const auto end = std::min(rest.find('\n'), rest.size());
      auto line = rest.substr(0, end);
      rest.remove_prefix(std::min(end + 1, rest.size()));
      line = line.substr(0, std::min(line.find(" #"), line.size()));
      while (!line.empty() && (line.back() == ' ' || line.back() == '\r' || line.back() == '\t')) {
        line.remove_suffix(1);
      }
      while (!line.empty() && (line.front() == ' ' || line.front() == '\t')) {
        line.remove_prefix(1);
      }
      if (!line.empty() && line[0] != '#') { list.push_back(boost::json::string(line)); }
    }
  }
  const auto python = arguments.value("--python");
  if (!python.empty()) {
    const bool version =
        std::ranges::all_of(python, [](char c) { return (c >= '0' && c <= '9') || c == '.'; }) &&
        python.starts_with("3.");
    if (!version && !python.starts_with('/')) {
      return fail(invalid("--python", quote(python) + " is neither a version nor a path",
                          "write --python 3.11"));
    }
    ensure_object(spec, "build")["python"] = python;
  }
  if (arguments.has("--image")) { spec["image"] = arguments.value("--image"); }
  return {};
}

Result<void> add_limits_in_time(const Arguments& arguments, JsonObject& run_spec) {
  if (arguments.has("--timeout")) {
    const auto text = arguments.value("--timeout");
    const auto duration = parse_duration(text);
    if (!duration || duration->count() <= 0) {
      return fail(
          invalid("--timeout", quote(text) + " is not a duration", "write 90s, 10m, 2h or 1d"));
    }
    if (*duration < std::chrono::minutes(1)) {
      return fail(invalid("--timeout", quote(text) + " is shorter than a minute",
                          "a run is given one minute or more: 90s, 10m, 2h"));
    }
    ensure_object(run_spec, "state_thresholds")["executing"] =
        fmt::format("{}s", std::max<std::int64_t>(duration->count() / 1'000'000, 1));
  }
  if (arguments.has("--retry")) {
    METIER_TRY(count, parse_count("--retry", arguments.value("--retry"), 0, 100));
    if (count > 0) { run_spec["retry"] = JsonObject{{"count", count}}; }
  }
  return {};
}

Result<void> add_settings(const Arguments& arguments, JsonObject& function) {
  for (const auto& text : arguments.values("--set")) {
    const auto equals = text.find('=');
    const auto path = text.substr(0, equals);
    if (equals == std::string::npos ||
        !(path.starts_with("spec.") || path.starts_with("metadata.")) || path.ends_with('.') ||
        path.find("..") != std::string::npos) {
      return fail(invalid("--set", quote(text) + " is not accepted", "write --set spec.PATH=JSON"));
    }
    auto value = parse_json(text.substr(equals + 1));
    if (!value) {
      return fail(invalid("--set " + path, "is not JSON: " + value.error().message,
                          "texts need quotes: '\"text\"'"));
    }
    METIER_CHECK(set_dotted(function, path, std::move(*value)));
  }
  return {};
}

// -- the function ------------------------------------------------------------------------------------------------------

// Kinds that run in this terminal or on this machine read the file itself: what is edited is what runs.
Result<Target> function_of_file(const Arguments& arguments, Submission& out) {
  METIER_TRY(target, find_target(arguments.words().front()));
  const auto file = fs::path(target.path);
  const auto name = normalized_name(file.stem().string());
  if (target.kind == FileKind::python || target.kind == FileKind::notebook) {
    if (target.kind == FileKind::notebook && !in_pods(out.kind)) {
      return fail(invalid("--kind", fmt::format("a notebook runs in pods, not as {}", out.kind),
                          "choose --kind job"));
    }
    METIER_TRY(function, code_to_function({.name = name,
                                           .project = out.project,
                                           .filename = target.path,
                                           .handler = target.handler,
                                           .kind = out.kind == "handler" ? "local" : out.kind}));
    out.function = std::move(function.document());
    if (!in_pods(out.kind)) { ensure_object(out.function, "spec")["command"] = target.path; }
    out.source_text = target.text;
  } else {
    METIER_TRY(function, new_function({.name = name,
                                       .project = out.project,
                                       .kind = out.kind == "handler" ? "local" : out.kind,
                                       .command = target.path,
                                       .mode = target.kind == FileKind::library ? "" : "pass",
                                       .handler = target.handler},
                                      system_random()));
    out.function = std::move(function.document());
  }
  if (!arguments.has("--no-context")) { out.context = file.parent_path().string(); }
  out.shown = arguments.words().front();
  return target;
}

Result<void> function_of_yaml(const std::string& path, Submission& out) {
  auto text = read_file(path, 16U << 20U);
  if (!text) { return fail(std::move(text).error()); }
  auto document = path.ends_with(".json") ? parse_json(*text) : parse_yaml(*text);
  if (!document) { return fail(std::move(document).error().in(path)); }
  if (!document->is_object()) {
    return fail(
        invalid("", fmt::format("{}: holds a {}, not a function", path, type_name(*document))));
  }
  std::error_code ec;
  out.context = fs::absolute(path, ec).lexically_normal().parent_path().string();
  out.shown = "-f " + path;
  METIER_TRY(function, import_function(path, out.project, {}, &out.warnings));
  out.function = std::move(function.document());
  return {};
}

// Everything that is wrong with the function, at once; unknown fields are only told.
Result<void> check_function(Submission& out) {
  auto function = Function::from_json(Json(out.function));
  if (!function) { return fail(std::move(function).error()); }
  METIER_CHECK(validate_function(*function, &out.warnings));
  return {};
}

}  // namespace

const std::vector<std::string>& kind_names() {
  static const std::vector<std::string> names(metier::kind_names().begin(),
                                              metier::kind_names().end());
  return names;
}

Result<void> check_kind(std::string_view flag, std::string_view kind) {
  const auto& names = kind_names();
  if (std::ranges::find(names, kind) != names.end()) { return {}; }
  const auto close = nearest(kind, names);
  return fail(invalid(
      flag,
      quote(kind) + " is unknown" + (close ? fmt::format(", did you mean {}?", quote(*close)) : ""),
      "kinds: " + comma(names, " ")));
}

Result<std::string> check_cpu(std::string_view text) {
  constexpr std::string_view kForms = "write cores or thousandths of one: 2, 0.5, 500m";
  const auto plain = [](char c) { return (c >= '0' && c <= '9') || c == '.'; };
  auto number = text;
  if (number.ends_with('m')) { number.remove_suffix(1); }
  if (number.empty() || !std::ranges::all_of(number, plain)) {
    return fail(invalid("--cpu", quote(text) + " is not a quantity of cpu", std::string(kForms)));
  }
  auto quantity = Quantity::parse(text);
  if (!quantity) {
    return fail(invalid("--cpu", quote(text) + " is not a quantity of cpu", std::string(kForms)));
  }
  if (quantity->milli() <= 0) {
    return fail(invalid("--cpu", quote(text) + " is not more than zero", std::string(kForms)));
  }
  return std::string(text);
}

Result<std::string> check_memory(std::string_view text) {
  auto quantity = Quantity::parse(text);
  if (!quantity) {
    const bool bytes = text.ends_with('B') || text.ends_with('b');
    const auto stem = text.substr(0, text.size() - (bytes ? 1 : 0));
    const auto decimal = Quantity::parse(stem);
    return fail(invalid("--mem", quote(text) + " is not a quantity",
                        bytes && decimal && stem.size() > 1 && !stem.ends_with('i') &&
                                std::isalpha(static_cast<unsigned char>(stem.back())) != 0
                            ? fmt::format("use {0} (powers of 10) or {0}i (powers of 2)", stem)
                            : "use 2G (10^9 bytes) or 2Gi (2^30 bytes)"));
  }
  if (quantity->milli() <= 0) {
    return fail(invalid("--mem", quote(text) + " is not more than zero",
                        "use 2G (10^9 bytes) or 2Gi (2^30 bytes)"));
  }
  if (quantity->units() < (1 << 20)) {
    return fail(invalid(
        "--mem",
        fmt::format("{} is {} bytes, too little for any program", quote(text), quantity->units()),
        "use 2G (10^9 bytes) or 2Gi (2^30 bytes)"));
  }
  return std::string(text);
}

Json parameter_value(std::string_view text) {
  if (text == "True") { return true; }
  if (text == "False") { return false; }
  if (text == "None") { return nullptr; }
  auto value = parse_json(text);
  if (value && !text.empty()) { return std::move(*value); }
  return boost::json::string(text);
}

std::string normalized_name(std::string_view text) {
  std::string out;
  for (const char c : text) {
    const auto lower = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    const bool fits = std::isalnum(static_cast<unsigned char>(lower)) != 0 &&
                      static_cast<unsigned char>(lower) < 0x80;
    out += fits || lower == '.' ? lower : '-';
  }
  const auto edge = [](char c) { return c == '-' || c == '.'; };
  while (!out.empty() && edge(out.front())) { out.erase(0, 1); }
  if (out.size() > 63) { out.resize(63); }
  while (!out.empty() && edge(out.back())) { out.pop_back(); }
  return out.empty() ? "function" : out;
}

std::string run_name(std::string_view file, std::string_view handler) {
  const auto stem = normalized_name(fs::path(file).stem().string());
  const auto dot = handler.rfind('.');
  const auto name =
      handler.empty()
          ? std::string()
          : normalized_name(dot == std::string_view::npos ? handler : handler.substr(dot + 1));
  return name.empty() || name == stem ? stem : normalized_name(stem + "-" + name);
}

Result<Submission> make_submission(const Arguments& arguments, const Caller& caller,
                                   std::string_view default_kind) {
  Submission out;
  out.project = caller.project;
  out.kind = arguments.value("--kind");
  if (arguments.has("--kind")) { METIER_CHECK(check_kind("--kind", out.kind)); }
  const bool file = arguments.has("--file");
  if (file == !arguments.words().empty()) {
    return fail(invalid("run", file ? "both a file and -f are given" : "no file is given",
                        "metier run FILE[:HANDLER], or metier run -f function.yaml"));
  }
  const std::string source = file ? arguments.value("--file") : arguments.words()[0];
  if (source.contains("://")) {
    return fail(Error{.kind = ErrorKind::unsupported,
                      .message = quote(source) + (source.starts_with("hub://")
                                                      ? ": functions of the hub are not fetched"
                                                      : ": functions are read from files only"),
                      .fix = "download it and give the file"});
  }
  std::optional<Target> target;
  if (file) {
    METIER_CHECK(function_of_yaml(arguments.value("--file"), out));
    if (out.kind.empty()) { out.kind = string_in(out.function, "kind", "job"); }
  } else {
    if (out.kind.empty()) { out.kind = default_kind; }
    METIER_TRY(found, function_of_file(arguments, out));
    target = std::move(found);
  }
  auto& function = out.function;
  METIER_TRY(resolved, resolve_kind(out.kind, "--kind"));
  function["kind"] = out.kind == "handler" ? "handler" : resolved.kind;
  ensure_object(function, "metadata")["project"] = out.project;
  auto& spec = ensure_object(function, "spec");
  const auto& metadata = *object_in(function, "metadata");
  METIER_CHECK(add_resources(arguments, out.kind, spec));
  METIER_CHECK(add_replicas(arguments, out.kind, spec, out.warnings));
  if (out.kind == "spark") { METIER_CHECK(spread_over_roles(spec)); }
  METIER_CHECK(add_environment(arguments, caller, out.kind, spec));
  METIER_CHECK(add_volumes(arguments, caller, out.kind, spec));
  METIER_CHECK(add_requirements(arguments, spec));
  if (!arguments.rest().empty()) {
    auto& words = ensure_array(spec, "args");
    words.clear();
    for (const auto& word : arguments.rest()) { words.push_back(boost::json::string(word)); }
    if (out.kind == "dask") {
      out.warnings.emplace_back(
          "-- …: of kind dask these are options of its workers (dask worker); the handler's "
          "parameters are -p NAME=VALUE");
    }
  }
  METIER_CHECK(add_settings(arguments, function));
  METIER_CHECK(check_function(out));

  // All members first: inserting one moves the others.
  out.run = JsonObject{{"kind", "run"}, {"metadata", JsonObject{}}, {"spec", JsonObject{}}};
  auto& run_metadata = *object_in(out.run, "metadata");
  auto& run_spec = *object_in(out.run, "spec");
  const auto handler = arguments.has("--handler") ? arguments.value("--handler")
                       : target                   ? target->handler
                                                  : std::string();
  if (arguments.has("--handler") && target && !target->handler.empty() &&
      target->handler != handler) {
    return fail(invalid("--handler", "is given twice, in the file's name too"));
  }
  const auto default_name = target ? run_name(target->path, handler)
                                   : run_name(string_in(metadata, "name", "function"), handler);
  run_metadata["name"] = normalized_name(arguments.value("--name", default_name));
  run_metadata["project"] = out.project;
  run_metadata["uid"] = new_uid(system_random());
  run_metadata["labels"] = JsonObject{{"kind", out.kind}};
  if (!handler.empty()) { run_spec["handler"] = handler; }
  METIER_CHECK(add_parameters(arguments, run_spec));
  METIER_CHECK(add_inputs(arguments, caller, run_spec));
  METIER_CHECK(add_hyper(arguments, run_spec));
  METIER_CHECK(add_limits_in_time(arguments, run_spec));
  if (target) { METIER_CHECK(check_parameters(*target, run_spec, out.kind)); }
  return out;
}

}  // namespace metier::cli
