// From a Pod to what its driver starts: secrets and config maps opened, variables expanded, volumes chosen.
// Reads objects, makes folders of claims; starts nothing.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "cluster/embedded/pod_driver.h"
#include "cluster/embedded/scheduler.h"
#include "resource/object_store.h"

namespace metier {

// What the server adds to a pod: run-token variables, the environment that its image stands for.
struct Ambient {
  std::vector<std::pair<std::string, std::string>> env;  // before the pod's own, which win
  std::string python;
  std::string environment;
  std::string path_suffix;
};

// Values of a secret or config map by key; nullopt: there is none of that name.
using SecretSource = std::function<Result<std::optional<std::map<std::string, std::string>>>(
    const std::string& project, const std::string& name)>;

// What a pod refers to and what is not there (yet): the pod stays Pending with this cause.
struct MissingReference {
  std::string code;  // SecretMissing, ConfigMapMissing, VolumeMissing
  ResourceKey object;
  std::string message;
};

struct LaunchContext {
  const ObjectStore& objects;
  const SecretSource& secrets;  // asked first, then Secrets of the ObjectStore; may be empty
  const std::string& data;      // volumes/<project>/<claim>
  const std::string& node;
  const NodeCapacity& capacity;  // which devices exist
};

struct LaunchInput {
  Ambient ambient;
  Devices devices;
  std::string address;
  std::string hosts;
  std::string share_group;
  std::vector<std::pair<std::string, std::string>> service_env;
};

std::optional<MissingReference> missing_reference(const Pod& pod, const LaunchContext& context);
// Errors: unavailable with a code of MissingReference when something vanished since, invalid for a subPath
// that cannot be made beneath its volume.
Result<LaunchSpec> make_launch(const Pod& pod, const std::string& id, LaunchInput input,
                               const LaunchContext& context);

// Kubernetes' expansion: $(NAME) of a known variable, $$ is a dollar, anything else stays.
std::string expand_variables(std::string_view text,
                             const std::function<const std::string*(std::string_view)>& value_of);

// Makes `relative` beneath `folder`, following no link out of it; gives errors as `invalid`.
Result<void> make_beneath(const std::string& folder, const std::string& relative);

}  // namespace metier
