#include "base/text.h"
#include "kind/kind.h"
#include "model/kinds.h"

namespace metier {

void KindRegistry::add(std::unique_ptr<Kind> kind) {
  std::string name(kind->traits().name);
  order_.push_back(name);
  kinds_[std::move(name)] = std::move(kind);
}

Result<const Kind*> KindRegistry::find(std::string_view name) const {
  const auto found = kinds_.find(canonical_kind(name));
  if (found != kinds_.end()) { return found->second.get(); }
  const std::string near = nearest(name, order_);
  return fail(invalid("kind",
                      quote(name) + " is unknown" +
                          (near.empty() ? "" : ", did you mean " + quote(near) + "?"),
                      "kinds: " + join(order_, " "))
                  .coded("UnknownKind"));
}

std::vector<const Kind*> KindRegistry::all() const {
  std::vector<const Kind*> out;
  for (const std::string& name : order_) { out.push_back(kinds_.find(name)->second.get()); }
  return out;
}

}  // namespace metier
