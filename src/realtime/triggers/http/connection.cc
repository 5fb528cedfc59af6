#include "realtime/triggers/http/connection.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <ctime>

#include "base/clock.h"
#include "base/text.h"
#include "net/parser.h"
#include "realtime/ring.h"

namespace metier::realtime {
namespace {

constexpr std::size_t kOutputLimit = 1U << 20U;  // of a streamed answer; its writer then waits
constexpr std::size_t kLogsLimit = 4096;         // X-Nuclio-Logs, as Nuclio

void append_number(std::string& out, std::int64_t number) {
  std::array<char, 24> digits{};
  const auto end = std::to_chars(digits.data(), digits.data() + digits.size(), number);
  out.append(digits.data(), end.ptr);
}

bool same(std::string_view a, std::string_view lower) {
  return a.size() == lower.size() && lower_case(a) == lower;
}

}  // namespace

std::string_view HttpSite::date() {
  const std::int64_t second = loop.wall_us() / 1'000'000;
  if (second != date_second_) {
    date_second_ = second;
    const std::time_t now = second;
    std::tm parts{};
    ::gmtime_r(&now, &parts);
    static constexpr std::array<const char*, 7> kDays{"Sun", "Mon", "Tue", "Wed",
                                                      "Thu", "Fri", "Sat"};
    static constexpr std::array<const char*, 12> kMonths{"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                                         "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
    date_size_ = static_cast<std::size_t>(
        std::snprintf(date_, sizeof date_, "Date: %s, %02d %s %04d %02d:%02d:%02d GMT\r\n",
                      kDays[static_cast<std::size_t>(parts.tm_wday)], parts.tm_mday,
                      kMonths[static_cast<std::size_t>(parts.tm_mon)], parts.tm_year + 1900,
                      parts.tm_hour, parts.tm_min, parts.tm_sec));
  }
  return {date_, date_size_};
}

HttpConnection::HttpConnection(HttpSite& site, Fd socket, std::uint32_t slot)
    : site_(site),
      socket_(std::move(socket)),
      request_(site.options),
      slot_(slot),
      since_(site.loop.now()) {}

HttpConnection::~HttpConnection() { close(); }

bool HttpConnection::start() {
  if (site_.tls) { tls_ = site_.tls->accept(socket_.get()); }
  const int on = 1;
  ::setsockopt(socket_.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  if (!site_.loop.watch(socket_.get(), EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, *this)) {
    socket_.reset();
    site_.closed.push_back(slot_);
    return false;
  }
  return true;
}

void HttpConnection::close() {
  if (!socket_) { return; }
  site_.loop.forget(socket_.get(), *this);
  tls_.reset();
  socket_.reset();
  site_.closed.push_back(slot_);
  if (state_ == State::delivering) {
    // The target lets go of the event before this returns.
    site_.target->cancel(event_.id, *this);
  }
}

void HttpConnection::sweep(SteadyTime now) {
  if (closed()) { return; }
  const auto waited = now - since_;
  if (state_ == State::delivering) {
    // Its reader takes nothing: the handler's stream would wait for ever.
    if (out_at_ < out_.size() && waited > site_.options.body_deadline) { close(); }
    return;
  }
  if (state_ == State::closing) {
    if (waited > std::chrono::seconds(5)) { close(); }
    return;
  }
  if (out_at_ < out_.size()) {  // an answer that its reader does not take
    if (waited > site_.options.body_deadline) { close(); }
    return;
  }
  if (request_.idle()) {
    if (waited > std::chrono::seconds(1)) { request_.let_go(); }
    if (waited >
            (tls_ && !tls_->shaken() ? site_.options.head_deadline : site_.options.idle_deadline) ||
        (site_.stopping && waited > std::chrono::seconds(5))) {
      close();
    }
  } else if (waited > (request_.method().empty() ? site_.options.head_deadline
                                                 : site_.options.body_deadline)) {
    refuse(408, "the request did not arrive in time");
  }
}

void HttpConnection::on_ready(std::uint32_t events) noexcept {
  if ((events & (EPOLLHUP | EPOLLERR)) != 0) {
    close();
    return;
  }
  if ((events & EPOLLRDHUP) != 0) { peer_done_ = true; }
  if ((events & EPOLLOUT) != 0 && out_at_ < out_.size()) { flush_out(); }
  // A handshake may wait for room to write before it reads on.
  if ((events & (EPOLLIN | EPOLLRDHUP)) != 0 || (tls_ && !tls_->shaken())) {
    readable_ = true;
    if (state_ != State::delivering) { read(); }
  }
}

void HttpConnection::read() {
  while (socket_ && readable_ && state_ != State::delivering) {
    if (state_ ==
        State::
            closing) {  // what still comes is thrown away, so that the answer is not cut off by a reset
      std::array<char, 16384> rest{};
      const ssize_t n = receive(rest.data(), rest.size());
      if (n > 0) { continue; }
      if (n == 0 || (errno != EAGAIN && errno != EINTR)) { return close(); }
      readable_ = false;
      return;
    }
    if (out_at_ < out_.size()) { return; }  // the peer takes its answers first
    const HttpRequest::Room room = request_.room();
    const bool was_idle = !request_.begun();
    const ssize_t n = receive(room.at, room.size);
    if (n < 0) {
      if (errno == EINTR) { continue; }
      if (errno == EAGAIN) {
        readable_ = false;
        return;
      }
      return close();
    }
    if (n == 0) {
      readable_ = false;
      peer_done_ = true;
      return close();
    }
    if (was_idle) { since_ = site_.loop.now(); }
    site_.bytes_in += static_cast<std::uint64_t>(n);
    if (static_cast<std::size_t>(n) < room.size && !peer_done_ && !tls_) {
      readable_ = false;
    }  // the next bytes make a new edge
    parsed(request_.took(static_cast<std::size_t>(n)));
  }
}

void HttpConnection::parsed(Parsed result) {
  // A loop and not a recursion: the answer to one request may be there before `deliver` returns, and more lie behind it.
  in_parse_ = true;
  while (socket_) {
    if (result == Parsed::need_more) { break; }
    if (result == Parsed::failed) {
      refuse(request_.status(), request_.reason());
      break;
    }
    if (result == Parsed::headers) {
      since_ = site_.loop.now();
      if (!request_.has_more()) { write("HTTP/1.1 100 Continue\r\n\r\n", {}); }
      result = request_.go_on();
      continue;
    }
    deliver();
    if (state_ != State::reading || !socket_) { break; }
    request_.next();
    since_ = site_.loop.now();
    result = request_.has_more() ? request_.go_on() : Parsed::need_more;
  }
  in_parse_ = false;
}

bool HttpConnection::answered_here() {
  if (request_.path().starts_with("/__internal/health")) {
    ++site_.health_checks;
    plain(site_.stopping ? 503 : 200, "text/plain", "");
    return true;
  }
  const CorsOptions& cors = site_.options.cors;
  if (!cors.enabled) { return false; }
  if (request_.method() == "OPTIONS" && !request_.header(HttpRequest::kRequestMethod).empty()) {
    preflight();
    return true;
  }
  const std::string_view origin = request_.header(HttpRequest::kOrigin);
  if (!origin.empty() && !cors.allows(origin)) {
    plain(403, "text/plain", "the origin is not allowed");
    return true;
  }
  return false;
}

void HttpConnection::preflight() {
  const CorsOptions& cors = site_.options.cors;
  const std::string_view origin = request_.header(HttpRequest::kOrigin);
  const std::string_view method = request_.header(HttpRequest::kRequestMethod);
  bool allowed = !origin.empty() && cors.allows(origin);
  bool known = false;
  for (const std::string& entry : cors.allow_methods) { known = known || entry == method; }
  allowed = allowed && known;
  std::vector<HeaderView> headers;
  const std::string methods = join(cors.allow_methods);
  const std::string names = join(cors.allow_headers);
  const std::string age = std::to_string(cors.preflight_max_age_s);
  if (allowed) {
    headers = {{"Access-Control-Allow-Methods", methods},
               {"Access-Control-Allow-Headers", names},
               {"Access-Control-Max-Age", age}};
  }
  ++site_.in_flight;
  respond({.status = allowed ? 200 : 400, .content_type = "text/plain", .headers = headers}, {});
}

void HttpConnection::deliver() {
  state_ = State::delivering;
  headed_ = chunked_ = false;
  logs_.clear();
  close_after_ = !request_.keep_alive() || site_.stopping;
  if (answered_here()) { return; }
  event_ = Event{};
  event_.id = {slot_, ++generation_};
  event_.trigger_kind = "http";
  event_.trigger_name = site_.trigger_name;
  event_.method = request_.method();
  event_.path = request_.path();
  event_.query = request_.query();
  event_.content_type = request_.header(HttpRequest::kContentType);
  event_.headers = request_.headers();
  event_.body = request_.body();
  event_.timestamp_us = site_.loop.wall_us();
  if (const std::string_view version = request_.header(HttpRequest::kCeVersion); !version.empty()) {
    event_.version = version;
    for (const HeaderView& header :
         event_.headers) {  // a binary CloudEvent, 0.1 names as Nuclio reads them
      if (same(header.name, "ce-eventid")) { event_.uid = header.value; }
      if (same(header.name, "ce-eventtype")) { event_.type = header.value; }
      if (same(header.name, "ce-eventtypeversion")) { event_.type_version = header.value; }
      if (same(header.name, "ce-source")) { event_.trigger_kind = header.value; }
      if (same(header.name, "ce-eventtime")) {
        if (const auto when = from_iso(header.value)) {
          event_.timestamp_us = when->time_since_epoch().count();
        }
      }
    }
  }
  if (const std::string_view level = request_.header(HttpRequest::kLogLevel); !level.empty()) {
    const std::string word = lower_case(level);
    event_.wants_logs = true;
    event_.log_level = word == "debug" ? 0 : word == "info" ? 1 : word.starts_with("warn") ? 2 : 3;
  }
  ++site_.in_flight;
  site_.target->deliver(event_, *this);
}

void HttpConnection::build_head(std::string& out, const ResponseHead& head, bool chunked) {
  out.clear();
  close_after_ = close_after_ || site_.stopping;  // also of a request that came before
  if (head.status == 200) {
    out += "HTTP/1.1 200 OK\r\n";
  } else {
    out += "HTTP/1.1 ";
    append_number(out, head.status);
    out += ' ';
    out += net::reason_phrase(head.status);
    out += "\r\n";
  }
  std::string_view type =
      head.content_type.empty() ? std::string_view("text/plain; charset=utf-8") : head.content_type;
  bool server = false;
  for (const HeaderView& header : head.headers) {
    // Framing is ours; one content type.
    if (same(header.name, "content-length") || same(header.name, "transfer-encoding") ||
        same(header.name, "connection") || same(header.name, "keep-alive") ||
        same(header.name, "date")) {
      continue;
    }
    if (same(header.name, "content-type")) {
      type = header.value;
      continue;
    }
    server = server || same(header.name, "server");
    out.append(header.name).append(": ").append(header.value).append("\r\n");
  }
  if (!server) { out += "Server: nuclio\r\n"; }
  out += site_.date();
  out.append("Content-Type: ").append(type).append("\r\n");
  const bool no_body = head.status == 204 || head.status == 304 || head.status < 200;
  if (chunked) {
    out += "Transfer-Encoding: chunked\r\n";
  } else if (!no_body) {
    if (head.length >= 0) {
      out += "Content-Length: ";
      append_number(out, head.length);
      out += "\r\n";
    } else {
      close_after_ = true;
    }
  }
  if (const CorsOptions& cors = site_.options.cors; cors.enabled) {
    if (const std::string_view origin = request_.header(HttpRequest::kOrigin);
        !origin.empty() && cors.allows(origin)) {
      out.append("Access-Control-Allow-Origin: ").append(origin).append("\r\n");
      if (cors.allow_credentials) { out += "Access-Control-Allow-Credentials: true\r\n"; }
      if (!cors.expose_headers.empty()) {
        out.append("Access-Control-Expose-Headers: ")
            .append(join(cors.expose_headers))
            .append("\r\n");
      }
    }
    out +=
        "Vary: Origin\r\nVary: Access-Control-Request-Method\r\nVary: "
        "Access-Control-Request-Headers\r\n";
  }
  if (const std::string_view trace = request_.header(HttpRequest::kTraceParent);
      trace.size() == 55 && valid_header("traceparent", trace)) {
    out.append("traceparent: ").append(trace).append("\r\n");
  }
  if (!logs_.empty() && logs_.size() + 2 < kLogsLimit) {
    out.append("X-Nuclio-Logs: [").append(logs_).append("]\r\n");
  }
  if (close_after_) {
    out += "Connection: close\r\n";
  } else if (request_.keep_alive() && request_.http_1_0()) {
    out += "Connection: keep-alive\r\n";
  }
  out += "\r\n";
}

void HttpConnection::respond(const ResponseHead& given, std::string_view body) noexcept {
  thread_local std::string bytes;
  ResponseHead whole = given;
  whole.length = static_cast<std::int64_t>(body.size());
  build_head(bytes, whole, false);
  const bool no_body = request_.is_head() || whole.status == 204 || whole.status == 304;
  write(bytes, no_body ? std::string_view() : body);
  ++site_.responses;
  finished();
}

void HttpConnection::head(const ResponseHead& given) noexcept {
  thread_local std::string bytes;
  headed_ = true;
  chunked_ = given.length < 0 && !request_.http_1_0() && given.status != 204 && given.status != 304;
  build_head(bytes, given, chunked_);
  write(bytes, {});
}

bool HttpConnection::chunk(std::string_view bytes) noexcept {
  if (bytes.empty() || request_.is_head()) { return true; }
  if (chunked_) {
    std::array<char, 24> size{};
    auto end = std::to_chars(size.data(), size.data() + 16, bytes.size(), 16);
    *end.ptr++ = '\r';
    *end.ptr++ = '\n';
    write({size.data(), static_cast<std::size_t>(end.ptr - size.data())}, bytes);
    write("\r\n", {});
  } else {
    write(bytes, {});
  }
  waits_for_room_ = out_.size() - out_at_ > kOutputLimit;
  return !waits_for_room_;
}

void HttpConnection::end() noexcept {
  if (chunked_ && !request_.is_head()) { write("0\r\n\r\n", {}); }
  ++site_.responses;
  finished();
}

void HttpConnection::fail(const Failure& failure) noexcept {
  if (failure.reason == FailReason::cancelled || !socket_) {
    state_ = State::closing;
    --site_.in_flight;
    return;
  }
  if (headed_) {  // half an answer is out: only the end of the connection can say that it broke off
    state_ = State::closing;
    --site_.in_flight;
    close();
    return;
  }
  const std::string_view type =
      failure.message.starts_with('{') ? "application/json" : "text/plain";
  if (failure.retry_after_s > 0) {
    const std::string seconds = std::to_string(failure.retry_after_s);
    const HeaderView header{"Retry-After", seconds};
    respond({.status = failure.status, .content_type = type, .headers = {&header, 1}},
            failure.message);
  } else {
    respond({.status = failure.status, .content_type = type}, failure.message);
  }
}

void HttpConnection::log(std::string_view record) noexcept {
  if (logs_.size() >= kLogsLimit) { return; }
  if (!logs_.empty()) { logs_ += ','; }
  for (const char c : record) { logs_ += static_cast<unsigned char>(c) < 32 ? ' ' : c; }
}

void HttpConnection::plain(int status, std::string_view type, std::string_view body, int) {
  ++site_.in_flight;
  respond({.status = status, .content_type = type}, body);
}

void HttpConnection::refuse(int status, std::string_view reason) {
  ++site_.refused_requests;
  close_after_ = true;
  headed_ = chunked_ = false;
  logs_.clear();
  std::string body(reason);
  if (!body.empty()) { body += '\n'; }
  state_ = State::delivering;
  plain(status, "text/plain", body);
}

ssize_t HttpConnection::receive(char* at, std::size_t size) {
  return tls_ ? tls_->receive(at, size) : ::recv(socket_.get(), at, size, MSG_DONTWAIT);
}

ssize_t HttpConnection::transmit(std::string_view first, std::string_view second) {
  if (tls_) {
    if (second.empty()) { return tls_->send(first); }
    // One record for a small answer; a large body goes behind its head.
    if (first.size() + second.size() <= 16384) {
      thread_local std::string joined;
      joined.assign(first).append(second);
      return tls_->send(joined);
    }
    const ssize_t head = tls_->send(first);
    if (head < static_cast<ssize_t>(first.size())) { return head; }
    const ssize_t body = tls_->send(second);
    return body < 0 ? head : head + body;
  }
  std::array<iovec, 2> parts{iovec{const_cast<char*>(first.data()), first.size()},
                             iovec{const_cast<char*>(second.data()), second.size()}};
  msghdr message{};
  message.msg_iov = parts.data();
  message.msg_iovlen = second.empty() ? 1 : 2;
  return ::sendmsg(socket_.get(), &message, MSG_NOSIGNAL | MSG_DONTWAIT);
}

void HttpConnection::shut_output() {
  if (tls_) { tls_->say_goodbye(); }
  ::shutdown(socket_.get(), SHUT_WR);
}

void HttpConnection::write(std::string_view first, std::string_view second) {
  if (!socket_) { return; }
  std::size_t sent = 0;
  if (out_at_ == out_.size()) {
    const ssize_t n = transmit(first, second);
    if (n > 0) { sent = static_cast<std::size_t>(n); }
    if (n < 0 && errno != EAGAIN && errno != EINTR) {
      close_after_ = true;  // the peer has gone; its hang-up follows
      return;
    }
    if (sent == first.size() + second.size()) {
      site_.bytes_out += sent;
      return;
    }
    out_.clear();
    out_at_ = 0;
    since_ = site_.loop.now();
  }
  if (sent < first.size()) {
    out_.append(first.substr(sent));
    out_.append(second);
  } else {
    out_.append(second.substr(sent - first.size()));
  }
  site_.bytes_out += first.size() + second.size();
  // TLS takes a record at a time: only a socket that is full wakes us again.
  while (tls_ && out_at_ < out_.size()) {
    const ssize_t n = transmit(std::string_view(out_).substr(out_at_), {});
    if (n <= 0) { return; }
    out_at_ += static_cast<std::size_t>(n);
  }
  if (out_at_ == out_.size()) {
    out_.clear();
    out_at_ = 0;
  }
}

void HttpConnection::flush_out() {
  while (out_at_ < out_.size()) {
    const ssize_t n = transmit(std::string_view(out_).substr(out_at_), {});
    if (n < 0) {
      if (errno == EINTR) { continue; }
      if (errno == EAGAIN) { break; }
      close();
      return;
    }
    out_at_ += static_cast<std::size_t>(n);
    since_ = site_.loop.now();
  }
  if (out_at_ == out_.size()) {
    out_.clear();
    out_at_ = 0;
    if (out_.capacity() > 65536) { out_.shrink_to_fit(); }
  } else if (out_at_ > kOutputLimit) {
    out_.erase(0, out_at_);
    out_at_ = 0;
  }
  if (waits_for_room_ && out_.size() - out_at_ < kOutputLimit / 2) {
    waits_for_room_ = false;
    if (state_ == State::delivering) { site_.target->resume(*this); }
  }
  if (out_.empty()) {
    if (state_ == State::closing) {
      shut_output();
      if (peer_done_) { return close(); }
    }
    if (state_ != State::delivering) {
      if (request_.has_more() && state_ == State::reading) { parsed(request_.go_on()); }
      read();
    }
  }
}

void HttpConnection::finished() {
  --site_.in_flight;
  since_ = site_.loop.now();
  if (!socket_) {
    state_ = State::closing;
    return;
  }
  if (close_after_) {
    state_ = State::closing;
    if (out_at_ == out_.size()) {
      shut_output();
      if (peer_done_) { return close(); }
      if (!in_parse_) { read(); }
    }
    return;
  }
  state_ = State::reading;
  if (in_parse_) { return; }  // `parsed` goes on
  request_.next();
  if (out_at_ < out_.size()) { return; }  // `flush_out` goes on
  if (request_.has_more()) { parsed(request_.go_on()); }
  if (state_ == State::reading && readable_) { read(); }
}

}  // namespace metier::realtime
