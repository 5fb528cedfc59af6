// Errors as values. A function that can fail returns Result<T>; what the caller does next chooses the
// ErrorKind. One Error carries everything a user needs: what, where (field), which value, which rule or
// fix, and a stable reason code for machines.
#pragma once

#include <expected>
#include <string>
#include <string_view>
#include <utility>

namespace metier {

enum class ErrorKind {
  invalid,       // the request is wrong: exit 2, HTTP 400
  not_found,     // exit 3, HTTP 404
  conflict,      // exit 2, HTTP 409
  precondition,  // exit 2, HTTP 412
  unsupported,   // a thing this build or site cannot do: exit 5, HTTP 501
  denied,        // exit 2, HTTP 403
  unauthorized,  // exit 2, HTTP 401
  too_large,     // exit 2, HTTP 413
  exhausted,     // resources that can never fit: exit 5, HTTP 400
  unavailable,   // try later, nobody answers: exit 6, HTTP 503
  timed_out,     // exit 6, HTTP 504
  cancelled,     // exit 4, HTTP 409
  user_code,     // the function itself failed: exit 1, HTTP 400
  internal,      // our own bug: exit 70, HTTP 500
};

std::string_view to_string(ErrorKind kind);
int exit_code_of(ErrorKind kind);
int http_status_of(ErrorKind kind);
ErrorKind error_kind_of_http(int status);

struct Error {
  ErrorKind kind = ErrorKind::internal;
  std::string message;  // what is wrong, with the value quoted: "'2GB' is not a quantity"
  std::string field;    // path of the field or the flag: "spec.resources.limits.memory", "--mem"
  std::string fix;      // what is allowed, or the command to run; never repeats the message
  std::string code;     // stable reason code in CamelCase ("NeverFits"), may be empty

  // Adds context in front of the message, in the order a reader wants: "function.yaml: trigger 2: …".
  Error&& in(std::string_view where) && {
    message.insert(0, std::string(where) + ": ");
    return std::move(*this);
  }
  Error&& at(std::string_view path) && {
    field = field.empty() ? std::string(path) : std::string(path) + "." + field;
    return std::move(*this);
  }
  Error&& fix_by(std::string_view text) && {
    fix = text;
    return std::move(*this);
  }
  Error&& coded(std::string_view text) && {
    code = text;
    return std::move(*this);
  }
  // "field: message", the first line that a user reads.
  std::string text() const;
};

template <class T>
class [[nodiscard]] Result : public std::expected<T, Error> {
 public:
  using std::expected<T, Error>::expected;
};

inline std::unexpected<Error> fail(Error error) { return std::unexpected<Error>(std::move(error)); }
inline std::unexpected<Error> fail(ErrorKind kind, std::string message) {
  return fail(Error{.kind = kind, .message = std::move(message)});
}
inline Error invalid(std::string_view field, std::string message, std::string fix = {}) {
  return Error{.kind = ErrorKind::invalid,
               .message = std::move(message),
               .field = std::string(field),
               .fix = std::move(fix)};
}

// A value for an error message: single quotes, cut at 63 bytes, control characters escaped.
std::string quote(std::string_view value);

}  // namespace metier

// METIER_TRY(name, expression): the value, or return the error.
#define METIER_CONCAT_(a, b) a##b
#define METIER_CONCAT(a, b) METIER_CONCAT_(a, b)
#define METIER_TRY(name, ...)                                                \
  auto METIER_CONCAT(try_, __LINE__) = (__VA_ARGS__);                        \
  if (!METIER_CONCAT(try_, __LINE__)) {                                      \
    return ::metier::fail(std::move(METIER_CONCAT(try_, __LINE__)).error()); \
  }                                                                          \
  auto name = std::move(*METIER_CONCAT(try_, __LINE__))
#define METIER_CHECK(...)                                                      \
  do {                                                                         \
    auto METIER_CONCAT(try_, __LINE__) = (__VA_ARGS__);                        \
    if (!METIER_CONCAT(try_, __LINE__)) {                                      \
      return ::metier::fail(std::move(METIER_CONCAT(try_, __LINE__)).error()); \
    }                                                                          \
  } while (false)
