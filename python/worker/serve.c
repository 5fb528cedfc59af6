/* The loop of a sync worker: events from the ring through the handler to their answers. */
#include "worker.h"

#include <string.h>
#include <time.h>

static int64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* What `serve` needs of the Python side, fetched once. */
typedef struct {
  PyObject *handler, *context, *encode, *failed, *coroutine_type, *coroutine, *batch, *begin, *done,
      *answer_type;
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
                      {"done", &host->done},
                      {"answer_type", &host->answer_type}};
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
  Py_XDECREF(host->answer_type);
}

int send_encoded(Ring* self, uint32_t slot, uint32_t generation, PyObject* encoded,
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
  if ((PyObject*)Py_TYPE(result) == host->answer_type) {
    return send_encoded(self, slot, generation, result, handler_ns);
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

PyObject* ring_serve(PyObject* object, PyObject* args) {
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
  while (reason == NULL) {
    const struct metier_record* record = peek(self);
    if (record == NULL) {
      PyObject* tasks = PyList_GetItem(pending, 0);
      if (tasks != NULL && PyObject_IsTrue(tasks) == 1) {
        reason = "pending";
        break;
      }
      if (fall_asleep(self, METIER_SLEEPS_FUTEX)) {
        Py_BEGIN_ALLOW_THREADS futex_wait(&self->control->in_sleeping, METIER_SLEEPS_FUTEX, 1000);
        Py_END_ALLOW_THREADS STORE(&self->control->in_sleeping, METIER_AWAKE);
        if (PyErr_CheckSignals() != 0) { break; }
        if (!in_ready(self) && ++quiet % 2 == 0 && orphaned(self)) { reason = "gone"; }
      }
      continue;
    }
    quiet = 0;
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
