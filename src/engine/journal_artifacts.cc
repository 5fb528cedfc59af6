// Artifacts of the journal, by the rules of records/.
#include "engine/journal.h"
#include "engine/records/records.h"

namespace metier {

Result<void> store_artifact_record(Records& tx, const std::string& project, const std::string& uid,
                                   std::int64_t iteration, const JsonObject& record, Time now) {
  const JsonObject* body = object_in(record, "body");
  const std::string_view key = string_in(record, "key");
  if (body == nullptr || key.empty()) {
    return fail(invalid("store_artifact", "a record without key or body"));
  }
  records::ArtifactWrite target;
  target.project = project;
  target.key = key;
  target.tag = string_in(record, "tag");
  target.tree = string_in(record, "tree", uid);
  target.iteration = iteration;
  METIER_CHECK(records::store_artifact(tx, target, *body, now));
  return {};
}

}  // namespace metier
