// What of a partition may be committed, on records of librdkafka's own mock cluster.
#include "realtime/triggers/kafka/partition.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rdkafka_mock.h>

namespace metier::realtime {
namespace {

using testing::ElementsAre;

// Records 0 … count-1 of a topic, handed out at once.
class Topic final : public KafkaSource {
 public:
  explicit Topic(int count) {
    producer_ = client(RD_KAFKA_PRODUCER, "");
    cluster_ = rd_kafka_mock_cluster_new(producer_, 1);
    rd_kafka_mock_topic_create(cluster_, "t", 1, 1);
    rd_kafka_t* producer = client(RD_KAFKA_PRODUCER, rd_kafka_mock_cluster_bootstraps(cluster_));
    rd_kafka_topic_t* into = rd_kafka_topic_new(producer, "t", nullptr);
    for (int i = 0; i < count; ++i) {
      char body = 'x';
      rd_kafka_produce(into, 0, RD_KAFKA_MSG_F_COPY, &body, sizeof body, nullptr, 0, nullptr);
    }
    EXPECT_EQ(rd_kafka_flush(producer, 60'000), RD_KAFKA_RESP_ERR_NO_ERROR);
    rd_kafka_topic_destroy(into);
    rd_kafka_destroy(producer);
    consumer_ = client(RD_KAFKA_CONSUMER, rd_kafka_mock_cluster_bootstraps(cluster_));
    topic_ = rd_kafka_topic_new(consumer_, "t", nullptr);
    rd_kafka_consume_start(topic_, 0, 0);
    while (static_cast<int>(messages_.size()) < count) {
      KafkaMessage message(rd_kafka_consume(topic_, 0, 60'000));
      if (!message) { break; }
      if (message->err == RD_KAFKA_RESP_ERR_NO_ERROR) { messages_.push_back(std::move(message)); }
    }
    EXPECT_EQ(static_cast<int>(messages_.size()), count);
  }
  ~Topic() override {
    messages_.clear();
    rd_kafka_consume_stop(topic_, 0);
    rd_kafka_topic_destroy(topic_);
    rd_kafka_destroy(consumer_);
    rd_kafka_mock_cluster_destroy(cluster_);
    rd_kafka_destroy(producer_);
  }
  void read(rd_kafka_queue_t*, std::vector<KafkaMessage>& into, std::size_t) override {
    into.swap(messages_);
    messages_.clear();
  }

 private:
  static rd_kafka_t* client(rd_kafka_type_t type, const std::string& brokers) {
    std::array<char, 512> why{};
    rd_kafka_conf_t* config = rd_kafka_conf_new();
    if (!brokers.empty()) {
      rd_kafka_conf_set(config, "bootstrap.servers", brokers.c_str(), why.data(), why.size());
    }
    rd_kafka_t* out = rd_kafka_new(type, config, why.data(), why.size());
    EXPECT_NE(out, nullptr) << why.data();
    return out;
  }
  rd_kafka_t *producer_ = nullptr, *consumer_ = nullptr;
  rd_kafka_mock_cluster_t* cluster_ = nullptr;
  rd_kafka_topic_t* topic_ = nullptr;
  std::vector<KafkaMessage> messages_;
};

struct Owner final : PartitionOwner {
  void record_ended(Partition&) override {}
  std::string_view trigger_name() const override { return "k"; }
  ExplicitAck acks() const override { return acknowledge; }
  OnFailure on_failure() const override { return most == 0 ? OnFailure::commit : OnFailure::retry; }
  int max_deliveries() const override { return most; }
  bool bury(Partition&, Record& record) override {
    if (letters) { buried.emplace_back(record.event.offset, record.why); }
    return letters;
  }
  void say(std::string_view, const Partition&, std::int64_t offset) override {
    passed_over.push_back(offset);
  }
  std::vector<std::int64_t> passed_over;
  ExplicitAck acknowledge = ExplicitAck::explicit_only;
  int most = 0;  // maxDeliveries
  bool letters = false;
  std::vector<std::pair<std::int64_t, std::string>> buried;
};

class AcknowledgedPartition : public testing::Test {
 protected:
  // The next record, with the worker of a lane; null: there is none.
  Record* send(int lane) {
    Record* record = partition.next(topic);
    if (record == nullptr) { return nullptr; }
    partition.lane = lane;
    partition.sent(*record);
    return record;
  }
  std::int64_t answer(int lane) {
    Record* record = send(lane);
    if (record == nullptr) { return -1; }
    record->end();
    return record->event.offset;
  }
  std::vector<std::int64_t> rest(int lane) {
    std::vector<std::int64_t> out;
    for (std::int64_t offset = answer(lane); offset >= 0; offset = answer(lane)) {
      out.push_back(offset);
    }
    return out;
  }

  Topic topic{6};
  Owner owner;
  Partition partition{owner, {"t", 0}, nullptr};
};

TEST_F(AcknowledgedPartition, WhatALostWorkerDidNotAcknowledgeIsDeliveredAgain) {
  for (int i = 0; i < 3; ++i) { answer(0); }
  ASSERT_TRUE(partition.acknowledge(0));
  EXPECT_EQ(partition.position(), 1);
  ASSERT_TRUE(partition.worker_lost(0));
  EXPECT_FALSE(partition.has_unacked());
  // Its successor begins with the oldest; an acknowledgement of what it has not seen finishes nothing.
  partition.acknowledge(2);
  EXPECT_EQ(partition.position(), 1);
  EXPECT_THAT(rest(0), ElementsAre(1, 2, 3, 4, 5));
  partition.acknowledge(5);
  EXPECT_EQ(partition.position(), 6);
}

TEST_F(AcknowledgedPartition, AnAcknowledgementIsOfWhatCameBeforeIt) {
  answer(0);
  Record* runs = send(1);
  ASSERT_EQ(runs->event.offset, 1);
  ASSERT_TRUE(partition.worker_lost(0));
  EXPECT_EQ(answer(1), 0);  // again; the one that runs is not sent twice
  EXPECT_EQ(answer(1), 2);
  partition.acknowledge(1);  // of its first delivery, which came before 0 did
  runs->end();
  EXPECT_EQ(partition.position(), 0);
  partition.acknowledge(0);
  EXPECT_EQ(partition.position(), 2);
  EXPECT_TRUE(partition.has_unacked());
}

TEST_F(AcknowledgedPartition, TheOthersRecordsStayWithThem) {
  answer(0);
  answer(1);
  EXPECT_FALSE(partition.worker_lost(2));
  ASSERT_TRUE(partition.worker_lost(1));
  EXPECT_EQ(answer(0), 1);
  partition.acknowledge(1);
  EXPECT_EQ(partition.position(), 2);
}

TEST_F(AcknowledgedPartition, WhatRanFailsAfterwardsAndKeepsTheOrder) {
  answer(0);
  Record* first = send(0);
  Record* second = send(0);
  ASSERT_TRUE(partition.worker_lost(0));
  first->fail({.reason = FailReason::worker_died, .status = 502, .message = "died"});
  second->fail({.reason = FailReason::worker_died, .status = 502, .message = "died"});
  EXPECT_THAT(rest(1), ElementsAre(0, 1, 2, 3, 4, 5));
  EXPECT_EQ(partition.position(), 0);
}

TEST_F(AcknowledgedPartition, ARecordThatEndsEveryWorkerIsPassedOver) {
  for (int i = 0; i < Partition::kDeliveries; ++i) {
    EXPECT_THAT(owner.passed_over, ElementsAre());
    EXPECT_EQ(answer(0), 0);
    EXPECT_TRUE(partition.worker_lost(0));
  }
  EXPECT_THAT(owner.passed_over, ElementsAre(0));
  EXPECT_EQ(partition.position(), 1);
  EXPECT_EQ(answer(0), 1);
}

class DeadLetterPartition : public AcknowledgedPartition {
 protected:
  DeadLetterPartition() {
    owner.acknowledge = ExplicitAck::disable;
    owner.most = 2;
    owner.letters = true;
  }
  void raise(Record* record) {
    ASSERT_NE(record, nullptr);
    record->respond({.status = 500, .outcome = Outcome::raised}, "no luck");
  }
};

TEST_F(DeadLetterPartition, HoldsItsPartitionUntilTheLetterHasArrived) {
  EXPECT_EQ(answer(0), 0);
  raise(send(0));
  EXPECT_THAT(owner.buried, ElementsAre());
  raise(send(0));
  EXPECT_THAT(owner.buried, ElementsAre(testing::Pair(1, "no luck")));
  EXPECT_EQ(send(0), nullptr);  // nothing behind it is handled before it is safe
  EXPECT_EQ(partition.position(), 1);
  partition.buried(1, Partition::Letter::failed);
  EXPECT_TRUE(partition.has_dead());
  EXPECT_EQ(send(0), nullptr);
  partition.buried(1, Partition::Letter::arrived);
  EXPECT_FALSE(partition.has_dead());
  EXPECT_EQ(partition.position(), 2);
  EXPECT_THAT(rest(0), ElementsAre(2, 3, 4, 5));
  EXPECT_THAT(owner.passed_over, ElementsAre());
}

TEST_F(DeadLetterPartition, CountsDeadWorkersAndExceptionsTogether) {
  send(0)->fail({.reason = FailReason::worker_died, .status = 502, .message = "the worker died"});
  raise(send(0));
  EXPECT_THAT(owner.buried, ElementsAre(testing::Pair(0, "no luck")));
  partition.buried(0, Partition::Letter::arrived);
  raise(send(0));
  send(0)->fail({.reason = FailReason::timed_out, .status = 408, .message = "timed out"});
  EXPECT_EQ(owner.buried.back(), std::pair(std::int64_t{1}, std::string("timed out")));
}

TEST_F(DeadLetterPartition, WhatCannotBeDeliveredAtAllGoesAtOnce) {
  send(0)->fail({.reason = FailReason::refused, .status = 431, .message = "too large"});
  EXPECT_THAT(owner.buried, ElementsAre(testing::Pair(0, "too large")));
}

TEST_F(DeadLetterPartition, WithoutATopicItIsPassedOver) {
  owner.letters = false;
  raise(send(0));
  EXPECT_EQ(partition.position(), 0);
  raise(send(0));
  EXPECT_THAT(owner.passed_over, ElementsAre(0));
  EXPECT_EQ(partition.position(), 1);
}

TEST_F(DeadLetterPartition, ARecordWhoseWorkersEndBeforeTheyAcknowledge) {
  owner.acknowledge = ExplicitAck::explicit_only;
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(answer(0), 0);
    EXPECT_TRUE(partition.worker_lost(0));
  }
  ASSERT_EQ(owner.buried.size(), 1U);
  EXPECT_EQ(owner.buried[0].first, 0);
  partition.buried(0, Partition::Letter::arrived);
  EXPECT_EQ(partition.position(), 1);
  EXPECT_EQ(answer(0), 1);
}

}  // namespace
}  // namespace metier::realtime
