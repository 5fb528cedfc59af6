// A ModelRouter whose routes run here: `<prefix>/<model>[/versions/<version>][/<operation>]`, as metier_serving.routers has it.
#include <algorithm>

#include "base/json_ordered.h"
#include "serving/native_steps.h"
#include "serving/python_value.h"
#include "serving/step_library.h"

namespace metier::serving {
namespace {

struct Route {
  std::string name;
  std::unique_ptr<NativeStep> step;
};

class ModelRouter final : public NativeStep {
 public:
  ModelRouter(std::vector<Route> routes, Paths paths)
      : routes_(std::move(routes)), paths_(std::move(paths)) {}

  StepResult run(std::unique_ptr<NativeEvent>& event, StepOutput& out) override {
    const bool get = event->method == "GET";
    std::string_view path = event->path;
    if (get && (path == "/" || path.starts_with("/v2/health"))) {
      return answered(
          *event,
          JsonObject{{"name", "ModelRouter"}, {"version", "v2"}, {"extensions", JsonArray{}}});
    }
    if (!path.empty() && path != "/" && !path.starts_with(kPrefix)) {
      return raise("ValueError", "illegal path prefix " + std::string(path) + ", must start with " +
                                     std::string(kPrefix));
    }
    if (!get && is_true(event->body.get()) && !event->body.get().is_object()) {
      auto parsed = event->raw ? parse_python_json(event->body.get().get_string())
                               : Result<Json>(fail(ErrorKind::invalid, ""));
      if (!parsed || !parsed->is_object()) {
        return raise("ValueError", "Unrecognized request format");
      }
      event->raw = false;
      event->body.set(std::move(*parsed));
    }
    std::string model, operation = "infer";
    bool named = false;
    if (!path.empty() && path != "/") {
      path.remove_prefix(kPrefix.size());
      while (path.starts_with('/')) { path.remove_prefix(1); }
      while (path.ends_with('/')) { path.remove_suffix(1); }
      if (path.empty()) {
        JsonArray names;
        for (const Route& route : routes_) { names.emplace_back(route.name); }
        return answered(*event, JsonObject{{"models", std::move(names)}});
      }
      std::vector<std::string> parts;
      for (std::size_t at = 0; at <= path.size();) {
        const std::size_t slash = std::min(path.find('/', at), path.size());
        parts.emplace_back(path.substr(at, slash - at));
        at = slash + 1;
      }
      model = parts[0];
      std::size_t rest = 1;
      if (parts.size() > 2 && parts[1] == "versions") {
        model += ":" + parts[2];
        rest = 3;
      }
      operation.clear();
      for (; rest < parts.size(); ++rest) {
        operation += (operation.empty() ? "" : "/") + parts[rest];
      }
      named = true;
    }
    if (const auto* body = event->body.get().if_object()) {
      if (model.empty()) { model = string_in(*body, "model", routes_.front().name); }
      if (const Json* asked = body->if_contains("operation")) {
        operation = str(*asked);
      } else if (!named) {
        operation = "infer";
      }
    }
    const auto route = std::ranges::find(routes_, model, &Route::name);
    if (route == routes_.end()) {
      std::string known;
      for (const Route& item : routes_) { known += (known.empty() ? "" : " | ") + item.name; }
      return raise("ValueError", "model " + model + " doesnt exist, available models: " + known);
    }
    event->path = operation;
    return route->step->run(event, out);
  }

 private:
  static constexpr std::string_view kPrefix = "/v2/models";
  static std::unexpected<Raised> raise(std::string type, std::string message) {
    return std::unexpected(Raised{std::move(type), std::move(message)});
  }
  static StepDone answered(NativeEvent& event, JsonObject body) {
    event.body = Payload(std::move(body));
    event.raw = false;
    event.terminated = true;
    return StepDone::next;
  }
  std::vector<Route> routes_;
  Paths paths_;
};

}  // namespace

Result<std::unique_ptr<NativeStep>> make_native_router(const StepSite& site) {
  const std::string_view class_name = string_in(site.spec, "class_name");
  const bool known = class_name.empty() || class_name == "mlrun.serving.ModelRouter" ||
                     class_name == "mlrun.serving.routers.ModelRouter";
  if (!known) { return fail(needs_python(site, "class " + quote(class_name))); }
  const Json* args = site.spec.if_contains("class_args");
  if (args != nullptr && !is_empty_value(*args)) {
    return fail(needs_python(site, "it has arguments"));
  }
  METIER_TRY(paths, Paths::of(site));
  if (!paths.input.empty() || !paths.result.empty()) {
    return fail(needs_python(site, "it has paths"));
  }
  std::vector<Route> routes;
  for (const auto& member : *object_in(site.spec, "routes")) {
    if (!member.value().is_object()) { return fail(needs_python(site, "a route is no object")); }
    const JsonObject& spec = member.value().get_object();
    if (!string_in(spec, "class_name").empty()) {
      return fail(needs_python(site, "its models are classes"));
    }
    const PlanStep plan{.name = std::string(member.key())};
    METIER_TRY(step, make_native_step({.plan = plan,
                                       .graph = site.graph,
                                       .spec = spec,
                                       .folders = site.folders,
                                       .now = site.now,
                                       .check = site.check}));
    routes.push_back({plan.name, std::move(step)});
  }
  return std::make_unique<ModelRouter>(std::move(routes), std::move(paths));
}

}  // namespace metier::serving
