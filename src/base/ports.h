// TCP ports of this machine: whether one can be had, and who holds it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace metier {

// "process 4711 (nginx)" when somebody listens on this port of this IPv4 address, or of all addresses ("another process" where
// /proc does not tell); empty when the port can be had.
std::string port_holder(const std::string& address, std::uint16_t port);

// The same of whoever listens on this port at any address.
std::string any_port_holder(std::uint16_t port);

// "process 4711 (nginx)", or "another process" for 0.
std::string process_text(std::int64_t pid);

}  // namespace metier
