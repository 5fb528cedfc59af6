// An ObjectStore in memory for tests: same order of events, same versions, failures on demand.
#pragma once

#include <deque>
#include <functional>
#include <list>
#include <map>
#include <set>
#include <unordered_map>

#include "resource/object_store.h"

namespace metier {

class MemoryObjectStore final : public ObjectStore {
 public:
  explicit MemoryObjectStore(Executor executor);
  ~MemoryObjectStore() override;
  MemoryObjectStore(const MemoryObjectStore&) = delete;
  MemoryObjectStore& operator=(const MemoryObjectStore&) = delete;

  std::optional<Resource> get(const ResourceKey& key) const override;
  std::vector<Resource> list(const Selector& selector) const override;
  Async<Result<std::uint64_t>> put_if_version(Resource object, std::uint64_t expected) override;
  Async<Result<void>> remove(const ResourceKey& key) override;
  std::shared_ptr<void> watch(Selector selector, Watcher watcher) override;
  std::uint64_t revision() const override { return revision_; }

  // The same without waiting, for scripts of tests that are no coroutines. Both ignore fail_write.
  std::uint64_t put(Resource object);
  void erase(const ResourceKey& key);

  // Asked before every write; an error that it gives is the write's result.
  std::function<std::optional<Error>(const ResourceKey&)> fail_write;
  std::size_t writes = 0;

 private:
  struct Watch {
    Selector selector;
    Watcher watcher;
    std::uint64_t since = 0;  // changes up to this revision were visible when the watch began
  };
  struct Shared;  // what handles and posted work hold on to when the store is gone

  void publish(ObjectEvent event);
  void drain();

  Executor executor_;
  std::map<ResourceKey, Resource> objects_;
  std::map<std::string, std::set<ResourceKey>, std::less<>> by_kind_;
  std::unordered_map<std::string, std::set<ResourceKey>> by_owner_;
  std::deque<ObjectEvent> events_;
  std::uint64_t revision_ = 0;
  std::shared_ptr<Shared> shared_;
};

}  // namespace metier
