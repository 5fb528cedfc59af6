// What a processor is told: one JSON file (docs/formats/processor-config.md) that the nuclio controller writes into the Pod. Field names
// are Nuclio's where Nuclio has one.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/json.h"
#include "base/result.h"

namespace metier::realtime {

// Where a listening socket comes from; exactly one of fd, gate, address is given.
struct ListenConfig {
  int fd = -1;       // inherited by the processor under this number
  std::string gate;  // path of the gate's control socket: asked for the socket `name` (SCM_RIGHTS)
  std::string name;  // of the Service at the gate
  std::string
      address;  // "127.0.0.1:8080", ":8080", "unix:/path"; port 0 picks one (printed in the `listening` log line)
  bool none() const { return fd < 0 && gate.empty() && address.empty(); }
};

struct BatchConfig {
  bool enabled = false;
  int size = 10;
  std::chrono::milliseconds timeout{1000};
};

enum class ExplicitAck { disable, enable, explicit_only };

struct TriggerConfig {
  std::string name;
  std::string kind;
  bool disabled = false;
  int num_workers = 1;
  std::chrono::milliseconds worker_availability_timeout{10'000};  // 0: do not wait
  std::chrono::milliseconds worker_termination_timeout{10'000};
  std::string worker_allocator_name;  // triggers of one name share one pool
  std::string mode = "sync";          // or "async"
  int max_connections = 1000;         // async.maxConnectionsNumber, events in flight in one worker
  BatchConfig batch;
  ExplicitAck explicit_ack = ExplicitAck::disable;
  std::chrono::milliseconds wait_explicit_ack_during_rebalance{100};
  int queue_depth =
      0;  // ours: events that may wait inside a worker; 0: by the handler's measured time, 1: never
  int queue_size = 1024;  // ours: events that may wait for a worker; past it 503 at once
  std::string url, username, password, secret;
  std::vector<std::string> paths;
  ListenConfig listen;    // http
  JsonObject attributes;  // of the kind
  JsonObject annotations;
};

// The function's own process memory and start; what is empty is taken from the processor's own environment.
struct ProcessorConfig {
  std::string name;
  std::string ns = "default";  // "namespace"
  std::string project = "default";
  std::string version = "latest";
  std::string description;
  std::map<std::string, std::string> labels, annotations;

  std::string handler;  // "module:function", "file.so:name", "script.sh"
  std::string runtime =
      "python";  // "python", "python:3.11", "native", "shell", or what `main` registered ("graph")
  std::string path;  // folder (or one file) of the code: the working directory, first on PYTHONPATH
  std::string python = "python3";  // interpreter
  std::string lib;                 // the unpacked bundle: metier_worker/ lies here
  std::vector<std::pair<std::string, std::string>> env;  // added to the processor's own
  JsonObject runtime_attributes;                         // shell: arguments; native: none
  std::chrono::milliseconds event_timeout{0};            // 0: none
  std::string log_level = "debug";  // least level of context.logger that is written
  std::vector<TriggerConfig> triggers;

  ListenConfig health;   // /live /ready; none: not served
  ListenConfig metrics;  // /metrics; none: not served
  ListenConfig admin;    // Nuclio's web admin: /status /triggers; none: not served
  std::string
      control;  // unix socket that the processor listens on: state as JSON lines, `pid`, `drain` (may be empty)
  std::string ready_file;  // written (atomically) with the bound ports once ready; may be empty
  std::string instance;    // NUCLIO_FUNCTION_INSTANCE: the Pod's name
  std::chrono::milliseconds drain_timeout{25'000};  // SIGTERM to the end
  std::size_t worker_memory_bytes = 0;              // RLIMIT_AS of one worker, 0 none
  JsonObject extra;  // for other hosts: "graph" …; kept, never read here
  std::map<std::string, std::string>
      functions;  // name → base URL, for context.platform.call_function
};

// Unknown fields are refused by name, except below `attributes`, `annotations`, `runtimeAttributes` and `extra`. Errors: invalid
// with the field, the value, the rule and the fix.
Result<ProcessorConfig> parse_processor_config(std::string_view json);
std::string dump_processor_config(const ProcessorConfig& config);
// "10s", "1m30s", "250ms", "0", a number of seconds: Go's durations.
Result<std::chrono::milliseconds> parse_duration(std::string_view text);

}  // namespace metier::realtime
