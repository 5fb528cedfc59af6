#include "model/hyper.h"

#include <algorithm>
#include <array>

#include "base/text.h"
#include "model/problems.h"

namespace metier {
namespace {

constexpr std::array<std::string_view, 4> kStrategies = {"grid", "list", "random", "custom"};

void check_values(const JsonObject& values, std::string_view strategy, ProblemList& problems) {
  std::int64_t combinations = 1;
  std::size_t length = 0;
  bool first = true;
  for (const auto& value : values) {
    const std::string path = "spec.hyperparams." + std::string(value.key());
    if (!value.value().is_array()) {
      problems.add(path,
                   "expected a list of values, got a " + std::string(type_name(value.value())),
                   "write [1, 2, 3]");
      return;
    }
    const std::size_t count = value.value().get_array().size();
    if (count == 0) {
      problems.add(path, "the list is empty", "give at least one value");
      return;
    }
    if (strategy == "list" && !first && count != length) {
      problems.add(
          path,
          "has " + std::to_string(count) + " values, the first list has " + std::to_string(length),
          "lists of strategy list have equal lengths");
      return;
    }
    length = first ? count : length;
    first = false;
    combinations = std::min<std::int64_t>(
        combinations * static_cast<std::int64_t>(std::min<std::size_t>(count, 1U << 20U)),
        std::int64_t{1} << 40);
  }
  if (strategy == "list") { combinations = static_cast<std::int64_t>(length); }
  if (strategy != "random" && strategy != "custom" && combinations > kMostCombinations) {
    problems.add("spec.hyperparams",
                 "there are more than " + std::to_string(kMostCombinations) + " combinations",
                 "use strategy random with max_iterations");
  }
}

void check_count(const JsonObject& options, std::string_view key, std::int64_t least,
                 ProblemList& problems) {
  const Json* value = options.if_contains(key);
  if (value != nullptr && !value->is_null() &&
      (!value->is_int64() || value->get_int64() < least ||
       value->get_int64() > kMostCombinations)) {
    problems.add("spec.hyper_param_options." + std::string(key),
                 quote(dump_json(*value)) + " is not such a number",
                 std::to_string(least) + " to " + std::to_string(kMostCombinations));
  }
}

void check_selector(std::string_view selector, ProblemList& problems) {
  const std::string_view name =
      selector.contains('.') ? selector.substr(selector.find('.') + 1) : selector;
  const std::string_view way =
      selector.contains('.') ? selector.substr(0, selector.find('.')) : std::string_view("max");
  if ((way != "max" && way != "min") || name.empty()) {
    problems.add("spec.hyper_param_options.selector", quote(selector) + " is not a selector",
                 "write max.RESULT or min.RESULT");
  }
}

}  // namespace

void check_hyper_parameters(const JsonObject& spec, ProblemList& problems) {
  const JsonObject none;
  const Json* given = spec.if_contains("hyper_param_options");
  if (given != nullptr && !given->is_null() && !given->is_object()) {
    problems.add("spec.hyper_param_options",
                 "expected an object, got a " + std::string(type_name(*given)));
    return;
  }
  const JsonObject& options = given != nullptr && given->is_object() ? given->get_object() : none;
  std::string_view strategy = string_in(options, "strategy");
  strategy = strategy.empty() ? string_in(spec, "strategy") : strategy;
  if (!strategy.empty() && std::ranges::find(kStrategies, strategy) == kStrategies.end()) {
    problems.add("spec.hyper_param_options.strategy",
                 unknown_name(strategy, nearest(strategy, kStrategies)),
                 "one of " + join(kStrategies));
    return;
  }
  const Json* values = spec.if_contains("hyperparams");
  if (values != nullptr && !values->is_null()) {
    if (values->is_object()) {
      check_values(values->get_object(), strategy, problems);
    } else {
      problems.add("spec.hyperparams",
                   "expected an object of lists, got a " + std::string(type_name(*values)),
                   "write {name: [1, 2, 3]}");
    }
  }
  check_count(options, "max_iterations", 1, problems);
  check_count(options, "max_errors", 0, problems);
  check_count(options, "parallel_runs", 0, problems);
  if (const std::string_view selector = string_in(options, "selector"); !selector.empty()) {
    check_selector(selector, problems);
  }
  if (const std::string_view condition = string_in(options, "stop_condition"); !condition.empty()) {
    if (condition.size() >
        1000) {  // its grammar is the runner's (conditions.py); nothing evaluates it as code
      problems.add("spec.hyper_param_options.stop_condition", "it is longer than 1000 characters",
                   "write \"accuracy >= 0.9\"");
    }
  }
}

}  // namespace metier
