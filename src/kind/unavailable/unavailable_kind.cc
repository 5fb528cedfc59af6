#include "kind/unavailable/unavailable_kind.h"

#include "model/create.h"

namespace metier {
namespace {

class UnavailableKind final : public Kind {
 public:
  explicit UnavailableKind(const KindTraits& traits) : traits_(traits) {}
  const KindTraits& traits() const override { return traits_; }

  Result<void> validate(const Subject& subject) const override {
    METIER_CHECK(validate_function(subject.function));
    return subject.run == nullptr ? Result<void>{} : validate_run(*subject.run);
  }

  Result<std::vector<Resource>> lower(const Subject&, const Site&) const override {
    return fail(Error{.kind = ErrorKind::unsupported,
                      .message = std::string(traits_.unavailable),
                      .field = "kind",
                      .fix = "kinds that run here: metier kinds",
                      .code = "EngineMissing"});
  }

  Observation observe(const Subject& subject, std::span<const ResourceStatus>,
                      Time) const override {
    Observation seen;
    seen.state = subject.run == nullptr ? RunState::unknown : subject.run->state();
    return seen;
  }

 private:
  KindTraits traits_;
};

}  // namespace

std::vector<std::unique_ptr<Kind>> make_unavailable_kinds() {
  const KindTraits kAll[] = {{.name = "serving",
                              .summary = "a graph of models and steps behind triggers",
                              .executes = Executes::by_call,
                              .deploys = true,
                              .abortable = false,
                              .nested_hyperparams = false,
                              .available = false,
                              .unavailable = "kind 'serving' can be described and stored, but this "
                                             "build has no serving graph to deploy it"}};
  std::vector<std::unique_ptr<Kind>> out;
  for (const KindTraits& traits : kAll) {
    out.push_back(std::make_unique<UnavailableKind>(traits));
  }
  return out;
}

}  // namespace metier
