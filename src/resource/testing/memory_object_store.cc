#include "resource/testing/memory_object_store.h"

#include <fmt/format.h>
#include <boost/asio/post.hpp>

namespace metier {

struct MemoryObjectStore::Shared {
  MemoryObjectStore* store = nullptr;  // null once the store is gone
  std::list<std::shared_ptr<Watch>> watches;
  bool posted = false;
};

MemoryObjectStore::MemoryObjectStore(Executor executor)
    : executor_(executor), shared_(std::make_shared<Shared>()) {
  shared_->store = this;
}

MemoryObjectStore::~MemoryObjectStore() { shared_->store = nullptr; }

std::optional<Resource> MemoryObjectStore::get(const ResourceKey& key) const {
  const auto found = objects_.find(key);
  if (found == objects_.end()) { return std::nullopt; }
  return found->second;
}

std::vector<Resource> MemoryObjectStore::list(const Selector& selector) const {
  std::vector<Resource> out;
  const auto add = [&](const ResourceKey& key) {
    const auto& object = objects_.at(key);
    if (selector.matches(object)) { out.push_back(object); }
  };
  if (selector.name_space && !selector.kind.empty() && !selector.name.empty()) {
    const ResourceKey key{
        .name_space = *selector.name_space, .kind = selector.kind, .name = selector.name};
    if (objects_.contains(key)) { add(key); }
  } else if (!selector.owner_uid.empty()) {
    if (const auto owned = by_owner_.find(selector.owner_uid); owned != by_owner_.end()) {
      std::ranges::for_each(owned->second, add);
    }
  } else if (!selector.kind.empty()) {
    if (const auto same = by_kind_.find(selector.kind); same != by_kind_.end()) {
      std::ranges::for_each(same->second, add);
    }
  } else {
    for (const auto& [key, object] : objects_) { add(key); }
  }
  return out;
}

Async<Result<std::uint64_t>> MemoryObjectStore::put_if_version(Resource object,
                                                               std::uint64_t expected) {
  const auto key = key_of(object);
  if (fail_write) {
    if (auto error = fail_write(key)) { co_return fail(std::move(*error)); }
  }
  const auto found = objects_.find(key);
  const std::uint64_t current = found == objects_.end() ? 0 : found->second.version;
  if (expected != kAnyVersion && expected != current) {
    co_return fail(ErrorKind::conflict, expected == 0 ? fmt::format("{} exists already", key.text())
                                                      : fmt::format("{} has version {}, not {}",
                                                                    key.text(), current, expected));
  }
  co_return put(std::move(object));
}

std::uint64_t MemoryObjectStore::put(Resource object) {
  const auto key = key_of(object);
  const auto found = objects_.find(key);
  const std::uint64_t current = found == objects_.end() ? 0 : found->second.version;
  ++writes;
  object.version = ++revision_;
  const auto type = current == 0 ? ObjectEvent::Type::added : ObjectEvent::Type::modified;
  if (found != objects_.end() && found->second.metadata.owner) {
    by_owner_[found->second.metadata.owner->uid].erase(key);
  }
  if (object.metadata.owner) { by_owner_[object.metadata.owner->uid].insert(key); }
  by_kind_[object.kind].insert(key);
  objects_.insert_or_assign(key, object);
  publish({.type = type, .object = std::move(object), .revision = revision_});
  return revision_;
}

Async<Result<void>> MemoryObjectStore::remove(const ResourceKey& key) {
  if (fail_write) {
    if (auto error = fail_write(key)) { co_return fail(std::move(*error)); }
  }
  if (objects_.contains(key)) {
    ++writes;
    erase(key);
  }
  co_return Result<void>{};
}

void MemoryObjectStore::erase(const ResourceKey& key) {
  const auto found = objects_.find(key);
  if (found == objects_.end()) { return; }
  auto object = std::move(found->second);
  objects_.erase(found);
  by_kind_[key.kind].erase(key);
  if (object.metadata.owner) {
    if (const auto owned = by_owner_.find(object.metadata.owner->uid); owned != by_owner_.end()) {
      owned->second.erase(key);
      if (owned->second.empty()) { by_owner_.erase(owned); }
    }
  }
  std::set<ResourceKey> children;
  if (!object.metadata.uid.empty()) {
    if (const auto owned = by_owner_.find(object.metadata.uid); owned != by_owner_.end()) {
      children = owned->second;
    }
  }
  const auto revision = ++revision_;
  publish({.type = ObjectEvent::Type::removed, .object = std::move(object), .revision = revision});
  for (const auto& child : children) { erase(child); }
}

std::shared_ptr<void> MemoryObjectStore::watch(Selector selector, Watcher watcher) {
  auto watch = std::make_shared<Watch>(std::move(selector), std::move(watcher), revision_);
  shared_->watches.push_back(watch);
  auto shared = shared_;
  return std::shared_ptr<void>(watch.get(), [shared, watch](void*) {
    watch->watcher = nullptr;  // also when its call is on its way
    shared->watches.remove(watch);
  });
}

void MemoryObjectStore::publish(ObjectEvent event) {
  events_.push_back(std::move(event));
  if (shared_->posted) { return; }
  shared_->posted = true;
  asio::post(executor_, [shared = shared_] {
    shared->posted = false;
    if (shared->store != nullptr) { shared->store->drain(); }
  });
}

void MemoryObjectStore::drain() {
  const auto shared = shared_;
  while (shared->store != nullptr && !events_.empty()) {
    const auto event = std::move(events_.front());
    events_.pop_front();
    const std::vector<std::shared_ptr<Watch>> watches(shared->watches.begin(),
                                                      shared->watches.end());
    for (const auto& watch : watches) {
      if (!watch->watcher || event.revision <= watch->since ||
          !watch->selector.matches(event.object)) {
        continue;
      }
      const auto watcher = watch->watcher;  // it may end its own watch
      watcher(event);
    }
  }
}

}  // namespace metier
