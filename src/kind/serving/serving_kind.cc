#include "kind/serving/serving_kind.h"

#include <algorithm>
#include <array>

#include "base/digest.h"
#include "kind/lowering.h"
#include "kind/nuclio/compile.h"
#include "kind/nuclio/nuclio_kind.h"
#include "model/attributes.h"
#include "model/create.h"
#include "model/names.h"
#include "model/serving_children.h"
#include "serving/native_graph.h"
#include "serving/plan.h"

namespace metier {
namespace {

constexpr std::string_view kVariable = "SERVING_SPEC_ENV";
// A variable of a process may have 128 KiB; longer documents travel in the code.
constexpr std::size_t kVariableBytes = 100'000;

constexpr std::string_view kFooter =
    "\n\n# The graph is served by what follows, added at deploy.\n"
    "from metier_serving.worker import attach as _metier_attach  # noqa: E402\n\n"
    "_metier_attach(globals()";

const JsonObject* graph_of(const Function& function) { return object_in(function.spec(), "graph"); }

// The functions that read durable queues of the graph. What a queue without a path leads to is served here as well: its edge is in
// memory, since nobody asked for more.
Result<std::vector<std::string>> children_of(const JsonObject& graph) {
  METIER_TRY(links, serving::queue_links(graph));
  std::vector<std::string> out;
  for (const auto& [child, queue] : links) {
    const JsonObject* steps = object_in(graph, "steps");
    const JsonObject* spec = steps == nullptr ? nullptr : object_in(*steps, queue);
    if (spec != nullptr && !string_in(*spec, "path").empty()) { out.push_back(child); }
  }
  return out;
}

constexpr std::string_view kCurrent = "SERVING_CURRENT_FUNCTION";
bool is_child(const Function& function) { return get_env(function, kCurrent).has_value(); }

// The code makes a module's `graph` itself.
bool builds_graph(std::string_view code) {
  for (const std::string_view text : {"graph = ", "graph: ", "graph="}) {
    if (code.starts_with(text) || code.contains("\n" + std::string(text))) { return true; }
  }
  return false;
}

// The code has a handler of its own, and the graph is none of the function's business (`attach` leaves such modules alone).
bool handles_itself(std::string_view code) {
  const std::string text = "\n" + std::string(code);
  const auto defines = [&text](const std::string& name) {
    return text.contains("\ndef " + name + "(") || text.contains("\nasync def " + name + "(") ||
           text.contains("\n" + name + " = ");
  };
  return defines("handler") && defines("init_context");
}

bool is_library(std::string_view code) {
  return code.starts_with(
      "\x7f"
      "ELF");
}

Result<void> check_graph(const Function& function) {
  const JsonObject* graph = graph_of(function);
  if (const std::string_view field = serving::field_of_mlrun(function.spec()); !field.empty()) {
    METIER_TRY(code, function.code());
    if (is_library(code)) {
      return fail(invalid("spec." + std::string(field),
                          "only MLRun's own engine has it, and a library's graph runs without one",
                          "write the graph in Python, or leave the field out"));
    }
  }
  if (graph == nullptr || graph->empty()) {
    METIER_TRY(code, function.code());
    if (builds_graph(code) || is_library(code)) {
      return {};
    }  // the worker compiles what it builds
    return fail(
        invalid("spec.graph", "the function has no graph",
                "fn.set_topology('flow') and graph.to(...), fn.add_model(...), or a module's "
                "variable graph = Flow(...) in the code"));
  }
  const auto plan = serving::compile_graph(*graph, {.current_function = "*"});
  if (!plan && plan.error().code != "NeedsMlrun") { return fail(Error(plan.error()).at("spec")); }
  if (!plan) { return {}; }  // MLRun's own engine serves it where the environment has that
  METIER_TRY(readers, children_of(*graph));
  const auto children = function_references(function);
  for (const std::string& child : readers) {
    const bool defined = std::ranges::any_of(
        children, [&child](const auto& reference) { return reference.first == child; });
    if (is_child(function) || defined) { continue; }
    return fail(invalid("spec.function_refs",
                        "function " + quote(child) + " is used in steps and is not defined",
                        "fn.add_child_function(" + quote(child) + ", ...)"));
  }
  const std::string mode = function.text("load_mode");
  if (!mode.empty() && mode != "sync" && mode != "async") {
    return fail(invalid("spec.load_mode", quote(mode) + " is unknown", "'sync' or 'async'"));
  }
  return {};
}

void set_variable(JsonObject& spec, std::string_view name, std::string_view value) {
  JsonArray& env = ensure_array(spec, "env");
  for (Json& item : env) {
    if (string_at(item, "name") == name) {
      item = JsonObject{{"name", name}, {"value", value}};
      return;
    }
  }
  env.push_back(JsonObject{{"name", name}, {"value", value}});
}

// No step needs an interpreter, and there is no code that would: the processor itself runs the graph.
bool runs_natively(const Function& function, std::string_view code) {
  if (is_library(code)) { return true; }
  const JsonObject* graph = graph_of(function);
  if (graph == nullptr || !code.empty() || !serving::field_of_mlrun(function.spec()).empty()) {
    return false;
  }
  return serving::NativeGraph::make(*graph, {.check = true}).has_value();
}

// The same function as an ordinary one of Nuclio's.
Result<Function> as_nuclio(const Subject& subject, const Site& site) {
  const Function& from = subject.function;
  Function out = from;
  const std::string project = project_of(subject, site);
  METIER_TRY(code, from.code());
  const std::string document = dump_json(serving_spec(from, project));
  JsonObject& spec = ensure_object(out.document(), "spec");
  if (runs_natively(from, code)) {
    const std::string file =
        is_library(code) ? from.text("build.origin_filename") : std::string("graph.json");
    if (is_library(code) && document.size() <= kVariableBytes) {
      set_variable(spec, kVariable, document);
    }
    if (!is_library(code)) {
      ensure_object(spec, "build")["functionSourceCode"] = base64_encode(document);
    }
    if (!is_child(from)) { set_variable(spec, kCurrent, "*"); }
    spec["nuclio_runtime"] = "graph";
    spec["function_handler"] = (file.empty() ? "graph.so" : file) + ":graph";
    spec.erase("default_handler");
    return out;
  }
  std::string made = serving_code(code);
  if (document.size() <= kVariableBytes) {
    set_variable(spec, kVariable, document);
    made += ")\n";
  } else {
    made += ", spec=" + dump_json(Json(document)) + ")\n";
  }
  const JsonObject* graph = graph_of(from);
  if (graph != nullptr && !is_child(from)) {
    METIER_TRY(readers, children_of(*graph));
    set_variable(spec, kCurrent, readers.empty() ? "*" : "");
  }
  ensure_object(spec, "build")["functionSourceCode"] = base64_encode(made);
  // The entry is always `handler`: the graph is what the function does.
  spec.erase("default_handler");
  spec.erase("function_handler");
  return out;
}

// Records of streams are finished when their last branch or batch has ended, which only the graph knows. What the user has decided of
// a trigger stays; so does one whose failures are to be tried again.
void acknowledge_at_the_end(Resource& resource) {
  JsonObject* spec = object_in(resource.body, "spec");
  JsonObject* triggers = spec == nullptr ? nullptr : object_in(*spec, "triggers");
  if (triggers == nullptr) { return; }
  for (auto&& member : *triggers) {
    JsonObject* trigger = member.value().if_object();
    if (trigger == nullptr) { continue; }
    const std::string kind(
        string_in(*trigger, "kind"));  // a text of it moves when a member is added
    JsonObject& attributes = ensure_object(*trigger, "attributes");
    const bool decided = !string_in(*trigger, "explicitAckMode").empty() ||
                         string_in(attributes, "workerAllocationMode") == "pool" ||
                         string_in(attributes, "onFailure", "commit") != "commit" ||
                         trigger->contains("batch");
    if ((kind != "kafka" && kind != "kafka-cluster") || decided) { continue; }
    (*trigger)["explicitAckMode"] = "explicitOnly";
    attributes["workerAllocationMode"] = "static";
  }
}

class ServingKind final : public Kind {
 public:
  explicit ServingKind(FunctionCheck check) : check_(std::move(check)) {}

  const KindTraits& traits() const override { return traits_; }

  Result<void> validate(const Subject& subject) const override {
    METIER_CHECK(validate_function(subject.function));
    if (subject.run != nullptr) { return validate_run(*subject.run); }
    METIER_CHECK(check_graph(subject.function));
    METIER_TRY(function, as_nuclio(subject, Site{}));
    const Subject lowered{function, nullptr, subject.attempt};
    METIER_TRY(compiled, nuclio::compile(lowered, Site{}));
    return check_nuclio_function(compiled, check_);
  }

  Result<std::vector<Resource>> lower(const Subject& subject, const Site& site) const override {
    if (subject.run != nullptr) {
      return fail(Error{.kind = ErrorKind::unsupported,
                        .message = "runs of a serving function are calls of it, not objects",
                        .field = "kind",
                        .fix = "deploy it, then call it: metier invoke NAME"});
    }
    METIER_TRY(function, as_nuclio(subject, site));
    METIER_TRY(compiled, nuclio::compile(Subject{function, nullptr, subject.attempt}, site));
    if (engine_of(subject.function) == "metier") { acknowledge_at_the_end(compiled); }
    return std::vector<Resource>{std::move(compiled)};
  }

  Observation observe(const Subject& subject, std::span<const ResourceStatus> resources,
                      Time) const override {
    if (subject.run != nullptr) {
      Observation seen;
      seen.state = subject.run->state();
      return seen;
    }
    Observation seen = observe_nuclio_function(subject, resources);
    if (seen.function_status.is_object()) {
      seen.function_status.get_object()["engine"] = engine_of(subject.function);
    }
    return seen;
  }

 private:
  // What serves the graph, as `describe` says it.
  static std::string engine_of(const Function& function) {
    if (const std::string_view field = serving::field_of_mlrun(function.spec()); !field.empty()) {
      return "mlrun (spec." + std::string(field) + ")";
    }
    if (const auto code = function.code(); code && handles_itself(*code)) {
      return "none (the code has a handler of its own)";
    }
    const JsonObject* graph = graph_of(function);
    if (graph == nullptr) { return "metier"; }
    const auto plan = serving::compile_graph(*graph, {.current_function = "*"});
    return plan ? "metier" : "mlrun (" + plan.error().message + ")";
  }

  KindTraits traits_{.name = "serving",
                     .summary = "a graph of models and steps behind triggers",
                     .executes = Executes::by_call,
                     .deploys = true,
                     .abortable = false,
                     .nested_hyperparams = false};
  FunctionCheck check_;
};

}  // namespace

JsonObject serving_spec(const Function& function, std::string_view project) {
  const JsonObject& spec = function.spec();
  const auto value = [&spec](std::string_view name, Json fallback) {
    const Json* found = spec.if_contains(name);
    return found == nullptr || found->is_null() ? std::move(fallback) : *found;
  };
  JsonObject functions;
  for (const auto& [child, reference] : function_references(function)) {
    functions[child] = std::string(project) + "/" + function.name() + "-" + child;
  }
  JsonObject out{{"function_uri", function_uri({.project = std::string(project),
                                                .name = function.name(),
                                                .tag = function.tag(),
                                                .hash = {}})},
                 {"version", "v2"},
                 {"parameters", value("parameters", JsonObject{})},
                 {"graph", value("graph", nullptr)},
                 {"load_mode", value("load_mode", nullptr)},
                 {"functions", std::move(functions)},
                 {"graph_initializer", value("graph_initializer", nullptr)},
                 {"error_stream", value("error_stream", nullptr)},
                 {"track_models", value("track_models", nullptr)},
                 {"tracking_policy", nullptr},
                 {"default_content_type", value("default_content_type", nullptr)}};
  for (const char* name : {"secret_sources", "streaming", "api_handler_config"}) {
    if (const Json* found = spec.if_contains(name); found != nullptr && !is_empty_value(*found)) {
      out[name] = *found;
    }
  }
  return out;
}

std::string serving_code(std::string_view code) {
  constexpr std::string_view kTheirs = "from mlrun.runtimes import nuclio_init_hook";
  const std::size_t at = code.rfind(kTheirs);
  if (at != std::string_view::npos &&
      code.find("context.mlrun_handler(", at) != std::string_view::npos) {
    code = code.substr(0, at);
  }
  while (!code.empty() && (code.back() == '\n' || code.back() == ' ')) { code.remove_suffix(1); }
  return std::string(code) + std::string(kFooter);
}

std::unique_ptr<Kind> make_serving_kind(FunctionCheck check) {
  return std::make_unique<ServingKind>(std::move(check));
}

}  // namespace metier
