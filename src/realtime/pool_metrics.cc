// The pool's figures, under Nuclio's names where it has one.
#include <fmt/format.h>

#include <chrono>

#include "realtime/pool_worker.h"
#include "realtime/worker_pool.h"

namespace metier::realtime {

namespace {

using std::chrono::nanoseconds;

}  // namespace

HostLoad WorkerPool::load() const {
  HostLoad load;
  load.busy_seconds = static_cast<double>(busy_ns_.load(std::memory_order_relaxed)) * 1e-9;
  for (const auto& stats : stats_) {
    load.handled += static_cast<std::int64_t>(stats->success.value() + stats->failure.value());
  }
  // What runs now counts as well: a handler of an hour is busy for an hour.
  const std::int64_t now =
      std::chrono::duration_cast<nanoseconds>(std::chrono::steady_clock::now().time_since_epoch())
          .count();
  for (const auto& worker : workers_) {
    if (worker->in_flight > 0) {
      load.busy_seconds += static_cast<double>(now - worker->busy_since_ns) * 1e-9;
    }
  }
  load.queued = static_cast<int>(queued_.value());
  load.in_flight = static_cast<int>(in_flight_.value());
  load.workers = static_cast<int>(workers_.size());
  load.last_event_ms = last_event_ms_.load(std::memory_order_relaxed);
  return load;
}

std::string WorkerPool::describe() const {
  return fmt::format("{} of {} workers ready{}{}", ready_count_.value(), workers_.size(),
                     native_ ? "" : ", SlowWorker", cold_ ? ", ColdWorkers" : "");
}

void trigger_metrics(const TriggerStats& stats, MetricsWriter& out) {
  const Labels id{{"trigger_kind", stats.kind}, {"trigger_id", stats.name}};
  constexpr std::string_view kHandled = "nuclio_processor_handled_events_total";
  out.counter(kHandled, "Events handled",
              {{"trigger_kind", stats.kind}, {"trigger_id", stats.name}, {"result", "success"}},
              stats.success.value());
  out.counter(kHandled, "Events handled",
              {{"trigger_kind", stats.kind}, {"trigger_id", stats.name}, {"result", "failure"}},
              stats.failure.value());
  constexpr std::string_view kAllocation = "nuclio_processor_worker_allocation_total";
  out.counter(
      kAllocation, "Worker allocations",
      {{"trigger_kind", stats.kind}, {"trigger_id", stats.name}, {"result", "success_immediate"}},
      stats.immediate.value());
  out.counter(
      kAllocation, "Worker allocations",
      {{"trigger_kind", stats.kind}, {"trigger_id", stats.name}, {"result", "success_after_wait"}},
      stats.after_wait.value());
  out.counter(
      kAllocation, "Worker allocations",
      {{"trigger_kind", stats.kind}, {"trigger_id", stats.name}, {"result", "error_timeout"}},
      stats.allocation_timeout.value());
  const std::uint64_t count =
      stats.immediate.value() + stats.after_wait.value() + stats.allocation_timeout.value();
  out.counter("nuclio_processor_worker_allocation_count", "Worker allocations", id, count);
  out.counter("nuclio_processor_worker_allocation_wait_duration_milliseconds_sum",
              "Time waited for workers", id, stats.wait_ms.value());
  out.counter("nuclio_processor_worker_allocation_workers_available_percentage",
              "Sum over allocations of free workers in percent", id,
              stats.available_percent.value());
  out.counter("nuclio_processor_handled_events_duration_milliseconds_sum", "Time in handlers", id,
              stats.handler.sum_ns() / 1'000'000);
  out.counter("nuclio_processor_handled_events_duration_milliseconds_count", "Events timed", id,
              stats.handler.count());
  out.histogram("metier_processor_queue_seconds", "From arrival to the worker", id, stats.queue);
  out.histogram("metier_processor_handler_seconds", "In the handler", id, stats.handler);
}

void WorkerPool::metrics(MetricsWriter& out) const {
  for (const auto& stats : stats_) { trigger_metrics(*stats, out); }
  const Labels pool{{"pool", label_}};
  out.gauge("metier_processor_workers", "Workers of the pool", pool,
            static_cast<double>(workers_.size()));
  out.gauge("metier_processor_workers_ready", "Workers that are up", pool,
            static_cast<double>(ready_count_.value()));
  out.gauge("metier_processor_workers_busy", "Workers with an event", pool,
            static_cast<double>(busy_count_.value()));
  out.gauge("metier_processor_queued_events", "Events that wait for a worker", pool,
            static_cast<double>(queued_.value()));
  out.gauge("metier_processor_in_flight_events", "Events in workers", pool,
            static_cast<double>(in_flight_.value()));
  out.counter("metier_processor_worker_restarts_total", "Workers replaced", pool,
              restarts_.value());
  out.counter("metier_processor_worker_corrupt_total", "Workers replaced for impossible records",
              pool, corrupt_.value());
  out.counter("metier_processor_event_timeouts_total", "Events that timed out", pool,
              timeouts_.value());
  out.counter("metier_processor_redispatched_events_total",
              "Unstarted events of dead workers given to another", pool, redispatched_.value());
  out.counter("metier_processor_unknown_acks_total",
              "Explicit acknowledgements that no stream waits for", pool, unknown_acks_.value());
  out.counter("metier_processor_moved_events_total",
              "Unstarted events taken from behind a slow one", pool, stolen_.value());
}

}  // namespace metier::realtime
