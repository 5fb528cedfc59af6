#include "main/engines.h"

#include <unistd.h>

#include <cstdlib>
#include <filesystem>

#include "base/files.h"

namespace metier {
namespace {

namespace fs = std::filesystem;

constexpr int kLeastJava = 17;
constexpr std::string_view kPathOfPods =
    "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
constexpr const char* kInstallJava = "apt-get install openjdk-17-jre-headless";

std::string program_in(std::string_view path, std::string_view name) {
  while (!path.empty()) {
    const std::size_t end = std::min(path.find(':'), path.size());
    std::string candidate = std::string(path.substr(0, end)) + "/" + std::string(name);
    if (end > 0 && ::access(candidate.c_str(), X_OK) == 0) { return candidate; }
    path.remove_prefix(std::min(end + 1, path.size()));
  }
  return {};
}

std::string text_of(const char* value) { return value == nullptr ? std::string() : value; }

// JAVA_VERSION="17.0.15" of an installation's `release` file; asking the program itself takes 50 ms and more.
std::string release_of(const fs::path& root) {
  auto text = read_file(root / "release", 1 << 16);
  if (!text) { return {}; }
  constexpr std::string_view kKey = "JAVA_VERSION=\"";
  const std::size_t at = text->find(kKey);
  if (at == std::string::npos) { return {}; }
  const std::size_t start = at + kKey.size();
  return text->substr(start, text->find('"', start) - start);
}

int major_of(const std::string& version) {
  const bool old = version.starts_with("1.");  // 1.8
  return std::atoi(version.c_str() + (old ? 2 : 0));
}

}  // namespace

Java find_java(const std::string& home, const std::string& path) {
  Java out;
  out.program = home.empty() ? program_in(path, "java") : program_in(home + "/bin", "java");
  if (out.program.empty()) { return out; }
  std::error_code error;
  const fs::path real = fs::canonical(out.program, error);
  if (error) { return out; }
  for (fs::path root = real.parent_path().parent_path();
       out.version.empty() && root != root.root_path(); root = root.parent_path()) {
    out.version = release_of(root);
  }
  out.major = major_of(out.version);
  return out;
}

namespace {

// The Java that pods have: that of this server's JAVA_HOME, else of its PATH, else where Debian puts it.
Java java_of_pods() {
  if (const std::string home = text_of(std::getenv("JAVA_HOME")); !home.empty()) {
    if (Java java = find_java(home, ""); !java.program.empty()) { return java; }
  }
  return find_java("", text_of(std::getenv("PATH")) + ":" + std::string(kPathOfPods));
}

}  // namespace

std::vector<KindHealth> spark_health() {
  const Java java = java_of_pods();
  KindHealth spark{.kind = "spark", .usable = true, .with = "Java " + java.version, .note = {}};
  std::string missing;
  if (java.program.empty()) {
    spark.with = "";
    missing = std::string("no Java on PATH: ") + kInstallJava;
  } else if (java.version.empty()) {
    spark.with = "Java at " + java.program;
  } else if (java.major < kLeastJava) {
    missing = "Spark 4 needs Java 17: " + std::string(kInstallJava);
  }
  spark.usable = missing.empty();
  spark.note =
      missing.empty() ? "needs pyspark and pandas<3 in the function's environment" : missing;
  KindHealth remote{.kind = "remote-spark", .usable = true, .with = spark.with, .note = {}};
  remote.note = missing.empty() ? "spark:// and sc:// services" : "sc:// services only; " + missing;
  return {std::move(spark), std::move(remote)};
}

std::map<std::string, std::string> spark_variables() {
  constexpr std::string_view kStart = "METIER_SPARK_SERVICE_";
  std::map<std::string, std::string> out;
  for (char** one = environ; *one != nullptr; ++one) {
    const std::string_view text(*one);
    const std::size_t equals = text.find('=');
    if (text.starts_with(kStart) && equals > kStart.size()) {
      out.emplace(text.substr(0, equals), text.substr(equals + 1));
    }
  }
  const Java java = java_of_pods();
  std::error_code error;
  const fs::path real = fs::canonical(java.program, error);
  if (!error && java.program != program_in(kPathOfPods, "java")) {
    out.emplace("JAVA_HOME", real.parent_path().parent_path().string());
  }
  return out;
}

}  // namespace metier
