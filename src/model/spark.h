// The methods of functions of kinds spark and remote-spark, with MLRun's results and errors (function-kinds
// reference 2.5, 2.6). Each either does all of its work or nothing.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "model/attributes.h"

namespace metier {

// Spark's own form of memory: digits and one of k, m, g (powers of two), no "Gi". Errors: invalid.
Result<void> check_spark_memory(std::string_view text, std::string_view field);

enum class SparkRole { driver, executor };
std::string_view to_string(SparkRole role);

// requests.memory and requests.cpu of one role; without `patch` they replace the map.
// Errors: unsupported (another kind), invalid (memory's form, no quantity).
Result<void> with_spark_requests(Function& function, SparkRole role, const Json& mem,
                                 const Json& cpu, bool patch = false);
// Spark has no memory limit: it is the request and its overhead.
Result<void> with_spark_limits(Function& function, SparkRole role, const LimitArguments& arguments);
// Task slots; null and 0 leave the old value. Errors: invalid below 1.
Result<void> with_spark_cores(Function& function, const Json& executor_cores,
                              const Json& driver_cores);

struct RestartArguments {
  Json type = "OnFailure";
  Json retries = 0;
  Json retry_interval = 10;  // seconds
  Json submission_retries = 3;
  Json submission_retry_interval = 20;  // seconds
};
Result<void> with_restart_policy(Function& function, const RestartArguments& arguments);
// Null and 0 leave a bound out.
Result<void> with_dynamic_allocation(Function& function, const Json& min_executors,
                                     const Json& max_executors, const Json& initial_executors);
Result<void> disable_monitoring(Function& function);
// As with_node_selection. Errors: unsupported for a node name as well; MLRun has none for Spark's roles.
Result<void> with_spark_node_selection(Function& function, SparkRole role,
                                       const NodeSelection& selection,
                                       std::vector<std::string>* warnings = nullptr);
// `field` of the function's spec. Errors: invalid for another than allow, constrain, prevent, none.
Result<void> check_preemption_mode(std::string_view field, std::string_view mode);
Result<void> with_spark_preemption_mode(Function& function, SparkRole role, std::string_view mode);
Result<void> with_spark_host_path(Function& function, SparkRole role, std::string_view host_path,
                                  std::string_view mount_path, std::string_view type,
                                  std::string_view volume_name);
// Always refused: Iguazio's Spark needs its own platform.
Result<void> with_igz_spark(Function& function);

// What was asked for as for kinds of one role (spec.resources, min_replicas and max_replicas: the command line's flags)
// as Spark's own fields: both roles, devices to executors only, dynamic allocation. Memory comes out in Spark's form.
Result<void> spread_over_roles(JsonObject& spec);

// remote-spark: which service the session goes to. spark:// and sc:// addresses are taken as they are, other names
// are looked up when it runs (METIER_SPARK_SERVICE_<NAME>). Errors: unsupported for a Livy address, invalid.
Result<void> with_spark_service(Function& function, std::string_view service,
                                std::string_view provider = {});

}  // namespace metier
