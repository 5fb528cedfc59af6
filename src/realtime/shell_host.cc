#include <fcntl.h>
#include <fmt/format.h>
#include <spawn.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <deque>
#include <list>

#include "base/files.h"
#include "realtime/event_copy.h"
#include "realtime/hosts.h"
#include "realtime/python_template.h"
#include "realtime/worker_pool.h"

namespace metier::realtime {
namespace {

constexpr std::size_t kOutputLimit = 64U << 20U;

class ShellHost final : public Host {
 public:
  ShellHost(const HostSite& site, std::string command)
      : loop_(site.loop),
        config_(site.config),
        trigger_(site.trigger),
        command_(std::move(command)) {
    stats_.kind = site.trigger.kind;
    stats_.name = site.trigger_label;
    environment_ = handler_environment(config_);
    if (const JsonObject* headers = object_in(config_.runtime_attributes, "responseHeaders")) {
      for (const auto& entry : *headers) {
        const std::string value = entry.value().is_string()
                                      ? std::string(entry.value().get_string())
                                      : dump_json(entry.value());
        if (valid_header(entry.key(), value)) { headers_.emplace_back(entry.key(), value); }
      }
    }
  }
  ~ShellHost() override {
    for (auto& run : runs_) { ::kill(-run->pid, SIGKILL); }
    while (!runs_.empty()) { finish(*runs_.front(), true); }
  }

  void start(std::function<void(Result<void>)> ready) override {
    loop_.post([ready = std::move(ready)] { ready({}); });
  }
  void shut(std::function<void()> done) override {
    stopping_ = true;
    for (const Waiting& entry : std::exchange(queue_, {})) {
      entry.sink->fail({.reason = FailReason::stopping,
                        .status = 503,
                        .message = "the function stops",
                        .retry_after_s = 1});
    }
    shut_ = std::move(done);
    if (runs_.empty()) { std::exchange(shut_, nullptr)(); }
  }
  std::string describe() const override {
    return fmt::format("{} of {} programs running", runs_.size(), trigger_.num_workers);
  }
  void metrics(MetricsWriter& out) const override { trigger_metrics(stats_, out); }
  HostLoad load() const override {
    return {.busy_seconds = static_cast<double>(stats_.handler.sum_ns()) * 1e-9,
            .handled = static_cast<std::int64_t>(stats_.success.value() + stats_.failure.value()),
            .queued = static_cast<int>(queue_.size()),
            .in_flight = static_cast<int>(runs_.size()),
            .workers = trigger_.num_workers,
            .last_event_ms = last_event_ms_};
  }

  void deliver(const Event& event, ResponseSink& sink) noexcept override {
    last_event_ms_ = loop_.wall_us() / 1000;
    if (static_cast<int>(runs_.size()) < trigger_.num_workers) { return begin(event, sink); }
    if (stopping_ || static_cast<int>(queue_.size()) >= trigger_.queue_size ||
        trigger_.worker_availability_timeout.count() == 0) {
      stats_.failure.add();
      sink.fail({.reason = FailReason::no_worker,
                 .status = 503,
                 .message = "no worker is free",
                 .retry_after_s = 1});
      return;
    }
    queue_.push_back({&event, &sink});
  }
  void cancel(EventId, ResponseSink& sink) noexcept override {
    const Failure failure{.reason = FailReason::cancelled, .status = 499};
    const auto waiting = std::ranges::find(queue_, &sink, &Waiting::sink);
    if (waiting != queue_.end()) {
      queue_.erase(waiting);
      return sink.fail(failure);
    }
    for (auto& run : runs_) {
      if (run->sink == &sink) {
        run->sink = nullptr;
        return sink.fail(failure);
      }
    }
  }
  bool has_room() const noexcept override {
    return static_cast<int>(runs_.size()) < trigger_.num_workers;
  }
  void when_room(int, std::function<void()> call) noexcept override {
    if (has_room()) {
      loop_.post(std::move(call));
    } else {
      room_calls_.push_back(std::move(call));
    }
  }

 private:
  struct Waiting {
    const Event* event;
    ResponseSink* sink;
  };
  struct Run;
  struct Pipe final : Watched {
    Run* run = nullptr;
    void (ShellHost::*call)(Run&) = nullptr;
    void on_ready(std::uint32_t) noexcept override;
  };
  struct Run {
    ShellHost* host = nullptr;
    ResponseSink* sink = nullptr;
    pid_t pid = -1;
    Fd in, out, pidfd;
    Pipe in_pipe, out_pipe, end_pipe;
    std::string body, output;
    std::size_t sent = 0;
    bool timed_out = false, ended = false, too_large = false;
    int status = 0;
    SteadyTime since;
    std::unique_ptr<LoopTimer> timer;
  };

  void begin(const Event& event, ResponseSink& sink) {
    auto run = std::make_unique<Run>();
    run->host = this;
    run->sink = &sink;
    run->since = loop_.now();
    run->body = std::string(event.body);
    stats_.immediate.add();
    int in[2];
    int out[2];
    if (::pipe2(in, O_CLOEXEC) != 0) { return broken(sink, errno); }
    run->in.reset(in[1]);
    Fd their_in(in[0]);
    if (::pipe2(out, O_CLOEXEC) != 0) { return broken(sink, errno); }
    run->out.reset(out[0]);
    Fd their_out(out[1]);
    std::string command = command_;
    if (const HeaderView* arguments = find_header(event, "x-nuclio-arguments")) {
      command += " " + std::string(arguments->value);
    }
    posix_spawn_file_actions_t actions;
    ::posix_spawn_file_actions_init(&actions);
    ::posix_spawn_file_actions_adddup2(&actions, their_in.get(), 0);
    ::posix_spawn_file_actions_adddup2(&actions, their_out.get(), 1);
    if (!config_.path.empty() && ::access((config_.path + "/.").c_str(), X_OK) == 0) {
      ::posix_spawn_file_actions_addchdir_np(&actions, config_.path.c_str());
    }
    posix_spawnattr_t attributes;
    ::posix_spawnattr_init(&attributes);
    sigset_t none;
    ::sigemptyset(&none);
    sigset_t usual;
    ::sigemptyset(&usual);
    ::sigaddset(&usual, SIGPIPE);
    ::posix_spawnattr_setsigmask(&attributes, &none);
    ::posix_spawnattr_setsigdefault(&attributes, &usual);
    ::posix_spawnattr_setpgroup(&attributes, 0);
    ::posix_spawnattr_setflags(
        &attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP);
    std::vector<std::string> lines = environment_;
    lines.push_back("NUCLIO_EVENT_METHOD=" + std::string(event.method));
    lines.push_back("NUCLIO_EVENT_PATH=" + std::string(event.path));
    lines.push_back("NUCLIO_EVENT_CONTENT_TYPE=" + std::string(event.content_type));
    lines.push_back("NUCLIO_EVENT_TRIGGER_KIND=" + std::string(event.trigger_kind));
    std::vector<char*> envp;
    for (std::string& line : lines) { envp.push_back(line.data()); }
    envp.push_back(nullptr);
    std::array<char*, 4> argv{const_cast<char*>("sh"), const_cast<char*>("-c"), command.data(),
                              nullptr};
    const int error =
        ::posix_spawn(&run->pid, "/bin/sh", &actions, &attributes, argv.data(), envp.data());
    ::posix_spawn_file_actions_destroy(&actions);
    ::posix_spawnattr_destroy(&attributes);
    if (error != 0) { return broken(sink, error); }
    Run& r = *run;
    r.pidfd.reset(static_cast<int>(::syscall(SYS_pidfd_open, r.pid, 0)));
    ::fcntl(r.in.get(), F_SETFL, O_NONBLOCK);
    ::fcntl(r.out.get(), F_SETFL, O_NONBLOCK);
    r.in_pipe.run = r.out_pipe.run = r.end_pipe.run = &r;
    r.in_pipe.call = &ShellHost::feed;
    r.out_pipe.call = &ShellHost::drink;
    r.end_pipe.call = &ShellHost::over;
    static_cast<void>(loop_.watch(r.out.get(), EPOLLIN, r.out_pipe));
    static_cast<void>(loop_.watch(r.pidfd.get(), EPOLLIN, r.end_pipe));
    if (r.body.empty()) {
      r.in.reset();
    } else {
      static_cast<void>(loop_.watch(r.in.get(), EPOLLOUT, r.in_pipe));
    }
    if (config_.event_timeout.count() > 0) {
      r.timer = std::make_unique<LoopTimer>(loop_, [this, &r] {
        r.timed_out = true;
        ::kill(-r.pid, SIGKILL);
        if (ResponseSink* const waiting = std::exchange(r.sink, nullptr)) {
          stats_.failure.add();
          waiting->fail({.reason = FailReason::timed_out,
                         .status = 408,
                         .message = R"({"error": "handler timed out"})"});
        }
      });
      r.timer->after(config_.event_timeout);
    }
    runs_.push_back(std::move(run));
  }

  void broken(ResponseSink& sink, int error) {
    stats_.failure.add();
    sink.fail({.reason = FailReason::internal,
               .status = 500,
               .message = errno_error("the program cannot be started", error).message});
  }

  void feed(Run& run) {
    while (run.sent < run.body.size()) {
      const ssize_t n =
          ::write(run.in.get(), run.body.data() + run.sent, run.body.size() - run.sent);
      if (n < 0 && errno == EAGAIN) { return; }
      if (n < 0) { break; }  // it does not read all: its own choice
      run.sent += static_cast<std::size_t>(n);
    }
    loop_.forget(run.in.get(), run.in_pipe);
    run.in.reset();
  }

  void drink(Run& run) {
    std::array<char, 65536> buffer;
    while (true) {
      const ssize_t n = ::read(run.out.get(), buffer.data(), buffer.size());
      if (n < 0 && errno == EINTR) { continue; }
      if (n < 0) { return; }
      if (n == 0) {
        loop_.forget(run.out.get(), run.out_pipe);
        run.out.reset();
        if (run.ended) { finish(run, false); }
        return;
      }
      if (run.output.size() + static_cast<std::size_t>(n) > kOutputLimit) {
        run.too_large = true;
        ::kill(-run.pid, SIGKILL);
      } else {
        run.output.append(buffer.data(), static_cast<std::size_t>(n));
      }
    }
  }

  void over(Run& run) {
    ::waitpid(run.pid, &run.status, 0);
    loop_.forget(run.pidfd.get(), run.end_pipe);
    run.pidfd.reset();
    run.ended = true;
    if (run.out) { drink(run); }  // a child of it that keeps the pipe open does not hold the answer
    if (run.out || run.sink != nullptr || run.timed_out) { finish(run, false); }
  }

  void finish(Run& run, bool silent) {
    const auto found =
        std::ranges::find_if(runs_, [&](const auto& entry) { return entry.get() == &run; });
    if (found == runs_.end()) { return; }
    const std::unique_ptr<Run> kept = std::move(*found);
    runs_.erase(found);
    if (kept->in) { loop_.forget(kept->in.get(), kept->in_pipe); }
    if (kept->out) { loop_.forget(kept->out.get(), kept->out_pipe); }
    if (kept->pidfd) {
      loop_.forget(kept->pidfd.get(), kept->end_pipe);
      ::waitpid(kept->pid, nullptr, 0);
    }
    kept->timer.reset();
    const auto took =
        std::chrono::duration_cast<std::chrono::nanoseconds>(loop_.now() - kept->since).count();
    stats_.handler.observe_ns(took);
    if (ResponseSink* const sink = kept->sink; sink != nullptr && !silent) {
      std::vector<HeaderView> headers;
      for (const auto& [name, value] : headers_) { headers.push_back({name, value}); }
      const bool good =
          WIFEXITED(kept->status) && WEXITSTATUS(kept->status) == 0 && !kept->too_large;
      stats_.success.add();
      std::string body = std::move(kept->output);
      if (kept->too_large) {
        body = "the program wrote more than 64 MiB";
      } else if (!good && body.empty()) {
        body = WIFSIGNALED(kept->status)
                   ? fmt::format("the program ended by signal {}", WTERMSIG(kept->status))
                   : fmt::format("the program ended with exit code {}", WEXITSTATUS(kept->status));
      }
      sink->respond({.status = good ? 200 : 500,
                     .content_type = "text/plain; charset=utf-8",
                     .headers = headers,
                     .outcome = good ? Outcome::answered : Outcome::raised,
                     .handler_ns = took},
                    body);
    } else if (sink != nullptr) {
      sink->fail({.reason = FailReason::stopping, .status = 503});
    }
    while (!queue_.empty() && static_cast<int>(runs_.size()) < trigger_.num_workers) {
      const Waiting next = queue_.front();
      queue_.pop_front();
      begin(*next.event, *next.sink);
    }
    for (auto& call : std::exchange(room_calls_, {})) { call(); }
    if (stopping_ && runs_.empty() && shut_) { std::exchange(shut_, nullptr)(); }
  }

  Loop& loop_;
  const ProcessorConfig& config_;
  TriggerConfig trigger_;
  std::string command_;
  std::vector<std::string> environment_;
  std::vector<std::pair<std::string, std::string>> headers_;
  std::list<std::unique_ptr<Run>> runs_;
  std::deque<Waiting> queue_;
  std::vector<std::function<void()>> room_calls_;
  TriggerStats stats_;
  bool stopping_ = false;
  std::function<void()> shut_;
  std::int64_t last_event_ms_ = 0;
};

void ShellHost::Pipe::on_ready(std::uint32_t) noexcept { (run->host->*call)(*run); }

}  // namespace

Result<std::unique_ptr<Host>> make_shell_host(const HostSite& site) {
  std::string file = site.config.handler.substr(0, site.config.handler.find(':'));
  const std::string full =
      file.starts_with('/') || site.config.path.empty() ? file : site.config.path + "/" + file;
  std::string command = file;
  if (::access(full.c_str(), F_OK) == 0) {
    // A script need not be executable.
    const std::string quoted = "'" + full + "'";
    if (full.find('\'') != std::string::npos) {
      return fail(invalid("handler", quote(full) + " has a quote in its name", "rename it"));
    }
    command = ::access(full.c_str(), X_OK) == 0 ? quoted : "sh " + quoted;
  } else if (file.find('/') != std::string::npos || file.ends_with(".sh")) {
    return fail(errno_error(full, ENOENT));
  }
  const std::string_view arguments = string_in(site.config.runtime_attributes, "arguments");
  if (!arguments.empty()) { command += " " + std::string(arguments); }
  return std::make_unique<ShellHost>(site, std::move(command));
}

}  // namespace metier::realtime
