#include "serving/host/event_names.h"

#include <algorithm>

namespace metier::serving {
namespace {

std::string_view header(const realtime::Event& event, std::string_view lower) {
  for (const realtime::HeaderView& given : event.headers) {
    const bool same = std::ranges::equal(given.name, lower, [](char x, char y) {
      return (x >= 'A' && x <= 'Z' ? static_cast<char>(x + 32) : x) == y;
    });
    if (same) { return given.value; }
  }
  return {};
}

}  // namespace

std::string_view id_of(const realtime::Event& event) {
  const std::string_view given = header(event, "mlrun-event-id");
  return given.empty() ? event.uid : given;
}

std::string_view path_of(const realtime::Event& event, bool stream) {
  const std::string_view given = header(event, "mlrun-event-path");
  return !given.empty() ? given : stream ? std::string_view("/") : event.path;
}

}  // namespace metier::serving
