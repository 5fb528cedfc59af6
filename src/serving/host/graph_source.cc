#include "serving/host/graph_source.h"

#include <dlfcn.h>

#include <algorithm>
#include <cstdlib>

#include "base/files.h"
#include "serving/plan.h"

namespace metier::serving {
namespace {

// What METIER_GRAPH of a library says (include/metier/graph.h): the graph alone, without the rest of a spec.
Result<std::string> exported(const std::string& path) {
  void* library = ::dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    const char* why = ::dlerror();
    return fail(
        invalid("handler", quote(path) + " cannot be loaded: " + (why == nullptr ? "" : why)));
  }
  const auto graph = reinterpret_cast<const char* (*)()>(::dlsym(library, "metier_graph_v1"));
  if (graph == nullptr) {
    return fail(
        invalid("spec.graph", "the function has no graph, and " + quote(path) + " has none either",
                "METIER_GRAPH([](metier::Graph& graph) { graph.to(...); }) in its code makes one"));
  }
  const char* text = graph();
  return text == nullptr
             ? fail(ErrorKind::user_code, "METIER_GRAPH of " + quote(path) + " threw an exception")
             : Result<std::string>(std::string(text));
}

}  // namespace

std::string variable(const realtime::ProcessorConfig& config, std::string_view name) {
  const auto given =
      std::ranges::find(config.env, name, &std::pair<std::string, std::string>::first);
  if (given != config.env.end()) { return given->second; }
  const char* own = std::getenv(std::string(name).c_str());
  return own == nullptr ? std::string() : own;
}

Result<GraphSource> graph_source(const realtime::ProcessorConfig& config) {
  GraphSource out;
  if (!config.path.empty()) { out.folders.push_back(config.path); }
  std::string text = variable(config, "SERVING_SPEC_ENV");
  if (auto file = read_file(config.path + "/graph.json"); !config.path.empty() && file) {
    text = *file;
  }
  if (!text.empty()) {
    METIER_TRY(spec, parse_json(text));
    const JsonObject* object = spec.if_object();
    const JsonObject* graph = object == nullptr ? nullptr : object_in(*object, "graph");
    if (object != nullptr) {
      if (const std::string_view field = field_of_mlrun(*object); !field.empty()) {
        return fail(invalid("spec." + std::string(field), "only MLRun's own engine has it",
                            "a function with code and mlrun in its environment"));
      }
      out.default_content_type = string_in(*object, "default_content_type");
    }
    if (graph != nullptr && !graph->empty()) { out.graph = *graph; }
  }
  if (out.graph.empty()) {
    const std::string library = config.handler.substr(0, config.handler.rfind(':'));
    if (!library.ends_with(".so")) {
      return fail(invalid("spec.graph", "the function has no graph",
                          "set_topology, add_model, or METIER_GRAPH"));
    }
    METIER_TRY(made, exported(config.path + "/" + library));
    METIER_TRY(graph, parse_json(made));
    if (!graph.is_object()) { return fail(invalid("graph", "it is not an object")); }
    out.graph = graph.get_object();
  }
  const std::string current = variable(config, "SERVING_CURRENT_FUNCTION");
  out.current_function = current;
  return out;
}

}  // namespace metier::serving
