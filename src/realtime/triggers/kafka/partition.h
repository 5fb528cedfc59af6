// One claimed partition: its records on their way to a handler, in order, and what of them may be committed.
#pragma once

#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "realtime/event_target.h"
#include "realtime/triggers/kafka/consumer.h"

namespace metier::realtime {

class Partition;
struct Record;

// Told of what happens to a partition's records.
class PartitionOwner {
 public:
  virtual ~PartitionOwner() = default;
  virtual void record_ended(Partition& partition) = 0;
  virtual std::string_view trigger_name() const = 0;
  virtual ExplicitAck acks() const = 0;
  virtual OnFailure on_failure() const = 0;
  // Of onFailure: retry: a record that failed so often is given up. 0: what raises is tried on and on.
  virtual int max_deliveries() const = 0;
  // Sends a record that is given up to the dead letters: `buried` follows. False: there are none.
  virtual bool bury(Partition& partition, Record& record) = 0;
  virtual void say(std::string_view message, const Partition& partition, std::int64_t offset) = 0;
};

// The record of one offset that is not finished.
struct Record final : ResponseSink {
  // dead: on its way to the dead letters; it holds the partition until it is there.
  enum class State { waiting, in_flight, unacked, dead, done };
  void head(const ResponseHead& head) noexcept override;
  bool chunk(std::string_view bytes) noexcept override;
  void end() noexcept override;
  void fail(const Failure& failure) noexcept override;

  Partition* partition = nullptr;
  KafkaMessage message;
  Event event;
  std::vector<HeaderView> headers;
  State state = State::waiting;
  Outcome outcome = Outcome::answered;
  bool no_ack = false;
  bool acked = false;          // while it was with a handler
  std::uint64_t delivery = 0;  // which of the partition's deliveries brought it to its handler
  int deliveries = 0;          // that failed
  std::string why;             // the last of them
  bool letter_out = false;     // dead: the brokers were asked
};

class Partition final {
 public:
  static constexpr int kDeliveries = 3;
  // So much may wait for explicit acknowledgements; then no more is read.
  static constexpr std::size_t kUnacked = 1'000'000, kUnackedBytes = 256 << 20;

  Partition(PartitionOwner& owner, TopicPartition where, KafkaQueue queue);

  const TopicPartition& where() const { return where_; }
  // The next record to give to a handler, read from the consumer when there is none here; null: there is none now.
  Record* next(KafkaSource& source);
  void read_more(KafkaSource& source,
                 std::size_t until);  // so that so many wait, when there are
  void sent(Record& record);          // it is with a handler
  int in_flight() const { return in_flight_; }
  std::size_t waiting() const { return records_.size() - static_cast<std::size_t>(next_); }
  enum class How { answered, again, exhausted };
  void ended(Record& record, How how);
  bool is_first(const Record& record) const;  // of those with a handler
  // Explicit: every offset up to `offset` that was delivered before it is finished; what waits to be delivered again is not. False:
  // nothing of it was delivered here.
  bool acknowledge(std::int64_t offset);
  bool has_unacked() const { return unacked_ > 0; }
  // The worker of a lane has ended: nobody acknowledges what it had answered, so that is delivered again, at most kDeliveries times.
  // Told before what it had in flight fails. False: there was nothing.
  bool worker_lost(int lane);
  // The dead letters have the record, or (`Letter::failed`) do not take it: it is asked again.
  enum class Letter { arrived, failed };
  void buried(std::int64_t offset, Letter how);
  bool has_dead() const { return dead_ > 0; }
  int limit() const;  // deliveries of a record that ends its workers
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
  void no_longer_unacked(Record& record, Record::State state);
  void trim();

  PartitionOwner& owner_;
  TopicPartition where_;
  KafkaQueue queue_;
  std::deque<std::unique_ptr<Record>>
      records_;  // in order of offsets; the first is the oldest unfinished
  std::vector<std::unique_ptr<Record>> spare_;
  std::vector<KafkaMessage> read_;
  int next_ = 0;  // index in records_: all that wait to be delivered are there or behind it
  int in_flight_ = 0, unacked_ = 0, dead_ = 0;
  std::size_t unacked_bytes_ = 0;
  std::uint64_t deliveries_ = 0;
  int tries_ = 0;                                // of onFailure: retry
  std::int64_t position_ = -1, committed_ = -1;  // next offset after the finished ones
};

}  // namespace metier::realtime
