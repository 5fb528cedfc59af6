#include "realtime/triggers/http/http.h"

#include <fmt/format.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <memory>
#include <vector>

#include "realtime/listen.h"
#include "realtime/triggers/http/connection.h"

namespace metier::realtime {
namespace {

class HttpTrigger final : public Trigger, public Watched {
 public:
  HttpTrigger(const TriggerSite& site, HttpOptions options)
      : site_(site.loop, std::move(options), site.trigger.name),
        listen_(site.trigger.listen),
        log_(site.log),
        sweep_timer_(site.loop, [this] { sweep(); }),
        shared_(!site.trigger.listen.gate.empty() || site.trigger.listen.fd >= 0),
        look_again_(site.loop, [this] { look_again(); }) {
    rlimit limit{};
    ::getrlimit(RLIMIT_NOFILE, &limit);
    limit_ = std::min<std::size_t>(static_cast<std::size_t>(site_.options.connections),
                                   limit.rlim_cur > 128 ? limit.rlim_cur - 64 : 64);
  }
  ~HttpTrigger() override { close_listener(); }

  Result<void> start(EventTarget& target) override {
    site_.target = &target;
    if (!site_.options.tls_certificate.empty()) {
      METIER_TRY(tls, TlsContext::load(site_.options.tls_certificate, site_.options.tls_key));
      site_.tls = std::move(tls);
    }
    METIER_TRY(socket, listening_socket(listen_));
    socket_ = std::move(socket);
    METIER_CHECK(site_.loop.watch(socket_.get(), EPOLLIN, *this));
    site_.loop.at_turn_end([this] {
      if (!site_.closed.empty()) { reap(); }
      return false;
    });
    sweep_timer_.after(std::chrono::seconds(1));
    return {};
  }

  void stop(std::function<void()> done) override {
    // What waits in the backlog is another processor's when the socket is shared; with an own socket it is answered first.
    if (socket_ && !shared_) { accept_all(); }
    site_.stopping = true;
    close_listener();
    done_ = std::move(done);
    for (auto& connection : connections_) {
      if (connection && !connection->busy()) { connection->sweep(site_.loop.now()); }
    }
    stopped_at_ = site_.loop.now();
    sweep_timer_.after(std::chrono::milliseconds(20));
  }

  void on_ready(std::uint32_t) noexcept override { shared_ ? accept_with_room() : accept_all(); }

  std::uint16_t port() const override { return socket_ ? port_of(socket_.get()) : 0; }
  int listener() const override { return socket_.get(); }
  bool ready() const override { return static_cast<bool>(socket_); }
  std::string describe() const override {
    return fmt::format("listening on port {}, {} connections", port(), open_);
  }

  void metrics(MetricsWriter& out) const override {
    const Labels id{{"trigger_kind", "http"}, {"trigger_id", site_.trigger_name}};
    out.gauge("metier_http_connections", "Open connections", id, static_cast<double>(open_));
    out.counter("metier_http_accepted_total", "Connections accepted", id, site_.accepted);
    out.counter("metier_http_refused_connections_total", "Connections closed at the limit", id,
                refused_);
    out.counter("metier_http_refused_requests_total", "Requests that no event came of", id,
                site_.refused_requests);
    out.counter("metier_http_received_bytes_total", "Bytes of requests", id, site_.bytes_in);
    out.counter("metier_http_sent_bytes_total", "Bytes of answers", id, site_.bytes_out);
  }

 private:
  void accept_all() {
    for (int i = 0; i < 64 && accept_one(); ++i) {}
  }

  // A connection of the backlog is taken. False: there is none.
  bool accept_one() {
    if (!socket_) { return false; }
    Fd fd(::accept4(socket_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!fd) {
      if (errno == EMFILE || errno == ENFILE) {
        log_.warn("no descriptor is left for a connection");
      }
      return false;
    }
    ++site_.accepted;
    if (open_ >= limit_) {
      ++refused_;
      static constexpr std::string_view kFull =
          "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: "
          "0\r\nConnection: close\r\n\r\n";
      [[maybe_unused]] const auto sent =
          ::send(fd.get(), kFull.data(), kFull.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
      return true;
    }
    std::uint32_t slot = 0;
    if (free_.empty()) {
      slot = static_cast<std::uint32_t>(connections_.size());
      connections_.emplace_back();
    } else {
      slot = free_.back();
      free_.pop_back();
    }
    connections_[slot] = std::make_unique<HttpConnection>(site_, std::move(fd), slot);
    ++open_;
    if (connections_[slot]->start()) { connections_[slot]->on_ready(EPOLLIN); }
    return true;
  }

  // Of a socket that replicas share, the kernel wakes all of them for a connection. One without a free worker lets
  // those that have one take it: it does not watch the socket until it has room. What is still in the backlog after a
  // moment found none free anywhere and waits in a queue here.
  void accept_with_room() {
    for (int i = 0; i < 64; ++i) {
      if (!site_.target->has_room()) { return step_back(); }
      if (!accept_one()) { return; }
    }
  }

  void step_back() {
    watching_ = false;
    site_.loop.forget(socket_.get(), *this);
    moment_ = kFirst;
    look_again_.after(moment_);
    if (std::exchange(room_awaited_, true)) { return; }
    site_.target->when_room(-1, [this] {
      room_awaited_ = false;
      if (socket_ && !watching_) { watch_again(); }
    });
  }

  void look_again() {
    if (!socket_ || watching_) { return; }
    if (site_.target->has_room()) { return watch_again(); }
    moment_ = accept_one() ? kShortest : std::min(moment_ * 2, kLongest);
    look_again_.after(moment_);
  }

  void watch_again() {
    look_again_.cancel();
    const auto watched = site_.loop.watch(socket_.get(), EPOLLIN, *this);
    watching_ = watched.has_value();
    if (watching_) { return; }
    log_.warn("connections wait: " + watched.error().message);
    look_again_.after(kLongest);
  }

  void sweep() {
    const SteadyTime now = site_.loop.now();
    for (std::size_t slot = 0; slot < connections_.size(); ++slot) {
      if (connections_[slot]) { connections_[slot]->sweep(now); }
    }
    reap();
    if (done_ &&
        (open_ == 0 || (site_.in_flight == 0 && now - stopped_at_ > std::chrono::seconds(6)))) {
      std::exchange(done_, nullptr)();
      return;
    }
    sweep_timer_.after(site_.stopping ? std::chrono::milliseconds(20)
                                      : std::chrono::milliseconds(1000));
  }

  void reap() {
    for (const std::uint32_t slot : std::exchange(site_.closed, {})) {
      if (connections_[slot]->busy()) {  // its event has not let go yet
        site_.closed.push_back(slot);
        continue;
      }
      connections_[slot].reset();
      free_.push_back(slot);
      --open_;
    }
  }

  void close_listener() {
    if (!socket_) { return; }
    if (watching_) { site_.loop.forget(socket_.get(), *this); }
    socket_.reset();
  }

  // The first look leaves the others time to come, also on a busy machine: nothing waits for it that has a free worker.
  static constexpr std::chrono::milliseconds kFirst{25}, kShortest{2}, kLongest{32};

  HttpSite site_;
  ListenConfig listen_;
  Logger log_;
  LoopTimer sweep_timer_;
  bool shared_;  // with the processors of other replicas
  bool watching_ = true, room_awaited_ = false;
  LoopTimer look_again_;
  std::chrono::milliseconds moment_ = kShortest;
  Fd socket_;
  std::vector<std::unique_ptr<HttpConnection>> connections_;
  std::vector<std::uint32_t> free_;
  std::size_t open_ = 0, limit_ = 0;
  std::uint64_t refused_ = 0;
  std::function<void()> done_;
  SteadyTime stopped_at_;
};

Result<void> check(const TriggerConfig& trigger) {
  METIER_TRY(options, read_http_options(trigger));
  return {};
}

Result<std::unique_ptr<Trigger>> make(const TriggerSite& site) {
  METIER_TRY(options, read_http_options(site.trigger));
  return std::make_unique<HttpTrigger>(site, std::move(options));
}

}  // namespace

const TriggerKind& http_trigger_kind() {
  static const TriggerKind kKind{
      .name = "http", .attributes = http_attributes(), .check = check, .make = make};
  return kKind;
}

}  // namespace metier::realtime
