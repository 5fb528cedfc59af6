// Records that no handler finished, on their way to another topic. One producer per trigger; all calls on the loop.
#pragma once

#include <rdkafka.h>

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/files.h"
#include "base/log.h"
#include "realtime/loop.h"
#include "realtime/triggers/kafka/consumer.h"

namespace metier::realtime {

// Why a record is there; becomes its headers, beside those that it had.
struct DeadLetter {
  std::string_view function, group, topic, why;
  std::int32_t partition = 0;
  std::int64_t offset = 0;
  int deliveries = 0;
};

class DeadLetters final : public Watched {
 public:
  using Done = std::function<void(const std::string& error)>;  // empty: every replica has it

  // Brokers and security are the consumer's.
  static Result<std::unique_ptr<DeadLetters>> open(Loop& loop, const KafkaOptions& options,
                                                   Logger log);
  ~DeadLetters() override;

  // Key, value, headers and time of `record` are copied. `done` comes later, once, unless this goes before.
  void send(const rd_kafka_message_t& record, const DeadLetter& letter, Done done);

  void on_ready(std::uint32_t) noexcept override;

 private:
  DeadLetters(Loop& loop, std::string topic, Logger log)
      : loop_(loop), topic_(std::move(topic)), log_(std::move(log)) {}
  void finish(std::uint64_t number, const std::string& error);

  Loop& loop_;
  std::string topic_;
  Logger log_;
  Fd wake_;
  rd_kafka_t* kafka_ = nullptr;
  KafkaQueue events_;
  std::uint64_t next_ = 0;
  std::map<std::uint64_t, Done> waiting_;
  std::vector<std::pair<std::uint64_t, std::string>> refused_;  // by the client itself, to be told
};

}  // namespace metier::realtime
