#include "kind/spark/spark_sizes.h"

#include <algorithm>
#include <cctype>
#include <optional>

#include "base/text.h"
#include "kind/spark/spark_role.h"

namespace metier {
namespace {

constexpr std::string_view kConf = "function.spec.spark_conf.";
constexpr std::string_view kTracking = "spark.dynamicAllocation.shuffleTracking.enabled";

std::string conf_text(const Function& function, std::string_view key) {
  const JsonObject* conf = object_in(function.spec(), "spark_conf");
  const Json* value = conf == nullptr ? nullptr : conf->if_contains(key);
  return value == nullptr || value->is_null() ? std::string()
                                              : std::string(trim(python_text(*value)));
}

std::optional<std::int64_t> number_of(std::string_view text) {
  const bool digits = std::ranges::all_of(
      text, [](char c) { return std::isdigit(static_cast<unsigned char>(c)) != 0; });
  if (text.empty() || text.size() > 9 || !digits) { return std::nullopt; }
  return std::atoll(std::string(text).c_str());
}

// A property's memory in the fields' form ("4g"): Spark takes "4gb" and "4096" (MiB) too. Empty for another one.
std::string memory_of(std::string_view text) {
  const std::string lower = lower_case(text);
  const auto unit = lower.find_first_not_of("0123456789");
  const auto number = number_of(std::string_view(lower).substr(0, unit));
  if (!number || *number == 0) { return {}; }
  std::string name = unit == std::string::npos ? "m" : lower.substr(unit);
  if (name.size() == 2 && name[1] == 'b') { name.pop_back(); }
  if (name == "t") { return std::to_string(*number * 1024) + "g"; }
  return name == "k" || name == "m" || name == "g" ? std::to_string(*number) + name : std::string();
}

std::int64_t kibibytes(const std::string& memory) {  // of the fields' form
  const auto number = std::atoll(memory.c_str());
  return memory.back() == 'g' ? number << 20 : memory.back() == 'm' ? number << 10 : number;
}

std::optional<bool> truth_of(std::string_view text) {
  const std::string lower = lower_case(text);
  if (lower == "true") { return true; }
  return lower == "false" ? std::optional(false) : std::nullopt;
}

// A property that is a size, the field that is the same size, and its value in the field's form (nothing where it is none).
struct Size {
  enum class What { memory, cores, executors, bound, truth };
  std::string key;
  std::string field;
  What what;
  std::string text;  // as the user wrote it
  std::optional<Json> value = {};
};

std::optional<Json> value_of(Size::What what, const std::string& text) {
  if (what == Size::What::truth) {
    const auto truth = truth_of(text);
    return truth ? std::optional(Json(*truth)) : std::nullopt;
  }
  if (what == Size::What::memory) {
    const std::string memory = memory_of(text);
    return memory.empty() ? std::nullopt : std::optional(Json(memory));
  }
  const auto number = number_of(text);
  const bool enough = number && *number >= (what == Size::What::bound ? 0 : 1);
  return enough ? std::optional(Json(*number)) : std::nullopt;
}

// The sizes that the properties say.
std::vector<Size> sizes_of(const Function& function) {
  using What = Size::What;
  std::vector<Size> out;
  const auto add = [&](std::string key, std::string field, What what) {
    std::string text = conf_text(function, key);
    if (text.empty()) { return; }
    auto value = value_of(what, text);
    out.push_back({std::move(key), std::move(field), what, std::move(text), std::move(value)});
  };
  for (const Role& role : kRoles) {
    const std::string name(role.name);
    add("spark." + name + ".memory", field_of(role, "resources") + ".requests.memory",
        What::memory);
    add("spark." + name + ".cores", field_of(role, "cores"), What::cores);
  }
  add("spark.executor.instances", "replicas", What::executors);
  for (const std::string name : {"enabled", "minExecutors", "maxExecutors", "initialExecutors"}) {
    add("spark.dynamicAllocation." + name, "dynamic_allocation." + name,
        name == "enabled" ? What::truth : What::bound);
  }
  return out;
}

const Role& role_of(const Size& size) {
  return size.key.starts_with("spark.driver.") ? kRoles[0] : kRoles[1];
}

// What the user wrote into the field himself, or null.
const Json* own_field(const Function& function, const Size& size) {
  const Json* value = find_path(function.spec(), size.field);
  if (value == nullptr || value->is_null()) { return nullptr; }
  if (size.what == Size::What::truth) { return value; }
  if (is_falsy(*value) && size.what != Size::What::bound) { return nullptr; }
  const bool unsaid = size.what == Size::What::memory && asks_for_defaults(function, role_of(size));
  return unsaid ? nullptr : value;
}

bool same(const Size& size, const Json& field) {
  if (size.what != Size::What::memory) {
    return !(field.is_int64() || field.is_bool()) || field == *size.value;  // another check says it
  }
  const std::string own = memory_of(python_text(field));
  return own.empty() || kibibytes(own) == kibibytes(std::string(size.value->get_string()));
}

void check_value(const Size& size, ProblemList& problems) {
  using What = Size::What;
  const std::string field = std::string(kConf) + size.key;
  switch (size.what) {
    case What::memory:
      problems.add(field, quote(size.text) + " is not in Spark's form of memory",
                   "digits and k, m or g (powers of two), like 512m or 2g");
      return;
    case What::truth: problems.add(field, quote(size.text) + " is neither true nor false"); return;
    case What::cores:
      problems.add(field, quote(size.text) + " is not a number of cores",
                   "a whole number from 1 up");
      return;
    case What::executors:
    case What::bound:
      problems.add(
          field, quote(size.text) + " is not a number of executors",
          size.what == What::bound ? "a whole number from 0 up" : "a whole number from 1 up");
      return;
  }
}

}  // namespace

void check_conf_sizes(const Function& function, ProblemList& problems) {
  bool dynamic = false;
  if (const JsonObject* field = object_in(function.spec(), "dynamic_allocation")) {
    dynamic = bool_in(*field, "enabled");
  }
  for (const Size& size : sizes_of(function)) {
    if (!size.value) {
      check_value(size, problems);
      continue;
    }
    if (size.what == Size::What::truth && size.value->get_bool()) { dynamic = true; }
    const Json* own = own_field(function, size);
    if (own == nullptr || same(size, *own)) { continue; }
    problems.add(std::string(kConf) + size.key,
                 size.key + " is " + size.text + ", but " + size.field + " is " + python_text(*own),
                 "keep one of the two");
  }
  if (dynamic && truth_of(conf_text(function, kTracking)) == false) {
    problems.add(std::string(kConf) + std::string(kTracking),
                 "executors that leave have no shuffle service here: Spark must track its shuffles",
                 "leave it out");
  }
}

Function with_conf_sizes(const Function& function) {
  Function out = function;
  const bool allocates = [&] {
    const JsonObject* field = object_in(function.spec(), "dynamic_allocation");
    return (field != nullptr && bool_in(*field, "enabled")) ||
           truth_of(conf_text(function, "spark.dynamicAllocation.enabled")) == true;
  }();
  for (const Size& size : sizes_of(function)) {
    if (!size.value || own_field(function, size) != nullptr) { continue; }
    JsonObject& spec = out.spec();
    switch (size.what) {
      case Size::What::memory: {
        JsonObject& requests =
            ensure_object(ensure_object(spec, field_of(role_of(size), "resources")), "requests");
        // With MLRun's memory its "1 cpu" was unsaid too.
        if (asks_for_defaults(function, role_of(size))) { requests.stable_erase("cpu"); }
        requests["memory"] = *size.value;
        break;
      }
      case Size::What::truth:
      case Size::What::bound:
        if (allocates) {
          ensure_object(spec, "dynamic_allocation")[size.field.substr(size.field.find('.') + 1)] =
              *size.value;
        }
        break;
      case Size::What::cores:
      case Size::What::executors: spec[size.field] = *size.value; break;
    }
  }
  // As Spark: of the executors that it may have, so many are there when it begins.
  const std::string instances = conf_text(function, "spark.executor.instances");
  JsonObject* dynamic = object_in(out.spec(), "dynamic_allocation");
  if (const auto number = number_of(instances);
      allocates && number && dynamic != nullptr && !int_in(*dynamic, "initialExecutors") &&
      *number > int_in(*dynamic, "minExecutors").value_or(0)) {
    (*dynamic)["initialExecutors"] = *number;
  }
  return out;
}

}  // namespace metier
