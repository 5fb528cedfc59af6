// When what was written to a log: `<log>@times`, in the form of base/log_times.h. The size is looked at now and then, less
// often while nothing comes and in a long log, never in the first moments of a pod. Each time that the log has grown, an
// entry says how long it is and when it was last written to. Names are relative to the pod's folder.
#pragma once

#include <cstdint>

namespace shim {

class LogTimes {
 public:
  void begin(const char* log, std::int64_t now_ms);
  void look(std::int64_t now_ms);            // makes an entry when it is time and there is news
  std::int64_t due() const { return due_; }  // steady ms of the next look; 0: none

 private:
  char log_[84] = {};
  std::int64_t began_ = 0, due_ = 0;
  std::int64_t pause_ms_ = 0;
  std::int64_t size_ = 0;
  std::int64_t entries_ = 0;
};

}  // namespace shim
