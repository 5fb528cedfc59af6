// include/metier/handler.h of this version, for `metier build`.
#pragma once

#include <string_view>

namespace metier::cli {
std::string_view embedded_handler_header();
}
