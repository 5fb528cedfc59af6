#include "api/router.h"

#include <fmt/format.h>
#include <openssl/crypto.h>

#include <algorithm>
#include <charconv>

namespace metier::api {
namespace {

std::vector<std::string_view> split(std::string_view path) {
  std::vector<std::string_view> out;
  out.reserve(8);
  while (!path.empty()) {
    if (path.front() == '/') {
      path.remove_prefix(1);
      if (path.empty()) { break; }
    }
    const auto end = path.find('/');
    out.push_back(path.substr(0, end));
    path = end == std::string_view::npos ? std::string_view{} : path.substr(end);
  }
  return out;
}

// How many literals of the pattern a path has, when it fits: the pattern with most of them is the one meant.
std::optional<std::size_t> literals_of(const std::vector<std::string>& pattern,
                                       const std::vector<std::string_view>& parts) {
  const bool tail = !pattern.empty() && pattern.back().ends_with("*}");
  if (tail ? parts.size() < pattern.size() : parts.size() != pattern.size()) {
    return std::nullopt;
  }
  std::size_t literals = 0;
  for (std::size_t i = 0; i < pattern.size(); ++i) {
    if (pattern[i].starts_with('{')) { continue; }
    if (pattern[i] != parts[i]) { return std::nullopt; }
    ++literals;
  }
  return literals;
}

// The versions that a path may belong to, with what is left of it, the most specific first.
std::vector<std::pair<Api, std::string_view>> versions(std::string_view path) {
  std::vector<std::pair<Api, std::string_view>> out;
  const auto under = [&](std::string_view prefix, Api api) {
    if (path == prefix ||
        (path.starts_with(prefix) && path.substr(prefix.size()).starts_with('/'))) {
      out.emplace_back(api, path.substr(prefix.size()));
    }
  };
  under("/api/metier/v1", Api::metier);
  under("/api/v1", Api::v1);
  under("/api/v2", Api::v2);
  if (out.empty()) { under("/api", Api::v1); }
  out.emplace_back(Api::root, path);
  return out;
}

bool same_secret(std::string_view a, std::string_view b) {
  return a.size() == b.size() && CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0;
}

bool is_loopback_host(std::string_view host) {
  if (host.starts_with('[')) { return host.substr(0, host.find(']') + 1) == "[::1]"; }
  host = host.substr(0, host.find(':'));
  if (host == "localhost") { return true; }
  return host.starts_with("127.") &&
         host.find_first_not_of("0123456789.") == std::string_view::npos;
}

std::string_view host_only(std::string_view host) {
  if (host.starts_with('[')) { return host.substr(0, host.find(']') + 1); }
  return host.substr(0, host.find(':'));
}

std::string lower(std::string_view text) {
  std::string out(text);
  for (auto& c : out) { c = static_cast<char>(std::tolower(static_cast<unsigned char>(c))); }
  return out;
}

}  // namespace

std::string_view version() { return "0.1.0"; }

net::Response ok_json(const Json& body, int status) {
  return net::json_response(status, dump_json(body));
}

net::Response ok_text(std::string body, int status) {
  net::Response response;
  response.status = status;
  response.headers = {{"content-type", "text/plain; charset=utf-8"}};
  response.body = std::move(body);
  return response;
}

net::Response error_response(const Error& error) {
  JsonObject detail{{"reason", error.message}, {"kind", to_string(error.kind)}};
  if (!error.field.empty()) { detail["field"] = error.field; }
  if (!error.fix.empty()) { detail["fix"] = error.fix; }
  if (!error.code.empty()) { detail["code"] = error.code; }
  int status = http_status_of(error.kind);
  if (error.code == "NoSpace") { status = 507; }
  auto response = ok_json(Json(JsonObject{{"detail", std::move(detail)}}), status);
  if (status == 503 || status == 507) { response.headers.emplace_back("retry-after", "1"); }
  return response;
}

std::string Call::query(std::string_view name, std::string_view fallback) const {
  const auto value = request.query_value(name);
  return std::string(value.empty() ? fallback : value);
}

Result<bool> Call::flag(std::string_view name, bool fallback) const {
  const auto raw = request.query_value(name);
  if (raw.empty()) { return fallback; }
  const auto text = lower(raw);
  for (const auto* yes : {"true", "1", "on", "yes", "t", "y"}) {
    if (text == yes) { return true; }
  }
  for (const auto* no : {"false", "0", "off", "no", "f", "n"}) {
    if (text == no) { return false; }
  }
  return fail(invalid(name, quote(raw) + " is not a boolean", "write true or false"));
}

Result<std::int64_t> Call::number(std::string_view name, std::int64_t fallback, std::int64_t least,
                                  std::int64_t most) const {
  const auto raw = request.query_value(name);
  if (raw.empty()) { return fallback; }
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(raw.data(), raw.data() + raw.size(), value);
  if (error != std::errc{} || end != raw.data() + raw.size() || value < least || value > most) {
    return fail(invalid(name, quote(raw) + " is not a whole number in range",
                        fmt::format("from {} to {}", least, most)));
  }
  return value;
}

Result<std::optional<Time>> Call::time(std::string_view name) const {
  const auto raw = request.query_value(name);
  if (raw.empty()) { return std::optional<Time>{}; }
  auto parsed = from_iso(raw);
  if (!parsed) {
    // "+" of the offset arrives as a space when it was not escaped.
    std::string mended(raw);
    if (const auto space = mended.rfind(' '); space != std::string::npos && space > 11) {
      mended[space] = '+';
    }
    parsed = from_iso(mended);
  }
  if (!parsed) {
    return fail(
        invalid(name, quote(raw) + " is not a time", "write ISO 8601: 2026-11-25T10:00:00+00:00"));
  }
  return parsed;
}

Result<Json> Call::json() const {
  const auto type = lower(net::header(request.headers, "content-type"));
  if (const auto charset = type.find("charset="); charset != std::string::npos) {
    const auto name = type.substr(charset + 8);
    if (!name.starts_with("utf-8") && !name.starts_with("\"utf-8") && !name.starts_with("utf8")) {
      return fail(invalid("content-type", "charset " + quote(name) + " is not read", "send UTF-8"));
    }
  }
  if (request.body.find_first_not_of(" \t\r\n") == std::string::npos) { return Json(nullptr); }
  auto parsed = parse_json(request.body);
  if (!parsed) { return fail(std::move(parsed.error()).at("body")); }
  return parsed;
}

Result<JsonObject> Call::object() const {
  METIER_TRY(value, json());
  if (!value.is_object()) {
    return fail(invalid("body", fmt::format("expected an object, got {}", type_name(value))));
  }
  return std::move(value.get_object());
}

void Router::add(Api api, std::string method, std::string pattern, std::string summary,
                 RouteHandler handler) {
  const auto parts = split(pattern);
  Route route{{api, std::move(method), pattern, std::move(summary)},
              {parts.begin(), parts.end()},
              std::move(handler)};
  auto& table = routes_[api];
  const auto size = route.parts.size();
  const bool tail = size > 0 && route.parts.back().ends_with("*}");
  table.routes.push_back(std::move(route));
  if (tail) {
    table.tails.push_back(&table.routes.back());
    return;
  }
  if (table.by_size.size() <= size) { table.by_size.resize(size + 1); }
  table.by_size[size].push_back(&table.routes.back());
}

const Router::Route* Router::match(const Table& table, const std::vector<std::string_view>& parts,
                                   const std::string& method,
                                   std::map<std::string, std::string, std::less<>>& path,
                                   std::string& allow) const {
  const Route* best = nullptr;
  std::size_t best_literals = 0;
  const auto consider = [&](const Route& route) {
    const auto literals = literals_of(route.parts, parts);
    if (!literals) { return; }
    const bool same =
        route.info.method == method || (method == "HEAD" && route.info.method == "GET");
    if (!same) {
      if (allow.find(route.info.method) == std::string::npos) {
        allow += (allow.empty() ? "" : ", ") + route.info.method;
      }
    } else if (best == nullptr || *literals > best_literals) {
      best = &route;
      best_literals = *literals;
    }
  };
  if (parts.size() < table.by_size.size()) {
    for (const auto* route : table.by_size[parts.size()]) { consider(*route); }
  }
  for (const auto* route : table.tails) { consider(*route); }
  if (best == nullptr) { return nullptr; }
  for (std::size_t i = 0; i < best->parts.size(); ++i) {
    const std::string_view part = best->parts[i];
    if (part.ends_with("*}")) {
      std::string rest(parts[i]);
      for (std::size_t k = i + 1; k < parts.size(); ++k) { rest.append("/").append(parts[k]); }
      path.emplace(part.substr(1, part.size() - 3), std::move(rest));
    } else if (part.starts_with('{')) {
      path.emplace(part.substr(1, part.size() - 2), parts[i]);
    }
  }
  return best;
}

Result<Caller> Router::authenticate(const net::Request& request, bool open) const {
  Caller caller;
  caller.client_version = net::header(request.headers, "x-mlrun-client-version");
  caller.python_version = net::header(request.headers, "x-mlrun-client-python-version");
  caller.idempotency_key = net::header(request.headers, "idempotency-key");
  caller.user = net::header(request.headers, "x-remote-user");
  const auto origin = net::header(request.headers, "origin");
  const auto site = net::header(request.headers, "sec-fetch-site");
  const auto denied = [](std::string message, std::string fix) {
    return fail(
        Error{.kind = ErrorKind::denied, .message = std::move(message), .fix = std::move(fix)});
  };
  if (request.peer.unix_socket) {
    caller.over_unix_socket = true;
    caller.uid = request.peer.uid;
    if (access_.server_uid >= 0 && access_.server_uid != 0 &&
        request.peer.uid != access_.server_uid && request.peer.uid != 0) {
      return denied("this socket is another user's",
                    "start a server of your own, or set METIER_SERVER");
    }
    caller.python = net::header(request.headers, "x-metier-python");
    return caller;
  }
  const auto host = net::header(request.headers, "host");
  const bool known_host =
      is_loopback_host(host) ||
      std::ranges::find(access_.hosts, std::string(host_only(host))) != access_.hosts.end();
  if (!known_host) {
    return denied("Host " + quote(host) + " is not one of this server's names",
                  "name it: metier server --allowed-host NAME");
  }
  if (site == "cross-site") {
    return denied("a page of another site may not call this server", "use the API from a program");
  }
  if (!origin.empty()) {
    const auto at = origin.find("://");
    const auto from = at == std::string_view::npos ? origin : origin.substr(at + 3);
    if (!is_loopback_host(from) &&
        std::ranges::find(access_.hosts, std::string(host_only(from))) == access_.hosts.end()) {
      return denied("Origin " + quote(origin) + " may not call this server",
                    "use the API from a program");
    }
  }
  const auto authorization = net::header(request.headers, "authorization");
  const auto bearer =
      authorization.starts_with("Bearer ") ? authorization.substr(7) : std::string_view{};
  if (request.peer.listener == access_.run_listener) {
    const auto scope =
        access_.run_token && !bearer.empty() ? access_.run_token(bearer) : std::nullopt;
    if (scope) {
      caller.run_project = scope->project;
      caller.run_uid = scope->uid;
      return caller;
    }
    if (open) { return caller; }
    return fail(Error{.kind = ErrorKind::unauthorized,
                      .message = "no valid run token",
                      .fix = "it ends with its run"});
  }
  if (open || access_.token.empty() || same_secret(bearer, access_.token)) { return caller; }
  return fail(Error{.kind = ErrorKind::unauthorized,
                    .message = bearer.empty() ? "no token was sent" : "this token is not accepted",
                    .fix = "on the server's machine: metier env"});
}

Async<net::Response> Router::handle(net::Request request) {
  std::map<std::string, std::string, std::less<>> path;
  std::string allow;
  const Route* route = nullptr;
  for (const auto& [api, rest] : versions(request.path)) {
    const auto found = routes_.find(api);
    if (found == routes_.end()) { continue; }
    route = match(found->second, split(rest), request.method, path, allow);
    if (route != nullptr) { break; }
  }
  auto id = std::string(net::header(request.headers, "x-request-id"));
  if (id.empty() || id.size() > 64) { id = fmt::format("{:x}", next_request_++); }
  // What a client reads before it knows anything needs no token.
  const bool open =
      route != nullptr && (route->info.pattern == "/client-spec" ||
                           route->info.pattern == "/healthz" || route->info.pattern == "/readyz");
  auto caller = authenticate(request, open);
  net::Response response;
  if (!caller) {
    response = error_response(caller.error());
    log_.info("request refused", {{"method", Json(request.method)},
                                  {"path", Json(request.path)},
                                  {"why", Json(caller.error().message)}});
  } else if (route == nullptr) {
    if (allow.empty()) {
      response = error_response(
          Error{.kind = ErrorKind::not_found,
                .message = fmt::format("no route {} {}", request.method, quote(request.path)),
                .fix = "see /openapi.json"});
    } else {
      response = error_response(invalid("method",
                                        fmt::format("{} is not served here", quote(request.method)),
                                        "allowed: " + allow));
      response.status = 405;
      response.headers.emplace_back("allow", allow);
    }
  } else if (!caller->run_project.empty() && path.contains("project") &&
             path.at("project") != caller->run_project) {
    response =
        error_response(Error{.kind = ErrorKind::not_found,
                             .message = fmt::format("no project {}", quote(path.at("project"))),
                             .fix = "a run reaches its own project only"});
  } else {
    Call call{std::move(request), std::move(path), std::move(*caller), id};
    response = co_await route->handler(call);
  }
  response.headers.emplace_back("x-mlrun-be-version", std::string(version()));
  response.headers.emplace_back("x-request-id", id);
  co_return response;
}

std::vector<RouteInfo> Router::routes() const {
  std::vector<RouteInfo> out;
  for (const auto& [api, table] : routes_) {
    for (const auto& route : table.routes) { out.push_back(route.info); }
  }
  return out;
}

Json Router::openapi() const {
  static const std::map<Api, std::string> kPrefix{
      {Api::v1, "/api/v1"}, {Api::v2, "/api/v2"}, {Api::metier, "/api/metier/v1"}, {Api::root, ""}};
  JsonObject paths;
  for (const auto& info : routes()) {
    std::string pattern = info.pattern;
    if (const auto star = pattern.find("*}"); star != std::string::npos) { pattern.erase(star, 1); }
    auto& path = ensure_object(paths, kPrefix.at(info.api) + pattern);
    JsonArray parameters;
    for (const auto& part : split(pattern)) {
      if (part.starts_with('{')) {
        parameters.push_back(JsonObject{{"name", std::string(part.substr(1, part.size() - 2))},
                                        {"in", "path"},
                                        {"required", true},
                                        {"schema", {{"type", "string"}}}});
      }
    }
    JsonObject operation{{"summary", info.summary},
                         {"responses",
                          {{"200", {{"description", "OK"}}},
                           {"4XX", {{"description", "{\"detail\": {reason, field, fix}}"}}}}}};
    if (!parameters.empty()) { operation["parameters"] = std::move(parameters); }
    path[lower(info.method)] = std::move(operation);
  }
  return JsonObject{{"openapi", "3.1.0"},
                    {"info", {{"title", "metier"}, {"version", version()}}},
                    {"paths", std::move(paths)}};
}

}  // namespace metier::api
