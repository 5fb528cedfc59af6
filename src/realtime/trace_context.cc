#include "realtime/trace_context.h"

#include <fmt/format.h>

namespace metier::realtime {
namespace {

bool is_id(std::string_view text) {
  return text.find_first_not_of("0123456789abcdef") == std::string_view::npos &&
         text.find_first_not_of('0') != std::string_view::npos;
}

}  // namespace

std::optional<TraceContext> parse_traceparent(std::string_view text) {
  constexpr std::string_view kHex = "0123456789abcdef";
  if (text.size() < 55 || text[2] != '-' || text[35] != '-' || text[52] != '-') {
    return std::nullopt;
  }
  const std::string_view version = text.substr(0, 2);
  const std::string_view flags = text.substr(53, 2);
  if (version.find_first_not_of(kHex) != std::string_view::npos || version == "ff" ||
      flags.find_first_not_of(kHex) != std::string_view::npos ||
      (version == "00" ? text.size() != 55 : text.size() > 55 && text[55] != '-')) {
    return std::nullopt;  // a later version may have more behind another dash
  }
  TraceContext out{.trace = std::string(text.substr(3, 32)),
                   .parent = std::string(text.substr(36, 16)),
                   .sampled = (kHex.find(flags[1]) & 1U) != 0};
  if (!is_id(out.trace) || !is_id(out.parent)) { return std::nullopt; }
  return out;
}

std::string format_traceparent(std::string_view trace, std::string_view span, bool sampled) {
  return fmt::format("00-{}-{}-{}", trace, span, sampled ? "01" : "00");
}

}  // namespace metier::realtime
