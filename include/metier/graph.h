// Serving graphs from C++, by the calls that Python has: set_topology, to, add_step, add_route, add_model, respond, error_handler.
//
//   #include <metier/graph.h>
//   METIER_GRAPH([](metier::Graph& graph) {
//     graph.set_topology("flow", "async");
//     graph.to("storey.Filter", "late", {{"_fn", "(event['delay'] > 15)"}})
//         .to(metier::handler("steps.so:enrich"), "enrich")
//         .respond();
//   });
//
//   metier build graph.cc && metier deploy graph.so --kind serving
//
// A graph is its document: `graph.json()` is what Python's `graph.to_dict()` says, for `metier deploy -f`. Header-only C++17; METIER_GRAPH
// exports one C function. Wrong use (two steps of one name, a step that is not there) throws std::invalid_argument.
#pragma once

#include <cstdint>
#include <cstdio>
#include <deque>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace metier {

class Graph;

// A JSON value of a step's arguments.
class Value {
 public:
  using Members = std::vector<std::pair<std::string, Value>>;
  Value() : text_("null") {}
  Value(bool value) : text_(value ? "true" : "false") {}  // NOLINT: literals are values
  template <
      class Number,
      std::enable_if_t<std::is_arithmetic_v<Number> && !std::is_same_v<Number, bool>, int> = 0>
  Value(Number value) {  // NOLINT
    if constexpr (std::is_integral_v<Number>) {
      text_ = std::to_string(value);
    } else {
      char buffer[40];
      std::snprintf(buffer, sizeof buffer, "%.17g", static_cast<double>(value));
      text_ = buffer;
    }
  }
  Value(const char* text) : Value(std::string_view(text)) {}         // NOLINT
  Value(const std::string& text) : Value(std::string_view(text)) {}  // NOLINT
  Value(std::string_view text) : text_(quoted(text)) {}              // NOLINT
  static Value list(const std::vector<Value>& items) {
    Value out;
    out.text_ = "[";
    for (const Value& item : items) { out.text_ += (out.text_.size() > 1 ? "," : "") + item.text_; }
    out.text_ += "]";
    return out;
  }
  static Value object(const Members& members) {
    Value out;
    out.text_ = "{";
    for (const auto& [name, value] : members) {
      out.text_ += (out.text_.size() > 1 ? "," : "") + quoted(name) + ":" + value.text_;
    }
    out.text_ += "}";
    return out;
  }
  const std::string& json() const { return text_; }

  static std::string quoted(std::string_view text) {
    std::string out = "\"";
    for (const char c : text) {
      if (c == '"' || c == '\\') {
        (out += '\\') += c;
      } else if (static_cast<unsigned char>(c) < 0x20) {
        char buffer[8];
        std::snprintf(buffer, sizeof buffer, "\\u%04x", static_cast<unsigned>(c));
        out += buffer;
      } else {
        out += c;
      }
    }
    return out + "\"";
  }

 private:
  std::string text_;
};
using Arguments = Value::Members;

// A step that is a function: an expression "(event['x'] + 1)", "library.so:step", or the name of one in Python code.
struct Handler {
  std::string name;
};
inline Handler handler(std::string name) { return {std::move(name)}; }

// A step of a graph. Cheap to copy; lives as long as its graph.
class Step {
 public:
  // Adds a step behind this one. "*Router" makes a router, ">>" a queue.
  Step to(std::string_view class_name, const std::string& name, const Arguments& args = {});
  Step to(const Handler& function, const std::string& name);
  // This step's output is the answer.
  Step respond();
  // The step that gets the events on which this one fails; gives this step.
  Step error_handler(const Handler& function, const std::string& name,
                     const std::vector<std::string>& before = {});
  // A model of a router.
  Step add_route(const std::string& name, std::string_view class_name, const Arguments& args = {});
  Step add_route(const std::string& name, const Handler& function);
  Step after(const std::vector<std::string>& names);
  Step function(std::string_view name) { return set("function", Value(name)); }
  Step input_path(std::string_view path) { return set("input_path", Value(path)); }
  Step result_path(std::string_view path) { return set("result_path", Value(path)); }
  Step full_event(bool whole = true) { return set("full_event", Value(whole)); }
  // Any field of the document: timeout, retries, max_in_flight …
  Step set(std::string_view field, const Value& value);
  const std::string& name() const;

 private:
  friend class Graph;
  Step(Graph* graph, std::size_t at) : graph_(graph), at_(at) {}
  Graph* graph_;
  std::size_t at_;
};

class Graph {
 public:
  Graph() = default;
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;

  // "flow" (engine "async" or "sync") or "router" (class_name: ModelRouter by default).
  void set_topology(std::string_view topology, std::string_view engine_or_class = {},
                    const Arguments& args = {}) {
    if (!nodes_.empty()) { throw std::invalid_argument("the graph has steps already"); }
    if (topology != "flow" && topology != "router") {
      throw std::invalid_argument("topology '" + std::string(topology) +
                                  "' is unknown: flow or router");
    }
    router_ = topology == "router";
    if (router_) {
      nodes_.push_back(Node{"router", "router", {}, {}, {}});
      if (!engine_or_class.empty()) { put(nodes_[0], "class_name", Value(engine_or_class)); }
      if (!args.empty()) { put(nodes_[0], "class_args", Value::object(args)); }
    } else {
      engine_ = engine_or_class;
    }
  }
  // A first step.
  Step to(std::string_view class_name, const std::string& name, const Arguments& args = {}) {
    return add_step(class_name, name, {}, args);
  }
  Step to(const Handler& function, const std::string& name) { return add_step(function, name, {}); }
  Step add_step(std::string_view class_name, const std::string& name,
                const std::vector<std::string>& after, const Arguments& args = {}) {
    if (class_name == ">>" || class_name == "$queue") {
      Node node{name, "queue", after, {}, {}};
      Arguments options;
      for (const auto& [key, value] : args) {
        if (key == "path" || key == "shards" || key == "retention_in_hours" ||
            key == "trigger_args") {
          put(node, key, value);
        } else {
          options.push_back({key, value});
        }
      }
      if (!options.empty()) { put(node, "options", Value::object(options)); }
      return add(std::move(node));
    }
    const bool router = !class_name.empty() && class_name.front() == '*';
    Node node{name, router ? "router" : "task", after, {}, {}};
    if (router) { class_name.remove_prefix(1); }
    if (!class_name.empty()) { put(node, "class_name", Value(class_name)); }
    if (!args.empty()) { put(node, "class_args", Value::object(args)); }
    return add(std::move(node));
  }
  Step add_step(const Handler& function, const std::string& name,
                const std::vector<std::string>& after) {
    Node node{name, "task", after, {}, {}};
    put(node, "handler", Value(function.name));
    return add(std::move(node));
  }
  // A model of the root router, or of the flow's only router.
  Step add_model(const std::string& name, std::string_view class_name, std::string_view model_path,
                 Arguments args = {}) {
    if (!router_ && nodes_.empty()) { set_topology("router"); }
    args.insert(args.begin(), {"model_path", Value(model_path)});
    return only_router().add_route(name, class_name, args);
  }
  void error_handler(const Handler& function, const std::string& name) {
    Node node{name, "error_step", {}, {}, {}};
    put(node, "handler", Value(function.name));
    add(std::move(node));
    on_error_ = name;
  }
  Step operator[](std::string_view name) { return Step(this, find(name)); }

  std::string json() const {
    if (router_) { return document(nodes_[0]); }
    std::string out = "{";
    if (!engine_.empty()) { out += "\"engine\":" + Value::quoted(engine_) + ","; }
    if (!on_error_.empty()) { out += "\"on_error\":" + Value::quoted(on_error_) + ","; }
    out += "\"steps\":{";
    bool first = true;
    for (const Node& node : nodes_) {
      if (!std::exchange(first, false)) { out += ","; }
      out += Value::quoted(node.name) + ":" + document(node);
    }
    return out + "}}";
  }

 private:
  friend class Step;
  struct Node {
    std::string name, kind;
    std::vector<std::string> after;
    Arguments fields;
    Arguments routes;
  };
  static void put(Node& node, std::string_view field, Value value) {
    for (auto& [name, old] : node.fields) {
      if (name == field) {
        old = std::move(value);
        return;
      }
    }
    node.fields.emplace_back(std::string(field), std::move(value));
  }
  static std::string document(const Node& node) {
    Arguments all{{"kind", Value(node.kind)}};
    all.insert(all.end(), node.fields.begin(), node.fields.end());
    if (!node.after.empty()) {
      all.push_back(
          {"after", Value::list(std::vector<Value>(node.after.begin(), node.after.end()))});
    }
    if (!node.routes.empty()) { all.push_back({"routes", Value::object(node.routes)}); }
    return Value::object(all).json();
  }
  std::size_t find(std::string_view name) const {
    for (std::size_t i = 0; i < nodes_.size(); ++i) {
      if (nodes_[i].name == name) { return i; }
    }
    throw std::invalid_argument("there is no step named " + std::string(name));
  }
  Step add(Node node) {
    if (router_) {
      throw std::invalid_argument("a router has routes, not steps: add_route or add_model");
    }
    for (const std::string& name : node.after) { find(name); }
    for (const Node& other : nodes_) {
      if (other.name == node.name) {
        throw std::invalid_argument("there is a step named " + node.name + " already");
      }
    }
    nodes_.push_back(std::move(node));
    return Step(this, nodes_.size() - 1);
  }
  Step only_router() {
    std::size_t found = nodes_.size();
    for (std::size_t i = 0; i < nodes_.size(); ++i) {
      if (nodes_[i].kind != "router") { continue; }
      if (found != nodes_.size()) {
        throw std::invalid_argument("the graph has several routers: add_route on one of them");
      }
      found = i;
    }
    if (found == nodes_.size()) { throw std::invalid_argument("the graph has no router"); }
    return Step(this, found);
  }

  bool router_ = false;
  std::string engine_, on_error_;
  std::deque<Node> nodes_;
};

inline Step Step::to(std::string_view class_name, const std::string& name, const Arguments& args) {
  return graph_->add_step(class_name, name, {this->name()}, args);
}
inline Step Step::to(const Handler& function, const std::string& name) {
  return graph_->add_step(function, name, {this->name()});
}
inline Step Step::respond() { return set("responder", Value(true)); }
inline Step Step::error_handler(const Handler& function, const std::string& name,
                                const std::vector<std::string>& before) {
  Graph::Node node{name, "error_step", {}, {}, {}};
  Graph::put(node, "handler", Value(function.name));
  Graph::put(node, "base_step", Value(this->name()));
  if (!before.empty()) {
    Graph::put(node, "before", Value::list(std::vector<Value>(before.begin(), before.end())));
  }
  graph_->add(std::move(node));
  return set("on_error", Value(name));
}
inline Step Step::add_route(const std::string& name, std::string_view class_name,
                            const Arguments& args) {
  Arguments route{{"kind", Value("task")}, {"class_name", Value(class_name)}};
  if (!args.empty()) { route.push_back({"class_args", Value::object(args)}); }
  graph_->nodes_[at_].routes.push_back({name, Value::object(route)});
  return *this;
}
inline Step Step::add_route(const std::string& name, const Handler& function) {
  graph_->nodes_[at_].routes.push_back(
      {name, Value::object({{"kind", Value("task")}, {"handler", Value(function.name)}})});
  return *this;
}
inline Step Step::after(const std::vector<std::string>& names) {
  for (const std::string& name : names) { graph_->find(name); }
  auto& after = graph_->nodes_[at_].after;
  after.insert(after.end(), names.begin(), names.end());
  return *this;
}
inline Step Step::set(std::string_view field, const Value& value) {
  Graph::put(graph_->nodes_[at_], field, value);
  return *this;
}
inline const std::string& Step::name() const { return graph_->nodes_[at_].name; }

}  // namespace metier

// The graph of a library: a callable that gets an empty metier::Graph.
#define METIER_GRAPH(...)                                                           \
  extern "C" __attribute__((visibility("default"))) const char* metier_graph_v1() { \
    try {                                                                           \
      static const std::string text = [] {                                          \
        metier::Graph graph;                                                        \
        (__VA_ARGS__)(graph);                                                       \
        return graph.json();                                                        \
      }();                                                                          \
      return text.c_str();                                                          \
    } catch (const std::exception& error) {                                         \
      std::fprintf(stderr, "METIER_GRAPH: %s\n", error.what());                     \
      return nullptr;                                                               \
    } catch (...) { return nullptr; }                                               \
  }
