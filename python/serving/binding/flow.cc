#include "flow.h"

#include <algorithm>
#include <array>
#include <new>
#include <string>
#include <string_view>

namespace metier::serving::python {

PyTypeObject* flow_type = nullptr;

Flow::~Flow() {
  if (lock != nullptr) { PyThread_free_lock(lock); }
}

bool Flow::reads_part() const {
  return !plan.starts.empty() && std::ranges::all_of(plan.starts, [this](int start) {
    const Handler& handler = handlers[static_cast<std::size_t>(start)];
    return !handler.whole && !handler.input.empty() && !handler.selector;
  });
}

FlowLock::FlowLock(Flow& flow) : flow_(flow) {
  if (flow.plan.sync) { return; }
  const unsigned long me = PyThread_get_thread_ident();
  if (flow.depth > 0 && flow.owner == me) {
    ++flow.depth;
    return;
  }
  if (PyThread_acquire_lock(flow.lock, NOWAIT_LOCK) == 0) {
    PyThreadState* state = PyEval_SaveThread();
    PyThread_acquire_lock(flow.lock, WAIT_LOCK);
    PyEval_RestoreThread(state);
  }
  flow.owner = me;
  flow.depth = 1;
}

FlowLock::~FlowLock() {
  if (flow_.plan.sync) { return; }
  if (--flow_.depth == 0) { PyThread_release_lock(flow_.lock); }
}

namespace {

struct FlowObject {
  PyObject_HEAD Flow* flow;
};

struct ParkedObject {
  PyObject_HEAD PyObject* flow;
  PyObject* awaitable;
  Event* event;
  Request* request;
  int step;
  std::int64_t began;
};

PyTypeObject* parked_type = nullptr;

// GraphError of metier_serving.errors, with the parts of our Error.
PyObject* raise(const Error& error) {
  const Ref module(PyImport_ImportModule("metier_serving.errors"));
  const Ref made(module ? PyObject_CallMethod(module.get(), "make_graph_error", "ssssz",
                                              error.message.c_str(), error.field.c_str(),
                                              error.fix.c_str(), error.code.c_str(), nullptr)
                        : nullptr);
  if (made) { PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(made.get())), made.get()); }
  return nullptr;
}

int init(PyObject* self, PyObject* args, PyObject* kwargs) {
  const char *text = nullptr, *current = "*", *from = "";
  Py_ssize_t size = 0;
  static std::array names = {const_cast<char*>("graph"), const_cast<char*>("current_function"),
                             const_cast<char*>("from_step"), static_cast<char*>(nullptr)};
  if (PyArg_ParseTupleAndKeywords(args, kwargs, "s#|ss", names.data(), &text, &size, &current,
                                  &from) == 0) {
    return -1;
  }
  Result<Json> graph = parse_json({text, static_cast<std::size_t>(size)});
  if (graph && !graph->is_object()) {
    graph = metier::fail(invalid("graph", "it is not an object"));
  }
  if (!graph) { return raise(graph.error()) == nullptr ? -1 : -1; }
  Result<Plan> plan =
      compile_graph(graph->get_object(), {.current_function = current, .from_step = from});
  if (!plan) { return raise(plan.error()) == nullptr ? -1 : -1; }
  auto flow = std::make_unique<Flow>();
  flow->plan = std::move(*plan);
  flow->handlers.resize(flow->plan.steps.size());
  flow->lock = PyThread_allocate_lock();
  delete std::exchange(reinterpret_cast<FlowObject*>(self)->flow, flow.release());
  return 0;
}

int traverse(PyObject* self, visitproc visit, void* arg) {
  Py_VISIT(Py_TYPE(self));
  const Flow* flow = flow_of(self);
  if (flow == nullptr) { return 0; }
  for (const Handler& handler : flow->handlers) {
    Py_VISIT(handler.call.get());
    Py_VISIT(handler.kwargs.get());
    Py_VISIT(handler.selector.get());
  }
  Py_VISIT(flow->on_step_error.get());
  Py_VISIT(flow->error_text.get());
  return 0;
}

int clear(PyObject* self) {
  Flow* flow = flow_of(self);
  if (flow == nullptr) { return 0; }
  for (Handler& handler : flow->handlers) {
    handler.mode = Mode::pass;
    handler.call = Ref();
    handler.kwargs = Ref();
    handler.selector = Ref();
  }
  flow->on_step_error = Ref();
  flow->error_text = Ref();
  return 0;
}

void dealloc(PyObject* self) {
  PyTypeObject* type = Py_TYPE(self);
  PyObject_GC_UnTrack(self);
  delete flow_of(self);
  PyObject_GC_Del(self);
  Py_DECREF(type);
}

std::string_view kind_name(StepKind kind) {
  constexpr std::array<std::string_view, 5> kNames = {"task", "router", "queue", "error_step",
                                                      "choice"};
  return kNames[static_cast<std::size_t>(kind)];
}

// The table as JSON text: what the Python side needs to make a callable for each step.
PyObject* steps(PyObject* self, PyObject*) {
  const Flow& flow = *flow_of(self);
  const auto names = [&](const std::vector<int>& at) {
    JsonArray out;
    for (int i : at) { out.emplace_back(flow.plan.steps[static_cast<std::size_t>(i)].name); }
    return out;
  };
  JsonArray out;
  for (std::size_t i = 0; i < flow.plan.steps.size(); ++i) {
    const PlanStep& step = flow.plan.steps[i];
    out.push_back(JsonObject{
        {"name", step.name},
        {"kind", kind_name(step.kind)},
        {"next", names(step.next)},
        {"before", names(step.before)},
        {"error", step.error < 0
                      ? Json(nullptr)
                      : Json(flow.plan.steps[static_cast<std::size_t>(step.error)].name)},
        {"local", step.local},
        {"responder", step.responder},
        {"count", flow.handlers[i].count},
        {"failures", flow.handlers[i].failures}});
  }
  const std::string text = dump_json(JsonObject{{"sync", flow.plan.sync},
                                                {"waits", flow.plan.waits},
                                                {"router_root", flow.plan.router_root},
                                                {"starts", names(flow.plan.starts)},
                                                {"steps", std::move(out)}});
  return PyUnicode_FromStringAndSize(text.data(), static_cast<Py_ssize_t>(text.size()));
}

bool take_path(PyObject* names, std::vector<Ref>& out) {
  out.clear();
  if (names == Py_None) { return true; }
  const Py_ssize_t size = PySequence_Size(names);
  for (Py_ssize_t i = 0; i < size; ++i) {
    PyObject* item = PySequence_GetItem(names, i);
    if (item == nullptr) { return false; }
    PyUnicode_InternInPlace(&item);
    out.emplace_back(item);
  }
  return size >= 0;
}

Mode mode_of(std::string_view name) {
  constexpr std::array<std::string_view, 8> kNames = {"pass", "map",    "event", "filter",
                                                      "flat", "extend", "each",  "emit"};
  for (std::size_t i = 0; i < kNames.size(); ++i) {
    if (kNames[i] == name) { return static_cast<Mode>(i); }
  }
  return Mode::pass;
}

// bind(index, callable, mode, whole, input_path, result_path, kwargs, coroutine, selector)
PyObject* bind(PyObject* self, PyObject* args) {
  int index = 0, whole = 0, coroutine = 0;
  PyObject *call = nullptr, *input = nullptr, *result = nullptr, *kwargs = nullptr,
           *selector = nullptr;
  const char* mode = nullptr;
  if (PyArg_ParseTuple(args, "iOspOOOpO", &index, &call, &mode, &whole, &input, &result, &kwargs,
                       &coroutine, &selector) == 0) {
    return nullptr;
  }
  Flow& flow = *flow_of(self);
  if (index < 0 || static_cast<std::size_t>(index) >= flow.handlers.size()) {
    PyErr_SetString(PyExc_IndexError, "there is no step of that index");
    return nullptr;
  }
  Handler& handler = flow.handlers[static_cast<std::size_t>(index)];
  handler.call = Ref::of(call);
  handler.mode = mode_of(mode);
  handler.whole = whole != 0;
  handler.coroutine = coroutine != 0;
  handler.kwargs = kwargs == Py_None ? Ref() : Ref::of(kwargs);
  handler.selector = selector == Py_None ? Ref() : Ref::of(selector);
  if (!take_path(input, handler.input) || !take_path(result, handler.result)) { return nullptr; }
  Py_RETURN_NONE;
}

PyObject* hooks(PyObject* self, PyObject* args) {
  PyObject *on_error = nullptr, *text = nullptr;
  if (PyArg_ParseTuple(args, "OO", &on_error, &text) == 0) { return nullptr; }
  flow_of(self)->on_step_error = Ref::of(on_error);
  flow_of(self)->error_text = Ref::of(text);
  Py_RETURN_NONE;
}

// measure(path): counts and times of the steps are written to that file.
PyObject* measure(PyObject* self, PyObject* path) {
  const char* text = PyUnicode_AsUTF8AndSize(path, nullptr);
  if (text == nullptr) { return nullptr; }
  Flow& flow = *flow_of(self);
  std::vector<std::string> names;
  for (const PlanStep& step : flow.plan.steps) { names.push_back(step.name); }
  auto made = StepStats::create(text, names);
  if (!made) {
    PyErr_SetString(PyExc_OSError, made.error().message.c_str());
    return nullptr;
  }
  flow.stats = std::move(*made);
  Py_RETURN_NONE;
}

PyObject* make_parked(PyObject* flow, Request::Parked&& parked) {
  static const auto alloc = reinterpret_cast<allocfunc>(PyType_GetSlot(parked_type, Py_tp_alloc));
  auto* made = reinterpret_cast<ParkedObject*>(alloc(parked_type, 0));
  if (made == nullptr) { return nullptr; }
  made->flow = Ref::of(flow).release();
  made->awaitable = parked.awaitable.release();
  made->event = parked.event;
  made->request = parked.event->request;
  hold(made->request);
  made->step = parked.step;
  made->began = parked.began;
  return reinterpret_cast<PyObject*>(made);
}

void parked_dealloc(PyObject* self) {
  PyTypeObject* type = Py_TYPE(self);
  auto* parked = reinterpret_cast<ParkedObject*>(self);
  Py_XDECREF(parked->flow);
  Py_XDECREF(parked->awaitable);
  Py_XDECREF(parked->event);
  if (parked->request != nullptr) { let_go(parked->request); }
  reinterpret_cast<freefunc>(PyType_GetSlot(type, Py_tp_free))(self);
  Py_DECREF(type);
}

// What a walk has parked, as a list of Parked; the request forgets them.
PyObject* parked_list(PyObject* flow, Request& request) {
  std::vector<Request::Parked> parked;
  parked.swap(request.parked);
  Ref out(PyList_New(0));
  for (Request::Parked& item : parked) {
    const Ref made(make_parked(flow, std::move(item)));
    if (!out || !made || PyList_Append(out.get(), made.get()) != 0) { return nullptr; }
  }
  return out.release();
}

// Parked.resume(result) and Parked.throw(exception): goes on behind the step; the list of what is parked now.
PyObject* go_on(PyObject* self, PyObject* result, bool failed) {
  auto* parked = reinterpret_cast<ParkedObject*>(self);
  Event* event = std::exchange(parked->event, nullptr);
  if (event == nullptr) {
    PyErr_SetString(PyExc_RuntimeError, "this event has gone on already");
    return nullptr;
  }
  Flow& flow = *flow_of(parked->flow);
  Request& request = *event->request;
  hold(&request);
  {
    const FlowLock locked(flow);
    PythonHost host(flow);
    if (failed) {
      restore(Ref::of(result));
    } else {
      Py_INCREF(result);
    }
    const Verdict verdict =
        host.finish(parked->step, event, failed ? nullptr : result, parked->began);
    Walk(flow.plan, host).resume(parked->step, {event}, verdict);
  }
  PyObject* out = parked_list(parked->flow, request);
  let_go(&request);
  return out;
}

PyObject* resume(PyObject* self, PyObject* result) { return go_on(self, result, false); }
PyObject* throw_in(PyObject* self, PyObject* exception) { return go_on(self, exception, true); }

PyObject* parked_finished(PyObject* self, PyObject*) {
  auto* parked = reinterpret_cast<ParkedObject*>(self);
  return PyBool_FromLong(parked->request->finished() ? 1 : 0);
}

PyObject* parked_step(PyObject* self, void*) {
  auto* parked = reinterpret_cast<ParkedObject*>(self);
  return PyUnicode_FromString(
      flow_of(parked->flow)->plan.steps[static_cast<std::size_t>(parked->step)].name.c_str());
}

// emit(step name, event): an event of the step's own goes on behind it (a batch whose time is over).
PyObject* emit(PyObject* self, PyObject* args) {
  const char* name = nullptr;
  PyObject* given = nullptr;
  if (PyArg_ParseTuple(args, "sO!", &name, event_type, &given) == 0) { return nullptr; }
  Flow& flow = *flow_of(self);
  const int step = flow.plan.index_of(name);
  if (step < 0) {
    PyErr_SetString(PyExc_KeyError, name);
    return nullptr;
  }
  auto* event = reinterpret_cast<Event*>(given);
  Py_INCREF(event);
  if (event->request == nullptr) {
    event->request = new Request;
    event->request->answered = true;  // nobody waits
  }
  enter(event);
  hold(event->request);
  Request* request = event->request;
  {
    const FlowLock locked(flow);
    PythonHost host(flow);
    Walk(flow.plan, host).resume(step, {event}, Verdict::next);
  }
  PyObject* out = parked_list(self, *request);
  let_go(request);
  return out;
}

PyObject* get_waits(PyObject* self, void*) {
  return PyBool_FromLong(flow_of(self)->plan.waits ? 1 : 0);
}
PyObject* get_sync(PyObject* self, void*) {
  return PyBool_FromLong(flow_of(self)->plan.sync ? 1 : 0);
}

}  // namespace

Flow* flow_of(PyObject* object) { return reinterpret_cast<FlowObject*>(object)->flow; }

PyObject* parked_of(PyObject* flow, Request& request) { return parked_list(flow, request); }

bool make_flow_type(PyObject* module) {
  static std::array methods = {
      PyMethodDef{"steps", steps, METH_NOARGS, "The compiled table as JSON text."},
      PyMethodDef{"bind", bind, METH_VARARGS, "Gives a step its callable."},
      PyMethodDef{"hooks", hooks, METH_VARARGS, "(on_step_error, error_text)"},
      PyMethodDef{"measure", measure, METH_O, "Counts and times of the steps, into a file."},
      PyMethodDef{"emit", emit, METH_VARARGS, "Sends an event on from behind a step."},
      PyMethodDef{}};
  static std::array getters = {PyGetSetDef{"waits", get_waits, nullptr, nullptr, nullptr},
                               PyGetSetDef{"sync", get_sync, nullptr, nullptr, nullptr},
                               PyGetSetDef{}};
  static std::array slots = {PyType_Slot{Py_tp_init, reinterpret_cast<void*>(init)},
                             PyType_Slot{Py_tp_dealloc, reinterpret_cast<void*>(dealloc)},
                             PyType_Slot{Py_tp_traverse, reinterpret_cast<void*>(traverse)},
                             PyType_Slot{Py_tp_clear, reinterpret_cast<void*>(clear)},
                             PyType_Slot{Py_tp_methods, methods.data()},
                             PyType_Slot{Py_tp_getset, getters.data()},
                             PyType_Slot{0, nullptr}};
  PyType_Spec spec{"metier_serving._engine.Flow", sizeof(FlowObject), 0,
                   Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC, slots.data()};
  flow_type = reinterpret_cast<PyTypeObject*>(PyType_FromSpec(&spec));

  static std::array parked_methods = {
      PyMethodDef{"resume", resume, METH_O, nullptr},
      PyMethodDef{"throw", throw_in, METH_O, nullptr},
      PyMethodDef{"finished", parked_finished, METH_NOARGS, nullptr}, PyMethodDef{}};
  static std::array parked_members = {
      PyMemberDef{const_cast<char*>("awaitable"), T_OBJECT,
                  static_cast<Py_ssize_t>(offsetof(ParkedObject, awaitable)), READONLY, nullptr},
      PyMemberDef{}};
  static std::array parked_getters = {PyGetSetDef{"step", parked_step, nullptr, nullptr, nullptr},
                                      PyGetSetDef{}};
  static std::array parked_slots = {
      PyType_Slot{Py_tp_dealloc, reinterpret_cast<void*>(parked_dealloc)},
      PyType_Slot{Py_tp_methods, parked_methods.data()},
      PyType_Slot{Py_tp_members, parked_members.data()},
      PyType_Slot{Py_tp_getset, parked_getters.data()}, PyType_Slot{0, nullptr}};
  PyType_Spec parked_spec{"metier_serving._engine.Parked", sizeof(ParkedObject), 0,
                          Py_TPFLAGS_DEFAULT, parked_slots.data()};
  parked_type = reinterpret_cast<PyTypeObject*>(PyType_FromSpec(&parked_spec));
  return flow_type != nullptr && parked_type != nullptr &&
         PyModule_AddObject(module, "Flow", reinterpret_cast<PyObject*>(flow_type)) == 0;
}

}  // namespace metier::serving::python
