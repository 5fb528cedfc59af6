// Names, and the URIs made of them.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"

namespace metier {

// Lower case; "_" and spaces become "-".
std::string normalize_name(std::string_view name);
// Function and run names: 1-63 of [A-Za-z0-9._-], ends alphanumeric. `what` is "function name", "run name".
Result<void> check_name(std::string_view name, std::string_view field, std::string_view what);
// Projects: a DNS-1123 label.
Result<void> check_project_name(std::string_view name, std::string_view field = "metadata.project");
// Tags and label values: at most 63, may be empty.
Result<void> check_label_value(std::string_view value, std::string_view field);
// Label and node selector keys: [prefix/]name; "k8s.io" prefixes are Kubernetes' own.
Result<void> check_label_key(std::string_view key, std::string_view field);
// Artifact keys: ^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$
Result<void> check_artifact_key(std::string_view key, std::string_view field);

// "[project/]name[:tag]" or "[project/]name@hash", with or without "db://".
struct FunctionUri {
  std::string project;
  std::string name;
  std::string tag;
  std::string hash;
};
Result<FunctionUri> parse_function_uri(std::string_view text, std::string_view default_project);
std::string function_uri(const FunctionUri& uri);

// "project@uid#iteration[:tag]"
struct RunUri {
  std::string project;
  std::string uid;
  std::int64_t iteration = 0;
  std::string tag;
};
Result<RunUri> parse_run_uri(std::string_view text);
std::string run_uri(const RunUri& uri);

// "store://<kind>/project/key[#iter][:tag][@tree][^uid]"; kind is artifacts, models, datasets…
struct StoreUri {
  std::string kind = "artifacts";
  std::string project;
  std::string key;
  std::int64_t iteration = 0;
  bool has_iteration = false;
  std::string tag;
  std::string tree;
  std::string uid;
};
Result<StoreUri> parse_store_uri(std::string_view text, std::string_view default_project);
std::string store_uri(const StoreUri& uri);

// `<function>-<handler short name>` normalised, as MLRun names a run without a name. The short name is what
// follows "#", "::" or the last ".".
std::string default_run_name(std::string_view function, std::string_view handler);
// The name of everything made for a run: `<run name>-<8 hex of sha256(uid, iteration, attempt)>`, the run
// name cut so that the longest derived name (`…-worker-<n>`) is at most 63 characters.
std::string resource_name(std::string_view run_name, std::string_view uid, std::int64_t iteration,
                          std::int64_t attempt);

}  // namespace metier
