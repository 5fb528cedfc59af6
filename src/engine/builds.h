// `build/function`: what would be an image is an environment here (architecture 9). Requirements and commands of
// the function are built once; the image name stands for them from then on.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "engine/ground.h"

namespace metier {

// What builds environments; the embedded cluster's in the product, a script in tests.
struct BuildAsk {
  std::string python;
  std::vector<std::string> requirements;
  std::vector<std::string> commands;
};
class EnvironmentBuilder {
 public:
  virtual ~EnvironmentBuilder() = default;
  virtual Async<Result<std::string>> build(BuildAsk ask) = 0;  // the environment's id
  virtual std::string log_path(
      const BuildAsk& ask) const = 0;  // text file that grows, may not exist
};

class Builds final {
 public:
  Builds(Ground& ground, EnvironmentBuilder* builder)
      : ground_(ground), builder_(builder), scope_(ground.loop) {}

  // {"data": function, "ready": bool}. Errors: invalid, not_found (project), unsupported (source builds).
  Async<Result<Json>> begin(Json function, bool skip_deployed, bool force);
  struct Status {
    std::string state;  // pending, running, ready, error
    std::string image;
    std::string log;  // from the offset asked for, in characters
  };
  Result<Status> status(const std::string& project, const std::string& name, const std::string& tag,
                        std::size_t offset, bool logs) const;
  Async<void> stop();

 private:
  Async<void> run(std::string key, std::string project, std::string name, std::string tag,
                  BuildAsk ask, std::string image, Json function);
  struct Build {
    std::string state;
    std::string image;
    std::string log_path;
    std::string error;
  };
  Ground& ground_;
  EnvironmentBuilder* builder_;  // may be null: nothing can be built
  Scope scope_;
  std::map<std::string, Build, std::less<>> builds_;
};

}  // namespace metier
