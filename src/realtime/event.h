// One event on its way to a handler: plain views into memory that the trigger keeps until the event has ended.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

namespace metier::realtime {

// Slot and generation in the table of whoever issued it: a late answer to an old event meets nobody.
struct EventId {
  std::uint32_t slot = 0;
  std::uint32_t generation = 0;
  friend bool operator==(const EventId&, const EventId&) = default;
};

struct HeaderView {
  std::string_view name;   // as received; Python sees HTTP's in canonical case
  std::string_view value;  // bytes: a Kafka header's value may be anything
};

// Every view lives until the event's sink was told `end` or `fail`, and so does the Event itself.
struct Event {
  EventId id;            // given by the trigger; unique among its events in flight
  std::string_view uid;  // event.id of the handler; empty: the worker makes a UUID when asked
  std::string_view trigger_kind;  // "http", "kafka-cluster", "cron"
  std::string_view trigger_name;
  std::string_view method;      // "" without HTTP
  std::string_view path = "/";  // HTTP: decoded once; Kafka: the topic
  std::string_view query;       // HTTP: as received, without '?'; decoded where it is read
  std::string_view content_type;
  std::span<const HeaderView> headers;
  std::string_view body;
  std::int64_t timestamp_us = 0;  // Unix time; HTTP: arrival, Kafka: the message's
  std::int64_t offset = 0;        // Kafka's
  std::int32_t shard = -1;        // partition, -1 without
  std::int32_t num_shards = 0;
  std::string_view topic;
  std::string_view key;                          // Kafka's record key
  std::string_view type, type_version, version;  // CloudEvents
  bool header_values_are_bytes = false;          // Kafka: Python sees bytes
  bool last_in_batch = false;
  // Of an ordered stream: this worker's. It never moves to another one: when the worker ends it fails, begun or not.
  std::int32_t lane = -1;
  bool wants_logs = false;       // X-Nuclio-Log-Level: records of this event come to the sink
  std::uint8_t log_level = 0;    // 0 debug … 3 error
  std::int64_t deadline_us = 0;  // steady clock: not started by then means 503; 0: the pool's own
};

}  // namespace metier::realtime
