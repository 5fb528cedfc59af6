// One HTTP/1.1 request at a time out of a connection's bytes, in place: views into the buffer that the bytes were read into. llhttp, strict:
// no lenient flag is set.
#pragma once

#include <llhttp.h>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "realtime/event.h"
#include "realtime/triggers/http/options.h"

namespace metier::realtime {

enum class Parsed { need_more, headers, message, failed };

// The bytes lie in `data()`; `room` gives where the next ones are read to. After `message` the request's views hold until `next`.
class HttpRequest final {
 public:
  explicit HttpRequest(const HttpOptions& options);

  struct Room {
    char* at;
    std::size_t size;
  };
  Room room();
  Parsed took(std::size_t bytes);  // that many were read
  Parsed go_on();                  // without new bytes: after `headers`, after `next`
  void next();                     // the answered request goes, what came behind it stays
  bool has_more() const { return parsed_ < filled_; }
  bool begun() const { return filled_ > 0; }
  bool idle() const { return filled_ == 0; }
  void let_go();  // frees the buffer of an idle connection

  // After `headers`.
  bool expects_continue() const { return expects_continue_; }
  bool announced_body() const;
  // After `message`.
  std::string_view method() const { return method_; }
  std::string_view path() const { return path_; }  // decoded once
  std::string_view query() const { return query_; }
  std::string_view header(int which) const { return known_[which]; }
  const std::vector<HeaderView>& headers() const { return views_; }
  std::string_view body() const;
  bool keep_alive() const { return keep_alive_; }
  bool is_head() const { return method_ == "HEAD"; }
  bool http_1_0() const { return parser_.http_major == 1 && parser_.http_minor == 0; }
  // After `failed`.
  int status() const { return status_; }
  std::string_view reason() const { return reason_; }

  enum Known {
    kContentType,
    kOrigin,
    kLogLevel,
    kTraceParent,
    kRequestMethod,
    kCeVersion,
    kKnownCount
  };

 private:
  struct Span {
    std::uint32_t at = 0;
    std::uint32_t size = 0;
  };
  Parsed run();
  Parsed refuse(int status, std::string_view reason);
  void extend(Span& span, const char* at, std::size_t size);
  std::string_view view(Span span) const { return {buffer_.get() + span.at, span.size}; }
  int headers_done();
  bool decode_target();

  static HttpRequest& self(llhttp_t* parser) { return *static_cast<HttpRequest*>(parser->data); }
  static const llhttp_settings_t& settings();

  const HttpOptions& options_;
  llhttp_t parser_{};
  std::unique_ptr<char[]> buffer_;
  std::size_t capacity_ = 0, filled_ = 0, parsed_ = 0;
  Span url_;
  std::vector<std::pair<Span, Span>> spans_;
  bool in_value_ = false, have_head_ = false, expects_continue_ = false, keep_alive_ = false,
       chunked_ = false, paused_ = false;
  Span body_;
  std::string chunks_;
  std::string method_, decoded_;
  std::string_view path_, query_;
  std::vector<HeaderView> views_;
  std::string_view known_[kKnownCount];
  int status_ = 400;
  std::string_view reason_;
};

}  // namespace metier::realtime
