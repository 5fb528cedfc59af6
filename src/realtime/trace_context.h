// W3C trace context (traceparent, version 00): read from outside, written for what follows.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace metier::realtime {

struct TraceContext {
  std::string trace;   // 32 hex digits
  std::string parent;  // 16 hex digits: the caller's span
  bool sampled = false;
};

// nullopt for what the specification says is to be ignored: another length, upper case, all zero, version ff.
std::optional<TraceContext> parse_traceparent(std::string_view text);
std::string format_traceparent(std::string_view trace, std::string_view span, bool sampled);

}  // namespace metier::realtime
