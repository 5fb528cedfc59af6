#include "api/graph_steps.h"

#include <algorithm>
#include <charconv>
#include <string_view>
#include <vector>

namespace metier::api {
namespace {

struct Step {
  std::string name;
  double events = 0, failures = 0, seconds = 0;
};

}  // namespace

JsonArray graph_steps(std::span<const std::string> metrics) {
  std::vector<Step> steps;
  for (std::string_view text : metrics) {
    while (!text.empty()) {
      const std::size_t end = std::min(text.find('\n'), text.size());
      const std::string_view line = text.substr(0, end);
      text.remove_prefix(std::min(end + 1, text.size()));
      const std::string_view name = line.substr(0, line.find('{'));
      double Step::* const into = name == "metier_graph_step_events_total"     ? &Step::events
                                  : name == "metier_graph_step_failures_total" ? &Step::failures
                                  : name == "metier_graph_step_seconds_sum"    ? &Step::seconds
                                                                               : nullptr;
      constexpr std::string_view kLabel = "step=\"";
      const std::size_t label = line.find(kLabel);
      const std::size_t space = line.rfind(' ');
      if (into == nullptr || label == std::string_view::npos || space == std::string_view::npos) {
        continue;
      }
      const std::size_t first = label + kLabel.size();
      const std::string step(line.substr(first, line.find('"', first) - first));
      auto found = std::ranges::find(steps, step, &Step::name);
      if (found == steps.end()) {
        steps.push_back({.name = step});
        found = std::prev(steps.end());
      }
      double value = 0;
      std::from_chars(line.data() + space + 1, line.data() + line.size(), value);
      (*found).*into += value;
    }
  }
  JsonArray out;
  for (const Step& step : steps) {
    out.push_back(JsonObject{{"name", step.name},
                             {"events", static_cast<std::int64_t>(step.events)},
                             {"failures", static_cast<std::int64_t>(step.failures)},
                             {"seconds", step.seconds}});
  }
  return out;
}

}  // namespace metier::api
