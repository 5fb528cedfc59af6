// The Pods, Service and gang of one SparkApplication. Pure.
#pragma once

#include <string>

#include "resource/pod.h"
#include "resource/resource.h"

namespace metier {

inline constexpr int kSparkDriverPort = 7078;  // the ports that Spark has on Kubernetes
inline constexpr int kSparkBlockPort = 7079;
inline constexpr int kSparkUiPort = 4040;
inline constexpr int kSparkWishesPort = 7080;  // spark/: how many executors Spark wants
inline constexpr std::string_view kSparkAppLabel = "sparkoperator.k8s.io/app-name";
inline constexpr std::string_view kSparkRoleLabel = "spark-role";
inline constexpr std::string_view kSparkExecutorLabel = "spark-exec-id";
inline constexpr std::string_view kSparkAttemptLabel = "metier.dev/attempt";

// One execution of the application: the second one and later have names of their own.
struct SparkNames {
  SparkNames(const Resource& application, std::int64_t attempt);
  std::string prefix;
  std::string driver;   // the driver's pod
  std::string service;  // of the driver
  std::string group;
  std::string archiver;
  std::string executor(std::int64_t id) const;
  std::int64_t attempt;
  std::string archives = {};  // folder of class-data archives, may be empty
};

struct SparkSize {
  std::int64_t initial = 1;  // executors that start with the driver
  std::int64_t least = 1;
  std::int64_t most = 1;
  bool dynamic = false;
};
SparkSize spark_size(const Resource& application);
// Where Spark's own pages are on the driver's address: kSparkUiPort unless the user chose another one.
int spark_ui_port(const Resource& application);
// Bytes of "512m"; nothing for another form.
std::optional<std::int64_t> spark_bytes(std::string_view text);

Resource spark_service(const Resource& application, const SparkNames& names);
Resource spark_group(const Resource& application, const SparkNames& names);
Resource spark_driver(const Resource& application, const SparkNames& names);
Resource spark_executor(const Resource& application, const SparkNames& names, std::int64_t id);
// Writes the class-data archives that the JVMs of an ended application have recorded lists for. It is no part of the
// run: it has none of its labels, variables and secrets, and asks for no room.
Resource spark_archiver(const Resource& application, const SparkNames& names);
// How a pod ended: its own words, else its process's signal or exit code.
std::string pod_end_text(const PodStatus& status);
// The same, as a sentence about `who` where it was killed or lost: then nothing else names it.
std::string part_end_text(std::string_view who, const PodStatus& status);

// The warm Spark of a SparkConnect resource (connect_controller.h). One process does what driver and executors of the application would.
inline constexpr int kSparkConnectPort = 15002;
std::string spark_connect_name(const Resource& connect, std::int64_t incarnation);
int spark_connect_ui_port(const Resource& connect);
Resource spark_connect_service(const Resource& connect);
// The server and its first client start together.
Resource spark_connect_group(const Resource& connect);
Resource spark_connect_pod(const Resource& connect, std::int64_t incarnation,
                           const std::string& archives);

}  // namespace metier
