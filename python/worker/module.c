/* Module `_ring` against CPython's stable ABI 3.9 (src/realtime/ring_layout.h, docs/formats/ring.md):
 *
 *   ring = Ring(segment_fd, out_eventfd, in_eventfd, socket_fd)
 *   ring.serve(host)    the loop of a sync worker; gives a reason when Python has to look
 *   ring.next(host)     one message without waiting, for a worker that waits in an event loop
 *   ring.respond(...) ring.head(...) ring.chunk(...) ring.end(...) ring.message(...) ring.ack(...)
 *   EventBase           the C part of Event: attributes are decoded when they are first read
 */
#include "worker.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

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
  PyObject* module = PyModule_Create(&module_definition);
  if (module == NULL) { return NULL; }
  PyObject* ring_type = PyType_FromSpec(&ring_spec);
  if (event_type_new() == NULL || ring_type == NULL) { return NULL; }
  Py_INCREF((PyObject*)event_base_type);
  if (PyModule_AddObject(module, "EventBase", (PyObject*)event_base_type) != 0 ||
      PyModule_AddObject(module, "Ring", ring_type) != 0) {
    return NULL;
  }
  return module;
}
