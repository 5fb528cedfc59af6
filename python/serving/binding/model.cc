// metier_serving._engine.Model: the usual call of a V2 model (infer of a dict with inputs) without a line of Python but the
// model's own hooks. Everything else is `fallback`'s: metier_serving.v2.do_event.
#include "model.h"

#include <array>

#include "event.h"

namespace metier::serving::python {
namespace {

struct ModelObject {
  PyObject_HEAD PyObject *model, *fallback, *later, *predict, *preprocess, *validate, *postprocess,
      *name, *version;
};

constexpr std::array kOwned = {
    &ModelObject::model,       &ModelObject::fallback,   &ModelObject::later,
    &ModelObject::predict,     &ModelObject::preprocess, &ModelObject::validate,
    &ModelObject::postprocess, &ModelObject::name,       &ModelObject::version};

struct Names {
  PyObject *infer, *predict, *id, *inputs, *operation, *model_name, *outputs, *timestamp,
      *model_version, *ready, *logger, *get;
};

const Names& names() {
  static const Names made = {PyUnicode_InternFromString("infer"),
                             PyUnicode_InternFromString("predict"),
                             PyUnicode_InternFromString("id"),
                             PyUnicode_InternFromString("inputs"),
                             PyUnicode_InternFromString("operation"),
                             PyUnicode_InternFromString("model_name"),
                             PyUnicode_InternFromString("outputs"),
                             PyUnicode_InternFromString("timestamp"),
                             PyUnicode_InternFromString("model_version"),
                             PyUnicode_InternFromString("ready"),
                             PyUnicode_InternFromString("_model_logger"),
                             PyUnicode_InternFromString("GET")};
  return made;
}

bool same_text(PyObject* a, PyObject* b) {
  return a == b || (a != nullptr && PyUnicode_Check(a) && PyUnicode_Compare(a, b) == 0);
}

// The operation that the path says: infer or predict, else null.
PyObject* operation(Event* event, PyObject* body) {
  const Names& n = names();
  PyObject* path = event->path;
  if (path == n.infer || same_text(path, n.infer)) { return n.infer; }
  if (same_text(path, n.predict)) { return n.predict; }
  const bool bare = path == nullptr || path == Py_None || PyUnicode_GetLength(path) == 0;
  const bool asks = same_text(event->method, n.get) || PyDict_GetItem(body, n.operation) != nullptr;
  return bare && !asks ? n.infer : nullptr;
}

bool is_usual(ModelObject* self) {
  const Ref ready(PyObject_GetAttr(self->model, names().ready));
  const Ref logger(PyObject_GetAttr(self->model, names().logger));
  if (!ready || !logger) { PyErr_Clear(); }
  return ready.get() == Py_True && logger.get() == Py_None;
}

PyObject* call_two(PyObject* callable, PyObject* a, PyObject* b) {
  if (PyObject_VectorcallDict != nullptr) {
    PyObject* const args[2] = {a, b};
    return PyObject_VectorcallDict(callable, args, 2, nullptr);
  }
  return PyObject_CallFunctionObjArgs(callable, a, b, nullptr);
}

PyObject* checked(ModelObject* self, PyObject* body, PyObject* op) {
  Ref request = Ref::of(body);
  if (self->preprocess != Py_None) { request = Ref(call_two(self->preprocess, body, op)); }
  if (!request) { return nullptr; }
  if (self->validate != Py_None) { return call_two(self->validate, request.get(), op); }
  PyObject* inputs =
      PyDict_Check(request.get()) ? PyDict_GetItem(request.get(), names().inputs) : nullptr;
  if (inputs == nullptr || !PyList_Check(inputs)) {
    PyErr_SetString(PyExc_Exception, inputs == nullptr ? "Expected key \"inputs\" in request body"
                                                       : "Expected \"inputs\" to be a list");
    return nullptr;
  }
  return request.release();
}

PyObject* call(PyObject* object, PyObject* args, PyObject*) {
  auto* self = reinterpret_cast<ModelObject*>(object);
  PyObject* given = PyTuple_Size(args) > 0 ? PyTuple_GetItem(args, 0) : nullptr;
  if (given == nullptr) {
    PyErr_SetString(PyExc_TypeError, "an event is missing");
    return nullptr;
  }
  auto* event = reinterpret_cast<Event*>(given);
  PyObject* body = is_event(given) ? body_of(event) : nullptr;
  if (body == nullptr && PyErr_Occurred() != nullptr) { return nullptr; }
  PyObject* op = body != nullptr && PyDict_CheckExact(body) && is_usual(self)
                     ? operation(event, body)
                     : nullptr;
  if (op == nullptr) { return call_one(self->fallback, given); }

  const Names& n = names();
  const Ref held = Ref::of(body);
  const Ref id =
      Ref::of(PyDict_GetItem(body, n.id) != nullptr ? PyDict_GetItem(body, n.id) : event_id(event));
  const Ref request(checked(self, body, op));
  if (!request) { return nullptr; }
  const Ref when(now_text());
  const Ref outputs(call_one(self->predict, request.get()));
  if (!outputs || !when) { return nullptr; }
  Ref answer(PyDict_New());
  if (!answer || PyDict_SetItem(answer.get(), n.id, id.get()) != 0 ||
      PyDict_SetItem(answer.get(), n.model_name, self->name) != 0 ||
      PyDict_SetItem(answer.get(), n.outputs, outputs.get()) != 0 ||
      PyDict_SetItem(answer.get(), n.timestamp, when.get()) != 0 ||
      (self->version != Py_None &&
       PyDict_SetItem(answer.get(), n.model_version, self->version) != 0)) {
    return nullptr;
  }
  if (is_awaitable(outputs.get())) {  // predict is a coroutine
    return PyObject_CallFunctionObjArgs(self->later, given, held.get(), request.get(), answer.get(),
                                        op, when.get(), nullptr);
  }
  if (self->postprocess != Py_None) { answer = Ref(call_one(self->postprocess, answer.get())); }
  if (!answer) { return nullptr; }
  set_body(event, answer.release());
  Py_INCREF(given);
  return given;
}

// Model(model, fallback, later, predict, preprocess, validate, postprocess, name, version): hooks are None when they are the
// base class's own.
int init(PyObject* object, PyObject* args, PyObject*) {
  if (PyTuple_Size(args) != static_cast<Py_ssize_t>(kOwned.size())) {
    PyErr_SetString(PyExc_TypeError, "Model takes nine arguments");
    return -1;
  }
  for (std::size_t i = 0; i < kOwned.size(); ++i) {
    assign(reinterpret_cast<ModelObject*>(object)->*kOwned[i],
           PyTuple_GetItem(args, static_cast<Py_ssize_t>(i)));
  }
  return 0;
}

int traverse(PyObject* object, visitproc visit, void* arg) {
  for (auto member : kOwned) { Py_VISIT(reinterpret_cast<ModelObject*>(object)->*member); }
  Py_VISIT(Py_TYPE(object));
  return 0;
}

int clear(PyObject* object) {
  for (auto member : kOwned) { Py_CLEAR(reinterpret_cast<ModelObject*>(object)->*member); }
  return 0;
}

void dealloc(PyObject* object) {
  PyTypeObject* type = Py_TYPE(object);
  PyObject_GC_UnTrack(object);
  clear(object);
  PyObject_GC_Del(object);
  Py_DECREF(type);
}

}  // namespace

bool make_model_type(PyObject* module) {
  static std::array slots = {PyType_Slot{Py_tp_init, reinterpret_cast<void*>(init)},
                             PyType_Slot{Py_tp_call, reinterpret_cast<void*>(call)},
                             PyType_Slot{Py_tp_dealloc, reinterpret_cast<void*>(dealloc)},
                             PyType_Slot{Py_tp_traverse, reinterpret_cast<void*>(traverse)},
                             PyType_Slot{Py_tp_clear, reinterpret_cast<void*>(clear)},
                             PyType_Slot{0, nullptr}};
  PyType_Spec spec{"metier_serving._engine.Model", sizeof(ModelObject), 0,
                   Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC, slots.data()};
  PyObject* type = PyType_FromSpec(&spec);
  return type != nullptr && PyModule_AddObject(module, "Model", type) == 0;
}

}  // namespace metier::serving::python
