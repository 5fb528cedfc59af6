// Where a cluster keeps its objects: spec, status, version, owner. store/ implements it in the same SQLite
// file as the runs, so that a run and its desired objects commit in one transaction; testing/ has one in
// memory. Live objects are few (10⁴) and held in memory: reads never wait. All calls on the loop's thread.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "base/async.h"
#include "resource/resource.h"

namespace metier {

struct ObjectEvent {
  enum class Type { added, modified, removed };
  Type type = Type::added;
  Resource object;             // after the change; for `removed` the last known
  std::uint64_t revision = 0;  // of the whole store, grows by every change
};

class ObjectStore {
 public:
  static constexpr std::uint64_t kAnyVersion = ~0ULL;
  virtual ~ObjectStore() = default;

  virtual std::optional<Resource> get(const ResourceKey& key) const = 0;
  virtual std::vector<Resource> list(const Selector& selector) const = 0;

  // Durable when it returns. `expected` 0: the name must be free; kAnyVersion: create or replace. Gives the
  // new version. A spec and a status are written together; who changes only one of them reads first.
  // Errors: conflict (the version is another, or the name is taken), unavailable (the disk).
  virtual Async<Result<std::uint64_t>> put_if_version(Resource object, std::uint64_t expected) = 0;
  // Removes it and everything that it owns. Absent is fine.
  virtual Async<Result<void>> remove(const ResourceKey& key) = 0;

  // Called after the commit of every change that `selector` matches, in order, on the loop's thread, never
  // from inside put_if_version. Ends when the returned handle is destroyed.
  using Watcher = std::function<void(const ObjectEvent&)>;
  virtual std::shared_ptr<void> watch(Selector selector, Watcher watcher) = 0;
  virtual std::uint64_t revision() const = 0;
};

}  // namespace metier
