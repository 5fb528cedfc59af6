// One claimed partition: its records on their way to a handler, in order, and what of them may be committed.
#pragma once

#include <deque>
#include <memory>
#include <optional>
#include <vector>

#include "realtime/event_target.h"
#include "realtime/triggers/kafka/consumer.h"

namespace metier::realtime {

class Partition;

// Told of what happens to a partition's records.
class PartitionOwner {
 public:
  virtual ~PartitionOwner() = default;
  virtual void record_ended(Partition& partition) = 0;
  virtual std::string_view trigger_name() const = 0;
  virtual ExplicitAck acks() const = 0;
  virtual OnFailure on_failure() const = 0;
  virtual void say(std::string_view message, const Partition& partition, std::int64_t offset) = 0;
};

// The record of one offset that is not finished.
struct Record final : ResponseSink {
  enum class State { waiting, in_flight, unacked, done };
  void head(const ResponseHead& head) noexcept override;
  bool chunk(std::string_view) noexcept override { return true; }
  void end() noexcept override;
  void fail(const Failure& failure) noexcept override;

  Partition* partition = nullptr;
  KafkaMessage message;
  Event event;
  std::vector<HeaderView> headers;
  State state = State::waiting;
  Outcome outcome = Outcome::answered;
  bool no_ack = false;
  int deliveries = 0;
};

class Partition final {
 public:
  static constexpr int kDeliveries = 3;
  static constexpr std::size_t kUnacked = 1'000'000;

  Partition(PartitionOwner& owner, TopicPartition where, KafkaQueue queue);

  const TopicPartition& where() const { return where_; }
  // The next record to give to a handler, read from the consumer when there is none here; null: there is none now.
  Record* next(KafkaConsumer& consumer);
  void read_more(KafkaConsumer& consumer,
                 std::size_t until);  // so that so many wait, when there are
  void sent(Record& record);          // it is with a handler
  int in_flight() const { return in_flight_; }
  std::size_t waiting() const { return records_.size() - static_cast<std::size_t>(next_); }
  enum class How { answered, again, exhausted };
  void ended(Record& record, How how);
  bool is_first(const Record& record) const;  // of those with a handler
  // Explicit: every delivered offset up to `offset` is finished. False: nothing of it was delivered here.
  bool acknowledge(std::int64_t offset);
  bool has_unacked() const { return unacked_ > 0; }
  const std::deque<std::unique_ptr<Record>>& records() const { return records_; }
  std::int64_t position() const { return position_; }
  // What may be committed (the next offset to read), when it has moved since the last time.
  std::optional<std::int64_t> to_commit(std::int64_t window);

  int lane = -1;
  bool leaving = false;
  bool stopped = false;     // onFailure: stop
  bool maybe = true;        // the consumer may have records of it
  SteadyTime not_before{};  // a record that failed is tried again then
  SteadyTime batch_since{};
  std::uint64_t finished = 0;

 private:
  std::unique_ptr<Record> fresh(KafkaMessage message);
  void again(Record& record);
  void trim();

  PartitionOwner& owner_;
  TopicPartition where_;
  KafkaQueue queue_;
  std::deque<std::unique_ptr<Record>>
      records_;  // in order of offsets; the first is the oldest unfinished
  std::vector<std::unique_ptr<Record>> spare_;
  std::vector<KafkaMessage> read_;
  int next_ = 0;  // index in records_ of the first that was not delivered
  int in_flight_ = 0, unacked_ = 0;
  int tries_ = 0;                                // of onFailure: retry
  std::int64_t position_ = -1, committed_ = -1;  // next offset after the finished ones
  std::int64_t acked_through_ = -1;
};

}  // namespace metier::realtime
