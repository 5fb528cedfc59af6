/* The worker's end of the ring (src/realtime/ring_layout.h, docs/formats/ring.md): module `_ring` against CPython's stable ABI 3.9.
 *
 *   ring = Ring(segment_fd, out_eventfd, in_eventfd, socket_fd)
 *   ring.serve(host)    the loop of a sync worker; gives a reason when Python has to look
 *   ring.next(host)     one message without waiting, for a worker that waits in an event loop
 *   ring.respond(...) ring.head(...) ring.chunk(...) ring.end(...) ring.message(...) ring.ack(...)
 *   EventBase           the C part of Event: attributes are decoded when they are first read
 */
#define Py_LIMITED_API 0x03090000
#define PY_SSIZE_T_CLEAN
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <Python.h>
#include <structmember.h>

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <poll.h>
#include <sched.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "realtime/ring_layout.h"

#define LOAD(p) __atomic_load_n(p, __ATOMIC_ACQUIRE)
#define STORE(p, v) __atomic_store_n(p, v, __ATOMIC_RELEASE)
#define RELAXED(p) __atomic_load_n(p, __ATOMIC_RELAXED)

static int64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* ---- Event ------------------------------------------------------------------------------------------------------------------ */

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
static const char* const kAttributes[A_COUNT] = {
    "body",         "content_type", "trigger",       "fields", "headers",  "id",         "method",
    "path",         "size",         "timestamp",     "url",    "shard_id", "num_shards", "type",
    "type_version", "version",      "last_in_batch", "offset", "topic",    "key"};

/* Helpers written in Python, set once by `configure`. */
static struct {
  PyObject* parse_body;     /* (bytes, content_type) -> object */
  PyObject* parse_query;    /* bytes -> dict */
  PyObject* trigger;        /* (kind, name) -> TriggerInfo */
  PyObject* timestamp;      /* microseconds -> datetime */
  PyObject* new_id;         /* () -> str */
  PyObject* cloud_event;    /* (event) sets what a structured CloudEvent's envelope says */
  PyTypeObject* event_type; /* the class with EventBase and nuclio_sdk.Event as bases */
} helpers;

typedef struct {
  PyObject_HEAD const struct metier_event_record*
      record; /* in the ring, or `owned`; NULL for an event made by hand */
  void* owned;
  PyObject* body; /* bytes of a large body */
  PyObject* cache[A_COUNT];
} EventBase;

static const char* part_of(const struct metier_event_record* record, int part, Py_ssize_t* size) {
  const char* at = (const char*)(record + 1);
  for (int i = 0; i < part; ++i) { at += record->length[i]; }
  *size = (Py_ssize_t)record->length[part];
  return at;
}

/* UTF-8 when it is, else Latin-1: a header's bytes never make an event unreadable. */
static PyObject* text_of(const char* bytes, Py_ssize_t size) {
  PyObject* text = PyUnicode_DecodeUTF8(bytes, size, NULL);
  if (text == NULL && PyErr_ExceptionMatches(PyExc_UnicodeDecodeError)) {
    PyErr_Clear();
    text = PyUnicode_DecodeLatin1(bytes, size, NULL);
  }
  return text;
}

static PyObject* text_part(const struct metier_event_record* record, int part) {
  Py_ssize_t size = 0;
  const char* bytes = part_of(record, part, &size);
  return text_of(bytes, size);
}

/* `x-my-header` is seen as `X-My-Header`. */
static PyObject* header_name(const char* bytes, uint32_t size, bool canonical) {
  char name[256];
  if (!canonical || size > sizeof name) { return text_of(bytes, size); }
  bool first = true;
  for (uint32_t i = 0; i < size; ++i) {
    char c = bytes[i];
    if (first && c >= 'a' && c <= 'z') { c = (char)(c - 32); }
    if (!first && c >= 'A' && c <= 'Z') { c = (char)(c + 32); }
    first = c == '-';
    name[i] = c;
  }
  return text_of(name, size);
}

static PyObject* headers_of(const struct metier_event_record* record) {
  PyObject* headers = PyDict_New();
  if (headers == NULL) { return NULL; }
  Py_ssize_t left = 0;
  const char* at = part_of(record, METIER_PART_HEADERS, &left);
  const bool raw = (record->record.flags & METIER_EVENT_BYTES_HEADERS) != 0;
  while (left >= 8) {
    uint32_t lengths[2];
    memcpy(lengths, at, 8);
    if ((uint64_t)lengths[0] + lengths[1] > (uint64_t)left - 8) { break; }
    PyObject* name = header_name(at + 8, lengths[0], !raw);
    const char* bytes = at + 8 + lengths[0];
    PyObject* value =
        raw ? PyBytes_FromStringAndSize(bytes, lengths[1]) : text_of(bytes, lengths[1]);
    const int failed = name == NULL || value == NULL || PyDict_SetItem(headers, name, value) != 0;
    Py_XDECREF(name);
    Py_XDECREF(value);
    if (failed) {
      Py_DECREF(headers);
      return NULL;
    }
    at += 8 + lengths[0] + lengths[1];
    left -= 8 + (Py_ssize_t)lengths[0] + lengths[1];
  }
  return headers;
}

static PyObject* body_of(EventBase* self) {
  const struct metier_event_record* record = self->record;
  PyObject* bytes = self->body;
  if (bytes != NULL) {
    Py_INCREF(bytes);
  } else {
    Py_ssize_t size = 0;
    const char* at = part_of(record, METIER_PART_BODY, &size);
    bytes = PyBytes_FromStringAndSize(at, size);
    if (bytes == NULL) { return NULL; }
  }
  Py_ssize_t size = 0;
  const char* type = part_of(record, METIER_PART_CONTENT_TYPE, &size);
  if (size == 16 && memcmp(type, "application/json", 16) == 0) {
    PyObject* parsed = PyObject_CallFunctionObjArgs(helpers.parse_body, bytes, NULL);
    Py_DECREF(bytes);
    return parsed;
  }
  return bytes;
}

static PyObject* decode(EventBase* self, int which) {
  const struct metier_event_record* r = self->record;
  if (r == NULL) { /* made by hand: nothing was set */
    Py_RETURN_NONE;
  }
  switch (which) {
    case A_BODY: return body_of(self);
    case A_CONTENT_TYPE: return text_part(r, METIER_PART_CONTENT_TYPE);
    case A_TRIGGER: {
      PyObject* kind = text_part(r, METIER_PART_TRIGGER_KIND);
      PyObject* name = text_part(r, METIER_PART_TRIGGER_NAME);
      PyObject* result = kind != NULL && name != NULL
                             ? PyObject_CallFunctionObjArgs(helpers.trigger, kind, name, NULL)
                             : NULL;
      Py_XDECREF(kind);
      Py_XDECREF(name);
      return result;
    }
    case A_FIELDS: {
      Py_ssize_t size = 0;
      const char* query = part_of(r, METIER_PART_QUERY, &size);
      if (size == 0) { return PyDict_New(); }
      PyObject* bytes = PyBytes_FromStringAndSize(query, size);
      if (bytes == NULL) { return NULL; }
      PyObject* fields = PyObject_CallFunctionObjArgs(helpers.parse_query, bytes, NULL);
      Py_DECREF(bytes);
      return fields;
    }
    case A_HEADERS: return headers_of(r);
    case A_ID:
      return r->length[METIER_PART_UID] != 0 ? text_part(r, METIER_PART_UID)
                                             : PyObject_CallFunctionObjArgs(helpers.new_id, NULL);
    case A_METHOD: return text_part(r, METIER_PART_METHOD);
    case A_PATH: return text_part(r, METIER_PART_PATH);
    case A_SIZE: return PyLong_FromUnsignedLongLong(r->body_size);
    case A_TIMESTAMP: {
      PyObject* us = PyLong_FromLongLong(r->timestamp_us);
      if (us == NULL) { return NULL; }
      PyObject* time = PyObject_CallFunctionObjArgs(helpers.timestamp, us, NULL);
      Py_DECREF(us);
      return time;
    }
    case A_URL: return PyUnicode_FromStringAndSize("", 0);
    case A_SHARD_ID: return PyLong_FromLong(r->shard);
    case A_NUM_SHARDS: return PyLong_FromLong(r->num_shards);
    case A_TYPE: return text_part(r, METIER_PART_TYPE);
    case A_TYPE_VERSION: return text_part(r, METIER_PART_TYPE_VERSION);
    case A_VERSION: return text_part(r, METIER_PART_VERSION);
    case A_LAST_IN_BATCH:
      return PyBool_FromLong((r->record.flags & METIER_EVENT_LAST_IN_BATCH) != 0);
    case A_OFFSET: return PyLong_FromLongLong(r->offset);
    case A_TOPIC: return text_part(r, METIER_PART_TOPIC);
    case A_KEY: {
      Py_ssize_t size = 0;
      const char* key = part_of(r, METIER_PART_KEY, &size);
      return PyBytes_FromStringAndSize(key, size);
    }
    default: Py_RETURN_NONE;
  }
}

static PyObject* event_get(PyObject* object, void* closure) {
  EventBase* self = (EventBase*)object;
  const int which = (int)(intptr_t)closure;
  if (self->cache[which] == NULL) {
    PyObject* value = decode(self, which);
    if (value == NULL) { return NULL; }
    if (self->cache[which] == NULL) {
      self->cache[which] = value;
    } else {
      Py_DECREF(value);
    }
  }
  Py_INCREF(self->cache[which]);
  return self->cache[which];
}

static int event_set(PyObject* object, PyObject* value, void* closure) {
  EventBase* self = (EventBase*)object;
  PyObject* old = self->cache[(intptr_t)closure];
  if (value == NULL) { value = Py_None; }
  Py_INCREF(value);
  self->cache[(intptr_t)closure] = value;
  Py_XDECREF(old);
  return 0;
}

/* Takes the event's bytes out of the ring: it outlives its record. */
static int detach(EventBase* self) {
  if (self->record == NULL || self->owned != NULL) { return 0; }
  const size_t size = self->record->record.size;
  self->owned = PyMem_Malloc(size);
  if (self->owned == NULL) {
    PyErr_NoMemory();
    return -1;
  }
  memcpy(self->owned, self->record, size);
  self->record = self->owned;
  return 0;
}

static int event_traverse(PyObject* object, visitproc visit, void* arg) {
  EventBase* self = (EventBase*)object;
  for (int i = 0; i < A_COUNT; ++i) { Py_VISIT(self->cache[i]); }
#if PY_VERSION_HEX >= 0x03090000
  Py_VISIT(Py_TYPE(object));
#endif
  return 0;
}

static int event_clear(PyObject* object) {
  EventBase* self = (EventBase*)object;
  for (int i = 0; i < A_COUNT; ++i) { Py_CLEAR(self->cache[i]); }
  return 0;
}

static void event_dealloc(PyObject* object) {
  EventBase* self = (EventBase*)object;
  PyTypeObject* type = Py_TYPE(object);
  PyObject_GC_UnTrack(object);
  event_clear(object);
  Py_CLEAR(self->body);
  PyMem_Free(self->owned);
  freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
  release(object);
  Py_DECREF(type);
}

static PyGetSetDef event_getset[A_COUNT + 1]; /* filled at import */
static PyType_Slot event_slots[] = {
    {Py_tp_doc, "The C part of Event: attributes are decoded when they are first read."},
    {Py_tp_dealloc, (void*)event_dealloc},
    {Py_tp_traverse, (void*)event_traverse},
    {Py_tp_clear, (void*)event_clear},
    {Py_tp_getset, event_getset},
    {0, NULL},
};
static PyType_Spec event_spec = {"metier_worker._ring.EventBase", sizeof(EventBase), 0,
                                 Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
                                 event_slots};
static PyTypeObject* event_base_type;

/* ---- Ring ------------------------------------------------------------------------------------------------------------------- */

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

static bool in_ready(Ring* self) {
  if (self->in_tail != self->in_head) { return true; }
  self->in_head = LOAD(&self->control->in_head);
  return self->in_tail != self->in_head;
}

static const struct metier_record* peek(Ring* self) {
  if (!in_ready(self)) { return NULL; }
  return (const struct metier_record*)(self->in + (self->in_tail & (METIER_RING_BYTES - 1)));
}

static void consume(Ring* self, uint32_t size) {
  self->in_tail += metier_aligned(size);
  STORE(&self->control->in_tail, self->in_tail);
}

/* True when the processor has gone: its end of the socket is closed. */
static bool orphaned(Ring* self) {
  struct pollfd p = {self->socket, POLLRDHUP, 0};
  return poll(&p, 1, 0) > 0 && (p.revents & (POLLHUP | POLLRDHUP | POLLERR)) != 0;
}

static void notify(Ring* self) {
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
  if (RELAXED(&self->control->out_sleeping) != 0 &&
      __atomic_exchange_n(&self->control->out_sleeping, 0, __ATOMIC_SEQ_CST) != 0) {
    const uint64_t one = 1;
    ssize_t done = write(self->out_eventfd, &one, sizeof one);
    (void)done;
  }
}

static void futex_wait(uint32_t* word, uint32_t value, long ms) {
  struct timespec t = {ms / 1000, (ms % 1000) * 1000000};
  syscall(SYS_futex, word, FUTEX_WAIT, value, &t, NULL, 0);
}

/* Room for `size` bytes in the out ring; waits while the processor reads. NULL with an exception when the processor has gone. */
static char* reserve(Ring* self, uint64_t size) {
  const uint64_t need = metier_aligned(size);
  int silent = 0;
  while (METIER_RING_BYTES - (self->out_head - self->out_tail) < need) {
    self->out_tail = LOAD(&self->control->out_tail);
    if (METIER_RING_BYTES - (self->out_head - self->out_tail) >= need) { break; }
    STORE(&self->control->out_wanted, 1);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    self->out_tail = LOAD(&self->control->out_tail);
    if (METIER_RING_BYTES - (self->out_head - self->out_tail) >= need) { break; }
    notify(self);
    Py_BEGIN_ALLOW_THREADS futex_wait(&self->control->out_wanted, 1, 1000);
    Py_END_ALLOW_THREADS if (PyErr_CheckSignals() != 0) { return NULL; }
    if (++silent % 2 == 0 && orphaned(self)) {
      PyErr_SetString(PyExc_ConnectionError, "the processor has gone");
      return NULL;
    }
  }
  return self->out + (self->out_head & (METIER_RING_BYTES - 1));
}

static void publish(Ring* self, uint64_t size) {
  self->out_head += metier_aligned(size);
  STORE(&self->control->out_head, self->out_head);
  notify(self);
}

static void record_at(char* at, uint64_t size, int type, int flags, uint32_t slot,
                      uint32_t generation) {
  struct metier_record record = {(uint32_t)size, (uint16_t)type, (uint16_t)flags, slot, generation};
  memcpy(at, &record, sizeof record);
}

static int send_record(Ring* self, int type, int flags, uint32_t slot, uint32_t generation,
                       const void* bytes, size_t size) {
  char* at = reserve(self, sizeof(struct metier_record) + size);
  if (at == NULL) { return -1; }
  record_at(at, sizeof(struct metier_record) + size, type, flags, slot, generation);
  memcpy(at + sizeof(struct metier_record), bytes, size);
  publish(self, sizeof(struct metier_record) + size);
  return 0;
}

/* The answer of known length: one record when it fits, else a head and pieces. */
static int send_response(Ring* self, uint32_t slot, uint32_t generation, int flags, uint32_t status,
                         const char* type, size_t type_size, const char* headers,
                         size_t headers_size, const char* body, size_t body_size,
                         int64_t handler_ns) {
  const bool whole = body_size <= METIER_RING_INLINE;
  const uint64_t size =
      sizeof(struct metier_head) + type_size + headers_size + (whole ? body_size : 0);
  if (type_size > 4096 || headers_size > 65536) {
    PyErr_SetString(PyExc_ValueError, "the response's headers are larger than 64 KiB");
    return -1;
  }
  char* at = reserve(self, size);
  if (at == NULL) { return -1; }
  struct metier_head head;
  memset(&head, 0, sizeof head);
  head.record.size = (uint32_t)size;
  head.record.type = whole ? METIER_RESPONSE : METIER_HEAD;
  head.record.flags = (uint16_t)flags;
  head.record.slot = slot;
  head.record.generation = generation;
  head.length = (int64_t)body_size;
  head.handler_ns = handler_ns;
  head.status = status;
  head.content_type = (uint32_t)type_size;
  head.headers = (uint32_t)headers_size;
  head.body = whole ? (uint32_t)body_size : 0;
  memcpy(at, &head, sizeof head);
  at += sizeof head;
  memcpy(at, type, type_size);
  memcpy(at + type_size, headers, headers_size);
  if (whole) { memcpy(at + type_size + headers_size, body, body_size); }
  publish(self, size);
  if (whole) { return 0; }
  for (size_t sent = 0; sent < body_size;) {
    const size_t piece =
        body_size - sent < METIER_RING_INLINE ? body_size - sent : METIER_RING_INLINE;
    if (send_record(self, METIER_CHUNK, 0, slot, generation, body + sent, piece) != 0) {
      return -1;
    }
    sent += piece;
  }
  const int64_t end[2] = {handler_ns, 0};
  return send_record(self, METIER_END, 0, slot, generation, end, sizeof end);
}

/* A body in a memfd of its own. It comes over the socket in the order of the events. */
static PyObject* receive_body(Ring* self, uint64_t size) {
  char byte;
  struct iovec part = {&byte, 1};
  char room[CMSG_SPACE(sizeof(int))];
  struct msghdr message;
  memset(&message, 0, sizeof message);
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = room;
  message.msg_controllen = sizeof room;
  ssize_t got;
  do { got = recvmsg(self->socket, &message, MSG_CMSG_CLOEXEC); } while (got < 0 && errno == EINTR);
  struct cmsghdr* header = CMSG_FIRSTHDR(&message);
  if (got <= 0 || header == NULL || header->cmsg_type != SCM_RIGHTS) {
    PyErr_SetString(PyExc_ConnectionError, "the processor sent no body");
    return NULL;
  }
  int fd;
  memcpy(&fd, CMSG_DATA(header), sizeof fd);
  PyObject* bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)size);
  if (bytes != NULL) {
    char* at = PyBytes_AsString(bytes);
    uint64_t done = 0;
    while (done < size) {
      const ssize_t n = pread(fd, at + done, size - done, (off_t)done);
      if (n < 0 && errno == EINTR) { continue; }
      if (n <= 0) {
        PyErr_SetString(PyExc_ConnectionError, "the body ended early");
        Py_CLEAR(bytes);
        break;
      }
      done += (uint64_t)n;
    }
  }
  close(fd);
  return bytes;
}

static int claim(Ring* self, uint32_t slot, uint32_t generation) {
  uint64_t expected = (uint64_t)generation << 32 | METIER_CLAIM_QUEUED;
  const uint64_t started = (uint64_t)generation << 32 | METIER_CLAIM_STARTED;
  return slot < METIER_RING_SLOTS &&
         __atomic_compare_exchange_n(&self->slots[slot].claim, &expected, started, false,
                                     __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}

static bool is_cloud_event(const struct metier_event_record* record) {
  Py_ssize_t size = 0;
  const char* type = part_of(record, METIER_PART_CONTENT_TYPE, &size);
  return size >= 23 && memcmp(type, "application/cloudevents", 23) == 0;
}

/* A new Event over the record at hand. */
static EventBase* new_event(Ring* self, const struct metier_event_record* record) {
  EventBase* event = (EventBase*)PyType_GenericAlloc(helpers.event_type, 0);
  if (event == NULL) { return NULL; }
  event->record = record;
  if ((record->record.flags & METIER_EVENT_BODY_FD) != 0) {
    event->body = receive_body(self, record->body_size);
    if (event->body == NULL) {
      event->record = NULL;
      Py_DECREF((PyObject*)event);
      return NULL;
    }
  }
  if (is_cloud_event(record)) {
    PyObject* done = PyObject_CallFunctionObjArgs(helpers.cloud_event, (PyObject*)event, NULL);
    if (done == NULL) {
      Py_DECREF((PyObject*)event);
      return NULL;
    }
    Py_DECREF(done);
  }
  return event;
}

static int skip_body(Ring* self, const struct metier_event_record* record) {
  if ((record->record.flags & METIER_EVENT_BODY_FD) == 0) { return 0; }
  PyObject* body = receive_body(self, record->body_size);
  Py_XDECREF(body);
  return body == NULL ? -1 : 0;
}

/* What `serve` needs of the Python side, fetched once. */
typedef struct {
  PyObject *handler, *context, *encode, *failed, *coroutine_type, *coroutine, *batch, *begin, *done;
} Host;

static int host_from(PyObject* object, Host* host) {
  struct {
    const char* name;
    PyObject** at;
  } const wanted[] = {{"handler", &host->handler},
                      {"context", &host->context},
                      {"encode", &host->encode},
                      {"failed", &host->failed},
                      {"coroutine_type", &host->coroutine_type},
                      {"coroutine", &host->coroutine},
                      {"batch", &host->batch},
                      {"begin", &host->begin},
                      {"done", &host->done}};
  memset(host, 0, sizeof *host);
  for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; ++i) {
    *wanted[i].at = PyObject_GetAttrString(object, wanted[i].name);
    if (*wanted[i].at == NULL) { return -1; }
  }
  return 0;
}

static void host_release(Host* host) {
  Py_XDECREF(host->handler);
  Py_XDECREF(host->context);
  Py_XDECREF(host->encode);
  Py_XDECREF(host->failed);
  Py_XDECREF(host->coroutine_type);
  Py_XDECREF(host->coroutine);
  Py_XDECREF(host->batch);
  Py_XDECREF(host->begin);
  Py_XDECREF(host->done);
}

/* (status, content_type bytes, headers bytes, body bytes, flags) as `encode` and `failed` give it; None: it has sent the answer itself. */
static int send_encoded(Ring* self, uint32_t slot, uint32_t generation, PyObject* encoded,
                        int64_t handler_ns) {
  if (encoded == Py_None) { return 0; }
  int status = 0;
  int flags = 0;
  const char *type = NULL, *headers = NULL, *body = NULL;
  Py_ssize_t type_size = 0, headers_size = 0, body_size = 0;
  if (!PyArg_ParseTuple(encoded, "iy#y#y#i", &status, &type, &type_size, &headers, &headers_size,
                        &body, &body_size, &flags)) {
    return -1;
  }
  return send_response(self, slot, generation, flags, (uint32_t)status, type, (size_t)type_size,
                       headers, (size_t)headers_size, body, (size_t)body_size, handler_ns);
}

/* The pending exception, as `failed(exception, slot, generation)` words it. */
static int send_failed(Ring* self, Host* host, uint32_t slot, uint32_t generation,
                       int64_t handler_ns) {
  PyObject *type, *value, *traceback;
  PyErr_Fetch(&type, &value, &traceback);
  PyErr_NormalizeException(&type, &value, &traceback);
  if (traceback != NULL) { PyException_SetTraceback(value, traceback); }
  PyObject* encoded = PyObject_CallFunctionObjArgs(host->failed, value, NULL);
  Py_XDECREF(type);
  Py_XDECREF(value);
  Py_XDECREF(traceback);
  if (encoded == NULL) { return -1; }
  const int result = send_encoded(self, slot, generation, encoded, handler_ns);
  Py_DECREF(encoded);
  return result;
}

static int send_result(Ring* self, Host* host, uint32_t slot, uint32_t generation, PyObject* result,
                       int64_t handler_ns) {
  if (PyBytes_CheckExact(result)) {
    char* bytes = NULL;
    Py_ssize_t size = 0;
    PyBytes_AsStringAndSize(result, &bytes, &size);
    return send_response(self, slot, generation, 0, 200, "text/plain", 10, NULL, 0, bytes,
                         (size_t)size, handler_ns);
  }
  if (PyUnicode_CheckExact(result)) {
    PyObject* encoded = PyUnicode_AsUTF8String(result);
    if (encoded != NULL) {
      char* bytes = NULL;
      Py_ssize_t size = 0;
      PyBytes_AsStringAndSize(encoded, &bytes, &size);
      const int sent = send_response(self, slot, generation, 0, 200, "text/plain", 10, NULL, 0,
                                     bytes, (size_t)size, handler_ns);
      Py_DECREF(encoded);
      return sent;
    }
    PyErr_Clear(); /* lone surrogates: encode() says what they become */
  }
  PyObject* ids = Py_BuildValue("(IIL)", slot, generation, (long long)handler_ns);
  PyObject* encoded =
      ids == NULL ? NULL : PyObject_CallFunctionObjArgs(host->encode, result, ids, NULL);
  Py_XDECREF(ids);
  if (encoded == NULL) { return send_failed(self, host, slot, generation, handler_ns); }
  const int sent = send_encoded(self, slot, generation, encoded, handler_ns);
  Py_DECREF(encoded);
  return sent;
}

/* One event, from its record to its answer. -1: an exception that ends the worker. */
static int serve_event(Ring* self, Host* host, const struct metier_event_record* record) {
  const uint32_t slot = record->record.slot;
  const uint32_t generation = record->record.generation;
  const uint32_t size = record->record.size;
  if (!claim(self, slot, generation)) {
    const int skipped = skip_body(self, record);
    consume(self, size);
    return skipped;
  }
  EventBase* event = new_event(self, record);
  if (event == NULL) { return -1; }
  const bool logs = (record->record.flags & METIER_EVENT_LOGS) != 0;
  if (logs) {
    PyObject* began =
        PyObject_CallFunction(host->begin, "IIi", slot, generation, (int)record->log_level);
    if (began == NULL) {
      Py_DECREF((PyObject*)event);
      return -1;
    }
    Py_DECREF(began);
  }
  const int64_t start = now_ns();
  PyObject* result =
      PyObject_CallFunctionObjArgs(host->handler, host->context, (PyObject*)event, NULL);
  int sent = 0;
  if (result != NULL && (PyObject*)Py_TYPE(result) == host->coroutine_type) {
    PyObject* awaited =
        PyObject_CallFunctionObjArgs(host->coroutine, result, (PyObject*)event, NULL);
    Py_DECREF(result);
    result = awaited;
  }
  const int64_t spent = now_ns() - start;
  if (Py_REFCNT((PyObject*)event) > 1) { sent = detach(event); }
  if (event->owned == NULL && Py_REFCNT((PyObject*)event) == 1) { event->record = NULL; }
  Py_DECREF((PyObject*)event);
  consume(self, size);
  if (sent == 0) {
    if (result == NULL) {
      sent = self->dying ? -1 : send_failed(self, host, slot, generation, spent);
    } else {
      sent = send_result(self, host, slot, generation, result, spent);
    }
  }
  Py_XDECREF(result);
  if (logs && sent == 0) {
    PyObject* ended = PyObject_CallFunctionObjArgs(host->done, NULL);
    if (ended == NULL) { return -1; }
    Py_DECREF(ended);
  }
  return sent;
}

/* `count` EVENT records as one list. The Python side answers each by its id. */
static int serve_batch(Ring* self, Host* host, uint32_t count) {
  PyObject* events = PyList_New(0);
  PyObject* ids = PyList_New(0);
  int sent = events == NULL || ids == NULL ? -1 : 0;
  for (uint32_t i = 0; i < count && sent == 0; ++i) {
    const struct metier_event_record* record = (const struct metier_event_record*)peek(self);
    if (record == NULL || record->record.type != METIER_EVENT) {
      PyErr_SetString(PyExc_RuntimeError, "a batch ended early");
      sent = -1;
      break;
    }
    if (!claim(self, record->record.slot, record->record.generation)) {
      sent = skip_body(self, record);
      consume(self, record->record.size);
      continue;
    }
    EventBase* event = new_event(self, record);
    PyObject* id = Py_BuildValue("(II)", record->record.slot, record->record.generation);
    if (event == NULL || id == NULL || detach(event) != 0 ||
        PyList_Append(events, (PyObject*)event) != 0 || PyList_Append(ids, id) != 0) {
      sent = -1;
    }
    Py_XDECREF((PyObject*)event);
    Py_XDECREF(id);
    consume(self, record->record.size);
  }
  if (sent == 0 && PyObject_IsTrue(events)) {
    PyObject* result = PyObject_CallFunctionObjArgs(host->batch, events, ids, NULL);
    if (result == NULL) { sent = -1; }
    Py_XDECREF(result);
  }
  Py_XDECREF(events);
  Py_XDECREF(ids);
  return sent;
}

/* Declares that this side sleeps; false when there is something to read after all. */
static bool fall_asleep(Ring* self, uint32_t how) {
  __atomic_store_n(&self->control->in_sleeping, how, __ATOMIC_RELAXED);
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
  if (!in_ready(self)) { return true; }
  STORE(&self->control->in_sleeping, METIER_AWAKE);
  return false;
}

/* serve(host, loop_has_work) -> "pending" | "drain" | "terminate" | "stop" | "continue" | "gone". `loop_has_work`: a list of one
 * number, tasks that wait in the event loop: with some the wait is Python's. */
static PyObject* ring_serve(PyObject* object, PyObject* args) {
  Ring* self = (Ring*)object;
  PyObject *host_object, *pending;
  if (!PyArg_ParseTuple(args, "OO!", &host_object, &PyList_Type, &pending)) { return NULL; }
  Host host;
  const char* reason = NULL;
  if (host_from(host_object, &host) != 0) {
    host_release(&host);
    return NULL;
  }
  int quiet = 0;
  int run = 0;
  while (reason == NULL) {
    const struct metier_record* record = peek(self);
    if (record == NULL) {
      PyObject* tasks = PyList_GetItem(pending, 0);
      if (tasks != NULL && PyObject_IsTrue(tasks) == 1) {
        reason = "pending";
        break;
      }
      if (run == 1) {
        /* One event at a time: the processor is about to hand over the next one, often on this very core. Cheaper to step aside once than
         * to sleep; where events come in bunches it would only make the bunches smaller. */
        run = 0;
        Py_BEGIN_ALLOW_THREADS sched_yield();
        Py_END_ALLOW_THREADS continue;
      }
      run = 0;
      if (fall_asleep(self, METIER_SLEEPS_FUTEX)) {
        Py_BEGIN_ALLOW_THREADS futex_wait(&self->control->in_sleeping, METIER_SLEEPS_FUTEX, 1000);
        Py_END_ALLOW_THREADS STORE(&self->control->in_sleeping, METIER_AWAKE);
        if (PyErr_CheckSignals() != 0) { break; }
        if (!in_ready(self) && ++quiet % 2 == 0 && orphaned(self)) { reason = "gone"; }
      }
      continue;
    }
    quiet = 0;
    ++run;
    switch (record->type) {
      case METIER_EVENT:
        if (serve_event(self, &host, (const struct metier_event_record*)record) != 0) {
          goto failed;
        }
        break;
      case METIER_BATCH: {
        const uint32_t count = record->slot;
        consume(self, record->size);
        if (serve_batch(self, &host, count) != 0) { goto failed; }
        break;
      }
      case METIER_DRAIN:
        consume(self, record->size);
        reason = "drain";
        break;
      case METIER_TERMINATE:
        consume(self, record->size);
        reason = "terminate";
        break;
      case METIER_CONTINUE:
        consume(self, record->size);
        reason = "continue";
        break;
      case METIER_STOP:
        consume(self, record->size);
        reason = "stop";
        break;
      default: consume(self, record->size); break; /* CANCEL: a sync handler is left alone */
    }
  }
failed:
  host_release(&host);
  return reason == NULL ? NULL : PyUnicode_FromString(reason);
}

/* next() -> None | ("event", event, slot, generation, logs, level) | ("batch", events, ids) | ("cancel", slot, generation) | (word,) */
static PyObject* ring_next(PyObject* object, PyObject* unused) {
  Ring* self = (Ring*)object;
  (void)unused;
  for (;;) {
    const struct metier_record* record = peek(self);
    if (record == NULL) { Py_RETURN_NONE; }
    const uint32_t slot = record->slot, generation = record->generation, size = record->size;
    const char* word = NULL;
    switch (record->type) {
      case METIER_EVENT: {
        const struct metier_event_record* full = (const struct metier_event_record*)record;
        if (!claim(self, slot, generation)) {
          if (skip_body(self, full) != 0) { return NULL; }
          consume(self, size);
          continue;
        }
        EventBase* event = new_event(self, full);
        if (event == NULL || detach(event) != 0) { return NULL; }
        const int logs = (record->flags & METIER_EVENT_LOGS) != 0;
        const int level = (int)full->log_level;
        consume(self, size);
        return Py_BuildValue("(sNIIii)", "event", (PyObject*)event, slot, generation, logs, level);
      }
      case METIER_CANCEL:
        consume(self, size);
        return Py_BuildValue("(sII)", "cancel", slot, generation);
      case METIER_DRAIN: word = "drain"; break;
      case METIER_TERMINATE: word = "terminate"; break;
      case METIER_CONTINUE: word = "continue"; break;
      case METIER_STOP: word = "stop"; break;
      default: consume(self, size); continue;
    }
    consume(self, size);
    return Py_BuildValue("(s)", word);
  }
}

/* sleep() -> bool: the next record writes the in-eventfd; False when there is one already. */
static PyObject* ring_sleep(PyObject* object, PyObject* unused) {
  (void)unused;
  return PyBool_FromLong(fall_asleep((Ring*)object, METIER_SLEEPS_EVENTFD));
}

/* awake(): reads the in-eventfd empty. */
static PyObject* ring_awake(PyObject* object, PyObject* unused) {
  Ring* self = (Ring*)object;
  (void)unused;
  uint64_t count;
  ssize_t done = read(self->in_eventfd, &count, sizeof count);
  (void)done;
  STORE(&self->control->in_sleeping, METIER_AWAKE);
  Py_RETURN_NONE;
}

static PyObject* ring_ready(PyObject* object, PyObject* unused) {
  (void)unused;
  return PyBool_FromLong(in_ready((Ring*)object));
}

static PyObject* ring_orphaned(PyObject* object, PyObject* unused) {
  (void)unused;
  return PyBool_FromLong(orphaned((Ring*)object));
}

/* respond(slot, generation, handler_ns, encoded) */
static PyObject* ring_respond(PyObject* object, PyObject* args) {
  unsigned int slot, generation;
  long long spent;
  PyObject* encoded;
  if (!PyArg_ParseTuple(args, "IILO", &slot, &generation, &spent, &encoded)) { return NULL; }
  if (send_encoded((Ring*)object, slot, generation, encoded, spent) != 0) { return NULL; }
  Py_RETURN_NONE;
}

/* head(slot, generation, status, content_type, headers, flags): a streamed answer begins. */
static PyObject* ring_head(PyObject* object, PyObject* args) {
  Ring* self = (Ring*)object;
  unsigned int slot, generation;
  int status, flags;
  const char *type, *headers;
  Py_ssize_t type_size, headers_size;
  if (!PyArg_ParseTuple(args, "IIiy#y#i", &slot, &generation, &status, &type, &type_size, &headers,
                        &headers_size, &flags)) {
    return NULL;
  }
  if (type_size > 4096 || headers_size > 65536) {
    PyErr_SetString(PyExc_ValueError, "the response's headers are larger than 64 KiB");
    return NULL;
  }
  const uint64_t size = sizeof(struct metier_head) + (uint64_t)type_size + (uint64_t)headers_size;
  char* at = reserve(self, size);
  if (at == NULL) { return NULL; }
  struct metier_head head;
  memset(&head, 0, sizeof head);
  head.record.size = (uint32_t)size;
  head.record.type = METIER_HEAD;
  head.record.flags = (uint16_t)(flags | METIER_RESPONSE_STREAM);
  head.record.slot = slot;
  head.record.generation = generation;
  head.length = -1;
  head.status = (uint32_t)status;
  head.content_type = (uint32_t)type_size;
  head.headers = (uint32_t)headers_size;
  memcpy(at, &head, sizeof head);
  memcpy(at + sizeof head, type, (size_t)type_size);
  memcpy(at + sizeof head + type_size, headers, (size_t)headers_size);
  publish(self, size);
  Py_RETURN_NONE;
}

/* credit(slot) -> int: bytes of this slot's stream that have left. */
static PyObject* ring_credit(PyObject* object, PyObject* args) {
  unsigned int slot;
  if (!PyArg_ParseTuple(args, "I", &slot)) { return NULL; }
  if (slot >= METIER_RING_SLOTS) { return PyLong_FromLong(0); }
  return PyLong_FromUnsignedLongLong(LOAD(&((Ring*)object)->slots[slot].credit));
}

/* wanted(slot, generation) -> bool: the event is still ours (its peer has not gone). */
static PyObject* ring_wanted(PyObject* object, PyObject* args) {
  unsigned int slot, generation;
  if (!PyArg_ParseTuple(args, "II", &slot, &generation)) { return NULL; }
  if (slot >= METIER_RING_SLOTS) { Py_RETURN_FALSE; }
  return PyBool_FromLong(LOAD(&((Ring*)object)->slots[slot].claim) ==
                         ((uint64_t)generation << 32 | METIER_CLAIM_STARTED));
}

/* chunk(slot, generation, bytes, sent): waits until at most the window is under way. False: the peer has gone. */
static PyObject* ring_chunk(PyObject* object, PyObject* args) {
  Ring* self = (Ring*)object;
  unsigned int slot, generation;
  const char* bytes;
  Py_ssize_t size;
  unsigned long long sent;
  if (!PyArg_ParseTuple(args, "IIy#K", &slot, &generation, &bytes, &size, &sent)) { return NULL; }
  int failed = slot >= METIER_RING_SLOTS;
  bool gone = false;
  for (Py_ssize_t done = 0; done < size && !failed && !gone;) {
    int turns = 0;
    while (sent - LOAD(&self->slots[slot].credit) >= METIER_RING_WINDOW) {
      if (LOAD(&self->slots[slot].claim) != ((uint64_t)generation << 32 | METIER_CLAIM_STARTED)) {
        gone = true;
        break;
      }
      STORE(&self->control->out_wanted, 1);
      __atomic_thread_fence(__ATOMIC_SEQ_CST);
      if (sent - LOAD(&self->slots[slot].credit) < METIER_RING_WINDOW) { break; }
      Py_BEGIN_ALLOW_THREADS futex_wait(&self->control->out_wanted, 1, 1000);
      Py_END_ALLOW_THREADS if (PyErr_CheckSignals() != 0) {
        failed = 1;
        break;
      }
      if (++turns % 2 == 0 && orphaned(self)) {
        gone = true;
        break;
      }
    }
    if (failed || gone) { break; }
    const Py_ssize_t piece = size - done < METIER_RING_INLINE ? size - done : METIER_RING_INLINE;
    if (send_record(self, METIER_CHUNK, 0, slot, generation, bytes + done, (size_t)piece) != 0) {
      failed = 1;
    }
    done += piece;
    sent += (unsigned long long)piece;
  }
  if (!gone && !failed) {
    gone = LOAD(&self->slots[slot].claim) != ((uint64_t)generation << 32 | METIER_CLAIM_STARTED);
  }
  if (failed) {
    if (!PyErr_Occurred()) { PyErr_SetString(PyExc_ValueError, "there is no such slot"); }
    return NULL;
  }
  return PyBool_FromLong(!gone);
}

/* end(slot, generation, handler_ns) */
static PyObject* ring_end(PyObject* object, PyObject* args) {
  unsigned int slot, generation;
  long long spent;
  if (!PyArg_ParseTuple(args, "IIL", &slot, &generation, &spent)) { return NULL; }
  const int64_t end[2] = {spent, 0};
  if (send_record((Ring*)object, METIER_END, 0, slot, generation, end, sizeof end) != 0) {
    return NULL;
  }
  Py_RETURN_NONE;
}

/* message(type, slot, generation, bytes): READY, INIT_FAILED, ERROR, LOG, DRAINED, TERMINATED. */
static PyObject* ring_message(PyObject* object, PyObject* args) {
  int type;
  unsigned int slot, generation;
  const char* bytes;
  Py_ssize_t size;
  if (!PyArg_ParseTuple(args, "iIIy#", &type, &slot, &generation, &bytes, &size)) { return NULL; }
  if (size > METIER_RING_INLINE) { size = METIER_RING_INLINE; }
  if (send_record((Ring*)object, type, 0, slot, generation, bytes, (size_t)size) != 0) {
    return NULL;
  }
  Py_RETURN_NONE;
}

/* ack(topic, partition, offset) */
static PyObject* ring_ack(PyObject* object, PyObject* args) {
  Ring* self = (Ring*)object;
  const char* topic;
  Py_ssize_t size;
  int partition;
  long long offset;
  if (!PyArg_ParseTuple(args, "s#iL", &topic, &size, &partition, &offset)) { return NULL; }
  if (size > 1024) {
    PyErr_SetString(PyExc_ValueError, "a topic's name has at most 1024 bytes");
    return NULL;
  }
  const uint64_t total = sizeof(struct metier_ack) + (uint64_t)size;
  char* at = reserve(self, total);
  if (at == NULL) { return NULL; }
  struct metier_ack ack;
  memset(&ack, 0, sizeof ack);
  ack.record.size = (uint32_t)total;
  ack.record.type = METIER_ACK;
  ack.offset = offset;
  ack.partition = partition;
  ack.topic = (uint32_t)size;
  memcpy(at, &ack, sizeof ack);
  memcpy(at + sizeof ack, topic, (size_t)size);
  publish(self, total);
  Py_RETURN_NONE;
}

static PyObject* ring_die(PyObject* object, PyObject* unused) {
  (void)unused;
  ((Ring*)object)->dying = 1;
  Py_RETURN_NONE;
}

static int map_ring(int fd, off_t at, char** out) {
  char* base = mmap(NULL, 2 * METIER_RING_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (base == MAP_FAILED) { return -1; }
  for (int i = 0; i < 2; ++i) {
    if (mmap(base + (size_t)i * METIER_RING_BYTES, METIER_RING_BYTES, PROT_READ | PROT_WRITE,
             MAP_SHARED | MAP_FIXED, fd, at) == MAP_FAILED) {
      return -1;
    }
  }
  *out = base;
  return 0;
}

static int ring_init(PyObject* object, PyObject* args, PyObject* named) {
  Ring* self = (Ring*)object;
  (void)named;
  int segment;
  if (!PyArg_ParseTuple(args, "iiii", &segment, &self->out_eventfd, &self->in_eventfd,
                        &self->socket)) {
    return -1;
  }
  char *control, *in, *out;
  control = mmap(NULL, METIER_RING_CONTROL, PROT_READ | PROT_WRITE, MAP_SHARED, segment, 0);
  if (control == MAP_FAILED || map_ring(segment, METIER_RING_CONTROL, &in) != 0 ||
      map_ring(segment, METIER_RING_CONTROL + METIER_RING_BYTES, &out) != 0) {
    PyErr_SetFromErrno(PyExc_OSError);
    return -1;
  }
  self->control = (struct metier_ring_control*)control;
  self->slots = (struct metier_ring_slot*)(control + METIER_RING_SLOTS_AT);
  self->in = in;
  self->out = out;
  if (self->control->magic != METIER_RING_MAGIC || self->control->version != METIER_RING_VERSION) {
    PyErr_SetString(PyExc_RuntimeError, "the processor speaks another version of the ring");
    return -1;
  }
  return 0;
}

static PyMethodDef ring_methods[] = {
    {"serve", ring_serve, METH_VARARGS, "The loop of a sync worker."},
    {"next", ring_next, METH_NOARGS, "One message, or None."},
    {"sleep", ring_sleep, METH_NOARGS, "Arms the in-eventfd."},
    {"awake", ring_awake, METH_NOARGS, "Reads the in-eventfd."},
    {"ready", ring_ready, METH_NOARGS, "Whether a record waits."},
    {"orphaned", ring_orphaned, METH_NOARGS, "Whether the processor has gone."},
    {"respond", ring_respond, METH_VARARGS, "A whole answer."},
    {"head", ring_head, METH_VARARGS, "A streamed answer begins."},
    {"chunk", ring_chunk, METH_VARARGS, "A piece of it."},
    {"credit", ring_credit, METH_VARARGS, "Bytes of it that have left."},
    {"wanted", ring_wanted, METH_VARARGS, "Whether its peer is there."},
    {"end", ring_end, METH_VARARGS, "It ends."},
    {"message", ring_message, METH_VARARGS, "A word to the processor."},
    {"ack", ring_ack, METH_VARARGS, "An explicit acknowledgement."},
    {"die", ring_die, METH_NOARGS, "The event timeout came: the worker ends instead of answering."},
    {NULL, NULL, 0, NULL},
};
static void ring_dealloc(PyObject* object) {
  PyTypeObject* type = Py_TYPE(object); /* the mappings live as long as the process */
  freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
  release(object);
  Py_DECREF(type);
}
static PyType_Slot ring_slots[] = {
    {Py_tp_doc, "Ring(segment, out_eventfd, in_eventfd, socket)"},
    {Py_tp_init, (void*)ring_init},
    {Py_tp_dealloc, (void*)ring_dealloc},
    {Py_tp_methods, ring_methods},
    {0, NULL},
};
static PyType_Spec ring_spec = {"metier_worker._ring.Ring", sizeof(Ring), 0, Py_TPFLAGS_DEFAULT,
                                ring_slots};

static PyObject* configure(PyObject* module, PyObject* args) {
  (void)module;
  PyObject *parse_body, *parse_query, *trigger, *timestamp, *new_id, *cloud_event, *event_type;
  if (!PyArg_ParseTuple(args, "OOOOOOO", &parse_body, &parse_query, &trigger, &timestamp, &new_id,
                        &cloud_event, &event_type)) {
    return NULL;
  }
  if (!PyType_Check(event_type) || !PyType_IsSubtype((PyTypeObject*)event_type, event_base_type)) {
    PyErr_SetString(PyExc_TypeError, "the event's type has EventBase as a base");
    return NULL;
  }
  PyObject* all[] = {parse_body, parse_query, trigger, timestamp, new_id, cloud_event, event_type};
  for (int i = 0; i < 7; ++i) { Py_INCREF(all[i]); }
  helpers.parse_body = parse_body;
  helpers.parse_query = parse_query;
  helpers.trigger = trigger;
  helpers.timestamp = timestamp;
  helpers.new_id = new_id;
  helpers.cloud_event = cloud_event;
  helpers.event_type = (PyTypeObject*)event_type;
  Py_RETURN_NONE;
}

static PyMethodDef module_methods[] = {
    {"configure", configure, METH_VARARGS,
     "configure(parse_body, parse_query, trigger, timestamp, new_id, cloud_event, event_type)"},
    {NULL, NULL, 0, NULL},
};
static struct PyModuleDef module_definition = {PyModuleDef_HEAD_INIT,
                                               "_ring",
                                               "The worker's end of the ring.",
                                               -1,
                                               module_methods,
                                               NULL,
                                               NULL,
                                               NULL,
                                               NULL};

PyMODINIT_FUNC PyInit__ring(void) {
  for (int i = 0; i < A_COUNT; ++i) {
    event_getset[i].name = kAttributes[i];
    event_getset[i].get = event_get;
    event_getset[i].set = event_set;
    event_getset[i].closure = (void*)(intptr_t)i;
  }
  PyObject* module = PyModule_Create(&module_definition);
  if (module == NULL) { return NULL; }
  event_base_type = (PyTypeObject*)PyType_FromSpec(&event_spec);
  PyObject* ring_type = PyType_FromSpec(&ring_spec);
  if (event_base_type == NULL || ring_type == NULL) { return NULL; }
  Py_INCREF((PyObject*)event_base_type);
  if (PyModule_AddObject(module, "EventBase", (PyObject*)event_base_type) != 0 ||
      PyModule_AddObject(module, "Ring", ring_type) != 0) {
    return NULL;
  }
  return module;
}
