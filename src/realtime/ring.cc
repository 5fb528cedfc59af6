#include "realtime/ring.h"

#include <fcntl.h>
#include <linux/futex.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <climits>
#include <cstring>

namespace metier::realtime {
namespace {

template <class T>
T load(const T* at) {
  return __atomic_load_n(at, __ATOMIC_ACQUIRE);
}
template <class T>
void store(T* at, T value) {
  __atomic_store_n(at, value, __ATOMIC_RELEASE);
}

void futex_wake(std::uint32_t* word) {
  ::syscall(SYS_futex, word, FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
}

Result<char*> map_twice(int fd, off_t at) {
  char* base = static_cast<char*>(
      ::mmap(nullptr, 2 * METIER_RING_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  if (base == MAP_FAILED) { return fail(errno_error("mmap", errno)); }
  for (std::size_t i = 0; i < 2; ++i) {
    if (::mmap(base + i * METIER_RING_BYTES, METIER_RING_BYTES, PROT_READ | PROT_WRITE,
               MAP_SHARED | MAP_FIXED, fd, at) == MAP_FAILED) {
      const int error = errno;
      ::munmap(base, 2 * METIER_RING_BYTES);
      return fail(errno_error("mmap", error));
    }
  }
  return base;
}

constexpr std::array<bool, 256> make_token_table() {
  std::array<bool, 256> table{};
  for (const char c : std::string_view(
           "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")) {
    table[static_cast<unsigned char>(c)] = true;
  }
  return table;
}
constexpr std::array<bool, 256> kToken = make_token_table();

}  // namespace

bool valid_header(std::string_view name, std::string_view value) {
  if (name.empty()) { return false; }
  for (const char c : name) {
    if (!kToken[static_cast<unsigned char>(c)]) { return false; }
  }
  for (const char c : value) {
    const auto byte = static_cast<unsigned char>(c);
    if ((byte < 32 && byte != '\t') || byte == 127) { return false; }
  }
  return true;
}

Result<std::unique_ptr<Ring>> Ring::create() {
  std::unique_ptr<Ring> ring(new Ring);
  ring->segment_.reset(::memfd_create("metier-ring", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!ring->segment_ || ::ftruncate(ring->segment_.get(), METIER_SEGMENT_BYTES) != 0 ||
      ::fcntl(ring->segment_.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
    return fail(errno_error("the ring's memory", errno));
  }
  ring->out_eventfd_.reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  ring->in_eventfd_.reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  int pair[2];
  if (!ring->out_eventfd_ || !ring->in_eventfd_ ||
      ::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0) {
    return fail(errno_error("the ring's descriptors", errno));
  }
  ring->socket_.reset(pair[0]);
  ring->peer_socket_.reset(pair[1]);
  void* control = ::mmap(nullptr, METIER_RING_CONTROL, PROT_READ | PROT_WRITE, MAP_SHARED,
                         ring->segment_.get(), 0);
  if (control == MAP_FAILED) { return fail(errno_error("mmap", errno)); }
  ring->control_ = static_cast<metier_ring_control*>(control);
  METIER_TRY(in, map_twice(ring->segment_.get(), METIER_RING_CONTROL));
  ring->in_ = in;
  METIER_TRY(out, map_twice(ring->segment_.get(), METIER_RING_CONTROL + METIER_RING_BYTES));
  ring->out_ = out;
  ring->slots_ =
      reinterpret_cast<metier_ring_slot*>(static_cast<char*>(control) + METIER_RING_SLOTS_AT);
  ring->control_->magic = METIER_RING_MAGIC;
  ring->control_->version = METIER_RING_VERSION;
  ring->control_->ring_bytes = METIER_RING_BYTES;
  ring->control_->slots = METIER_RING_SLOTS;
  ring->control_->out_sleeping = 1;
  return ring;
}

Ring::~Ring() {
  if (control_ != nullptr) { ::munmap(control_, METIER_RING_CONTROL); }
  if (in_ != nullptr) { ::munmap(in_, 2 * METIER_RING_BYTES); }
  if (out_ != nullptr) { ::munmap(out_, 2 * METIER_RING_BYTES); }
}

void Ring::close_peer() { peer_socket_.reset(); }

bool Ring::has_room(std::size_t bytes) const {
  if (METIER_RING_BYTES - (in_head_ - in_tail_) >= bytes) { return true; }
  // The worker's index is believed only as far as it can be true.
  const std::uint64_t tail = load(&control_->in_tail);
  if (tail - in_tail_ <= in_head_ - in_tail_) { in_tail_ = tail; }
  return METIER_RING_BYTES - (in_head_ - in_tail_) >= bytes;
}

std::size_t Ring::record_bytes(const Event& event, std::size_t inline_limit) {
  std::size_t size = sizeof(metier_event_record) + event.uid.size() + event.trigger_kind.size() +
                     event.trigger_name.size() + event.method.size() + event.path.size() +
                     event.query.size() + event.content_type.size() + event.topic.size() +
                     event.key.size() + event.type.size() + event.type_version.size() +
                     event.version.size();
  for (const HeaderView& header : event.headers) {
    size += 8 + header.name.size() + header.value.size();
  }
  if (event.body.size() <= inline_limit) { size += event.body.size(); }
  return metier_aligned(size);
}

bool Ring::send_body(std::string_view body) {
  const Fd fd(::memfd_create("metier-body", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd) { return false; }
  for (std::size_t done = 0; done < body.size();) {
    const ssize_t n = ::write(fd.get(), body.data() + done, body.size() - done);
    if (n < 0 && errno == EINTR) { continue; }
    if (n <= 0) { return false; }
    done += static_cast<std::size_t>(n);
  }
  ::fcntl(fd.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL);
  char byte = 'b';
  iovec part{&byte, 1};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> room{};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = room.data();
  message.msg_controllen = room.size();
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof(int));
  const int number = fd.get();
  std::memcpy(CMSG_DATA(header), &number, sizeof number);
  return ::sendmsg(socket_.get(), &message, MSG_NOSIGNAL | MSG_DONTWAIT) == 1;
}

Pushed Ring::push_event(const Event& event, EventId id, std::size_t inline_limit) {
  const std::size_t size = record_bytes(event, inline_limit);
  if (size > METIER_RING_BYTES) { return Pushed::too_large; }
  if (!has_room(size)) { return Pushed::full; }
  const bool in_memfd = event.body.size() > inline_limit;
  if (in_memfd && !send_body(event.body)) { return Pushed::full; }
  char* const start = in_at(in_head_);
  metier_event_record record{};
  char* at = start + sizeof record;
  const auto put = [&](int part, std::string_view bytes) {
    record.length[part] = static_cast<std::uint32_t>(bytes.size());
    if (!bytes.empty()) { std::memcpy(at, bytes.data(), bytes.size()); }
    at += bytes.size();
  };
  put(METIER_PART_UID, event.uid);
  put(METIER_PART_TRIGGER_KIND, event.trigger_kind);
  put(METIER_PART_TRIGGER_NAME, event.trigger_name);
  put(METIER_PART_METHOD, event.method);
  put(METIER_PART_PATH, event.path);
  put(METIER_PART_QUERY, event.query);
  put(METIER_PART_CONTENT_TYPE, event.content_type);
  put(METIER_PART_TOPIC, event.topic);
  put(METIER_PART_KEY, event.key);
  put(METIER_PART_TYPE, event.type);
  put(METIER_PART_TYPE_VERSION, event.type_version);
  put(METIER_PART_VERSION, event.version);
  char* const headers = at;
  for (const HeaderView& header : event.headers) {
    const std::array<std::uint32_t, 2> lengths{static_cast<std::uint32_t>(header.name.size()),
                                               static_cast<std::uint32_t>(header.value.size())};
    std::memcpy(at, lengths.data(), 8);
    std::memcpy(at + 8, header.name.data(), header.name.size());
    if (!header.value.empty()) {
      std::memcpy(at + 8 + header.name.size(), header.value.data(), header.value.size());
    }
    at += 8 + header.name.size() + header.value.size();
  }
  record.length[METIER_PART_HEADERS] = static_cast<std::uint32_t>(at - headers);
  put(METIER_PART_BODY, in_memfd ? std::string_view() : event.body);
  record.record.size = static_cast<std::uint32_t>(at - start);
  record.record.type = METIER_EVENT;
  record.record.flags =
      static_cast<std::uint16_t>((in_memfd ? METIER_EVENT_BODY_FD : 0) |
                                 (event.header_values_are_bytes ? METIER_EVENT_BYTES_HEADERS : 0) |
                                 (event.last_in_batch ? METIER_EVENT_LAST_IN_BATCH : 0) |
                                 (event.wants_logs ? METIER_EVENT_LOGS : 0));
  record.record.slot = id.slot;
  record.record.generation = id.generation;
  record.timestamp_us = event.timestamp_us;
  record.offset = event.offset;
  record.body_size = event.body.size();
  record.shard = event.shard;
  record.num_shards = event.num_shards;
  record.log_level = event.log_level;
  std::memcpy(start, &record, sizeof record);
  in_head_ += metier_aligned(record.record.size);
  return Pushed::yes;
}

Pushed Ring::push(int type, std::uint32_t slot, std::uint32_t generation) {
  if (!has_room(sizeof(metier_record))) { return Pushed::full; }
  const metier_record record{sizeof(metier_record), static_cast<std::uint16_t>(type), 0, slot,
                             generation};
  std::memcpy(in_at(in_head_), &record, sizeof record);
  in_head_ += metier_aligned(sizeof record);
  return Pushed::yes;
}

bool Ring::flush() {
  if (published_ == in_head_) { return false; }
  published_ = in_head_;
  store(&control_->in_head, in_head_);
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
  const std::uint32_t how = __atomic_load_n(&control_->in_sleeping, __ATOMIC_RELAXED);
  if (how == METIER_AWAKE) { return true; }
  if (how == METIER_SLEEPS_FUTEX) {
    if (__atomic_exchange_n(&control_->in_sleeping, METIER_AWAKE, __ATOMIC_SEQ_CST) !=
        METIER_AWAKE) {
      futex_wake(&control_->in_sleeping);
    }
    return true;
  }
  if (how == METIER_SLEEPS_EVENTFD) { store<std::uint32_t>(&control_->in_sleeping, METIER_AWAKE); }
  const std::uint64_t one = 1;
  [[maybe_unused]] const auto written = ::write(in_eventfd_.get(), &one, sizeof one);
  return true;
}

void Ring::set_claim(EventId id, std::uint32_t state) {
  store(&slots_[id.slot].credit, std::uint64_t{0});
  store(&slots_[id.slot].claim, std::uint64_t{id.generation} << 32U | state);
}

bool Ring::can_revoke() const {
  return __atomic_load_n(&control_->no_claims, __ATOMIC_RELAXED) == 0;
}

bool Ring::revoke(EventId id) {
  if (!can_revoke()) { return false; }
  std::uint64_t expected = std::uint64_t{id.generation} << 32U | METIER_CLAIM_QUEUED;
  return __atomic_compare_exchange_n(&slots_[id.slot].claim, &expected,
                                     std::uint64_t{id.generation} << 32U | METIER_CLAIM_REVOKED,
                                     false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}

bool Ring::has_started(EventId id) const {
  return load(&slots_[id.slot].claim) !=
         (std::uint64_t{id.generation} << 32U | METIER_CLAIM_QUEUED);
}

void Ring::add_credit(std::uint32_t slot, std::uint64_t bytes) {
  store(&slots_[slot].credit, load(&slots_[slot].credit) + bytes);
}

Read Ring::corrupt(std::string_view why) {
  why_ = why;
  return Read::corrupt;
}

bool Ring::read_head(Incoming& out, const char* at, std::uint32_t size, int type) {
  metier_head head;
  if (size < sizeof head) { return false; }
  std::memcpy(&head, at, sizeof head);
  const std::uint64_t parts = std::uint64_t{head.content_type} + head.headers + head.body;
  if (parts != size - sizeof head || head.content_type > 4096 || head.headers > 65536) {
    return false;
  }
  if (head.status < 100 || head.status > 599) { return false; }
  if (type == METIER_RESPONSE
          ? head.length != head.body
          : head.body != 0 || head.length < -1 || head.length > (std::int64_t{1} << 40)) {
    return false;
  }
  copy_.assign(at + sizeof head, at + sizeof head + head.content_type + head.headers);
  out.content_type = std::string_view(copy_.data(), head.content_type);
  headers_.clear();
  std::string_view rest(copy_.data() + head.content_type, head.headers);
  while (!rest.empty()) {
    std::array<std::uint32_t, 2> lengths{};
    if (rest.size() < 8) { return false; }
    std::memcpy(lengths.data(), rest.data(), 8);
    if (std::uint64_t{lengths[0]} + lengths[1] > rest.size() - 8) { return false; }
    const HeaderView header{rest.substr(8, lengths[0]), rest.substr(8 + lengths[0], lengths[1])};
    if (!valid_header(header.name, header.value)) { return false; }
    headers_.push_back(header);
    rest.remove_prefix(8 + std::size_t{lengths[0]} + lengths[1]);
  }
  if (!out.content_type.empty() && !valid_header("Content-Type", out.content_type)) {
    return false;
  }
  out.headers = headers_;
  out.status = static_cast<int>(head.status);
  out.length = head.length;
  out.handler_ns = std::max<std::int64_t>(0, head.handler_ns);
  out.bytes = std::string_view(at + sizeof head + head.content_type + head.headers, head.body);
  return true;
}

Read Ring::next(Incoming& out) {
  if (out_tail_ == out_head_) {
    const std::uint64_t head = load(&control_->out_head);
    if (head == out_tail_) { return Read::nothing; }
    if (head - out_tail_ > METIER_RING_BYTES || (head & 15U) != 0) {
      return corrupt("the index of its answers is impossible");
    }
    out_head_ = head;
  }
  const char* const at = out_ + (out_tail_ & (METIER_RING_BYTES - 1));
  metier_record record;
  std::memcpy(&record, at, sizeof record);
  if (record.size < sizeof record || metier_aligned(record.size) > out_head_ - out_tail_) {
    return corrupt("a record's length is impossible");
  }
  pending_size_ = record.size;
  out.type = record.type;
  out.flags = record.flags;
  out.id = {record.slot, record.generation};
  const std::string_view payload(at + sizeof record, record.size - sizeof record);
  switch (record.type) {
    case METIER_READY:
    case METIER_DRAINED:
    case METIER_TERMINATED: return Read::record;
    case METIER_INIT_FAILED:
    case METIER_CHUNK:
    case METIER_ERROR:
    case METIER_LOG:
      if (payload.size() > METIER_RING_INLINE) {
        return corrupt("a record is larger than it may be");
      }
      out.bytes = payload;
      return Read::record;
    case METIER_RESPONSE:
    case METIER_HEAD:
      if (!read_head(out, at, record.size, record.type)) {
        return corrupt("an answer's head is impossible");
      }
      return Read::record;
    case METIER_END: {
      metier_end end;
      if (record.size != sizeof end) { return corrupt("an answer's end is impossible"); }
      std::memcpy(&end, at, sizeof end);
      out.handler_ns = std::max<std::int64_t>(0, end.handler_ns);
      return Read::record;
    }
    case METIER_ACK: {
      metier_ack ack;
      if (record.size < sizeof ack) { return corrupt("an acknowledgement is impossible"); }
      std::memcpy(&ack, at, sizeof ack);
      if (ack.topic != record.size - sizeof ack || ack.topic > 1024) {
        return corrupt("an acknowledgement is impossible");
      }
      copy_.assign(at + sizeof ack, at + sizeof ack + ack.topic);
      out.bytes = std::string_view(copy_.data(), copy_.size());
      out.partition = ack.partition;
      out.offset = ack.offset;
      return Read::record;
    }
    default: return corrupt("a record's type is unknown");
  }
}

void Ring::release() {
  out_tail_ += metier_aligned(pending_size_);
  pending_size_ = 0;
  store(&control_->out_tail, out_tail_);
}

void Ring::wake_writer() {
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
  if (__atomic_load_n(&control_->out_wanted, __ATOMIC_RELAXED) != 0 &&
      __atomic_exchange_n(&control_->out_wanted, 0, __ATOMIC_SEQ_CST) != 0) {
    futex_wake(&control_->out_wanted);
  }
}

bool Ring::fall_asleep() {
  if (asleep_ && __atomic_load_n(&control_->out_sleeping, __ATOMIC_RELAXED) != 0) { return true; }
  asleep_ = true;
  __atomic_store_n(&control_->out_sleeping, 1, __ATOMIC_RELAXED);
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
  if (out_tail_ == load(&control_->out_head)) { return true; }
  awake();
  return false;
}

void Ring::awake() {
  asleep_ = false;
  __atomic_store_n(&control_->out_sleeping, 0, __ATOMIC_RELAXED);
}

}  // namespace metier::realtime
