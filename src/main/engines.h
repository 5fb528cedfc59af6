// What engines of kinds are installed on this machine, for `metier kinds --check`.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "cluster/cluster.h"

namespace metier {

// Major version of the Java that `home` (JAVA_HOME) or `path` (PATH) finds, with the text of its version; 0: none.
struct Java {
  int major = 0;
  std::string version;
  std::string program;
};
Java find_java(const std::string& home, const std::string& path);

// spark and remote-spark.
std::vector<KindHealth> spark_health();
// What pods get of this server's environment: METIER_SPARK_SERVICE_<NAME>, the addresses of Spark services, and
// JAVA_HOME where Java is in no place of Debian's.
std::map<std::string, std::string> spark_variables();

}  // namespace metier
