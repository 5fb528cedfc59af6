// Records of topics become events, partition by partition in order; what handlers finished is committed. A partition whose worker is
// busy is not read: its records wait at the broker.
#include "realtime/triggers/kafka/kafka.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <map>

#include "base/text.h"
#include "realtime/triggers/kafka/consumer.h"
#include "realtime/triggers/kafka/dead_letters.h"
#include "realtime/triggers/kafka/options.h"
#include "realtime/triggers/kafka/partition.h"

namespace metier::realtime {
namespace {

using std::chrono::milliseconds;

constexpr auto kStoreEvery = milliseconds(100);
constexpr auto kCloseWithin = std::chrono::seconds(5);
constexpr auto kLetterAgain = std::chrono::seconds(2);
constexpr auto kAskEvery = std::chrono::seconds(2);

class KafkaTrigger final : public Trigger, public AckListener, public PartitionOwner {
 public:
  KafkaTrigger(const TriggerSite& site, KafkaOptions options)
      : loop_(site.loop),
        config_(site.trigger),
        function_(site.config.name),
        options_(std::move(options)),
        log_(site.log),
        single_(site.trigger.mode == "async" || options_.on_failure != OnFailure::commit),
        store_timer_(site.loop, [this] { tick(); }),
        pump_timer_(site.loop, [this] { pump(); }),
        leave_timer_(site.loop, [this] { leave_late(); }),
        close_timer_(site.loop, [this] { closed(); }) {}

  Result<void> start(EventTarget& target) override {
    target_ = &target;
    if (!options_.dead_letter_topic.empty()) {
      auto letters = DeadLetters::open(loop_, options_, log_);
      if (!letters) { return fail(std::move(letters.error()).at("triggers." + config_.name)); }
      letters_ = std::move(*letters);
    }
    target.listen_acks(this);
    auto consumer = KafkaConsumer::open(
        loop_, options_,
        {.ready =
             [this] {
               consumer_->serve();
               look_everywhere();
               if (closing_ && consumer_->closed()) {
                 loop_.post([this] { closed(); });
               }
             },
         .assigned = [this](std::vector<TopicPartition> names) { assigned(std::move(names)); },
         .revoked = [this](std::vector<TopicPartition> names,
                           bool lost) { revoked(std::move(names), lost); },
         .heard = [this](Heard what, const std::string& why) { heard(what, why); }},
        log_);
    if (!consumer) { return fail(std::move(consumer.error()).at("triggers." + config_.name)); }
    consumer_ = std::move(*consumer);
    store_timer_.after(kStoreEvery);
    return {};
  }

  void stop(std::function<void()> done) override {
    done_ = std::move(done);
    stopping_ = true;
    if (!consumer_) { return std::exchange(done_, nullptr)(); }
    for (auto& [where, partition] : partitions_) { partition->leaving = true; }
    close_timer_.after(options_.handler_wait + kCloseWithin);
    settle();
  }

  bool ready() const override { return joined_.load(std::memory_order_relaxed); }
  std::string describe() const override {
    std::string out;
    if (const std::string& why = trouble(); !why.empty()) { out = why; }
    if (!letters_fail_.empty()) {
      out += fmt::format("{}dead letter topic {}: {}", out.empty() ? "" : ", ",
                         options_.dead_letter_topic, letters_fail_);
    }
    if (!joined_) { return out.empty() ? fmt::format("joining group {}", options_.group) : out; }
    for (const auto& [where, partition] : partitions_) {
      out += fmt::format("{}{} {}/{} at {}{}", out.empty() ? "" : ", ",
                         partition->stopped ? "stopped:" : "reading", where.topic, where.partition,
                         std::max<std::int64_t>(0, partition->position()),
                         partition->has_dead()      ? " (waits for the dead letter topic)"
                         : partition->has_unacked() ? " (waits for explicit acks)"
                                                    : "");
    }
    return out.empty() ? "in the group, without a partition" : out;
  }
  std::optional<Problem> problem() const override {
    if (trouble().empty()) { return std::nullopt; }
    return Problem{"BrokerUnavailable", trouble()};
  }
  void metrics(MetricsWriter& out) const override {
    const Labels id{{"trigger_kind", "kafka-cluster"}, {"trigger_id", config_.name}};
    out.gauge("metier_kafka_partitions", "Partitions claimed", id,
              static_cast<double>(partitions_.size()));
    out.counter("metier_kafka_records_total", "Records finished", id, finished_);
    out.counter("metier_kafka_rebalances_total", "Rebalances", id, rebalances_);
    out.counter("metier_kafka_redelivered_total", "Records delivered again", id, again_);
    out.counter("metier_kafka_dead_letters_total", "Records given to the dead letter topic", id,
                buried_);
    out.gauge("metier_kafka_lag", "Records that are not finished", id, static_cast<double>(lag()));
  }

  // ---- explicit acknowledgement
  void acknowledge(std::string_view topic, std::int32_t partition,
                   std::int64_t offset) noexcept override {
    const auto found = partitions_.find({std::string(topic), partition});
    if (found == partitions_.end() || !found->second->acknowledge(offset)) {
      ++unknown_acks_;
      return;
    }
    if (found->second->leaving) { settle(); }
  }

  void worker_lost(int lane) noexcept override {
    bool any = false;
    for (auto& [where, partition] : partitions_) {
      if (!partition->worker_lost(lane)) { continue; }
      any = true;
      log_.warn("a worker ended before it acknowledged, its records are delivered again",
                {{"topic", Json(where.topic)}, {"partition", Json(where.partition)}});
    }
    if (!any) { return; }
    settle_soon();
    loop_.post([this] { pump(); });
  }

  // ---- of its partitions
  void record_ended(Partition& partition) override {
    if (partition.leaving) { return settle_soon(); }
    // Who waits for room is asked in turn as soon as this worker is free.
    if (!pumping_ && !waits_for_room_) { feed(partition); }
  }
  std::string_view trigger_name() const override { return config_.name; }
  ExplicitAck acks() const override { return config_.explicit_ack; }
  OnFailure on_failure() const override { return options_.on_failure; }
  int max_deliveries() const override { return options_.max_deliveries; }
  bool bury(Partition& partition, Record& record) override {
    if (!letters_) { return false; }
    send_letter(partition, record);
    return true;
  }
  void say(std::string_view message, const Partition& partition, std::int64_t offset) override {
    log_.error(message, {{"topic", Json(partition.where().topic)},
                         {"partition", Json(partition.where().partition)},
                         {"offset", Json(offset)}});
  }

 private:
  // ---- dead letters
  void send_letter(const Partition& partition, Record& record) {
    record.letter_out = true;
    const TopicPartition where = partition.where();
    const std::int64_t offset = record.event.offset;
    letters_->send(
        *record.message,
        {.function = function_,
         .group = options_.group,
         .topic = where.topic,
         .why = record.why,
         .partition = where.partition,
         .offset = offset,
         .deliveries = record.deliveries},
        [this, where, offset](const std::string& error) { letter_ended(where, offset, error); });
  }
  void letter_ended(const TopicPartition& where, std::int64_t offset, const std::string& error) {
    const auto found = partitions_.find(where);
    if (error.empty()) {
      ++buried_;
      letters_fail_.clear();
    } else {
      if (letters_fail_.empty()) {
        log_.error("the dead letter topic does not take a record, it is tried on",
                   {{"topic", Json(options_.dead_letter_topic)}, {"why", Json(error)}});
      }
      letters_fail_ = error;
      letters_again_ = loop_.now() + kLetterAgain;
    }
    if (found == partitions_.end()) { return; }  // its new owner delivers it again
    if (error.empty()) {
      say("no handler finished a record, it went to the dead letter topic", *found->second, offset);
    }
    found->second->buried(offset,
                          error.empty() ? Partition::Letter::arrived : Partition::Letter::failed);
    feed(*found->second);
  }
  void letters_again() {
    if (!letters_ || loop_.now() < letters_again_) { return; }
    letters_again_ = loop_.now() + kLetterAgain;
    for (auto& [where, partition] : partitions_) {
      if (!partition->has_dead()) { continue; }
      for (const auto& record : partition->records()) {
        if (record->state == Record::State::dead && !record->letter_out) {
          send_letter(*partition, *record);
        }
      }
    }
  }

  // ---- records to handlers
  void look_everywhere() {
    for (auto& [where, partition] : partitions_) { partition->maybe = true; }
    pump();
  }
  void pump() {
    if (pumping_ || stopping_) { return; }
    // In turn, so that no partition starves another.
    std::size_t left = partitions_.size();
    auto at = partitions_.lower_bound(next_);
    for (; left > 0; --left, ++at) {
      if (at == partitions_.end()) { at = partitions_.begin(); }
      feed(*at->second);
    }
    if (!partitions_.empty()) {
      if (at == partitions_.end()) { at = partitions_.begin(); }
      at = std::next(at) == partitions_.end() ? partitions_.begin() : std::next(at);
      next_ = at->first;
    }
  }

  // As much of one partition as its worker takes.
  void feed(Partition& partition) {
    if (pumping_ || stopping_ || partition.leaving || partition.stopped) { return; }
    if (partition.not_before > loop_.now()) { return wake_at(partition.not_before); }
    pumping_ = true;
    if (config_.batch.enabled) {
      feed_batch(partition);
    } else {
      while (partition.in_flight() == 0 || !single_) {
        Record* record = partition.next(*consumer_);
        if (record == nullptr) { break; }
        const int lane = lane_for(partition);
        if (lane < 0) {
          wait_for_room(partition);
          break;
        }
        partition.lane = lane;
        if (record->deliveries > 0) { ++again_; }
        partition.sent(*record);
        target_->deliver_to(lane, record->event, *record);
        if (partition.not_before > loop_.now() || partition.stopped) { break; }
        if (record->state == Record::State::waiting) {  // it came back at once
          wake_at(loop_.now() + milliseconds(50));
          break;
        }
      }
    }
    pumping_ = false;
  }

  // One batch of one partition at a time: full, or as old as `batch.timeout` says.
  void feed_batch(Partition& partition) {
    if (partition.in_flight() > 0) { return; }
    if (partition.next(*consumer_) == nullptr) {
      partition.batch_since = {};
      return;
    }
    const auto size = static_cast<std::size_t>(std::min(config_.batch.size, 1000));
    partition.read_more(*consumer_, size);
    if (partition.batch_since == SteadyTime{}) { partition.batch_since = loop_.now(); }
    const SteadyTime due = partition.batch_since + config_.batch.timeout;
    if (partition.waiting() < size && loop_.now() < due) { return wake_at(due); }
    const int lane = lane_for(partition);
    if (lane < 0) { return wait_for_room(partition); }
    partition.lane = lane;
    partition.batch_since = {};
    std::vector<const Event*> events;
    std::vector<ResponseSink*> sinks;
    while (events.size() < size && partition.waiting() > 0) {
      Record* record = partition.next(*consumer_);
      if (record == nullptr) { break; }
      if (record->deliveries > 0) { ++again_; }
      partition.sent(*record);
      events.push_back(&record->event);
      sinks.push_back(record);
    }
    target_->deliver_batch(events, sinks);
  }

  // The only lane that may take the partition's next record, -1: any.
  int lane_wanted(const Partition& partition) const {
    return options_.static_lanes || partition.in_flight() > 0 ? std::max(0, partition.lane) : -1;
  }
  int lane_for(const Partition& partition) const {
    return target_->room_in(lane_wanted(partition));
  }
  void wait_for_room(const Partition& partition) {
    if (waits_for_room_) { return; }
    waits_for_room_ = true;
    target_->when_room(lane_wanted(partition), [this] {
      waits_for_room_ = false;
      pump();
    });
  }
  void wake_at(SteadyTime when) {
    if (pump_timer_.armed() && wakes_at_ <= when) { return; }
    wakes_at_ = when;
    pump_timer_.at(when);
  }

  // ---- the group
  void assigned(std::vector<TopicPartition> names) {
    joined_ = true;
    ++rebalances_;
    if (stopping_) { return consumer_->assign({}); }
    for (const TopicPartition& where : names) {
      partitions_[where] = std::make_unique<Partition>(*this, where, consumer_->queue_of(where));
    }
    if (options_.static_lanes) {
      // A partition's place in its topic's list: always the same worker during a session.
      std::map<std::string, int> index;
      for (auto& [where, partition] : partitions_) {
        if (partition->in_flight() == 0) {
          partition->lane = index[where.topic] % std::max(1, target_->lanes());
        }
        ++index[where.topic];
      }
    }
    log_.info("partitions taken", {{"partitions", Json(words(names))}});
    consumer_->assign(names);
    pump();
  }

  void revoked(std::vector<TopicPartition> names, bool lost) {
    ++rebalances_;
    leaving_ = std::move(names);
    lost_ = lost;
    drained_ = false;
    waited_ = false;
    draining_ = false;
    for (const TopicPartition& where : leaving_) {
      if (const auto found = partitions_.find(where); found != partitions_.end()) {
        found->second->leaving = true;
      }
    }
    revoking_ = true;
    leave_timer_.after(lost ? milliseconds(0) : options_.handler_wait);
    settle();
  }

  bool any_of_leaving(bool (*what)(const Partition&)) const {
    return std::ranges::any_of(partitions_, [&](const auto& entry) {
      return entry.second->leaving && what(*entry.second);
    });
  }

  void settle_soon() {
    if (settling_) { return; }
    settling_ = true;
    loop_.post([this] {
      settling_ = false;
      settle();
    });
  }
  // Goes on with a rebalance, or the end, as far as handlers let it.
  void settle() {
    if (any_of_leaving([](const Partition& p) { return p.in_flight() > 0; })) { return; }
    if (revoking_) {
      if (config_.explicit_ack != ExplicitAck::disable && !lost_) {
        if (!draining_) {
          draining_ = true;
          const std::uint64_t turn = rebalances_;
          target_->drain([this, turn] {
            if (turn == rebalances_) { drained_ = true; }
            settle_soon();
          });
        }
        if (!drained_) { return; }
        if (!waited_ && any_of_leaving([](const Partition& p) { return p.has_unacked(); })) {
          waited_ = true;
          leave_timer_.after(config_.wait_explicit_ack_during_rebalance);
          return;
        }
        if (waited_ && leave_timer_.armed() &&
            any_of_leaving([](const Partition& p) { return p.has_unacked(); })) {
          return;
        }
      }
      return leave();
    }
    if (stopping_ && !closing_) {
      closing_ = true;
      store();
      consumer_->close();
    }
  }
  void leave_late() {
    if (!revoking_) { return; }
    if (any_of_leaving([](const Partition& p) { return p.in_flight() > 0; })) {
      log_.warn(lost_ ? "partitions were lost, what runs of them is delivered again elsewhere"
                      : "handlers did not end within maxWaitHandlerDuringRebalance, what they "
                        "do is delivered again elsewhere");
    }
    leave();
  }
  void leave() {
    if (!lost_) { store(); }
    leave_timer_.cancel();
    revoking_ = false;
    for (const TopicPartition& where : leaving_) {
      const auto found = partitions_.find(where);
      if (found == partitions_.end()) { continue; }
      drop(*found->second);
      partitions_.erase(found);
    }
    log_.info("partitions given back", {{"partitions", Json(words(leaving_))}});
    consumer_->unassign(std::exchange(leaving_, {}));
    if (stopping_) { settle(); }
  }
  // What is with a handler is nobody's any more.
  void drop(Partition& partition) {
    partition.leaving = true;
    std::vector<Record*> running;
    for (const auto& record : partition.records()) {
      if (record->state == Record::State::in_flight) { running.push_back(record.get()); }
    }
    for (Record* record : running) { target_->cancel(record->event.id, *record); }
  }
  void closed() {
    if (!done_) { return; }
    closing_ = true;
    for (auto& [where, partition] : partitions_) { drop(*partition); }
    close_timer_.cancel();
    store_timer_.cancel();
    pump_timer_.cancel();
    leave_timer_.cancel();
    partitions_.clear();
    letters_.reset();
    consumer_.reset();
    std::exchange(done_, nullptr)();
  }

  void tick() {
    store_timer_.after(kStoreEvery);
    store();
    letters_again();
    if (loop_.now() >= ask_at_ && (!why_away_.empty() || !why_no_topics_.empty())) {
      ask_at_ = loop_.now() + kAskEvery;
      if (why_away_.empty()) {
        consumer_->ask_topics();
      } else {
        consumer_->ask();
      }
    }
    consumer_->serve();  // also tells the group that we live
    if (closing_ && consumer_->closed()) {
      return loop_.post([this] { closed(); });
    }
    look_everywhere();  // a wake-up that the client did not give costs a tick, not the partition
  }
  void store() {
    std::vector<std::pair<TopicPartition, std::int64_t>> offsets;
    for (auto& [where, partition] : partitions_) {
      finished_ += std::exchange(partition->finished, 0);
      if (const auto offset = partition->to_commit(options_.ack_window)) {
        offsets.emplace_back(where, *offset);
      }
    }
    consumer_->store(offsets);
  }

  void heard(Heard what, const std::string& why) {
    switch (what) {
      case Heard::away:
        if (!why_away_.empty() && why.starts_with("no broker")) { return; }  // we know why
        return troubled(why_away_, "the brokers do not answer, it is tried on", why);
      case Heard::no_group:
        return troubled(why_no_group_, "the brokers do not let it into its group, it is tried on",
                        why);
      case Heard::no_topics:
        return troubled(why_no_topics_, "the brokers do not let it read, it is tried on", why);
      case Heard::topics:
        if (!why_no_topics_.empty()) { log_.info("every topic can be read"); }
        why_no_topics_.clear();
        break;
      case Heard::works: why_no_group_.clear(); break;
      case Heard::answers: break;
    }
    if (!why_away_.empty()) { log_.info("the brokers answer again"); }
    why_away_.clear();
  }
  void troubled(std::string& told, std::string_view message, const std::string& why) {
    if (told.empty()) { log_.warn(message, {{"why", Json(why)}}); }
    told = fmt::format("{}: {}", join(options_.brokers), why);
  }
  const std::string& trouble() const {
    if (!why_away_.empty()) { return why_away_; }
    return why_no_group_.empty() ? why_no_topics_ : why_no_group_;
  }
  static std::string words(const std::vector<TopicPartition>& names) {
    std::string out;
    for (const auto& [topic, partition] : names) {
      out += fmt::format("{}{}/{}", out.empty() ? "" : " ", topic, partition);
    }
    return out;
  }
  std::int64_t lag() const {
    std::int64_t out = 0;
    for (const auto& [where, partition] : partitions_) {
      const std::int64_t end = consumer_ ? consumer_->end_of(where) : -1;
      if (end >= 0 && partition->position() >= 0) {
        out += std::max<std::int64_t>(0, end - partition->position());
      }
    }
    return out;
  }

  Loop& loop_;
  const TriggerConfig& config_;
  std::string function_;
  KafkaOptions options_;
  Logger log_;
  bool single_;  // one record of a partition with a handler, not several in its worker's ring
  EventTarget* target_ = nullptr;
  std::unique_ptr<KafkaConsumer> consumer_;
  std::unique_ptr<DeadLetters> letters_;
  std::map<TopicPartition, std::unique_ptr<Partition>> partitions_;
  TopicPartition next_;
  LoopTimer store_timer_, pump_timer_, leave_timer_, close_timer_;
  SteadyTime wakes_at_{};
  std::vector<TopicPartition> leaving_;
  std::function<void()> done_;
  std::string why_away_, why_no_group_, why_no_topics_, letters_fail_;
  SteadyTime ask_at_{};
  SteadyTime letters_again_{};
  std::atomic<bool> joined_{false};
  bool pumping_ = false, waits_for_room_ = false, settling_ = false;
  bool revoking_ = false, lost_ = false, draining_ = false, drained_ = false, waited_ = false;
  bool stopping_ = false, closing_ = false;
  std::uint64_t finished_ = 0, rebalances_ = 0, again_ = 0, unknown_acks_ = 0, buried_ = 0;
};

Result<void> check(const TriggerConfig& trigger) {
  METIER_TRY(options, read_kafka_options(trigger, Secrets::leave));
  static_cast<void>(options);
  return {};
}

}  // namespace

const TriggerKind& kafka_trigger_kind() {
  static constexpr std::array<std::string_view, 1> kAliases{"kafka"};
  static const TriggerKind kKind{
      .name = "kafka-cluster",
      .aliases = kAliases,
      .is_stream = true,
      .check = check,
      .make = [](const TriggerSite& site) -> Result<std::unique_ptr<Trigger>> {
        METIER_TRY(options, read_kafka_options(site.trigger));
        return std::make_unique<KafkaTrigger>(site, std::move(options));
      }};
  return kKind;
}

}  // namespace metier::realtime
