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

// What the brokers were heard to say, or not.
enum class Heard {
  away,       // no connection
  no_group,   // they answer, and do not let us into the group
  no_topics,  // they answer, and do not let us read: no such topic, no rights
  topics,     // every topic is there, and ours to read
  answers,    // they answer
  works,      // and have us in the group: partitions were given to us, offsets were committed
};

class KafkaConsumer final : public Watched, public KafkaSource {
 public:
  struct Calls {
    std::function<void()> ready;  // something may be there: `serve`, then the partitions' queues
    std::function<void(std::vector<TopicPartition>)> assigned;            // answered by `assign`
    std::function<void(std::vector<TopicPartition>, bool lost)> revoked;  // answered by `unassign`
    std::function<void(Heard heard, const std::string& why)> heard;
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
  // Asks whether the brokers answer: `heard` is called when one does. A connection that was lost is told, one that is there again
  // is not, and a consumer without records has no other sign.
  void ask();
  // Asks whether the topics can be read: `heard` says so, or which cannot and why. The client tells each one's trouble once, and
  // partitions of one topic say nothing about another.
  void ask_topics();
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
  std::vector<std::string> topics_;  // that are named: a pattern matches what there is
  bool asked_ = false, asked_topics_ = false;
};

}  // namespace metier::realtime
