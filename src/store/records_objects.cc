#include "base/digest.h"
#include "store/sqlite_records.h"

namespace metier {

Result<std::uint64_t> SqliteRecords::stored_revision() const {
  METIER_TRY(q, db_->query("SELECT value FROM revision"));
  METIER_TRY(found, q.step());
  return found ? static_cast<std::uint64_t>(q.integer(0)) : 0;
}

Result<std::uint64_t> SqliteRecords::next_revision() {
  {
    METIER_TRY(q, db_->query("UPDATE revision SET value = value + 1"));
    METIER_CHECK(q.run());
  }
  return stored_revision();
}

// A Secret's document is sealed as a whole; everything else is plain JSON.
Result<std::string> SqliteRecords::object_body(const Resource& object) const {
  auto text = dump_json(to_json(object));
  if (object.kind != "Secret") { return text; }
  return box_->seal(text, key_of(object).text());
}

Result<Resource> SqliteRecords::object_from(const std::string& body, const std::string& kind,
                                            const std::string& place, std::uint64_t version) const {
  std::string text = body;
  if (kind == "Secret") {
    METIER_TRY(plain, box_->open_sealed(body, place));
    text = std::move(plain);
  }
  METIER_TRY(document, parse_json(text));
  METIER_TRY(object, resource_from_json(document));
  object.version = version;
  return std::move(object);
}

Result<std::vector<Resource>> SqliteRecords::all_objects() const {
  METIER_TRY(q, db_->query("SELECT name_space, kind, name, version, body FROM objects"));
  std::vector<Resource> out;
  while (true) {
    METIER_TRY(more, q.step());
    if (!more) { break; }
    const ResourceKey key{q.text(0), q.text(1), q.text(2)};
    auto object =
        object_from(q.text(4), key.kind, key.text(), static_cast<std::uint64_t>(q.integer(3)));
    if (!object) { return fail(std::move(object.error()).in("object " + key.text())); }
    out.push_back(std::move(*object));
  }
  return out;
}

Result<std::uint64_t> SqliteRecords::put_object(Resource object, std::uint64_t expected) {
  const auto key = key_of(object);
  std::uint64_t known = 0;
  std::string uid;
  {
    METIER_TRY(
        q, db_->query(
               "SELECT version, uid FROM objects WHERE name_space = ? AND kind = ? AND name = ?"));
    q.bind(key.name_space).bind(key.kind).bind(key.name);
    METIER_TRY(found, q.step());
    if (found) {
      known = static_cast<std::uint64_t>(q.integer(0));
      uid = q.text(1);
    }
  }
  if (expected != ObjectStore::kAnyVersion && expected != known) {
    return fail(ErrorKind::conflict, known == 0      ? key.text() + " is not there any more"
                                     : expected == 0 ? key.text() + " already exists"
                                                     : key.text() + " has changed meanwhile");
  }
  if (object.metadata.uid.empty()) {
    object.metadata.uid = uid.empty() ? new_uid(system_random()) : uid;
  }
  METIER_TRY(revision, next_revision());
  object.version = revision;
  METIER_TRY(body, object_body(object));
  METIER_TRY(q, db_->query("INSERT INTO objects VALUES(?,?,?,?,?,?,?) ON CONFLICT DO UPDATE SET "
                           "uid = excluded.uid, owner = excluded.owner, "
                           "version = excluded.version, body = excluded.body"));
  q.bind(key.name_space).bind(key.kind).bind(key.name).bind(object.metadata.uid);
  q.bind(object.metadata.owner ? object.metadata.owner->uid : std::string())
      .bind(static_cast<std::int64_t>(revision))
      .bind_blob(body);
  METIER_CHECK(q.run());
  changes_.push_back(
      {known == 0 ? ObjectEvent::Type::added : ObjectEvent::Type::modified, std::move(object)});
  return revision;
}

Result<void> SqliteRecords::remove_object(const ResourceKey& key) {
  std::string uid;
  Resource gone;
  {
    METIER_TRY(q, db_->query("SELECT uid, version, body FROM objects WHERE name_space = ? AND kind "
                             "= ? AND name = ?"));
    q.bind(key.name_space).bind(key.kind).bind(key.name);
    METIER_TRY(found, q.step());
    if (!found) { return {}; }
    uid = q.text(0);
    METIER_TRY(object, object_from(q.text(2), key.kind, key.text(),
                                   static_cast<std::uint64_t>(q.integer(1))));
    gone = std::move(object);
  }
  {
    METIER_TRY(q, db_->query("DELETE FROM objects WHERE name_space = ? AND kind = ? AND name = ?"));
    q.bind(key.name_space).bind(key.kind).bind(key.name);
    METIER_CHECK(q.run());
  }
  METIER_TRY(revision, next_revision());
  gone.version = revision;
  changes_.push_back({ObjectEvent::Type::removed, std::move(gone)});
  std::vector<ResourceKey> owned;
  {
    METIER_TRY(
        q,
        db_->query("SELECT name_space, kind, name FROM objects WHERE owner = ? AND owner <> ''"));
    q.bind(uid);
    while (true) {
      METIER_TRY(more, q.step());
      if (!more) { break; }
      owned.push_back({q.text(0), q.text(1), q.text(2)});
    }
  }
  for (const auto& other : owned) { METIER_CHECK(remove_object(other)); }
  return {};
}

}  // namespace metier
