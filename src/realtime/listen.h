// Listening sockets of a processor: inherited, handed over by the gate, or its own.
#pragma once

#include <cstdint>

#include "base/files.h"
#include "base/result.h"
#include "realtime/processor_config.h"

namespace metier::realtime {

// Errors: conflict when the address is taken, invalid for a bad one, unavailable when the gate does not answer.
Result<Fd> listening_socket(const ListenConfig& listen);
// Of a TCP socket; 0 for a unix one.
std::uint16_t port_of(int socket);

}  // namespace metier::realtime
