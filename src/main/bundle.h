// The files that the binary carries: the shim, the in-pod runner, `mlrun` for pods. Unpacked once per content to
// <data>/lib/<hash>/; <data>/lib/current is a link to the newest.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"

namespace metier {

std::string_view bundle();
// For programs that run without a data folder: $XDG_CACHE_HOME/metier or $HOME/.cache/metier. Errors: invalid without both.
Result<std::string> cache_folder();
// Gives the folder. Safe while other servers' pods use older ones: nothing is overwritten.
Result<std::string> unpack_bundle(const std::string& data, std::string_view bundle);

}  // namespace metier
