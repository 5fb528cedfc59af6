#include "realtime/health.h"

#include <thread>

#include "net/http.h"
#include "realtime/listen.h"

namespace metier::realtime {
namespace {

class Health final : public HealthServer {
 public:
  Health(HealthCalls calls, Logger log)
      : calls_(std::move(calls)),
        loop_(1),
        work_(asio::make_work_guard(loop_)),
        server_(net::make_server(
            loop_.get_executor(),
            [this](net::Request request) { return answer(std::move(request)); },
            net::Limits{.body_bytes = 1024, .connections = 64}, log)) {}

  ~Health() override {
    if (!thread_.joinable()) { start(); }
    asio::co_spawn(
        loop_,
        [this]() -> Async<void> {
          co_await server_->close(std::chrono::milliseconds(0));
          loop_.stop();
        },
        [](const std::exception_ptr&) {});
    thread_.join();
  }

  Result<void> open(const ListenConfig& listen, std::string_view name, std::uint16_t& port) {
    if (listen.none()) { return {}; }
    METIER_TRY(socket, listening_socket(listen));
    port = port_of(socket.get());
    METIER_TRY(listening,
               server_->listen({.name = std::string(name), .inherited_fd = socket.release()}));
    static_cast<void>(listening);
    return {};
  }
  void start() {
    thread_ = std::thread([this] { loop_.run(); });
  }
  std::uint16_t health_port() const override { return health_port_; }
  std::uint16_t metrics_port() const override { return metrics_port_; }
  std::uint16_t admin_port() const override { return admin_port_; }
  std::uint16_t health_port_ = 0, metrics_port_ = 0, admin_port_ = 0;

 private:
  static net::Response text(int status, std::string body) {
    net::Response response;
    response.status = status;
    response.headers.emplace_back("Content-Type", "text/plain; charset=utf-8");
    response.body = std::move(body);
    return response;
  }

  // Nuclio's web admin: "" all of them, "/NAME", "/NAME/stats".
  net::Response about_triggers(std::string_view rest) {
    if (rest.starts_with('/')) { rest.remove_prefix(1); }
    const bool statistics = rest.ends_with("/stats");
    if (statistics) { rest.remove_suffix(6); }
    auto found = rest.empty() ? calls_.triggers() : calls_.trigger(std::string(rest), statistics);
    if (!found) { return text(503, found.error().text() + "\n"); }
    if (found->empty()) { return text(404, "there is no such trigger, see /triggers\n"); }
    return net::json_response(200, std::move(*found));
  }

  // POST /triggers/NAME?id=ID[&replace=true]: fires a cron trigger and answers with the handler's status.
  Async<net::Response> fire(net::Request request) {
    struct Answer {
      explicit Answer(Executor executor) : signal(executor) {}
      Signal signal;
      int status = 0;
    };
    const std::string trigger = request.path.substr(kTriggers.size());
    const std::string id(request.query_value("id"));
    if (trigger.empty() || id.empty() || id.size() > 128) {
      co_return text(400, "POST /triggers/NAME?id=ID\n");
    }
    auto answer = std::make_shared<Answer>(loop_.get_executor());
    const std::uint64_t seen = answer->signal.generation();
    calls_.fire(trigger, id, request.query_value("replace") == "true", [this, answer](int status) {
      asio::post(loop_, [answer, status] {
        answer->status = status;
        answer->signal.notify();
      });
    });
    if (!co_await answer->signal.wait(seen, Timer::clock_type::now() + calls_.tick_wait)) {
      net::Response runs = text(202, "");
      runs.headers.emplace_back(kTickRuns, "true");
      co_return runs;
    }
    co_return text(answer->status == 0 ? 503 : answer->status, "");
  }

  Async<net::Response> answer(net::Request request) {
    if (request.method == "POST" && request.path.starts_with(kTriggers)) {
      co_return co_await fire(std::move(request));
    }
    if (request.method != "GET") { co_return text(405, "only GET is answered here\n"); }
    if (request.path == "/live") { co_return text(200, "ok\n"); }
    if (request.path == "/ready") {
      co_return calls_.ready() ? text(200, "ok\n") : text(503, calls_.why_not_ready() + "\n");
    }
    if (request.path == "/metrics") {
      auto metrics = calls_.metrics();
      if (!metrics) { co_return text(503, metrics.error().text() + "\n"); }
      net::Response response = text(200, std::move(*metrics));
      response.headers[0].second = "text/plain; version=0.0.4; charset=utf-8";
      co_return response;
    }
    if (request.path == "/status") {
      co_return net::json_response(200, R"({"processor":{"oper_status":"up"}})");
    }
    if (request.path == "/problems") {
      auto problems = calls_.problems();
      if (!problems) { co_return text(503, problems.error().text() + "\n"); }
      co_return net::json_response(200, std::move(*problems));
    }
    if (request.path == "/triggers" || request.path.starts_with("/triggers/")) {
      co_return about_triggers(std::string_view(request.path).substr(9));
    }
    co_return text(404,
                   "there are /live, /ready, /metrics, /status, /problems, /triggers, "
                   "/triggers/NAME and /triggers/NAME/stats\n");
  }

  static constexpr std::string_view kTriggers = "/triggers/";
  HealthCalls calls_;
  asio::io_context loop_;
  asio::executor_work_guard<asio::io_context::executor_type> work_;
  std::unique_ptr<net::Server> server_;
  std::thread thread_;
};

}  // namespace

Result<std::unique_ptr<HealthServer>> start_health(const ProcessorConfig& config, HealthCalls calls,
                                                   Logger log) {
  if (config.health.none() && config.metrics.none() && config.admin.none()) { return nullptr; }
  auto health = std::make_unique<Health>(std::move(calls), std::move(log));
  METIER_CHECK(health->open(config.health, "health", health->health_port_));
  METIER_CHECK(health->open(config.metrics, "metrics", health->metrics_port_));
  METIER_CHECK(health->open(config.admin, "admin", health->admin_port_));
  health->start();
  return health;
}

}  // namespace metier::realtime
