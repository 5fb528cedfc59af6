#include "base/result.h"

#include <fmt/format.h>

#include <array>

namespace metier {
namespace {

struct Row {
  ErrorKind kind;
  std::string_view name;
  int exit_code;
  int http;
};

// The one table: what the caller does next decides exit code and status.
constexpr std::array kRows{
    Row{ErrorKind::invalid, "invalid", 2, 400},
    Row{ErrorKind::not_found, "not_found", 3, 404},
    Row{ErrorKind::conflict, "conflict", 2, 409},
    Row{ErrorKind::precondition, "precondition", 2, 412},
    Row{ErrorKind::unsupported, "unsupported", 5, 501},
    Row{ErrorKind::denied, "denied", 2, 403},
    Row{ErrorKind::unauthorized, "unauthorized", 2, 401},
    Row{ErrorKind::too_large, "too_large", 2, 413},
    Row{ErrorKind::exhausted, "exhausted", 5, 400},
    Row{ErrorKind::unavailable, "unavailable", 6, 503},
    Row{ErrorKind::timed_out, "timed_out", 6, 504},
    Row{ErrorKind::cancelled, "cancelled", 4, 409},
    Row{ErrorKind::user_code, "user_code", 1, 400},
    Row{ErrorKind::internal, "internal", 70, 500},
};

const Row& row_of(ErrorKind kind) {
  for (const auto& row : kRows) {
    if (row.kind == kind) { return row; }
  }
  return kRows.back();
}

}  // namespace

std::string_view to_string(ErrorKind kind) { return row_of(kind).name; }
int exit_code_of(ErrorKind kind) { return row_of(kind).exit_code; }
int http_status_of(ErrorKind kind) { return row_of(kind).http; }

ErrorKind error_kind_of_http(int status) {
  for (const auto& row : kRows) {
    if (row.http == status) { return row.kind; }
  }
  return status >= 500 ? ErrorKind::internal : ErrorKind::invalid;
}

std::string Error::text() const { return field.empty() ? message : field + ": " + message; }

std::string quote(std::string_view value) {
  constexpr std::size_t kMost = 63;
  std::string out = "'";
  for (const char c : value.substr(0, kMost)) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7f) {
      out += fmt::format("\\x{:02x}", byte);
    } else {
      out += c;
    }
  }
  if (value.size() > kMost) { out += "…"; }
  return out + "'";
}

}  // namespace metier
