// One client of the HTTP trigger: its request, its event, its answer. Requests of a pipeline are answered one after the other.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/files.h"
#include "realtime/event_target.h"
#include "realtime/loop.h"
#include "realtime/triggers/http/request.h"
#include "realtime/triggers/http/tls.h"

namespace metier::realtime {

// What all connections of a trigger share.
struct HttpSite {
  HttpSite(Loop& with, HttpOptions given, std::string name)
      : loop(with), options(std::move(given)), trigger_name(std::move(name)) {}
  Loop& loop;
  HttpOptions options;
  std::string trigger_name;
  std::unique_ptr<TlsContext> tls;  // null: plain
  EventTarget* target = nullptr;
  bool stopping = false;
  std::uint64_t accepted = 0, refused_requests = 0, health_checks = 0, responses = 0, bytes_in = 0,
                bytes_out = 0;
  int in_flight = 0;
  std::vector<std::uint32_t> closed;  // slots of connections that have ended
  std::string_view date();            // "Date: …\r\n", made once a second

 private:
  std::int64_t date_second_ = 0;
  char date_[64] = {};
  std::size_t date_size_ = 0;
};

class HttpConnection final : public Watched, public ResponseSink {
 public:
  HttpConnection(HttpSite& site, Fd socket, std::uint32_t slot);
  ~HttpConnection() override;

  bool start();
  bool closed() const { return !socket_; }
  bool busy() const { return state_ == State::delivering; }
  // Once a second: closes what is too slow.
  void sweep(SteadyTime now);
  void close();

  void on_ready(std::uint32_t events) noexcept override;
  void head(const ResponseHead& head) noexcept override;
  bool chunk(std::string_view bytes) noexcept override;
  void end() noexcept override;
  void fail(const Failure& failure) noexcept override;
  void respond(const ResponseHead& head, std::string_view body) noexcept override;
  void log(std::string_view record) noexcept override;

 private:
  enum class State { reading, delivering, closing };
  void read();
  void parsed(Parsed result);
  void deliver();
  bool answered_here();
  void preflight();
  void refuse(int status, std::string_view reason);
  void plain(int status, std::string_view type, std::string_view body, int retry_after_s = 0);
  void build_head(std::string& out, const ResponseHead& head, bool chunked);
  void write(std::string_view first, std::string_view second);
  void flush_out();
  ssize_t receive(char* at, std::size_t size);
  ssize_t transmit(std::string_view first, std::string_view second);
  void shut_output();
  void finished();

  HttpSite& site_;
  Fd socket_;
  std::unique_ptr<TlsSession> tls_;
  HttpRequest request_;
  Event event_;
  std::uint32_t slot_, generation_ = 0;
  State state_ = State::reading;
  bool readable_ = true, peer_done_ = false, close_after_ = false, chunked_ = false,
       headed_ = false, waits_for_room_ = false;
  bool in_parse_ = false, draining_input_ = false;
  std::string out_;
  std::size_t out_at_ = 0;
  std::string logs_;
  SteadyTime since_;  // of the request being read; of the last traffic when idle
};

}  // namespace metier::realtime
