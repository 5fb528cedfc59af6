// What the controller of functions asks of its node: the listening socket of a function, which outlives its
// processors, and what the processors say of themselves. `main` implements it over the gate; tests fake it.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/async.h"
#include "resource/resource.h"

namespace metier {

struct FunctionSocket {
  std::string address;   // "127.64.0.3:8080", where the function is called on this node
  std::string external;  // "HOST:30080" when it can be called from other machines, else empty
};

// One processor's counters, as its /metrics gives them.
struct ProcessorSample {
  double busy_seconds = 0;  // of all workers in handlers that have ended, since its start
  double busy_now = 0;      // workers with an event
  double events = 0;        // handled since its start
  double workers = 0;
  double in_flight = 0;
};

// What a processor says of itself although it runs (its /problems): a code of `metier help`, and this case in words.
struct ProcessorProblem {
  std::string code;
  std::string message;
};

class FunctionSite {
 public:
  virtual ~FunctionSite() = default;
  // The function's listening socket, made when there is none. `service`: the Service whose address it has.
  // `node_port`: of a NodePort Service, 0 = any, -1 = not to be reached from outside. Errors: conflict
  // (PortTaken, with the port), unavailable (the Service has no address yet).
  virtual Result<FunctionSocket> hold(const Resource& function, const std::string& service,
                                      int node_port) = 0;
  virtual void release(const ResourceKey& function) = 0;
  // The function's enabled cron triggers by name, at every reconciliation: they are fired here, once per function whatever
  // its replicas, at one of its processors.
  virtual void crons(const ResourceKey& function, std::map<std::string, JsonObject> triggers) = 0;
  // A connection (or a tick) waits and nobody takes it: asks whether one does, and to be told (reconcile) when one comes.
  virtual bool waiting(const ResourceKey& function) = 0;
  virtual void tell_when_waiting(const ResourceKey& function, bool wanted) = 0;
  virtual Async<Result<ProcessorSample>> sample(const std::string& name_space,
                                                const std::string& pod) = 0;
  virtual Async<Result<std::vector<ProcessorProblem>>> problems(const std::string& name_space,
                                                                const std::string& pod) = 0;
  // Processors of this node that nobody uses, in CPUs (0.3 = a third of one).
  virtual double free_cpus() = 0;
  // nullopt: version is here or none was asked for; else the interpreter that is used instead of "python:X".
  virtual std::optional<std::string> substitute(const std::string& runtime) = 0;
  virtual std::chrono::steady_clock::time_point now() = 0;
};

}  // namespace metier
