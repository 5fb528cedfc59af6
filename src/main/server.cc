#include "main/server.h"

#include <fcntl.h>
#include <malloc.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <boost/asio/signal_set.hpp>
#include <charconv>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>

#include "api/engine_api.h"
#include "api/records_routes.h"
#include "base/digest.h"
#include "base/files.h"
#include "base/interfaces.h"
#include "cluster/controllers/dask/dask_cluster.h"
#include "cluster/controllers/mpi/mpi_job.h"
#include "cluster/controllers/nuclio/nuclio_controller.h"
#include "cluster/controllers/spark/connect_controller.h"
#include "cluster/controllers/spark/spark_controller.h"
#include "cluster/embedded/embedded_cluster.h"
#include "cluster/embedded/net_probe_client.h"
#include "cluster/embedded/process_driver.h"
#include "engine/dask_clusters.h"
#include "engine/deployments.h"
#include "engine/pages.h"
#include "engine/records/records.h"
#include "gate/gate.h"
#include "kind/builtin.h"
#include "kind/dask/dask_lowering.h"
#include "kind/spark/spark_warm.h"
#include "main/bundle.h"
#include "main/engines.h"
#include "main/engines_of_host.h"
#include "main/environments_of_pods.h"
#include "main/functions_of_node.h"
#include "main/processor_check.h"
#include "model/attributes.h"
#include "net/identity.h"

namespace metier {
namespace {

constexpr std::string_view kServerScope = "server";
constexpr std::string_view kRunPort = "run_port";
constexpr const char* kRunListener = "runs";
const std::string kFunctionToken = "function:";  // uid in the tokens of deployments
constexpr std::chrono::seconds kQuiet{5};

// Two threads allocate most of the time. Without fast bins a larger request does not sort all small free blocks first,
// and what a burst has used goes back to the system.
void tune_memory() {
  ::mallopt(M_MXFAST, 0);
  ::mallopt(M_ARENA_MAX, 2);
  ::mallopt(M_MMAP_THRESHOLD, 256 << 10);
  ::mallopt(M_TRIM_THRESHOLD, 1 << 20);
}

// All parts of a running server, in the order in which they are made.
class Server final {
 public:
  explicit Server(const cli::ServerOptions& options)
      : options_(options), loop_(1), executor_(loop_.get_executor()) {}

  int run() {
    tune_memory();
    sink_ = make_log_sink(
        STDERR_FILENO, std::getenv("METIER_DEBUG") != nullptr ? LogLevel::debug : LogLevel::info);
    log_ = Logger(sink_.get());
    int code = 0;
    asio::co_spawn(executor_, live(code), [this](std::exception_ptr error) {
      if (error) { failure_ = error; }
      loop_.stop();
    });
    loop_.run();
    if (failure_) {
      try {
        std::rethrow_exception(failure_);
      } catch (const std::exception& error) {
        log_.error("server ended by a fault of its own", {{"what", Json(error.what())}});
      }
      return 70;
    }
    return code;
  }

 private:
  static int complain(const Error& error) {
    std::fprintf(stderr, "error: %s\n", error.text().c_str());
    if (!error.fix.empty()) { std::fprintf(stderr, "  %s\n", error.fix.c_str()); }
    return error.kind == ErrorKind::internal   ? 70
           : error.kind == ErrorKind::conflict ? 2
                                               : exit_code_of(error.kind);
  }

  Async<void> live(int& code) {
    auto started = co_await start();
    if (started) {
      scope_.spawn("tidy", tidy());
      ready();
      co_await until_stopped();
    } else {
      code = complain(started.error());
    }
    co_await stop();
  }

  Async<Result<void>> start() {
    auto folder = make_folders(options_.data, 0700);
    if (!folder) { co_return fail(std::move(folder.error())); }
    if (::geteuid() == 0) {
      // Pods of other users pass through to what is theirs.
      ::chmod(options_.data.c_str(), 0711);
      for (const char* name : {"/pods", "/lib", "/snapshots", "/projects"}) {
        const std::string inner = options_.data + name;
        auto made = make_folders(inner, 0711);
        if (!made) { co_return fail(std::move(made.error())); }
        ::chmod(inner.c_str(), 0711);
      }
    }
    auto store = Store::open(executor_, {.folder = options_.data, .clock = &clock_, .log = log_});
    // A server that was just killed holds its lock until the kernel has taken it apart.
    for (int i = 0; i < 20 && !store && store.error().kind == ErrorKind::conflict; ++i) {
      co_await sleep_for(executor_, std::chrono::milliseconds(50));
      store = Store::open(executor_, {.folder = options_.data, .clock = &clock_, .log = log_});
    }
    if (!store) { co_return fail(std::move(store.error())); }
    store_ = std::move(*store);
    auto lib = unpack_bundle(options_.data, bundle());
    if (!lib) { co_return fail(std::move(lib.error())); }
    lib_ = *lib;
    auto project = co_await make_default_project();
    if (!project) { co_return fail(std::move(project.error())); }

    server_ = net::make_server(
        executor_, [this](net::Request request) { return answer(std::move(request)); }, {}, log_);
    auto run_url = co_await listen_for_runs();
    if (!run_url) { co_return fail(std::move(run_url.error())); }
    auto cluster = make_cluster();
    if (!cluster) { co_return fail(std::move(cluster.error())); }
    make_engine(*run_url);
    auto tokens = co_await engine_->open_tokens();
    if (!tokens) { co_return fail(std::move(tokens.error())); }
    functions_->forget_strangers();
    if (auto paused = read_record(pause_file())) { cluster_->pause_queue(true, *paused); }
    auto opened = co_await cluster_->open();
    if (!opened) { co_return fail(std::move(opened.error()).in("cluster")); }
    if (!python_.empty()) {
      // The first run finds its interpreter with the imports done.
      auto warm = driver_->zygotes().prewarm(
          environment_id({.python = python_, .requirements = {}, .commands = {}}), python_);
      if (!warm) {
        log_.info("no zygote ahead of the first run", {{"why", Json(warm.error().text())}});
      }
    }
    auto engine = co_await engine_->start();
    if (!engine) { co_return fail(std::move(engine.error())); }
    auto deployments = co_await deployments_->start();
    if (!deployments) { co_return fail(std::move(deployments.error())); }
    if (auto begun = dask_clusters_->begin(); !begun) { co_return fail(std::move(begun.error())); }
    auto access = make_access();
    if (!access) { co_return fail(std::move(access.error())); }
    make_routes(std::move(*access), *run_url);
    co_return listen();
  }

  // After a burst: what it has used goes back to the system once a while has passed without requests and commits.
  Async<void> tidy() {
    std::uint64_t seen = 0;
    bool tidied = false;
    while (true) {
      Timer timer(executor_, kQuiet);
      boost::system::error_code ended;
      co_await timer.async_wait(asio::redirect_error(use_async, ended));
      if (ended) { co_return; }
      const auto now = requests_ + store_->objects().revision();
      if (now != seen) {
        seen = now;
        tidied = false;
      } else if (!tidied) {
        tidied = true;
        store_->rest();
        ::malloc_trim(0);
      }
    }
  }

  Async<Result<void>> make_default_project() {
    co_return co_await store_->write([now = clock_.now()](Records& tx) -> Result<void> {
      METIER_TRY(known, tx.project("default"));
      if (known) { return {}; }
      METIER_CHECK(records::create_project(
          tx, JsonObject{{"metadata", JsonObject{{"name", "default"}}}, {"spec", JsonObject{}}},
          now));
      return {};
    });
  }

  // The listener of pods: the port stays the same over restarts, and its socket lives on in the gate.
  Async<Result<std::string>> listen_for_runs() {
    net::ListenOptions listen;
    listen.name = kRunListener;
    listen.host = "127.0.0.1";
    char program[4096] = {};
    const ssize_t size = ::readlink("/proc/self/exe", program, sizeof program - 1);
    if (size > 0) { program_ = program; }
    if (size > 0 && std::getenv("METIER_NO_GATE") == nullptr) {
      gate_ = std::make_unique<Gate>(executor_, options_.data, program, log_);
      auto held = co_await gate_->open();
      if (!held) {
        log_.warn("no gate: connections of pods are refused while the server restarts",
                  {{"why", Json(held.error().text())}});
        gate_.reset();
      } else {
        for (auto& [name, fd] : *held) {
          if (name == kRunListener) {
            listen.inherited_fd = fd.release();
          } else {
            held_.emplace_back(name, std::move(fd));  // of functions
          }
        }
      }
    }
    auto known = store_->records().setting(std::string(kServerScope), std::string(kRunPort));
    if (!known) { co_return fail(std::move(known.error())); }
    if (*known) {
      std::from_chars((*known)->data(), (*known)->data() + (*known)->size(), listen.port);
    }
    auto port = server_->listen(listen);
    // A server or gate that was just killed has the port until the kernel has closed its sockets.
    for (int i = 0; i < 20 && !port && port.error().code == "PortTaken"; ++i) {
      co_await sleep_for(executor_, std::chrono::milliseconds(50));
      port = server_->listen(listen);
    }
    if (!port && listen.port != 0) {
      log_.warn("the port of the run listener is taken: running pods cannot reach the server",
                {{"port", Json(listen.port)}});
      listen.port = 0;
      port = server_->listen(listen);
    }
    if (!port) { co_return fail(std::move(port.error())); }
    if (gate_) {
      auto kept = gate_->hold(kRunListener, server_->listener_fd(kRunListener));
      if (kept) { scope_.spawn("gate", gate_->watch()); }
    }
    const std::string text = std::to_string(*port);
    if (!*known || **known != text) {
      auto stored = co_await store_->write([text](Records& tx) {
        return tx.put_setting(std::string(kServerScope), std::string(kRunPort), text, std::nullopt);
      });
      if (!stored) { co_return fail(std::move(stored.error())); }
    }
    co_return "http://127.0.0.1:" + text;
  }

  static std::string forced() {  // what METIER_FORCE says, README.md
    const char* words = std::getenv("METIER_FORCE");
    return words != nullptr ? words : "";
  }

  Result<void> make_cluster() {
    python_ = default_python(options_.python);
    environments_ = std::make_unique<Environments>(
        executor_, Environments::Options{
                       .folder = options_.data + "/environments", .uv = uv_program(), .log = log_});
    pod_environments_ = std::make_unique<PodEnvironments>(
        executor_, *environments_,
        PodEnvironments::Options{.python = python_,
                                 .lib = lib_,
                                 .token =
                                     [this](const std::string& project, const std::string& uid) {
                                       return engine_->tokens().token(project, uid);
                                     },
                                 .variables = spark_variables()});
    ProcessDriver::Options driver;
    driver.data = options_.data;
    driver.shim = lib_ + "/metier-shim";
    driver.runner = lib_;
    if (const char* preload = std::getenv("METIER_PRELOAD")) { driver.preload = preload; }
    driver.force = forced();
    driver.log = log_;
#ifdef METIER_FAILPOINTS_ENABLED
    if (const char* armed = std::getenv("METIER_SHIM_FAILPOINT")) {
      driver.shim_env.push_back(std::string("METIER_SHIM_FAILPOINT=") + armed);
    }
#endif
    driver_ = std::make_unique<ProcessDriver>(executor_, clock_, random_,
                                              host_cgroups("/", driver.force), driver);
    METIER_TRY(host, LinuxInventory().read());
    EmbeddedOptions embedded;
    embedded.data = options_.data;
    embedded.host = std::move(host);
    std::int64_t rank = -1;  // the lowest class waits behind the pods of none
    for (const std::string& name : default_priority_classes()) {
      embedded.priorities[name] = rank++;
    }
    embedded.ambient = [this](const Resource& pod) { return ambient_of(pod); };
    embedded.secrets = [this](const std::string& secret_project, const std::string& name)
        -> Result<std::optional<std::map<std::string, std::string>>> {
      if (name.ends_with(kDaskIdentity)) {
        METIER_TRY(identity, dask_identity(secret_project, name));
        return std::map<std::string, std::string>{{"tls.crt", identity.certificate},
                                                  {"tls.key", identity.key}};
      }
      if (name.ends_with(kSparkToken)) {
        METIER_TRY(secret, read_file(options_.data + "/secret.key", 4096));
        return std::map<std::string, std::string>{
            {"token", sha256_hex(secret + "\n" + secret_project + "/" + name)}};
      }
      return objects_->open_secret(secret_project, name);
    };
    embedded.engines = [this] {
      auto engines = spark_health();
      for (auto& engine : engines_of_host(python_.empty() ? default_python("") : python_)) {
        engines.push_back(std::move(engine));
      }
      return engines;
    };
    client_ = net::make_client(executor_);
    make_functions();
    probe_client_ = std::make_unique<NetProbeClient>(executor_, *client_);
    METIER_TRY(archives, archive_folder());
    embedded.controllers = {std::make_shared<DaskClusterController>(client_.get(), clock_),
                            std::make_shared<NuclioController>(*functions_),
                            std::make_shared<SparkController>(client_.get(), archives),
                            std::make_shared<SparkConnectController>(client_.get(), archives),
                            std::make_shared<MpiJobController>(lib_ + "/metier-mpi")};
    embedded.probe_client = probe_client_.get();
    embedded.clock = &clock_;
    embedded.random = &random_;
    embedded.log = log_;
    cluster_ = std::make_unique<EmbeddedCluster>(executor_, store_->objects(), *driver_,
                                                 std::move(embedded));
    return {};
  }

  // Class-data archives of Spark's JVMs. Pods of every user keep theirs in a folder of their own here, as in /tmp.
  Result<std::string> archive_folder() const {
    std::string folder = options_.data + "/spark";
    METIER_CHECK(make_folders(folder, 0755));
    if (::geteuid() == 0 && ::chmod(folder.c_str(), 01777) != 0) {
      return fail(errno_error(folder, errno));
    }
    return folder;
  }

  void make_functions() {
    const std::size_t colon = options_.listen.rfind(':');
    functions_ = std::make_unique<FunctionsOfNode>(
        executor_, store_->objects(), *client_,
        FunctionsOfNode::Options{
            .data = options_.data,
            .lib = lib_,
            .program = std::getenv("METIER_PROCESSOR") != nullptr ? std::getenv("METIER_PROCESSOR")
                                                                  : program_,
            .listen = options_.listen.substr(0, colon == std::string::npos ? 0 : colon),
            .gate = gate_.get(),
            .reach =
                [this](const std::string& name_space, const std::string& service) {
                  return cluster_->address_of(name_space, service, "http");
                },
            .secret =
                [this](const std::string& name) {
                  return sha256_hex(engine_->tokens().token("", name)).substr(0, 32);
                },
            .look_again = [this](const ResourceKey& key) { cluster_->look_again(key); },
            .all_cpus_are_free = forced().contains("free-cpus"),
            .log = log_});
    for (auto& [name, socket] : held_) { functions_->adopt(name, std::move(socket)); }
    held_.clear();
    function_watch_ =
        store_->objects().watch({.kind = "NuclioFunction"}, [this](const ObjectEvent& event) {
          if (event.type == ObjectEvent::Type::removed) {
            functions_->release(key_of(event.object));
          }
        });
  }

  // A paused queue stays paused over a restart: a file says so.
  std::string pause_file() const { return options_.data + "/queue-paused"; }
  Result<void> pause_queue(bool paused, const std::string& reason) {
    if (paused) {
      METIER_CHECK(write_record(pause_file(), reason));
    } else if (::unlink(pause_file().c_str()) != 0 && errno != ENOENT) {
      return fail(errno_error(pause_file(), errno));
    }
    cluster_->pause_queue(paused, reason);
    log_.info(paused ? "queue paused" : "queue resumed", {{"reason", Json(reason)}});
    return {};
  }

  Async<Result<Ambient>> ambient_of(Resource pod) {
    auto ambient = co_await pod_environments_->ambient(pod);
    if (!ambient) { co_return ambient; }
    auto prepared = functions_->prepare(pod, *ambient);
    if (!prepared) { co_return fail(std::move(prepared.error())); }
    const auto label = pod.metadata.labels.find(kDeploymentLabel);
    if (label != pod.metadata.labels.end()) {
      ambient->env.emplace_back(
          "MLRUN_HTTPDB__TOKEN",
          engine_->tokens().token(pod.metadata.name_space, kFunctionToken + label->second));
    }
    co_return ambient;
  }

  // Of one cluster: made from the server's secret whenever it is asked for.
  Result<net::Identity> dask_identity(const std::string& project, const std::string& name) const {
    METIER_TRY(secret, read_file(options_.data + "/secret.key", 4096));
    return net::derive_identity(secret, project + "/" + name);
  }

  void make_engine(const std::string& run_url) {
    EngineOptions engine;
    engine.data = options_.data;
    engine.pod_api_url = run_url;
    engine.default_python = python_;
    engine.rank_tool = lib_ + "/metier-mpi";
    if (const char* silence = std::getenv("METIER_SILENCE")) {
      if (const auto parsed = parse_duration(silence)) {
        engine.silence = std::chrono::duration_cast<std::chrono::seconds>(*parsed);
      }
    }
    engine.server_uid = static_cast<std::int64_t>(::geteuid());
    if (const char* ttl = std::getenv("METIER_RESOURCE_TTL")) {
      if (const auto parsed = parse_duration(ttl)) {
        engine.resource_ttl = std::chrono::duration_cast<std::chrono::seconds>(*parsed);
      }
    }
    ground_ = std::make_unique<Ground>(
        Ground{executor_, *store_, *cluster_, kinds_, clock_, random_, log_, engine});
    engine_ = std::make_unique<Engine>(*ground_);
    deployments_ = std::make_unique<Deployments>(*ground_, *engine_);
    objects_ = std::make_unique<ProjectObjects>(*ground_);
    dask_clusters_ = std::make_unique<DaskClusters>(*ground_, *engine_);
    pages_ = std::make_unique<Pages>(*ground_, *engine_);
    describe_ = std::make_unique<Describe>(*ground_, *engine_);
    resources_ = std::make_unique<RuntimeResources>(*ground_);
    builds_ = std::make_unique<Builds>(*ground_, pod_environments_.get());
  }

  Result<api::Access> make_access() {
    api::Access access;
    access.hosts = options_.allowed_hosts;
    access.run_listener = kRunListener;
    access.server_uid = static_cast<std::int64_t>(::geteuid());
    access.run_token = [this](std::string_view token) -> std::optional<api::RunTokenScope> {
      auto run = engine_->check_token(token);
      if (!run) {
        // Of a deployment: good while it lives, for its own project.
        run = engine_->tokens().check(token);
        if (!run || !run->uid.starts_with(kFunctionToken) ||
            !deployments_->lives(run->project, run->uid.substr(kFunctionToken.size()))) {
          return std::nullopt;
        }
      }
      return api::RunTokenScope{run->project, run->uid};
    };
    if (options_.listen.empty()) { return access; }
    const bool loopback = options_.listen.starts_with("127.") ||
                          options_.listen.starts_with("localhost:") ||
                          options_.listen.starts_with("[::1]");
    if (options_.auth == "none") {
      if (!loopback && !options_.insecure_no_auth) {
        return fail(invalid(
            "--auth none",
            "without a token anybody who reaches " + options_.listen + " may run programs here",
            "listen on 127.0.0.1, or say --insecure-no-auth"));
      }
      return access;
    }
    const std::string file = options_.data + "/token";
    auto known = read_file(file, 4096);
    if (!known && known.error().kind != ErrorKind::not_found) {
      return fail(std::move(known.error()));
    }
    if (known) {
      while (!known->empty() && (known->back() == '\n' || known->back() == ' ')) {
        known->pop_back();
      }
      access.token = *known;
    }
    if (access.token.empty()) {
      access.token = random_.hex(24);
      METIER_CHECK(write_file(file, access.token + "\n", 0600));
      METIER_CHECK(sync_folder(options_.data));
    }
    return access;
  }

  void make_routes(api::Access access, const std::string& run_url) {
    router_ = std::make_unique<api::Router>(std::move(access), log_);
    api_ = std::make_unique<api::EngineApi>(api::EngineApi{*engine_,
                                                           *describe_,
                                                           *objects_,
                                                           *resources_,
                                                           *builds_,
                                                           *deployments_,
                                                           {},
                                                           {},
                                                           router_.get(),
                                                           clock_.now()});
    api_->runner = lib_;
    api_->processor_metrics = [this](std::string address) {
      return processor_metrics(*client_, std::move(address));
    };
    api_->environments = [this] {
      JsonArray out;
      for (const EnvironmentInfo& info : environments_->list()) {
        JsonArray requirements;
        for (const std::string& requirement : info.requirements) {
          requirements.emplace_back(requirement);
        }
        out.push_back(JsonObject{{"id", info.id},
                                 {"python", info.python},
                                 {"requirements", std::move(requirements)},
                                 {"state", info.state},
                                 {"built", info.built}});
      }
      return Json(std::move(out));
    };
    api_->queue = [this] {
      const Scheduler& scheduler = cluster_->scheduler();
      return Json(JsonObject{{"paused", scheduler.paused()},
                             {"reason", scheduler.pause_reason()},
                             {"waiting", scheduler.waiting()}});
    };
    api_->pause_queue = [this](bool paused, const std::string& reason) {
      return pause_queue(paused, reason);
    };
    api_->secrets_changed = [this](const std::string& project, const std::string& name) {
      engine_->secrets_changed(project);
      cluster_->secret_changed(project, name);
    };
    records_api_ = std::make_unique<api::RecordsApi>(
        api::RecordsApi{*store_,
                        clock_,
                        options_.data + "/projects/{{project}}/artifacts/{{run.uid}}",
                        [this, run_url] { return tcp_url_.empty() ? run_url : tcp_url_; },
                        {},
                        {},
                        {},
                        {},
                        {}});
    records_api_->held = [this](const std::string& project, const std::string& uid) {
      return engine_->holds(project, uid);
    };
    records_api_->run_changed = [this](const std::string& project, const std::string& uid,
                                       const std::string& name, const std::string& state) {
      engine_->run_changed(project, uid, name, state);
    };
    records_api_->forget_run = [this](std::string project, std::string uid) {
      return engine_->forget(std::move(project), std::move(uid));
    };
    records_api_->abort_run = [this](std::string project, std::string uid, std::string text) {
      return engine_->abort(std::move(project), std::move(uid), std::move(text));
    };
    records_api_->remove_function = [this](std::string project, std::string name) {
      return deployments_->remove(std::move(project), std::move(name));
    };
    records_api_->deployed_status = [this](const std::string& project, const std::string& name,
                                           const std::string& tag) {
      return deployments_->status_of(project, name, tag);
    };
    records_api_->secrets_changed = [this](const std::string& project) {
      engine_->secrets_changed(project);
      cluster_->secret_changed(project, "mlrun-project-secrets-" + project);
    };
    api::add_submit_routes(*router_, *api_);
    api::add_log_routes(*router_, *api_);
    api::add_metier_routes(*router_, *api_);
    api::add_deployment_routes(*router_, *api_);
    api::add_dask_routes(*router_, *dask_clusters_,
                         [this](const std::string& project, const std::string& cluster) {
                           return dask_identity(project, cluster + std::string(kDaskIdentity));
                         });
    api::add_page_routes(*router_, *pages_, *describe_, *client_, executor_);
    api::add_record_routes(*router_, *records_api_);
  }

  Result<void> listen() {
    net::ListenOptions unix_listen;
    unix_listen.name = "unix";
    unix_listen.unix_path = options_.socket;
    unix_listen.unix_mode = ::geteuid() == 0 ? 0666 : 0600;
    METIER_CHECK(make_folders(options_.socket.substr(0, options_.socket.rfind('/')),
                              ::geteuid() == 0 ? 0755 : 0700));
    METIER_TRY(unix_port, server_->listen(unix_listen));
    static_cast<void>(unix_port);
    std::error_code ignored;
    std::filesystem::remove(options_.data + "/url", ignored);
    if (options_.listen.empty()) { return {}; }
    const std::size_t colon = options_.listen.rfind(':');
    net::ListenOptions tcp;
    tcp.name = "tcp";
    tcp.host = options_.listen.substr(0, colon);
    const std::string port = colon == std::string::npos ? "" : options_.listen.substr(colon + 1);
    const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), tcp.port);
    if (port.empty() || error != std::errc{} || end != port.data() + port.size()) {
      return fail(invalid("--listen", quote(options_.listen) + " is not ADDRESS:PORT",
                          "write --listen 127.0.0.1:8080"));
    }
    tcp.tls_certificate = options_.tls_cert;
    tcp.tls_key = options_.tls_key;
    METIER_TRY(bound, server_->listen(tcp));
    tcp_url_ = (tcp.tls_certificate.empty() ? "http://" : "https://") + tcp.host + ":" +
               std::to_string(bound);
    log_.info("listening", {{"address", Json(tcp.host)}, {"port", Json(bound)}});
    if (is_all_interfaces(tcp.host)) {
      log_.warn("every network of this machine reaches the server",
                {{"reason", Json("ListensOnAllInterfaces")}, {"address", Json(tcp.host)}});
    }
    // For `metier env`: --listen may have left the choice of the port to the kernel.
    METIER_CHECK(write_file(options_.data + "/url", tcp_url_ + "\n", 0600));
    return {};
  }

  Async<net::Response> answer(net::Request request) {
    if (!router_) {
      co_return api::error_response(Error{.kind = ErrorKind::unavailable,
                                          .message = "the server is starting",
                                          .fix = "try again in a moment"});
    }
    // A long poll counts for as long as it waits; a run's own calls keep nobody alive.
    struct Busy {
      Server& server;
      explicit Busy(Server& owner) : server(owner) { ++server.in_flight_; }
      ~Busy() {
        --server.in_flight_;
        server.last_use_ = server.clock_.steady();
      }
    } const busy(*this);
    ++requests_;
    co_return co_await router_->handle(std::move(request));
  }

  void ready() {
    ::prctl(PR_SET_DUMPABLE, 0);  // from here on nothing of /proc/self is read that this would hide
    last_use_ = clock_.steady();
    log_.info("ready", {{"data", Json(options_.data)},
                        {"socket", Json(options_.socket)},
                        {"pid", Json(::getpid())}});
    if (options_.ready_fd >= 0) {
      const ssize_t written = ::write(options_.ready_fd, "ready\n", 6);
      static_cast<void>(written);
      ::close(options_.ready_fd);
    }
  }

  Async<void> until_stopped() {
    asio::basic_signal_set<Executor> signals(executor_, SIGTERM, SIGINT);
    if (!options_.private_server) {
      boost::system::error_code error;
      const int number = co_await signals.async_wait(asio::redirect_error(use_async, error));
      log_.info("stopping", {{"signal", Json(number)}});
      co_return;
    }
    bool stopped = false;
    Signal changed(executor_);
    signals.async_wait([&](boost::system::error_code error, int) {
      if (error) { return; }
      stopped = true;
      changed.notify();
    });
    while (!stopped) {
      const bool idle = engine_->idle() && deployments_->idle() && in_flight_ == 0;
      const auto now = clock_.steady();
      if (!idle) { last_use_ = now; }
      const auto left = last_use_ + std::chrono::seconds(60) - now;
      if (left <= std::chrono::seconds(0)) {
        log_.info("nobody uses this private server any more");
        for_good_ = true;
        break;
      }
      const std::uint64_t seen = changed.generation();
      if (!stopped) {
        co_await changed.wait(
            seen, std::chrono::steady_clock::now() + std::min<std::chrono::steady_clock::duration>(
                                                         left, std::chrono::seconds(20)));
      }
    }
    signals.cancel();
    co_await sleep_for(executor_, std::chrono::milliseconds(0));
  }

  Async<void> stop() {
    if (server_) { co_await server_->close(std::chrono::milliseconds(500)); }
    if (gate_ && for_good_) { gate_->quit(); }
    auto watched = co_await scope_.close(std::chrono::seconds(1));
    if (!watched) { log_.warn("a task of the server did not end in time"); }
    // With nothing alive nobody will call: the gate may go too. Else it keeps the socket of living pods.
    if (gate_ && (!engine_ || engine_->live_runs() == 0) &&
        (!deployments_ || deployments_->idle())) {
      gate_->quit();
    }
    if (builds_) { co_await builds_->stop(); }
    if (deployments_) { co_await deployments_->stop(); }
    if (dask_clusters_) { co_await dask_clusters_->stop(); }
    if (engine_) { co_await engine_->stop(); }
    if (cluster_) {
      auto closed = co_await cluster_->close();
      if (!closed) {
        log_.warn("cluster did not close in time", {{"error", Json(closed.error().text())}});
      }
    }
    function_watch_.reset();
    if (functions_) { co_await functions_->close(); }
    if (pod_environments_) { co_await pod_environments_->close(); }
    if (driver_) { co_await driver_->close(); }
    if (store_) {
      auto closed = co_await store_->close();
      if (!closed) {
        log_.warn("store did not close well", {{"error", Json(closed.error().text())}});
      }
    }
  }

  const cli::ServerOptions& options_;
  const Clock& clock_ = system_clock();
  Random& random_ = system_random();
  std::unique_ptr<LogSink> sink_;
  Logger log_;
  asio::io_context loop_;
  Executor executor_;
  std::exception_ptr failure_;
  KindRegistry kinds_ = builtin_kinds(check_processor);
  std::string lib_;
  std::string python_;
  std::string tcp_url_;  // of the TCP listener, empty without one
  std::unique_ptr<Store> store_;
  std::unique_ptr<net::Server> server_;
  Scope scope_{executor_};
  std::uint64_t requests_ = 0;
  std::unique_ptr<Gate> gate_;
  std::vector<std::pair<std::string, Fd>> held_;  // sockets of functions that the gate had
  std::string program_;                           // this binary
  bool for_good_ = false;  // no pod lives and no client: the gate may end too
  std::unique_ptr<Environments> environments_;
  std::unique_ptr<PodEnvironments> pod_environments_;
  std::unique_ptr<ProcessDriver> driver_;
  std::unique_ptr<net::Client> client_;
  std::unique_ptr<NetProbeClient> probe_client_;
  std::unique_ptr<FunctionsOfNode> functions_;
  std::shared_ptr<void> function_watch_;
  std::unique_ptr<EmbeddedCluster> cluster_;
  std::unique_ptr<Ground> ground_;
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<Deployments> deployments_;
  std::unique_ptr<ProjectObjects> objects_;
  std::unique_ptr<DaskClusters> dask_clusters_;
  std::unique_ptr<Pages> pages_;
  std::unique_ptr<Describe> describe_;
  std::unique_ptr<RuntimeResources> resources_;
  std::unique_ptr<Builds> builds_;
  std::unique_ptr<api::Router> router_;
  std::unique_ptr<api::EngineApi> api_;
  std::unique_ptr<api::RecordsApi> records_api_;
  std::size_t in_flight_ = 0;
  std::chrono::steady_clock::time_point last_use_{};
};

// Our memory holds secrets, and many pods depend on us: no core files, and the kernel takes others first.
void harden() {
  const rlimit none{0, 0};
  ::setrlimit(RLIMIT_CORE, &none);
  rlimit files{};
  if (::getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur < files.rlim_max) {
    files.rlim_cur = files.rlim_max;
    ::setrlimit(RLIMIT_NOFILE, &files);
  }
  const int score = ::open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
  if (score >= 0) {
    const ssize_t written = ::write(score, "-900", 4);
    static_cast<void>(written);
    ::close(score);
  }
}

}  // namespace

int serve(const cli::ServerOptions& options) {
  ::umask(0077);
  std::signal(SIGPIPE, SIG_IGN);
  harden();
  if (options.cluster != "embedded") {
    std::fprintf(stderr,
                 "error: --cluster: cluster %s is not built yet\n  leave the flag out: the "
                 "embedded cluster runs on this machine\n",
                 options.cluster.c_str());
    return 5;
  }
  if (options.db != "sqlite") {
    std::fprintf(stderr, "error: --db: only sqlite is built yet\n  leave the flag out\n");
    return 5;
  }
  auto server = std::make_unique<Server>(options);
  return server->run();
}

}  // namespace metier
