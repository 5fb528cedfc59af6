// Addresses to listen on.
#pragma once

#include <string_view>

namespace metier {

// Every network of this machine reaches who listens on that host.
inline bool is_all_interfaces(std::string_view host) {
  return host == "0.0.0.0" || host == "::" || host == "[::]";
}

}  // namespace metier
