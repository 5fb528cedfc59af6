// The HTTP trigger: HTTP/1.1 keep-alive server on the event loop, parsed in place by llhttp.
#pragma once

#include "realtime/trigger.h"

namespace metier::realtime {

const TriggerKind& http_trigger_kind();

}  // namespace metier::realtime
