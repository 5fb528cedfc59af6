// metier._core: the C++ object model for Python. The documents live here; metier/function.py and metier/live.py give
// them Python's manners.
#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>
#include <nanobind/stl/vector.h>

#include "convert.h"
#include "model/attributes.h"
#include "model/create.h"
#include "model/entry_points.h"
#include "model/kinds.h"
#include "model/merge.h"
#include "model/mpi.h"
#include "model/run.h"
#include "nuclio.h"

namespace metier::python {

void bind_spark(nb::class_<Function>& cls);  // spark.cc

namespace {

using Path = nb::tuple;  // of text and int, from the document's root

const Json* child(const Json& at, nb::handle step) {
  if (at.is_object() && PyUnicode_Check(step.ptr())) {
    return at.get_object().if_contains(nb::cast<std::string_view>(step));
  }
  if (at.is_array() && PyLong_Check(step.ptr())) {
    const auto index = nb::cast<std::size_t>(step);
    return index < at.get_array().size() ? &at.get_array()[index] : nullptr;
  }
  return nullptr;
}

// The value at a path that starts with metadata, spec or status; null when absent.
const Json* look(const Function& function, const Path& path) {
  const Json* at = nullptr;
  for (std::size_t i = 0; i < path.size(); ++i) {
    at = i == 0 ? function.document().if_contains(nb::cast<std::string_view>(path[0]))
                : child(*at, path[i]);
    if (at == nullptr) { return nullptr; }
  }
  return at;
}

std::string path_text(const Path& path) {
  std::string out;
  for (nb::handle step : path) {
    out += PyLong_Check(step.ptr()) ? "[" + std::to_string(nb::cast<std::int64_t>(step)) + "]"
                                    : (out.empty() ? "" : ".") + nb::cast<std::string>(step);
  }
  return out;
}

// The place of a path, made on the way: absent and null parents become objects.
Json& place(Function& function, const Path& path) {
  Json* at = &function.document()[nb::cast<std::string_view>(path[0])];
  for (std::size_t i = 1; i < path.size(); ++i) {
    if (PyLong_Check(nb::handle(path[i]).ptr())) {
      const auto* found = child(*at, path[i]);
      if (found == nullptr) { throw nb::index_error("list index out of range"); }
      at = const_cast<Json*>(found);
      continue;
    }
    if (at->is_null()) { *at = JsonObject{}; }
    if (!at->is_object()) {
      raise(invalid(path_text(path),
                    "the value above it is a " + std::string(type_name(*at)) + ", not an object"));
    }
    at = &at->get_object()[nb::cast<std::string_view>(path[i])];
  }
  return *at;
}

JsonArray& list_at(Function& function, const Path& path) {
  Json& at = place(function, path);
  if (at.is_null()) { at = JsonArray{}; }
  if (!at.is_array()) {
    raise(invalid(path_text(path), "it is a " + std::string(type_name(at)) + ", not a list"));
  }
  return at.get_array();
}

// (1, None) an object, (2, None) a list, (0, value) a plain value, (-1, None) absent.
nb::tuple peek(const Function& function, const Path& path) {
  const Json* at = look(function, path);
  if (at == nullptr) { return nb::make_tuple(-1, nb::none()); }
  if (at->is_object()) { return nb::make_tuple(1, nb::none()); }
  return at->is_array() ? nb::make_tuple(2, nb::none()) : nb::make_tuple(0, to_python(*at));
}

nb::list keys(const Function& function, const Path& path) {
  nb::list out;
  const Json* at = look(function, path);
  if (at != nullptr && at->is_object()) {
    for (const auto& member : at->get_object()) {
      out.append(nb::str(member.key().data(), member.key().size()));
    }
  }
  return out;
}

std::size_t size(const Function& function, const Path& path) {
  const Json* at = look(function, path);
  if (at == nullptr) { return 0; }
  return at->is_object() ? at->get_object().size() : at->is_array() ? at->get_array().size() : 0;
}

bool remove(Function& function, const Path& path) {
  const auto parent =
      nb::steal<Path>(PyTuple_GetSlice(path.ptr(), 0, static_cast<Py_ssize_t>(path.size()) - 1));
  const nb::handle last = path[path.size() - 1];
  const Json* at = look(function, parent);
  if (at == nullptr || child(*at, last) == nullptr) { return false; }
  Json& container = place(function, parent);
  if (container.is_object()) {
    container.get_object().stable_erase(nb::cast<std::string_view>(last));
  } else {
    JsonArray& list = container.get_array();
    list.erase(list.begin() + static_cast<std::ptrdiff_t>(nb::cast<std::size_t>(last)));
  }
  return true;
}

LimitArguments limits(nb::handle mem, nb::handle cpu, nb::handle gpus, const std::string& gpu_type,
                      bool patch) {
  return {.mem = from_python(mem, "mem"),
          .cpu = from_python(cpu, "cpu"),
          .gpus = from_python(gpus, "gpus"),
          .gpu_type = gpu_type,
          .patch = patch};
}

std::optional<std::filesystem::path> path_of(const std::optional<std::string>& text) {
  return text ? std::optional<std::filesystem::path>(*text) : std::nullopt;
}

void bind_document(nb::class_<Function>& cls) {
  cls.def("peek", &peek, nb::arg("path"))
      .def("keys", &keys, nb::arg("path"))
      .def("size", &size, nb::arg("path"))
      .def("remove", &remove, nb::arg("path"))
      .def(
          "copy",
          [](const Function& f, const Path& path) {
            const Json* at = look(f, path);
            return at == nullptr ? nb::object(nb::none()) : to_python(*at);
          },
          nb::arg("path"))
      .def(
          "assign",
          [](Function& f, const Path& path, nb::handle value) {
            Json json = from_python(
                value, path_text(path));  // first: `value` may be a view of this very document
            place(f, path) = std::move(json);
          },
          nb::arg("path"), nb::arg("value").none())
      .def(
          "insert",
          [](Function& f, const Path& path, std::size_t index, nb::handle value) {
            Json json = from_python(value, path_text(path));
            JsonArray& list = list_at(f, path);
            list.insert(list.begin() + static_cast<std::ptrdiff_t>(std::min(index, list.size())),
                        std::move(json));
          },
          nb::arg("path"), nb::arg("index"), nb::arg("value").none());
}

void bind_methods(nb::class_<Function>& cls) {
  cls.def(
         "set_env",
         [](Function& f, const std::string& name, nb::handle value, nb::handle value_from) {
           // str() of what JSON does not know, as MLRun does with every value
           unwrap(set_env(f, name, value.is_none() ? Json(nullptr) : Json(nb::str(value).c_str()),
                          from_python(value_from, "value_from")));
         },
         nb::arg("name"), nb::arg("value").none(), nb::arg("value_from").none())
      .def(
          "set_envs",
          [](Function& f, nb::handle variables, const std::optional<std::string>& file) {
            const JsonObject given = object_of(variables, "env_vars");
            unwrap(set_envs(f, variables.is_none() || given.empty() ? nullptr : &given,
                            path_of(file)));
          },
          nb::arg("env_vars").none(), nb::arg("file_path").none())
      .def(
          "set_env_from_secret",
          [](Function& f, const std::string& name, const std::string& secret,
             const std::string& key) { unwrap(set_env_from_secret(f, name, secret, key)); },
          nb::arg("name"), nb::arg("secret"), nb::arg("secret_key"))
      .def("set_env_from_secret_ref",
           [](Function& f, const std::string& secret) {
             unwrap(set_env_from_secret_ref(f, secret));
           })
      .def(
          "get_env",
          [](const Function& f, const std::string& name) -> nb::object {
            const auto found = get_env(f, name);
            return found ? nb::object(nb::make_tuple(to_python(*found))) : nb::object(nb::none());
          },
          nb::arg("name"))
      .def(
          "with_limits",
          [](Function& f, nb::handle mem, nb::handle cpu, nb::handle count, const std::string& type,
             bool patch, const std::string& field) {
            const auto arguments = limits(mem, cpu, count, type, patch);
            unwrap(field.empty() ? with_limits(f, arguments)
                                 : with_role_limits(f, field, arguments));
          },
          nb::arg("mem").none(), nb::arg("cpu").none(), nb::arg("gpus").none(), nb::arg("gpu_type"),
          nb::arg("patch"), nb::arg("field"))
      .def(
          "with_requests",
          [](Function& f, nb::handle mem, nb::handle cpu, bool patch, const std::string& field) {
            const auto arguments = limits(mem, cpu, nb::none(), "", patch);
            unwrap(field.empty() ? with_requests(f, arguments)
                                 : with_role_requests(f, field, arguments));
          },
          nb::arg("mem").none(), nb::arg("cpu").none(), nb::arg("patch"), nb::arg("field"))
      .def(
          "gpus",
          [](Function& f, nb::handle count, const std::string& type) {
            unwrap(gpus(f, from_python(count, "gpus"), type));
          },
          nb::arg("gpus").none(), nb::arg("gpu_type"))
      .def(
          "with_annotations",
          [](Function& f, nb::handle map) {
            unwrap(with_annotations(f, object_of(map, "annotations")));
          },
          nb::arg("annotations"))
      .def(
          "set_image_pull_configuration",
          [](Function& f, const std::string& policy, const std::string& secret) {
            unwrap(set_image_pull_configuration(f, policy, secret));
          },
          nb::arg("policy"), nb::arg("secret"))
      .def(
          "set_state_thresholds",
          [](Function& f, nb::handle map, bool patch) {
            unwrap(set_state_thresholds(f, object_of(map, "state_thresholds"), patch));
          },
          nb::arg("state_thresholds"), nb::arg("patch"))
      .def(
          "with_node_selection",
          [](Function& f, const std::string& name, nb::handle selector, nb::handle affinity,
             nb::handle tolerations) {
            std::vector<std::string> warnings;
            unwrap(with_node_selection(f, selection_of(name, selector, affinity, tolerations),
                                       &warnings));
            return warnings;
          },
          nb::arg("node_name"), nb::arg("node_selector").none(), nb::arg("affinity").none(),
          nb::arg("tolerations").none())
      .def(
          "with_priority_class",
          [](Function& f, const std::string& name,
             const std::optional<std::vector<std::string>>& valid) {
            unwrap(with_priority_class(f, name, valid.value_or(default_priority_classes())));
          },
          nb::arg("name"), nb::arg("valid").none())
      .def(
          "with_preemption_mode",
          [](Function& f, const std::string& mode) { unwrap(with_preemption_mode(f, mode)); },
          nb::arg("mode"))
      .def(
          "with_security_context",
          [](Function& f, nb::handle context) {
            unwrap(with_security_context(f, from_python(context, "security_context")));
          },
          nb::arg("security_context"))
      .def(
          "add_volume",
          [](Function& f, nb::handle volume, nb::handle mount) {
            unwrap(add_volume(f, from_python(volume, "volume"), from_python(mount, "mount")));
          },
          nb::arg("volume").none(), nb::arg("mount").none())
      .def("mount_pvc",
           [](Function& f, const std::string& pvc, const std::string& volume,
              const std::string& path,
              const std::string& fallback) { unwrap(mount_pvc(f, pvc, volume, path, fallback)); })
      .def(
          "mount_secret",
          [](Function& f, const std::string& secret, const std::string& path,
             const std::string& volume, nb::handle items) {
            unwrap(mount_secret(f, secret, path, volume, from_python(items, "items")));
          },
          nb::arg("secret"), nb::arg("path"), nb::arg("volume"), nb::arg("items").none())
      .def(
          "mount_configmap",
          [](Function& f, const std::string& map, const std::string& path,
             const std::string& volume, nb::handle items) {
            unwrap(mount_configmap(f, map, path, volume, from_python(items, "items")));
          },
          nb::arg("configmap"), nb::arg("path"), nb::arg("volume"), nb::arg("items").none())
      .def("mount_hostpath",
           [](Function& f, const std::string& host, const std::string& path,
              const std::string& volume) { unwrap(mount_hostpath(f, host, path, volume)); })
      .def("mount_s3",
           [](Function& f, const std::string& secret, const std::string& access,
              const std::string& key, const std::string& endpoint, const std::string& prefix,
              const std::string& region, bool non_anonymous) {
             unwrap(mount_s3(f, {.secret_name = secret,
                                 .access_key = access,
                                 .secret_key = key,
                                 .endpoint_url = endpoint,
                                 .prefix = prefix,
                                 .region = region,
                                 .non_anonymous = non_anonymous}));
           });
}

void bind_code(nb::class_<Function>& cls) {
  cls.def(
         "with_code",
         [](Function& f, const std::optional<std::string>& file,
            const std::optional<std::string>& body, bool with_doc) {
           unwrap(with_code(f, path_of(file),
                            body ? std::optional<std::string_view>(*body) : std::nullopt,
                            with_doc));
         },
         nb::arg("from_file").none(), nb::arg("body").none(), nb::arg("with_doc"))
      .def(
          "with_requirements",
          [](Function& f, const std::vector<std::string>& lines,
             const std::optional<std::string>& file,
             bool overwrite) { unwrap(with_requirements(f, lines, path_of(file), overwrite)); },
          nb::arg("requirements"), nb::arg("file").none(), nb::arg("overwrite"))
      .def(
          "set_mpi_args",
          [](Function& f, nb::handle args) {
            unwrap(set_mpi_args(f, from_python(args, "mpi_args")));
          },
          nb::arg("args"))
      .def("with_tracing", [](Function& f, const std::string& path,
                              bool markers) { unwrap(with_tracing(f, path, markers)); })
      .def(
          "with_autotune",
          [](Function& f, const std::string& path, std::optional<std::int64_t> warmup,
             std::optional<std::int64_t> steps, std::optional<std::int64_t> samples,
             std::optional<double> noise) {
            unwrap(with_autotune(f, {.log_file_path = path,
                                     .warmup_samples = warmup,
                                     .steps_per_sample = steps,
                                     .bayes_opt_max_samples = samples,
                                     .gaussian_process_noise = noise}));
          },
          nb::arg(), nb::arg().none(), nb::arg().none(), nb::arg().none(), nb::arg().none())
      .def(
          "with_commands",
          [](Function& f, nb::handle commands, bool overwrite) {
            unwrap(with_commands(f, from_python(commands, "commands"), overwrite));
          },
          nb::arg("commands"), nb::arg("overwrite"))
      .def("with_source_archive",
           [](Function& f, const std::string& source, const std::string& workdir,
              const std::string& handler, bool pull, const std::string& target) {
             unwrap(with_source_archive(f, source, workdir, handler, pull, target));
           })
      .def("prepare_image_for_deploy", [](Function& f) { prepare_image_for_deploy(f); })
      .def("requires_build", [](const Function& f) { return requires_build(f); })
      .def("code",
           [](const Function& f) {
             const std::string text = unwrap(f.code());
             return nb::bytes(text.data(), text.size());
           })
      .def("validate",
           [](const Function& f) {
             std::vector<std::string> warnings;
             unwrap(validate_function(f, &warnings));
             return warnings;
           })
      .def("export_text", [](const Function& f, const std::string& format, bool strip) {
        return unwrap(export_text(f, format, strip ? Strip::yes : Strip::no));
      });
}

}  // namespace

NB_MODULE(_core, m) {
  nb::set_leak_warnings(
      false);  // documents may live in a notebook's variables until the interpreter ends
  nb::class_<Function> cls(m, "Function");
  cls.def(nb::init<>())
      .def_static(
          "from_dict",
          [](nb::handle document) {
            return unwrap(Function::from_json(from_python(document, "function")));
          },
          nb::arg("document"))
      .def_prop_rw("kind", &Function::kind,
                   [](Function& f, const std::string& kind) { f.set_kind(kind); })
      .def_prop_rw("name", &Function::name,
                   [](Function& f, const std::string& name) { f.set_name(name); })
      .def("to_dict", [](const Function& f) { return to_python(f.to_dict()); })
      .def("to_export", [](const Function& f) { return to_python(f.to_export()); })
      .def("document", [](const Function& f) { return to_python(Json(f.document())); })
      .def("compute_hash", &Function::compute_hash)
      .def("known_fields", [](const Function& f) { return known_spec_fields(f.kind()); });
  bind_document(cls);
  bind_methods(cls);
  bind_code(cls);
  bind_nuclio(cls);
  bind_spark(cls);

  m.def(
      "new_function",
      [](const std::string& name, const std::string& project, const std::string& tag,
         const std::string& kind, const std::string& command, const std::string& image,
         const std::vector<std::string>& args, nb::handle runtime, const std::string& mode,
         const std::string& handler, const std::string& source,
         const std::vector<std::string>& requirements,
         const std::optional<std::string>& requirements_file) {
        return unwrap(new_function({.name = name,
                                    .project = project,
                                    .tag = tag,
                                    .kind = kind,
                                    .command = command,
                                    .image = image,
                                    .args = args,
                                    .runtime = from_python(runtime, "runtime"),
                                    .mode = mode,
                                    .handler = handler,
                                    .source = source,
                                    .requirements = requirements,
                                    .requirements_file = path_of(requirements_file)},
                                   system_random()));
      },
      nb::arg("name"), nb::arg("project"), nb::arg("tag"), nb::arg("kind"), nb::arg("command"),
      nb::arg("image"), nb::arg("args"), nb::arg("runtime").none(), nb::arg("mode"),
      nb::arg("handler"), nb::arg("source"), nb::arg("requirements"),
      nb::arg("requirements_file").none());
  m.def(
      "code_to_function",
      [](const std::string& name, const std::string& project, const std::string& tag,
         const std::string& filename, const std::string& handler, const std::string& kind,
         const std::string& image, const std::string& code_output, bool embed_code,
         const std::string& description, const std::vector<std::string>& requirements,
         const std::optional<std::string>& requirements_file,
         const std::vector<std::string>& categories, nb::handle labels, bool with_doc,
         const std::vector<std::string>& ignored_tags) {
        return unwrap(code_to_function({.name = name,
                                        .project = project,
                                        .tag = tag,
                                        .filename = filename,
                                        .handler = handler,
                                        .kind = kind,
                                        .image = image,
                                        .code_output = code_output,
                                        .embed_code = embed_code,
                                        .description = description,
                                        .requirements = requirements,
                                        .requirements_file = path_of(requirements_file),
                                        .categories = categories,
                                        .labels = object_of(labels, "labels"),
                                        .with_doc = with_doc,
                                        .ignored_tags = ignored_tags}));
      },
      nb::arg("name"), nb::arg("project"), nb::arg("tag"), nb::arg("filename"), nb::arg("handler"),
      nb::arg("kind"), nb::arg("image"), nb::arg("code_output"), nb::arg("embed_code"),
      nb::arg("description"), nb::arg("requirements"), nb::arg("requirements_file").none(),
      nb::arg("categories"), nb::arg("labels").none(), nb::arg("with_doc"),
      nb::arg("ignored_tags"));
  m.def(
      "import_function",
      [](const std::string& file, const std::string& project, const std::string& name) {
        std::vector<std::string> warnings;
        auto function = unwrap(import_function(file, project, name, &warnings));
        return std::pair(std::move(function), std::move(warnings));
      },
      nb::arg("file"), nb::arg("project"), nb::arg("new_name"));
  m.def("default_run_name", [](const std::string& function, const std::string& handler) {
    return default_run_name(function, handler);
  });
  m.def(
      "validate_run",
      [](nb::handle run) { unwrap(validate_run(unwrap(Run::from_json(from_python(run, "run"))))); },
      nb::arg("run"));
  m.def("function_uri", [](const std::string& project, const std::string& name,
                           const std::string& tag, const std::string& hash) {
    return function_uri({.project = project, .name = name, .tag = tag, .hash = hash});
  });
  m.def("top_level_names", [](const std::string& code) { return top_level_names(code); });
  m.def("kinds", [] { return std::vector<std::string>(kind_names().begin(), kind_names().end()); });
}

}  // namespace metier::python
