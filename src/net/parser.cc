#include "net/parser.h"

#include <fmt/format.h>
#include <llhttp.h>

#include <algorithm>

#include "net/url.h"

namespace metier::net {
namespace {

constexpr std::size_t kMostTrailerBytes = 8U << 10U;

// Headers that mean different things to different readers when given twice.
bool must_be_single(std::string_view name) {
  return same_name(name, "host") || same_name(name, "authorization") ||
         same_name(name, "content-type") || same_name(name, "expect") ||
         same_name(name, "content-encoding");
}

}  // namespace

struct RequestParser::State {
  llhttp_t parser{};
  llhttp_settings_t settings{};
  Limits limits;
  Request request;
  Refusal refusal;
  std::size_t header_bytes = 0;
  std::size_t trailer_bytes = 0;
  bool in_body = false;
  bool value_open = false;
  bool keep_alive = false;
  bool expects_continue = false;
  bool has_body = false;
  bool http_1_0 = false;
  bool touched = false;

  static State& of(llhttp_t* parser) { return *static_cast<State*>(parser->data); }

  int refuse(int status, std::string reason, std::string fix = {}) {
    refusal = {status, std::move(reason), std::move(fix)};
    llhttp_set_error_reason(&parser, "refused");
    return HPE_USER;
  }

  int count_head(std::size_t n) {
    header_bytes += n;
    if (header_bytes <= limits.header_bytes) { return HPE_OK; }
    return refuse(
        431, fmt::format("the head of the request is longer than {} bytes", limits.header_bytes),
        "send fewer or shorter headers");
  }

  int on_url(std::string_view bytes) {
    request.target += bytes;
    if (request.target.size() <= limits.target_bytes) { return HPE_OK; }
    return refuse(414,
                  fmt::format("the request target is longer than {} bytes", limits.target_bytes),
                  "send a shorter URL");
  }

  int on_field(std::string_view bytes) {
    if (in_body) { return on_trailer(bytes.size()); }
    if (value_open || request.headers.empty()) {
      value_open = false;
      if (request.headers.size() >= limits.headers) {
        return refuse(431, fmt::format("more than {} headers", limits.headers),
                      "send fewer headers");
      }
      request.headers.emplace_back();
    }
    request.headers.back().first += bytes;
    return count_head(bytes.size());
  }

  int on_value(std::string_view bytes) {
    if (in_body) { return on_trailer(bytes.size()); }
    request.headers.back().second += bytes;
    return count_head(bytes.size());
  }

  int on_trailer(std::size_t n) {  // trailers are read and dropped
    trailer_bytes += n;
    return trailer_bytes <= kMostTrailerBytes ? HPE_OK : refuse(431, "trailers are too long");
  }

  int on_headers_complete() {
    in_body = true;
    if (parser.http_major != 1 || parser.http_minor > 1) {
      return refuse(505, "only HTTP/1.0 and HTTP/1.1 are spoken here");
    }
    http_1_0 = parser.http_minor == 0;
    parser.upgrade = 0;  // unknown protocols are ignored, the request is answered as it is
    request.method = llhttp_method_name(static_cast<llhttp_method_t>(parser.method));
    if (parser.method == HTTP_CONNECT || parser.method == HTTP_TRACE) {
      return refuse(405, request.method + " is not allowed",
                    "use GET, HEAD, POST, PUT, PATCH, DELETE or OPTIONS");
    }
    if (const int bad = check_headers(); bad != HPE_OK) { return bad; }
    const bool chunked = (parser.flags & F_CHUNKED) != 0;
    if ((parser.flags & F_TRANSFER_ENCODING) != 0 && (!chunked || http_1_0)) {
      return refuse(400, "this transfer encoding is not known",
                    "send chunked, or a content-length");
    }
    const bool sized = (parser.flags & F_CONTENT_LENGTH) != 0;
    if (sized && parser.content_length > limits.body_bytes) { return too_large(); }
    has_body = chunked || (sized && parser.content_length > 0);
    if (sized && has_body) { request.body.reserve(parser.content_length); }
    return resolve_target();
  }

  int check_headers() {
    std::size_t hosts = 0;
    for (auto it = request.headers.begin(); it != request.headers.end(); ++it) {
      const auto& [name, value] = *it;
      if (!must_be_single(name)) { continue; }
      hosts += same_name(name, "host") ? 1 : 0;
      const auto twice = [&](const auto& other) { return same_name(other.first, name); };
      if (std::any_of(std::next(it), request.headers.end(), twice)) {
        return refuse(400, "header " + quote(name) + " is given twice");
      }
      if (same_name(name, "expect")) {
        if (!same_name(value, "100-continue")) {
          return refuse(417, "expectation " + quote(value) + " is not known");
        }
        expects_continue = !http_1_0;
      }
      if (same_name(name, "content-encoding") && !value.empty() && !same_name(value, "identity")) {
        return refuse(415, "content-encoding " + quote(value) + " is not accepted",
                      "send the body as it is");
      }
    }
    if (hosts == 0 && !http_1_0) { return refuse(400, "header host is missing"); }
    return HPE_OK;
  }

  int resolve_target() {
    if (request.target == "*" && parser.method == HTTP_OPTIONS) {
      request.path = "*";
      return HPE_PAUSED;
    }
    auto target = parse_target(request.target);
    if (!target) { return refuse(400, target.error().message, target.error().fix); }
    request.path = std::move(target->path);
    request.query = std::move(target->query);
    return HPE_PAUSED;
  }

  int too_large() {
    return refuse(413, fmt::format("the body is larger than {} bytes", limits.body_bytes),
                  "send less, or raise the server's limit");
  }

  int on_body(std::string_view bytes) {
    if (bytes.size() > limits.body_bytes - request.body.size()) { return too_large(); }
    request.body += bytes;
    return HPE_OK;
  }

  // llhttp's own errors in our words.
  void explain(llhttp_errno_t code) {
    if (!refusal.reason.empty()) { return; }
    switch (code) {
      case HPE_INVALID_METHOD:
        refusal = {405, "this method is not known",
                   "use GET, HEAD, POST, PUT, PATCH, DELETE or OPTIONS"};
        return;
      case HPE_INVALID_VERSION:
        refusal = {505, "only HTTP/1.0 and HTTP/1.1 are spoken here", {}};
        return;
      default: break;
    }
    const char* why = llhttp_get_error_reason(&parser);
    refusal = {400,
               fmt::format("this is not a valid HTTP request: {}",
                           why != nullptr && *why != 0 ? why : llhttp_errno_name(code)),
               {}};
  }
};

RequestParser::RequestParser(const Limits& limits) : state_(std::make_unique<State>()) {
  auto& s = *state_;
  s.limits = limits;
  llhttp_settings_init(&s.settings);
  s.settings.on_url = [](llhttp_t* p, const char* at, std::size_t n) {
    return State::of(p).on_url({at, n});
  };
  s.settings.on_header_field = [](llhttp_t* p, const char* at, std::size_t n) {
    return State::of(p).on_field({at, n});
  };
  s.settings.on_header_value = [](llhttp_t* p, const char* at, std::size_t n) {
    return State::of(p).on_value({at, n});
  };
  s.settings.on_header_value_complete = [](llhttp_t* p) {
    State::of(p).value_open = true;
    return 0;
  };
  s.settings.on_headers_complete = [](llhttp_t* p) { return State::of(p).on_headers_complete(); };
  s.settings.on_body = [](llhttp_t* p, const char* at, std::size_t n) {
    return State::of(p).on_body({at, n});
  };
  s.settings.on_message_complete = [](llhttp_t* p) {
    State::of(p).keep_alive = llhttp_should_keep_alive(p) != 0;
    return static_cast<int>(HPE_PAUSED);
  };
  llhttp_init(&s.parser, HTTP_REQUEST, &s.settings);
  s.parser.data = &s;
}
RequestParser::~RequestParser() = default;

void RequestParser::begin() {
  auto& s = *state_;
  llhttp_init(&s.parser, HTTP_REQUEST, &s.settings);
  s.parser.data = &s;
  s.request = Request{};
  s.refusal = Refusal{};
  s.header_bytes = 0;
  s.trailer_bytes = 0;
  s.in_body = s.value_open = s.keep_alive = s.expects_continue = s.has_body = s.http_1_0 =
      s.touched = false;
}

Parsed RequestParser::feed(std::string_view& bytes) {
  auto& s = *state_;
  const bool had_head = s.in_body;
  if (!s.touched) {
    while (bytes.starts_with("\r\n")) {
      bytes.remove_prefix(2);
    }  // blank lines in front of a request are allowed
    if (bytes.empty()) { return Parsed::need_more; }
    s.touched = true;
  }
  if (llhttp_get_errno(&s.parser) == HPE_PAUSED) { llhttp_resume(&s.parser); }
  const auto code = llhttp_execute(&s.parser, bytes.data(), bytes.size());
  if (code == HPE_OK) {
    bytes = {};
    return Parsed::need_more;
  }
  if (code == HPE_PAUSED) {
    const char* at = llhttp_get_error_pos(&s.parser);
    bytes.remove_prefix(static_cast<std::size_t>(at - bytes.data()));
    return had_head ? Parsed::message : Parsed::headers;
  }
  s.explain(code);
  return Parsed::failed;
}

Request& RequestParser::request() { return state_->request; }
const Refusal& RequestParser::refusal() const { return state_->refusal; }
bool RequestParser::keep_alive() const { return state_->keep_alive; }
bool RequestParser::http_1_0() const { return state_->http_1_0; }
bool RequestParser::expects_continue() const { return state_->expects_continue; }
bool RequestParser::has_body() const { return state_->has_body; }
bool RequestParser::begun() const { return state_->touched; }

struct ResponseParser::State {
  llhttp_t parser{};
  llhttp_settings_t settings{};
  ClientResponse response;
  std::size_t body_limit = 0;
  std::size_t header_bytes = 0;
  bool head_only = false;
  bool value_open = false;
  bool complete = false;
  bool keep_alive = false;
  bool started = false;
  bool in_body = false;
  Error error{ErrorKind::unavailable, "the server did not answer with HTTP", {}, {}, {}};

  static State& of(llhttp_t* parser) { return *static_cast<State*>(parser->data); }

  int refuse(ErrorKind kind, std::string message) {
    error = Error{.kind = kind, .message = std::move(message)};
    return HPE_USER;
  }
  int on_field(std::string_view bytes) {
    if (in_body) { return HPE_OK; }
    if (value_open || response.headers.empty()) {
      value_open = false;
      response.headers.emplace_back();
    }
    response.headers.back().first += bytes;
    return count(bytes.size());
  }
  int on_value(std::string_view bytes) {
    if (in_body) { return HPE_OK; }
    response.headers.back().second += bytes;
    return count(bytes.size());
  }
  int count(std::size_t n) {
    header_bytes += n;
    return header_bytes > (256U << 10U)
               ? refuse(ErrorKind::too_large, "the head of the answer is too long")
               : static_cast<int>(HPE_OK);
  }
  int on_headers_complete() {
    in_body = true;
    response.status = parser.status_code;
    if (parser.status_code == 101) {
      return refuse(ErrorKind::unavailable, "the server switched protocols without being asked");
    }
    return head_only ? 1 : 0;  // 1: no body follows
  }
  int on_body(std::string_view bytes) {
    if (bytes.size() > body_limit - response.body.size()) {
      return refuse(ErrorKind::too_large,
                    fmt::format("the answer is larger than {} bytes", body_limit));
    }
    response.body += bytes;
    return HPE_OK;
  }
  int on_message_complete() {
    if (response.status >= 100 && response.status < 200) {  // interim: the answer is still to come
      response = ClientResponse{};
      value_open = in_body = false;
      return HPE_OK;
    }
    keep_alive = llhttp_should_keep_alive(&parser) != 0;
    complete = true;
    return HPE_PAUSED;
  }
};

ResponseParser::ResponseParser(std::size_t body_limit, bool head_only)
    : state_(std::make_unique<State>()) {
  auto& s = *state_;
  s.body_limit = body_limit;
  s.head_only = head_only;
  llhttp_settings_init(&s.settings);
  s.settings.on_header_field = [](llhttp_t* p, const char* at, std::size_t n) {
    return State::of(p).on_field({at, n});
  };
  s.settings.on_header_value = [](llhttp_t* p, const char* at, std::size_t n) {
    return State::of(p).on_value({at, n});
  };
  s.settings.on_header_value_complete = [](llhttp_t* p) {
    State::of(p).value_open = true;
    return 0;
  };
  s.settings.on_headers_complete = [](llhttp_t* p) { return State::of(p).on_headers_complete(); };
  s.settings.on_body = [](llhttp_t* p, const char* at, std::size_t n) {
    return State::of(p).on_body({at, n});
  };
  s.settings.on_message_complete = [](llhttp_t* p) { return State::of(p).on_message_complete(); };
  llhttp_init(&s.parser, HTTP_RESPONSE, &s.settings);
  s.parser.data = &s;
}
ResponseParser::~ResponseParser() = default;

Parsed ResponseParser::feed(std::string_view& bytes) {
  auto& s = *state_;
  if (bytes.empty()) { return Parsed::need_more; }
  s.started = true;
  const auto code = llhttp_execute(&s.parser, bytes.data(), bytes.size());
  if (code == HPE_OK) {
    bytes = {};
    return Parsed::need_more;
  }
  if (code == HPE_PAUSED && s.complete) {
    bytes.remove_prefix(static_cast<std::size_t>(llhttp_get_error_pos(&s.parser) - bytes.data()));
    return Parsed::message;
  }
  return Parsed::failed;
}

Parsed ResponseParser::finish() {
  auto& s = *state_;
  if (!s.started) {
    s.error = Error{.kind = ErrorKind::unavailable,
                    .message = "the server closed the connection without an answer"};
    return Parsed::failed;
  }
  llhttp_finish(&s.parser);
  if (s.complete) { return Parsed::message; }
  s.error = Error{.kind = ErrorKind::unavailable,
                  .message = "the server closed the connection in the middle of its answer"};
  return Parsed::failed;
}

ClientResponse& ResponseParser::response() { return state_->response; }
const Error& ResponseParser::error() const { return state_->error; }
bool ResponseParser::keep_alive() const { return state_->keep_alive; }
bool ResponseParser::started() const { return state_->started; }

bool is_token(std::string_view text) {
  static constexpr std::string_view kMarks = "!#$%&'*+-.^_`|~";
  const auto fits = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           kMarks.find(c) != std::string_view::npos;
  };
  return !text.empty() && std::ranges::all_of(text, fits);
}

Result<std::string> request_bytes(const ClientRequest& request, std::string_view host,
                                  std::string_view target) {
  if (!is_token(request.method)) {
    return fail(invalid("", quote(request.method) + " is not an HTTP method"));
  }
  std::string out;
  out.reserve(256 + target.size() + request.body.size());
  out.append(request.method)
      .append(" ")
      .append(target)
      .append(" HTTP/1.1\r\nhost: ")
      .append(host)
      .append("\r\n");
  for (const auto& [name, value] : request.headers) {
    const auto breaks = [](char c) { return c == '\r' || c == '\n' || c == '\0'; };
    if (!is_token(name) || std::ranges::any_of(value, breaks)) {
      return fail(invalid("", "header " + quote(name) + " is not valid"));
    }
    if (same_name(name, "host") || same_name(name, "content-length") ||
        same_name(name, "transfer-encoding")) {
      continue;
    }
    out.append(name).append(": ").append(value).append("\r\n");
  }
  const bool carries = !request.body.empty() || request.method == "POST" ||
                       request.method == "PUT" || request.method == "PATCH";
  if (carries) {
    out.append("content-length: ").append(std::to_string(request.body.size())).append("\r\n");
  }
  out.append("\r\n").append(request.body);
  return out;
}

std::string_view reason_phrase(int status) {
  switch (status) {
    case 100: return "Continue";
    case 200: return "OK";
    case 201: return "Created";
    case 202: return "Accepted";
    case 204: return "No Content";
    case 206: return "Partial Content";
    case 301: return "Moved Permanently";
    case 302: return "Found";
    case 304: return "Not Modified";
    case 307: return "Temporary Redirect";
    case 308: return "Permanent Redirect";
    case 400: return "Bad Request";
    case 401: return "Unauthorized";
    case 403: return "Forbidden";
    case 404: return "Not Found";
    case 405: return "Method Not Allowed";
    case 408: return "Request Timeout";
    case 409: return "Conflict";
    case 410: return "Gone";
    case 412: return "Precondition Failed";
    case 413: return "Content Too Large";
    case 414: return "URI Too Long";
    case 415: return "Unsupported Media Type";
    case 416: return "Range Not Satisfiable";
    case 417: return "Expectation Failed";
    case 422: return "Unprocessable Content";
    case 429: return "Too Many Requests";
    case 431: return "Request Header Fields Too Large";
    case 500: return "Internal Server Error";
    case 501: return "Not Implemented";
    case 502: return "Bad Gateway";
    case 503: return "Service Unavailable";
    case 504: return "Gateway Timeout";
    case 505: return "HTTP Version Not Supported";
    default: return "Status";
  }
}

}  // namespace metier::net
