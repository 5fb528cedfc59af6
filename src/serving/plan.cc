#include "serving/plan.h"

#include <algorithm>
#include <array>
#include <map>
#include <set>

namespace metier::serving {
namespace {

constexpr std::string_view kFlow = "graph.steps";

Error step_error(std::string_view step, std::string message, std::string fix = {}) {
  return invalid(std::string(kFlow) + "." + std::string(step),
                 "step " + quote(step) + ": " + std::move(message), std::move(fix));
}

Error needs_mlrun(std::string_view where, std::string message) {
  return Error{
      .kind = ErrorKind::unsupported,
      .message = std::move(message),
      .field = std::string(where),
      .fix = "it runs on MLRun's own engine: use an environment that has the package mlrun",
      .code = "NeedsMlrun"};
}

std::vector<std::string> names_in(const JsonObject& step, std::string_view key) {
  std::vector<std::string> out;
  const Json* value = step.if_contains(key);
  if (value == nullptr) { return out; }
  if (value->is_string()) {  // one name, as hand-written specs have it
    if (!value->get_string().empty()) { out.emplace_back(value->get_string()); }
  } else if (value->is_array()) {
    for (const Json& item : value->get_array()) {
      if (item.is_string()) { out.emplace_back(item.get_string()); }
    }
  }
  return out;
}

Result<StepKind> kind_of(std::string_view name, const JsonObject& step) {
  const std::string_view kind = string_in(step, "kind", "task");
  if (kind == "task" || kind.empty()) { return StepKind::task; }
  if (kind == "router") { return StepKind::router; }
  if (kind == "queue") { return StepKind::queue; }
  if (kind == "error_step") { return StepKind::error_step; }
  if (kind == "choice") { return StepKind::choice; }
  if (kind == "model_runner" || kind == "hub_task" || kind == "monitoring_application" ||
      kind == "flow") {
    return fail(needs_mlrun(
        std::string(kFlow) + "." + std::string(name),
        "step " + quote(name) + " has kind " + quote(kind) + ", which metier's engine lacks"));
  }
  return fail(step_error(name, "kind " + quote(kind) + " is unknown",
                         "kinds: task, router, queue, error_step, choice"));
}

// The document's steps, checked one by one, before they are put in order.
struct Draft {
  std::vector<std::string> names;
  std::vector<const JsonObject*> specs;
  std::vector<PlanStep> steps;
  std::map<std::string, int, std::less<>> index;
  std::vector<std::vector<int>> next;
  std::vector<std::vector<int>> before;

  int find(std::string_view name) const {
    const auto found = index.find(name);
    return found == index.end() ? -1 : found->second;
  }
  void link(int from, int to) {
    next[static_cast<std::size_t>(from)].push_back(to);
    before[static_cast<std::size_t>(to)].push_back(from);
  }
};

Result<void> check_step(std::string_view name, StepKind kind, const JsonObject& step) {
  if (kind == StepKind::queue) { return {}; }
  const bool bare = string_in(step, "class_name").empty() && string_in(step, "handler").empty();
  if (bare && kind != StepKind::router) {
    return fail(step_error(name, "it has neither class_name nor handler",
                           "name the class or the function that it runs"));
  }
  if (kind == StepKind::router) {
    const JsonObject* routes = object_in(step, "routes");
    if (routes == nullptr || routes->empty()) {
      return fail(step_error(name, "the router has no routes", "add models: fn.add_model(...)"));
    }
  }
  const Json* cycle = step.if_contains("cycle_from");
  if (cycle != nullptr && !is_empty_value(*cycle)) {
    return fail(needs_mlrun(
        std::string(kFlow) + "." + std::string(name),
        "step " + quote(name) + " is part of a cycle (cycle_from), which metier's engine lacks"));
  }
  return {};
}

Result<Draft> read_steps(const JsonObject& steps) {
  Draft draft;
  for (const auto& member : steps) {
    const std::string name(member.key());
    if (!member.value().is_object()) { return fail(step_error(name, "it is not an object")); }
    const JsonObject& spec = member.value().get_object();
    METIER_TRY(kind, kind_of(name, spec));
    METIER_CHECK(check_step(name, kind, spec));
    PlanStep step{.name = name, .full_name = name, .kind = kind};
    std::ranges::replace(step.full_name, ':', '_');
    step.responder = kind != StepKind::error_step && bool_in(spec, "responder");
    draft.index.emplace(name, static_cast<int>(draft.steps.size()));
    draft.names.push_back(name);
    draft.specs.push_back(&spec);
    draft.steps.push_back(std::move(step));
  }
  draft.next.resize(draft.steps.size());
  draft.before.resize(draft.steps.size());
  return draft;
}

Result<void> link_steps(Draft& draft, std::string_view graph_handler) {
  const auto known = [&](std::string_view step, std::string_view field,
                         std::string_view name) -> Result<int> {
    const int at = draft.find(name);
    if (at < 0) {
      return fail(step_error(step, std::string(field) + " names " + quote(name) +
                                       ", and there is no step of that name"));
    }
    return at;
  };
  for (std::size_t i = 0; i < draft.steps.size(); ++i) {
    const std::string& name = draft.names[i];
    for (const std::string& previous : names_in(*draft.specs[i], "after")) {
      METIER_TRY(at, known(name, "after", previous));
      draft.link(at, static_cast<int>(i));
    }
    if (draft.steps[i].kind == StepKind::error_step) {
      for (const std::string& following : names_in(*draft.specs[i], "before")) {
        METIER_TRY(at, known(name, "before", following));
        if (std::ranges::find(draft.next[i], at) == draft.next[i].end()) {
          draft.link(static_cast<int>(i), at);
        }
      }
    }
  }
  for (std::size_t i = 0; i < draft.steps.size(); ++i) {
    const std::string_view own = string_in(*draft.specs[i], "on_error");
    const std::string_view handler = own.empty() ? graph_handler : own;
    if (handler.empty()) { continue; }
    METIER_TRY(at, known(draft.names[i], "on_error", handler));
    if (at == static_cast<int>(i)) { continue; }  // never its own handler
    draft.steps[i].error = at;
    draft.steps[i].graph_error = own.empty();
  }
  if (!graph_handler.empty() && draft.find(graph_handler) < 0) {
    return fail(invalid("graph.on_error", quote(graph_handler) + " is no step of the graph",
                        "graph.error_handler(name, handler=...) adds it"));
  }
  return {};
}

// Depth first with colours; edges to error handlers count, so that `before` cannot lead back upstream.
class Order {
 public:
  explicit Order(const Draft& draft) : draft_(draft), colour_(draft.steps.size(), 0) {}

  Result<std::vector<int>> sorted() {
    for (std::size_t i = draft_.steps.size(); i-- > 0;) {
      METIER_CHECK(visit(static_cast<int>(i)));
    }
    std::ranges::reverse(done_);
    return std::move(done_);
  }

 private:
  struct Frame {
    int step;
    std::size_t edge;
  };

  std::vector<int> edges(int step) const {
    const auto at = static_cast<std::size_t>(step);
    std::vector<int> out = draft_.next[at];
    const PlanStep& info = draft_.steps[at];
    if (info.error >= 0 && !info.graph_error) { out.push_back(info.error); }
    std::ranges::reverse(out);  // so that the first successor comes first in the result
    return out;
  }

  Result<void> visit(int root) {
    if (colour_[static_cast<std::size_t>(root)] != 0) { return {}; }
    std::vector<std::pair<Frame, std::vector<int>>> stack;
    const auto push = [&](int step) {
      colour_[static_cast<std::size_t>(step)] = 1;
      stack.push_back({{step, 0}, edges(step)});
    };
    push(root);
    while (!stack.empty()) {
      auto& [frame, out] = stack.back();
      if (frame.edge == out.size()) {
        colour_[static_cast<std::size_t>(frame.step)] = 2;
        done_.push_back(frame.step);
        stack.pop_back();
        continue;
      }
      const int to = out[frame.edge++];
      if (colour_[static_cast<std::size_t>(to)] == 1) { return fail(loop(stack, to)); }
      if (colour_[static_cast<std::size_t>(to)] == 0) { push(to); }
    }
    return {};
  }

  template <class Stack>
  Error loop(const Stack& stack, int to) const {
    std::string way;
    bool inside = false;
    for (const auto& [frame, out] : stack) {
      inside = inside || frame.step == to;
      if (inside) { way += draft_.names[static_cast<std::size_t>(frame.step)] + " -> "; }
    }
    const std::string& name = draft_.names[static_cast<std::size_t>(to)];
    return step_error(name, "loop detected, the graph must be acyclic (DAG): " + way + name,
                      "remove one of these links");
  }

  const Draft& draft_;
  std::vector<int> colour_;
  std::vector<int> done_;
};

Plan arrange(Draft&& draft, const std::vector<int>& order) {
  std::vector<int> place(draft.steps.size());
  for (std::size_t i = 0; i < order.size(); ++i) {
    place[static_cast<std::size_t>(order[i])] = static_cast<int>(i);
  }
  Plan plan;
  for (int old : order) {
    const auto at = static_cast<std::size_t>(old);
    PlanStep step = std::move(draft.steps[at]);
    for (int to : draft.next[at]) { step.next.push_back(place[static_cast<std::size_t>(to)]); }
    for (int to : draft.before[at]) { step.before.push_back(place[static_cast<std::size_t>(to)]); }
    if (step.error >= 0) { step.error = place[static_cast<std::size_t>(step.error)]; }
    plan.steps.push_back(std::move(step));
  }
  return plan;
}

bool is_local(std::string_view function, std::string_view current) {
  return current == "*" || function == "*" || function == current;
}

// First steps of the current function below `from`, depth first; each step is looked at once.
void entries(const Plan& plan, const std::vector<std::string>& functions, std::string_view current,
             int from, std::set<int>& seen, std::vector<int>& out) {
  if (!seen.insert(from).second) { return; }
  const auto at = static_cast<std::size_t>(from);
  if (functions[at] == current) {
    out.push_back(from);
    return;
  }
  for (int to : plan.steps[at].next) { entries(plan, functions, current, to, seen, out); }
}

Result<void> choose_starts(Plan& plan, const Draft& names, const CompileOptions& options,
                           const std::vector<std::string>& functions) {
  std::set<int> handlers;
  for (const PlanStep& step : plan.steps) {
    if (step.error >= 0) { handlers.insert(step.error); }
  }
  for (std::size_t i = 0; i < plan.steps.size(); ++i) {
    if (plan.steps[i].before.empty() && !handlers.contains(static_cast<int>(i)) &&
        plan.steps[i].kind != StepKind::error_step) {
      plan.starts.push_back(static_cast<int>(i));
    }
  }
  std::ranges::sort(plan.starts, {}, [&](int at) {  // in the order of the document
    return names.find(plan.steps[static_cast<std::size_t>(at)].name);
  });
  if (!options.from_step.empty()) {
    const int at = plan.index_of(options.from_step);
    if (at < 0) {
      return fail(
          invalid("START_FROM_STEP", quote(options.from_step) + " is no step of the graph"));
    }
    plan.starts = {at};
  }
  const std::string& current = options.current_function;
  if (current.empty() || current == "*") { return {}; }
  std::vector<int> found;
  std::set<int> seen;
  for (int start : plan.starts) { entries(plan, functions, current, start, seen, found); }
  if (found.empty()) {
    return fail(invalid("graph.steps",
                        "did not find steps pointing to current function (" + current + ")",
                        "give steps function=" + quote(current)));
  }
  plan.starts = std::move(found);
  return {};
}

Result<void> check_sync(const Plan& plan) {
  if (plan.starts.size() > 1) {
    return fail(invalid("graph.engine",
                        "sync engine can only have one starting step (without .after), there are " +
                            std::to_string(plan.starts.size()),
                        "use engine='async'"));
  }
  for (const PlanStep& step : plan.steps) {
    const auto joins = std::ranges::count_if(step.before, [&](int from) {
      return plan.steps[static_cast<std::size_t>(from)].kind != StepKind::error_step;
    });
    if (step.next.size() > 1 || joins > 1) {
      return fail(step_error(step.name,
                             "synchronous flow engine doesnt support branches, use async",
                             "fn.set_topology('flow', engine='async')"));
    }
  }
  return {};
}

Result<void> check_responders(const Plan& plan) {
  std::string names;
  int count = 0;
  for (const PlanStep& step : plan.steps) {
    if (!step.responder) { continue; }
    names += (count++ == 0 ? "" : ",") + step.name;
  }
  if (count > 1) {
    return fail(invalid("graph.steps",
                        "there are more than one responder steps in the graph (" + names + ")",
                        "one request has one answer: keep one respond()"));
  }
  return {};
}

// Steps of other functions are reached through a queue only: without one the event would silently vanish.
Result<void> check_borders(const Plan& plan, const std::vector<std::string>& functions) {
  for (const PlanStep& step : plan.steps) {
    if (!step.local || step.kind == StepKind::queue) { continue; }
    for (int to : step.next) {
      const PlanStep& other = plan.steps[static_cast<std::size_t>(to)];
      if (other.local || other.kind == StepKind::queue) { continue; }
      return fail(step_error(other.name,
                             "it belongs to function " +
                                 quote(functions[static_cast<std::size_t>(to)]) +
                                 " and follows step " + quote(step.name) + " directly",
                             "put a queue between them: .to('>>', 'name', path=...)"));
    }
  }
  return {};
}

// A queue without a path is an edge in memory: what it leads to, and that function's steps behind it, run where its writer runs.
void join_by_memory(Plan& plan, const Draft& names, const std::vector<std::string>& functions) {
  for (std::size_t at = 0; at < plan.steps.size(); ++at) {
    PlanStep& step = plan.steps[at];
    if (step.local) { continue; }
    step.local = std::ranges::any_of(step.before, [&](int from) {
      const PlanStep& previous = plan.steps[static_cast<std::size_t>(from)];
      if (previous.kind != StepKind::queue) {
        return previous.local && functions[static_cast<std::size_t>(from)] == functions[at];
      }
      const JsonObject& spec = *names.specs[static_cast<std::size_t>(names.find(previous.name))];
      return string_in(spec, "path").empty() &&
             std::ranges::any_of(previous.before, [&](int writer) {
               return plan.steps[static_cast<std::size_t>(writer)].local;
             });
    });
  }
}

Plan router_plan(const JsonObject& graph) {
  const std::string_view name = string_in(graph, "name", "router");
  Plan plan{
      .steps = {PlanStep{
          .name = std::string(name), .full_name = std::string(name), .kind = StepKind::router}},
      .starts = {0},
      .sync = true,
      .router_root = true,
      .waits = true};
  return plan;
}

}  // namespace

int Plan::index_of(std::string_view name) const {
  const auto found = std::ranges::find(steps, name, &PlanStep::name);
  return found == steps.end() ? -1 : static_cast<int>(found - steps.begin());
}

Result<Plan> compile_graph(const JsonObject& graph, const CompileOptions& options) {
  const std::string_view kind = string_in(graph, "kind");
  if (kind == "router") {
    const JsonObject* routes = object_in(graph, "routes");
    if (routes == nullptr || routes->empty()) {
      return fail(
          invalid("graph.routes", "the router has no routes", "add models: fn.add_model(...)"));
    }
    return router_plan(graph);
  }
  if (!kind.empty() && kind != "root" && kind != "flow") {
    return fail(invalid("graph.kind", "illegal root step " + quote(kind), "a flow or a router"));
  }
  if (bool_in(graph, "allow_cyclic")) {
    return fail(needs_mlrun("graph.allow_cyclic", "cyclic flows are beyond metier's engine"));
  }
  const JsonObject* steps = object_in(graph, "steps");
  if (steps == nullptr || steps->empty()) {
    return fail(invalid("graph.steps", "the graph has no steps", "add steps: graph.to(...)"));
  }
  METIER_TRY(draft, read_steps(*steps));
  METIER_CHECK(link_steps(draft, string_in(graph, "on_error")));
  METIER_TRY(order, Order(draft).sorted());
  const Draft names = draft;
  Plan plan = arrange(std::move(draft), order);
  const std::string_view engine = string_in(graph, "engine");
  if (!engine.empty() && engine != "sync" && engine != "async") {
    return fail(invalid("graph.engine", quote(engine) + " is no engine", "'sync' or 'async'"));
  }
  plan.sync = engine == "sync";

  std::vector<std::string> functions;
  for (PlanStep& step : plan.steps) {
    const JsonObject& spec = *names.specs[static_cast<std::size_t>(names.find(step.name))];
    functions.emplace_back(string_in(spec, "function"));
    step.local =
        step.kind == StepKind::queue || is_local(functions.back(), options.current_function);
  }
  join_by_memory(plan, names, functions);
  METIER_CHECK(check_responders(plan));
  METIER_CHECK(choose_starts(plan, names, options, functions));
  if (plan.sync) { METIER_CHECK(check_sync(plan)); }
  METIER_CHECK(check_borders(plan, functions));
  // What catches a step's failures runs where the step does, whatever function it names.
  for (const PlanStep& step : plan.steps) {
    if (step.local && step.error >= 0) {
      plan.steps[static_cast<std::size_t>(step.error)].local = true;
    }
  }
  for (PlanStep& step : plan.steps) {
    std::erase_if(step.next,
                  [&](int to) { return !plan.steps[static_cast<std::size_t>(to)].local; });
    plan.waits = plan.waits || plan.sync || (step.responder && step.local);
    // Nothing follows the handler: what it returns is the answer.
    if (step.kind == StepKind::error_step && step.next.empty()) { step.responder = true; }
  }
  return plan;
}

std::string_view field_of_mlrun(const JsonObject& spec) {
  for (const std::string_view field : {"streaming", "api_handler_config"}) {
    const Json* given = spec.if_contains(field);
    if (given != nullptr && !is_empty_value(*given) && *given != Json(false)) { return field; }
  }
  return {};
}

Result<std::vector<std::pair<std::string, std::string>>> queue_links(const JsonObject& graph) {
  std::vector<std::pair<std::string, std::string>> out;
  const JsonObject* steps = object_in(graph, "steps");
  if (steps == nullptr) { return out; }
  for (const auto& member : *steps) {
    if (!member.value().is_object()) { continue; }
    const JsonObject& step = member.value().get_object();
    for (const std::string& previous : names_in(step, "after")) {
      const JsonObject* queue = object_in(*steps, previous);
      if (queue == nullptr || string_in(*queue, "kind") != "queue") { continue; }
      const std::string function(string_in(step, "function"));
      if (function.empty()) {
        return fail(
            step_error(std::string_view(member.key()),
                       "it follows the queue " + quote(previous) + " and has no function",
                       "child function name must be specified in steps which follow a queue"));
      }
      const auto found =
          std::ranges::find(out, function, &std::pair<std::string, std::string>::first);
      if (found == out.end()) {
        out.emplace_back(function, previous);
      } else if (found->second != previous) {
        return fail(step_error(std::string_view(member.key()),
                               "function " + quote(function) +
                                   " cannot read from multiple queues (" + quote(found->second) +
                                   ", " + quote(previous) + ")"));
      }
    }
  }
  return out;
}

}  // namespace metier::serving
