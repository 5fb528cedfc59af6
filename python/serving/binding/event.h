// metier_serving.Event: what steps get with full_event. A plain structure, so that making one costs nanoseconds; any other
// attribute that user code sets is kept as well.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "body_text.h"
#include "py.h"

namespace metier::serving::python {

struct Event;

// One call of the graph: its answer, and how many of its events are still on their way, or kept by steps.
struct Request {
  int holders = 1;
  int live = 0;
  bool answered = false;
  bool stream = false;  // nobody waits for an answer; `ended` is told when nothing is left
  Ref ended;            // called once with the first error, or None
  Ref answer;
  std::unique_ptr<BodyText> answer_text;  // in place of `answer`
  Ref error;                              // the exception of an event that nobody handled
  struct Parked {
    int step;
    Event* event;  // owned
    Ref awaitable;
    std::int64_t began = 0;
  };
  std::vector<Parked> parked;

  bool finished() const { return answered || live == 0; }
};
void hold(Request* request);
void let_go(Request* request);

// A request that waits for an event of another one: what a batch collected.
struct Rider {
  Request* request;  // held
  bool counted;      // `keep` has counted it already for the event's first walk
};

struct Event {
  // The body is null or stale while there is a text of it: read it by `body_of`, write it by `set_body`.
  PyObject_HEAD PyObject *body, *key, *id, *path, *method, *headers, *content_type, *error,
      *origin_state, *terminated, *trigger, *timestamp, *offset, *shard_id, *topic, *stream_path,
      *source, *dict, *weakrefs;
  Request* request;
  int from;                    // the step that it came from, for joins
  std::vector<Rider>* riders;  // null: none
  BodyText* text;              // owned; null: the body is a value
};

extern PyTypeObject* event_type;
bool make_event_type(PyObject* module);
inline bool is_event(PyObject* object) { return Py_TYPE(object) == event_type; }
Event* new_event();
// Another event with the same members; the content is shared (`clone_body` makes it independent).
Event* copy_event(Event* event);
// Takes over what an object that looks like an event has: our own kind, Nuclio's, MLRun's.
bool take_attributes(Event* event, PyObject* other);
// An event sets out on a walk; `leave` when it has ended there. When the last event of a request has, `Request::ended` is called.
void enter(Event* event);
void leave(Event* event);
// `made` stands for what rode on `from` as well.
void inherit(Event* made, Event* from);
// The body as a value, None when there is none; null with an exception. Borrowed.
PyObject* body_of(Event* event);
void set_body(Event* event, PyObject* value);  // takes over `value`
PyObject* event_id(Event* event);              // borrowed; made when asked for first

// Dicts, lists and tuples anew, everything else that cannot change shared; other objects by copy.deepcopy.
PyObject* clone_body(PyObject* body, int depth = 0);

}  // namespace metier::serving::python
