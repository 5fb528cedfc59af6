#include "realtime/span_exporter.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>

#include "base/files.h"
#include "net/client.h"

namespace metier::realtime {
namespace {

constexpr std::size_t kMostWaiting = 8192;
constexpr std::size_t kBatch = 512;
constexpr auto kEvery = std::chrono::milliseconds(1000);
constexpr std::string_view kFile = "file://";

JsonObject attribute(std::string_view key, std::string_view value) {
  return {{"key", key}, {"value", JsonObject{{"stringValue", value}}}};
}
// OTLP's JSON has 64-bit numbers as text.
JsonObject attribute(std::string_view key, std::int64_t value) {
  return {{"key", key}, {"value", JsonObject{{"intValue", std::to_string(value)}}}};
}

Result<void> append(const std::string& path, const std::string& line) {
  const Fd file(::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644));
  if (!file) { return fail(errno_error(path, errno)); }
  for (std::size_t done = 0; done < line.size();) {
    const ssize_t n = ::write(file.get(), line.data() + done, line.size() - done);
    if (n < 0 && errno == EINTR) { continue; }
    if (n < 0) { return fail(errno_error(path, errno)); }
    done += static_cast<std::size_t>(n);
  }
  return {};
}

}  // namespace

std::string otlp_json(const std::vector<SpanRecord>& spans, std::string_view service,
                      std::string_view project, std::string_view instance) {
  JsonArray list;
  for (const SpanRecord& span : spans) {
    JsonArray attributes{attribute("faas.name", service),
                         attribute("faas.trigger", span.trigger_kind == "http" ? "http" : "pubsub"),
                         attribute("metier.trigger", span.trigger_name)};
    if (!span.method.empty()) {
      attributes.push_back(attribute("http.request.method", span.method));
      attributes.push_back(attribute("url.path", span.path));
    } else {
      attributes.push_back(attribute("messaging.destination.name", span.path));
    }
    if (span.status != 0) {
      attributes.push_back(attribute("http.response.status_code", std::int64_t{span.status}));
    }
    if (span.handler_ns > 0) {
      attributes.push_back(attribute("metier.handler_ns", span.handler_ns));
    }
    const bool failed = !span.error.empty() || span.status >= 500;
    JsonObject status{{"code", failed ? 2 : 0}};
    if (!span.error.empty()) { status["message"] = span.error; }
    JsonObject entry{{"traceId", span.trace},
                     {"spanId", span.span},
                     {"name", span.name},
                     {"kind", span.method.empty() ? 5 : 2},  // consumer, server
                     {"startTimeUnixNano", std::to_string(span.begin_ns)},
                     {"endTimeUnixNano", std::to_string(span.end_ns)},
                     {"attributes", std::move(attributes)},
                     {"status", std::move(status)}};
    if (!span.parent.empty()) { entry["parentSpanId"] = span.parent; }
    list.push_back(std::move(entry));
  }
  // In ASCII: a path holds any bytes, and a collector reads UTF-8.
  return dump_python_json(JsonObject{
      {"resourceSpans",
       JsonArray{JsonObject{
           {"resource",
            JsonObject{{"attributes", JsonArray{attribute("service.name", service),
                                                attribute("service.namespace", project),
                                                attribute("service.instance.id", instance)}}}},
           {"scopeSpans", JsonArray{JsonObject{{"scope", JsonObject{{"name", "metier"}}},
                                               {"spans", std::move(list)}}}}}}}});
}

Result<TracingConfig> tracing_from_environment(
    const std::function<std::string(const char*)>& variable) {
  TracingConfig out;
  if (variable("OTEL_SDK_DISABLED") == "true" || variable("OTEL_TRACES_EXPORTER") == "none") {
    return out;
  }
  const char* named = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
  out.endpoint = variable(named);
  if (out.endpoint.empty()) {
    named = "OTEL_EXPORTER_OTLP_ENDPOINT";
    out.endpoint = variable(named);
    while (out.endpoint.ends_with('/')) { out.endpoint.pop_back(); }
    if (!out.endpoint.empty() && !out.endpoint.starts_with(kFile)) { out.endpoint += "/v1/traces"; }
  }
  if (out.endpoint.empty()) { return out; }
  if (!out.endpoint.starts_with("http://") && !out.endpoint.starts_with("https://") &&
      !(out.endpoint.starts_with("file:///") && out.endpoint.size() > 8)) {
    return fail(invalid(named, quote(out.endpoint) + " is no address of a collector",
                        "http://HOST:4318, https://HOST:4318, or file:///PATH"));
  }
  for (const char* protocol :
       {"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"}) {
    const std::string value = variable(protocol);
    if (value.empty()) { continue; }
    if (value != "http/json") {
      return fail(invalid(protocol, quote(value) + " is not spoken here", "http/json"));
    }
    break;
  }
  out.service = variable("OTEL_SERVICE_NAME");
  return out;
}

SpanExporter::SpanExporter(TracingConfig config, Logger log)
    : config_(std::move(config)), log_(std::move(log)), thread_([this] { run(); }) {}

SpanExporter::~SpanExporter() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_one();
  thread_.join();
}

void SpanExporter::add(SpanRecord span) {
  const std::lock_guard lock(mutex_);
  if (waiting_.size() >= kMostWaiting) {
    dropped_.add();
    return;
  }
  waiting_.push_back(std::move(span));
  if (waiting_.size() == kBatch) { wake_.notify_one(); }
}

void SpanExporter::run() {
  std::unique_lock lock(mutex_);
  while (true) {
    wake_.wait_for(lock, kEvery, [this] { return stop_ || waiting_.size() >= kBatch; });
    std::vector<SpanRecord> spans;
    spans.swap(waiting_);
    const bool last = stop_;
    lock.unlock();
    if (!spans.empty()) {
      auto sent = send(otlp_json(spans, config_.service, config_.project, config_.instance));
      (sent ? sent_ : dropped_).add(spans.size());
      // Said once for a row of failures.
      if (!sent && !std::exchange(complained_, true)) {
        log_.warn("spans cannot be exported",
                  {{"endpoint", Json(config_.endpoint)}, {"error", Json(sent.error().text())}});
      }
      if (sent) { complained_ = false; }
    }
    if (last) { return; }
    lock.lock();
  }
}

Result<void> SpanExporter::send(const std::string& document) {
  if (config_.endpoint.starts_with(kFile)) {
    return append(config_.endpoint.substr(kFile.size()), document + "\n");
  }
  auto answer =
      net::make_blocking_client()->send({.method = "POST",
                                         .url = config_.endpoint,
                                         .headers = {{"Content-Type", "application/json"}},
                                         .body = document,
                                         .timeout = std::chrono::milliseconds(3000),
                                         .body_limit = 1U << 20U});
  if (!answer) { return fail(std::move(answer.error())); }
  if (answer->status / 100 != 2) {
    return fail(ErrorKind::unavailable, fmt::format("the collector answered {}", answer->status));
  }
  return {};
}

void SpanExporter::metrics(MetricsWriter& out) const {
  out.counter("metier_processor_spans_exported_total", "Spans that the collector took", {},
              sent_.value());
  out.counter("metier_processor_spans_dropped_total",
              "Spans that nobody took, or that came too fast", {}, dropped_.value());
}

}  // namespace metier::realtime
