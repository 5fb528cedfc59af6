// Nuclio's methods of a function.
#pragma once

#include <nanobind/nanobind.h>

#include "model/function.h"

namespace metier::python {

void bind_nuclio(nanobind::class_<Function>& cls);

}  // namespace metier::python
