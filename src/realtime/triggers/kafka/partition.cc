#include "realtime/triggers/kafka/partition.h"

#include <algorithm>

namespace metier::realtime {
namespace {

constexpr std::size_t kReadAtOnce = 64;
constexpr std::size_t kWhyBytes = 1000;  // of a header

std::size_t size_of(const Record& record) { return record.message->len + record.message->key_len; }

}  // namespace

void Record::head(const ResponseHead& head) noexcept {
  outcome = head.outcome;
  no_ack = head.no_ack;
}
bool Record::chunk(std::string_view bytes) noexcept {
  if (outcome == Outcome::raised && why.size() < kWhyBytes) {
    why += bytes.substr(0, kWhyBytes - why.size());
  }
  return true;
}
void Record::end() noexcept {
  if (outcome == Outcome::raised) { ++deliveries; }
  partition->ended(*this, Partition::How::answered);
}
void Record::fail(const Failure& failure) noexcept {
  why = failure.message;
  // Those that waited behind it in the worker did not begin: only the first of them was delivered.
  if (failure.reason == FailReason::refused) {
    return partition->ended(*this, Partition::How::exhausted);
  }
  const bool began = failure.reason == FailReason::timed_out ||
                     failure.reason == FailReason::internal ||
                     (failure.reason == FailReason::worker_died && partition->is_first(*this));
  const bool exhausted = began && ++deliveries >= partition->limit();
  partition->ended(*this, exhausted ? Partition::How::exhausted : Partition::How::again);
}

Partition::Partition(PartitionOwner& owner, TopicPartition where, KafkaQueue queue)
    : owner_(owner), where_(std::move(where)), queue_(std::move(queue)) {}

std::unique_ptr<Record> Partition::fresh(KafkaMessage message) {
  std::unique_ptr<Record> record;
  if (spare_.empty()) {
    record = std::make_unique<Record>();
  } else {
    record = std::move(spare_.back());
    spare_.pop_back();
  }
  record->partition = this;
  record->message = std::move(message);
  record->state = Record::State::waiting;
  record->deliveries = 0;
  record->why.clear();
  record->letter_out = false;
  record->headers.clear();
  const rd_kafka_message_t& from = *record->message;
  rd_kafka_headers_t* headers = nullptr;
  if (rd_kafka_message_headers(&from, &headers) == RD_KAFKA_RESP_ERR_NO_ERROR) {
    const char* name = nullptr;
    const void* value = nullptr;
    std::size_t size = 0;
    for (std::size_t i = 0;
         rd_kafka_header_get_all(headers, i, &name, &value, &size) == RD_KAFKA_RESP_ERR_NO_ERROR;
         ++i) {
      record->headers.push_back({name, {static_cast<const char*>(value), size}});
    }
  }
  Event event;
  event.id = {0, 1};
  event.trigger_kind = "kafka-cluster";
  event.trigger_name = owner_.trigger_name();
  event.path = where_.topic;
  event.topic = where_.topic;
  event.headers = record->headers;
  event.header_values_are_bytes = true;
  event.body = {static_cast<const char*>(from.payload), from.len};
  event.key = {static_cast<const char*>(from.key), from.key_len};
  event.offset = from.offset;
  event.shard = where_.partition;
  rd_kafka_timestamp_type_t type{};
  event.timestamp_us = std::max<std::int64_t>(0, rd_kafka_message_timestamp(&from, &type)) * 1000;
  record->event = event;
  return record;
}

Record* Partition::next(KafkaSource& source) {
  if (leaving || stopped || dead_ > 0) { return nullptr; }
  while (next_ < static_cast<int>(records_.size()) &&
         records_[static_cast<std::size_t>(next_)]->state != Record::State::waiting) {
    ++next_;  // only some of those before it came back
  }
  if (waiting() == 0 && maybe) { read_more(source, 1); }
  return next_ < static_cast<int>(records_.size()) ? records_[static_cast<std::size_t>(next_)].get()
                                                   : nullptr;
}

void Partition::read_more(KafkaSource& source, std::size_t until) {
  while (waiting() < until) {
    if (records_.size() >= kUnacked || unacked_bytes_ >= kUnackedBytes) { return; }
    read_.clear();
    source.read(queue_.get(), read_, std::max<std::size_t>(kReadAtOnce, until - waiting()));
    if (read_.empty()) {
      maybe = false;
      return;
    }
    for (KafkaMessage& message : read_) {
      if (position_ < 0) { position_ = committed_ = message->offset; }
      records_.push_back(fresh(std::move(message)));
    }
  }
}

void Partition::sent(Record& record) {
  record.state = Record::State::in_flight;
  record.outcome = Outcome::answered;
  record.no_ack = false;
  record.acked = false;
  record.why.clear();
  record.delivery = ++deliveries_;
  record.event.lane = lane;
  ++in_flight_;
  ++next_;
}

void Partition::again(Record& record) {
  record.state = Record::State::waiting;
  const auto at = std::ranges::find(records_, &record, [](const auto& r) { return r.get(); });
  next_ = std::min(next_, static_cast<int>(at - records_.begin()));
}

void Partition::ended(Record& record, How how) {
  --in_flight_;
  const std::int64_t offset = record.event.offset;
  const bool acked = record.acked;
  const bool failed = record.outcome == Outcome::raised || how == How::exhausted;
  const int most = owner_.max_deliveries();
  const bool given_up =
      failed && !acked && most > 0 && (how == How::exhausted || record.deliveries >= most);
  if (how == How::again && !acked) {
    // In order: what was sent behind it failed as well, or waits already.
    again(record);
  } else if (given_up && owner_.bury(*this, record)) {
    record.state = Record::State::dead;
    ++dead_;
  } else if (failed && !acked && !given_up && owner_.on_failure() != OnFailure::commit) {
    again(record);
    if (owner_.on_failure() == OnFailure::stop) {
      stopped = true;
      owner_.say("a handler failed, the partition is not read on (onFailure: stop)", *this, offset);
    } else {
      ++tries_;
      not_before = SteadyTime::clock::now() +
                   std::chrono::milliseconds(std::min(30'000, 100 << std::min(tries_, 9)));
    }
  } else {
    tries_ = 0;
    ++finished;
    if (how == How::exhausted || given_up) {
      owner_.say("a record is passed over: no handler finished it", *this, offset);
    }
    const bool waits = owner_.acks() == ExplicitAck::explicit_only ||
                       (owner_.acks() == ExplicitAck::enable && record.no_ack);
    if (waits && !acked && !given_up && how == How::answered) {
      record.state = Record::State::unacked;  // its message stays: its worker may end before
      ++unacked_;
      unacked_bytes_ += size_of(record);
    } else {
      record.state = Record::State::done;
    }
    trim();
  }
  owner_.record_ended(*this);
}

bool Partition::acknowledge(std::int64_t offset) {
  bool any = offset < position_;
  std::uint64_t before = 0;  // what was delivered later is not what the worker means
  for (const auto& record : records_) {
    if (record->event.offset > offset) { break; }
    if (record->state != Record::State::waiting) { before = record->delivery; }
  }
  for (const auto& record : records_) {
    if (record->event.offset > offset) { break; }
    if (record->state == Record::State::waiting || record->delivery > before) { continue; }
    any = true;
    record->acked = true;  // one that still runs is finished when it ends
    if (record->state == Record::State::unacked) {
      no_longer_unacked(*record, Record::State::done);
    }
  }
  trim();
  return any;
}

void Partition::no_longer_unacked(Record& record, Record::State state) {
  --unacked_;
  unacked_bytes_ -= size_of(record);
  record.state = state;
}

bool Partition::worker_lost(int lane) {
  Record* oldest = nullptr;
  bool runs = false;
  int index = 0;
  for (const auto& record : records_) {
    if (record->event.lane == lane && record->state == Record::State::in_flight) { runs = true; }
    if (record->event.lane == lane && record->state == Record::State::unacked) {
      no_longer_unacked(*record, Record::State::waiting);
      next_ = std::min(next_, index);
      if (oldest == nullptr) { oldest = record.get(); }
    }
    ++index;
  }
  if (oldest == nullptr) { return false; }
  // What ended the worker is what ran; where nothing did, it may be the oldest one.
  if (!runs && ++oldest->deliveries >= limit()) {
    oldest->why = "its worker ended before it was acknowledged";
    if (owner_.max_deliveries() > 0 && owner_.bury(*this, *oldest)) {
      oldest->state = Record::State::dead;
      ++dead_;
      return true;
    }
    owner_.say("a record is passed over: no handler finished it", *this, oldest->event.offset);
    oldest->state = Record::State::done;
    trim();
  }
  return true;
}

int Partition::limit() const {
  return owner_.max_deliveries() > 0 ? owner_.max_deliveries() : kDeliveries;
}

void Partition::buried(std::int64_t offset, Letter how) {
  const auto found = std::ranges::find_if(records_, [offset](const auto& record) {
    return record->event.offset == offset && record->state == Record::State::dead;
  });
  if (found == records_.end()) { return; }
  (*found)->letter_out = false;
  if (how == Letter::failed) { return; }
  (*found)->state = Record::State::done;
  --dead_;
  tries_ = 0;
  ++finished;
  trim();
}

void Partition::trim() {
  while (!records_.empty() && records_.front()->state == Record::State::done) {
    position_ = records_.front()->event.offset + 1;
    records_.front()->message.reset();
    if (spare_.size() < kReadAtOnce) { spare_.push_back(std::move(records_.front())); }
    records_.pop_front();
    next_ = std::max(0, next_ - 1);
  }
}

bool Partition::is_first(const Record& record) const {
  const auto first =
      std::ranges::find(records_, Record::State::in_flight, [](const auto& r) { return r->state; });
  return first != records_.end() && first->get() == &record;
}

std::optional<std::int64_t> Partition::to_commit(std::int64_t window) {
  const std::int64_t offset = position_ - window;
  if (position_ < 0 || offset <= committed_) { return std::nullopt; }
  committed_ = offset;
  return offset;
}

}  // namespace metier::realtime
