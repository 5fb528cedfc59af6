// The control socket of a processor (docs/formats/processor-config.md): its state for scaling, duplicates of its sockets for the gate.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "base/json.h"
#include "base/result.h"
#include "realtime/loop.h"

namespace metier::realtime {

struct ControlCalls {
  std::function<JsonObject()> state;
  std::function<void()> drain;
  std::function<int(std::string_view trigger)> socket;  // -1: there is none
};

class Control {
 public:
  virtual ~Control() = default;
  virtual void changed() = 0;  // tells the state at once
};
Result<std::unique_ptr<Control>> open_control(Loop& loop, const std::string& path,
                                              ControlCalls calls);

}  // namespace metier::realtime
