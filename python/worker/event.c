/* The Event's C part: attributes are decoded when they are first read. */
#include "worker.h"

#include <string.h>

static const char* const kAttributes[A_COUNT] = {
    "body",         "content_type", "trigger",       "fields", "headers",  "id",         "method",
    "path",         "size",         "timestamp",     "url",    "shard_id", "num_shards", "type",
    "type_version", "version",      "last_in_batch", "offset", "topic",    "key"};

struct helpers helpers;
PyTypeObject* event_base_type;

const char* part_of(const struct metier_event_record* record, int part, Py_ssize_t* size) {
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

static PyObject* bytes_of_body(EventBase* self) {
  if (self->body != NULL) {
    Py_INCREF(self->body);
    return self->body;
  }
  Py_ssize_t size = 0;
  const char* at = part_of(self->record, METIER_PART_BODY, &size);
  return PyBytes_FromStringAndSize(at, size);
}

static PyObject* body_of(EventBase* self) {
  const struct metier_event_record* record = self->record;
  PyObject* bytes = bytes_of_body(self);
  if (bytes == NULL) { return NULL; }
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

/* For a graph's engine, which reads JSON itself: the body's bytes whatever their type; what has been read or set already as it is. */
static PyObject* raw_body(PyObject* object, void* unused) {
  (void)unused;
  EventBase* self = (EventBase*)object;
  if (self->cache[A_BODY] == NULL && self->record != NULL) { return bytes_of_body(self); }
  return event_get(object, (void*)(intptr_t)A_BODY);
}

/* Whether a header says something to a graph (MLRUN-EVENT-ID, MLRUN-EVENT-PATH): else none of them needs to be read. */
static PyObject* has_graph_headers(PyObject* object, void* unused) {
  (void)unused;
  EventBase* self = (EventBase*)object;
  if (self->cache[A_HEADERS] != NULL || self->record == NULL) { Py_RETURN_TRUE; }
  static const char prefix[] = "mlrun-event-";
  Py_ssize_t left = 0;
  const char* at = part_of(self->record, METIER_PART_HEADERS, &left);
  while (left >= 8) {
    uint32_t lengths[2];
    memcpy(lengths, at, 8);
    if ((uint64_t)lengths[0] + lengths[1] > (uint64_t)left - 8) { break; }
    size_t same = 0;
    while (same < sizeof prefix - 1 && same < lengths[0] &&
           (at[8 + same] | 0x20) == (prefix[same] | 0x20)) {
      ++same;
    }
    if (same == sizeof prefix - 1) { Py_RETURN_TRUE; }
    at += 8 + lengths[0] + lengths[1];
    left -= 8 + (Py_ssize_t)lengths[0] + lengths[1];
  }
  Py_RETURN_FALSE;
}

int detach(EventBase* self) {
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

static PyGetSetDef event_getset[A_COUNT + 3]; /* filled below */
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

PyTypeObject* event_type_new(void) {
  for (int i = 0; i < A_COUNT; ++i) {
    event_getset[i].name = kAttributes[i];
    event_getset[i].get = event_get;
    event_getset[i].set = event_set;
    event_getset[i].closure = (void*)(intptr_t)i;
  }
  event_getset[A_COUNT].name = "_raw_body";
  event_getset[A_COUNT].get = raw_body;
  event_getset[A_COUNT + 1].name = "_graph_headers";
  event_getset[A_COUNT + 1].get = has_graph_headers;
  event_base_type = (PyTypeObject*)PyType_FromSpec(&event_spec);
  return event_base_type;
}
