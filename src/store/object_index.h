// The live objects in memory: what ObjectStore's reads answer from. Indexed by owner and by label, so that a
// selector never walks over all of them. Pods that have ended are many and seldom asked for: their documents are kept as
// text. One thread.
#pragma once

#include <map>
#include <memory>
#include <set>
#include <vector>

#include "resource/object_store.h"
#include "store/sqlite_records.h"

namespace metier {

class ObjectIndex final {
 public:
  void load(std::vector<Resource> objects, std::uint64_t revision);
  void apply(const ObjectChange& change);  // and tells the watchers
  std::optional<Resource> get(const ResourceKey& key) const;
  std::vector<Resource> list(const Selector& selector) const;
  std::shared_ptr<void> watch(Selector selector, ObjectStore::Watcher watcher);
  std::uint64_t revision() const { return revision_; }

 private:
  struct Watch {
    Selector selector;
    ObjectStore::Watcher watcher;
  };
  struct Stored {
    Resource object;   // without body and status when they are packed
    std::string text;  // both of them, as JSON
    Resource get() const;
  };
  struct ByValue {
    bool operator()(const ResourceKey* a, const ResourceKey* b) const { return *a < *b; }
  };
  using Keys = std::set<const ResourceKey*, ByValue>;  // keys of objects_

  void insert(Resource object);
  void erase(const ResourceKey& key);

  std::map<ResourceKey, Stored> objects_;
  std::map<std::string, Keys, std::less<>> by_owner_;
  std::map<std::string, Keys, std::less<>> by_label_;  // "name=value"
  std::vector<std::weak_ptr<Watch>> watches_;
  std::uint64_t revision_ = 0;
};

}  // namespace metier
