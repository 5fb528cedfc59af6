// Programs of this machine: where they are.
#pragma once

#include <string>
#include <string_view>

namespace metier {

// The first executable of that name in folders written as PATH has them; empty when there is none. A name with a '/' is
// taken as it is.
std::string find_program(std::string_view path, std::string_view name);

// A Python interpreter of that name ("python3.13"); a version manager's shim is passed over for the version it stands for.
std::string find_interpreter(std::string_view path, std::string_view name);

// uv, which builds Python environments: `given`, else on `path`, beside this program, or in the tools of its source tree.
std::string find_uv(std::string_view given, std::string_view path);

}  // namespace metier
