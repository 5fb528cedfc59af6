#include "realtime/triggers/kafka/options.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>

#include "base/files.h"
#include "base/text.h"

namespace metier::realtime {
namespace {

using std::chrono::milliseconds;

// Nuclio's annotations override its attributes: nuclio.io/kafka-consumer-group.
constexpr std::string_view kAnnotation = "nuclio.io/kafka-";

class Reader final {
 public:
  explicit Reader(const TriggerConfig& trigger)
      : attributes_(trigger.attributes), path_("triggers." + trigger.name + ".attributes") {
    for (const auto& member : trigger.annotations) {
      const std::string_view key = member.key();
      if (!key.starts_with(kAnnotation) || !member.value().is_string()) { continue; }
      std::string name;
      bool upper = false;
      for (const char c : key.substr(kAnnotation.size())) {
        if (c == '-') {
          upper = true;
        } else {
          name += upper ? static_cast<char>(std::toupper(static_cast<unsigned char>(c))) : c;
          upper = false;
        }
      }
      static constexpr std::pair<std::string_view, std::string_view> kInside[] = {{"sasl", "sasl"},
                                                                                  {"tls", "tls"}};
      for (const auto& [prefix, object] : kInside) {
        if (!name.starts_with(prefix) || name.size() == prefix.size()) { continue; }
        std::string field = name.substr(prefix.size());
        field[0] = static_cast<char>(std::tolower(static_cast<unsigned char>(field[0])));
        ensure_object(attributes_, object)[field] = typed(member.value().get_string());
        name.clear();
        break;
      }
      if (!name.empty()) { attributes_[name] = typed(member.value().get_string()); }
    }
  }

  const JsonObject& attributes() const { return attributes_; }
  std::string at(std::string_view key) const { return path_ + "." + std::string(key); }

  Result<std::string> text(std::string_view key) const {
    const Json* value = attributes_.if_contains(key);
    if (value == nullptr || value->is_null()) { return std::string(); }
    if (!value->is_string()) { return wrong(key, *value, "a text"); }
    return std::string(std::string_view(value->get_string()));
  }
  Result<std::vector<std::string>> words(std::string_view key) const {
    const Json* value = attributes_.if_contains(key);
    std::vector<std::string> out;
    if (value == nullptr || value->is_null()) { return out; }
    if (value->is_string()) {
      for (const std::string& word : split_text(std::string_view(value->get_string()), ',')) {
        if (!trim(word).empty()) { out.emplace_back(trim(word)); }
      }
      return out;
    }
    if (!value->is_array()) { return wrong(key, *value, "a list of texts"); }
    for (const Json& word : value->get_array()) {
      if (!word.is_string() || word.get_string().empty()) {
        return wrong(key, word, "a list of texts");
      }
      out.emplace_back(std::string_view(word.get_string()));
    }
    return out;
  }
  Result<std::string> one_of(std::string_view key,
                             std::initializer_list<std::string_view> values) const {
    METIER_TRY(given, text(key));
    if (given.empty()) { return std::string(*values.begin()); }
    if (std::ranges::find(values, std::string_view(given)) == values.end()) {
      std::vector<std::string> named(values.begin(), values.end());
      std::erase(named, "");
      return fail(invalid(at(key), quote(given) + " is not one of its values",
                          "give one of: " + join(named)));
    }
    return given;
  }
  // Go's durations, or a number of nanoseconds.
  Result<milliseconds> time(std::string_view key, milliseconds otherwise, milliseconds least,
                            milliseconds most) const {
    const Json* value = attributes_.if_contains(key);
    if (value == nullptr || value->is_null()) { return otherwise; }
    milliseconds out{};
    if (value->is_int64()) {
      out = milliseconds(value->get_int64() / 1'000'000);
    } else if (value->is_string()) {
      if (value->get_string().empty()) { return otherwise; }
      auto parsed = parse_duration(std::string_view(value->get_string()));
      if (!parsed) { return fail(std::move(parsed.error()).at(at(key))); }
      out = *parsed;
    } else {
      return wrong(key, *value, "a duration such as \"10s\"");
    }
    if (out < least || out > most) {
      return fail(invalid(at(key), fmt::format("{} ms is out of range", out.count()),
                          fmt::format("give {} to {} ms", least.count(), most.count())));
    }
    return out;
  }
  Result<std::int64_t> number(std::string_view key, std::int64_t otherwise, std::int64_t least,
                              std::int64_t most) const {
    const Json* value = attributes_.if_contains(key);
    if (value == nullptr || value->is_null()) { return otherwise; }
    const auto out = int_in(attributes_, key);
    if (!out) { return wrong(key, *value, "a whole number"); }
    if (*out < least || *out > most) {
      return fail(invalid(at(key), fmt::format("{} is out of range", *out),
                          fmt::format("give {} to {}", least, most)));
    }
    return *out;
  }

 private:
  static Json typed(std::string_view text) {
    auto parsed = parse_json(text);
    return parsed && (parsed->is_bool() || parsed->is_int64()) ? std::move(*parsed) : Json(text);
  }
  std::unexpected<Error> wrong(std::string_view key, const Json& value,
                               std::string_view wanted) const {
    return fail(invalid(at(key), quote(dump_json(value)) + " is not what it takes",
                        "give " + std::string(wanted)));
  }

  JsonObject attributes_;
  std::string path_;
};

std::string ms(milliseconds time) { return std::to_string(time.count()); }

// secretPath is a folder with the values, a file each, for those that are not given.
Result<std::string> secret(const Reader& reader, const JsonObject& object, std::string_view key,
                           const std::string& folder) {
  std::string value(string_in(object, key));
  if (!value.empty() || folder.empty()) { return value; }
  auto file = read_file(folder + "/" + std::string(key), 1U << 20U);
  if (file) { return std::string(trim(*file)); }
  if (file.error().kind == ErrorKind::not_found) { return value; }
  return fail(std::move(file.error()).at(reader.at("secretPath")));
}

Result<void> read_security(const Reader& reader, KafkaOptions& out) {
  const JsonObject none;
  const JsonObject& all = reader.attributes();
  const JsonObject& sasl = object_in(all, "sasl") == nullptr ? none : *object_in(all, "sasl");
  const JsonObject& tls = object_in(all, "tls") == nullptr ? none : *object_in(all, "tls");
  const bool with_sasl = bool_in(sasl, "enable");
  const bool with_tls = bool_in(tls, "enable");
  const auto put = [&out](std::string_view key, std::string value) {
    if (!value.empty()) { out.properties.emplace_back(key, std::move(value)); }
  };
  METIER_TRY(folder, reader.text("secretPath"));
  if (with_sasl) {
    std::string mechanism(string_in(sasl, "mechanism", "PLAIN"));
    if (mechanism.empty()) { mechanism = "PLAIN"; }
    if (mechanism == "OAUTHBEARER") {
      return fail(Error{.kind = ErrorKind::unsupported,
                        .message = "OAUTHBEARER is not in this build",
                        .field = reader.at("sasl.mechanism"),
                        .fix = "use PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512"});
    }
    if (mechanism != "PLAIN" && mechanism != "SCRAM-SHA-256" && mechanism != "SCRAM-SHA-512") {
      return fail(invalid(reader.at("sasl.mechanism"), quote(mechanism) + " is no mechanism here",
                          "give PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512"));
    }
    METIER_TRY(user, secret(reader, sasl, "user", folder));
    METIER_TRY(password, secret(reader, sasl, "password", folder));
    if (user.empty() || password.empty()) {
      return fail(invalid(reader.at(user.empty() ? "sasl.user" : "sasl.password"), "is empty",
                          "sasl.enable needs both, here or as files below secretPath"));
    }
    put("sasl.mechanisms", mechanism);
    put("sasl.username", user);
    put("sasl.password", password);
  }
  put("security.protocol",
      with_tls ? (with_sasl ? "sasl_ssl" : "ssl") : (with_sasl ? "sasl_plaintext" : "plaintext"));
  if (!with_tls) { return {}; }
  const auto least = string_in(tls, "minimumVersion");
  if (!least.empty() && least != "1.2") {
    return fail(invalid(reader.at("tls.minimumVersion"), quote(least) + " cannot be asked for",
                        "leave it out: TLS 1.2 is the least, 1.3 is used when the broker has it"));
  }
  if (bool_in(tls, "insecureSkipVerify")) { put("enable.ssl.certificate.verification", "false"); }
  METIER_TRY(authority, secret(reader, all, "caCert", folder));
  METIER_TRY(key, secret(reader, all, "accessKey", folder));
  METIER_TRY(certificate, secret(reader, all, "accessCertificate", folder));
  if (key.empty() != certificate.empty()) {
    return fail(invalid(reader.at(key.empty() ? "accessKey" : "accessCertificate"), "is empty",
                        "a client's certificate needs both"));
  }
  put("ssl.ca.pem", authority);
  put("ssl.key.pem", key);
  put("ssl.certificate.pem", certificate);
  return {};
}

// What fails is tried again, so often; then it goes to the topic, or is passed over when there is none.
Result<void> read_dead_letters(const Reader& reader, KafkaOptions& out) {
  METIER_TRY(topic, reader.text("deadLetterTopic"));
  METIER_TRY(given, reader.text("onFailure"));
  METIER_TRY(most, reader.number("maxDeliveries", topic.empty() ? 0 : 3, 1, 1000));
  if (!topic.empty() && given.empty()) { out.on_failure = OnFailure::retry; }
  const bool retries = out.on_failure == OnFailure::retry;
  for (const auto& [key, asked] :
       {std::pair{"deadLetterTopic", !topic.empty()}, std::pair{"maxDeliveries", most > 0}}) {
    if (asked && !retries) {
      return fail(
          invalid(reader.at(key),
                  "is for onFailure retry, here it is " + (given.empty() ? "commit" : given),
                  "write onFailure: retry"));
    }
  }
  const bool right =
      topic.size() <= 249 && topic != "." && topic != ".." &&
      std::ranges::all_of(topic, [](char c) {
        return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '.' || c == '_' || c == '-';
      });
  if (!right) {
    return fail(invalid(reader.at("deadLetterTopic"), quote(topic) + " is no name of a topic",
                        "letters, digits, '.', '_' and '-', at most 249"));
  }
  if (std::ranges::find(out.topics, topic) != out.topics.end()) {
    return fail(invalid(reader.at("deadLetterTopic"), quote(topic) + " is one of its topics",
                        "a failed record would be read again and again: name another one"));
  }
  out.dead_letter_topic = std::move(topic);
  out.max_deliveries = static_cast<int>(most);
  return {};
}

}  // namespace

Result<KafkaOptions> read_kafka_options(const TriggerConfig& trigger, Secrets secrets) {
  const Reader reader(trigger);
  KafkaOptions out;
  METIER_TRY(brokers, reader.words("brokers"));
  METIER_TRY(topics, reader.words("topics"));
  METIER_TRY(group, reader.text("consumerGroup"));
  out.brokers = std::move(brokers);
  out.topics = std::move(topics);
  out.group = std::move(group);
  if (out.brokers.empty() && !trigger.url.empty()) { out.brokers = {trigger.url}; }
  for (const auto& [key, missing] :
       {std::pair{"brokers", out.brokers.empty()}, std::pair{"topics", out.topics.empty()},
        std::pair{"consumerGroup", out.group.empty()}}) {
    if (missing) {
      return fail(invalid(reader.at(key), "is empty",
                          "a Kafka trigger needs brokers, topics and a "
                          "consumerGroup"));
    }
  }
  const auto put = [&out](std::string_view key, std::string value) {
    out.properties.emplace_back(key, std::move(value));
  };
  put("bootstrap.servers", join(out.brokers, ","));
  put("group.id", out.group);
  METIER_TRY(offset, reader.one_of("initialOffset", {"earliest", "latest"}));
  put("auto.offset.reset", offset);
  METIER_TRY(balance, reader.one_of("balanceStrategy", {"range", "roundrobin", "sticky"}));
  put("partition.assignment.strategy", balance == "sticky" ? "cooperative-sticky" : balance);
  METIER_TRY(lanes, reader.one_of("workerAllocationMode", {"", "pool", "static"}));
  const bool acks = trigger.explicit_ack != ExplicitAck::disable;
  if (acks && lanes == "pool") {
    return fail(invalid(reader.at("workerAllocationMode"),
                        "explicit acknowledgement needs static worker allocation", "write static"));
  }
  out.static_lanes = acks || lanes == "static";
  METIER_TRY(failure, reader.one_of("onFailure", {"commit", "retry", "stop"}));
  out.on_failure = failure == "commit"  ? OnFailure::commit
                   : failure == "retry" ? OnFailure::retry
                                        : OnFailure::stop;
  METIER_CHECK(read_dead_letters(reader, out));
  METIER_TRY(window, reader.number("ackWindowSize", 0, 0, 1'000'000));
  out.ack_window = window;

  const milliseconds hour(3'600'000);
  METIER_TRY(session, reader.time("sessionTimeout", milliseconds(10'000), milliseconds(1), hour));
  METIER_TRY(beat, reader.time("heartbeatInterval", milliseconds(3000), milliseconds(1), hour));
  if (beat >= session) {
    return fail(invalid(
        reader.at("heartbeatInterval"),
        fmt::format("{} ms is not less than sessionTimeout {} ms", beat.count(), session.count()),
        "give a third of it"));
  }
  put("session.timeout.ms", ms(session));
  put("heartbeat.interval.ms", ms(beat));
  METIER_TRY(rebalance,
             reader.time("rebalanceTimeout", milliseconds(60'000), milliseconds(1), hour * 24));
  put("max.poll.interval.ms", ms(std::max(rebalance, session)));
  METIER_TRY(wait, reader.time("maxWaitHandlerDuringRebalance", milliseconds(5000), milliseconds(0),
                               hour));
  // As Nuclio: it has to outlast what a worker may take to end.
  out.handler_wait = wait < trigger.worker_termination_timeout
                         ? trigger.worker_termination_timeout + milliseconds(3000)
                         : wait;
  METIER_TRY(backoff, reader.time("retryBackoff", milliseconds(2000), milliseconds(1), hour));
  put("retry.backoff.ms", ms(std::min(backoff, milliseconds(300'000))));
  put("retry.backoff.max.ms", ms(std::clamp(backoff, milliseconds(1000), milliseconds(300'000))));
  METIER_TRY(poll,
             reader.time("maxWaitTime", milliseconds(250), milliseconds(0), milliseconds(300'000)));
  put("fetch.wait.max.ms", ms(poll));
  METIER_TRY(least, reader.number("fetchMin", 1, 1, 100'000'000));
  put("fetch.min.bytes", std::to_string(least));
  METIER_TRY(usual, reader.number("fetchDefault", 1 << 20, 1, 1'000'000'000));
  put("max.partition.fetch.bytes", std::to_string(usual));
  METIER_TRY(most, reader.number("fetchMax", 0, 0, 2'147'483'135));
  if (most > 0) {
    put("fetch.max.bytes", std::to_string(std::max(most, usual)));
    put("message.max.bytes", std::to_string(std::clamp<std::int64_t>(most, 1000, 1'000'000'000)));
  }
  METIER_TRY(buffer, reader.number("channelBufferSize", 256, 1, 10'000'000));
  put("queued.min.messages", std::to_string(buffer));
  // Once so many are read ahead, librdkafka looks again after this time (1 s by its default) whatever was taken meanwhile: one
  // fetch a second.
  put("fetch.queue.backoff.ms", "10");
  METIER_TRY(commit, reader.time("commitInterval", milliseconds(1000), milliseconds(10), hour));
  put("auto.commit.interval.ms", ms(commit));
  METIER_TRY(level, reader.number("logLevel", 0, 0, 10));
  if (level > 0) {
    put("debug", level > 1 ? "consumer,cgrp,topic,metadata,fetch" : "consumer,cgrp");
  }
  METIER_TRY(folder, reader.text("secretPath"));
  if (secrets == Secrets::read || folder.empty()) { METIER_CHECK(read_security(reader, out)); }
  return out;
}

}  // namespace metier::realtime
