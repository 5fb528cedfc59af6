#include "realtime/triggers/kafka/options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace metier::realtime {
namespace {

using testing::Contains;
using testing::HasSubstr;
using testing::Pair;

TriggerConfig trigger(std::string_view more = "{}") {
  TriggerConfig out{.name = "k", .kind = "kafka-cluster"};
  out.attributes =
      parse_json(R"({"brokers":["a:1","b:2"],"topics":["t"],"consumerGroup":"g"})")->get_object();
  const Json added = *parse_json(more);
  for (const auto& member : added.get_object()) { out.attributes[member.key()] = member.value(); }
  return out;
}

std::string wrong(std::string_view more) {
  auto options = read_kafka_options(trigger(more));
  return options ? "" : options.error().text();
}

TEST(KafkaOptions, NuclioNamesBecomeLibrdkafkas) {
  const auto options = read_kafka_options(trigger(
      R"({"balanceStrategy":"sticky","initialOffset":"latest","sessionTimeout":"20s","fetchMin":5,
          "fetchDefault":2048,"maxWaitTime":"100ms","channelBufferSize":10,"ackWindowSize":3})"));
  ASSERT_TRUE(options) << options.error().text();
  EXPECT_EQ(options->ack_window, 3);
  for (const auto& [key, value] :
       {std::pair{"bootstrap.servers", "a:1,b:2"}, std::pair{"group.id", "g"},
        std::pair{"auto.offset.reset", "latest"},
        std::pair{"partition.assignment.strategy", "cooperative-sticky"},
        std::pair{"session.timeout.ms", "20000"}, std::pair{"fetch.min.bytes", "5"},
        std::pair{"max.partition.fetch.bytes", "2048"}, std::pair{"fetch.wait.max.ms", "100"},
        std::pair{"queued.min.messages", "10"}, std::pair{"fetch.queue.backoff.ms", "10"},
        std::pair{"security.protocol", "plaintext"}}) {
    EXPECT_THAT(options->properties, Contains(Pair(std::string(key), std::string(value))));
  }
}

TEST(KafkaOptions, TheWaitOfARebalanceOutlastsAWorkersEnd) {
  EXPECT_EQ(read_kafka_options(trigger())->handler_wait.count(), 13'000);
  EXPECT_EQ(read_kafka_options(trigger(R"({"maxWaitHandlerDuringRebalance":"60s"})"))
                ->handler_wait.count(),
            60'000);
}

TEST(KafkaOptions, ExplicitAcksAreOfStaticWorkers) {
  TriggerConfig acks = trigger();
  acks.explicit_ack = ExplicitAck::explicit_only;
  EXPECT_TRUE(read_kafka_options(acks)->static_lanes);
  acks.attributes["workerAllocationMode"] = "pool";
  EXPECT_THAT(read_kafka_options(acks).error().text(), HasSubstr("needs static worker allocation"));
}

TEST(KafkaOptions, AnnotationsOverride) {
  TriggerConfig given = trigger();
  given.annotations["nuclio.io/kafka-consumer-group"] = "other";
  given.annotations["nuclio.io/kafka-brokers"] = "x:1, y:2";
  given.annotations["nuclio.io/kafka-sasl-enable"] = "true";
  given.annotations["nuclio.io/kafka-sasl-user"] = "alice";
  given.annotations["nuclio.io/kafka-sasl-password"] = "secret";
  const auto options = read_kafka_options(given);
  ASSERT_TRUE(options) << options.error().text();
  EXPECT_EQ(options->group, "other");
  EXPECT_THAT(options->properties, Contains(Pair("bootstrap.servers", "x:1,y:2")));
  EXPECT_THAT(options->properties, Contains(Pair("security.protocol", "sasl_plaintext")));
  EXPECT_THAT(options->properties, Contains(Pair("sasl.username", "alice")));
}

TEST(KafkaOptions, SecurityBecomesAProtocol) {
  const auto options = read_kafka_options(trigger(
      R"({"tls":{"enable":true,"insecureSkipVerify":true},"caCert":"PEM",
          "sasl":{"enable":true,"user":"u","password":"p","mechanism":"SCRAM-SHA-512"}})"));
  ASSERT_TRUE(options) << options.error().text();
  EXPECT_THAT(options->properties, Contains(Pair("security.protocol", "sasl_ssl")));
  EXPECT_THAT(options->properties, Contains(Pair("sasl.mechanisms", "SCRAM-SHA-512")));
  EXPECT_THAT(options->properties, Contains(Pair("ssl.ca.pem", "PEM")));
  EXPECT_THAT(options->properties, Contains(Pair("enable.ssl.certificate.verification", "false")));
}

TEST(KafkaOptions, WhatIsWrongIsNamed) {
  EXPECT_THAT(wrong(R"({"topics":[]})"), HasSubstr("triggers.k.attributes.topics: is empty"));
  EXPECT_THAT(wrong(R"({"initialOffset":"middle"})"),
              HasSubstr("'middle' is not one of its values"));
  EXPECT_THAT(wrong(R"({"sessionTimeout":"2s"})"), HasSubstr("heartbeatInterval"));
  EXPECT_THAT(wrong(R"({"fetchMin":0})"), HasSubstr("fetchMin: 0 is out of range"));
  EXPECT_THAT(wrong(R"({"sasl":{"enable":true,"user":"u"}})"),
              HasSubstr("sasl.password: is empty"));
  EXPECT_THAT(wrong(R"({"sasl":{"enable":true,"mechanism":"OAUTHBEARER"}})"),
              HasSubstr("OAUTHBEARER is not in this build"));
  EXPECT_THAT(wrong(R"({"tls":{"enable":true},"accessKey":"k"})"),
              HasSubstr("accessCertificate: is empty"));
  EXPECT_THAT(wrong(R"({"onFailure":"deadLetter"})"),
              HasSubstr("onFailure: 'deadLetter' is not one of its values"));
  EXPECT_THAT(wrong(R"({"onFailure":"stop","deadLetterTopic":"d"})"),
              HasSubstr("deadLetterTopic: is for onFailure retry, here it is stop"));
  EXPECT_THAT(wrong(R"({"maxDeliveries":3})"),
              HasSubstr("maxDeliveries: is for onFailure retry, here it is commit"));
  EXPECT_THAT(wrong(R"({"deadLetterTopic":"d","maxDeliveries":0})"),
              HasSubstr("maxDeliveries: 0 is out of range"));
  EXPECT_THAT(wrong(R"({"deadLetterTopic":"a topic"})"), HasSubstr("is no name of a topic"));
  EXPECT_THAT(wrong(R"({"topics":["t","d"],"deadLetterTopic":"d"})"),
              HasSubstr("'d' is one of its topics"));
}

TEST(KafkaOptions, DeadLetters) {
  const auto options = read_kafka_options(trigger(R"({"deadLetterTopic":"t.dead"})"));
  ASSERT_TRUE(options) << options.error().text();
  EXPECT_EQ(options->on_failure, OnFailure::retry);
  EXPECT_EQ(options->dead_letter_topic, "t.dead");
  EXPECT_EQ(options->max_deliveries, 3);
  const auto endless = read_kafka_options(trigger(R"({"onFailure":"retry"})"));
  ASSERT_TRUE(endless);
  EXPECT_EQ(endless->max_deliveries, 0);
}

}  // namespace
}  // namespace metier::realtime
