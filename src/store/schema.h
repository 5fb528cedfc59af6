// The tables, as numbered steps. A step is never changed once it has been released; a new one is added.
#pragma once

#include "store/sqlite.h"

namespace metier {

// Brings the file up to this program's version, each step in a transaction of its own.
// Errors: invalid when the file was written by a newer program (it is not touched).
Result<void> migrate(Database& database);
int schema_version();

}  // namespace metier
