#include "realtime/triggers/http/options.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/text.h"

namespace metier::realtime {
namespace {

constexpr std::string_view kNames[] = {"port",
                                       "serviceType",
                                       "ingresses",
                                       "readBufferSize",
                                       "maxRequestBodySize",
                                       "reduceMemoryUsage",
                                       "disablePortPublishing",
                                       "cors",
                                       "maxConnections",
                                       "readHeaderTimeout",
                                       "readBodyTimeout",
                                       "idleTimeout",
                                       "tls"};

Result<void> read_number(const JsonObject& object, std::string_view key, const std::string& path,
                         std::size_t& out, std::int64_t least, std::int64_t most) {
  const Json* value = object.if_contains(key);
  if (value == nullptr || value->is_null()) { return {}; }
  const auto number = int_in(object, key);
  if (!number || *number < least || *number > most) {
    return fail(invalid(path + "." + std::string(key), quote(dump_json(*value)) + " is no size",
                        fmt::format("give {} to {} bytes", least, most)));
  }
  // 0 is Nuclio's word for the default.
  if (*number > 0) { out = static_cast<std::size_t>(*number); }
  return {};
}

Result<void> read_words(const JsonObject& object, std::string_view key, const std::string& path,
                        std::vector<std::string>& out) {
  const Json* value = object.if_contains(key);
  if (value == nullptr || value->is_null()) { return {}; }
  std::vector<std::string> words;
  if (value->is_string()) {  // Nuclio takes a text as well
    for (const std::string& word : split_text(std::string_view(value->get_string()), ',')) {
      words.emplace_back(trim(word));
    }
  } else if (value->is_array()) {
    for (const Json& word : value->get_array()) {
      if (!word.is_string()) {
        return fail(invalid(path + "." + std::string(key), "has an entry that is no text",
                            "give a list of texts"));
      }
      words.emplace_back(std::string_view(word.get_string()));
    }
  } else {
    return fail(invalid(path + "." + std::string(key), "is no list", "give a list of texts"));
  }
  for (const std::string& word : words) {
    if (std::ranges::any_of(
            word, [](char c) { return static_cast<unsigned char>(c) < 32 || c == 127; })) {
      return fail(invalid(path + "." + std::string(key), quote(word) + " has control characters",
                          "leave them out"));
    }
  }
  if (!words.empty()) { out = std::move(words); }
  return {};
}

Result<void> read_time(const JsonObject& object, std::string_view key, const std::string& path,
                       std::chrono::milliseconds& out) {
  const Json* value = object.if_contains(key);
  if (value == nullptr || value->is_null()) { return {}; }
  auto time = parse_duration(value->is_string() ? std::string_view(value->get_string())
                                                : std::string_view("?"));
  if (!time || time->count() <= 0) {
    return fail(invalid(path + "." + std::string(key),
                        quote(dump_json(*value)) + " is no duration above 0", "such as \"10s\""));
  }
  out = *time;
  return {};
}

}  // namespace

bool CorsOptions::allows(std::string_view origin) const {
  return std::ranges::any_of(allow_origins, [&](const std::string& allowed) {
    return allowed == "*" || allowed == origin;
  });
}

std::span<const std::string_view> http_attributes() { return kNames; }

Result<HttpOptions> read_http_options(const TriggerConfig& trigger) {
  HttpOptions options;
  const std::string path = "triggers." + trigger.name + ".attributes";
  const JsonObject& given = trigger.attributes;
  for (const auto& entry : given) {
    if (std::ranges::find(kNames, std::string_view(entry.key())) == std::end(kNames)) {
      const std::string near = nearest(std::string_view(entry.key()), kNames);
      return fail(invalid(path + "." + std::string(entry.key()),
                          "the http trigger has no such attribute",
                          near.empty() ? "leave it out" : "did you mean " + near + "?"));
    }
  }
  METIER_CHECK(read_number(given, "readBufferSize", path, options.head_bytes, 0, 1 << 20));
  METIER_CHECK(
      read_number(given, "maxRequestBodySize", path, options.body_bytes, 0, std::int64_t{2} << 30));
  std::size_t connections = 0;
  METIER_CHECK(read_number(given, "maxConnections", path, connections, 0, 1'000'000));
  if (connections > 0) { options.connections = static_cast<int>(connections); }
  METIER_CHECK(read_time(given, "readHeaderTimeout", path, options.head_deadline));
  METIER_CHECK(read_time(given, "readBodyTimeout", path, options.body_deadline));
  METIER_CHECK(read_time(given, "idleTimeout", path, options.idle_deadline));
  if (const JsonObject* tls = object_in(given, "tls")) {
    options.tls_certificate = std::string(string_in(*tls, "certificate"));
    options.tls_key = std::string(string_in(*tls, "key"));
    if (options.tls_certificate.empty() || options.tls_key.empty()) {
      return fail(invalid(path + ".tls", "names only one of certificate and key",
                          "give both, paths of PEM files"));
    }
  }
  if (const JsonObject* cors = object_in(given, "cors")) {
    const std::string at = path + ".cors";
    options.cors.enabled = bool_in(*cors, "enabled");
    METIER_CHECK(read_words(*cors, "allowOrigin", at, options.cors.allow_origins));  // its old name
    METIER_CHECK(read_words(*cors, "allowOrigins", at, options.cors.allow_origins));
    METIER_CHECK(read_words(*cors, "allowMethods", at, options.cors.allow_methods));
    METIER_CHECK(read_words(*cors, "allowHeaders", at, options.cors.allow_headers));
    METIER_CHECK(read_words(*cors, "exposeHeaders", at, options.cors.expose_headers));
    options.cors.allow_credentials = bool_in(*cors, "allowCredentials");
    if (const auto age = int_in(*cors, "preflightMaxAgeSeconds")) {
      options.cors.preflight_max_age_s = static_cast<int>(*age);
    }
  }
  return options;
}

}  // namespace metier::realtime
