// An event that owns its bytes: for handlers that outlive the trigger's memory.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "realtime/event.h"

namespace metier::realtime {

class EventCopy final {
 public:
  explicit EventCopy(const Event& event);
  EventCopy(const EventCopy&) = delete;
  EventCopy& operator=(const EventCopy&) = delete;
  const Event& event() const { return event_; }

 private:
  std::unique_ptr<char[]> bytes_;
  std::vector<HeaderView> headers_;
  Event event_;
};

// The last value of a query's argument, percent and plus decoded.
std::optional<std::string> query_field(std::string_view query, std::string_view name);
const HeaderView* find_header(const Event& event, std::string_view name);  // letters' case ignored

}  // namespace metier::realtime
