#include "kind/handler/handler_kind.h"

#include "kind/lowering.h"

namespace metier {
namespace {

class HandlerKind final : public Kind {
 public:
  const KindTraits& traits() const override { return traits_; }

  Result<void> validate(const Subject& subject) const override {
    if (!subject.function.text("image").empty()) {
      return fail(invalid("spec.image", "kind 'handler' runs without an image",
                          "leave it out, or use kind job"));
    }
    return validate_subject(subject);
  }

  Result<std::vector<Resource>> lower(const Subject&, const Site&) const override {
    return fail(invalid(
        "kind", "kind 'handler' runs inside the calling process: there is no object to make of it",
        "use --kind local for the process, --kind job for the pod"));
  }

  Observation observe(const Subject& subject, std::span<const ResourceStatus>,
                      Time) const override {
    Observation seen;  // nothing is applied: the run is what its client said last
    seen.state = subject.run == nullptr ? RunState::unknown : subject.run->state();
    return seen;
  }

 private:
  KindTraits traits_{.name = "handler",
                     .summary = "a function inside your own process",
                     .executes = Executes::in_caller,
                     .stores_function = false};
};

}  // namespace

std::unique_ptr<Kind> make_handler_kind() { return std::make_unique<HandlerKind>(); }

}  // namespace metier
