#include "net/url.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

namespace metier::net {
namespace {

char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + ('a' - 'A')) : c; }

int hex_value(char c) {
  if (c >= '0' && c <= '9') { return c - '0'; }
  if (c >= 'a' && c <= 'f') { return c - 'a' + 10; }
  if (c >= 'A' && c <= 'F') { return c - 'A' + 10; }
  return -1;
}

bool unreserved(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
         c == '.' || c == '_' || c == '~';
}

// A dot segment could step out of where a router thinks it is.
bool has_dot_segment(std::string_view path) {
  while (!path.empty()) {
    const auto end = std::min(path.find('/'), path.size());
    const auto segment = path.substr(0, end);
    if (segment == "." || segment == "..") { return true; }
    path.remove_prefix(std::min(end + 1, path.size()));
  }
  return false;
}

Result<std::uint16_t> parse_port(std::string_view text, std::string_view url) {
  std::uint32_t port = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), port);
  if (error != std::errc{} || end != text.data() + text.size() || port < 1 || port > 65535) {
    return fail(invalid("", fmt::format("{} has no valid port: {}", quote(url), quote(text)),
                        "a port is a number from 1 to 65535"));
  }
  return static_cast<std::uint16_t>(port);
}

Result<void> parse_authority(std::string_view text, std::string_view url, Url& out) {
  if (text.find('@') != std::string_view::npos) {
    return fail(invalid("", "a URL with a user or password is not accepted",
                        "give the token by METIER_TOKEN"));
  }
  out.port = out.scheme == Url::Scheme::https ? 443 : 80;
  std::string_view port;
  if (text.starts_with('[')) {
    const auto close = text.find(']');
    if (close == std::string_view::npos) {
      return fail(invalid("", fmt::format("{} has a '[' without ']'", quote(url))));
    }
    out.host = text.substr(1, close - 1);
    port = text.substr(close + 1);
    if (!port.empty() && !port.starts_with(':')) {
      return fail(invalid("", fmt::format("{} has text behind ']'", quote(url))));
    }
  } else {
    const auto colon = std::min(text.find(':'), text.size());
    out.host = text.substr(0, colon);
    port = text.substr(colon);
  }
  if (out.host.empty()) {
    return fail(invalid("", fmt::format("{} has no host", quote(url)), "write http://HOST:PORT"));
  }
  const auto fits = [](char c) { return unreserved(c) || c == ':' || c == '%'; };
  if (!std::ranges::all_of(out.host, fits)) {
    return fail(invalid("", fmt::format("{} is not a host name", quote(out.host))));
  }
  if (!port.empty()) {
    METIER_TRY(number, parse_port(port.substr(1), url));
    out.port = number;
  }
  return {};
}

}  // namespace

bool same_name(std::string_view a, std::string_view b) {
  return a.size() == b.size() && std::equal(a.begin(), a.end(), b.begin(),
                                            [](char x, char y) { return lower(x) == lower(y); });
}

Result<std::string> percent_decode(std::string_view text, bool plus_is_space) {
  std::string out;
  out.reserve(text.size());
  for (std::size_t i = 0; i < text.size(); ++i) {
    char c = text[i];
    if (c == '+' && plus_is_space) {
      c = ' ';
    } else if (c == '%') {
      const int high = i + 2 < text.size() ? hex_value(text[i + 1]) : -1;
      const int low = high >= 0 ? hex_value(text[i + 2]) : -1;
      if (low < 0) {
        return fail(invalid("", "'%' without two hexadecimal digits in " + quote(text),
                            "write a percent sign as %25"));
      }
      c = static_cast<char>(high * 16 + low);
      i += 2;
    }
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
      return fail(invalid("", "control character in " + quote(text)));
    }
    out += c;
  }
  return out;
}

std::string percent_encode(std::string_view text, std::string_view keep) {
  std::string out;
  out.reserve(text.size());
  for (const char c : text) {
    if (unreserved(c) || keep.find(c) != std::string_view::npos) {
      out += c;
    } else {
      out += fmt::format("%{:02X}", static_cast<unsigned char>(c));
    }
  }
  return out;
}

Result<Target> parse_target(std::string_view target) {
  if (!target.starts_with('/')) {
    return fail(invalid("", "request target " + quote(target) + " does not start with '/'"));
  }
  Target out;
  target = target.substr(0, std::min(target.find('#'), target.size()));
  const auto question = std::min(target.find('?'), target.size());
  auto path = percent_decode(target.substr(0, question), false);
  if (!path) { return fail(std::move(path).error().in("path")); }
  if (has_dot_segment(*path)) {
    return fail(invalid("", "path " + quote(*path) + " has a '.' or '..' segment"));
  }
  out.path = std::move(*path);
  auto query = target.substr(std::min(question + 1, target.size()));
  while (!query.empty()) {
    const auto end = std::min(query.find('&'), query.size());
    const auto pair = query.substr(0, end);
    query.remove_prefix(std::min(end + 1, query.size()));
    if (pair.empty()) { continue; }
    const auto equals = std::min(pair.find('='), pair.size());
    auto name = percent_decode(pair.substr(0, equals), true);
    if (!name) { return fail(std::move(name).error().in("query")); }
    auto value = percent_decode(pair.substr(std::min(equals + 1, pair.size())), true);
    if (!value) { return fail(std::move(value).error().in("query")); }
    out.query.emplace_back(std::move(*name), std::move(*value));
  }
  return out;
}

std::string Url::host_header() const {
  if (scheme == Scheme::unix_socket) { return "localhost"; }
  const bool usual = port == (scheme == Scheme::https ? 443 : 80);
  const auto name = host.find(':') == std::string::npos ? host : "[" + host + "]";
  return usual ? name : fmt::format("{}:{}", name, port);
}

std::string Url::origin() const {
  const auto name = host.find(':') == std::string::npos ? host : "[" + host + "]";
  switch (scheme) {
    case Scheme::http: return fmt::format("http://{}:{}", name, port);
    case Scheme::https: return fmt::format("https://{}:{}", name, port);
    case Scheme::unix_socket: return "unix://" + host;
  }
  return {};
}

Result<Url> parse_url(std::string_view text) {
  const auto control = [](char c) { return static_cast<unsigned char>(c) <= 0x20 || c == 0x7f; };
  if (std::ranges::any_of(text, control)) {
    return fail(invalid("", quote(text) + " has a space or control character"));
  }
  Url out;
  if (text.starts_with("unix://")) {
    out.scheme = Url::Scheme::unix_socket;
    const auto rest = text.substr(7);
    const auto colon = std::min(rest.find(":/"), rest.size());
    out.host = rest.substr(0, colon);
    out.target = colon < rest.size() ? rest.substr(colon + 1) : "/";
    if (!out.host.starts_with('/')) {
      return fail(
          invalid("", quote(text) + " names no absolute path", "write unix:///path/to.sock"));
    }
    return out;
  }
  std::string_view rest;
  if (text.starts_with("http://")) {
    rest = text.substr(7);
  } else if (text.starts_with("https://")) {
    out.scheme = Url::Scheme::https;
    rest = text.substr(8);
  } else {
    return fail(invalid("", quote(text) + " is not a URL that metier can use",
                        "write http://HOST:PORT, https://HOST:PORT or unix:///path/to.sock"));
  }
  const auto end = std::min(rest.find_first_of("/?#"), rest.size());
  METIER_CHECK(parse_authority(rest.substr(0, end), text, out));
  rest.remove_prefix(end);
  rest = rest.substr(0, std::min(rest.find('#'), rest.size()));
  out.target = rest.starts_with('/') ? std::string(rest) : "/" + std::string(rest);
  return out;
}

}  // namespace metier::net
