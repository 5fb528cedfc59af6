#include "realtime/triggers/kafka/dead_letters.h"

#include <fmt/format.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>

#include "base/text.h"

namespace metier::realtime {
namespace {

constexpr std::uint64_t kOne = 1;
constexpr int kWarning = 4;  // of syslog

// What a producer needs of the consumer's properties.
bool is_shared(std::string_view key) {
  return key == "bootstrap.servers" || key == "security.protocol" || key == "retry.backoff.ms" ||
         key == "retry.backoff.max.ms" || key.starts_with("sasl.") || key.starts_with("ssl.") ||
         key.starts_with("enable.ssl.");
}

rd_kafka_headers_t* headers_of(const rd_kafka_message_t& record, const DeadLetter& letter) {
  rd_kafka_headers_t* before = nullptr;
  rd_kafka_headers_t* headers =
      rd_kafka_message_headers(&record, &before) == RD_KAFKA_RESP_ERR_NO_ERROR
          ? rd_kafka_headers_copy(before)
          : rd_kafka_headers_new(8);
  const auto put = [headers](const char* name, std::string_view value) {
    rd_kafka_header_remove(headers, name);  // of a letter that was delivered, and failed, again
    rd_kafka_header_add(headers, name, -1, value.data(), static_cast<ssize_t>(value.size()));
  };
  put("metier-function", letter.function);
  put("metier-group", letter.group);
  put("metier-topic", letter.topic);
  put("metier-partition", std::to_string(letter.partition));
  put("metier-offset", std::to_string(letter.offset));
  put("metier-deliveries", std::to_string(letter.deliveries));
  put("metier-error", letter.why);
  return headers;
}

}  // namespace

Result<std::unique_ptr<DeadLetters>> DeadLetters::open(Loop& loop, const KafkaOptions& options,
                                                       Logger log) {
  std::unique_ptr<DeadLetters> out(
      new DeadLetters(loop, options.dead_letter_topic, std::move(log)));
  out->wake_.reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  std::array<char, 512> why{};
  rd_kafka_conf_t* conf = rd_kafka_conf_new();
  // What a broker has taken once it takes again: its own limit decides, not the client's.
  std::vector<std::pair<std::string, std::string>> properties{
      {"acks", "all"},
      {"linger.ms", "0"},
      {"message.timeout.ms", "30000"},
      {"topic.metadata.propagation.max.ms", "5000"},  // after that it is not there
      {"message.max.bytes", "1000000000"},
      {"log.queue", "true"},
      {"client.id", "metier"}};
  std::ranges::copy_if(options.properties, std::back_inserter(properties),
                       [](const auto& property) { return is_shared(property.first); });
  for (const auto& [key, value] : properties) {
    if (rd_kafka_conf_set(conf, key.c_str(), value.c_str(), why.data(), why.size()) !=
        RD_KAFKA_CONF_OK) {
      rd_kafka_conf_destroy(conf);
      return fail(invalid("attributes", why.data()));
    }
  }
  rd_kafka_conf_set_events(conf, RD_KAFKA_EVENT_DR | RD_KAFKA_EVENT_ERROR | RD_KAFKA_EVENT_LOG);
  out->kafka_ = rd_kafka_new(RD_KAFKA_PRODUCER, conf, why.data(), why.size());
  if (out->kafka_ == nullptr) {
    rd_kafka_conf_destroy(conf);
    return fail(invalid("attributes", why.data()));
  }
  out->events_.reset(rd_kafka_queue_get_main(out->kafka_));
  rd_kafka_set_log_queue(out->kafka_, out->events_.get());
  rd_kafka_queue_io_event_enable(out->events_.get(), out->wake_.get(), &kOne, sizeof kOne);
  METIER_CHECK(loop.watch(out->wake_.get(), EPOLLIN, *out));
  return out;
}

DeadLetters::~DeadLetters() {
  if (kafka_ == nullptr) { return; }
  loop_.forget(wake_.get(), *this);
  rd_kafka_queue_io_event_enable(events_.get(), -1, nullptr, 0);
  events_.reset();
  rd_kafka_purge(kafka_, RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_INFLIGHT);
  rd_kafka_destroy(kafka_);
}

void DeadLetters::send(const rd_kafka_message_t& record, const DeadLetter& letter, Done done) {
  const std::uint64_t number = ++next_;
  waiting_.emplace(number, std::move(done));
  rd_kafka_timestamp_type_t type{};
  const std::int64_t time = std::max<std::int64_t>(0, rd_kafka_message_timestamp(&record, &type));
  rd_kafka_headers_t* headers = headers_of(record, letter);
  const auto error = rd_kafka_producev(
      kafka_, RD_KAFKA_V_TOPIC(topic_.c_str()), RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY),
      RD_KAFKA_V_KEY(record.key, record.key_len), RD_KAFKA_V_VALUE(record.payload, record.len),
      RD_KAFKA_V_TIMESTAMP(time), RD_KAFKA_V_HEADERS(headers),
      RD_KAFKA_V_OPAQUE(reinterpret_cast<void*>(number)), RD_KAFKA_V_END);
  if (error == RD_KAFKA_RESP_ERR_NO_ERROR) { return; }  // the headers are its own now
  rd_kafka_headers_destroy(headers);
  // Never from inside `send`: the caller is in the middle of its records.
  refused_.emplace_back(number, rd_kafka_err2str(error));
  [[maybe_unused]] const auto woken = ::write(wake_.get(), &kOne, sizeof kOne);
}

void DeadLetters::finish(std::uint64_t number, const std::string& error) {
  const auto found = waiting_.find(number);
  if (found == waiting_.end()) { return; }
  const Done done = std::move(found->second);
  waiting_.erase(found);
  done(error);
}

void DeadLetters::on_ready(std::uint32_t) noexcept {
  std::uint64_t count = 0;
  [[maybe_unused]] const auto got = ::read(wake_.get(), &count, sizeof count);
  for (const auto& [number, error] : std::exchange(refused_, {})) { finish(number, error); }
  while (const KafkaEvent event{rd_kafka_queue_poll(events_.get(), 0)}) {
    switch (rd_kafka_event_type(event.get())) {
      case RD_KAFKA_EVENT_DR:
        while (const rd_kafka_message_t* sent = rd_kafka_event_message_next(event.get())) {
          const bool arrived = sent->err == RD_KAFKA_RESP_ERR_NO_ERROR;
          finish(reinterpret_cast<std::uint64_t>(sent->_private),
                 arrived ? "" : rd_kafka_err2str(sent->err));
        }
        break;
      case RD_KAFKA_EVENT_LOG: {
        const char* facility = nullptr;
        const char* text = nullptr;
        int level = 0;
        if (rd_kafka_event_log(event.get(), &facility, &text, &level) == 0 && level < kWarning) {
          log_.warn("librdkafka", {{"facility", Json(facility)}, {"text", Json(text)}});
        }
        break;
      }
      default: break;  // brokers that are away: the consumer says so, and each letter how it went
    }
  }
}

}  // namespace metier::realtime
