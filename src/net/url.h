// Request targets and URLs: one decoding, made once, of what comes from outside.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"

namespace metier::net {

bool same_name(std::string_view a, std::string_view b);  // ASCII letters without case

// %XX decoded once. Errors: invalid for a broken escape, %00 and other control characters.
Result<std::string> percent_decode(std::string_view text, bool plus_is_space);
// Escapes all but unreserved characters and those of `keep`.
std::string percent_encode(std::string_view text, std::string_view keep = {});

struct Target {
  std::string path;
  std::vector<std::pair<std::string, std::string>> query;
};
// A request target in origin form ("/a%20b?x=1"). Errors: invalid for another form, broken escapes, control
// characters, and "." or ".." as a segment of the decoded path. A doubly encoded ".." stays text.
Result<Target> parse_target(std::string_view target);

struct Url {
  enum class Scheme { http, https, unix_socket };
  Scheme scheme = Scheme::http;
  std::string host;  // without brackets; the socket's path for unix
  std::uint16_t port = 0;
  std::string target;  // path and query, "/" when absent; without fragment
  std::string host_header() const;
  std::string origin() const;  // key of a connection pool
};
// "http://h:1/x", "https://[::1]/x", "unix:///run/m.sock", "unix:///run/m.sock:/x". Errors: invalid with the rule.
Result<Url> parse_url(std::string_view text);

}  // namespace metier::net
