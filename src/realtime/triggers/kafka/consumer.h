// librdkafka's consumer with owners: errors are Results, lists and messages free themselves. One per trigger; all calls on the loop.
#pragma once

#include <rdkafka.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/files.h"
#include "base/log.h"
#include "realtime/loop.h"
#include "realtime/triggers/kafka/options.h"

namespace metier::realtime {

template <auto Free>
struct FreedBy {
  template <class T>
  void operator()(T* pointer) const {
    Free(pointer);
  }
};
using KafkaQueue = std::unique_ptr<rd_kafka_queue_t, FreedBy<rd_kafka_queue_destroy>>;
using KafkaList = std::unique_ptr<rd_kafka_topic_partition_list_t,
                                  FreedBy<rd_kafka_topic_partition_list_destroy>>;
using KafkaMessage = std::unique_ptr<rd_kafka_message_t, FreedBy<rd_kafka_message_destroy>>;
using KafkaEvent = std::unique_ptr<rd_kafka_event_t, FreedBy<rd_kafka_event_destroy>>;

struct TopicPartition {
  std::string topic;
  std::int32_t partition = 0;
  auto operator<=>(const TopicPartition&) const = default;
};

// Where a partition's records come from.
class KafkaSource {
 public:
  virtual ~KafkaSource() = default;
  // What is there, at most so much; nothing is waited for.
  virtual void read(rd_kafka_queue_t* queue, std::vector<KafkaMessage>& into,
                    std::size_t at_most) = 0;
};

class KafkaConsumer final : public Watched, public KafkaSource {
 public:
  struct Calls {
    std::function<void()> ready;  // something may be there: `serve`, then the partitions' queues
    std::function<void(std::vector<TopicPartition>)> assigned;            // answered by `assign`
    std::function<void(std::vector<TopicPartition>, bool lost)> revoked;  // answered by `unassign`
    std::function<void(bool connected, const std::string& why)> connection;
  };
  // Subscribes; brokers that are away are no error.
  static Result<std::unique_ptr<KafkaConsumer>> open(Loop& loop, const KafkaOptions& options,
                                                     Calls calls, Logger log);
  ~KafkaConsumer() override;

  void serve();  // events of the group: calls come from here
  // The partition's own queue: nothing of it is read ahead of `read`, so that it waits at the broker while workers are busy.
  KafkaQueue queue_of(const TopicPartition& partition);
  void read(rd_kafka_queue_t* queue, std::vector<KafkaMessage>& into, std::size_t at_most) override;
  void assign(const std::vector<TopicPartition>& partitions);
  void unassign(const std::vector<TopicPartition>& partitions);
  // Committed within the commit interval, and before a partition is given away.
  void store(const std::vector<std::pair<TopicPartition, std::int64_t>>& next_offsets);
  // Leaves the group: `revoked` comes once more; `closed` is true when all is over.
  void close();
  bool closed() const { return rd_kafka_consumer_closed(kafka_) != 0; }
  // Messages behind the end of the partition, as far as the consumer knows; -1 unknown.
  std::int64_t end_of(const TopicPartition& partition) const;

  void on_ready(std::uint32_t) noexcept override;

 private:
  KafkaConsumer(Loop& loop, Calls calls, Logger log)
      : loop_(loop), calls_(std::move(calls)), log_(std::move(log)) {}
  void handle(rd_kafka_event_t* event);
  bool cooperative() const;
  static KafkaList list_of(const std::vector<TopicPartition>& partitions);

  Loop& loop_;
  Calls calls_;
  Logger log_;
  Fd wake_;
  rd_kafka_t* kafka_ = nullptr;
  KafkaQueue events_, closing_;
};

}  // namespace metier::realtime
