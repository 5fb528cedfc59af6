// The objects of a function: its Service and its processor's Pods; and the file that a processor reads. Pure.
#pragma once

#include "resource/resource.h"

namespace metier {

inline constexpr std::string_view kFunctionAnnotation = "metier.dev/function";  // of the Pods
inline constexpr int kAdminPort = 8081;
inline constexpr int kHealthPort = 8082;
inline constexpr int kMetricsPort = 8090;

// "nuclio-<name>"
std::string nuclio_service_name(const Resource& function);
// The HTTP trigger, or null when the function has none.
const JsonObject* http_trigger(const JsonObject& spec);
// NodePort's port: the trigger's, 0 = any; -1 for ClusterIP.
int node_port(const JsonObject& spec);
std::int64_t function_generation(const Resource& function);

Resource nuclio_service(const Resource& function);
Resource processor_pod(const Resource& function, std::int64_t generation, std::int64_t index);
// "nuclio-<name>-<generation>-<index>"
std::string processor_pod_name(const Resource& function, std::int64_t generation,
                               std::int64_t index);

// What the node adds to the function's own document.
struct ProcessorPlace {
  std::string path;    // folder of the code
  std::string python;  // interpreter
  std::string lib;     // the unpacked bundle
  std::string gate;    // path of the gate's socket; empty: the processor binds `address` itself
  std::string socket;  // its name there
  std::string external_socket;  // of the one that other machines reach, may be empty
  std::string address;          // of the HTTP trigger
  std::string pod;              // its name
  std::string pod_ip;           // of health and metrics
};
// The file of `metier processor --config` (realtime/processor_config.h).
JsonObject processor_config(const Resource& function, const ProcessorPlace& place);
// The file that holds the code: "main.py" for main:handler, "pkg/mod.py" for pkg.mod:handler.
std::string code_file(const JsonObject& spec);

}  // namespace metier
