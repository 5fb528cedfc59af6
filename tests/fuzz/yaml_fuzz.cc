// Any bytes: bounded, no crash, nothing constructed; what is accepted prints as YAML that reads back as the same value.
#include "base/yaml.h"

#include "fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  using namespace metier;
  const YamlLimits limits{.bytes = 4096, .depth = 24, .nodes = 2000};
  const auto documents = parse_yaml_all(fuzz::text_of(data, size), limits);
  if (!documents) {
    fuzz::require_sentence(documents.error());
    return 0;
  }
  for (const auto& document : *documents) {
    const auto printed = dump_yaml(document);
    const auto again = parse_yaml(printed);
    fuzz::require(again.has_value(), "what was printed does not read",
                  again ? printed : printed + again.error().message);
    fuzz::require(
        dump_python_json(*again) == dump_python_json(document), "it reads differently",
        printed + "\nwas " + dump_python_json(document) + "\nis " + dump_python_json(*again));
  }
  return 0;
}
