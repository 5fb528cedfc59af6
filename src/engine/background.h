// MLRun's background tasks: {kind: BackgroundTask, metadata, spec, status}. Kept in the store; one that is past its
// time-out reads as failed.
#pragma once

#include <string>

#include "engine/ground.h"

namespace metier {

class BackgroundTasks final {
 public:
  explicit BackgroundTasks(const Ground& ground) : ground_(ground) {}

  // A new task's document, to be stored in the transaction that begins the work.
  struct Begun {
    std::string name;
    Json body;
  };
  Begun begin(const std::string& project, std::string_view kind,
              std::int64_t timeout_s = 600) const;
  static Result<void> store(Records& tx, const Begun& task, const std::string& project);
  Async<Result<void>> end(std::string name, std::string project, std::string error);

  Result<std::optional<Json>> get(const std::string& name) const;
  Result<std::vector<Json>> list(const std::string& project) const;

 private:
  Json shown(Json body) const;
  const Ground& ground_;
};

}  // namespace metier
