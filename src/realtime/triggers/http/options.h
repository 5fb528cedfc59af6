// The attributes of the HTTP trigger.
#pragma once

#include <chrono>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "realtime/processor_config.h"

namespace metier::realtime {

struct CorsOptions {
  bool enabled = false;
  std::vector<std::string> allow_origins{"*"};
  std::vector<std::string> allow_methods{"HEAD",   "GET",     "POST", "PUT",
                                         "DELETE", "OPTIONS", "PATCH"};
  std::vector<std::string> allow_headers{"Accept", "Content-Length", "Content-Type",
                                         "Authorization", "X-nuclio-log-level"};
  std::vector<std::string> expose_headers;
  bool allow_credentials = false;
  int preflight_max_age_s = 5;
  bool allows(std::string_view origin) const;
};

struct HttpOptions {
  std::size_t head_bytes = 16U << 10U;  // readBufferSize: request line and headers
  std::size_t body_bytes = 4U << 20U;   // maxRequestBodySize
  std::size_t headers = 100;
  std::size_t target_bytes = 8U << 10U;
  int connections = 65'536;  // maxConnections, ours; also bounded by the descriptor limit
  std::chrono::milliseconds head_deadline{10'000};   // ours: readHeaderTimeout
  std::chrono::milliseconds body_deadline{60'000};   // ours: readBodyTimeout
  std::chrono::milliseconds idle_deadline{300'000};  // ours: idleTimeout
  CorsOptions cors;
  std::string tls_certificate, tls_key;  // ours: tls {certificate, key}, PEM files; both or none
};

std::span<const std::string_view> http_attributes();  // every name that is read

// Errors name attributes.X with value, rule and fix.
Result<HttpOptions> read_http_options(const TriggerConfig& trigger);

}  // namespace metier::realtime
