// The public headers for code in C++, carried by the program for `metier build`.
#pragma once

#include <array>
#include <string_view>

namespace metier::cli {

struct PublicHeader {
  std::string_view name;  // "handler.h"
  std::string_view text;
};
// All of include/metier.
std::array<PublicHeader, 4> embedded_headers();

}  // namespace metier::cli
