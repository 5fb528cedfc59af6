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
  const std::vector<std::string_view> names(order_.begin(), order_.end());
  return fail(unknown_kind(name, "kind", names));
}

std::vector<const Kind*> KindRegistry::all() const {
  std::vector<const Kind*> out;
  for (const std::string& name : order_) { out.push_back(kinds_.find(name)->second.get()); }
  return out;
}

}  // namespace metier
