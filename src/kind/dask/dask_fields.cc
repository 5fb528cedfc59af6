// Names and types of the fields of kind dask: a value of another type would have no effect, and nobody would say so.
#include <algorithm>
#include <array>

#include "base/text.h"
#include "kind/dask/dask_lowering.h"
#include "model/python_text.h"

namespace metier {
namespace {

enum class Shape { whole_number, text, boolean, time, resources };
struct Field {
  std::string_view name;
  Shape shape;
};
constexpr std::array kFields{Field{"replicas", Shape::whole_number},
                             Field{"min_replicas", Shape::whole_number},
                             Field{"max_replicas", Shape::whole_number},
                             Field{"nthreads", Shape::whole_number},
                             Field{"node_port", Shape::whole_number},
                             Field{"scheduler_timeout", Shape::time},
                             Field{"service_type", Shape::text},
                             Field{"remote", Shape::boolean},
                             Field{"scheduler_resources", Shape::resources},
                             Field{"worker_resources", Shape::resources}};
constexpr std::array<std::string_view, 2> kParts{"requests", "limits"};
// Those of a device's maker have a domain in front: nvidia.com/gpu.
constexpr std::array<std::string_view, 3> kResources{"cpu", "memory", "ephemeral-storage"};

std::string expected_value(std::string_view what, const Json& got) {
  return expected(what, got) +
         (got.is_string() ? " " + quote(std::string_view(got.get_string())) : std::string());
}

template <class Names>
void unknown(const std::string& field, std::string_view key, const Names& names,
             std::string_view fix, ProblemList& problems) {
  problems.add(field + "." + std::string(key), unknown_name(key, nearest(key, names)),
               std::string(fix));
}

void check_resources(const JsonObject& resources, const std::string& field, ProblemList& problems) {
  for (const auto& part : resources) {
    const std::string_view key = part.key();
    if (std::ranges::find(kParts, key) == kParts.end()) {
      unknown(field, key, kParts, "requests and limits", problems);
      continue;
    }
    if (part.value().is_null()) { continue; }
    const std::string path = field + "." + std::string(key);
    if (!part.value().is_object()) {
      problems.add(path, expected_value("an object", part.value()),
                   "write {cpu: 500m, memory: 2Gi}");
      continue;
    }
    for (const auto& amount : part.value().get_object()) {
      const std::string_view name = amount.key();
      if (name.contains('/') || name.starts_with("hugepages-") ||
          std::ranges::find(kResources, name) != kResources.end()) {
        continue;
      }
      unknown(path, name, kResources, "cpu, memory, or a device's name such as nvidia.com/gpu",
              problems);
    }
  }
}

void check(const Json& value, const Field& known, ProblemList& problems) {
  const std::string field = "spec." + std::string(known.name);
  switch (known.shape) {
    case Shape::whole_number:
      if (!value.is_int64()) {
        problems.add(field, expected_value("a whole number", value),
                     value.is_string() ? "write it without quotes" : "write 4");
      }
      return;
    case Shape::text:
      if (!value.is_string()) { problems.add(field, expected_value("text", value)); }
      return;
    case Shape::boolean:
      if (!value.is_bool()) { problems.add(field, expected_value("true or false", value)); }
      return;
    case Shape::time:
      if (!value.is_string() && !value.is_number()) {
        problems.add(field, expected_value("a time", value),
                     "write 60 minutes, 1h, or 90 (seconds)");
      }
      return;
    case Shape::resources:
      if (!value.is_object()) {
        problems.add(field, expected_value("an object", value),
                     "write {limits: {cpu: 1, memory: 2Gi}}");
      } else {
        check_resources(value.get_object(), field, problems);
      }
      return;
  }
}

}  // namespace

void check_dask_fields(const JsonObject& spec, ProblemList& problems) {
  for (const Field& field : kFields) {
    const Json* value = spec.if_contains(field.name);
    if (value != nullptr && !value->is_null()) { check(*value, field, problems); }
  }
}

std::vector<std::string> ignored_dask_fields(const Function& function, const Site& site) {
  std::vector<std::string> out;
  const auto tell = [&](std::string_view name, std::string_view where, std::string_view why) {
    const Json* value = function.spec().if_contains(name);
    if (value == nullptr || is_falsy(*value)) { return; }
    out.push_back("spec." + std::string(name) + " has no effect" + std::string(where) + ": " +
                  std::string(why));
  };
  tell("extra_pip", "", "packages of the function are spec.build.requirements (--requirements)");
  tell("kfp_image", "", "there are no pipelines here");
  if (!site.embedded) { return out; }
  constexpr std::string_view kHere = " on the embedded cluster";
  const std::string why = "scheduler and pages are at an address of this machine only; metier ui " +
                          function.name() + " gives a browser its own";
  tell("node_port", kHere, why);
  if (function.text("service_type") != "ClusterIP") { tell("service_type", kHere, why); }
  return out;
}

}  // namespace metier
