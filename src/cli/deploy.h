// Deployments on the command line: what `deploy`, `invoke` and the verbs that look share.
#pragma once

#include "cli/document.h"
#include "cli/log_reader.h"
#include "cli/verbs.h"

namespace metier::cli {

// Of a submit or a deploy: the caller's interpreter and the folder of the function's file.
Result<Caller> caller_of(Command& command);
net::Headers submit_headers(Command& command, const Submission& submission);

// The function that `deploy` sends, by the arguments of `deploy` (and of `render` for kinds that are deployed).
Result<Submission> make_deployment(Command& command);
// The deployment's view: {"state", "status", "parts", "revision", …}. Errors: not_found.
Result<JsonObject> deployment(Command& command, const std::string& name,
                              std::uint64_t revision = 0);
// State, addresses, replicas, pods and conditions of a deployed function, as `describe` shows them.
void show_deployment(Command& command, const JsonObject& view);
// Why it is not ready, in a sentence.
int why_deployment(Command& command, const JsonObject& view);
// Logs of all its pods; with `follow` until interrupted or deleted.
Result<int> function_logs(Command& command, const std::string& name, bool follow,
                          const LogView& view);

}  // namespace metier::cli
