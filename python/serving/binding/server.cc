// metier_serving._engine.Server: one request from its body to its answer; `test` of the mock server is this very function.
#include <array>
#include <ctime>
#include <string_view>

#include "flow.h"
#include "json_text.h"
#include "library.h"
#include "model.h"

namespace metier::serving::python {

PyObject* parked_of(PyObject* flow, Request& request);

namespace {

struct ServerObject {
  PyObject_HEAD PyObject *flow,
      *owner;  // owner: metier_serving.server.GraphServer, for everything that is not the usual way
  PyObject *response, *default_type, *empty, *slash, *get, *post, *id_header, *path_header,
      *no_trigger, *answer_type;
};

constexpr std::array kOwned = {
    &ServerObject::flow,         &ServerObject::owner,      &ServerObject::response,
    &ServerObject::default_type, &ServerObject::empty,      &ServerObject::slash,
    &ServerObject::get,          &ServerObject::post,       &ServerObject::id_header,
    &ServerObject::path_header,  &ServerObject::no_trigger, &ServerObject::answer_type};

bool is_text(PyObject* value, std::string_view text) {
  Py_ssize_t size = 0;
  const char* data = PyUnicode_Check(value) ? PyUnicode_AsUTF8AndSize(value, &size) : nullptr;
  return data != nullptr && std::string_view(data, static_cast<std::size_t>(size)) == text;
}

bool has_text(PyObject* value) {
  return value != nullptr && value != Py_None && PyObject_IsTrue(value) > 0;
}

// Errors become answers: GraphServer decides the status and writes the error stream.
PyObject* failed(ServerObject* self, Event* event, const char* where) {
  const Ref error = take_exception();
  if (!error) { return nullptr; }
  if (PyErr_GivenExceptionMatches(error.get(), PyExc_Exception) ==
      0) {  // KeyboardInterrupt and its like go through
    restore(error);
    return nullptr;
  }
  return PyObject_CallMethod(self->owner, "_failed", "OOs", event, error.get(), where);
}

// A header of the mock server's callers, or of HTTP, where workers see names in canonical case.
PyObject* header(PyObject* headers, PyObject* name, const char* canonical) {
  PyObject* value = PyDict_GetItem(headers, name);
  return value != nullptr ? value : PyDict_GetItemString(headers, canonical);
}

// What a queue of another function wrote: the event itself, in a body (MLRun's form).
PyObject* wrapper_key() {
  static PyObject* const marker = PyUnicode_InternFromString("full_event_wrapper");
  return marker;
}
bool unwrap(Event* event) {
  if (!PyDict_Check(event->body)) { return true; }
  PyObject* wrapped = PyDict_GetItemWithError(event->body, wrapper_key());
  if (wrapped == nullptr || wrapped != Py_True) { return PyErr_Occurred() == nullptr; }
  const Ref held = Ref::of(event->body);
  const auto take = [&](const char* name, PyObject*& member) {
    if (PyObject* value = PyDict_GetItemString(held.get(), name)) { assign(member, value); }
  };
  assign(event->body, Py_None);
  take("body", event->body);
  take("key", event->key);
  take("id", event->id);
  return true;
}

// The headers of a trigger's event are read only where one of them says something to a graph.
void take_headers(Event* event) {
  static PyObject* const says = PyUnicode_InternFromString("_graph_headers");
  static PyObject* const headers = PyUnicode_InternFromString("headers");
  if (event->headers != nullptr || event->source == nullptr) { return; }
  const Ref any(PyObject_GetAttr(event->source, says));
  if (any.get() == Py_False) { return; }
  PyErr_Clear();
  event->headers = PyObject_GetAttr(event->source, headers);
  PyErr_Clear();
}

// Null with an exception, or null without: go on.
PyObject* prepare(ServerObject* self, Event* event) {
  if (!has_text(event->content_type)) { assign(event->content_type, self->default_type); }
  take_headers(event);
  if (event->headers != nullptr && PyDict_Check(event->headers) &&
      PyDict_Size(event->headers) > 0) {
    if (PyObject* id = header(event->headers, self->id_header, "Mlrun-Event-Id")) {
      assign(event->id, id);
    }
    if (PyObject* path = header(event->headers, self->path_header, "Mlrun-Event-Path")) {
      assign(event->path, path);
    }
  }
  PyObject* body = event->body;
  if (body == nullptr) { return nullptr; }
  if (!(PyUnicode_Check(body) || PyBytes_Check(body))) {
    unwrap(event);
    return nullptr;
  }
  const bool declared =
      is_text(event->content_type, "application/json") || is_text(event->content_type, "json");
  if (!declared && has_text(event->content_type)) { return nullptr; }
  if (flow_of(self->flow)->reads_part()) {
    auto text = BodyText::of(body);
    if (text && !text->has(wrapper_key())) {
      event->text = text.release();
      return nullptr;
    }
  }
  PyObject* value = decode_json(body);
  if (value != nullptr) {
    Py_DECREF(std::exchange(event->body, value));
    unwrap(event);
    return nullptr;
  }
  if (PyErr_ExceptionMatches(PyExc_ValueError) == 0) {
    return nullptr;
  }  // Unicode errors are ValueErrors as well
  if (declared) { return failed(self, event, "json"); }
  PyErr_Clear();
  return nullptr;
}

// Null without an exception: the request has not ended, `parked` says what is awaited.
PyObject* begin(ServerObject* self, Event* event, Request* request) {
  Flow& flow = *flow_of(self->flow);
  event->request = request;
  hold(request);
  enter(event);
  Py_INCREF(event);
  const FlowLock locked(flow);
  PythonHost host(flow);
  Walk(flow.plan, host).start({event});
  return nullptr;
}

// An answer's JSON text as a worker sends it.
PyObject* encoded(ServerObject* self, PyObject* text) {
  if (self->answer_type == nullptr || self->answer_type == Py_None) {
    return PyObject_CallMethod(self->owner, "_encoded", "O", text);
  }
  const Ref bytes(PyUnicode_AsUTF8String(text));
  static PyObject* const ok = PyLong_FromLong(200);
  static PyObject* const none = PyLong_FromLong(0);
  static PyObject* const type = PyBytes_FromString("application/json");
  static PyObject* const empty = PyBytes_FromString("");
  const Ref parts(bytes ? PyTuple_Pack(5, ok, type, empty, bytes.get(), none) : nullptr);
  return parts ? call_one(self->answer_type, parts.get()) : nullptr;
}

// What json.dumps writes, and no answer of another kind.
bool is_plain(PyObject* value) {
  return PyDict_CheckExact(value) || PyList_CheckExact(value) || PyFloat_CheckExact(value) ||
         PyLong_CheckExact(value) || PyBool_Check(value) || PyTuple_CheckExact(value);
}

PyObject* answer(ServerObject* self, Event* event, Request* request, bool get_body) {
  request->answered = true;  // what fails behind the answer is told as a step's error
  // Taken out of the request: an exception's frames may hold the event, and the event its request.
  const Ref error = std::exchange(request->error, Ref());
  Ref body = std::exchange(request->answer, Ref());
  if (error) {
    restore(error);
    return failed(self, event, "_handler");
  }
  if (const auto text = std::exchange(request->answer_text, nullptr)) {
    body = Ref(get_body ? text->value() : text->dump());
    if (body && !get_body) { return encoded(self, body.get()); }
    if (!body) { return failed(self, event, "_handler"); }  // what JSON cannot say
  }
  if (!body) {
    const Flow& flow = *flow_of(self->flow);
    body = flow.plan.waits ? Ref(PyObject_CallMethod(self->owner, "_unanswered", "O", event))
                           : Ref(Py_BuildValue("{s:O}", "id", event_id(event)));
    if (!body) { return failed(self, event, "_handler"); }
  }
  if (get_body || body.get() == Py_None || PyUnicode_Check(body.get()) ||
      PyBytes_Check(body.get())) {
    return body.release();
  }
  if (is_plain(body.get())) {
    const Ref text(encode_json(body.get()));
    return text ? encoded(self, text.get()) : failed(self, event, "_handler");
  }
  PyObject* response = PyObject_CallMethod(self->owner, "_encode", "O", body.get());
  return response != nullptr ? response : failed(self, event, "_handler");  // what JSON cannot say
}

PyObject* run(ServerObject* self, Event* event, bool get_body) {
  PyObject* refused = prepare(self, event);
  if (refused != nullptr || PyErr_Occurred() != nullptr) { return refused; }
  auto* request = new Request;
  begin(self, event, request);
  PyObject* result = nullptr;
  bool go_on = true;
  if (!request->parked.empty()) {
    const Ref parked(parked_of(self->flow, *request));
    const Ref done(parked ? PyObject_CallMethod(self->owner, "_await", "OO", event, parked.get())
                          : nullptr);
    go_on = static_cast<bool>(done);
    if (!go_on) { result = failed(self, event, "_handler"); }
  }
  if (go_on) { result = answer(self, event, request, get_body); }
  let_go(request);
  return result;
}

// test(path, body, method, headers, content_type, silent, get_body, event_id, trigger, offset, time)
enum Argument {
  kPath,
  kBody,
  kMethod,
  kHeaders,
  kType,
  kSilent,
  kGetBody,
  kId,
  kTrigger,
  kOffset,
  kTime,
  kArguments
};
constexpr std::array<const char*, kArguments> kNames = {
    "path",     "body",     "method",  "headers", "content_type", "silent",
    "get_body", "event_id", "trigger", "offset",  "time"};
PyObject* interned[kArguments];

bool read_arguments(PyObject* const* args, Py_ssize_t count, PyObject* names, PyObject** out) {
  if (count > kArguments) {
    PyErr_Format(PyExc_TypeError, "test() takes at most %d arguments, %zd were given",
                 static_cast<int>(kArguments), count);
    return false;
  }
  for (Py_ssize_t i = 0; i < count; ++i) { out[i] = args[i]; }
  const Py_ssize_t named = names == nullptr ? 0 : PyTuple_Size(names);
  for (Py_ssize_t i = 0; i < named; ++i) {
    PyObject* name = PyTuple_GetItem(names, i);
    std::size_t at = 0;
    while (at < kArguments && interned[at] != name) { ++at; }
    if (at == kArguments) {
      at = 0;
      while (at < kArguments && !is_text(name, kNames[at])) { ++at; }
    }
    if (at == kArguments || out[at] != nullptr) {
      PyErr_Format(PyExc_TypeError, "test() got %s argument '%U'",
                   at == kArguments ? "an unexpected" : "twice the", name);
      return false;
    }
    out[at] = args[count + i];
  }
  return true;
}

PyObject* test(PyObject* object, PyObject* const* args, Py_ssize_t count, PyObject* names) {
  auto* self = reinterpret_cast<ServerObject*>(object);
  PyObject* given[kArguments] = {};
  if (!read_arguments(args, count, names, given)) { return nullptr; }
  Event* event = new_event();
  if (event == nullptr) { return nullptr; }
  const Ref held(reinterpret_cast<PyObject*>(event));
  PyObject* body = given[kBody];
  assign(event->body, body == nullptr ? Py_None : body);
  assign(event->path, has_text(given[kPath]) ? given[kPath] : self->slash);
  if (has_text(given[kMethod])) {
    assign(event->method, given[kMethod]);
  } else {
    const int full = body == nullptr || body == Py_None ? 0 : PyObject_IsTrue(body);
    if (full < 0) { PyErr_Clear(); }  // an array has no truth: it is a body
    assign(event->method, full != 0 ? self->post : self->get);
  }
  if (has_text(given[kHeaders])) {
    assign(event->headers, given[kHeaders]);
  } else {
    event->headers = PyDict_New();
  }
  event->content_type = given[kType] == nullptr ? nullptr : Ref::of(given[kType]).release();
  if (has_text(given[kId])) { assign(event->id, given[kId]); }
  assign(event->key, self->empty);
  assign(event->trigger, given[kTrigger] == nullptr || given[kTrigger] == Py_None
                             ? self->no_trigger
                             : given[kTrigger]);
  event->offset = has_text(given[kOffset]) ? Ref::of(given[kOffset]).release() : PyLong_FromLong(0);
  if (given[kTime] != nullptr) { assign(event->timestamp, given[kTime]); }
  const bool get_body = given[kGetBody] == nullptr || PyObject_IsTrue(given[kGetBody]) > 0;
  PyObject* result = run(self, event, get_body);
  if (result == nullptr || Py_TYPE(result) != reinterpret_cast<PyTypeObject*>(self->response)) {
    return result;
  }
  if (given[kSilent] != nullptr && PyObject_IsTrue(given[kSilent]) > 0) { return result; }
  return PyObject_CallMethod(self->owner, "_check", "N", result);
}

Event* event_from(PyObject* given) {
  if (is_event(given)) {
    Py_INCREF(given);
    return reinterpret_cast<Event*>(given);
  }
  Event* event = new_event();
  if (event == nullptr) { return nullptr; }
  assign(event->source, given);
  if (!take_attributes(event, given)) { Py_CLEAR(event); }
  return event;
}

// run(event, get_body=False): any object with an event's attributes.
PyObject* run_event(PyObject* object, PyObject* args) {
  PyObject* given = nullptr;
  int get_body = 0;
  if (PyArg_ParseTuple(args, "O|p", &given, &get_body) == 0) { return nullptr; }
  Event* event = event_from(given);
  if (event == nullptr) { return nullptr; }
  const Ref held(reinterpret_cast<PyObject*>(event));
  return run(reinterpret_cast<ServerObject*>(object), event, get_body != 0);
}

// serve(event): the answer as a worker sends it, or a coroutine that gives it.
PyObject* serve(PyObject* object, PyObject* given) {
  auto* self = reinterpret_cast<ServerObject*>(object);
  Event* event = event_from(given);
  if (event == nullptr) { return nullptr; }
  const Ref held(reinterpret_cast<PyObject*>(event));
  if (event->body != nullptr && PyBytes_Check(event->body) && PyBytes_Size(event->body) == 0) {
    set_body(event, nullptr);
  }
  PyObject* refused = prepare(self, event);
  if (refused != nullptr || PyErr_Occurred() != nullptr) { return refused; }
  auto* request = new Request;
  begin(self, event, request);
  PyObject* result = nullptr;
  if (request->parked.empty()) {
    result = answer(self, event, request, false);
    if (result == Py_None) {
      Py_DECREF(result);
      result = Ref::of(self->empty).release();
    }
  } else {
    const Ref parked(parked_of(self->flow, *request));
    result =
        parked ? PyObject_CallMethod(self->owner, "_later", "OO", parked.get(), event) : nullptr;
  }
  let_go(request);
  return result;
}

// answers_as(type): `serve` answers JSON as type((status, content type, headers, body, flags)), in bytes.
PyObject* answers_as(PyObject* object, PyObject* type) {
  assign(reinterpret_cast<ServerObject*>(object)->answer_type, type);
  Py_RETURN_NONE;
}

// begin(event, get_body=False): (True, answer, event), or (False, what is awaited, event): for hosts with a loop of their own.
// begin(event, False, ended): of a stream: there is no answer, `ended(first error or None)` is called once when nothing of the event is
// on its way or kept any more.
PyObject* begin_event(PyObject* object, PyObject* args) {
  auto* self = reinterpret_cast<ServerObject*>(object);
  PyObject *given = nullptr, *ended = nullptr;
  int get_body = 0;
  if (PyArg_ParseTuple(args, "O|pO", &given, &get_body, &ended) == 0) { return nullptr; }
  Event* event = event_from(given);
  if (event == nullptr) { return nullptr; }
  const Ref held(reinterpret_cast<PyObject*>(event));
  const Ref refused(prepare(self, event));
  if (refused) {
    const Ref told(ended == nullptr ? nullptr : call_one(ended, Py_None));
    if (ended != nullptr && !told) { return nullptr; }
    return Py_BuildValue("(OOO)", Py_True, refused.get(), event);
  }
  if (PyErr_Occurred() != nullptr) { return nullptr; }
  auto* request = new Request;
  if (ended != nullptr) {
    request->stream = request->answered = true;
    request->ended = Ref::of(ended);
  }
  begin(self, event, request);
  const bool done = request->parked.empty();
  const Ref value(done && ended != nullptr ? Ref::of(Py_None).release()
                  : done                   ? answer(self, event, request, get_body != 0)
                                           : parked_of(self->flow, *request));
  let_go(request);
  return value ? Py_BuildValue("(OOO)", done ? Py_True : Py_False, value.get(), event) : nullptr;
}

// answer(event, get_body=False): of an event that `begin` began and whose coroutines have ended.
PyObject* answer_event(PyObject* object, PyObject* args) {
  PyObject* given = nullptr;
  int get_body = 0;
  if (PyArg_ParseTuple(args, "O!|p", event_type, &given, &get_body) == 0) { return nullptr; }
  auto* event = reinterpret_cast<Event*>(given);
  if (event->request == nullptr) {
    PyErr_SetString(PyExc_RuntimeError, "this event has not been begun");
    return nullptr;
  }
  return answer(reinterpret_cast<ServerObject*>(object), event, event->request, get_body != 0);
}

int init(PyObject* object, PyObject* args, PyObject*) {
  auto* self = reinterpret_cast<ServerObject*>(object);
  PyObject *flow = nullptr, *owner = nullptr, *response = nullptr, *type = nullptr,
           *trigger = nullptr;
  if (PyArg_ParseTuple(args, "O!OOOO", flow_type, &flow, &owner, &response, &type, &trigger) == 0) {
    return -1;
  }
  assign(self->flow, flow);
  assign(self->owner, owner);
  assign(self->response, response);
  assign(self->default_type, type);
  assign(self->no_trigger, trigger);
  const std::pair<PyObject*&, const char*> texts[] = {{self->empty, ""},
                                                      {self->slash, "/"},
                                                      {self->get, "GET"},
                                                      {self->post, "POST"},
                                                      {self->id_header, "MLRUN-EVENT-ID"},
                                                      {self->path_header, "MLRUN-EVENT-PATH"}};
  for (const auto& [slot, text] : texts) {
    Py_XDECREF(std::exchange(slot, PyUnicode_InternFromString(text)));
  }
  for (std::size_t i = 0; i < kArguments; ++i) {
    if (interned[i] == nullptr) { interned[i] = PyUnicode_InternFromString(kNames[i]); }
  }
  return PyErr_Occurred() == nullptr ? 0 : -1;
}

int traverse(PyObject* object, visitproc visit, void* arg) {
  for (auto member : kOwned) { Py_VISIT(reinterpret_cast<ServerObject*>(object)->*member); }
  Py_VISIT(Py_TYPE(object));
  return 0;
}

int clear(PyObject* object) {
  for (auto member : kOwned) { Py_CLEAR(reinterpret_cast<ServerObject*>(object)->*member); }
  return 0;
}

void dealloc(PyObject* object) {
  PyTypeObject* type = Py_TYPE(object);
  PyObject_GC_UnTrack(object);
  clear(object);
  PyObject_GC_Del(object);
  Py_DECREF(type);
}

bool make_server_type(PyObject* module) {
  static std::array methods = {
      PyMethodDef{"test", reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(test)),
                  METH_FASTCALL | METH_KEYWORDS,
                  "test(path='/', body=None, method='', headers=None, content_type=None, "
                  "silent=False, get_body=True, "
                  "event_id=None, trigger=None, offset=None, time=None)"},
      PyMethodDef{"run", run_event, METH_VARARGS, "run(event, get_body=False)"},
      PyMethodDef{"serve", serve, METH_O, "serve(event)"},
      PyMethodDef{"answers_as", answers_as, METH_O, "answers_as(type)"},
      PyMethodDef{"begin", begin_event, METH_VARARGS, "begin(event, get_body=False)"},
      PyMethodDef{"answer", answer_event, METH_VARARGS, "answer(event, get_body=False)"},
      PyMethodDef{}};
  static std::array slots = {PyType_Slot{Py_tp_init, reinterpret_cast<void*>(init)},
                             PyType_Slot{Py_tp_dealloc, reinterpret_cast<void*>(dealloc)},
                             PyType_Slot{Py_tp_traverse, reinterpret_cast<void*>(traverse)},
                             PyType_Slot{Py_tp_clear, reinterpret_cast<void*>(clear)},
                             PyType_Slot{Py_tp_methods, methods.data()},
                             PyType_Slot{0, nullptr}};
  PyType_Spec spec{"metier_serving._engine.Server", sizeof(ServerObject), 0,
                   Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC, slots.data()};
  PyObject* type = PyType_FromSpec(&spec);
  return type != nullptr && PyModule_AddObject(module, "Server", type) == 0;
}

PyObject* loads(PyObject*, PyObject* text) { return decode_json(text); }
PyObject* dumps(PyObject*, PyObject* value) { return encode_json(value); }
PyObject* clone(PyObject*, PyObject* value) { return clone_body(value); }

PyObject* timestamp(PyObject*, PyObject*) { return now_text(); }

std::array functions = {
    PyMethodDef{"loads", loads, METH_O, "json.loads(text)"},
    PyMethodDef{"dumps", dumps, METH_O, "json.dumps(value)"},
    PyMethodDef{"timestamp", timestamp, METH_NOARGS, "Now in UTC, as datetime.isoformat(sep=' ')."},
    PyMethodDef{"clone", clone, METH_O, "An independent copy of a body."},
    PyMethodDef{"library_step", library_step, METH_VARARGS,
                "library_step(path, name, step, failed): a function of a shared library"},
    PyMethodDef{}};
PyModuleDef definition{PyModuleDef_HEAD_INIT, "_engine", "The graph engine.", -1, functions.data()};

}  // namespace

// Now in UTC as "2026-11-28 10:00:00.123456+00:00": datetime's isoformat(sep=' '), the second's part kept.
PyObject* now_text() {
  static thread_local std::time_t second = -1;
  static thread_local std::array<char, 40> text{};
  std::timespec now{};
  std::timespec_get(&now, TIME_UTC);
  if (now.tv_sec != second) {
    std::tm parts{};
    gmtime_r(&now.tv_sec, &parts);
    std::strftime(text.data(), text.size(), "%Y-%m-%d %H:%M:%S.000000+00:00", &parts);
    second = now.tv_sec;
  }
  long micros = now.tv_nsec / 1000;
  for (std::size_t at = 25; at >= 20; --at, micros /= 10) {
    text[at] = static_cast<char>('0' + micros % 10);
  }
  return PyUnicode_FromStringAndSize(text.data(), 32);
}

PyObject* make_module() {
  PyObject* module = PyModule_Create(&definition);
  if (module == nullptr || !make_event_type(module) || !make_flow_type(module) ||
      !make_server_type(module) || !make_model_type(module)) {
    return nullptr;
  }
  return module;
}

}  // namespace metier::serving::python

PyMODINIT_FUNC PyInit__engine() { return metier::serving::python::make_module(); }
