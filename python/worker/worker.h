/* Inside of module `_ring`, for its sources: the Event's C part and the worker's end of the ring. */
#pragma once

#define Py_LIMITED_API 0x03090000
#define PY_SSIZE_T_CLEAN
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <Python.h>
#include <structmember.h>

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "realtime/ring_layout.h"

#define LOAD(p) __atomic_load_n(p, __ATOMIC_ACQUIRE)
#define STORE(p, v) __atomic_store_n(p, v, __ATOMIC_RELEASE)
#define RELAXED(p) __atomic_load_n(p, __ATOMIC_RELAXED)

/* ---- event.c ---- */

enum {
  A_BODY,
  A_CONTENT_TYPE,
  A_TRIGGER,
  A_FIELDS,
  A_HEADERS,
  A_ID,
  A_METHOD,
  A_PATH,
  A_SIZE,
  A_TIMESTAMP,
  A_URL,
  A_SHARD_ID,
  A_NUM_SHARDS,
  A_TYPE,
  A_TYPE_VERSION,
  A_VERSION,
  A_LAST_IN_BATCH,
  A_OFFSET,
  A_TOPIC,
  A_KEY,
  A_COUNT
};

/* Helpers written in Python, set once by `configure`. */
struct helpers {
  PyObject* parse_body;     /* (bytes, content_type) -> object */
  PyObject* parse_query;    /* bytes -> dict */
  PyObject* trigger;        /* (kind, name) -> TriggerInfo */
  PyObject* timestamp;      /* microseconds -> datetime */
  PyObject* new_id;         /* () -> str */
  PyObject* cloud_event;    /* (event) sets what a structured CloudEvent's envelope says */
  PyTypeObject* event_type; /* the class with EventBase and nuclio_sdk.Event as bases */
};
extern struct helpers helpers;

typedef struct {
  PyObject_HEAD const struct metier_event_record*
      record; /* in the ring, or `owned`; NULL for an event made by hand */
  void* owned;
  PyObject* body; /* bytes of a large body */
  PyObject* cache[A_COUNT];
} EventBase;

extern PyTypeObject* event_base_type;
PyTypeObject* event_type_new(void);
const char* part_of(const struct metier_event_record* record, int part, Py_ssize_t* size);
/* Takes the event's bytes out of the ring: it outlives its record. */
int detach(EventBase* self);

/* ---- ring.c ---- */

typedef struct {
  PyObject_HEAD struct metier_ring_control* control;
  struct metier_ring_slot* slots;
  const char* in; /* each ring is mapped twice, back to back */
  char* out;
  uint64_t in_tail, in_head; /* ours; cached */
  uint64_t out_head, out_tail;
  int out_eventfd, in_eventfd, socket;
  int dying; /* the event timeout's signal came */
} Ring;

static inline bool in_ready(Ring* self) {
  if (self->in_tail != self->in_head) { return true; }
  self->in_head = LOAD(&self->control->in_head);
  return self->in_tail != self->in_head;
}

static inline const struct metier_record* peek(Ring* self) {
  if (!in_ready(self)) { return NULL; }
  return (const struct metier_record*)(self->in + (self->in_tail & (METIER_RING_BYTES - 1)));
}

static inline void consume(Ring* self, uint32_t size) {
  self->in_tail += metier_aligned(size);
  STORE(&self->control->in_tail, self->in_tail);
}

/* True when the processor has gone: its end of the socket is closed. */
bool orphaned(Ring* self);
void futex_wait(uint32_t* word, uint32_t value, long ms);
/* Room for `size` bytes in the out ring; waits while the processor reads. NULL with an exception when the processor has gone. */
char* reserve(Ring* self, uint64_t size);
void publish(Ring* self, uint64_t size);
int send_record(Ring* self, int type, int flags, uint32_t slot, uint32_t generation,
                const void* bytes, size_t size);
/* The answer of known length: one record when it fits, else a head and pieces. */
int send_response(Ring* self, uint32_t slot, uint32_t generation, int flags, uint32_t status,
                  const char* type, size_t type_size, const char* headers, size_t headers_size,
                  const char* body, size_t body_size, int64_t handler_ns);
bool claim(Ring* self, uint32_t slot, uint32_t generation);
/* A new Event over the record at hand. */
EventBase* new_event(Ring* self, const struct metier_event_record* record);
int skip_body(Ring* self, const struct metier_event_record* record);
/* Declares that this side sleeps; false when there is something to read after all. */
bool fall_asleep(Ring* self, uint32_t how);

/* ---- serve.c ---- */

/* (status, content_type bytes, headers bytes, body bytes, flags) as `encode` and `failed` give it; None: it has sent the answer itself. */
int send_encoded(Ring* self, uint32_t slot, uint32_t generation, PyObject* encoded,
                 int64_t handler_ns);
/* serve(host, loop_has_work) -> "pending" | "drain" | "terminate" | "stop" | "continue" | "gone". `loop_has_work`: a list of one
 * number, tasks that wait in the event loop: with some the wait is Python's. */
PyObject* ring_serve(PyObject* object, PyObject* args);
