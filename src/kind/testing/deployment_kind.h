// A kind with deployments, for tests: one Pod and one Service named after the function; its "run" is the deployment.
#pragma once

#include "kind/kind.h"

namespace metier {
std::unique_ptr<Kind> make_deployment_kind();  // "test-deployment"
}
