// The processor's end of the ring against a worker that a test plays: honest, slow, and hostile.
#include "realtime/ring.h"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <cstring>
#include <random>
#include <thread>

namespace metier::realtime {
namespace {

// The worker's side by hand: what the extension does, without Python.
class Peer final {
 public:
  explicit Peer(const Ring& ring) {
    base_ = static_cast<char*>(::mmap(nullptr, METIER_SEGMENT_BYTES, PROT_READ | PROT_WRITE,
                                      MAP_SHARED, ring.segment(), 0));
    control_ = reinterpret_cast<metier_ring_control*>(base_);
  }
  ~Peer() { ::munmap(base_, METIER_SEGMENT_BYTES); }
  Peer(const Peer&) = delete;
  Peer& operator=(const Peer&) = delete;

  char* base() { return base_; }
  metier_ring_control& control() { return *control_; }
  bool take(metier_event_record& record, std::string& parts) {
    if (tail_ == __atomic_load_n(&control_->in_head, __ATOMIC_ACQUIRE)) { return false; }
    std::string bytes = read(METIER_RING_CONTROL, tail_, sizeof(metier_record));
    metier_record head;
    std::memcpy(&head, bytes.data(), sizeof head);
    bytes = read(METIER_RING_CONTROL, tail_, head.size);
    if (head.type == METIER_EVENT) {
      std::memcpy(&record, bytes.data(), sizeof record);
      parts = bytes.substr(sizeof record);
    } else {
      record.record = head;
    }
    tail_ += metier_aligned(head.size);
    __atomic_store_n(&control_->in_tail, tail_, __ATOMIC_RELEASE);
    return true;
  }
  void put(const std::string& record) {
    for (std::size_t i = 0; i < record.size(); ++i) {
      base_[METIER_RING_CONTROL + METIER_RING_BYTES + ((head_ + i) & (METIER_RING_BYTES - 1))] =
          record[i];
    }
    head_ += metier_aligned(record.size());
    __atomic_store_n(&control_->out_head, head_, __ATOMIC_RELEASE);
  }
  bool has_room(std::size_t size) const {
    return METIER_RING_BYTES - (head_ - __atomic_load_n(&control_->out_tail, __ATOMIC_ACQUIRE)) >=
           metier_aligned(size);
  }
  static std::string response(std::uint32_t slot, std::uint32_t generation, std::uint32_t status,
                              const std::string& headers, const std::string& body) {
    const std::string type = "text/plain";
    metier_head head{};
    head.record = {
        static_cast<std::uint32_t>(sizeof head + type.size() + headers.size() + body.size()),
        METIER_RESPONSE, 0, slot, generation};
    head.length = static_cast<std::int64_t>(body.size());
    head.status = status;
    head.content_type = static_cast<std::uint32_t>(type.size());
    head.headers = static_cast<std::uint32_t>(headers.size());
    head.body = static_cast<std::uint32_t>(body.size());
    return std::string(reinterpret_cast<char*>(&head), sizeof head) + type + headers + body;
  }
  static std::string header(const std::string& name, const std::string& value) {
    const std::uint32_t sizes[2] = {static_cast<std::uint32_t>(name.size()),
                                    static_cast<std::uint32_t>(value.size())};
    return std::string(reinterpret_cast<const char*>(sizes), 8) + name + value;
  }

 private:
  std::string read(std::size_t ring, std::uint64_t at, std::size_t size) const {
    std::string out(size, '\0');
    for (std::size_t i = 0; i < size; ++i) {
      out[i] = base_[ring + ((at + i) & (METIER_RING_BYTES - 1))];
    }
    return out;
  }
  char* base_;
  metier_ring_control* control_;
  std::uint64_t tail_ = 0, head_ = 0;
};

struct RingTest : testing::Test {
  std::unique_ptr<Ring> ring = std::move(*Ring::create());
  Peer peer{*ring};
  Incoming incoming;
};

TEST_F(RingTest, EventsArriveWholeAndInOrder) {
  const HeaderView headers[] = {{"X-A", "1"}, {"X-B", ""}};
  for (std::uint32_t i = 0; i < 5000; ++i) {
    const std::string body(i % 3000, static_cast<char>('a' + i % 26));
    Event event;
    event.method = "POST";
    event.path = "/p";
    event.body = body;
    event.headers = headers;
    ASSERT_EQ(ring->push_event(event, {i % 64, i}, METIER_RING_INLINE), Pushed::yes);
    ring->flush();
    metier_event_record record{};
    std::string parts;
    ASSERT_TRUE(peer.take(record, parts));
    EXPECT_EQ(record.record.generation, i);
    EXPECT_EQ(record.body_size, body.size());
    EXPECT_TRUE(parts.ends_with(body));
    EXPECT_TRUE(parts.starts_with("POST/p"));
  }
}

TEST_F(RingTest, NothingIsSeenBeforeFlushAndAFullRingSaysSo) {
  const std::string body(60'000, 'x');
  Event event;
  event.body = body;
  int pushed = 0;
  while (ring->push_event(event, {0, 1}, METIER_RING_INLINE) == Pushed::yes) { ++pushed; }
  EXPECT_EQ(pushed, 4);
  metier_event_record record{};
  std::string parts;
  EXPECT_FALSE(peer.take(record, parts));
  EXPECT_TRUE(ring->flush());
  EXPECT_TRUE(peer.take(record, parts));
  EXPECT_EQ(ring->push_event(event, {0, 1}, METIER_RING_INLINE), Pushed::yes);
}

TEST_F(RingTest, HeadersThatCannotFitAreRefused) {
  const std::string value(300'000, 'v');
  const HeaderView header{"X", value};
  Event event;
  event.headers = {&header, 1};
  EXPECT_EQ(ring->push_event(event, {0, 1}, METIER_RING_INLINE), Pushed::too_large);
}

TEST_F(RingTest, ClaimsAreWonByOneSide) {
  ring->set_claim({3, 9}, METIER_CLAIM_QUEUED);
  EXPECT_FALSE(ring->has_started({3, 9}));
  EXPECT_TRUE(ring->revoke({3, 9}));
  EXPECT_FALSE(ring->revoke({3, 9}));
  ring->set_claim({3, 10}, METIER_CLAIM_STARTED);
  EXPECT_FALSE(ring->revoke({3, 10}));
  EXPECT_TRUE(ring->has_started({3, 10}));
}

TEST_F(RingTest, AnswersComeBack) {
  peer.put(Peer::response(1, 2, 201, Peer::header("X-Y", "z"), "hello"));
  ASSERT_EQ(ring->next(incoming), Read::record);
  EXPECT_EQ(incoming.type, METIER_RESPONSE);
  EXPECT_EQ(incoming.status, 201);
  EXPECT_EQ(incoming.bytes, "hello");
  ASSERT_EQ(incoming.headers.size(), 1U);
  EXPECT_EQ(incoming.headers[0].name, "X-Y");
  ring->release();
  EXPECT_EQ(ring->next(incoming), Read::nothing);
}

TEST_F(RingTest, ImpossibleRecordsAreCorruption) {
  const auto corrupt = [](const std::function<void(Peer&)>& act) {
    auto ring = std::move(*Ring::create());
    Peer peer(*ring);
    act(peer);
    Incoming incoming;
    return ring->next(incoming) == Read::corrupt;
  };
  EXPECT_TRUE(corrupt([](Peer& p) { p.control().out_head = 1U << 30U; }));
  EXPECT_TRUE(corrupt([](Peer& p) { p.control().out_head = 24; }));
  EXPECT_TRUE(corrupt([](Peer& p) { p.put(std::string(16, '\0')); }));
  EXPECT_TRUE(corrupt([](Peer& p) { p.put(Peer::response(0, 1, 99, "", "")); }));
  EXPECT_TRUE(corrupt([](Peer& p) { p.put(Peer::response(0, 1, 1000, "", "")); }));
  EXPECT_TRUE(corrupt(
      [](Peer& p) { p.put(Peer::response(0, 1, 200, Peer::header("Bad Name", "x"), "")); }));
  EXPECT_TRUE(corrupt([](Peer& p) {
    p.put(Peer::response(0, 1, 200, Peer::header("X", "a\r\nInjected: b"), ""));
  }));
  EXPECT_TRUE(corrupt([](Peer& p) { p.put(Peer::response(0, 1, 200, std::string(7, 'x'), "")); }));
  EXPECT_TRUE(corrupt([](Peer& p) {
    std::string record = Peer::response(0, 1, 200, "", "body");
    record[36] = 127;  // the lengths do not add up
    p.put(record);
  }));
}

// A worker that writes whatever it likes over the whole segment, also while the processor reads: every read ends in nothing, a record whose
// views lie inside the mapping, or corruption. AddressSanitizer sees what it should not touch.
TEST_F(RingTest, ScribblingNeverLeavesTheRing) {
  const auto seed = std::random_device{}();
  std::printf("seed %u\n", seed);
  std::mt19937 random(seed);
  std::size_t touched = 0;
  for (int round = 0; round < 300; ++round) {
    auto target = std::move(*Ring::create());
    Peer hostile(*target);
    hostile.put(Peer::response(0, 1, 200, Peer::header("A", "b"), std::string(200, 'x')));
    hostile.put(Peer::response(1, 1, 200, "", std::string(2000, 'y')));
    const auto scribble = [&](std::mt19937& with, int times) {
      for (int i = 0; i < times; ++i) {
        const std::size_t where = with() % 3 == 0
                                      ? with() % 4096
                                      : METIER_RING_CONTROL + METIER_RING_BYTES + with() % 4096;
        hostile.base()[where] = static_cast<char>(with());
      }
    };
    scribble(random, static_cast<int>(random() % 64));
    // Plausible indices over garbage: the header checks are what is under test.
    if (round % 2 == 0) {
      __atomic_store_n(&hostile.control().out_head, std::uint64_t{4096}, __ATOMIC_RELEASE);
    }
    std::thread meanwhile;
#if !defined(__SANITIZE_THREAD__) && !__has_feature(thread_sanitizer)
    meanwhile =
        std::thread([&, local = std::mt19937(seed + static_cast<unsigned>(round))]() mutable {
          scribble(local, 2000);
        });
#endif
    Incoming record;
    for (int i = 0; i < 100; ++i) {
      if (target->next(record) != Read::record) { break; }
      for (const HeaderView& header : record.headers) {
        EXPECT_TRUE(valid_header(header.name, header.value));
      }
      for (const char c : record.bytes) { touched += static_cast<unsigned char>(c); }
      target->release();
    }
    Event event;
    event.body = "x";
    static_cast<void>(target->push_event(event, {0, 1}, METIER_RING_INLINE));
    target->flush();
    static_cast<void>(target->fall_asleep());
    if (meanwhile.joinable()) { meanwhile.join(); }
  }
  EXPECT_GE(touched, 0U);
}

TEST_F(RingTest, TwoThreadsPassEverything) {
  constexpr int kEvents = 20'000;
  std::thread worker([&] {
    metier_event_record record{};
    std::string parts;
    for (int i = 0; i < kEvents;) {
      if (!peer.take(record, parts)) { continue; }
      const std::string answer =
          Peer::response(record.record.slot, record.record.generation, 200, "", parts);
      while (!peer.has_room(answer.size())) {}
      peer.put(answer);
      ++i;
    }
  });
  int sent = 0;
  for (int got = 0; got < kEvents;) {
    if (sent < kEvents) {
      const std::string body =
          std::to_string(sent) + std::string(static_cast<std::size_t>(sent % 500), 'z');
      Event event;
      event.path = "";
      event.body = body;
      if (ring->push_event(event, {0, static_cast<std::uint32_t>(sent)}, METIER_RING_INLINE) ==
          Pushed::yes) {
        ++sent;
        ring->flush();
      }
    }
    const Read read = ring->next(incoming);
    ASSERT_NE(read, Read::corrupt) << ring->why_corrupt();
    if (read == Read::record) {
      ASSERT_EQ(incoming.id.generation, static_cast<std::uint32_t>(got));
      ASSERT_TRUE(incoming.bytes.starts_with(std::to_string(got)));
      ring->release();
      ++got;
    }
  }
  worker.join();
}

}  // namespace
}  // namespace metier::realtime
