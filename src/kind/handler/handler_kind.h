// handler: a callable in the caller's own process. No resource is made; the client moves the run's state.
#pragma once

#include "kind/kind.h"

namespace metier {
std::unique_ptr<Kind> make_handler_kind();
}
