// metier_serving._engine.library_step: a function of a shared library (include/metier/step.h) as a Python callable.
#pragma once

#include "py.h"

namespace metier::serving::python {

// library_step(path, name, step, failed): the callable body -> body. OSError (no library), LookupError (no such step).
// The callable raises `failed` with the library's text; the interpreter goes on with other threads meanwhile.
PyObject* library_step(PyObject* module, PyObject* args);

}  // namespace metier::serving::python
