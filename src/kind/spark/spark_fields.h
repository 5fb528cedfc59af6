// What kind spark takes of a function's fields. Pods of other kinds have one role; a Spark application has two, and most common fields
// are its roles' own.
#pragma once

#include <string>
#include <vector>

#include "model/function.h"
#include "model/problems.h"

namespace metier {

// A common field that neither role can have: the error names the roles' own. Empty values are nothing: MLRun's SDK writes them.
void check_common_fields(const Function& function, ProblemList& problems);

// True where MLRun's with_igz_spark was called: its jars and files, which are in Iguazio's images only.
bool is_for_iguazio(const Function& function);
// Types of the kind's own fields, and the keys that those with a fixed set of them may have. Null and empty values are nothing.
void check_own_fields(const Function& function, ProblemList& problems);

// What has no effect on the embedded cluster: what says which image there is to be, and what is the operator's or Iguazio's. A sentence
// each; nothing of what MLRun's SDK writes by itself.
std::vector<std::string> ignored_fields(const Function& function);

}  // namespace metier
