// local: a Python file, a module's handler or any program, as a process on the caller's machine, in the caller's folder.
#pragma once

#include "kind/kind.h"

namespace metier {
std::unique_ptr<Kind> make_local_kind();
}
