#include "mpi/flavor.h"

#include <glob.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <climits>
#include <cstdlib>
#include <vector>

namespace metier::mpi {
namespace {

std::string on_path(const std::string& name, std::string_view path) {
  if (name.find('/') != std::string::npos) {
    return ::access(name.c_str(), X_OK) == 0 ? name : std::string();
  }
  while (!path.empty()) {
    const auto end = std::min(path.find(':'), path.size());
    const auto candidate = std::string(path.substr(0, end)) + "/" + name;
    if (end > 0 && ::access(candidate.c_str(), X_OK) == 0) { return candidate; }
    path.remove_prefix(std::min(end + 1, path.size()));
  }
  return {};
}

std::string real(const std::string& path) {
  std::array<char, PATH_MAX> out{};
  return ::realpath(path.c_str(), out.data()) != nullptr ? std::string(out.data()) : path;
}

std::string folder_of(const std::string& path) { return path.substr(0, path.rfind('/')); }
std::string name_of(const std::string& path) { return path.substr(path.rfind('/') + 1); }
bool exists(const std::string& path) { return ::access(path.c_str(), F_OK) == 0; }

std::string first_of(const std::string& pattern) {
  glob_t found{};
  std::string out;
  if (::glob(pattern.c_str(), 0, nullptr, &found) == 0 && found.gl_pathc > 0) {
    out = found.gl_pathv[0];
  }
  ::globfree(&found);
  return out;
}

// What the launcher says about itself: the last resort, it costs a start.
std::string say_version(const std::string& launcher) {
  int ends[2];
  if (::pipe(ends) != 0) { return {}; }
  const pid_t child = ::fork();
  if (child == 0) {
    ::dup2(ends[1], 1);
    ::dup2(ends[1], 2);
    ::close(ends[0]);
    ::execl(launcher.c_str(), launcher.c_str(), "--version", nullptr);
    ::_exit(127);
  }
  ::close(ends[1]);
  std::string text;
  std::array<char, 4096> part{};
  for (ssize_t n = 0;
       text.size() < 65'536 && (n = ::read(ends[0], part.data(), part.size())) > 0;) {
    text.append(part.data(), static_cast<std::size_t>(n));
  }
  ::close(ends[0]);
  int status = 0;
  ::waitpid(child, &status, 0);
  return text;
}

bool told_by_place(const std::string& launcher, Flavor& out) {
  const auto name = name_of(launcher);
  const auto folder = folder_of(launcher);
  if (name == "orterun") {
    out = Flavor::openmpi4;
  } else if (name == "prterun") {
    out = Flavor::openmpi5;
  } else if (name == "mpiexec.hydra" || name == "mpiexec.mpich") {
    out = Flavor::mpich;
  } else if (exists(folder + "/hydra_pmi_proxy") && !exists(folder + "/prterun")) {
    out = Flavor::mpich;
  } else if (exists(folder + "/prterun") && !exists(folder + "/hydra_pmi_proxy")) {
    out = Flavor::openmpi5;
  } else {
    return false;
  }
  return true;
}

// The library of the launcher's own prefix; a Debian launcher's is among the system's.
std::string library_of(const std::string& prefix, Flavor flavor) {
  const std::string folders[] = {prefix + "/lib", prefix + "/lib64",
                                 prefix + "/lib/x86_64-linux-gnu",
                                 prefix + "/lib/aarch64-linux-gnu"};
  for (const auto& folder : folders) {
    const auto found = flavor == Flavor::mpich ? first_of(folder + "/libmpich.so.[0-9]*")
                                               : first_of(folder + "/libmpi.so.40*");
    if (!found.empty()) { return found; }
    if (flavor != Flavor::mpich) { continue; }
    if (const auto other = first_of(folder + "/libmpi.so.12*"); !other.empty()) { return other; }
  }
  return {};
}

}  // namespace

std::string find_engine(const std::string& name, const std::string& path, Engine& out) {
  const auto found = on_path(name, path);
  if (found.empty()) {
    return "there is no " + name +
           " in the function's environment or on this machine: install Open MPI (apt-get install "
           "openmpi-bin libopenmpi-dev), or name openmpi or mpich in the function's requirements";
  }
  out.launcher = real(found);
  if (!told_by_place(out.launcher, out.flavor)) {
    const auto text = say_version(out.launcher);
    if (text.find("Open MPI) 4") != std::string::npos) {
      out.flavor = Flavor::openmpi4;
    } else if (text.find("Open MPI) 5") != std::string::npos ||
               text.find("PRRTE") != std::string::npos) {
      out.flavor = Flavor::openmpi5;
    } else if (text.find("HYDRA") != std::string::npos || text.find("MPICH") != std::string::npos) {
      out.flavor = Flavor::mpich;
    } else {
      return out.launcher + " is neither Open MPI 4 or 5 nor MPICH: choose another mpirun";
    }
  }
  out.prefix = folder_of(folder_of(out.launcher));
  out.library = library_of(out.prefix, out.flavor);
  return {};
}

}  // namespace metier::mpi
