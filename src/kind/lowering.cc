#include "kind/lowering.h"

#include <algorithm>
#include <cctype>

#include "base/text.h"
#include "model/attributes.h"
#include "model/create.h"
#include "model/entry_points.h"
#include "model/merge.h"
#include "model/problems.h"
#include "model/python_text.h"

namespace metier {
namespace {

constexpr std::string_view kMlrunNamespace =
    "default";  // what client-spec tells, whatever the project

void put_text(JsonObject& out, std::string_view key, std::string_view value) {
  if (!value.empty()) { out[key] = value; }
}

void put_env(JsonArray& env, std::string_view name, std::string_view value) {
  env.push_back(JsonObject{{"name", name}, {"value", value}});
}

// The run as pods get it: what notifications carry may be secret.
std::string exec_config(const Run& run) {
  Json document = run.to_dict();
  JsonObject* spec = object_in(document.get_object(), "spec");
  Json* notifications = spec == nullptr ? nullptr : spec->if_contains("notifications");
  for (Json& notification : notifications != nullptr && notifications->is_array()
                                ? notifications->get_array()
                                : JsonArray{}) {
    if (notification.is_object()) {
      notification.get_object().stable_erase("params");
      notification.get_object().stable_erase("secret_params");
    }
  }
  return dump_json(document);
}

void add_secret_references(JsonArray& env, const Site& site, const std::string& project) {
  for (const std::string& key : site.project_secret_keys) {
    if (key.starts_with("mlrun.")) {
      continue;  // internal
    }
    const std::string name = "MLRUN_K8S_SECRET__" + key;
    JsonObject entry{
        {"name", name},
        {"valueFrom",
         JsonObject{{"secretKeyRef",
                     JsonObject{{"name", "mlrun-project-secrets-" + project}, {"key", key}}}}}};
    const auto old = std::ranges::find_if(env, [&](const Json& item) {
      return item.is_object() && string_in(item.get_object(), "name") == name;
    });
    if (old != env.end()) {
      *old = std::move(entry);
    } else {
      env.push_back(std::move(entry));
    }
  }
}

JsonObject node_selector_of(const Subject& subject, const Site& site) {
  JsonObject general;
  for (const auto& [key, value] : site.node_selector) { general[key] = value; }
  const JsonObject none;
  const JsonObject* function = object_in(subject.function.spec(), "node_selector");
  const JsonObject* run =
      subject.run == nullptr ? nullptr : object_in(subject.run->spec(), "node_selector");
  const JsonObject merged =
      merge_node_selectors(merge_node_selectors(general, function == nullptr ? none : *function),
                           run == nullptr ? none : *run);
  JsonObject out;
  for (const auto& label : merged) {
    if (!is_falsy(label.value())) { out[label.key()] = label.value(); }
  }
  return out;
}

void copy_field(const Subject& subject, std::string_view from, JsonObject& out,
                std::string_view to) {
  const Json* value =
      subject.run == nullptr
          ? nullptr
          : subject.run->spec().if_contains(from);  // SDK 1.12 sends some with the run
  if (value == nullptr || is_empty_value(*value) || (from != "affinity" && from != "tolerations")) {
    value = subject.function.spec().if_contains(from);
  }
  if (value != nullptr && !is_falsy(*value)) { out[to] = *value; }
}

// The word as a name in the text, not as a part of a longer one.
bool mentions(std::string_view code, std::string_view word) {
  const auto is_word = [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_';
  };
  for (std::size_t at = code.find(word); at != std::string_view::npos;
       at = code.find(word, at + 1)) {
    const std::size_t end = at + word.size();
    if ((at == 0 || !is_word(code[at - 1])) && (end == code.size() || !is_word(code[end]))) {
      return true;
    }
  }
  return code.contains("import *");
}

}  // namespace

std::string label_value(std::string_view text) {
  std::string out;
  for (const char c : text) {
    out += std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '-' || c == '_' || c == '.'
               ? c
               : '-';
  }
  out = shorten_name(out, 63);
  while (!out.empty() && std::isalnum(static_cast<unsigned char>(out.back())) == 0) {
    out.pop_back();
  }
  return out.substr(std::min(out.size(), out.find_first_not_of("-_.")));
}

std::string handler_of(const Subject& subject) {
  if (subject.run != nullptr) {
    if (const std::string_view handler = string_in(subject.run->spec(), "handler");
        !handler.empty()) {
      return std::string(handler);
    }
  }
  return subject.function.text("default_handler");
}

std::string project_of(const Subject& subject, const Site& site) {
  if (subject.run != nullptr && !subject.run->project().empty()) { return subject.run->project(); }
  return subject.function.project().empty() ? site.name_space : subject.function.project();
}

Labels resource_labels(const Subject& subject, const Site& site) {
  Labels labels;
  for (const auto& label : object_in(subject.function.metadata(), "labels") == nullptr
                               ? JsonObject{}
                               : *object_in(subject.function.metadata(), "labels")) {
    labels[std::string(label.key())] = python_text(label.value());
  }
  const std::string kind = subject.function.kind();
  labels["mlrun/class"] = kind.empty() ? "local" : kind;
  labels["mlrun/project"] = project_of(subject, site);
  labels["mlrun/function"] = label_value(subject.function.name());
  labels["mlrun/tag"] = subject.function.tag().empty() ? "latest" : subject.function.tag();
  labels["mlrun/scrape-metrics"] = "True";
  if (subject.run == nullptr) { return labels; }
  const Run& run = *subject.run;
  const Json* scrape = run.spec().if_contains("scrape_metrics");
  labels["mlrun/scrape-metrics"] =
      scrape != nullptr && scrape->is_bool() && !scrape->get_bool() ? "False" : "True";
  labels["mlrun/uid"] = label_value(run.uid());
  labels["mlrun/name"] = label_value(run.name());
  if (const std::string owner = run.label("owner"); !owner.empty()) {
    const std::size_t at = owner.find('@');
    labels["mlrun/owner"] = label_value(owner.substr(0, at));
    if (at != std::string::npos) {
      labels["mlrun/owner_domain"] = label_value(owner.substr(at + 1));
    }
  }
  return labels;
}

Labels resource_annotations(const Subject& subject) {
  const JsonObject* annotations = object_in(subject.function.metadata(), "annotations");
  if ((annotations == nullptr || annotations->empty()) && subject.run != nullptr) {
    annotations = object_in(subject.run->metadata(), "annotations");
  }
  Labels out;
  for (const auto& annotation : annotations == nullptr ? JsonObject{} : *annotations) {
    out[std::string(annotation.key())] = python_text(annotation.value());
  }
  return out;
}

JsonArray container_env(const Subject& subject, const Site& site) {
  JsonArray env;
  const std::string project = project_of(subject, site);
  put_env(env, "MLRUN_DEFAULT_PROJECT", project);
  if (subject.run != nullptr) {
    put_env(env, "MLRUN_EXEC_CONFIG", exec_config(*subject.run));
    if (bool_in(subject.run->spec(), "verbose")) { put_env(env, "MLRUN_LOG_LEVEL", "DEBUG"); }
  }
  if (!site.api_url.empty()) { put_env(env, "MLRUN_DBPATH", site.api_url); }
  put_env(env, "MLRUN_NAMESPACE", kMlrunNamespace);
  if (const std::string path = subject.function.text("pythonpath"); !path.empty()) {
    put_env(env, "PYTHONPATH", path);
  }
  if (const std::string code = subject.function.text("build.functionSourceCode"); !code.empty()) {
    put_env(env, "MLRUN_EXEC_CODE", code);
  }
  JsonArray own = array_in(subject.function.spec(), "env") == nullptr
                      ? JsonArray{}
                      : *array_in(subject.function.spec(), "env");
  add_secret_references(own, site, project);
  env.insert(env.end(), own.begin(), own.end());
  return env;
}

Result<std::string> fill_placeholders(std::string_view text, const Subject& subject,
                                      std::string_view field) {
  const JsonObject* parameters =
      subject.run == nullptr ? nullptr : object_in(subject.run->spec(), "parameters");
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if ((c == '{' || c == '}') && i + 1 < text.size() && text[i + 1] == c) {
      out += c;
      ++i;
      continue;
    }
    if (c != '{') {
      out += c;
      continue;
    }
    const std::size_t end = text.find('}', i);
    if (end == std::string_view::npos) {
      return fail(invalid(field, quote(text) + " has an open brace",
                          "write {name} for a parameter, {{ for a brace"));
    }
    const std::string_view name = text.substr(i + 1, end - i - 1);
    const Json* value = parameters == nullptr ? nullptr : parameters->if_contains(name);
    if (value == nullptr) {
      std::vector<std::string> known;
      for (const auto& parameter : parameters == nullptr ? JsonObject{} : *parameters) {
        known.emplace_back(parameter.key());
      }
      return fail(invalid(
          field, quote(text) + " asks for parameter " + quote(name) + ", which the run has not",
          known.empty() ? "give it with -p " + std::string(name) + "=…"
                        : "parameters of the run: " + join(known)));
    }
    out += python_text(*value);
    i = end;
  }
  return out;
}

Result<CommandLine> program_command(const Subject& subject) {
  CommandLine line;
  METIER_TRY(command, fill_placeholders(subject.function.text("command"), subject, "spec.command"));
  line.command = {std::move(command)};
  const JsonArray* args = array_in(subject.function.spec(), "args");
  for (std::size_t i = 0; args != nullptr && i < args->size(); ++i) {
    METIER_TRY(argument, fill_placeholders(python_text((*args)[i]), subject,
                                           "spec.args[" + std::to_string(i) + "]"));
    line.args.push_back(std::move(argument));
  }
  return line;
}

Result<CommandLine> mlrun_command(const Subject& subject) {
  const Function& function = subject.function;
  const bool code = !function.text("build.functionSourceCode").empty();
  const bool loads = loads_source(function);
  const std::string handler = handler_of(subject);
  const std::string mode = function.text("mode");
  if (code && loads) {
    return fail(invalid("spec.build.source",
                        "the function has both its own code and a source that is loaded at run",
                        "keep one of both"));
  }
  if (mode == "pass" && !handler.empty()) {
    return fail(invalid("spec.mode",
                        "mode pass runs a program and takes no handler, got " + quote(handler),
                        "leave out one of both"));
  }
  if (mode == "pass" && !code && !loads) { return program_command(subject); }
  CommandLine line{
      .command = {"mlrun"},
      .args = {"run", "--name", subject.run == nullptr ? function.name() : subject.run->name(),
               "--from-env"}};
  const auto option = [&](std::string_view name, const std::string& value) {
    if (!value.empty()) {
      line.args.emplace_back(name);
      line.args.push_back(value);
    }
  };
  option("--handler", handler);
  option("--mode", mode);
  if (code) { option("--origin-file", function.text("build.origin_filename")); }
  if (loads) {
    option("--source", function.text("build.source"));
    option("--workdir", function.text("workdir"));
  }
  const std::string command = function.text("command");
  const JsonArray* args = array_in(function.spec(), "args");
  if (!command.empty()) {
    line.args.push_back(command);
  } else if (args != nullptr && !args->empty()) {
    line.args.emplace_back("*");  // the place of the unpacked code file
  }
  for (const Json& argument : args == nullptr ? JsonArray{} : *args) {
    line.args.push_back(python_text(argument));
  }
  return line;
}

std::string working_dir(const Subject& subject) {
  const Function& function = subject.function;
  std::string workdir = function.text("workdir");
  if (loads_source(function)) { return {}; }
  const std::string target = function.text("build.source_code_target_dir");
  if (workdir.starts_with('/') || target.empty()) { return workdir; }
  if (workdir.starts_with("./")) { workdir.erase(0, 2); }
  return workdir.empty() ? target : target + (target.ends_with('/') ? "" : "/") + workdir;
}

std::string image_of(const Subject& subject, const Site& site) {
  for (const std::string_view field : {"image", "build.image", "build.base_image"}) {
    if (std::string image = subject.function.text(field); !image.empty()) { return image; }
  }
  return site.default_image;
}

JsonObject role_resources(const Function& function, std::string_view field, const Site& site) {
  const JsonObject* given = object_in(function.spec(), field);
  if (given != nullptr && given->empty()) {
    return {};  // exactly {} means "no defaults"
  }
  JsonObject out;
  for (const std::string_view part : {"requests", "limits"}) {
    const JsonObject* defaults = site.default_resources.is_object()
                                     ? object_in(site.default_resources.get_object(), part)
                                     : nullptr;
    const JsonObject* own = given == nullptr ? nullptr : object_in(*given, part);
    JsonObject map;
    for (const JsonObject* source : {own, defaults}) {
      for (const auto& member : source == nullptr ? JsonObject{} : *source) {
        const std::string_view key = member.key();
        const bool plain = key == "cpu" || key == "memory";
        if (!is_falsy(member.value()) && !map.contains(key) &&
            (plain || (source == own && part == "limits"))) {
          map[key] = member.value();  // requests keep processor and memory only
        }
      }
    }
    if (!map.empty()) { out[part] = std::move(map); }
  }
  return out;
}

JsonObject role_spec(const Subject& subject, const Site& site, PodRole role) {
  const Function& function = subject.function;
  JsonObject container{
      {"name", "base"}, {"image", image_of(subject, site)}, {"env", std::move(role.env)}};
  const auto texts = [](const std::vector<std::string>& words) {
    return JsonArray(words.begin(), words.end());
  };
  if (!role.line.command.empty()) { container["command"] = texts(role.line.command); }
  if (!role.line.args.empty()) { container["args"] = texts(role.line.args); }
  put_text(container, "workingDir", role.working_dir);
  put_text(container, "imagePullPolicy", function.text("image_pull_policy"));
  copy_field(subject, "env_from", container, "envFrom");
  copy_field(subject, "volume_mounts", container, "volumeMounts");
  if (!role.resources.empty()) { container["resources"] = std::move(role.resources); }

  JsonObject spec{{"restartPolicy", "Never"}, {"containers", JsonArray{std::move(container)}}};
  copy_field(subject, "volumes", spec, "volumes");
  put_text(spec, "serviceAccount", function.text("service_account"));
  put_text(spec, "nodeName", function.text("node_name"));
  if (JsonObject selector = node_selector_of(subject, site); !selector.empty()) {
    spec["nodeSelector"] = std::move(selector);
  }
  copy_field(subject, "affinity", spec, "affinity");
  copy_field(subject, "tolerations", spec, "tolerations");
  copy_field(subject, "security_context", spec, "securityContext");
  // Always: the cluster says so when it has no such class.
  put_text(spec, "priorityClassName", function.text("priority_class_name"));
  if (const std::string secret = function.text("image_pull_secret"); !secret.empty()) {
    spec["imagePullSecrets"] = JsonArray{JsonObject{{"name", secret}}};
  }
  return spec;
}

Result<Resource> pod_of_run(const Subject& subject, const Site& site, const CommandLine& line) {
  if (subject.run == nullptr) {
    return fail(
        Error{.kind = ErrorKind::unsupported,
              .message = "kind " + quote(subject.function.kind()) + " has runs, not deployments",
              .field = "kind",
              .fix = "run it: metier run"});
  }
  const Run& run = *subject.run;
  Resource pod{.api_version = "v1", .kind = "Pod"};
  pod.metadata.name = resource_name(run.name(), run.uid(), run.iteration(), subject.attempt);
  pod.metadata.name_space = project_of(subject, site);
  pod.metadata.labels = resource_labels(subject, site);
  pod.metadata.annotations = resource_annotations(subject);

  pod.body["spec"] = role_spec(subject, site,
                               {.line = line,
                                .env = container_env(subject, site),
                                .resources = role_resources(subject.function, "resources", site),
                                .working_dir = working_dir(subject)});
  return pod;
}

Result<void> validate_subject(const Subject& subject) {
  const Function& function = subject.function;
  ProblemList problems;
  if (auto checked = validate_function(function); !checked) {
    problems.add(std::move(checked.error()));
  }
  if (subject.run != nullptr) {
    if (auto checked = validate_run(*subject.run); !checked) {
      problems.add(std::move(checked.error()));
    }
  }
  METIER_CHECK(std::move(problems).result());
  const std::string handler = handler_of(subject);
  const std::string encoded = function.text("build.functionSourceCode");
  const bool anything = !encoded.empty() || !function.text("command").empty() ||
                        !function.text("build.source").empty() || !handler.empty();
  if (!anything) {
    return fail(invalid(
        "spec", "the function has nothing to run: no code, no command, no source, no handler",
        "metier run FILE:HANDLER"));
  }
  if (encoded.empty()) { return {}; }
  METIER_TRY(code, function.code());
  const std::string origin = function.text("build.origin_filename");
  const bool python = origin.empty() || origin.ends_with(".py") || origin.ends_with(".ipynb");
  const std::string name = handler.substr(0, handler.find("::"));
  if (!python || handler.empty() || name.contains('.') || mentions(code, name)) { return {}; }
  const std::vector<std::string> names = top_level_names(code);
  const std::string near = nearest(name, names);
  return fail(
      invalid(
          "spec.handler",
          (origin.empty() ? "the code has" : origin + " has") + std::string(" no function ") +
              quote(name) + (near.empty() ? "" : ", did you mean " + quote(near) + "?"),
          names.empty() ? "the file defines no function" : "functions in this file: " + join(names))
          .coded("HandlerMissing"));
}

}  // namespace metier
