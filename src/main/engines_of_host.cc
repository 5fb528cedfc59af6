#include "main/engines_of_host.h"

#include <cstdlib>
#include <filesystem>

#include "main/environments_of_pods.h"
#include "mpi/flavor.h"

namespace metier {
namespace {

KindHealth mpijob(const std::string& path, const std::string& python) {
  KindHealth out{.kind = "mpijob"};
  mpi::Engine engine;
  if (auto missing = mpi::find_engine("mpirun", path, engine); !missing.empty()) {
    out.usable = false;
    out.note =
        "no MPI: apt-get install openmpi-bin libopenmpi-dev (or openmpi or mpich in a "
        "function's requirements)";
    return out;
  }
  out.with = std::string(mpi::to_string(engine.flavor)) + ", " + engine.launcher;
  if (package_version(python, "mpi4py").empty()) {
    out.note = "the default environment has no mpi4py, which Python programs need: " + python +
               " -m pip install mpi4py, or name it in a file for metier run --requirements FILE";
  }
  if (engine.library.empty()) {
    out.note = "the library of this mpirun was not found below " + engine.prefix +
               ": set MPI4PY_LIBMPI in functions that use mpi4py";
  }
  return out;
}

}  // namespace

std::vector<KindHealth> engines_of_host(const std::string& python) {
  const char* listed = std::getenv("PATH");
  std::string path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
  if (listed != nullptr && *listed != '\0') { path = std::string(listed) + ":" + path; }
  const auto bin = std::filesystem::path(python).parent_path().string();
  if (!bin.empty()) { path = bin + ":" + path; }
  return {mpijob(path, python)};
}

}  // namespace metier
