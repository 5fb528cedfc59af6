#include "kind/nuclio/nuclio_kind.h"

#include <algorithm>

#include "base/text.h"
#include "kind/lowering.h"
#include "kind/nuclio/compile.h"
#include "model/create.h"
#include "model/entry_points.h"
#include "model/kinds.h"
#include "model/problems.h"

namespace metier {
namespace {

std::int64_t generation_of(const Json& status) {
  return status.is_object() ? int_in(status.get_object(), "observedGeneration").value_or(0) : 0;
}

Result<void> check_handler(const Function& function, const JsonObject& spec) {
  const std::string handler(string_in(spec, "handler"));
  const std::string_view runtime = nuclio::runtime_name(string_in(spec, "runtime"));
  if (runtime != "python") { return {}; }
  if (handler.find(':') == std::string::npos) {
    return fail(invalid("spec.handler", quote(handler) + " names no module",
                        "write MODULE:FUNCTION, such as main:" + handler));
  }
  const std::string encoded = function.text("build.functionSourceCode");
  const std::string source = function.text("build.source");
  const bool has_command = !function.text("command").empty();
  // SDK 1.7 leaves the code of the file beside the archive that takes its place.
  if (encoded.empty() ? !has_command : source.contains("://")) {
    if (!source.empty()) {
      return fail(Error{
          .kind = ErrorKind::unsupported,
          .message = quote(source) + " is not fetched: sources are for functions that are run",
          .field = "spec.build.source",
          .fix =
              "fetch it and deploy the file: metier deploy FILE, or code_to_function(filename=…)",
          .code = "Unsupported"});
    }
    return fail(invalid("spec.build.functionSourceCode", "the function has no code",
                        "metier deploy FILE[:HANDLER]"));
  }
  if (encoded.empty()) { return {}; }
  METIER_TRY(code, function.code());
  const std::string entry = nuclio::entry_of(handler);
  const std::vector<std::string> names = top_level_names(code);
  // What is imported or made by a call is found by the interpreter only.
  if (std::ranges::find(names, entry) != names.end() || code.contains(entry) ||
      code.contains("import *")) {
    return {};
  }
  const std::string near = nearest(entry, names);
  const std::string origin = function.text("build.origin_filename");
  return fail(
      invalid(
          "spec.handler",
          (origin.empty() ? "the code has" : origin + " has") + std::string(" no function ") +
              quote(entry) + (near.empty() ? "" : ", did you mean " + quote(near) + "?"),
          names.empty() ? "the file defines no function" : "functions in this file: " + join(names))
          .coded("HandlerMissing"));
}

class NuclioKind final : public Kind {
 public:
  explicit NuclioKind(FunctionCheck check) : check_(std::move(check)) {}

  const KindTraits& traits() const override { return traits_; }

  Result<void> validate(const Subject& subject) const override {
    METIER_CHECK(validate_function(subject.function));
    if (subject.run != nullptr) { return validate_run(*subject.run); }
    METIER_TRY(compiled, nuclio::compile(subject, Site{}));
    METIER_CHECK(check_nuclio_function(compiled, check_));
    return check_handler(subject.function, compiled.spec());
  }

  Result<std::vector<Resource>> lower(const Subject& subject, const Site& site) const override {
    if (subject.run != nullptr) {
      return fail(Error{.kind = ErrorKind::unsupported,
                        .message = "runs of a nuclio function are calls of it, not objects",
                        .field = "kind",
                        .fix = "deploy it, then run it from the client"});
    }
    METIER_TRY(compiled, nuclio::compile(subject, site));
    return std::vector<Resource>{std::move(compiled)};
  }

  Observation observe(const Subject& subject, std::span<const ResourceStatus> resources,
                      Time) const override {
    if (subject.run != nullptr) {
      Observation seen;
      seen.state = subject.run->state();
      return seen;
    }
    Observation seen = observe_nuclio_function(subject, resources);
    if (auto compiled = nuclio::compile(subject, Site{})) {
      const nuclio::Review review = nuclio::review_spec(compiled->spec());
      const auto note = [&seen](const std::string& field, const std::string& text) {
        seen.conditions.push_back({.type = "FieldIgnored",
                                   .status = true,
                                   .reason = "FieldIgnored",
                                   .message = field + ": " + text,
                                   .since = {}});
      };
      for (const auto& remark : review.ignored) { note(remark.field, remark.message); }
      for (const Error& error : review.unknown) { note(error.field, error.message); }
    }
    return seen;
  }

 private:
  KindTraits traits_{.name = "nuclio",
                     .summary = "a real-time function behind triggers",
                     .executes = Executes::by_call,
                     .deploys = true,
                     .abortable = false,
                     .nested_hyperparams = false};
  FunctionCheck check_;
};

}  // namespace

Result<void> check_nuclio_function(const Resource& compiled, const FunctionCheck& check) {
  METIER_CHECK(nuclio::review_spec(compiled.spec()).verdict(false));
  return check ? check(compiled) : Result<void>();
}

Observation observe_nuclio_function(const Subject& subject,
                                    std::span<const ResourceStatus> resources) {
  Observation seen;
  const ResourceStatus* function = nullptr;
  for (const ResourceStatus& resource : resources) {
    if (resource.key.kind == "NuclioFunction" && !resource.removed) { function = &resource; }
    if (resource.key.kind == "Pod" && !resource.removed) {
      seen.parts.push_back({.role = "processor",
                            .index = static_cast<int>(seen.parts.size()),
                            .pod = resource.key.name});
    }
  }
  if (function == nullptr || !function->status.is_object() ||
      generation_of(function->status) != subject.attempt) {
    seen.function_state = "deploying";
    return seen;
  }
  const JsonObject& status = function->status.get_object();
  const std::string state(string_in(status, "state"));
  seen.reason = string_in(status, "reason");
  seen.message = string_in(status, "message");
  JsonObject extra{{"nuclio_name", function->key.name}};
  for (const auto& [from, to] :
       {std::pair{"replicas", "replicas"}, std::pair{"ready", "ready_replicas"},
        std::pair{"containerImage", "container_image"}}) {
    if (const Json* value = status.if_contains(from)) { extra[to] = *value; }
  }
  if (const JsonArray* conditions = array_in(status, "conditions")) {
    for (const Json& condition : *conditions) {
      seen.conditions.push_back({.type = std::string(string_at(condition, "type")),
                                 .status = true,
                                 .reason = std::string(string_at(condition, "reason")),
                                 .message = std::string(string_at(condition, "message")),
                                 .since = {}});
    }
  }
  const auto urls = [&status, &extra](const char* from, const char* to) {
    const JsonArray* list = array_in(status, from);
    if (list != nullptr) { extra[to] = *list; }
  };
  urls("internalInvocationUrls", "internal_invocation_urls");
  urls("externalInvocationUrls", "external_invocation_urls");
  if (const JsonArray* inside = array_in(status, "internalInvocationUrls");
      inside != nullptr && !inside->empty()) {
    extra["address"] = inside->front();
  }
  if (const JsonArray* outside = array_in(status, "externalInvocationUrls");
      outside != nullptr && !outside->empty()) {
    extra["address"] = outside->front();
  }
  seen.function_status = std::move(extra);
  if (state == "ready") {
    seen.state = RunState::running;
  } else if (state == "error" || state == "unhealthy") {
    seen.state = RunState::error;
    seen.function_state = state;
  } else if (state == "scaledToZero" || state == "waitingForScaleResourceFromZero") {
    seen.state = RunState::running;
    seen.function_state = "scaledToZero";
  } else {
    seen.function_state = "deploying";
  }
  return seen;
}

std::unique_ptr<Kind> make_nuclio_kind(FunctionCheck check) {
  return std::make_unique<NuclioKind>(std::move(check));
}

}  // namespace metier
