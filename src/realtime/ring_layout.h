// The shared memory between a processor and one Python worker: a sealed memfd of one control area and two byte rings (docs/formats/ring.md).
// Plain C: the worker's extension includes it too. All numbers are the machine's own; everything is read with the double-fetch rule.
#pragma once

#include <stdint.h>

enum {
  METIER_RING_MAGIC = 0x4d52494e,
  METIER_RING_VERSION = 1,
  METIER_RING_BYTES = 256 * 1024,   // each ring; a power of two
  METIER_RING_CONTROL = 64 * 1024,  // control area, before the rings
  METIER_RING_SLOTS = 1024,         // events that one worker may hold
  METIER_RING_INLINE =
      64 * 1024,  // a larger body of an event travels as a memfd; a larger answer in pieces
  METIER_RING_WINDOW = 256 * 1024,  // bytes of one streamed answer that may be under way
  METIER_SEGMENT_BYTES = METIER_RING_CONTROL + 2 * METIER_RING_BYTES,
};

// Whether a side sleeps, and how it is woken.
enum {
  METIER_AWAKE = 0,
  METIER_SLEEPS_FUTEX = 1,
  METIER_SLEEPS_EVENTFD = 2,
  METIER_ALWAYS_EVENTFD = 3
};

// What a slot of the claim table says: generation << 32 | one of these.
enum {
  METIER_CLAIM_FREE = 0,
  METIER_CLAIM_QUEUED = 1,
  METIER_CLAIM_STARTED = 2,
  METIER_CLAIM_REVOKED = 3
};

struct metier_ring_control {
  uint32_t magic, version, ring_bytes, slots;
  uint32_t
      no_claims;  // written by the worker: it cannot compare-and-swap; nothing is revoked from it
  uint8_t pad0[64 - 20];
  // To the worker: events.
  uint64_t in_head;  // written by the processor
  uint8_t pad1[64 - 8];
  uint64_t in_tail;  // written by the worker
  uint8_t pad2[64 - 8];
  uint32_t in_sleeping;  // METIER_SLEEPS_*: set by the worker, cleared by who wakes it
  uint8_t pad3[64 - 4];
  // From the worker: answers.
  uint64_t out_head;  // written by the worker
  uint8_t pad4[64 - 8];
  uint64_t out_tail;  // written by the processor
  uint8_t pad5[64 - 8];
  uint32_t out_sleeping;  // set by the processor; the worker writes its eventfd then
  uint8_t pad6[64 - 4];
  uint32_t
      out_wanted;  // set by the worker while it waits for room or credit; the processor wakes it then
  uint8_t pad7[64 - 4];
};

// Behind the control block, at METIER_RING_SLOTS_AT: the claim table.
enum { METIER_RING_SLOTS_AT = 4096 };
struct metier_ring_slot {
  uint64_t claim;  // compare-and-swap by both
  uint64_t
      credit;  // bytes of this slot's streamed answer that have left, mod 2^64; written by the processor
};

enum metier_record_type {
  // to the worker
  METIER_EVENT = 1,
  METIER_BATCH = 2,   // `slot` = count of EVENT records that follow and belong together
  METIER_CANCEL = 3,  // slot, generation of an event that has started
  METIER_DRAIN = 4,
  METIER_TERMINATE = 5,  // run the termination callback, then end
  METIER_CONTINUE = 6,
  METIER_STOP = 7,  // end when idle
  // from the worker
  METIER_READY = 16,
  METIER_INIT_FAILED = 17,  // bytes: the sentence
  METIER_RESPONSE = 18,     // a whole answer: metier_head, its bytes, then the body
  METIER_HEAD = 19,
  METIER_CHUNK = 20,
  METIER_END = 21,    // metier_end
  METIER_ERROR = 22,  // bytes: a streamed answer broke off
  METIER_ACK = 23,    // metier_ack, topic
  METIER_LOG = 24,    // bytes: one JSON record of an event that wants logs
  METIER_DRAINED = 25,
  METIER_TERMINATED = 26,
};

// Records begin at multiples of 16; `size` counts from the record's first byte.
struct metier_record {
  uint32_t size;
  uint16_t type;
  uint16_t flags;
  uint32_t slot;
  uint32_t generation;
};

enum {  // flags of EVENT
  METIER_EVENT_BODY_FD = 1,
  METIER_EVENT_BYTES_HEADERS = 2,
  METIER_EVENT_LAST_IN_BATCH = 4,
  METIER_EVENT_LOGS = 8,
};

enum {  // parts of an EVENT, in this order, each `length[i]` bytes; the headers are (u32 name, u32 value, bytes)…
  METIER_PART_UID,
  METIER_PART_TRIGGER_KIND,
  METIER_PART_TRIGGER_NAME,
  METIER_PART_METHOD,
  METIER_PART_PATH,
  METIER_PART_QUERY,
  METIER_PART_CONTENT_TYPE,
  METIER_PART_TOPIC,
  METIER_PART_KEY,
  METIER_PART_TYPE,
  METIER_PART_TYPE_VERSION,
  METIER_PART_VERSION,
  METIER_PART_HEADERS,
  METIER_PART_BODY,  // with BODY_FD: 0 bytes, `body_size` says how many the memfd has
  METIER_PARTS,
};

struct metier_event_record {
  struct metier_record record;
  int64_t timestamp_us;
  int64_t offset;
  uint64_t body_size;
  int32_t shard;
  int32_t num_shards;
  uint32_t log_level;
  uint32_t length[METIER_PARTS];
  uint32_t pad;
};

enum {  // flags of RESPONSE and HEAD
  METIER_RESPONSE_RAISED = 1,
  METIER_RESPONSE_NO_ACK = 2,
  METIER_RESPONSE_STREAM = 4,  // HEAD: of unknown length, the credit window applies
};

struct metier_head {
  struct metier_record record;
  int64_t length;  // of the body; -1 unknown (HEAD)
  int64_t handler_ns;
  uint32_t status;
  uint32_t content_type;  // bytes
  uint32_t headers;       // bytes: (u32 name, u32 value, bytes)…
  uint32_t body;          // bytes; RESPONSE only
};

struct metier_end {
  struct metier_record record;
  int64_t handler_ns;
  int64_t reserved;
};

struct metier_ack {
  struct metier_record record;
  int64_t offset;
  int32_t partition;
  uint32_t topic;  // bytes
};

static inline uint64_t metier_aligned(uint64_t size) { return (size + 15) & ~(uint64_t)15; }
