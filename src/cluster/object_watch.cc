#include "cluster/object_watch.h"

#include <boost/asio/post.hpp>

namespace metier {
namespace {

// Owned by the handle; work on its way holds it weakly, so that nothing is heard after the handle's end.
struct ObjectWatch {
  std::function<void(const ResourceStatus&)> watcher;
  std::vector<ResourceStatus> waiting;  // the first state, then changes that overtook it
  bool started = false;
  std::shared_ptr<void> changes;
};

void tell(const std::shared_ptr<ObjectWatch>& watch, const ResourceStatus& status) {
  const auto watcher = watch->watcher;  // it may end its own watch
  if (watcher) { watcher(status); }
}

}  // namespace

ResourceStatus status_of(const Resource& object, std::uint64_t revision, bool removed) {
  return {.key = key_of(object),
          .uid = object.metadata.uid,
          .labels = object.metadata.labels,
          .status = object.status,
          .removed = removed,
          .revision = revision};
}

std::shared_ptr<void> watch_objects(ObjectStore& store, Executor executor, Selector selector,
                                    std::function<void(const ResourceStatus&)> watcher) {
  auto watch = std::make_shared<ObjectWatch>();
  watch->watcher = std::move(watcher);
  for (const auto& object : store.list(selector)) {
    watch->waiting.push_back(status_of(object, object.version));
  }
  const std::weak_ptr<ObjectWatch> weak = watch;
  watch->changes = store.watch(std::move(selector), [weak](const ObjectEvent& event) {
    const auto live = weak.lock();
    if (!live) { return; }
    auto status = status_of(event.object, event.revision, event.type == ObjectEvent::Type::removed);
    if (live->started) {
      tell(live, status);
    } else {
      live->waiting.push_back(std::move(status));
    }
  });
  asio::post(executor, [weak] {
    const auto live = weak.lock();
    if (!live) { return; }
    for (std::size_t i = 0; i < live->waiting.size(); ++i) {
      tell(live, ResourceStatus(live->waiting[i]));
    }
    live->waiting.clear();
    live->started = true;
  });
  // The caller's handle is the only owner; its end also ends a watcher that is being called.
  return std::shared_ptr<void>(watch.get(), [watch](void*) mutable {
    watch->watcher = nullptr;
    watch->changes.reset();
    watch.reset();
  });
}

}  // namespace metier
