#pragma once

#include "realtime/trigger.h"

namespace metier::realtime {

const TriggerKind& cron_trigger_kind();

}  // namespace metier::realtime
