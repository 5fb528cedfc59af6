// function.yaml and function documents, through the model to every kind's lowering: what validation accepts lowers or
// is refused in a sentence; what is exported imports as the same function.
#include "fuzz.h"
#include "kind/builtin.h"
#include "model/create.h"
#include "mutate.h"
#include "resource/pod.h"

namespace {

const metier::KindRegistry& kinds() {
  static const auto registry = metier::builtin_kinds();
  return registry;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  using namespace metier;
  const auto text = fuzz::text_of(data, size);
  const auto function = parse_function(text, text.starts_with('{') ? "json" : "yaml");
  if (!function) {
    fuzz::require_sentence(function.error());
    return 0;
  }
  const auto hash = function->compute_hash();
  fuzz::require(function->compute_hash() == hash, "the hash is not stable", hash);
  static_cast<void>(function->code());
  static_cast<void>(function->to_dict());
  std::vector<std::string> warnings;
  const auto valid = validate_function(*function, &warnings);
  if (!valid) { fuzz::require_sentence(valid.error()); }
  if (const auto exported = export_text(*function, ".json", Strip::no)) {
    const auto again = parse_function(*exported, "json");
    fuzz::require(again.has_value(), "an export does not import", *exported);
    const auto whole = dump_python_json(function->to_dict());
    if (!whole.contains("Infinity") &&
        !whole.contains("NaN")) {  // JSON has neither: null is exported
      fuzz::require(dump_python_json(again->to_dict()) == whole, "an export imports differently",
                    *exported);
    }
  }
  const auto kind = kinds().find(function->kind());
  if (!kind) { return 0; }
  Run run;
  run.set_name("fuzz");
  run.set_project("default");
  run.set_uid("0123456789abcdef0123456789abcdef");
  const Subject subject{*function, &run, 1};
  const auto checked = (*kind)->validate(subject);
  if (!checked) {
    fuzz::require_sentence(checked.error());
    return 0;
  }
  const auto objects = (*kind)->lower(subject, Site{});
  if (!objects) {
    fuzz::require_sentence(objects.error());
    return 0;
  }
  for (const auto& object : *objects) {
    const auto again = resource_from_json(to_json(object));
    fuzz::require(again.has_value(), "a lowered object does not read", dump_json(to_json(object)));
    if (object.kind == "Pod") {
      for (const auto& problem : pod_problems(object)) { fuzz::require_sentence(problem); }
    }
  }
  return 0;
}
