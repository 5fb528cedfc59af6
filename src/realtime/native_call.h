// One call of a native event handler over the C table of include/metier/handler.h.
#pragma once

#include <deque>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#define METIER_HANDLER_TABLE_ONLY
#include "base/result.h"
#include "metier/handler.h"
#include "realtime/event_target.h"

namespace metier::realtime {

// A loaded library. Never unloaded: its code may have threads.
class NativeLibrary final {
 public:
  // `handler`: "file.so:name". Errors: not_found, invalid (no table, another version, no such handler: those there are are named).
  static Result<NativeLibrary> load(const std::string& handler, const std::string& path);
  const metier_handler_v1& handler() const { return *handler_; }
  bool blocking() const { return (handler_->flags & METIER_FLAG_BLOCKING) != 0; }

 private:
  const metier_handler_v1* handler_ = nullptr;
};

struct NativeNames {
  std::string project, name;
};

// Kept between calls so that a call allocates nothing in the common case.
class NativeCall final {
 public:
  explicit NativeCall(const NativeNames& names) : names_(names) {}
  // Runs the handler; the answer is in `head()` and `body()` until the next call.
  void run(const metier_handler_v1& handler, const Event& event);
  const ResponseHead& head() const { return head_; }
  std::string_view body() const { return body_; }

 private:
  static NativeCall& self(void* pointer) { return *static_cast<NativeCall*>(pointer); }
  std::string_view keep(std::string text);
  void failed();
  void fill_context(metier_context_v1& table);

  const NativeNames& names_;
  const Event* event_ = nullptr;
  ResponseHead head_;
  std::string body_, content_type_, error_, last_error_;
  std::vector<std::pair<std::string, std::string>> headers_;
  std::vector<HeaderView> views_;
  std::deque<std::string> kept_;
  bool headed_ = false;
};

}  // namespace metier::realtime
