#include "realtime/trigger.h"

#include <algorithm>
#include <array>

namespace metier::realtime {

void Trigger::fire(const std::string&, bool, std::function<void(int)> done) { done(404); }

const TriggerKind* find_trigger_kind(std::string_view name) {
  for (const TriggerKind* kind : trigger_kinds()) {
    if (kind->name == name || std::ranges::find(kind->aliases, name) != kind->aliases.end()) {
      return kind;
    }
  }
  return nullptr;
}

std::string_view refused_trigger_kind(std::string_view name) {
  static constexpr std::array<std::string_view, 12> kNuclios{
      "kinesis", "mqtt",      "iotCoreMqtt", "nats",        "eventhub",  "v3ioItemPoller",
      "pubsub",  "rabbit-mq", "v3ioStream",  "v3io-stream", "kickstart", "v3io"};
  const auto* found = std::ranges::find(kNuclios, name);
  return found == kNuclios.end() ? std::string_view() : *found;
}

}  // namespace metier::realtime
