// Names, labels and URIs: what is made of any text is valid, and URIs print as they were read.
#include "model/names.h"

#include "fuzz.h"
#include "net/url.h"
#include "resource/resource.h"

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  using namespace metier;
  const auto text = fuzz::text_of(data, size);
  const auto normal = normalize_name(text);
  fuzz::require(normalize_name(normal) == normal, "normalising twice differs", normal);
  const auto half = text.substr(0, size / 2);
  if (check_name(text, "metadata.name", "run name")) {
    const auto made = resource_name(text, half, 0, 1);
    fuzz::require(made.size() <= 63, "a resource name is too long", made);
  }
  for (const auto& check : {check_project_name(text), check_label_key(text, "labels"),
                            check_label_value(text, "labels"), check_artifact_key(text, "key")}) {
    if (!check) { fuzz::require_sentence(check.error()); }
  }
  fuzz::require(shorten_name(text, 40).size() <= 40, "not shortened", text);
  if (const auto uri = parse_function_uri(text, "default")) {
    const auto again = parse_function_uri(function_uri(*uri), "default");
    fuzz::require(again && function_uri(*again) == function_uri(*uri), "function URI", text);
  }
  if (const auto uri = parse_run_uri(text)) {
    const auto again = parse_run_uri(run_uri(*uri));
    fuzz::require(again && run_uri(*again) == run_uri(*uri), "run URI", text);
  }
  if (const auto uri = parse_store_uri(text, "default")) {
    const auto again = parse_store_uri(store_uri(*uri), "default");
    fuzz::require(again && store_uri(*again) == store_uri(*uri), "store URI",
                  std::string(text) + " → " + store_uri(*uri));
  }
  if (const auto url = net::parse_url(text)) {
    if (url->scheme != net::Url::Scheme::unix_socket) {
      fuzz::require(net::parse_url(url->origin()).has_value(), "origin", url->origin());
    }
  }
  if (const auto target = net::parse_target(text)) {
    const auto again = net::parse_target(net::percent_encode(target->path, "/"));
    fuzz::require(again && again->path == target->path, "request target", target->path);
  }
  static_cast<void>(default_run_name(half, text));
  return 0;
}
