// Routes: method and path patterns to handlers, errors to answers, who may call. Pure but for the handlers:
// tests call `Router::handle` with a Request and need no socket.
//
// Patterns are relative to a version: add(Api::v1, "GET", "/projects/{project}/runs/{uid}", …) serves
// /api/v1/… and /api/…; `{key*}` at the end takes the rest with its slashes. A trailing slash is ignored.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "engine/ground.h"
#include "net/http.h"

namespace metier::api {

enum class Api { v1, v2, metier, root };

// One request on its way: parsed parts, and who asks.
struct Call {
  net::Request request;
  std::map<std::string, std::string, std::less<>> path;  // of the pattern, decoded
  Caller caller;
  std::string request_id;

  const std::string& at(std::string_view name) const { return path.find(name)->second; }
  std::string query(std::string_view name, std::string_view fallback = {}) const;
  std::vector<std::string> query_all(std::string_view name) const {
    return request.query_values(name);
  }
  // MLRun's spellings of booleans (True, yes, 1, on…). Errors: invalid with the parameter's name.
  Result<bool> flag(std::string_view name, bool fallback) const;
  Result<std::int64_t> number(std::string_view name, std::int64_t fallback, std::int64_t least,
                              std::int64_t most) const;
  Result<std::optional<Time>> time(std::string_view name) const;
  // The body as JSON whatever its content type; `null` and an empty body are null. Errors: invalid with the offset.
  Result<Json> json() const;
  // The same, an object.
  Result<JsonObject> object() const;
};

using RouteHandler = std::function<Async<net::Response>(Call&)>;

struct RunTokenScope {
  std::string project;
  std::string uid;
};

struct Access {
  std::string token;  // bearer token of TCP listeners; empty: none is asked (--auth none)
  std::vector<std::string> hosts;  // Host headers allowed on TCP besides loopback literals
  std::function<std::optional<RunTokenScope>(std::string_view)> run_token;  // of pods
  std::string run_listener = "runs";  // the listener that accepts run tokens only
  std::int64_t server_uid = -1;
};

struct RouteInfo {
  Api api;
  std::string method;
  std::string pattern;
  std::string summary;
};

class Router final {
 public:
  explicit Router(Access access, Logger log) : access_(std::move(access)), log_(std::move(log)) {}

  void add(Api api, std::string method, std::string pattern, std::string summary,
           RouteHandler handler);
  Async<net::Response> handle(net::Request request);
  std::vector<RouteInfo> routes() const;
  // OpenAPI 3.1 of the route table.
  Json openapi() const;

 private:
  struct Route {
    RouteInfo info;
    std::vector<std::string> parts;
    RouteHandler handler;
  };
  // The routes of one version, by how many parts their patterns have; those that end in a tail apart.
  struct Table {
    std::deque<Route> routes;
    std::vector<std::vector<const Route*>> by_size;
    std::vector<const Route*> tails;
  };
  Result<Caller> authenticate(const net::Request& request, bool open) const;
  const Route* match(const Table& table, const std::vector<std::string_view>& parts,
                     const std::string& method,
                     std::map<std::string, std::string, std::less<>>& path,
                     std::string& allow) const;

  Access access_;
  Logger log_;
  std::map<Api, Table> routes_;
  std::uint64_t next_request_ = 1;
};

// {"detail": {"reason", "field", "fix", "code", "kind"}} with the status of the error's kind.
net::Response error_response(const Error& error);
net::Response ok_json(const Json& body, int status = 200);
net::Response ok_text(std::string body, int status = 200);
std::string_view version();  // of this program

}  // namespace metier::api

// In a route handler: the value, or answer with the error.
#define METIER_API_TRY(name, ...)                                                       \
  auto METIER_CONCAT(api_try_, __LINE__) = (__VA_ARGS__);                               \
  if (!METIER_CONCAT(api_try_, __LINE__)) {                                             \
    co_return ::metier::api::error_response(METIER_CONCAT(api_try_, __LINE__).error()); \
  }                                                                                     \
  auto name = std::move(*METIER_CONCAT(api_try_, __LINE__))
#define METIER_API_CHECK(...)                                                             \
  do {                                                                                    \
    auto METIER_CONCAT(api_try_, __LINE__) = (__VA_ARGS__);                               \
    if (!METIER_CONCAT(api_try_, __LINE__)) {                                             \
      co_return ::metier::api::error_response(METIER_CONCAT(api_try_, __LINE__).error()); \
    }                                                                                     \
  } while (false)
