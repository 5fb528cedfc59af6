#include "store/object_index.h"

namespace metier {
namespace {

std::string pair_of(const std::string& name, const std::string& value) {
  return name + '=' + value;
}

bool has_ended(const Resource& object) {
  const auto* status = object.status.if_object();
  if (object.kind != "Pod" || status == nullptr) { return false; }
  const auto phase = string_in(*status, "phase");
  return phase == "Succeeded" || phase == "Failed";
}

}  // namespace

Resource ObjectIndex::Stored::get() const {
  if (text.empty()) { return object; }
  auto out = object;
  if (auto parts = parse_json(text); parts && parts->is_object()) {
    out.body = std::move(parts->get_object()["body"].get_object());
    out.status = std::move(parts->get_object()["status"]);
  }
  return out;
}

void ObjectIndex::load(std::vector<Resource> objects, std::uint64_t revision) {
  for (auto& object : objects) { insert(std::move(object)); }
  revision_ = revision;
}

void ObjectIndex::insert(Resource object) {
  const auto at = objects_.insert_or_assign(key_of(object), Stored{}).first;
  if (object.metadata.owner) { by_owner_[object.metadata.owner->uid].insert(&at->first); }
  for (const auto& [name, value] : object.metadata.labels) {
    by_label_[pair_of(name, value)].insert(&at->first);
  }
  if (has_ended(object)) {
    JsonObject parts;
    parts["body"] = std::move(object.body);
    parts["status"] = std::move(object.status);
    at->second.text = dump_object(parts);
    at->second.text.shrink_to_fit();
    object.body = JsonObject{};
    object.status = nullptr;
  }
  at->second.object = std::move(object);
}

void ObjectIndex::erase(const ResourceKey& key) {
  const auto found = objects_.find(key);
  if (found == objects_.end()) { return; }
  const auto forget = [&](auto& index, const std::string& entry) {
    const auto it = index.find(entry);
    if (it == index.end()) { return; }
    it->second.erase(&found->first);
    if (it->second.empty()) { index.erase(it); }
  };
  const auto& metadata = found->second.object.metadata;
  if (metadata.owner) { forget(by_owner_, metadata.owner->uid); }
  for (const auto& [name, value] : metadata.labels) { forget(by_label_, pair_of(name, value)); }
  objects_.erase(found);
}

void ObjectIndex::apply(const ObjectChange& change) {
  const auto key = key_of(change.object);
  erase(key);
  if (change.type != ObjectEvent::Type::removed) { insert(change.object); }
  revision_ = change.object.version;
  const ObjectEvent event{change.type, change.object, revision_};
  // A watcher may add or end watches: walk over a copy.
  const auto watches = watches_;
  for (const auto& weak : watches) {
    const auto watch = weak.lock();
    if (watch != nullptr && watch->selector.matches(change.object)) { watch->watcher(event); }
  }
  std::erase_if(watches_, [](const auto& weak) { return weak.expired(); });
}

std::optional<Resource> ObjectIndex::get(const ResourceKey& key) const {
  const auto found = objects_.find(key);
  return found == objects_.end() ? std::nullopt : std::optional(found->second.get());
}

std::vector<Resource> ObjectIndex::list(const Selector& selector) const {
  std::vector<Resource> out;
  const auto take = [&](const Stored& stored) {
    if (selector.matches(stored.object)) { out.push_back(stored.get()); }
  };
  if (selector.name_space && !selector.kind.empty() && !selector.name.empty()) {
    if (const auto found = objects_.find({*selector.name_space, selector.kind, selector.name});
        found != objects_.end()) {
      take(found->second);
    }
    return out;
  }
  // The smallest set that must hold every match.
  static const Keys kNone;
  const Keys* smallest = nullptr;
  const auto consider = [&](const auto& index, const std::string& entry) {
    const auto it = index.find(entry);
    const auto* set = it == index.end() ? &kNone : &it->second;
    if (smallest == nullptr || set->size() < smallest->size()) { smallest = set; }
  };
  if (!selector.owner_uid.empty()) { consider(by_owner_, selector.owner_uid); }
  for (const auto& [name, value] : selector.labels) { consider(by_label_, pair_of(name, value)); }
  if (smallest != nullptr) {
    for (const auto* key : *smallest) { take(objects_.at(*key)); }
    return out;
  }
  auto it = objects_.begin();
  if (selector.name_space) { it = objects_.lower_bound({*selector.name_space, selector.kind, {}}); }
  for (; it != objects_.end(); ++it) {
    if (selector.name_space && it->first.name_space != *selector.name_space) { break; }
    if (selector.name_space && !selector.kind.empty() && it->first.kind != selector.kind) { break; }
    take(it->second);
  }
  return out;
}

std::shared_ptr<void> ObjectIndex::watch(Selector selector, ObjectStore::Watcher watcher) {
  auto watch = std::make_shared<Watch>(std::move(selector), std::move(watcher));
  watches_.push_back(watch);
  return watch;
}

}  // namespace metier
