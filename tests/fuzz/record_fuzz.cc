// What a shim writes (`state`, `exit`), as a restarted server finds it: framed by base/files.h, then JSON.
#include "cluster/embedded/pod_record.h"

#include "fuzz.h"
#include "mutate.h"

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  using namespace metier;
  const auto text = fuzz::text_of(data, size);
  const auto now = from_iso("2026-11-28T10:00:00+00:00").value();
  const auto record = read_pod_record(text);
  if (record) {
    static_cast<void>(to_json(record->status));
  } else {
    fuzz::require_sentence(record.error());
  }
  // Whatever was there last, the record of a lost pod reads, has ended and has invented no exit status.
  const auto lost = read_pod_record(lost_record(text, "pod", "ShimLost", "the shim is gone", now));
  fuzz::require(lost.has_value(), "the record of a lost pod does not read", text);
  fuzz::require(lost->ended && is_terminal(lost->status.phase), "a lost pod has not ended", text);
  return 0;
}
