#include "realtime/triggers/http/request.h"

#include <algorithm>
#include <cstring>

namespace metier::realtime {
namespace {

constexpr std::size_t kFirst = 4096;
constexpr std::size_t kAnnounced = 256U << 10U;
constexpr std::size_t kKept = 512U << 10U;  // a larger buffer is given back after its request

bool same_name(std::string_view name, std::string_view lower) {
  if (name.size() != lower.size()) { return false; }
  for (std::size_t i = 0; i < name.size(); ++i) {
    const char c = name[i];
    if ((c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c) != lower[i]) { return false; }
  }
  return true;
}

int hex(char c) {
  if (c >= '0' && c <= '9') { return c - '0'; }
  if (c >= 'a' && c <= 'f') { return c - 'a' + 10; }
  if (c >= 'A' && c <= 'F') { return c - 'A' + 10; }
  return -1;
}

}  // namespace

HttpRequest::HttpRequest(const HttpOptions& options) : options_(options) {
  llhttp_init(&parser_, HTTP_REQUEST, &settings());
  parser_.data = this;
}

const llhttp_settings_t& HttpRequest::settings() {
  static const llhttp_settings_t kSettings = [] {
    llhttp_settings_t s;
    llhttp_settings_init(&s);
    s.on_url = [](llhttp_t* p, const char* at, std::size_t n) {
      HttpRequest& r = self(p);
      r.extend(r.url_, at, n);
      return r.url_.size > r.options_.target_bytes
                 ? (r.refuse(414, "the URL is longer than 8 KiB"), -1)
                 : 0;
    };
    s.on_header_field = [](llhttp_t* p, const char* at, std::size_t n) {
      HttpRequest& r = self(p);
      if (r.have_head_) { return 0; }  // trailers are read over
      if (r.in_value_ || r.spans_.empty()) {
        r.spans_.emplace_back();
        r.in_value_ = false;
      }
      r.extend(r.spans_.back().first, at, n);
      return 0;
    };
    // Not before a name is whole: the verdict does not depend on where the bytes were cut.
    s.on_header_field_complete = [](llhttp_t* p) {
      HttpRequest& r = self(p);
      return r.spans_.size() > r.options_.headers
                 ? (r.refuse(431, "the request has more than 100 headers"), -1)
                 : 0;
    };
    s.on_header_value = [](llhttp_t* p, const char* at, std::size_t n) {
      HttpRequest& r = self(p);
      if (r.have_head_) { return 0; }
      r.in_value_ = true;
      if (!r.spans_.empty()) { r.extend(r.spans_.back().second, at, n); }
      return 0;
    };
    s.on_header_value_complete = [](llhttp_t* p) {
      self(p).in_value_ = true;
      return 0;
    };
    s.on_headers_complete = [](llhttp_t* p) { return self(p).headers_done(); };
    s.on_body = [](llhttp_t* p, const char* at, std::size_t n) {
      HttpRequest& r = self(p);
      if (!r.chunked_) {
        r.extend(r.body_, at, n);
        return 0;
      }
      if (r.chunks_.size() + n > r.options_.body_bytes) {
        return r.refuse(413, "the body is larger than maxRequestBodySize"), -1;
      }
      r.chunks_.append(at, n);
      return 0;
    };
    s.on_message_complete = [](llhttp_t* p) { return static_cast<int>(HPE_PAUSED); };
    return s;
  }();
  return kSettings;
}

void HttpRequest::extend(Span& span, const char* at, std::size_t size) {
  if (span.size == 0) { span.at = static_cast<std::uint32_t>(at - buffer_.get()); }
  span.size += static_cast<std::uint32_t>(size);
}

HttpRequest::Room HttpRequest::room() {
  if (capacity_ == filled_) {
    std::size_t bigger = capacity_ == 0 ? kFirst : capacity_ * 2;
    // The rest of a body whose length is known at once, within what an announcement alone may take.
    if (have_head_ && !chunked_ && parser_.content_length > 0) {
      bigger = std::max(
          bigger,
          std::min(kAnnounced, filled_ + static_cast<std::size_t>(parser_.content_length) + 1));
    }
    auto buffer = std::make_unique_for_overwrite<char[]>(bigger);
    if (filled_ > 0) { std::memcpy(buffer.get(), buffer_.get(), filled_); }
    buffer_ = std::move(buffer);
    capacity_ = bigger;
  }
  return {buffer_.get() + filled_, capacity_ - filled_};
}

Parsed HttpRequest::took(std::size_t bytes) {
  filled_ += bytes;
  return run();
}

Parsed HttpRequest::go_on() { return run(); }

bool HttpRequest::announced_body() const { return chunked_ || parser_.content_length > 0; }

Parsed HttpRequest::refuse(int status, std::string_view reason) {
  status_ = status;
  reason_ = reason;
  return Parsed::failed;
}

int HttpRequest::headers_done() {
  have_head_ = true;
  chunked_ = (parser_.flags & F_CHUNKED) != 0;
  keep_alive_ = llhttp_should_keep_alive(&parser_) != 0;
  if (!chunked_ && (parser_.flags & F_CONTENT_LENGTH) != 0 &&
      parser_.content_length > options_.body_bytes) {
    refuse(413, "the body is larger than maxRequestBodySize");
    return -1;
  }
  if (!spans_.empty() && std::max(spans_.back().second.at + spans_.back().second.size,
                                  spans_.back().first.at) > options_.head_bytes) {
    refuse(431, "the request's head is larger than readBufferSize");
    return -1;
  }
  if (parser_.http_major != 1) {
    refuse(505, "only versions 1.0 and 1.1 are spoken here");
    return -1;
  }
  if (url_.at < 2 || buffer_[url_.at - 2] == ' ') {  // the parser reads over more spaces than one
    refuse(400, "the request line has more spaces than two");
    return -1;
  }
  int hosts = 0;
  for (const auto& [name, value] : spans_) {
    const std::string_view text = view(name);
    if (same_name(text, "host")) { ++hosts; }
    if (same_name(text, "expect")) {
      if (!same_name(view(value), "100-continue")) {
        refuse(417, "only 100-continue can be expected");
        return -1;
      }
      expects_continue_ = parser_.http_minor > 0;
    }
  }
  if (hosts > 1 || (hosts == 0 && parser_.http_minor >= 1)) {
    refuse(400, hosts > 1 ? "the request has two Host headers" : "the request has no Host header");
    return -1;
  }
  if (parser_.method == HTTP_CONNECT) {
    refuse(405, "CONNECT is for proxies");
    return -1;
  }
  // HTTP/2 by upgrade and WebSocket are not spoken here: the request is an ordinary one.
  parser_.upgrade = 0;
  return expects_continue_ && announced_body() ? static_cast<int>(HPE_PAUSED) : 0;
}

bool HttpRequest::decode_target() {
  std::string_view target = view(url_);
  if (target.starts_with("http://") || target.starts_with("https://")) {
    const std::size_t slash = target.find('/', target.find("//") + 2);
    target = slash == std::string_view::npos ? std::string_view("/") : target.substr(slash);
  }
  target = target.substr(0, target.find('#'));
  const std::size_t mark = target.find('?');
  query_ = mark == std::string_view::npos ? std::string_view() : target.substr(mark + 1);
  path_ = target.substr(0, mark);
  if (path_.find('%') == std::string_view::npos) { return true; }
  decoded_.clear();
  for (std::size_t i = 0; i < path_.size(); ++i) {
    if (path_[i] != '%') {
      decoded_ += path_[i];
      continue;
    }
    const int high = i + 2 < path_.size() ? hex(path_[i + 1]) : -1;
    const int low = i + 2 < path_.size() ? hex(path_[i + 2]) : -1;
    if (high < 0 || low < 0 || (high == 0 && low == 0)) { return false; }
    decoded_ += static_cast<char>(high * 16 + low);
    i += 2;
  }
  path_ = decoded_;
  return true;
}

std::string_view HttpRequest::body() const {
  return chunked_ ? std::string_view(chunks_) : view(body_);
}

Parsed HttpRequest::run() {
  if (paused_) {
    llhttp_resume(&parser_);
    paused_ = false;
  }
  if (parsed_ == filled_) { return Parsed::need_more; }
  const char* const start = buffer_.get() + parsed_;
  const bool had_head = have_head_;
  const llhttp_errno_t error = llhttp_execute(&parser_, start, filled_ - parsed_);
  if (error == HPE_OK) {
    parsed_ = filled_;
    if (!have_head_ && filled_ > options_.head_bytes) {
      return refuse(431, "the request's head is larger than readBufferSize");
    }
    return Parsed::need_more;
  }
  if (error == HPE_PAUSED) {
    paused_ = true;
    parsed_ = static_cast<std::size_t>(llhttp_get_error_pos(&parser_) - buffer_.get());
    if (!had_head && have_head_ && expects_continue_ && announced_body() && body_.size == 0 &&
        chunks_.empty()) {
      return Parsed::headers;
    }
  } else {
    if (reason_.empty()) {
      refuse(400, llhttp_get_error_reason(&parser_) == nullptr ? "the request is no HTTP"
                                                               : llhttp_get_error_reason(&parser_));
    }
    return Parsed::failed;
  }
  method_ = llhttp_method_name(static_cast<llhttp_method_t>(parser_.method));
  if (!decode_target()) { return refuse(400, "the URL's escapes are wrong"); }
  views_.clear();
  std::ranges::fill(known_, std::string_view());
  for (const auto& [name, value] : spans_) {
    const HeaderView header{view(name), view(value)};
    views_.push_back(header);
    switch (header.name.size()) {
      case 6:
        if (same_name(header.name, "origin")) { known_[kOrigin] = header.value; }
        break;
      case 11:
        if (same_name(header.name, "traceparent")) { known_[kTraceParent] = header.value; }
        break;
      case 12:
        if (same_name(header.name, "content-type")) { known_[kContentType] = header.value; }
        break;
      case 18:
        if (same_name(header.name, "x-nuclio-log-level")) { known_[kLogLevel] = header.value; }
        break;
      case 21:
        if (same_name(header.name, "ce-cloudeventsversion")) { known_[kCeVersion] = header.value; }
        break;
      case 29:
        if (same_name(header.name, "access-control-request-method")) {
          known_[kRequestMethod] = header.value;
        }
        break;
      default: break;
    }
  }
  return Parsed::message;
}

void HttpRequest::next() {
  const std::size_t left = filled_ - parsed_;
  if (left > 0) { std::memmove(buffer_.get(), buffer_.get() + parsed_, left); }
  filled_ = left;
  parsed_ = 0;
  url_ = {};
  body_ = {};
  spans_.clear();
  chunks_.clear();
  if (chunks_.capacity() > 65536) { chunks_.shrink_to_fit(); }
  in_value_ = have_head_ = expects_continue_ = chunked_ = false;
  reason_ = {};
  if (capacity_ > kKept && left == 0) { let_go(); }
}

void HttpRequest::let_go() {
  buffer_.reset();
  capacity_ = 0;
}

}  // namespace metier::realtime
