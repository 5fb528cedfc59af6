#include "realtime/native_call.h"

#include <dlfcn.h>
#include <fmt/format.h>
#include <sys/random.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdlib>

#include "base/files.h"
#include "base/text.h"
#include "realtime/event_copy.h"
#include "realtime/ring.h"

namespace metier::realtime {
namespace {

std::string_view view(metier_text_v1 text) {
  return text.data == nullptr ? std::string_view() : std::string_view(text.data, text.size);
}
metier_text_v1 text(std::string_view view) { return {view.data(), view.size()}; }

// Ids that look like random UUIDs: a random half, a count.
std::string_view new_uid(std::array<char, 37>& out) {
  static const std::uint64_t kHead = [] {
    std::uint64_t value = 0;
    if (::getrandom(&value, sizeof value, 0) < 0) {
      value = static_cast<std::uint64_t>(::getpid()) << 32U;
    }
    return value;
  }();
  static std::atomic<std::uint64_t> count{0};
  const std::uint64_t tail = count.fetch_add(1, std::memory_order_relaxed);
  static constexpr char kDigits[] = "0123456789abcdef";
  char* at = out.data();
  const auto hex = [&](std::uint64_t value, int digits) {
    for (int i = digits - 1; i >= 0; --i) {
      *at++ = kDigits[(value >> (4U * static_cast<unsigned>(i))) & 15U];
    }
  };
  hex(kHead >> 32U, 8);
  *at++ = '-';
  hex(kHead >> 16U, 4);
  *at++ = '-';
  *at++ = '4';
  hex(kHead, 3);
  *at++ = '-';
  *at++ = 'a';
  hex(kHead >> 20U, 3);
  *at++ = '-';
  hex(tail, 12);
  return {out.data(), 36};
}

}  // namespace

Result<NativeLibrary> NativeLibrary::load(const std::string& handler, const std::string& path) {
  const std::size_t colon = handler.rfind(':');
  std::string file = handler.substr(0, colon);
  const std::string name = colon == std::string::npos ? "" : handler.substr(colon + 1);
  if (!file.starts_with('/') && !path.empty()) {
    file = path.ends_with(".so") ? path : path + "/" + file;
  }
  if (!file.starts_with('/')) { file = "./" + file; }
  if (::access(file.c_str(), R_OK) != 0) { return fail(errno_error(file, errno)); }
  void* library = ::dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    return fail(invalid("handler", fmt::format("{} cannot be loaded: {}", file, ::dlerror()),
                        "build it with: metier build"));
  }
  const auto table_of =
      reinterpret_cast<const metier_library_v1* (*)()>(::dlsym(library, "metier_library_v1_table"));
  if (table_of == nullptr) {
    return fail(invalid("handler", file + " is no library of handlers",
                        "include <metier/handler.h> and define METIER_EVENT_HANDLER"));
  }
  const metier_library_v1* table = table_of();
  if (table == nullptr || table->abi != METIER_HANDLER_ABI) {
    return fail(invalid("handler",
                        fmt::format("{} was built for version {} of handlers", file,
                                    table == nullptr ? 0 : table->abi),
                        "build it with this metier's handler.h"));
  }
  NativeLibrary found;
  std::vector<std::string> known;
  int count = 0;
  for (const metier_handler_v1* entry = table->handlers; entry != nullptr && ++count < 10'000;
       entry = entry->next) {
    if (entry->event == nullptr) { continue; }
    known.emplace_back(view(entry->name));
    if (found.handler_ == nullptr && (name.empty() || name == known.back())) {
      found.handler_ = entry;
    }
  }
  if (found.handler_ == nullptr || (name.empty() && known.size() > 1)) {
    return fail(
        invalid("handler",
                name.empty() ? "names no function"
                             : "there is no event handler " + quote(name) + " in " + file,
                known.empty() ? "define one with METIER_EVENT_HANDLER" : "it has " + join(known)));
  }
  return found;
}

std::string_view NativeCall::keep(std::string value) {
  return kept_.emplace_back(std::move(value));
}

void NativeCall::failed() {
  body_ = fmt::format("Exception caught in handler - \"{}\"", error_);
  head_ = {.status = 500, .content_type = "text/plain", .outcome = Outcome::raised};
  views_.clear();
  std::fprintf(stdout, "error   %s\n", error_.c_str());
  std::fflush(stdout);
}

void NativeCall::fill_context(metier_context_v1& table) {
  table.size = sizeof table;
  table.self = this;
  table.last_error = [](void* s, metier_text_v1* out) { *out = text(self(s).last_error_); };
  table.get_param = [](void*, metier_text_v1, metier_value_v1* out) -> int32_t {
    *out = {};
    return 0;
  };
  table.get_input = [](void* s, metier_text_v1, metier_text_v1*) -> int32_t {
    self(s).last_error_ = "an event has no inputs: those belong to runs";
    return 1;
  };
  table.get_secret = [](void* s, metier_text_v1 key, metier_text_v1* out) -> int32_t {
    const char* value = std::getenv(std::string(view(key)).c_str());
    if (value == nullptr) { return 1; }
    *out = text(self(s).keep(value));
    return 0;
  };
  table.log_result = [](void* s, metier_text_v1, const metier_value_v1*) -> int32_t {
    self(s).last_error_ = "an event has no results to log: those belong to runs";
    return 1;
  };
  table.log_artifact = [](void* s, metier_text_v1, metier_text_v1, metier_text_v1) -> int32_t {
    self(s).last_error_ = "an event has no artifacts: those belong to runs";
    return 1;
  };
  table.log_artifact_file = [](void* s, metier_text_v1, metier_text_v1) -> int32_t {
    self(s).last_error_ = "an event has no artifacts: those belong to runs";
    return 1;
  };
  table.set_label = [](void* s, metier_text_v1, metier_text_v1) -> int32_t {
    self(s).last_error_ = "an event has no labels: those belong to runs";
    return 1;
  };
  table.log = [](void*, int32_t level, metier_text_v1 message) -> int32_t {
    const char* word = level >= metier_log_error     ? "error"
                       : level >= metier_log_warning ? "warn"
                       : level >= metier_log_info    ? "info"
                                                     : "debug";
    const std::string line = fmt::format("{:5} {}\n", word, view(message));
    [[maybe_unused]] const auto written = ::write(STDOUT_FILENO, line.data(), line.size());
    return 0;
  };
  table.describe = [](void* s, metier_text_v1 name, metier_value_v1* out) -> int32_t {
    *out = {};
    const NativeNames& names = self(s).names_;
    const std::string_view wanted = view(name);
    if (wanted == "project" || wanted == "name") {
      out->type = metier_value_text;
      out->text = text(wanted == "project" ? names.project : names.name);
    }
    return 0;
  };
  table.fail = [](void* s, metier_text_v1 type, metier_text_v1 message) {
    self(s).error_ = view(type).empty() ? std::string(view(message))
                                        : fmt::format("{}: {}", view(type), view(message));
  };
}

void NativeCall::run(const metier_handler_v1& handler, const Event& event) {
  event_ = &event;
  head_ = {};
  body_.clear();
  if (body_.capacity() > (1U << 20U)) { body_.shrink_to_fit(); }
  headers_.clear();
  views_.clear();
  kept_.clear();
  error_.clear();
  headed_ = false;
  metier_context_v1 context{};
  fill_context(context);
  std::array<char, 37> uid{};
  metier_event_v1 table{};
  table.size = sizeof table;
  table.self = this;
  table.id = text(event.uid.empty() ? new_uid(uid) : event.uid);
  table.trigger_kind = text(event.trigger_kind);
  table.trigger_name = text(event.trigger_name);
  table.method = text(event.method);
  table.path = text(event.path);
  table.content_type = text(event.content_type);
  table.body = text(event.body);
  table.timestamp_us = event.timestamp_us;
  table.shard = event.shard;
  table.offset = event.topic.empty() ? -1 : event.offset;
  table.header = [](void* s, metier_text_v1 name, metier_text_v1* value) -> int32_t {
    const HeaderView* header = find_header(*self(s).event_, view(name));
    if (header == nullptr) { return 1; }
    *value = text(header->value);
    return 0;
  };
  table.field = [](void* s, metier_text_v1 name, metier_text_v1* value) -> int32_t {
    auto field = query_field(self(s).event_->query, view(name));
    if (!field) { return 1; }
    *value = text(self(s).keep(std::move(*field)));
    return 0;
  };
  metier_response_v1 response{};
  response.size = sizeof response;
  response.self = this;
  response.head = [](void* s, int32_t status, metier_text_v1 type) -> int32_t {
    NativeCall& call = self(s);
    call.headed_ = true;
    call.content_type_.assign(view(type));
    call.head_.status = status;
    return 0;
  };
  response.header = [](void* s, metier_text_v1 name, metier_text_v1 value) -> int32_t {
    self(s).headers_.emplace_back(view(name), view(value));
    return 0;
  };
  response.chunk = [](void* s, metier_text_v1 bytes) -> int32_t {
    self(s).body_.append(view(bytes));
    return 0;
  };
  const auto start = std::chrono::steady_clock::now();
  const int32_t code = handler.event(&context, &table, &response);
  if (code != 0) {
    if (error_.empty()) { error_ = "the handler failed without a word"; }
    failed();
  } else if (head_.status < 200 || head_.status > 599 ||
             (!content_type_.empty() && !valid_header("Content-Type", content_type_))) {
    error_ = headed_
                 ? fmt::format("status {} or its content type is none that HTTP has", head_.status)
                 : "the handler sent no head";
    failed();
  } else {
    for (const auto& [name, value] : headers_) {
      if (valid_header(name, value)) { views_.push_back({name, value}); }
    }
    head_.content_type = content_type_;
    head_.headers = views_;
  }
  head_.handler_ns =
      std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now() - start)
          .count();
}

}  // namespace metier::realtime
