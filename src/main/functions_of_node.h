// What this node does for real-time functions: holds their listening sockets (with the gate), lays out their code
// and the file of their processor when a Pod of theirs starts, fires their cron triggers, and asks processors for their counters.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>

#include "base/async.h"
#include "base/files.h"
#include "base/log.h"
#include "cluster/controllers/nuclio/cron_ticks.h"
#include "cluster/controllers/nuclio/function_site.h"
#include "cluster/embedded/launch.h"
#include "gate/gate.h"
#include "net/client.h"
#include "resource/object_store.h"

namespace metier {

class FunctionsOfNode final : public FunctionSite {
 public:
  struct Options {
    std::string data;      // functions/ lies here
    std::string lib;       // the unpacked bundle
    std::string program;   // this binary
    std::string listen;    // HOST of --listen, empty without: NodePorts are loopback addresses then
    Gate* gate = nullptr;  // null: processors bind their addresses themselves
    // "127.64.0.3:8080" of a Service. Errors: not_found while the cluster has not seen it.
    std::function<Result<std::string>(const std::string& name_space, const std::string& service)>
        reach;
    std::function<std::string(const std::string& name)> secret;  // a MAC over a socket's name
    std::function<void(const ResourceKey& function)> look_again;
    // METIER_FORCE=free-cpus: replicas may grow whatever else uses the machine's processors.
    bool all_cpus_are_free = false;
    Logger log;
  };
  FunctionsOfNode(Executor loop, const ObjectStore& objects, net::Client& client, Options options);
  ~FunctionsOfNode() override;

  // A socket that the gate held for an earlier server.
  void adopt(const std::string& name, Fd socket);
  // Sockets that the gate held for functions that are not there any more are closed.
  void forget_strangers();

  // For the ambient of a Pod with annotation metier.dev/function: its code and its processor's file.
  // Errors: not_found (no such function any more), of the disk.
  Result<void> prepare(const Resource& pod, Ambient& ambient);
  Async<void> close();

  Result<FunctionSocket> hold(const Resource& function, const std::string& service,
                              int node_port) override;
  void release(const ResourceKey& function) override;
  void crons(const ResourceKey& function, std::map<std::string, JsonObject> triggers) override;
  bool waiting(const ResourceKey& function) override;
  void tell_when_waiting(const ResourceKey& function, bool wanted) override;
  Async<Result<ProcessorSample>> sample(const std::string& name_space,
                                        const std::string& pod) override;
  Async<Result<std::vector<ProcessorProblem>>> problems(const std::string& name_space,
                                                        const std::string& pod) override;
  double free_cpus() override;
  std::optional<std::string> substitute(const std::string& runtime) override;
  std::chrono::steady_clock::time_point now() override { return std::chrono::steady_clock::now(); }

 private:
  struct Socket {
    std::string name;  // at the gate
    Fd fd;
  };
  struct Held {
    Socket inside;   // the Service's own address
    Socket outside;  // HOST:port of a NodePort, with --listen
    FunctionSocket where;
    int node_port = -2;
    bool watched = false;
    std::uint64_t watch = 0;  // grows: whoever waits for an older one stops
    std::shared_ptr<Signal> stop;
  };
  CronTicks::Calls cron_calls();
  Async<Result<int>> fire(std::string name_space, std::string pod, std::string trigger,
                          std::string id, bool replace);
  Async<void> watch(ResourceKey function, std::uint64_t number);
  std::string socket_name(const ResourceKey& function, bool outside) const;
  // Listens on host:port ("0": any), or goes on with a socket that the gate or a processor has.
  Result<Socket> keep(const Resource& function, bool outside, const std::string& host,
                      const std::string& port);
  // What is held goes on being held, by name, for the next attempt.
  void keep_for_later(Held& held);
  // Of a pod's processor: "http://127.64.0.5:8090".
  Result<std::string> metrics_url(const std::string& name_space, const std::string& pod) const;
  std::string control_path(const std::string& name_space, const std::string& pod) const;

  // Name → address of every function of a namespace: a file that processors read when one calls another.
  std::string addresses_file(const std::string& name_space) const;
  void write_addresses(const std::string& name_space);

  Executor loop_;
  const ObjectStore& objects_;
  net::Client& client_;
  Options options_;
  Scope scope_;
  CronTicks cron_ticks_;
  std::map<ResourceKey, Held> held_;
  std::map<std::string, Fd> adopted_;  // by name, not asked for yet
  std::uint64_t watches_ = 0;
  double idle_before_ = 0;
  std::chrono::steady_clock::time_point idle_at_{};
  double free_ = 0;
};

// Sums of the counters in a processor's /metrics that scaling needs.
ProcessorSample sample_from(std::string_view prometheus);
// The text of the /metrics of the processor in the pod at that address.
Async<Result<std::string>> processor_metrics(net::Client& client, std::string address);

}  // namespace metier
