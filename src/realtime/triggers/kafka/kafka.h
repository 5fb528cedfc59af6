#pragma once

#include "realtime/trigger.h"

namespace metier::realtime {

const TriggerKind& kafka_trigger_kind();

}  // namespace metier::realtime
