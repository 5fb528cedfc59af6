// Spans on their way out of the processor: OTLP in JSON, to a collector over HTTP or line by line into a file. A thread of its own;
// events never wait for it.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "base/log.h"
#include "base/result.h"
#include "realtime/metrics.h"

namespace metier::realtime {

struct SpanRecord {
  std::string trace, span, parent;  // hex; no parent: it begins the trace
  std::string name;
  std::string trigger_kind, trigger_name, method, path;
  int status = 0;             // HTTP's; 0: there was none
  std::string error;          // what failed, "" when nothing did
  std::int64_t begin_ns = 0;  // Unix time
  std::int64_t end_ns = 0;
  std::int64_t handler_ns = 0;
};

// One ExportTraceServiceRequest.
std::string otlp_json(const std::vector<SpanRecord>& spans, std::string_view service,
                      std::string_view project, std::string_view instance);

struct TracingConfig {
  std::string endpoint;  // "http://host:4318/v1/traces", "file:///path"; "": no tracing
  std::string service;
  std::string project;
  std::string instance;
};
// What the function's environment says, in OpenTelemetry's own variables. Errors: invalid, with the variable.
Result<TracingConfig> tracing_from_environment(
    const std::function<std::string(const char*)>& variable);

class SpanExporter final {
 public:
  SpanExporter(TracingConfig config, Logger log);
  ~SpanExporter();  // sends what it has, bounded
  SpanExporter(const SpanExporter&) = delete;

  void add(SpanRecord span);  // any thread; past 8192 waiting spans it is dropped and counted
  void metrics(MetricsWriter& out) const;

 private:
  void run();
  Result<void> send(const std::string& document);

  TracingConfig config_;
  Logger log_;
  mutable std::mutex mutex_;
  std::condition_variable wake_;
  std::vector<SpanRecord> waiting_;
  bool stop_ = false;
  bool complained_ = false;
  Counter sent_, dropped_;
  std::thread thread_;
};

}  // namespace metier::realtime
