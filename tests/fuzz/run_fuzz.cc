// Run documents as clients send them: validation, MLRun's storing and changing rules, and what is read back.
#include "engine/records/records.h"
#include "engine/testing/memory_store.h"
#include "fuzz.h"
#include "model/run.h"
#include "mutate.h"

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  using namespace metier;
  const auto document = parse_json(fuzz::text_of(data, size));
  if (!document || !document->is_object()) { return 0; }
  if (const auto run = Run::from_json(*document)) {
    const auto valid = validate_run(*run);
    if (!valid) { fuzz::require_sentence(valid.error()); }
    static_cast<void>(run->to_dict());
  } else {
    fuzz::require_sentence(run.error());
  }
  MemoryRecords records;
  fuzz::require(records.put_project("default", "{}").has_value(), "project");
  const records::RunWrite target{"default", "0123456789abcdef", 0, false};
  const auto now = from_iso("2026-11-28T10:00:00+00:00").value();
  JsonObject base{{"metadata", {{"name", "fuzz"}}}};
  fuzz::require(records::store_run(records, target, base, now).has_value(), "a plain run");
  for (int round = 0; round < 2; ++round) {
    const auto stored = round == 0
                            ? records::store_run(records, target, document->get_object(), now)
                            : records::patch_run(records, target, document->get_object(), now);
    if (!stored) { fuzz::require_sentence(stored.error()); }
    const auto back = records::read_run(records, target.project, target.uid, 0, true);
    fuzz::require(back.has_value(), "a stored run does not read", back ? "" : back.error().message);
    fuzz::require(string_at(*back, "metadata.name") == "fuzz", "a run lost its name",
                  dump_json(*back));
  }
  return 0;
}
