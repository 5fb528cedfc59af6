#include "realtime/processor.h"

#include <fmt/format.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <future>
#include <map>

#include "base/files.h"
#include "base/text.h"
#include "realtime/control.h"
#include "realtime/health.h"
#include "realtime/hosts.h"
#include "realtime/trigger.h"

namespace metier::realtime {
namespace {

int complain(const Error& error, int code, const std::string& where = {}) {
  std::string text = (where.empty() ? where : where + ": ") + error.text();
  // One line: the last one of its log is what is shown of a processor that ended.
  if (!error.fix.empty()) { text += "; " + error.fix; }
  std::fprintf(stderr, "processor: %s\n", text.c_str());
  std::fflush(stderr);
  return code;
}

class Processor final : public Watched {
 public:
  Processor(ProcessorConfig config, const ProcessorProgram& program, LogSink& sink)
      : config_(std::move(config)),
        program_(program),
        log_(Logger(&sink).with("function", Json(config_.name))),
        drain_timer_(loop_, [this] {
          log_.error("draining took longer than drainTimeout, what is left is lost");
          code_ = 6;
          loop_.stop();
        }) {}

  Result<void> build() {
    METIER_CHECK(watch_signals());
    METIER_CHECK(open_tracing());
    for (const TriggerConfig& trigger : config_.triggers) {
      if (!trigger.disabled) { METIER_CHECK(add_trigger(trigger)); }
    }
    if (hosts_.empty()) {
      return fail(invalid("triggers", "there is none that is enabled",
                          "a function needs a trigger: http, cron, kafka-cluster"));
    }
    auto health = start_health(
        config_,
        {.ready = [this] { return ready_ && !draining_ && sleeping_trigger() == nullptr; },
         .why_not_ready = [this] { return why_not_ready(); },
         .metrics = [this] { return on_loop([this] { return metrics(); }); },
         .triggers = [this] { return on_loop([this] { return describe(); }); },
         .trigger =
             [this](const std::string& name, bool statistics) {
               return on_loop([this, name, statistics] { return describe(name, statistics); });
             },
         .problems = [this] { return on_loop([this] { return problems(); }); },
         .fire =
             [this](const std::string& name, const std::string& id, bool replace,
                    std::function<void(int)> done) {
               loop_.post([this, name, id, replace, done = std::move(done)]() mutable {
                 fire(name, id, replace, std::move(done));
               });
             }},
        log_);
    if (!health) { return fail(std::move(health.error())); }
    health_ = std::move(*health);
    if (!config_.control.empty()) {
      METIER_TRY(
          control,
          open_control(loop_, config_.control,
                       {.state = [this] { return state(); },
                        .drain = [this] { drain(); },
                        .socket = [this](std::string_view name) { return listener_of(name); }}));
      control_ = std::move(control);
    }
    return {};
  }

  int run() {
    waiting_for_ = hosts_.size();
    for (auto& host : hosts_) {
      host->start([this](Result<void> result) { host_ready(std::move(result)); });
    }
    loop_.run();
    health_.reset();  // its calls come here
    return code_;
  }

  void on_ready(std::uint32_t) noexcept override {
    signalfd_siginfo info{};
    while (::read(signals_.get(), &info, sizeof info) == sizeof info) {
      if (draining_) {  // twice: at once
        code_ = 6;
        loop_.stop();
      }
      drain();
    }
  }

 private:
  struct Entry {
    TriggerConfig config;
    std::string kind;
    std::unique_ptr<Trigger> trigger;
    EventTarget* target;
    Host* host;
  };

  Result<void> watch_signals() {
    sigset_t set;
    ::sigemptyset(&set);
    ::sigaddset(&set, SIGTERM);
    ::sigaddset(&set, SIGINT);
    ::pthread_sigmask(SIG_BLOCK, &set, nullptr);
    ::signal(SIGPIPE, SIG_IGN);
    signals_.reset(::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
    return loop_.watch(signals_.get(), EPOLLIN, *this);
  }

  Result<void> open_tracing() {
    METIER_TRY(tracing, tracing_from_environment([this](const char* name) {
                 for (const auto& [key, value] : config_.env) {
                   if (key == name) { return value; }
                 }
                 const char* value = std::getenv(name);
                 return std::string(value == nullptr ? "" : value);
               }));
    if (tracing.endpoint.empty()) { return {}; }
    if (tracing.service.empty()) { tracing.service = config_.name; }
    tracing.project = config_.project;
    tracing.instance = config_.instance;
    exporter_ = std::make_unique<SpanExporter>(std::move(tracing), log_);
    return {};
  }

  Result<void> add_trigger(const TriggerConfig& trigger) {
    const std::string path = "triggers." + trigger.name;
    const TriggerKind* kind = find_trigger_kind(trigger.kind);
    if (kind == nullptr) {
      std::vector<std::string> known;
      for (const TriggerKind* entry : trigger_kinds()) { known.emplace_back(entry->name); }
      return fail(invalid(path + ".kind",
                          quote(trigger.kind) + (refused_trigger_kind(trigger.kind).empty()
                                                     ? " is no kind of trigger"
                                                     : " is not supported here"),
                          "there are " + join(known)));
    }
    if (kind->check != nullptr) { METIER_CHECK(kind->check(trigger)); }
    Host* host = nullptr;
    const std::string label =
        trigger.worker_allocator_name.empty() ? trigger.name : trigger.worker_allocator_name;
    if (const auto shared = by_allocator_.find(trigger.worker_allocator_name);
        !trigger.worker_allocator_name.empty() && shared != by_allocator_.end()) {
      host = shared->second;
    } else {
      METIER_TRY(made, make_host({loop_, config_, trigger, label, log_}));
      host = made.get();
      hosts_.push_back(std::move(made));
      if (!trigger.worker_allocator_name.empty()) {
        by_allocator_[trigger.worker_allocator_name] = host;
      }
    }
    EventTarget* target = host;
    if (trigger.batch.enabled) {
      wrappers_.push_back(make_batcher(loop_, trigger.batch, *host));
      target = wrappers_.back().get();
    }
    if (exporter_) {
      wrappers_.push_back(make_tracer(config_.name, *target, *exporter_));
      target = wrappers_.back().get();
    }
    METIER_TRY(made,
               kind->make({loop_, config_, trigger, log_.with("trigger", Json(trigger.name))}));
    triggers_.push_back({trigger, std::string(kind->name), std::move(made), target, host});
    return {};
  }

  Result<std::unique_ptr<Host>> make_host(const HostSite& site) {
    const std::string runtime = config_.runtime.substr(0, config_.runtime.find(':'));
    for (const RuntimeHost& host : program_.hosts) {
      if (host.runtime == runtime) { return host.make(site); }
    }
    if (runtime == "python") { return make_python_host(site); }
    if (runtime == "native") { return make_native_host(site); }
    if (runtime == "shell") { return make_shell_host(site); }
    return fail(invalid("runtime", quote(config_.runtime) + " is not hosted here",
                        "python, native or shell"));
  }

  void host_ready(Result<void> result) {
    if (!result) {
      if (code_ == 0) {
        code_ = complain(result.error(), result.error().kind == ErrorKind::invalid ? 2 : 1);
      }
      loop_.stop();
      return;
    }
    if (--waiting_for_ > 0 || draining_) { return; }
    for (Entry& entry : triggers_) {
      if (auto started = entry.trigger->start(*entry.target); !started) {
        code_ = complain(std::move(started.error()).in("trigger " + entry.config.name), 1);
        loop_.stop();
        return;
      }
    }
    ready_ = true;
    JsonObject ports;
    for (const Entry& entry : triggers_) {
      if (entry.trigger->port() != 0) { ports[entry.config.name] = entry.trigger->port(); }
    }
    JsonObject document{{"pid", ::getpid()}, {"ports", ports}};
    if (health_) {
      document["health"] = health_->health_port();
      document["metrics"] = health_->metrics_port();
      document["admin"] = health_->admin_port();
    }
    log_.info("listening", {{"ports", ports},
                            {"health", health_ ? health_->health_port() : 0},
                            {"metrics", health_ ? health_->metrics_port() : 0}});
    if (!config_.ready_file.empty()) {
      const std::string temporary = config_.ready_file + ".tmp";
      if (auto written = write_file(temporary, dump_json(document) + "\n");
          !written || ::rename(temporary.c_str(), config_.ready_file.c_str()) != 0) {
        log_.error("the ready file cannot be written", {{"path", Json(config_.ready_file)}});
      }
    }
    if (control_) { control_->changed(); }
  }

  // Triggers stop, what they delivered ends, then the workers.
  void drain() {
    if (draining_) { return; }
    draining_ = true;
    log_.info("draining");
    drain_timer_.after(config_.drain_timeout);
    if (control_) { control_->changed(); }
    stopping_ = triggers_.size();
    if (!ready_) { return shut_hosts(); }
    for (Entry& entry : triggers_) {
      entry.trigger->stop([this] {
        if (--stopping_ == 0) { shut_hosts(); }
      });
    }
  }

  void shut_hosts() {
    closing_ = hosts_.size();
    for (auto& host : hosts_) {
      host->shut([this] {
        if (--closing_ == 0) { loop_.stop(); }
      });
    }
  }

  // The first trigger that cannot take events yet.
  const Entry* sleeping_trigger() const {
    const auto found =
        std::ranges::find_if(triggers_, [](const Entry& entry) { return !entry.trigger->ready(); });
    return found == triggers_.end() ? nullptr : &*found;
  }
  std::string why_not_ready() {
    if (draining_ || !ready_) { return draining_ ? "draining" : "starting"; }
    const Entry* entry = sleeping_trigger();
    if (entry == nullptr) { return "starting"; }
    auto why = on_loop([entry] { return entry->trigger->describe(); });
    return fmt::format("trigger {}: {}", entry->config.name, why ? *why : why.error().text());
  }

  Result<std::string> on_loop(std::function<std::string()> call) {
    auto answer = std::make_shared<std::promise<std::string>>();
    auto future = answer->get_future();
    loop_.post([answer, call = std::move(call)] { answer->set_value(call()); });
    if (future.wait_for(std::chrono::seconds(1)) != std::future_status::ready) {
      return fail(ErrorKind::unavailable, "the event loop is busy (a native handler that blocks?)");
    }
    return future.get();
  }

  std::string metrics() {
    std::string common = MetricsWriter::label("instance", config_.instance);
    common += "," + MetricsWriter::label("namespace", config_.ns);
    common += "," + MetricsWriter::label("function", config_.name);
    common += "," + MetricsWriter::label("project", config_.project);
    MetricsWriter out(std::move(common));
    for (auto& host : hosts_) { host->metrics(out); }
    for (const Entry& entry : triggers_) { entry.trigger->metrics(out); }
    if (exporter_) { exporter_->metrics(out); }
    rusage usage{};
    ::getrusage(RUSAGE_SELF, &usage);
    out.gauge("metier_processor_cpu_seconds", "CPU time of the processor itself", {},
              static_cast<double>(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
                  static_cast<double>(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1e-6);
    return out.take();
  }

  // What may be shown of a trigger: its attributes may hold passwords.
  static JsonObject describe(const Entry& entry) {
    const TriggerConfig& config = entry.config;
    return JsonObject{
        {"kind", entry.kind},
        {"numWorkers", config.num_workers},
        {"mode", config.mode},
        {"workerAvailabilityTimeoutMilliseconds", config.worker_availability_timeout.count()},
        {"ready", entry.trigger->ready()},
        {"state", entry.trigger->describe()},
        {"workers", entry.host->describe()}};
  }

  // Nuclio's form: by the trigger's name.
  std::string describe() {
    JsonObject all;
    for (const Entry& entry : triggers_) { all[entry.config.name] = describe(entry); }
    return dump_json(all);
  }

  std::string describe(std::string_view name, bool statistics) {
    for (const Entry& entry : triggers_) {
      if (entry.config.name != name) { continue; }
      if (!statistics) { return dump_json(describe(entry)); }
      const HostLoad load = entry.host->load();  // of all triggers that share its workers
      return dump_json(JsonObject{{"handled", load.handled},
                                  {"inFlight", load.in_flight},
                                  {"queued", load.queued},
                                  {"workers", load.workers},
                                  {"busySeconds", load.busy_seconds},
                                  {"lastEventMs", load.last_event_ms}});
    }
    return {};
  }

  std::string problems() {
    JsonArray out;
    const auto add = [&out](const std::string& where, const std::optional<Problem>& problem) {
      if (!problem) { return; }
      out.push_back(JsonObject{{"code", problem->code}, {"message", where + problem->message}});
    };
    for (const Entry& entry : triggers_) {
      add("trigger " + entry.config.name + ": ", entry.trigger->problem());
    }
    for (const auto& host : hosts_) { add("", host->problem()); }
    return dump_json(out);
  }

  JsonObject state() {
    HostLoad all;
    for (auto& host : hosts_) {
      const HostLoad load = host->load();
      all.busy_seconds += load.busy_seconds;
      all.handled += load.handled;
      all.queued += load.queued;
      all.in_flight += load.in_flight;
      all.workers += load.workers;
      all.last_event_ms = std::max(all.last_event_ms, load.last_event_ms);
    }
    return JsonObject{{"op", "state"},
                      {"ready", ready_ && !draining_},
                      {"draining", draining_.load()},
                      {"inFlight", all.in_flight},
                      {"queued", all.queued},
                      {"busySeconds", all.busy_seconds},
                      {"workers", all.workers},
                      {"handled", all.handled},
                      {"lastEventMs", all.last_event_ms}};
  }

  void fire(const std::string& name, const std::string& id, bool replace,
            std::function<void(int)> done) {
    for (const Entry& entry : triggers_) {
      if (entry.config.name != name) { continue; }
      return ready_ ? entry.trigger->fire(id, replace, std::move(done)) : done(503);
    }
    done(404);
  }

  int listener_of(std::string_view name) {
    for (const Entry& entry : triggers_) {
      if (entry.config.name == name) { return entry.trigger->listener(); }
    }
    return -1;
  }

  Loop loop_;
  ProcessorConfig config_;
  const ProcessorProgram& program_;
  Logger log_;
  Fd signals_;
  LoopTimer drain_timer_;
  std::vector<std::unique_ptr<Host>> hosts_;
  std::map<std::string, Host*> by_allocator_;
  std::unique_ptr<SpanExporter> exporter_;
  std::vector<std::unique_ptr<EventTarget>> wrappers_;  // batchers, tracers
  std::vector<Entry> triggers_;
  std::unique_ptr<Control> control_;
  std::unique_ptr<HealthServer> health_;
  std::size_t waiting_for_ = 0, stopping_ = 0, closing_ = 0;
  std::atomic<bool> ready_{false}, draining_{false};
  int code_ = 0;
};

}  // namespace

int processor_main(const std::string& config_path, const ProcessorProgram& program) {
  auto text = read_file(config_path, 16U << 20U);
  if (!text) { return complain(text.error(), 2); }
  auto config = parse_processor_config(*text);
  if (!config) { return complain(config.error(), 2, config_path); }
  if (config->lib.empty() && program.lib) {
    auto lib = program.lib();
    if (!lib) { return complain(lib.error(), 1); }
    config->lib = *lib;
  }
  if (config->instance.empty()) {
    char name[256] = {};
    ::gethostname(name, sizeof name - 1);
    config->instance = name;
  }
  const auto sink = make_log_sink(STDERR_FILENO, LogLevel::info);
  Processor processor(std::move(*config), program, *sink);
  if (auto built = processor.build(); !built) {
    return complain(built.error(), built.error().kind == ErrorKind::invalid ? 2 : 1);
  }
  return processor.run();
}

}  // namespace metier::realtime
