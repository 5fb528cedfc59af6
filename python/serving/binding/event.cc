#include "event.h"

#include <sys/random.h>
#include <unistd.h>

#include <array>
#include <cstddef>
#include <cstdint>

namespace metier::serving::python {
namespace {

struct Random {
  std::uint64_t a = 0, b = 0;
  Random() { seed(); }
  void seed() {
    if (getrandom(this, sizeof *this, 0) != sizeof *this) {
      a = 1, b = reinterpret_cast<std::uintptr_t>(this);
    }
  }
  std::uint64_t next() {  // xorshift128+
    std::uint64_t x = a;
    const std::uint64_t y = b;
    a = y;
    x ^= x << 23U;
    b = x ^ y ^ (x >> 17U) ^ (y >> 26U);
    return b + y;
  }
};

PyObject* random_id() {
  static thread_local Random random;
  static thread_local pid_t owner = getpid();
  if (owner != getpid()) { random.seed(), owner = getpid(); }  // after a fork
  std::array<char, 32> text{};
  for (std::size_t half = 0; half < 2; ++half) {
    std::uint64_t bits = random.next();
    for (std::size_t i = 0; i < 16; ++i, bits >>= 4U) {
      text[half * 16 + i] = "0123456789abcdef"[bits & 15U];
    }
  }
  text[12] = '4';
  return PyUnicode_FromStringAndSize(text.data(), static_cast<Py_ssize_t>(text.size()));
}

constexpr std::array kMembers = {&Event::body,         &Event::key,      &Event::id,
                                 &Event::path,         &Event::method,   &Event::headers,
                                 &Event::content_type, &Event::error,    &Event::origin_state,
                                 &Event::terminated,   &Event::trigger,  &Event::timestamp,
                                 &Event::offset,       &Event::shard_id, &Event::topic,
                                 &Event::stream_path,  &Event::source,   &Event::dict};

int traverse(PyObject* self, visitproc visit, void* arg) {
  auto* event = reinterpret_cast<Event*>(self);
  for (auto member : kMembers) { Py_VISIT(event->*member); }
  if (const int stop = event->text == nullptr ? 0 : event->text->traverse(visit, arg)) {
    return stop;
  }
  Py_VISIT(Py_TYPE(self));
  return 0;
}

int clear(PyObject* self) {
  auto* event = reinterpret_cast<Event*>(self);
  delete std::exchange(event->text, nullptr);
  for (auto member : kMembers) { Py_CLEAR(event->*member); }
  return 0;
}

void dealloc(PyObject* self) {
  PyTypeObject* type = Py_TYPE(self);
  PyObject_GC_UnTrack(self);
  auto* event = reinterpret_cast<Event*>(self);
  if (event->weakrefs != nullptr) { PyObject_ClearWeakRefs(self); }
  clear(self);
  if (event->request != nullptr) { let_go(event->request); }
  if (event->riders != nullptr) {
    for (const Rider& rider : *event->riders) { let_go(rider.request); }
    delete event->riders;
  }
  PyObject_GC_Del(self);
  Py_DECREF(type);
}

PyObject* get_id(PyObject* self, void*) {
  PyObject* id = event_id(reinterpret_cast<Event*>(self));
  Py_XINCREF(id);
  return id;
}

int set_id(PyObject* self, PyObject* value, void*) {
  assign(reinterpret_cast<Event*>(self)->id, value);
  return 0;
}

int init(PyObject* self, PyObject* args, PyObject* kwargs) {
  if (PyTuple_Size(args) > 1) {
    PyErr_SetString(PyExc_TypeError,
                    "Event(body, key=…, id=…): everything but the body is given by name");
    return -1;
  }
  auto* event = reinterpret_cast<Event*>(self);
  if (PyTuple_Size(args) == 1) { set_body(event, Ref::of(PyTuple_GetItem(args, 0)).release()); }
  PyObject *name = nullptr, *value = nullptr;
  Py_ssize_t at = 0;
  while (kwargs != nullptr && PyDict_Next(kwargs, &at, &name, &value) != 0) {
    if (PyObject_SetAttr(self, name, value) != 0) { return -1; }
  }
  return 0;
}

PyObject* copy(PyObject* self, PyObject*) {
  return reinterpret_cast<PyObject*>(copy_event(reinterpret_cast<Event*>(self)));
}

PyObject* deep_copy(PyObject* self, PyObject*) {
  Event* other = copy_event(reinterpret_cast<Event*>(self));
  if (other == nullptr) { return nullptr; }
  PyObject* body = other->text != nullptr ? nullptr : clone_body(other->body);
  if (other->text == nullptr && body == nullptr && other->body != nullptr) {
    Py_DECREF(other);
    return nullptr;
  }
  if (other->text == nullptr) { set_body(other, body); }
  return reinterpret_cast<PyObject*>(other);
}

PyObject* repr(PyObject* self) {
  auto* event = reinterpret_cast<Event*>(self);
  const auto shown = [](PyObject* value) { return value == nullptr ? Py_None : value; };
  PyObject* body = body_of(event);
  if (body == nullptr) { return nullptr; }
  return PyUnicode_FromFormat("Event(id=%S, body=%R, method=%S, path=%S)", shown(event_id(event)),
                              body, shown(event->method), shown(event->path));
}

template <auto Member>
constexpr PyMemberDef member(const char* name) {
  return {const_cast<char*>(name), T_OBJECT, static_cast<Py_ssize_t>(Member), 0, nullptr};
}

#define METIER_MEMBER(name) member<offsetof(Event, name)>(#name)
std::array members = {
    METIER_MEMBER(path),
    METIER_MEMBER(method),
    METIER_MEMBER(content_type),
    METIER_MEMBER(error),
    METIER_MEMBER(origin_state),
    METIER_MEMBER(terminated),
    METIER_MEMBER(source),
    PyMemberDef{"_from", T_INT, static_cast<Py_ssize_t>(offsetof(Event, from)), READONLY, nullptr},
    PyMemberDef{"__dictoffset__", T_PYSSIZET, static_cast<Py_ssize_t>(offsetof(Event, dict)),
                READONLY, nullptr},
    PyMemberDef{"__weaklistoffset__", T_PYSSIZET,
                static_cast<Py_ssize_t>(offsetof(Event, weakrefs)), READONLY, nullptr},
    PyMemberDef{}};
#undef METIER_MEMBER

// What few steps look at is asked of the event that the trigger made, when it is read.
struct Lazy {
  const char* name;
  PyObject* Event::* member;
};
std::array lazy = {Lazy{"key", &Event::key},         Lazy{"timestamp", &Event::timestamp},
                   Lazy{"offset", &Event::offset},   Lazy{"shard_id", &Event::shard_id},
                   Lazy{"topic", &Event::topic},     Lazy{"stream_path", &Event::stream_path},
                   Lazy{"headers", &Event::headers}, Lazy{"trigger", &Event::trigger}};

PyObject* get_lazy(PyObject* self, void* closure) {
  auto* event = reinterpret_cast<Event*>(self);
  const auto* what = static_cast<const Lazy*>(closure);
  if (event->*(what->member) == nullptr && event->source != nullptr) {
    event->*(what->member) = PyObject_GetAttrString(event->source, what->name);
    if (event->*(what->member) == nullptr) {
      if (PyErr_ExceptionMatches(PyExc_AttributeError) == 0) { return nullptr; }
      PyErr_Clear();
    }
  }
  PyObject* value = event->*(what->member) == nullptr ? Py_None : event->*(what->member);
  Py_INCREF(value);
  return value;
}

int set_lazy(PyObject* self, PyObject* value, void* closure) {
  assign(reinterpret_cast<Event*>(self)->*(static_cast<const Lazy*>(closure)->member), value);
  return 0;
}

PyObject* get_body(PyObject* self, void*) {
  PyObject* body = body_of(reinterpret_cast<Event*>(self));
  Py_XINCREF(body);
  return body;
}

int write_body(PyObject* self, PyObject* value, void*) {
  Py_XINCREF(value);
  set_body(reinterpret_cast<Event*>(self), value);
  return 0;
}

std::array getters = {PyGetSetDef{"body", get_body, write_body, "what the steps work on", nullptr},
                      PyGetSetDef{"id", get_id, set_id, "unique id of the event, text", nullptr},
                      PyGetSetDef{"key", get_lazy, set_lazy, nullptr, &lazy[0]},
                      PyGetSetDef{"timestamp", get_lazy, set_lazy, nullptr, &lazy[1]},
                      PyGetSetDef{"time", get_lazy, set_lazy, nullptr, &lazy[1]},
                      PyGetSetDef{"processing_time", get_lazy, set_lazy, nullptr, &lazy[1]},
                      PyGetSetDef{"offset", get_lazy, set_lazy, nullptr, &lazy[2]},
                      PyGetSetDef{"shard_id", get_lazy, set_lazy, nullptr, &lazy[3]},
                      PyGetSetDef{"topic", get_lazy, set_lazy, nullptr, &lazy[4]},
                      PyGetSetDef{"stream_path", get_lazy, set_lazy, nullptr, &lazy[5]},
                      PyGetSetDef{"headers", get_lazy, set_lazy, nullptr, &lazy[6]},
                      PyGetSetDef{"trigger", get_lazy, set_lazy, nullptr, &lazy[7]},
                      PyGetSetDef{}};
void one_less(Request* request) {
  if (--request->live > 0 || !request->ended) { return; }
  PyObject *type = nullptr, *value = nullptr, *trace = nullptr;
  PyErr_Fetch(&type, &value, &trace);
  const Ref call = std::exchange(request->ended, Ref());
  const Ref done(call_one(call.get(), request->error ? request->error.get() : Py_None));
  if (!done) { PyErr_WriteUnraisable(call.get()); }
  PyErr_Restore(type, value, trace);
}

template <typename Call>
void each_request(Event* event, Call call) {
  if (event->request != nullptr) { call(event->request); }
  if (event->riders == nullptr) { return; }
  for (const Rider& rider : *event->riders) { call(rider.request); }
}

PyObject* keep(PyObject* self, PyObject*) {
  each_request(reinterpret_cast<Event*>(self), [](Request* request) { ++request->live; });
  Py_RETURN_NONE;
}

PyObject* release(PyObject* self, PyObject*) {
  auto* event = reinterpret_cast<Event*>(self);
  Py_INCREF(self);
  each_request(event, one_less);
  Py_DECREF(self);
  Py_RETURN_NONE;
}

PyObject* carry(PyObject* self, PyObject* other) {
  if (!is_event(other)) {
    PyErr_SetString(PyExc_TypeError, "carry() takes an event that was kept");
    return nullptr;
  }
  auto* event = reinterpret_cast<Event*>(self);
  each_request(reinterpret_cast<Event*>(other), [event](Request* request) {
    if (event->riders == nullptr) { event->riders = new std::vector<Rider>; }
    hold(request);
    event->riders->push_back({request, true});
  });
  Py_RETURN_NONE;
}

std::array methods = {
    PyMethodDef{"keep", keep, METH_NOARGS, "A step keeps the event: its request has not ended."},
    PyMethodDef{"release", release, METH_NOARGS, "What was kept has been dealt with."},
    PyMethodDef{"carry", carry, METH_O, "This event, which goes on, stands for one that was kept."},
    PyMethodDef{"__copy__", copy, METH_NOARGS, nullptr},
    PyMethodDef{"__deepcopy__", deep_copy, METH_O, nullptr},
    PyMethodDef{}};

// One request's PyObject for each name is enough: these never change.
PyObject* deepcopy_function() {
  static PyObject* function = nullptr;
  if (function == nullptr) {
    const Ref module(PyImport_ImportModule("copy"));
    if (module) { function = PyObject_GetAttrString(module.get(), "deepcopy"); }
  }
  return function;
}

}  // namespace

PyTypeObject* event_type = nullptr;

void hold(Request* request) { ++request->holders; }

void let_go(Request* request) {
  if (--request->holders > 0) { return; }
  for (Request::Parked& parked : request->parked) { Py_XDECREF(parked.event); }
  delete request;
}

Event* new_event() {
  static const auto alloc = reinterpret_cast<allocfunc>(PyType_GetSlot(event_type, Py_tp_alloc));
  auto* event = reinterpret_cast<Event*>(alloc(event_type, 0));
  if (event == nullptr) { return nullptr; }
  event->from = -1;
  return event;
}

Event* copy_event(Event* event) {
  Event* other = new_event();
  if (other == nullptr) { return nullptr; }
  event_id(event);  // both have the same
  if (event->text != nullptr) {
    other->text = event->text->clone().release();
    if (other->text == nullptr) {  // what steps have put in cannot be copied: it is shared
      PyErr_Clear();
      other->text = new BodyText(*event->text);
    }
  }
  for (auto member : kMembers) {
    other->*member = event->*member;
    Py_XINCREF(other->*member);
  }
  if (event->dict != nullptr) {
    Py_DECREF(other->dict);
    other->dict = PyDict_Copy(event->dict);
  }
  other->from = event->from;
  other->request = event->request;
  if (other->request != nullptr) { hold(other->request); }
  inherit(other, event);
  return other;
}

void inherit(Event* made, Event* from) {
  if (from->riders == nullptr) { return; }
  if (made->riders == nullptr) { made->riders = new std::vector<Rider>; }
  for (const Rider& rider : *from->riders) {
    hold(rider.request);
    made->riders->push_back({rider.request, false});
  }
}

void enter(Event* event) {
  if (event->request != nullptr) { ++event->request->live; }
  if (event->riders == nullptr) { return; }
  for (Rider& rider : *event->riders) {
    if (!std::exchange(rider.counted, false)) { ++rider.request->live; }
  }
}

void leave(Event* event) {
  Py_INCREF(reinterpret_cast<PyObject*>(event));  // what is told may let go of it
  each_request(event, one_less);
  Py_DECREF(reinterpret_cast<PyObject*>(event));
}

PyObject* body_of(Event* event) {
  if (event->text != nullptr) {
    PyObject* value = event->text->value();
    if (value == nullptr) { return nullptr; }
    set_body(event, value);
  }
  return event->body == nullptr ? Py_None : event->body;
}

void set_body(Event* event, PyObject* value) {
  delete std::exchange(event->text, nullptr);
  Py_XDECREF(std::exchange(event->body, value));
}

PyObject* event_id(Event* event) {
  if (event->id == nullptr || event->id == Py_None) {
    PyObject* made =
        event->source == nullptr ? nullptr : PyObject_GetAttrString(event->source, "id");
    if (made == nullptr || made == Py_None) {
      PyErr_Clear();
      Py_XDECREF(made);
      made = random_id();
    }
    if (made == nullptr) { return nullptr; }
    Py_XDECREF(std::exchange(event->id, made));
  }
  return event->id;
}

bool take_attributes(Event* event, PyObject* other) {
  static const std::array names = {
      std::pair{PyUnicode_InternFromString("body"), &Event::body},
      std::pair{PyUnicode_InternFromString("path"), &Event::path},
      std::pair{PyUnicode_InternFromString("method"), &Event::method},
      std::pair{PyUnicode_InternFromString("content_type"), &Event::content_type},
      std::pair{PyUnicode_InternFromString("headers"), &Event::headers},
      std::pair{PyUnicode_InternFromString("trigger"), &Event::trigger},
      // what a step may have set on an event of its own making
      std::pair{PyUnicode_InternFromString("error"), &Event::error},
      std::pair{PyUnicode_InternFromString("origin_state"), &Event::origin_state},
      std::pair{PyUnicode_InternFromString("terminated"), &Event::terminated},
      std::pair{PyUnicode_InternFromString("key"), &Event::key},
      std::pair{PyUnicode_InternFromString("id"), &Event::id}};
  // Of a trigger's event only the first four; the rest is read from it when asked for. Our worker's has the body's bytes.
  static PyObject* const raw = PyUnicode_InternFromString("_raw_body");
  const bool source = other == event->source;
  const std::size_t count = source ? 4 : names.size();
  for (std::size_t i = 0; i < count; ++i) {
    PyObject* value = source && i == 0 ? PyObject_GetAttr(other, raw) : nullptr;
    if (source && i == 0 && value == nullptr) { PyErr_Clear(); }
    if (value == nullptr) { value = PyObject_GetAttr(other, names[i].first); }
    if (value == nullptr) {
      if (PyErr_ExceptionMatches(PyExc_AttributeError) == 0) { return false; }
      PyErr_Clear();
      continue;
    }
    if (i == 0) { delete std::exchange(event->text, nullptr); }
    Py_XDECREF(std::exchange(event->*(names[i].second), value));
  }
  return true;
}

PyObject* clone_body(PyObject* body, int depth) {
  if (body == nullptr || body == Py_None || PyUnicode_CheckExact(body) || PyLong_CheckExact(body) ||
      PyFloat_CheckExact(body) || PyBool_Check(body) || PyBytes_CheckExact(body)) {
    Py_XINCREF(body);
    return body;
  }
  if (depth < 100 && PyDict_CheckExact(body)) {
    Ref out(PyDict_Copy(body));
    PyObject *key = nullptr, *value = nullptr;
    Py_ssize_t at = 0;
    while (out && PyDict_Next(body, &at, &key, &value) != 0) {
      if (PyUnicode_CheckExact(value) || PyLong_CheckExact(value) || PyFloat_CheckExact(value)) {
        continue;
      }
      const Ref copied(clone_body(value, depth + 1));
      if (!copied || (copied.get() != value && PyDict_SetItem(out.get(), key, copied.get()) != 0)) {
        return nullptr;
      }
    }
    return out.release();
  }
  if (depth < 100 && PyList_CheckExact(body)) {
    const Py_ssize_t size = PyList_Size(body);
    Ref out(PyList_GetSlice(body, 0, size));
    for (Py_ssize_t i = 0; out && i < size; ++i) {
      PyObject* value = PyList_GetItem(out.get(), i);
      if (PyFloat_CheckExact(value) || PyLong_CheckExact(value) || PyUnicode_CheckExact(value)) {
        continue;
      }
      PyObject* copied = clone_body(value, depth + 1);
      if (copied == nullptr || PyList_SetItem(out.get(), i, copied) != 0) { return nullptr; }
    }
    return out.release();
  }
  PyObject* deepcopy = deepcopy_function();
  return deepcopy == nullptr ? nullptr : call_one(deepcopy, body);
}

bool make_event_type(PyObject* module) {
  std::array slots = {
      PyType_Slot{Py_tp_dealloc, reinterpret_cast<void*>(dealloc)},
      PyType_Slot{Py_tp_traverse, reinterpret_cast<void*>(traverse)},
      PyType_Slot{Py_tp_clear, reinterpret_cast<void*>(clear)},
      PyType_Slot{Py_tp_init, reinterpret_cast<void*>(init)},
      PyType_Slot{Py_tp_repr, reinterpret_cast<void*>(repr)},
      PyType_Slot{Py_tp_members, members.data()},
      PyType_Slot{Py_tp_getset, getters.data()},
      PyType_Slot{Py_tp_methods, methods.data()},
      PyType_Slot{Py_tp_doc, const_cast<char*>("An event on its way through a graph.")},
      PyType_Slot{0, nullptr}};
  PyType_Spec spec{"metier_serving._engine.Event", sizeof(Event), 0,
                   Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC, slots.data()};
  event_type = reinterpret_cast<PyTypeObject*>(PyType_FromSpec(&spec));
  if (event_type == nullptr) { return false; }
  Py_INCREF(event_type);
  return PyModule_AddObject(module, "Event", reinterpret_cast<PyObject*>(event_type)) == 0;
}

}  // namespace metier::serving::python
