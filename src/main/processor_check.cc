#include "main/processor_check.h"

#include <algorithm>

#include "realtime/processor_config.h"
#include "realtime/trigger.h"

namespace metier {

JsonObject processor_document(const Resource& function, const ProcessorPlace& place) {
  JsonObject out = processor_config(function, place);
  for (Json& entry : ensure_array(out, "triggers")) {
    JsonObject& trigger = entry.get_object();
    const realtime::TriggerKind* kind = realtime::find_trigger_kind(string_in(trigger, "kind"));
    JsonObject* attributes = object_in(trigger, "attributes");
    if (kind == nullptr || attributes == nullptr || kind->attributes.empty()) { continue; }
    std::vector<std::string> strangers;
    for (const auto& member : *attributes) {
      if (std::ranges::find(kind->attributes, std::string_view(member.key())) ==
          kind->attributes.end()) {
        strangers.emplace_back(member.key());
      }
    }
    for (const std::string& name : strangers) { attributes->erase(name); }
  }
  return out;
}

Result<void> check_processor(const Resource& function) {
  const JsonObject document = processor_document(function, {.address = "127.0.0.1:0"});
  auto config = realtime::parse_processor_config(dump_json(document));
  if (!config) { return fail(std::move(config.error()).at("spec")); }
  if (config->triggers.empty()) {
    return fail(invalid("spec.triggers", "there is none that is enabled",
                        "a function needs a trigger: http, cron or kafka-cluster"));
  }
  for (const realtime::TriggerConfig& trigger : config->triggers) {
    const realtime::TriggerKind* kind = realtime::find_trigger_kind(trigger.kind);
    if (kind == nullptr || kind->check == nullptr) { continue; }
    if (auto right = kind->check(trigger); !right) {
      return fail(std::move(right.error()).at("spec"));
    }
  }
  return {};
}

}  // namespace metier
