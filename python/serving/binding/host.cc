#include <algorithm>
#include <ctime>

#include "flow.h"
#include "model.h"

namespace metier::serving::python {
namespace {

PyTypeObject* coroutine_type() {
  static PyTypeObject* type = [] {
    const Ref types(PyImport_ImportModule("types"));
    return types ? reinterpret_cast<PyTypeObject*>(
                       PyObject_GetAttrString(types.get(), "CoroutineType"))
                 : nullptr;
  }();
  return type;
}

std::int64_t steady_ns() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return std::int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

Event* event_of(Token token) { return static_cast<Event*>(token.event); }

bool true_member(PyObject* value) {
  return value != nullptr && value != Py_None && value != Py_False && PyObject_IsTrue(value) > 0;
}

}  // namespace

PyObject* value_at(const std::vector<Ref>& path, std::size_t from, PyObject* body) {
  Ref at = Ref::of(body);
  for (std::size_t i = from; i < path.size(); ++i) {
    const Ref& key = path[i];
    if (PyDict_Check(at.get())) {
      PyObject* found = PyDict_GetItemWithError(at.get(), key.get());
      if (found == nullptr) {
        if (PyErr_Occurred() != nullptr) { return nullptr; }
        at = Ref::of(Py_None);
        break;
      }
      at = Ref::of(found);
      continue;
    }
    if (at.get() == Py_None) { break; }
    // what else has members: other mappings; lists and texts have none of that name
    Ref next(PyObject_GetItem(at.get(), key.get()));
    if (!next) {
      if (PyErr_ExceptionMatches(PyExc_KeyError) == 0) { return nullptr; }
      PyErr_Clear();
      next = Ref::of(Py_None);
    }
    at = std::move(next);
  }
  return at.release();
}

PyObject* put_at(const std::vector<Ref>& path, PyObject* body, PyObject* value) {
  const Ref put(value);
  const int full = body == nullptr || body == Py_None ? 0 : PyObject_IsTrue(body);
  if (path.empty() || full <= 0) {
    PyErr_Clear();
    return Ref(put).release();
  }
  Ref at = Ref::of(body);
  for (std::size_t i = 0; i + 1 < path.size(); ++i) {
    Ref next(PyObject_GetItem(at.get(), path[i].get()));
    if (!next) {
      if (PyErr_ExceptionMatches(PyExc_KeyError) == 0) { return nullptr; }
      PyErr_Clear();
      next = Ref(PyDict_New());
      if (!next || PyObject_SetItem(at.get(), path[i].get(), next.get()) != 0) { return nullptr; }
    }
    at = std::move(next);
  }
  if (PyObject_SetItem(at.get(), path.back().get(), put.get()) != 0) { return nullptr; }
  return Ref::of(body).release();
}

Ref take_exception() {
  PyObject *type = nullptr, *value = nullptr, *trace = nullptr;
  PyErr_Fetch(&type, &value, &trace);
  PyErr_NormalizeException(&type, &value, &trace);
  if (value != nullptr && trace != nullptr) { PyException_SetTraceback(value, trace); }
  Py_XDECREF(type);
  Py_XDECREF(trace);
  return Ref(value);
}

void restore(const Ref& exception) {
  PyObject* type = reinterpret_cast<PyObject*>(Py_TYPE(exception.get()));
  Py_INCREF(type);
  PyErr_Restore(type, Ref(exception).release(), PyException_GetTraceback(exception.get()));
}

bool is_awaitable(PyObject* object) { return Py_TYPE(object) == coroutine_type(); }

Verdict PythonHost::raised(int step) {
  error_ = take_exception();
  ++flow_.handlers[static_cast<std::size_t>(step)].failures;
  return Verdict::failed;
}

Verdict PythonHost::run(int step, Token token, int from) {
  Event* event = event_of(token);
  ++flow_.handlers[static_cast<std::size_t>(step)].count;
  event->from = from;
  if (!flow_.stats) { return call(step, event); }
  const std::int64_t began = steady_ns();
  Request* const request = event->request;
  const Verdict verdict = call(step, event);
  if (verdict == Verdict::parked) {
    request->parked.back().began = began;
  } else {
    count(step, began, verdict);
  }
  return verdict;
}

void PythonHost::count(int step, std::int64_t began, Verdict verdict) {
  if (!flow_.stats) { return; }
  flow_.stats->add(static_cast<std::size_t>(step), steady_ns() - began, verdict == Verdict::failed);
}

Verdict PythonHost::call(int step, Event* event) {
  Handler& handler = flow_.handlers[static_cast<std::size_t>(step)];
  if (handler.mode == Mode::pass) { return Verdict::next; }
  PyObject* result = nullptr;
  if (handler.whole) {
    result = call_one(handler.call.get(), reinterpret_cast<PyObject*>(event), handler.kwargs.get());
  } else if (handler.input.empty()) {
    const Ref body = Ref::of(body_of(event));
    result = body ? call_one(handler.call.get(), body.get(), handler.kwargs.get()) : nullptr;
  } else {
    const Ref body(event->text != nullptr ? event->text->at(handler.input)
                                          : value_at(handler.input, 0, body_of(event)));
    result = body ? call_one(handler.call.get(), body.get(), handler.kwargs.get()) : nullptr;
  }
  if (result == nullptr) { return raised(step); }
  if ((handler.coroutine || Py_TYPE(result) == coroutine_type()) && event->request != nullptr) {
    event->request->parked.push_back({step, event, Ref(result)});
    return Verdict::parked;
  }
  const Verdict verdict = value(handler, step, event, result);
  return verdict;
}

Verdict PythonHost::finish(int step, Event* event, PyObject* result, std::int64_t began) {
  const Verdict verdict = result == nullptr ? raised(step)
                                            : value(flow_.handlers[static_cast<std::size_t>(step)],
                                                    step, event, result);
  count(step, began, verdict);
  return verdict;
}

// Takes over `result`.
Verdict PythonHost::value(Handler& handler, int step, Event* event, PyObject* result) {
  switch (handler.mode) {
    case Mode::map: {
      if (handler.result.empty()) {
        set_body(event, result);
        break;
      }
      if (handler.result.size() == 1 && event->text != nullptr && event->text->full()) {
        event->text->put(handler.result[0].get(), Ref(result).get());
        break;
      }
      const Ref held(result);
      PyObject* old = body_of(event);
      PyObject* body = old == nullptr ? nullptr : put_at(handler.result, old, Ref(held).release());
      if (body == nullptr) { return raised(step); }
      set_body(event, body);
      break;
    }
    case Mode::event:
      if (!take_event(step, event, result)) { return raised(step); }
      break;
    case Mode::filter: {
      const int keep = PyObject_IsTrue(result);
      Py_DECREF(result);
      if (keep < 0) { return raised(step); }
      if (keep == 0) { return Verdict::drop; }
      break;
    }
    case Mode::extend: {
      const Ref members(result);
      PyObject* body = body_of(event);
      const Ref done(body == nullptr || body == Py_None
                         ? nullptr
                         : PyObject_CallMethod(body, "update", "O", result));
      if (!done) {
        if (PyErr_Occurred() == nullptr) {
          PyErr_SetString(PyExc_TypeError, "Extend needs a dict as body, got None");
        }
        return raised(step);
      }
      break;
    }
    case Mode::flat: {
      const Ref items(PyObject_GetIter(result));
      Py_DECREF(result);
      if (!items) { return raised(step); }
      made_.clear();
      while (PyObject* item = PyIter_Next(items.get())) {
        Event* made = copy_event(event);
        if (made == nullptr) { break; }
        set_body(made, item);
        made_.push_back({made});
      }
      if (PyErr_Occurred() != nullptr) {
        for (Token token : made_) { Py_DECREF(event_of(token)); }
        made_.clear();
        return raised(step);
      }
      return Verdict::many;
    }
    case Mode::emit: return emitted(event, result);
    case Mode::each:
    case Mode::pass: Py_DECREF(result); break;
  }
  if (true_member(event->terminated)) { return Verdict::ended; }
  return handler.selector ? choose(handler, step, event) : Verdict::next;
}

Verdict PythonHost::emitted(Event* event, PyObject* result) {
  const Ref given(result);
  if (result == Py_None) { return Verdict::drop; }
  if (result == reinterpret_cast<PyObject*>(event)) { return Verdict::next; }
  made_.clear();
  const auto add = [&](PyObject* item) {
    if (!is_event(item)) { return; }
    Py_INCREF(item);
    auto* made = reinterpret_cast<Event*>(item);
    if (made->request == nullptr && event->request != nullptr) {
      made->request = event->request;
      hold(made->request);
      inherit(made, event);
    }
    made_.push_back({made});
  };
  if (is_event(result)) {
    add(result);
  } else if (PyList_Check(result)) {
    for (Py_ssize_t i = 0; i < PyList_Size(result); ++i) { add(PyList_GetItem(result, i)); }
  }
  return Verdict::many;
}

bool PythonHost::take_event(int step, Event* event, PyObject* result) {
  const Ref given(result);
  if (result == reinterpret_cast<PyObject*>(event)) { return true; }
  if (result == Py_None) {
    PyErr_Format(PyExc_TypeError,
                 "step '%s' returned nothing; it is given the whole event and must return it",
                 flow_.plan.steps[static_cast<std::size_t>(step)].name.c_str());
    return false;
  }
  if (is_event(result) || PyObject_HasAttrString(result, "body") != 0) {
    const Ref dict(is_event(result) ? nullptr : PyObject_GetAttrString(result, "status_code"));
    PyErr_Clear();
    if (!dict) { return take_attributes(event, result); }
  }
  set_body(event, Ref(given).release());  // a plain value, or a Response, in place of the event
  return true;
}

Verdict PythonHost::choose(Handler& handler, int step, Event* event) {
  PyObject* body = body_of(event);
  const Ref names(body == nullptr ? nullptr : call_one(handler.selector.get(), body));
  if (!names) { return raised(step); }
  if (names.get() == Py_None) { return Verdict::next; }
  const Ref sequence(PySequence_List(names.get()));
  if (!sequence) { return raised(step); }
  chosen_.clear();
  const PlanStep& info = flow_.plan.steps[static_cast<std::size_t>(step)];
  for (Py_ssize_t i = 0; i < PyList_Size(sequence.get()); ++i) {
    const Ref text(PyObject_Str(PyList_GetItem(sequence.get(), i)));
    const char* name = text ? PyUnicode_AsUTF8AndSize(text.get(), nullptr) : nullptr;
    const auto found = std::ranges::find_if(info.next, [&](int to) {
      return name != nullptr && flow_.plan.steps[static_cast<std::size_t>(to)].name == name;
    });
    if (found == info.next.end() || std::ranges::find(chosen_, *found) != chosen_.end()) {
      PyErr_Format(PyExc_ValueError, "step '%s' selected the outlet '%s', which %s",
                   info.name.c_str(), name,
                   found == info.next.end() ? "is not one of the steps after it"
                                            : "it has selected already");
      return raised(step);
    }
    chosen_.push_back(*found);
  }
  return Verdict::some;
}

void PythonHost::outlets(std::vector<int>& steps) { steps = chosen_; }

void PythonHost::take(std::vector<Token>& tokens) {
  for (Token token : made_) { enter(event_of(token)); }
  tokens.swap(made_);
}

Token PythonHost::branch(Token token) {
  Event* event = event_of(token);
  Event* other = copy_event(event);
  if (other != nullptr && other->text == nullptr && event->body != nullptr) {
    PyObject* body = clone_body(event->body);
    if (body == nullptr) {  // what cannot be copied is shared
      PyErr_Clear();
    } else {
      set_body(other, body);
    }
  }
  if (other == nullptr) {
    PyErr_Clear();
    Py_INCREF(event);
    other = event;
  }
  enter(other);
  return {other};
}

void PythonHost::drop(Token token) {
  Event* event = event_of(token);
  leave(event);
  Py_DECREF(event);
}

void PythonHost::recover(int step, Token token) {
  Event* event = event_of(token);
  const PlanStep& info = flow_.plan.steps[static_cast<std::size_t>(step)];
  if (flow_.on_step_error) {
    const Ref done(PyObject_CallFunction(flow_.on_step_error.get(), "OOs", event, error_.get(),
                                         info.name.c_str()));
    PyErr_Clear();
  }
  if (!flow_.plan.sync) {
    assign(event->error, error_.get());
    Py_XDECREF(std::exchange(event->origin_state, PyUnicode_FromString(info.name.c_str())));
    return;
  }
  const Ref text(flow_.error_text ? call_one(flow_.error_text.get(), error_.get())
                                  : PyObject_Str(error_.get()));
  PyErr_Clear();
  const Ref errors(event->error != nullptr && PyDict_Check(event->error)
                       ? Ref::of(event->error).release()
                       : PyDict_New());
  if (errors && text) { PyDict_SetItemString(errors.get(), info.name.c_str(), text.get()); }
  assign(event->error, errors.get());
  Py_XDECREF(std::exchange(event->origin_state, PyUnicode_FromString(info.full_name.c_str())));
}

void PythonHost::fail(int step, Token token) {
  Event* event = event_of(token);
  if (event->request != nullptr && !event->request->answered) {
    event->request->answered = true;
    event->request->error = error_;
  } else if (flow_.on_step_error) {
    if (event->request != nullptr && event->request->stream && !event->request->error) {
      event->request->error = error_;
    }
    const Ref done(
        PyObject_CallFunction(flow_.on_step_error.get(), "OOs", event, error_.get(),
                              flow_.plan.steps[static_cast<std::size_t>(step)].name.c_str()));
    PyErr_Clear();
  }
  error_ = Ref();
  drop(token);
}

void PythonHost::respond(Token token) {
  Event* event = event_of(token);
  if (event->request != nullptr && !event->request->answered) {
    event->request->answered = true;
    if (event->text != nullptr) {
      event->request->answer_text = std::make_unique<BodyText>(*event->text);
    } else {
      event->request->answer = Ref::of(body_of(event));
    }
  }
}

}  // namespace metier::serving::python
