// The attributes of the Kafka trigger, as Nuclio names them, and what they are to librdkafka
// (docs/reference/kafka-attributes.md).
#pragma once

#include <chrono>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"
#include "realtime/processor_config.h"

namespace metier::realtime {

enum class OnFailure { commit, retry, stop };

struct KafkaOptions {
  std::vector<std::string> brokers, topics;
  std::string group;
  bool static_lanes = false;  // workerAllocationMode: static
  std::int64_t ack_window = 0;
  std::chrono::milliseconds handler_wait{13'000};  // of a rebalance: maxWaitHandlerDuringRebalance
  OnFailure on_failure = OnFailure::commit;        // ours
  std::string dead_letter_topic;                   // ours, empty: none
  int max_deliveries = 0;  // ours, of onFailure: retry; 0: what raises is tried on and on
  std::vector<std::pair<std::string, std::string>> properties;  // of librdkafka
};

// `leave`: what lies below secretPath is not looked for (the folder may be in the pod alone).
enum class Secrets { read, leave };
// Errors name triggers.NAME.attributes.X with value, rule and fix.
Result<KafkaOptions> read_kafka_options(const TriggerConfig& trigger,
                                        Secrets secrets = Secrets::read);

}  // namespace metier::realtime
