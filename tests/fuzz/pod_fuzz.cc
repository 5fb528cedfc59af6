// Pod specs: the list of problems and the typed view agree, a refusal names a field, and objects print as they were read.
#include "resource/pod.h"

#include "fuzz.h"
#include "mutate.h"

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  using namespace metier;
  const auto document = parse_json(fuzz::text_of(data, size));
  if (!document) { return 0; }
  const auto resource = resource_from_json(*document);
  if (!resource) {
    fuzz::require_sentence(resource.error());
    return 0;
  }
  const auto printed = to_json(*resource);
  const auto again = resource_from_json(printed);
  fuzz::require(again && same_content(*again, *resource), "an object reads differently",
                dump_json(printed));
  static_cast<void>(check_metadata(resource->metadata));
  const auto problems = pod_problems(*resource);
  const auto pod = pod_from(*resource);
  fuzz::require(pod.has_value() == problems.empty(), "problems and view disagree",
                dump_json(printed));
  for (const auto& problem : problems) {
    fuzz::require_sentence(problem);
    fuzz::require(!problem.field.empty(), "a problem without a field", problem.message);
  }
  if (pod) {
    static_cast<void>(pod_requests(*pod));
    static_cast<void>(pod_limits(*pod));
  }
  const auto status = pod_status_from_json(resource->status);
  const auto told = to_json(status);
  fuzz::require(dump_json(to_json(pod_status_from_json(told))) == dump_json(told),
                "a status reads differently", dump_json(told));
  return 0;
}
