// Between Python values and our documents.
#pragma once

#include <nanobind/nanobind.h>

#include "base/json.h"
#include "model/attributes.h"

namespace metier::python {

namespace nb = nanobind;

nb::object to_python(const Json& value);
// Accepts None, bool, int, float, str, mappings, sequences, enum members and paths (as text). Raises InvalidError for anything
// else, for integers past 2^63 - 1 and for nesting deeper than 128; `field` says where.
Json from_python(nb::handle value, const std::string& field = "value");

// A mapping; None is an empty one.
JsonObject object_of(nb::handle value, const std::string& field);

// Where pods run, as the methods of node selection get it.
NodeSelection selection_of(const std::string& node_name, nb::handle node_selector,
                           nb::handle affinity, nb::handle tolerations);

// Raises the exception of metier.errors for it.
[[noreturn]] void raise(const Error& error);

template <class T>
T unwrap(Result<T>&& result) {
  if (!result) { raise(result.error()); }
  return std::move(*result);
}
inline void unwrap(Result<void>&& result) {
  if (!result) { raise(result.error()); }
}

}  // namespace metier::python
