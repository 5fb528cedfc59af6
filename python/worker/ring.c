/* The worker's end of the ring: records in, records out, sleep and wake-up. */
#include "worker.h"

#include <errno.h>
#include <linux/futex.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

bool orphaned(Ring* self) {
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

void futex_wait(uint32_t* word, uint32_t value, long ms) {
  struct timespec t = {ms / 1000, (ms % 1000) * 1000000};
  syscall(SYS_futex, word, FUTEX_WAIT, value, &t, NULL, 0);
}

char* reserve(Ring* self, uint64_t size) {
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

void publish(Ring* self, uint64_t size) {
  self->out_head += metier_aligned(size);
  STORE(&self->control->out_head, self->out_head);
  notify(self);
}

static void record_at(char* at, uint64_t size, int type, int flags, uint32_t slot,
                      uint32_t generation) {
  struct metier_record record = {(uint32_t)size, (uint16_t)type, (uint16_t)flags, slot, generation};
  memcpy(at, &record, sizeof record);
}

int send_record(Ring* self, int type, int flags, uint32_t slot, uint32_t generation,
                const void* bytes, size_t size) {
  char* at = reserve(self, sizeof(struct metier_record) + size);
  if (at == NULL) { return -1; }
  record_at(at, sizeof(struct metier_record) + size, type, flags, slot, generation);
  memcpy(at + sizeof(struct metier_record), bytes, size);
  publish(self, sizeof(struct metier_record) + size);
  return 0;
}

int send_response(Ring* self, uint32_t slot, uint32_t generation, int flags, uint32_t status,
                  const char* type, size_t type_size, const char* headers, size_t headers_size,
                  const char* body, size_t body_size, int64_t handler_ns) {
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

bool claim(Ring* self, uint32_t slot, uint32_t generation) {
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

EventBase* new_event(Ring* self, const struct metier_event_record* record) {
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

int skip_body(Ring* self, const struct metier_event_record* record) {
  if ((record->record.flags & METIER_EVENT_BODY_FD) == 0) { return 0; }
  PyObject* body = receive_body(self, record->body_size);
  Py_XDECREF(body);
  return body == NULL ? -1 : 0;
}

bool fall_asleep(Ring* self, uint32_t how) {
  __atomic_store_n(&self->control->in_sleeping, how, __ATOMIC_RELAXED);
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
  if (!in_ready(self)) { return true; }
  STORE(&self->control->in_sleeping, METIER_AWAKE);
  return false;
}
