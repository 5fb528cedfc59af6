// job: one Pod per run.
#pragma once

#include "kind/kind.h"

namespace metier {
std::unique_ptr<Kind> make_job_kind();
}
