#include "kind/testing/deployment_kind.h"

#include "kind/lowering.h"
#include "kind/pod_observation.h"

namespace metier {
namespace {

class DeploymentKind final : public Kind {
 public:
  const KindTraits& traits() const override { return traits_; }

  Result<void> validate(const Subject& subject) const override {
    if (subject.run != nullptr) {
      return fail(invalid("kind", "kind 'test-deployment' is deployed, not run", "metier deploy"));
    }
    return check_name(subject.function.name(), "metadata.name", "function name");
  }

  Result<std::vector<Resource>> lower(const Subject& subject, const Site& site) const override {
    METIER_CHECK(validate(subject));
    METIER_TRY(line, program_command(subject));
    Resource pod{.api_version = "v1", .kind = "Pod"};
    pod.metadata.name = subject.function.name();
    pod.metadata.name_space = project_of(subject, site);
    pod.metadata.labels = resource_labels(subject, site);
    JsonObject container{{"name", "base"},
                         {"image", image_of(subject, site)},
                         {"command", JsonArray(line.command.begin(), line.command.end())},
                         {"env", container_env(subject, site)},
                         {"ports", JsonArray{JsonObject{{"containerPort", 8080}}}}};
    pod.body["spec"] =
        JsonObject{{"restartPolicy", "Always"}, {"containers", JsonArray{std::move(container)}}};
    Resource service{.api_version = "v1", .kind = "Service"};
    service.metadata.name = pod.metadata.name;
    service.metadata.name_space = pod.metadata.name_space;
    service.metadata.labels = pod.metadata.labels;
    service.body["spec"] = JsonObject{
        {"selector", JsonObject{{"mlrun/function", pod.metadata.labels["mlrun/function"]}}},
        {"ports", JsonArray{JsonObject{{"port", 8080}, {"targetPort", 8080}}}}};
    return std::vector<Resource>{std::move(pod), std::move(service)};
  }

  Observation observe(const Subject& subject, std::span<const ResourceStatus> resources,
                      Time now) const override {
    Observation seen = observe_single_pod(subject, resources, now);
    if (seen.state == RunState::running) {
      seen.endpoints.push_back(
          {.name = "http", .service = subject.function.name(), .port = "8080", .path = "/"});
    }
    return seen;
  }

 private:
  KindTraits traits_{
      .name = "test-deployment", .summary = "for tests", .deploys = true, .abortable = false};
};

}  // namespace

std::unique_ptr<Kind> make_deployment_kind() { return std::make_unique<DeploymentKind>(); }

}  // namespace metier
