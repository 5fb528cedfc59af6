// `metier server`: everything made, wired, started and stopped in order.
#pragma once

#include "cli/server_options.h"

namespace metier {

// Runs until SIGTERM or SIGINT (pods live on), or, as a private server, until nobody uses it for a minute.
// Exit codes: 0; 2 for a port, socket or data folder in use and for bad options; 70 for our own faults.
int serve(const cli::ServerOptions& options);

}  // namespace metier
