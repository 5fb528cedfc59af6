// Zygotes: Python interpreters with their imports done, one per environment, that fork pods
// (docs/formats/pod-folder.md, "Launch from a zygote"). Started when first needed, again when one has died; ended when nothing was
// launched from it for the idle time. Its pods live on.
#pragma once

#include <chrono>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/async.h"
#include "base/files.h"
#include "base/json.h"
#include "base/log.h"

namespace metier {

class Zygotes final {
 public:
  struct Options {
    std::string runner;   // PYTHONPATH entry with metier_runner
    std::string preload;  // "pandas,mlrun": imported before the first fork
    std::string folder;   // working folder and place of the log files <environment>.log
    Logger log;
    std::chrono::milliseconds idle = std::chrono::minutes(30);
  };
  Zygotes(Executor executor, Options options) : executor_(executor), options_(std::move(options)) {}

  // Hands one launch over. `control` and the files are duplicated into the message. Nothing comes back from
  // the zygote: the shim speaks on the control connection, which closes when the zygote could not serve.
  // Errors: unavailable (no zygote, or its queue is full): start the pod cold.
  // `preload`: a further zygote of the environment, with these modules too ("dask").
  Result<void> launch(const std::string& environment, const std::string& python,
                      const std::string& preload, const std::string& id, int document, int control,
                      int spec);
  // Starts the zygote of an environment ahead of its first pod. It stays, idle or not.
  Result<void> prewarm(const std::string& environment, const std::string& python,
                       const std::string& preload = {});
  // What a zygote said when it was ready ({"ready":true,"pid":…,"moved":["grpc"],…}); null before.
  const Json* ready(const std::string& environment) const;
  int pid(const std::string& environment) const;

  // Ends all: end of file on their socket.
  Async<void> close();

 private:
  struct Zygote;
  Result<std::shared_ptr<Zygote>> of(const std::string& environment, const std::string& python,
                                     const std::string& preload);
  Result<std::shared_ptr<Zygote>> start(const std::string& name, const std::string& python,
                                        const std::string& modules);
  Async<void> watch(std::shared_ptr<Zygote> zygote);
  Async<void> rest(std::shared_ptr<Zygote> zygote);

  Executor executor_;
  Options options_;
  Scope scope_{executor_};
  std::map<std::string, std::shared_ptr<Zygote>> zygotes_;
};

}  // namespace metier
