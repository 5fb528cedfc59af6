// Native handlers: a shared library whose functions run as handler, local and job, and later in real time.
//
//   #include <metier/handler.h>
//   METIER_HANDLER(train, [](metier::Context& context) {
//     context.log_result("accuracy", 0.97);
//     return metier::ok();
//   });
//   METIER_EVENT_HANDLER(echo, [](metier::Context&, const metier::Event& event) { return metier::Response{event.body()}; });
//
//   g++ -std=c++17 -O2 -fPIC -shared -fvisibility=hidden train.cc -o train.so        (or: metier build train.cc)
//
// Header-only C++17 over the C table below. Only the table crosses the border: plain structs, text as pointer and length,
// integers. Exceptions are caught inside the library, memory is freed where it was made. A library built by any C++17
// compiler loads in every later metier; one that a metier cannot load is refused with a sentence.
//
// The one exported symbol is `metier_library_v1_table`, a function that returns the table.
#pragma once

#include <stddef.h>
#include <stdint.h>

#if defined(__cplusplus)
extern "C" {
#endif

enum { METIER_HANDLER_ABI = 1 };

// Borrowed text or bytes, not terminated. What the host hands out lives until the handler returns; what a library hands in,
// until the call returns.
struct metier_text_v1 {
  const char* data;
  size_t size;
};

enum metier_value_type_v1 {
  metier_value_none = 0,
  metier_value_boolean = 1,  // integer, 0 or 1
  metier_value_integer = 2,
  metier_value_real = 3,
  metier_value_text = 4,
  metier_value_json = 5,  // text: a list, an object, or a number that fits nothing else
};

struct metier_value_v1 {
  int32_t type;
  int32_t reserved;
  int64_t integer;
  double real;
  struct metier_text_v1 text;
};

enum metier_log_level_v1 {
  metier_log_debug = 10,
  metier_log_info = 20,
  metier_log_warning = 30,
  metier_log_error = 40
};

// What the host offers. `size` is the size of the struct that the host knows: a member at or past it is not there.
// Calls come from the handler's own thread. Each answers 0, or 1 when it failed; `last_error` then has the sentence.
struct metier_context_v1 {
  size_t size;
  void* self;
  void (*last_error)(void* self, struct metier_text_v1* out);
  // A parameter of the run; type none when it is not given.
  int32_t (*get_param)(void* self, struct metier_text_v1 key, struct metier_value_v1* out);
  // A local path of an input of the run; a copy is fetched when it lies elsewhere.
  int32_t (*get_input)(void* self, struct metier_text_v1 key, struct metier_text_v1* path);
  // A secret; 1 without an error's text when there is none of that name.
  int32_t (*get_secret)(void* self, struct metier_text_v1 key, struct metier_text_v1* value);
  int32_t (*log_result)(void* self, struct metier_text_v1 key, const struct metier_value_v1* value);
  // Bytes as an artifact; `format` is its suffix without a dot, may be empty.
  int32_t (*log_artifact)(void* self, struct metier_text_v1 key, struct metier_text_v1 body,
                          struct metier_text_v1 format);
  int32_t (*log_artifact_file)(void* self, struct metier_text_v1 key, struct metier_text_v1 path);
  int32_t (*set_label)(void* self, struct metier_text_v1 key, struct metier_text_v1 value);
  int32_t (*log)(void* self, int32_t level, struct metier_text_v1 message);
  // project, name, uid, artifact_path, iteration, rank, size, local_rank, is_logging_worker; type none for another name.
  int32_t (*describe)(void* self, struct metier_text_v1 name, struct metier_value_v1* out);
  // Says why the handler is about to return 1. `type` is the exception's, may be empty.
  void (*fail)(void* self, struct metier_text_v1 type, struct metier_text_v1 message);
};

// One event of a real-time function. Members past `size` are not there.
struct metier_event_v1 {
  size_t size;
  void* self;
  struct metier_text_v1 id, trigger_kind, trigger_name, method, path, content_type, body;
  int64_t timestamp_us;  // Unix time
  int32_t shard;         // partition, -1 without
  int64_t offset;        // -1 without
  // Header or field by name, letters' case ignored; 1 when it is not there.
  int32_t (*header)(void* self, struct metier_text_v1 name, struct metier_text_v1* value);
  int32_t (*field)(void* self, struct metier_text_v1 name, struct metier_text_v1* value);
};

// Takes the answer to one event: head once, then chunks. A call answers 1 when the client has gone.
struct metier_response_v1 {
  size_t size;
  void* self;
  int32_t (*head)(void* self, int32_t status, struct metier_text_v1 content_type);
  int32_t (*header)(void* self, struct metier_text_v1 name,
                    struct metier_text_v1 value);  // before head
  int32_t (*chunk)(void* self, struct metier_text_v1 bytes);
};

enum { METIER_FLAG_BLOCKING = 1 };  // an event handler that may block: not on the event thread

struct metier_handler_v1 {
  struct metier_text_v1 name;
  uint32_t flags;
  uint32_t line;  // where it is defined
  struct metier_text_v1 file;
  // Exactly one is set. 0 for success, 1 after `fail`.
  int32_t (*run)(const struct metier_context_v1* context);
  int32_t (*event)(const struct metier_context_v1* context, const struct metier_event_v1* event,
                   const struct metier_response_v1* response);
  const struct metier_handler_v1* next;
};

struct metier_library_v1 {
  size_t size;
  uint32_t abi;  // METIER_HANDLER_ABI
  uint32_t reserved;
  struct metier_text_v1 compiler;
  const struct metier_handler_v1* handlers;  // a list, last defined first
};

#if defined(__cplusplus)
}  // extern "C"
#endif

// METIER_HANDLER_TABLE_ONLY: the C table alone, for hosts that load libraries.
#if defined(__cplusplus) && !defined(METIER_HANDLER_TABLE_ONLY)
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <new>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#if !defined(__GNUC__)
#error "metier/handler.h needs g++ or clang"
#endif

#define METIER_LOCAL __attribute__((visibility("hidden")))

namespace metier {

// What a handler returns. A handler may also return nothing, which is ok().
class METIER_LOCAL Result {
 public:
  Result() = default;
  explicit Result(std::string message) : failed_(true), message_(std::move(message)) {}
  bool is_ok() const { return !failed_; }
  const std::string& message() const { return message_; }

 private:
  bool failed_ = false;
  std::string message_;
};

inline METIER_LOCAL Result ok() { return Result(); }
inline METIER_LOCAL Result error(std::string message) { return Result(std::move(message)); }

// Thrown by Context when the host refused a call (bad key, disk full, no such input). Uncaught, it fails the run with its text.
class METIER_LOCAL Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

namespace detail {

inline metier_text_v1 text(std::string_view view) { return {view.data(), view.size()}; }
inline std::string_view view(metier_text_v1 text) {
  return text.data == nullptr ? std::string_view() : std::string_view(text.data, text.size);
}

inline METIER_LOCAL const metier_handler_v1*& handlers() {
  static const metier_handler_v1* head = nullptr;
  return head;
}

#if defined(__clang__)
inline constexpr const char kCompiler[] = "clang " __clang_version__;
#else
inline constexpr const char kCompiler[] = "g++ " __VERSION__;
#endif

}  // namespace detail

// The run as its handler sees it. Not to be kept after the handler returned; used from the handler's own thread.
class METIER_LOCAL Context {
 public:
  explicit Context(const metier_context_v1& table) : table_(table) {}

  // The parameter, or `fallback` when it is not given. T: bool, an integer, a floating type, std::string. Text is converted
  // ("0.5" given for a double); what does not convert throws Error naming the parameter. Lists and objects are JSON text.
  template <class T>
  T get_param(std::string_view key, T fallback) {
    auto value = param(key);
    return value ? converted<T>(key, *value) : fallback;
  }
  std::string get_param(std::string_view key, const char* fallback) {
    return get_param<std::string>(key, std::string(fallback));
  }
  // The same for a parameter that must be there.
  template <class T>
  T get_param(std::string_view key) {
    auto value = param(key);
    if (!value) {
      throw Error("parameter '" + std::string(key) + "' has no value: give it with -p " +
                  std::string(key) + "=...");
    }
    return converted<T>(key, *value);
  }
  bool has_param(std::string_view key) { return param(key).has_value(); }

  // A local path of the input.
  std::string get_input(std::string_view key) {
    metier_text_v1 path{};
    check(table_.get_input(table_.self, detail::text(key), &path));
    return std::string(detail::view(path));
  }
  std::optional<std::string> get_secret(std::string_view key) {
    metier_text_v1 value{};
    if (table_.get_secret(table_.self, detail::text(key), &value) != 0) { return std::nullopt; }
    return std::string(detail::view(value));
  }

  template <class T>
  void log_result(std::string_view key, const T& given) {
    metier_value_v1 value{};
    std::string kept;
    if constexpr (std::is_same_v<T, bool>) {
      value.type = metier_value_boolean;
      value.integer = given ? 1 : 0;
    } else if constexpr (std::is_integral_v<T>) {
      value.type = metier_value_integer;
      if (std::is_unsigned_v<T> && sizeof(T) == 8 && static_cast<uint64_t>(given) > INT64_MAX) {
        kept = std::to_string(given);
        value.type = metier_value_json;
        value.text = detail::text(kept);
      } else {
        value.integer = static_cast<int64_t>(given);
      }
    } else if constexpr (std::is_floating_point_v<T>) {
      value.type = metier_value_real;
      value.real = static_cast<double>(given);
    } else {
      value.type = metier_value_text;
      value.text = detail::text(std::string_view(given));
    }
    check(table_.log_result(table_.self, detail::text(key), &value));
  }
  // A list or object, as JSON text.
  void log_result_json(std::string_view key, std::string_view json) {
    metier_value_v1 value{};
    value.type = metier_value_json;
    value.text = detail::text(json);
    check(table_.log_result(table_.self, detail::text(key), &value));
  }
  void log_artifact(std::string_view key, std::string_view body, std::string_view format = {}) {
    check(table_.log_artifact(table_.self, detail::text(key), detail::text(body),
                              detail::text(format)));
  }
  void log_artifact_file(std::string_view key, std::string_view path) {
    check(table_.log_artifact_file(table_.self, detail::text(key), detail::text(path)));
  }
  void set_label(std::string_view key, std::string_view value) {
    check(table_.set_label(table_.self, detail::text(key), detail::text(value)));
  }

  void debug(std::string_view message) { log(metier_log_debug, message); }
  void info(std::string_view message) { log(metier_log_info, message); }
  void warning(std::string_view message) { log(metier_log_warning, message); }
  void error(std::string_view message) { log(metier_log_error, message); }

  std::string project() { return described("project"); }
  std::string name() { return described("name"); }
  std::string uid() { return described("uid"); }
  std::string artifact_path() { return described("artifact_path"); }

  // This process's number in an MPI job, 0 to size() - 1, and how many there are; 0 and 1 elsewhere.
  int rank() { return number("rank", 0); }
  int size() { return number("size", 1); }
  // Its number among those of its pod; 0 elsewhere.
  int local_rank() { return number("local_rank", 0); }
  // False on ranks other than 0: they compute, what they log is not kept.
  bool is_logging_worker() { return number("is_logging_worker", 1) != 0; }

  const metier_context_v1& table() const { return table_; }

 private:
  std::optional<metier_value_v1> param(std::string_view key) {
    metier_value_v1 value{};
    check(table_.get_param(table_.self, detail::text(key), &value));
    if (value.type == metier_value_none) { return std::nullopt; }
    return value;
  }
  template <class T>
  T converted(std::string_view key, const metier_value_v1& value) {
    const std::string_view text = detail::view(value.text);
    if constexpr (std::is_same_v<T, std::string>) {
      switch (value.type) {
        case metier_value_boolean: return value.integer != 0 ? "true" : "false";
        case metier_value_integer: return std::to_string(value.integer);
        case metier_value_real: return number_text(value.real);
        default: return std::string(text);
      }
    } else if constexpr (std::is_same_v<T, bool>) {
      if (value.type == metier_value_boolean || value.type == metier_value_integer) {
        return value.integer != 0;
      }
      if (text == "true" || text == "True" || text == "yes" || text == "1") { return true; }
      if (text == "false" || text == "False" || text == "no" || text == "0") { return false; }
    } else if constexpr (std::is_integral_v<T>) {
      if (value.type == metier_value_integer && fits<T>(value.integer)) {
        return static_cast<T>(value.integer);
      }
      if (value.type == metier_value_real &&
          value.real == static_cast<double>(static_cast<int64_t>(value.real)) &&
          fits<T>(static_cast<int64_t>(value.real))) {
        return static_cast<T>(value.real);
      }
      if (value.type == metier_value_text) {
        try {
          size_t used = 0;
          const long long number = std::stoll(std::string(text), &used);
          if (used == text.size() && fits<T>(number)) { return static_cast<T>(number); }
        } catch (const std::exception&) {  // told below
        }
      }
    } else if constexpr (std::is_floating_point_v<T>) {
      if (value.type == metier_value_real) { return static_cast<T>(value.real); }
      if (value.type == metier_value_integer) { return static_cast<T>(value.integer); }
      if (value.type == metier_value_text) {
        try {
          size_t used = 0;
          const double number = std::stod(std::string(text), &used);
          if (used == text.size()) { return static_cast<T>(number); }
        } catch (const std::exception&) {  // told below
        }
      }
    } else {
      static_assert(std::is_same_v<T, void>,
                    "parameters are bool, integers, floating types or std::string");
    }
    throw Error("parameter " + std::string(key) + " is '" + converted<std::string>(key, value) +
                "', which is no " +
                (std::is_same_v<T, bool> ? "truth value"
                 : std::is_integral_v<T> ? "whole number of the handler's type"
                                         : "number"));
  }
  static std::string number_text(double number) {
    char buffer[32];
    for (const int digits : {15, 17}) {  // the shorter one where it reads back the same
      std::snprintf(buffer, sizeof buffer, "%.*g", digits, number);
      if (std::strtod(buffer, nullptr) == number) { break; }
    }
    return buffer;
  }
  template <class T>
  static bool fits(long long number) {
    if (std::is_unsigned_v<T> && number < 0) { return false; }
    return static_cast<long long>(static_cast<T>(number)) == number;
  }
  void log(int32_t level, std::string_view message) {
    table_.log(table_.self, level, detail::text(message));
  }
  std::string described(std::string_view name) {
    metier_value_v1 value{};
    check(table_.describe(table_.self, detail::text(name), &value));
    return std::string(detail::view(value.text));
  }
  // A host that does not know the name says none.
  int number(std::string_view name, int otherwise) {
    metier_value_v1 value{};
    check(table_.describe(table_.self, detail::text(name), &value));
    return value.type == metier_value_none ? otherwise : static_cast<int>(value.integer);
  }
  void check(int32_t answer) {
    if (answer == 0) { return; }
    metier_text_v1 sentence{};
    table_.last_error(table_.self, &sentence);
    throw Error(std::string(detail::view(sentence)));
  }

  const metier_context_v1& table_;
};

// One event; views live until the handler returns.
class METIER_LOCAL Event {
 public:
  explicit Event(const metier_event_v1& table) : table_(table) {}
  std::string_view body() const { return detail::view(table_.body); }
  std::string_view id() const { return detail::view(table_.id); }
  std::string_view method() const { return detail::view(table_.method); }
  std::string_view path() const { return detail::view(table_.path); }
  std::string_view content_type() const { return detail::view(table_.content_type); }
  std::string_view trigger_kind() const { return detail::view(table_.trigger_kind); }
  std::string_view trigger_name() const { return detail::view(table_.trigger_name); }
  int64_t timestamp_us() const { return table_.timestamp_us; }
  std::optional<std::string_view> header(std::string_view name) const {
    return named(table_.header, name);
  }
  std::optional<std::string_view> field(std::string_view name) const {
    return named(table_.field, name);
  }

 private:
  using Lookup = int32_t (*)(void*, metier_text_v1, metier_text_v1*);
  std::optional<std::string_view> named(Lookup lookup, std::string_view name) const {
    metier_text_v1 value{};
    if (lookup == nullptr || lookup(table_.self, detail::text(name), &value) != 0) {
      return std::nullopt;
    }
    return detail::view(value);
  }
  const metier_event_v1& table_;
};

// The answer to an event: a body, and what an HTTP trigger needs.
struct METIER_LOCAL Response {
  Response() = default;
  Response(std::string_view bytes, int code = 200, std::string type = "text/plain")
      : body(bytes), status(code), content_type(std::move(type)) {}
  std::string body;
  int status = 200;
  std::string content_type = "text/plain";
  std::vector<std::pair<std::string, std::string>> headers;
};

namespace detail {

inline int32_t failed(const metier_context_v1* context, std::string_view type,
                      std::string_view message) {
  context->fail(context->self, text(type), text(message));
  return 1;
}

// Calls `body`; nothing that it throws leaves the library.
template <class Body>
int32_t guarded(const metier_context_v1* context, Body&& body) noexcept {
  try {
    return body();
  } catch (const Error& error) {
    return failed(context, "metier::Error", error.what());
  } catch (const std::bad_alloc&) {
    return failed(context, "std::bad_alloc", "the memory was not enough");
  } catch (const std::exception& error) {
    return failed(context, "std::exception", error.what());
  } catch (...) {
    return failed(context, "unknown exception",
                  "the handler threw something that is no std::exception");
  }
}

template <class Function>
int32_t run(const Function& function, const metier_context_v1* table) noexcept {
  return guarded(table, [&]() -> int32_t {
    Context context(*table);
    if constexpr (std::is_void_v<decltype(function(context))>) {
      function(context);
      return 0;
    } else {
      const Result result = function(context);
      return result.is_ok() ? 0 : failed(table, "", result.message());
    }
  });
}

template <class Function>
int32_t answer(const Function& function, const metier_context_v1* table,
               const metier_event_v1* event, const metier_response_v1* sink) noexcept {
  return guarded(table, [&]() -> int32_t {
    Context context(*table);
    const Response response = function(context, Event(*event));
    for (const auto& [name, value] : response.headers) {
      sink->header(sink->self, text(name), text(value));
    }
    if (sink->head(sink->self, response.status, text(response.content_type)) == 0 &&
        !response.body.empty()) {
      sink->chunk(sink->self, text(response.body));
    }
    return 0;
  });
}

struct METIER_LOCAL Registration {
  explicit Registration(metier_handler_v1 given) : handler(given) {
    handler.next = handlers();
    handlers() = &handler;
  }
  metier_handler_v1 handler;
};

}  // namespace detail
}  // namespace metier

// Weak, so that several files of one library may include this header; used, so that it is there at all.
extern "C" __attribute__((visibility("default"), weak, used)) const metier_library_v1*
metier_library_v1_table(void);
extern "C" __attribute__((visibility("default"), weak, used)) const metier_library_v1*
metier_library_v1_table(void) {
  static metier_library_v1 library;
  library.size = sizeof(library);
  library.abi = METIER_HANDLER_ABI;
  library.compiler = metier::detail::text(metier::detail::kCompiler);
  library.handlers = metier::detail::handlers();
  return &library;
}

// A batch handler: a callable (metier::Context&) that returns metier::Result or nothing. At namespace scope.
#define METIER_HANDLER(handler_name, ...)                                                    \
  static const auto metier_function_##handler_name = __VA_ARGS__;                            \
  static ::metier::detail::Registration metier_registration_##handler_name(                  \
      {::metier::detail::text(#handler_name), 0, __LINE__, ::metier::detail::text(__FILE__), \
       [](const metier_context_v1* context) -> int32_t {                                     \
         return ::metier::detail::run(metier_function_##handler_name, context);              \
       },                                                                                    \
       nullptr, nullptr})

// An event handler of a real-time function: a callable (metier::Context&, const metier::Event&) that returns metier::Response.
#define METIER_EVENT_HANDLER(handler_name, ...)                                              \
  static const auto metier_function_##handler_name = __VA_ARGS__;                            \
  static ::metier::detail::Registration metier_registration_##handler_name(                  \
      {::metier::detail::text(#handler_name), 0, __LINE__, ::metier::detail::text(__FILE__), \
       nullptr,                                                                              \
       [](const metier_context_v1* context, const metier_event_v1* event,                    \
          const metier_response_v1* response) -> int32_t {                                   \
         return ::metier::detail::answer(metier_function_##handler_name, context, event,     \
                                         response);                                          \
       },                                                                                    \
       nullptr})

// Declares an event handler that may block (files, locks, other servers): METIER_BLOCKING(echo); after its definition.
#define METIER_BLOCKING(handler_name)               \
  static const int metier_blocking_##handler_name = \
      (metier_registration_##handler_name.handler.flags |= METIER_FLAG_BLOCKING, 0)

#endif  // __cplusplus
