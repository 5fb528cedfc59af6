// The watch of a cluster over an ObjectStore: what is there now, then every change, in order, never from
// inside the call. Shared by the clusters that keep their objects in an ObjectStore.
#pragma once

#include <functional>
#include <memory>

#include "resource/object_store.h"
#include "resource/status.h"

namespace metier {

ResourceStatus status_of(const Resource& object, std::uint64_t revision, bool removed = false);
std::shared_ptr<void> watch_objects(ObjectStore& store, Executor executor, Selector selector,
                                    std::function<void(const ResourceStatus&)> watcher);

}  // namespace metier
