#include "realtime/processor_config.h"

#include <gtest/gtest.h>

namespace metier::realtime {
namespace {

using std::chrono::milliseconds;

TEST(Duration, ReadsGoDurations) {
  EXPECT_EQ(*parse_duration("10s"), milliseconds(10'000));
  EXPECT_EQ(*parse_duration("1m30s"), milliseconds(90'000));
  EXPECT_EQ(*parse_duration("1.5s"), milliseconds(1500));
  EXPECT_EQ(*parse_duration("250ms"), milliseconds(250));
  EXPECT_EQ(*parse_duration("0"), milliseconds(0));
  EXPECT_EQ(*parse_duration("2"), milliseconds(2000));
  EXPECT_EQ(*parse_duration("1us"), milliseconds(1));  // never rounded to nothing
  for (const char* bad :
       {"", "s", "-1s", "1x", "1s2", "1e3s", "nan", "inf", "99999999999999999999h"}) {
    EXPECT_FALSE(parse_duration(bad)) << bad;
  }
}

ProcessorConfig full() {
  ProcessorConfig config;
  config.name = "f";
  config.handler = "main:handler";
  config.env = {{"A", "1"}};
  config.event_timeout = milliseconds(30'000);
  TriggerConfig web;
  web.name = "web";
  web.kind = "http";
  web.num_workers = 8;
  web.listen.address = "127.0.0.1:0";
  web.mode = "async";
  web.max_connections = 50;
  TriggerConfig stream;
  stream.name = "k";
  stream.kind = "kafka-cluster";
  stream.explicit_ack = ExplicitAck::explicit_only;
  stream.batch = {.enabled = true, .size = 3, .timeout = milliseconds(20)};
  stream.attributes["topics"] = JsonArray{"t"};
  config.triggers = {web, stream};
  config.health.gate = "/run/g.sock";
  config.health.name = "f";
  config.functions["g"] = "http://127.0.0.1:1";
  return config;
}

TEST(ProcessorConfig, ReadsWhatItWrote) {
  const std::string text = dump_processor_config(full());
  const auto config = parse_processor_config(text);
  ASSERT_TRUE(config) << config.error().text();
  EXPECT_EQ(dump_processor_config(*config), text);
  EXPECT_EQ(config->triggers[0].max_connections, 50);
  EXPECT_EQ(config->triggers[1].explicit_ack, ExplicitAck::explicit_only);
  EXPECT_EQ(config->triggers[1].batch.size, 3);
  EXPECT_EQ(config->event_timeout, milliseconds(30'000));
}

TEST(ProcessorConfig, RefusesByNameWithAFix) {
  const auto error = [](std::string_view text) {
    auto config = parse_processor_config(text);
    return config ? std::string("accepted") : config.error().text() + " | " + config.error().fix;
  };
  EXPECT_EQ(error(R"({"name":"f","handler":"m:h","evenTimeout":"1s"})"),
            "evenTimeout: there is no such field | did you mean eventTimeout?");
  EXPECT_EQ(error(R"({"name":"f","handler":"m:h","eventTimeout":"soon"})"),
            "eventTimeout: 'soon' is no duration | such as \"10s\", \"1m30s\", \"250ms\"");
  EXPECT_EQ(
      error(
          R"({"name":"f","handler":"m:h","triggers":[{"name":"a","kind":"http","numWorkers":0}]})"),
      "triggers.a.numWorkers: 0 is out of range | give 1 to 100000");
  EXPECT_EQ(error(R"({"name":"f","handler":"m:h","health":{"fd":3,"address":":1"}})"),
            "health: 2 of fd, gate and address are given | give exactly one");
  EXPECT_EQ(
      error(
          R"({"name":"f","handler":"m:h","triggers":[{"name":"a","kind":"http"},{"name":"a","kind":"cron"}]})"),
      "triggers.a.name: 'a' is there twice | give each trigger its name");
  EXPECT_EQ(error(R"({"name":"f","handler":"m:h","env":[{"name":"A=B","value":"x"}]})"),
            "env[0]: 'A=B' cannot be set in an environment | a name without = and NUL");
}

TEST(ProcessorConfig, OldNamesAndDefaults) {
  const auto config = parse_processor_config(
      R"({"name":"f","handler":"m:h","triggers":[{"name":"a","kind":"http","maxWorkers":4,"workerAvailabilityTimeoutMilliseconds":-1,
          "explicitAckMode":null}]})");
  ASSERT_TRUE(config) << config.error().text();
  EXPECT_EQ(config->triggers[0].num_workers, 4);
  EXPECT_EQ(config->triggers[0].worker_availability_timeout, milliseconds(10'000));
}

}  // namespace
}  // namespace metier::realtime
