#include "main/engines_of_host.h"

#include <chrono>
#include <cstdlib>
#include <filesystem>

#include "main/environments_of_pods.h"
#include "mpi/flavor.h"

namespace metier {
namespace {

// For an mpirun that nothing else tells; the server does nothing else meanwhile.
constexpr auto kVersionLimit = std::chrono::seconds(2);

// Of a kind that runs programs too.
std::string no_python_note() {
  return std::string(kNoPython) +
         ", so only programs and native handlers run: " + std::string(kNoPythonFix);
}

KindHealth mpijob(const std::string& path, const std::string& python) {
  KindHealth out{.kind = "mpijob"};
  mpi::Engine engine;
  if (auto missing = mpi::find_engine("mpirun", path, engine, kVersionLimit); !missing.empty()) {
    out.usable = false;
    out.note = engine.launcher.empty()
                   ? "no MPI: apt-get install openmpi-bin libopenmpi-dev (or openmpi or mpich in a "
                     "function's requirements)"
                   : missing;
    return out;
  }
  out.with = std::string(mpi::to_string(engine.flavor)) + ", " + engine.launcher;
  if (python.empty()) {
    out.note = no_python_note();
  } else if (package_version(python, "mpi4py").empty()) {
    out.note = "the default environment has no mpi4py, which Python programs need: " + python +
               " -m pip install mpi4py, or name it in a file for metier run --requirements FILE";
  }
  if (engine.library.empty()) {
    out.note = "the library of this mpirun was not found below " + engine.prefix +
               ": set MPI4PY_LIBMPI in functions that use mpi4py";
  }
  return out;
}

KindHealth dask(const std::string& python) {
  KindHealth out{.kind = "dask"};
  if (python.empty()) {
    out.usable = false;
    out.note = std::string(kNoPython) + ": " + std::string(kNoPythonFix);
    return out;
  }
  const std::string version = package_version(python, "distributed");
  out.with = version.empty() ? "embedded cluster" : "Dask " + version;
  if (version.empty()) {
    out.note = "the default environment has no Dask: " + python +
               " -m pip install dask distributed, or name both in a file for metier run "
               "--requirements FILE";
  }
  return out;
}

// A kind that needs nothing but the embedded cluster; without Python it runs what is none.
KindHealth plain(const char* kind, const std::string& python) {
  return {.kind = kind,
          .usable = true,
          .with = "embedded cluster",
          .note = python.empty() ? no_python_note() : std::string()};
}

}  // namespace

std::vector<KindHealth> engines_of_host(const std::string& python) {
  const char* listed = std::getenv("PATH");
  std::string path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
  if (listed != nullptr && *listed != '\0') { path = std::string(listed) + ":" + path; }
  const auto bin = std::filesystem::path(python).parent_path().string();
  if (!bin.empty()) { path = bin + ":" + path; }
  return {plain("job", python), plain("nuclio", python), dask(python), mpijob(path, python)};
}

}  // namespace metier
