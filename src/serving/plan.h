// A graph's document compiled once into a flat table of steps: what runs after what, what catches what, who answers.
// Everything that can be known to be wrong without the user's code is refused here, with the step's name and the fix.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"

namespace metier::serving {

enum class StepKind { task, router, queue, error_step, choice };

struct PlanStep {
  std::string name;
  std::string full_name;  // ':' replaced: what `origin_state` says in a sync flow
  StepKind kind = StepKind::task;
  std::vector<int> next;     // in the order in which the steps were added
  std::vector<int> before;   // the steps that lead here, in the order of `after`
  int error = -1;            // the step that gets its failures: its own handler, else the graph's
  bool graph_error = false;  // `error` is the graph's handler: the flow ends after it
  bool responder = false;
  bool local = true;  // part of the current function
};

struct Plan {
  std::vector<PlanStep> steps;  // in topological order
  std::vector<int> starts;
  bool sync = false;
  bool router_root = false;  // one step, the router itself
  bool waits = false;        // some step answers: the caller waits for it
  int index_of(std::string_view name) const;
};

struct CompileOptions {
  std::string current_function = "*";  // "*": all steps are local
  std::string from_step;               // START_FROM_STEP
};

// Errors: invalid with the step's name; unsupported (code NeedsMlrun) for kinds and fields that only MLRun's own engine has.
// Linear in steps and edges.
Result<Plan> compile_graph(const JsonObject& graph, const CompileOptions& options = {});

// The field of a serving function's spec that asks for what only MLRun's own engine has, also beside a graph that ours could run; empty:
// none does.
std::string_view field_of_mlrun(const JsonObject& spec);

// Each function that steps after a queue belong to, with the queue's name.
// Errors: a step after a queue without `function`; one function that would read two queues.
Result<std::vector<std::pair<std::string, std::string>>> queue_links(const JsonObject& graph);

}  // namespace metier::serving
