// JSON text to Python's values and back, as json.loads and json.dumps do, several times faster.
#pragma once

#include <string_view>

#include "py.h"

namespace metier::serving::python {

// str or bytes. What the fast reader does not take, json.loads decides (so its exceptions are raised).
PyObject* decode_json(PyObject* text);
// Of text that `json_members` has checked.
PyObject* decode_text(std::string_view text);
// The text of json.dumps(value), as str. Values of other types than JSON's are json.dumps' to refuse or take.
PyObject* encode_json(PyObject* value);

}  // namespace metier::serving::python
