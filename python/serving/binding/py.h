// The limited C API of Python (stable since 3.10; the few names used are exported by 3.9 too), so that one file serves
// every interpreter that a user's environment may have.
#pragma once

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030A0000
#include <Python.h>
#include <structmember.h>

#include <utility>

extern "C" {
// Exported by every CPython since 3.9, though not part of the limited API: absent elsewhere, then calls are slower.
__attribute__((weak)) PyObject* PyObject_VectorcallDict(PyObject* callable, PyObject* const* args,
                                                        std::size_t count, PyObject* kwargs);
}

namespace metier::serving::python {

// An owned reference.
class Ref {
 public:
  Ref() = default;
  explicit Ref(PyObject* owned) : object_(owned) {}
  static Ref of(PyObject* borrowed) {
    Py_XINCREF(borrowed);
    return Ref(borrowed);
  }
  Ref(const Ref& other) : object_(other.object_) { Py_XINCREF(object_); }
  Ref(Ref&& other) noexcept : object_(std::exchange(other.object_, nullptr)) {}
  Ref& operator=(Ref other) noexcept {
    std::swap(object_, other.object_);
    return *this;
  }
  ~Ref() { Py_XDECREF(object_); }
  PyObject* get() const { return object_; }
  PyObject* release() { return std::exchange(object_, nullptr); }
  explicit operator bool() const { return object_ != nullptr; }

 private:
  PyObject* object_ = nullptr;
};

inline PyObject* call_one(PyObject* callable, PyObject* argument, PyObject* kwargs = nullptr) {
  if (PyObject_VectorcallDict != nullptr) {
    PyObject* const args[1] = {argument};
    return PyObject_VectorcallDict(callable, args, 1, kwargs);
  }
  const Ref tuple(PyTuple_Pack(1, argument));
  return tuple ? PyObject_Call(callable, tuple.get(), kwargs) : nullptr;
}

// `*slot = value` for members of objects: takes a borrowed value.
inline void assign(PyObject*& slot, PyObject* value) {
  Py_XINCREF(value);
  PyObject* old = std::exchange(slot, value);
  Py_XDECREF(old);
}

}  // namespace metier::serving::python
