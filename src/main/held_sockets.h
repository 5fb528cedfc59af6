// A listening socket that only running programs of ours still have: after gate and server have died together.
#pragma once

#include <optional>
#include <string>

#include "base/files.h"

namespace metier {

// A duplicate of the socket that listens on host:port, out of a process that runs `program`. nullopt: nobody of ours
// has it, or this system does not allow it (pidfd_getfd; a ptrace scope that forbids it).
std::optional<Fd> rescue_socket(const std::string& host, const std::string& port,
                                const std::string& program);

// The same out of a processor's control socket (docs/formats/processor-config.md), by the trigger's name.
std::optional<Fd> rescue_from_control(const std::string& control, const std::string& trigger);

}  // namespace metier
