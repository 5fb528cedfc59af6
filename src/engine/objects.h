// `metier apply`: Secret, ConfigMap and PersistentVolumeClaim of a project. Secret values go to the encrypted
// records and nowhere else; the object that is listed has names and keys only.
#pragma once

#include <string>
#include <vector>

#include "engine/ground.h"

namespace metier {

class ProjectObjects final {
 public:
  explicit ProjectObjects(Ground& ground) : ground_(ground) {}

  // Errors: invalid (kind, name, data), not_found (another project's namespace), denied (a name of the server's own).
  Async<Result<Json>> apply(std::string project, Json document);
  // Adds, replaces and (value null) removes keys of a Secret, as a merge patch {"stringData": {…}} does; the others
  // stay. Makes the Secret when it is not there; one whose last key is removed goes. Errors: as apply;
  // not_found (a key to remove).
  Async<Result<Json>> patch_secret(std::string project, std::string name, Json patch);
  Result<std::vector<Json>> list(const std::string& project, const std::string& kind) const;
  Async<Result<void>> remove(std::string project, std::string kind, std::string name);

  // What the pod driver opens: values by key, nullopt when there is no such Secret. Also the secrets of runs
  // and of the project.
  Result<std::optional<std::map<std::string, std::string>>> open_secret(
      const std::string& project, const std::string& name) const;

 private:
  Ground& ground_;
};

}  // namespace metier
