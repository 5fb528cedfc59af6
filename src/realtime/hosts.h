// The runtimes that the processor hosts itself.
#pragma once

#include <memory>

#include "realtime/processor.h"
#include "realtime/span_exporter.h"

namespace metier::realtime {

Result<std::unique_ptr<Host>> make_python_host(const HostSite& site);
// A function of a shared library (include/metier/handler.h): inline on the event thread, or on `numWorkers` threads when it is declared
// METIER_BLOCKING.
Result<std::unique_ptr<Host>> make_native_host(const HostSite& site);
// A program: the body on its standard input, its standard output the answer.
Result<std::unique_ptr<Host>> make_shell_host(const HostSite& site);
// Collects events and delivers them together. Owns nothing but its queue.
std::unique_ptr<EventTarget> make_batcher(Loop& loop, const BatchConfig& config,
                                          EventTarget& target);
// Makes a span of each event and gives the handler a traceparent below it.
std::unique_ptr<EventTarget> make_tracer(std::string function, EventTarget& target,
                                         SpanExporter& exporter);

}  // namespace metier::realtime
