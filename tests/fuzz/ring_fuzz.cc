// The processor's end of the ring against any contents of its segment: what a worker that scribbles over it may leave there.
// Input: 8 bytes the index of the answers, 8 the index of the events read, 8 two slots' claims, the rest is laid into the ring
// of answers. No reading outside the segment, no answer outside its record, an end.
#include <sys/mman.h>

#include <algorithm>
#include <cstring>

#include "fuzz.h"
#include "realtime/ring.h"

using namespace metier;
using namespace metier::realtime;

namespace {

struct Segment {
  explicit Segment(const Ring& ring)
      : base(static_cast<char*>(::mmap(nullptr, METIER_SEGMENT_BYTES, PROT_READ | PROT_WRITE,
                                       MAP_SHARED, ring.segment(), 0))) {}
  ~Segment() { ::munmap(base, METIER_SEGMENT_BYTES); }
  Segment(const Segment&) = delete;
  Segment& operator=(const Segment&) = delete;
  char* base;
};

std::uint64_t number(std::string_view& rest) {
  std::uint64_t out = 0;
  const std::size_t size = std::min<std::size_t>(rest.size(), sizeof out);
  std::memcpy(&out, rest.data(), size);
  rest.remove_prefix(size);
  return out;
}

// Every byte that is handed on is read once: the sanitizer says when one lies outside.
std::size_t touch(std::string_view bytes) {
  std::size_t sum = 0;
  for (const char c : bytes) { sum += static_cast<unsigned char>(c); }
  return sum;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  auto made = Ring::create();
  fuzz::require(made.has_value(), "a ring can be made");
  Ring& ring = **made;
  const Segment segment(ring);
  auto& control = *reinterpret_cast<metier_ring_control*>(segment.base);
  auto* slots = reinterpret_cast<metier_ring_slot*>(segment.base + METIER_RING_SLOTS_AT);
  std::string_view rest = fuzz::text_of(data, size);
  const std::uint64_t head = number(rest);
  const std::uint64_t tail = number(rest);
  const std::uint64_t claims = number(rest);

  Event event;
  event.method = "POST";
  event.path = "/p";
  event.body = rest.substr(0, 512);
  for (std::uint32_t slot = 0; slot < 2; ++slot) {
    ring.set_claim({slot, 1}, METIER_CLAIM_QUEUED);
    fuzz::require(ring.push_event(event, {slot, 1}, METIER_RING_INLINE) == Pushed::yes,
                  "an empty ring has room");
  }
  ring.flush();

  control.in_tail = tail;
  slots[0].claim = claims;
  slots[1].claim = claims >> 32U;
  char* const answers = segment.base + METIER_RING_CONTROL + METIER_RING_BYTES;
  std::memcpy(answers, rest.data(), std::min<std::size_t>(rest.size(), METIER_RING_BYTES));
  control.out_head = head;

  // However its indices lie, events are pushed or refused, and no more than fit.
  std::size_t pushed = 0;
  while (pushed < 2 * METIER_RING_BYTES / 128 &&
         ring.push_event(event, {2, static_cast<std::uint32_t>(pushed)}, METIER_RING_INLINE) ==
             Pushed::yes) {
    ++pushed;
  }
  fuzz::require(pushed * 128 <= 2 * METIER_RING_BYTES, "no more events than the ring has room for");

  Incoming incoming;
  std::size_t read = 0;
  std::size_t seen = 0;
  while (true) {
    const Read got = ring.next(incoming);
    if (got != Read::record) {
      fuzz::require(got == Read::nothing || !ring.why_corrupt().empty(), "corrupt says why");
      break;
    }
    seen += touch(incoming.bytes);
    if (incoming.type == METIER_RESPONSE || incoming.type == METIER_HEAD) {
      fuzz::require(incoming.status >= 100 && incoming.status <= 599, "a status that HTTP has");
      seen += touch(incoming.content_type);
      for (const HeaderView& header : incoming.headers) {
        fuzz::require(valid_header(header.name, header.value), "a header that HTTP allows");
      }
      fuzz::require(incoming.type == METIER_HEAD ||
                        incoming.length == static_cast<std::int64_t>(incoming.bytes.size()),
                    "an answer is as long as it says");
    }
    ring.release();
    fuzz::require(++read <= METIER_RING_BYTES / sizeof(metier_record), "records have an end");
  }
  static_cast<void>(ring.revoke({0, 1}));
  static_cast<void>(ring.has_started({1, 1}));
  static_cast<void>(seen);
  return 0;
}
