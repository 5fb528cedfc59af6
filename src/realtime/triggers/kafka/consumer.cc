#include "realtime/triggers/kafka/consumer.h"

#include <fmt/format.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <array>
#include <utility>

#include "base/text.h"

namespace metier::realtime {
namespace {

constexpr std::uint64_t kOne = 1;
constexpr int kAnswerWithin = 5000;      // ms
constexpr int kWarning = 4, kDebug = 7;  // of syslog

std::vector<TopicPartition> names_of(const rd_kafka_topic_partition_list_t* list) {
  std::vector<TopicPartition> out;
  for (int i = 0; list != nullptr && i < list->cnt; ++i) {
    out.push_back({list->elems[i].topic, list->elems[i].partition});
  }
  return out;
}

}  // namespace

Result<std::unique_ptr<KafkaConsumer>> KafkaConsumer::open(Loop& loop, const KafkaOptions& options,
                                                           Calls calls, Logger log) {
  std::unique_ptr<KafkaConsumer> out(new KafkaConsumer(loop, std::move(calls), std::move(log)));
  out->wake_.reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  std::array<char, 512> why{};
  rd_kafka_conf_t* conf = rd_kafka_conf_new();
  std::vector<std::pair<std::string, std::string>> properties{
      {"enable.auto.offset.store", "false"},
      {"enable.auto.commit", "true"},
      {"enable.partition.eof", "false"},
      {"socket.keepalive.enable", "true"},
      {"reconnect.backoff.ms", "100"},
      {"reconnect.backoff.max.ms", "3000"},
      {"topic.metadata.refresh.interval.ms", "5000"},
      {"log.queue", "true"},
      {"client.id", "metier"}};
  properties.insert(properties.end(), options.properties.begin(), options.properties.end());
  for (const auto& [key, value] : properties) {
    if (rd_kafka_conf_set(conf, key.c_str(), value.c_str(), why.data(), why.size()) !=
        RD_KAFKA_CONF_OK) {
      rd_kafka_conf_destroy(conf);
      return fail(invalid("attributes", why.data()));
    }
  }
  rd_kafka_conf_set_events(conf, RD_KAFKA_EVENT_REBALANCE | RD_KAFKA_EVENT_ERROR |
                                     RD_KAFKA_EVENT_LOG | RD_KAFKA_EVENT_OFFSET_COMMIT);
  out->kafka_ = rd_kafka_new(RD_KAFKA_CONSUMER, conf, why.data(), why.size());
  if (out->kafka_ == nullptr) {
    rd_kafka_conf_destroy(conf);
    return fail(invalid("attributes", why.data()));
  }
  rd_kafka_poll_set_consumer(out->kafka_);
  out->events_.reset(rd_kafka_queue_get_consumer(out->kafka_));
  rd_kafka_set_log_queue(out->kafka_, out->events_.get());
  rd_kafka_queue_io_event_enable(out->events_.get(), out->wake_.get(), &kOne, sizeof kOne);
  METIER_CHECK(loop.watch(out->wake_.get(), EPOLLIN, *out));
  std::vector<TopicPartition> topics;
  for (const std::string& topic : options.topics) {
    topics.push_back({topic, RD_KAFKA_PARTITION_UA});
    if (!topic.starts_with('^')) { out->topics_.push_back(topic); }
  }
  const KafkaList list = list_of(topics);
  if (const auto error = rd_kafka_subscribe(out->kafka_, list.get());
      error != RD_KAFKA_RESP_ERR_NO_ERROR) {
    return fail(invalid("attributes.topics", rd_kafka_err2str(error)));
  }
  return out;
}

KafkaConsumer::~KafkaConsumer() {
  if (kafka_ == nullptr) { return; }
  loop_.forget(wake_.get(), *this);
  rd_kafka_queue_io_event_enable(events_.get(), -1, nullptr, 0);
  events_.reset();
  closing_.reset();
  rd_kafka_destroy_flags(kafka_, RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE);
}

KafkaList KafkaConsumer::list_of(const std::vector<TopicPartition>& partitions) {
  KafkaList list(rd_kafka_topic_partition_list_new(static_cast<int>(partitions.size())));
  for (const TopicPartition& each : partitions) {
    rd_kafka_topic_partition_list_add(list.get(), each.topic.c_str(), each.partition);
  }
  return list;
}

void KafkaConsumer::on_ready(std::uint32_t) noexcept {
  std::uint64_t count = 0;
  [[maybe_unused]] const auto got = ::read(wake_.get(), &count, sizeof count);
  calls_.ready();
}

void KafkaConsumer::serve() {
  for (rd_kafka_queue_t* queue : {events_.get(), closing_.get()}) {
    while (queue != nullptr) {
      const KafkaEvent event(rd_kafka_queue_poll(queue, 0));
      if (!event) { break; }
      handle(event.get());
    }
  }
}

bool KafkaConsumer::cooperative() const {
  const char* protocol = rd_kafka_rebalance_protocol(kafka_);
  return protocol != nullptr && std::string_view(protocol) == "COOPERATIVE";
}

void KafkaConsumer::handle(rd_kafka_event_t* event) {
  switch (rd_kafka_event_type(event)) {
    case RD_KAFKA_EVENT_REBALANCE: {
      auto names = names_of(rd_kafka_event_topic_partition_list(event));
      if (rd_kafka_event_error(event) == RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS) {
        calls_.heard(Heard::works, "");
        calls_.assigned(std::move(names));
      } else {
        calls_.revoked(std::move(names), rd_kafka_assignment_lost(kafka_) != 0);
      }
      return;
    }
    case RD_KAFKA_EVENT_ERROR: {
      const auto error = rd_kafka_event_error(event);
      const std::string text(rd_kafka_event_error_string(event));
      if (error == RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN) {
        calls_.heard(Heard::away, "no broker answers");  // the reason came before it
      } else if (error == RD_KAFKA_RESP_ERR__TRANSPORT || error == RD_KAFKA_RESP_ERR__RESOLVE ||
                 error == RD_KAFKA_RESP_ERR__AUTHENTICATION || error == RD_KAFKA_RESP_ERR__SSL) {
        calls_.heard(Heard::away, text);
      } else {
        log_.warn("Kafka", {{"error", Json(text)}, {"code", Json(rd_kafka_err2name(error))}});
        if (error == RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED) {
          calls_.heard(Heard::no_group, text);
        } else if (error == RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART ||
                   error == RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED) {
          calls_.heard(Heard::no_topics, text);
        }
      }
      return;
    }
    case RD_KAFKA_EVENT_OFFSET_COMMIT: {
      const auto error = rd_kafka_event_error(event);
      if (error == RD_KAFKA_RESP_ERR_NO_ERROR) {
        calls_.heard(Heard::works, "");
      } else if (error != RD_KAFKA_RESP_ERR__NO_OFFSET) {
        log_.warn("offsets were not committed, they will be again",
                  {{"error", Json(rd_kafka_err2str(error))}});
      }
      return;
    }
    case RD_KAFKA_EVENT_DESCRIBECLUSTER_RESULT:
      asked_ = false;
      if (rd_kafka_event_error(event) == RD_KAFKA_RESP_ERR_NO_ERROR) {
        calls_.heard(Heard::answers, "");
      }
      return;
    case RD_KAFKA_EVENT_DESCRIBETOPICS_RESULT: {
      asked_topics_ = false;
      if (rd_kafka_event_error(event) != RD_KAFKA_RESP_ERR_NO_ERROR) { return; }
      std::size_t count = 0;
      const rd_kafka_TopicDescription_t** const topics = rd_kafka_DescribeTopics_result_topics(
          rd_kafka_event_DescribeTopics_result(event), &count);
      std::string why;
      for (std::size_t i = 0; i < count; ++i) {
        const rd_kafka_error_t* const error = rd_kafka_TopicDescription_error(topics[i]);
        if (rd_kafka_error_code(error) == RD_KAFKA_RESP_ERR_NO_ERROR) { continue; }
        why += fmt::format("{}topic {}: {}", why.empty() ? "" : ", ",
                           rd_kafka_TopicDescription_name(topics[i]), rd_kafka_error_string(error));
      }
      calls_.heard(why.empty() ? Heard::topics : Heard::no_topics, why);
      return;
    }
    case RD_KAFKA_EVENT_LOG: {
      const char* facility = nullptr;
      const char* text = nullptr;
      int level = 0;
      if (rd_kafka_event_log(event, &facility, &text, &level) != 0) { return; }
      if (level <= kWarning) {
        log_.warn("librdkafka", {{"facility", Json(facility)}, {"text", Json(text)}});
      } else if (level == kDebug) {  // only when logLevel asks for it
        log_.info("librdkafka", {{"facility", Json(facility)}, {"text", Json(text)}});
      }
      return;
    }
    default: return;
  }
}

KafkaQueue KafkaConsumer::queue_of(const TopicPartition& partition) {
  KafkaQueue queue(
      rd_kafka_queue_get_partition(kafka_, partition.topic.c_str(), partition.partition));
  if (queue) {
    rd_kafka_queue_forward(queue.get(), nullptr);
    rd_kafka_queue_io_event_enable(queue.get(), wake_.get(), &kOne, sizeof kOne);
  }
  return queue;
}

void KafkaConsumer::read(rd_kafka_queue_t* queue, std::vector<KafkaMessage>& into,
                         std::size_t at_most) {
  std::array<rd_kafka_message_t*, 64> messages{};
  const auto count =
      rd_kafka_consume_batch_queue(queue, 0, messages.data(), std::min(at_most, messages.size()));
  for (std::size_t i = 0; count > 0 && i < static_cast<std::size_t>(count); ++i) {
    KafkaMessage message(messages[i]);
    if (message->err == RD_KAFKA_RESP_ERR_NO_ERROR) {
      into.push_back(std::move(message));
    } else {
      log_.warn("Kafka", {{"error", Json(rd_kafka_message_errstr(message.get()))}});
    }
  }
}

void KafkaConsumer::assign(const std::vector<TopicPartition>& partitions) {
  const KafkaList list = list_of(partitions);
  if (cooperative()) {
    if (rd_kafka_error_t* error = rd_kafka_incremental_assign(kafka_, list.get())) {
      log_.error("partitions were not taken", {{"error", Json(rd_kafka_error_string(error))}});
      rd_kafka_error_destroy(error);
    }
  } else if (const auto error = rd_kafka_assign(kafka_, list.get());
             error != RD_KAFKA_RESP_ERR_NO_ERROR) {
    log_.error("partitions were not taken", {{"error", Json(rd_kafka_err2str(error))}});
  }
}

void KafkaConsumer::unassign(const std::vector<TopicPartition>& partitions) {
  if (cooperative()) {
    const KafkaList list = list_of(partitions);
    if (rd_kafka_error_t* error = rd_kafka_incremental_unassign(kafka_, list.get())) {
      log_.error("partitions were not given back", {{"error", Json(rd_kafka_error_string(error))}});
      rd_kafka_error_destroy(error);
    }
  } else {
    rd_kafka_assign(kafka_, nullptr);
  }
}

void KafkaConsumer::store(
    const std::vector<std::pair<TopicPartition, std::int64_t>>& next_offsets) {
  if (next_offsets.empty()) { return; }
  const KafkaList list(rd_kafka_topic_partition_list_new(static_cast<int>(next_offsets.size())));
  for (const auto& [where, offset] : next_offsets) {
    rd_kafka_topic_partition_list_add(list.get(), where.topic.c_str(), where.partition)->offset =
        offset;
  }
  rd_kafka_offsets_store(kafka_, list.get());
}

void KafkaConsumer::ask() {
  if (std::exchange(asked_, true)) { return; }
  rd_kafka_AdminOptions_t* options =
      rd_kafka_AdminOptions_new(kafka_, RD_KAFKA_ADMIN_OP_DESCRIBECLUSTER);
  std::array<char, 128> why{};
  rd_kafka_AdminOptions_set_request_timeout(options, kAnswerWithin, why.data(), why.size());
  rd_kafka_DescribeCluster(kafka_, options, events_.get());
  rd_kafka_AdminOptions_destroy(options);
}

void KafkaConsumer::ask_topics() {
  if (topics_.empty()) { return calls_.heard(Heard::topics, ""); }
  if (std::exchange(asked_topics_, true)) { return; }
  std::vector<const char*> names;
  for (const std::string& topic : topics_) { names.push_back(topic.c_str()); }
  rd_kafka_TopicCollection_t* topics =
      rd_kafka_TopicCollection_of_topic_names(names.data(), names.size());
  rd_kafka_AdminOptions_t* options =
      rd_kafka_AdminOptions_new(kafka_, RD_KAFKA_ADMIN_OP_DESCRIBETOPICS);
  std::array<char, 128> why{};
  rd_kafka_AdminOptions_set_request_timeout(options, kAnswerWithin, why.data(), why.size());
  rd_kafka_DescribeTopics(kafka_, topics, options, events_.get());
  rd_kafka_AdminOptions_destroy(options);
  rd_kafka_TopicCollection_destroy(topics);
}

void KafkaConsumer::close() {
  closing_.reset(rd_kafka_queue_new(kafka_));
  rd_kafka_queue_io_event_enable(closing_.get(), wake_.get(), &kOne, sizeof kOne);
  if (rd_kafka_error_t* error = rd_kafka_consumer_close_queue(kafka_, closing_.get())) {
    log_.warn("the consumer cannot leave its group",
              {{"error", Json(rd_kafka_error_string(error))}});
    rd_kafka_error_destroy(error);
  }
}

std::int64_t KafkaConsumer::end_of(const TopicPartition& partition) const {
  std::int64_t low = 0, high = 0;
  return rd_kafka_get_watermark_offsets(kafka_, partition.topic.c_str(), partition.partition, &low,
                                        &high) == RD_KAFKA_RESP_ERR_NO_ERROR
             ? high
             : -1;
}

}  // namespace metier::realtime
