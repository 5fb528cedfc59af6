// The processor's end of the shared memory of one worker. Everything that the worker wrote is copied once, checked, and only the copy is
// used (reliability.md 4.3); the bytes of a body are passed on in place.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "base/files.h"
#include "base/result.h"
#include "realtime/event.h"
#include "realtime/event_target.h"
#include "realtime/ring_layout.h"

namespace metier::realtime {

// One record of the worker, checked. Views into the ring live until `release`.
struct Incoming {
  int type = 0;
  int flags = 0;
  EventId id;
  std::string_view bytes;  // CHUNK, ERROR, LOG, INIT_FAILED; the body of RESPONSE; the topic of ACK
  // RESPONSE and HEAD
  int status = 0;
  std::int64_t length = -1;
  std::int64_t handler_ns = 0;          // also END
  std::string_view content_type;        // of the private copy
  std::span<const HeaderView> headers;  // of the private copy
  // ACK
  std::int32_t partition = 0;
  std::int64_t offset = 0;
};

enum class Pushed { yes, full, too_large };
enum class Read { nothing, record, corrupt };

class Ring final {
 public:
  // Descriptors of the worker's side, to be handed over once.
  struct PeerFds {
    Fd socket;
  };
  static Result<std::unique_ptr<Ring>> create();
  ~Ring();
  Ring(const Ring&) = delete;
  Ring& operator=(const Ring&) = delete;

  int segment() const { return segment_.get(); }
  int out_eventfd() const { return out_eventfd_.get(); }  // readable when the worker has written
  int in_eventfd() const { return in_eventfd_.get(); }
  int peer_socket() const { return peer_socket_.get(); }
  void close_peer();  // after the worker has its descriptors

  // Writes; the worker sees it after `flush`.
  Pushed push_event(const Event& event, EventId id, std::size_t inline_limit);
  Pushed push(int type, std::uint32_t slot = 0, std::uint32_t generation = 0);
  // Room for a batch of this many bytes of records.
  bool has_room(std::size_t bytes) const;
  static std::size_t record_bytes(const Event& event, std::size_t inline_limit);
  bool flush();  // publishes, wakes the worker when it sleeps; false: there was nothing

  // The claim table: what happened to a slot's event.
  void set_claim(EventId id, std::uint32_t state);
  bool revoke(EventId id);  // true: the worker will never start it
  bool has_started(EventId id) const;
  void add_credit(std::uint32_t slot, std::uint64_t bytes);
  bool can_revoke() const;

  Read next(Incoming& out);
  void release();      // of what `next` gave
  void wake_writer();  // when the worker waits for room or credit
  // Before the loop sleeps: the worker shall write the eventfd. False when there is something to read already.
  bool fall_asleep();
  void awake();
  std::string_view why_corrupt() const { return why_; }

 private:
  Ring() = default;
  char* in_at(std::uint64_t position) const { return in_ + (position & (METIER_RING_BYTES - 1)); }
  Read corrupt(std::string_view why);
  bool read_head(Incoming& out, const char* at, std::uint32_t size, int type);
  bool send_body(std::string_view body);

  Fd segment_, out_eventfd_, in_eventfd_, socket_, peer_socket_;
  metier_ring_control* control_ = nullptr;
  metier_ring_slot* slots_ = nullptr;
  char* in_ = nullptr;  // both rings mapped twice, back to back
  char* out_ = nullptr;
  std::uint64_t in_head_ = 0, published_ = 0, out_tail_ = 0;
  mutable std::uint64_t in_tail_ = 0;  // the worker's, as last believed
  std::uint64_t out_head_ = 0;
  std::uint32_t pending_size_ = 0;
  bool asleep_ = false;
  std::string_view why_;
  std::vector<char> copy_;  // private copy of a head
  std::vector<HeaderView> headers_;
};

// A header that may go to a peer: the name a token, the value without control characters.
bool valid_header(std::string_view name, std::string_view value);

}  // namespace metier::realtime
