#include "library.h"

#include <dlfcn.h>

#include <memory>
#include <string>

#include "json_text.h"
#include "metier/step.h"

namespace metier::serving::python {
namespace {

using StepFunction = std::int32_t (*)(const char*, std::size_t, metier_step_result_v1*);
constexpr const char* kCapsule = "metier_serving.library_step";

struct LibraryStep {
  StepFunction function;
  std::string step;
  Ref failed;
};

struct Given {  // what a library gave is freed where it was made
  metier_step_result_v1 result{};
  ~Given() {
    if (result.release != nullptr) { result.release(result.data); }
  }
};

// Bytes and texts as they are, everything else as JSON.
Ref text_of(PyObject* body) {
  if (PyBytes_Check(body)) { return Ref::of(body); }
  const Ref text(PyUnicode_Check(body) ? Ref::of(body).release() : encode_json(body));
  return text ? Ref(PyUnicode_AsUTF8String(text.get())) : Ref();
}

PyObject* value_of(const metier_step_result_v1& result) {
  const Ref bytes(PyBytes_FromStringAndSize(result.data, static_cast<Py_ssize_t>(result.size)));
  if (!bytes) { return nullptr; }
  PyObject* value = decode_json(bytes.get());
  if (value != nullptr || PyErr_ExceptionMatches(PyExc_ValueError) == 0) { return value; }
  PyErr_Clear();
  return Ref(bytes).release();
}

PyObject* call(PyObject* capsule, PyObject* body) {
  const auto* step = static_cast<const LibraryStep*>(PyCapsule_GetPointer(capsule, kCapsule));
  const Ref text = step == nullptr ? Ref() : text_of(body);
  if (!text) { return nullptr; }
  char* data = nullptr;
  Py_ssize_t size = 0;
  if (PyBytes_AsStringAndSize(text.get(), &data, &size) != 0) { return nullptr; }
  Given given;
  std::int32_t status = 0;
  PyThreadState* state = PyEval_SaveThread();
  status = step->function(data, static_cast<std::size_t>(size), &given.result);
  PyEval_RestoreThread(state);
  if (status == 2) {
    PyErr_Format(PyExc_MemoryError, "step '%s'", step->step.c_str());
    return nullptr;
  }
  if (status == 0) { return value_of(given.result); }
  const Ref why(PyUnicode_DecodeUTF8(given.result.data, static_cast<Py_ssize_t>(given.result.size),
                                     "replace"));
  if (why) { PyErr_SetObject(step->failed.get(), why.get()); }
  return nullptr;
}

void drop(PyObject* capsule) {
  delete static_cast<LibraryStep*>(PyCapsule_GetPointer(capsule, kCapsule));
}

PyMethodDef method{"library_step", call, METH_O, "A step of a shared library."};

}  // namespace

PyObject* library_step(PyObject*, PyObject* args) {
  const char *path = nullptr, *name = nullptr, *step = nullptr;
  PyObject* failed = nullptr;
  if (PyArg_ParseTuple(args, "sssO", &path, &name, &step, &failed) == 0) { return nullptr; }
  void* library = ::dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    const char* why = ::dlerror();
    PyErr_SetString(PyExc_OSError, why == nullptr ? path : why);
    return nullptr;
  }
  void* function = ::dlsym(library, ("metier_step_v1_" + std::string(name)).c_str());
  if (function == nullptr) {
    PyErr_SetString(PyExc_LookupError, name);
    return nullptr;
  }
  auto made = std::make_unique<LibraryStep>(
      LibraryStep{reinterpret_cast<StepFunction>(function), step, Ref::of(failed)});
  const Ref capsule(PyCapsule_New(made.get(), kCapsule, &drop));
  if (!capsule) { return nullptr; }
  made.release();
  return PyCFunction_NewEx(&method, capsule.get(), nullptr);
}

}  // namespace metier::serving::python
