// What a driver's own REST (its UI port) says about an application's progress.
#pragma once

#include <string>

#include "base/async.h"
#include "base/json.h"
#include "net/client.h"

namespace metier {

// {app, jobs: {running, done, failed}, stages: {…}, tasks: {active, done, failed, total}, executors}; null while the
// driver has no session. Never an error: a driver that does not answer has nothing to say.
Async<Result<Json>> ask_spark(net::Client& client, std::string base);

// {total, dismissed: [ids]} of the cluster manager in the driver (spark/); null when it does not answer.
Async<Json> ask_spark_wishes(net::Client& client, std::string url);

// Pure: from the documents of /jobs, /stages and /executors.
Json spark_progress(std::string_view app, const Json& jobs, const Json& stages,
                    const Json& executors);

}  // namespace metier
