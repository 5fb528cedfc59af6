#pragma once

#include "py.h"

namespace metier::serving::python {

bool make_model_type(PyObject* module);
// Now in UTC, as datetime.isoformat(sep=' ').
PyObject* now_text();
// A coroutine, or what else `await` takes that is no plain value.
bool is_awaitable(PyObject* object);

}  // namespace metier::serving::python
