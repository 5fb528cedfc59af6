// What an event is called: its own, or what the caller's headers say (MLRUN-EVENT-ID, MLRUN-EVENT-PATH).
#pragma once

#include <string_view>

#include "realtime/event.h"

namespace metier::serving {

std::string_view id_of(const realtime::Event& event);
// "/" for streams.
std::string_view path_of(const realtime::Event& event, bool stream);

}  // namespace metier::serving
