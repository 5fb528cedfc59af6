// Nuclio's functions in the object model: reading function.yaml, and the attributes and methods that MLRun's
// RemoteRuntime has of its own (function-kinds reference 2.8).
#pragma once

#include <filesystem>
#include <optional>

#include "model/function.h"
#include "model/nuclio/schema.h"

namespace metier::nuclio {

// apiVersion of Nuclio, kind NuclioFunction, or a document of neither that has Nuclio's spec (runtime, handler or triggers).
bool is_nuclio_document(const JsonObject& document);

// A function of kind remote whose base_spec is the document. The code is functionSourceCode, else the file that
// build.path or the handler names beside `file`. Errors: invalid for an unknown field (with the nearest), a wrong type, a
// contradiction; unsupported for what this build cannot do; not_found for the code.
Result<Function> function_from_document(const JsonObject& document,
                                        const std::filesystem::path& file);

// --- methods; all refuse another kind than nuclio, remote and serving -----------------------------------------------

// A dotted key of Nuclio's document, set verbatim at deploy ("spec.eventTimeout", "spec.triggers.t").
Result<void> set_config(Function& function, std::string_view key, const Json& value);
// "spec.triggers.<name>". Errors: invalid (no kind, a kind that is not served, an unknown or wrong field).
Result<void> add_trigger(Function& function, std::string_view name, const JsonObject& trigger);

struct HttpArguments {
  std::optional<std::int64_t> workers = 8;  // nullopt: 0, Nuclio's default
  std::int64_t port = 0;
  std::string host;
  std::vector<std::string> paths;
  std::optional<std::int64_t> worker_timeout;   // seconds
  std::optional<std::int64_t> gateway_timeout;  // seconds
  std::string trigger_name = "http";
  JsonObject annotations;
  JsonObject extra_attributes;
  std::optional<std::int64_t> async_max_connections;  // mode async
};
Result<void> with_http(Function& function, const HttpArguments& arguments);

struct CronArguments {
  std::string name = "cron";
  std::string interval;  // "10s"; exactly one of both
  std::string schedule;  // "0 9 * * *"
  Json body;             // null: none
  JsonObject headers;
  std::string concurrency_policy;  // Allow, Forbid, Replace; "" = Nuclio's default
};
Result<void> with_cron(Function& function, const CronArguments& arguments);

struct KafkaArguments {
  std::string name = "kafka";
  std::vector<std::string> brokers;
  std::vector<std::string> topics;
  std::string consumer_group;
  std::string initial_offset = "earliest";
  std::string explicit_ack_mode;  // "" = disable
  std::int64_t workers = 1;
  JsonObject extra_attributes;
};
Result<void> with_kafka(Function& function, const KafkaArguments& arguments);

// Replicas: a fixed number, or a range. Errors: invalid (least > most, negative).
Result<void> with_replicas(Function& function, std::optional<std::int64_t> least,
                           std::optional<std::int64_t> most);
Result<void> with_service_type(Function& function, std::string_view type);
Result<void> disable_default_http_trigger(Function& function, bool disabled = true);

}  // namespace metier::nuclio
