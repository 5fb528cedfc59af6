// Deployments on the command line: what `deploy`, `invoke` and the verbs that look share.
#pragma once

#include <functional>
#include <map>
#include <memory>

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
// Reads the logs of a function's pods, those that come later too, and prints what is new.
class FunctionLogs final {
 public:
  enum class Step { read, nothing, gone };  // gone: it was deleted meanwhile
  FunctionLogs(Command& command, std::string name, LogView view);
  ~FunctionLogs();
  // `wait`: of a single pod, until there is something, as long as the server holds such a request.
  Result<Step> step(bool wait);

 private:
  struct Read;
  Command& command_;
  std::string name_;
  LogView view_;
  std::map<std::string, std::unique_ptr<Read>> reads_;  // by pod
  std::string last_;                                    // pod whose lines were written last
  bool first_ = true;
};

// Deploys by `deploy_once` now and at every change of what it is made of, until Ctrl-C (130). A deploy that fails is shown
// and waited out: what was deployed before stays. Errors: of the first one when its file is not there; no server.
using DeployOnce = std::function<Result<int>(std::string& name)>;
Result<int> watch_deploy(Command& command, const DeployOnce& deploy_once);

// Logs of all its pods; with `follow` until interrupted or deleted.
Result<int> function_logs(Command& command, const std::string& name, bool follow,
                          const LogView& view);

}  // namespace metier::cli
